//! Random transactions, leases, scans, watches and restarts: the adapter answers as the model does.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::super::model::Model;
use super::super::{Change, Compare, LeaseId, Op, Outcome, Store, Txn};
use super::{Fixture, next, put};

const KEYS: [&str; 6] = ["/a", "/a/1", "/a/2", "/ab", "/b", "/b/é"];
const PREFIXES: [&str; 6] = ["", "/", "/a", "/a/", "/b", "/zz"];

/// Long enough that no lease ends by itself.
const LEASE: Duration = Duration::from_secs(3600);

/// A compare of a key: which kind, and of the right revision or one beside it.
type Guess = (u8, usize, u64);

/// What a put writes, and which of the leases it takes.
type Put = (u8, Option<usize>);

#[derive(Debug, Clone)]
enum Action {
    /// Keys with `None` are deleted; a put may take one of the leases.
    Commit {
        compares: Vec<Guess>,
        ops: Vec<(usize, Option<Put>)>,
    },
    Scan {
        prefix: usize,
        after: usize,
        limit: usize,
    },
    Watch {
        prefix: usize,
        back: u64,
    },
    Grant,
    Revoke(usize),
    Reopen,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let key = 0..KEYS.len();
    let compares = prop::collection::vec((0..3_u8, key.clone(), 0..5_u64), 0..3);
    let put = prop::option::weighted(0.7, (any::<u8>(), prop::option::weighted(0.3, 0..4_usize)));
    let ops = prop::collection::btree_map(key, put, 0..4)
        .prop_map(|ops| ops.into_iter().collect::<Vec<_>>())
        .prop_shuffle();
    let action = prop_oneof![
        12 => (compares, ops).prop_map(|(compares, ops)| Action::Commit { compares, ops }),
        3 => (0..PREFIXES.len(), 0..KEYS.len(), 0..5_usize)
            .prop_map(|(prefix, after, limit)| Action::Scan { prefix, after, limit }),
        3 => (0..PREFIXES.len(), 0..20_u64)
            .prop_map(|(prefix, back)| Action::Watch { prefix, back }),
        1 => Just(Action::Grant),
        1 => (0..4_usize).prop_map(Action::Revoke),
        1 => Just(Action::Reopen),
    ];
    prop::collection::vec(action, 1..40)
}

/// The adapter beside the model.
struct Pair<'a, F> {
    fixture: &'a F,
    store: Option<Arc<dyn Store>>,
    model: Model,
    start: u64,
    leases: Vec<LeaseId>,
}

pub(crate) fn behaves_like_the_model<F: Fixture>(fixture: impl Fn() -> Option<F>) {
    if fixture().is_none() {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let config = Config { cases: 48, failure_persistence: None, ..Config::default() };
    let check = |actions: Vec<Action>| {
        let fixture = fixture().unwrap();
        runtime.block_on(async {
            let store = fixture.open().await;
            let start = store.scan("", "", 0).await.unwrap().1;
            let model = Model::starting_at(start);
            let leases = Vec::new();
            let mut pair = Pair { fixture: &fixture, store: Some(store), model, start, leases };
            for action in actions {
                pair.check(action).await;
            }
        });
        Ok(())
    };
    TestRunner::new(config).run(&actions(), check).unwrap_or_else(|why| panic!("{why}"));
}

impl<F: Fixture> Pair<'_, F> {
    async fn check(&mut self, action: Action) {
        let store = Arc::clone(self.store.as_ref().unwrap());
        match action {
            Action::Commit { compares, ops } => {
                let compares = compares.into_iter().map(|guess| self.compare(guess)).collect();
                let ops = ops.into_iter().map(|(key, put)| self.op(key, put)).collect();
                let txn = Txn { compares, ops };
                self.commit(&store, &txn).await;
            }
            Action::Scan { prefix, after, limit } => {
                let (prefix, after) = (PREFIXES[prefix], KEYS[after]);
                let found = store.scan(prefix, after, limit).await.unwrap();
                let expected = self.model.scan(prefix, after, limit);
                assert_eq!(found.0, expected);
                self.fixture.assert_still(found.1, self.model.revision);
                assert_eq!(store.get(after).await.unwrap(), self.model.get(after));
            }
            Action::Watch { prefix, back } => self.watch(&store, PREFIXES[prefix], back).await,
            Action::Grant => {
                let lease = store.grant(LEASE).await.unwrap();
                self.model.grant(lease);
                self.leases.push(lease);
            }
            Action::Revoke(n) => {
                if let Some(lease) = self.leases.get(n).copied() {
                    self.revoke(&store, lease).await;
                }
            }
            Action::Reopen => {
                drop(self.store.take());
                drop(store);
                self.store = Some(self.fixture.open().await);
            }
        }
    }

    /// Both do it, and say the same; the revision is the store's, as others may raise it.
    async fn commit(&mut self, store: &Arc<dyn Store>, txn: &Txn) {
        let (before, outcome) = (self.model.revision, store.commit(txn.clone()).await.unwrap());
        let next = match outcome {
            Outcome::Done(at) => at,
            Outcome::Refused => before,
        };
        match (outcome, self.model.commit(txn, next)) {
            (Outcome::Refused, Outcome::Refused) => {}
            (Outcome::Done(at), Outcome::Done(_)) if self.model.revision == before => {
                self.fixture.assert_still(at, before);
            }
            (Outcome::Done(at), Outcome::Done(_)) => self.fixture.assert_next(at, before),
            (outcome, expected) => panic!("{outcome:?}, not {expected:?}: {txn:?}"),
        }
    }

    /// Ends a lease; when, only a watch tells.
    async fn revoke(&mut self, store: &Arc<dyn Store>, lease: LeaseId) {
        let since = self.model.revision;
        store.revoke(lease).await.unwrap();
        let mut at = since;
        if self.model.holds(lease) {
            let mut watch = store.watch("", since).await.unwrap();
            at = super::deleted(&mut watch).await.1;
            self.fixture.assert_next(at, since);
        }
        self.model.end(lease, at);
    }

    /// Everything since then, and one more change after which there is nothing else.
    async fn watch(&mut self, store: &Arc<dyn Store>, prefix: &str, back: u64) {
        let since = self.model.revision.saturating_sub(back).max(self.start);
        let mut watch = store.watch(prefix, since).await.unwrap();
        let after = if prefix.is_empty() { "/" } else { prefix };
        let last = Txn { compares: vec![], ops: vec![put(&format!("{after}~"), "last")] };
        self.commit(store, &last).await;
        for expected in self.model.changes(prefix, since) {
            let told: Option<Change> = next(&mut watch).await;
            assert_eq!(told, Some(expected), "{prefix:?} since {since}");
        }
        assert!(watch.try_recv().is_err(), "nothing more");
    }

    fn compare(&self, (kind, key, beside): Guess) -> Compare {
        let key = KEYS[key].to_owned();
        let of = |at: Option<u64>| at.unwrap_or(0) + beside.saturating_sub(3);
        let entry = self.model.get(&key);
        match kind {
            0 => Compare::Absent(key),
            1 => Compare::Created(key, of(entry.map(|e| e.created))),
            _ => Compare::Modified(key, of(entry.map(|e| e.modified))),
        }
    }

    fn op(&self, key: usize, put: Option<Put>) -> Op {
        let key = KEYS[key].to_owned();
        match put {
            None => Op::Delete(key),
            Some((value, lease)) => {
                let lease = lease.and_then(|n| self.leases.get(n).copied());
                Op::Put { key, value: vec![value], lease }
            }
        }
    }
}
