//! What every adapter must do. One function a promise; `suite!` makes a test of each for one
//! adapter.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::{Change, Compare, Entry, LeaseId, Op, Outcome, Store, StoreRevision, Txn, scan_all};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

/// An adapter under test: one empty store of its own, which can be opened again.
pub(crate) trait Fixture {
    /// Opens it; the last one opened was dropped.
    async fn open(&self) -> Arc<dyn Store>;
    /// Makes it forget the history up to now.
    async fn forget_history(&self, store: &Arc<dyn Store>);
    /// The shortest lease that it grants as asked.
    fn lease_min(&self) -> Duration;
    /// The most operations of one transaction.
    fn ops_max(&self) -> usize;
    /// Does nobody else raise the revision?
    fn is_alone(&self) -> bool;

    /// Checks the revision of the commit after that of `before`.
    fn assert_next(&self, at: StoreRevision, before: StoreRevision) {
        let right = if self.is_alone() { at == before + 1 } else { at > before };
        assert!(right, "{at} after {before}");
    }

    /// Checks a revision when nothing was committed since `before`.
    fn assert_still(&self, at: StoreRevision, before: StoreRevision) {
        let right = if self.is_alone() { at == before } else { at >= before };
        assert!(right, "{at} after {before}");
    }
}

/// Makes a test of every promise, each with a fixture of its own, made for the promise of that name; a test is skipped
/// where there is none.
macro_rules! suite {
    ($fixture:path) => {
        $crate::store::conformance::suite!($fixture;
            compares, refusals_change_nothing, revisions, prefixes, pages, watch_from_the_past,
            watch_resumes, watch_forgotten, slow_watch_holds_nobody_up, leases_end, leases_kept,
            leases_revoked, leases_let_go, no_increment_is_lost, big_ones, reopened);

        #[test]
        fn behaves_like_the_model() {
            let fixture = || $fixture("behaves_like_the_model");
            $crate::store::conformance::random::behaves_like_the_model(fixture);
        }
    };
    ($fixture:path; $($promise:ident),*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            if let Some(fixture) = $fixture(stringify!($promise)) {
                $crate::store::conformance::$promise(&fixture).await;
            }
        })*
    };
}
pub(crate) use suite;

#[path = "conformance_random.rs"]
pub(crate) mod random;

pub(super) fn put(key: &str, value: &str) -> Op {
    Op::put(key, value.as_bytes().to_vec())
}

fn leased(key: &str, lease: LeaseId) -> Op {
    Op::Put { key: key.to_owned(), value: b"held".to_vec(), lease: Some(lease) }
}

fn delete(key: &str) -> Op {
    Op::Delete(key.to_owned())
}

async fn commit(store: &Arc<dyn Store>, compares: Vec<Compare>, ops: Vec<Op>) -> Outcome {
    store.commit(Txn { compares, ops }).await.unwrap()
}

/// Commits what must not be refused.
async fn done(store: &Arc<dyn Store>, ops: Vec<Op>) -> StoreRevision {
    match commit(store, Vec::new(), ops).await {
        Outcome::Done(revision) => revision,
        Outcome::Refused => panic!("refused without a compare"),
    }
}

async fn now(store: &Arc<dyn Store>) -> StoreRevision {
    store.scan("", "", 0).await.unwrap().1
}

pub(super) async fn next(changes: &mut Receiver<Change>) -> Option<Change> {
    tokio::time::timeout(PATIENCE, changes.recv()).await.expect("a change in time")
}

/// What is deleted next, and when.
async fn deleted(changes: &mut Receiver<Change>) -> (String, StoreRevision) {
    match next(changes).await {
        Some(Change::Deleted { key, at }) => (key, at),
        other => panic!("a deletion, not {other:?}"),
    }
}

/// `+key=value` for a put, `-key` for a deletion.
async fn told(changes: &mut Receiver<Change>, count: usize) -> Vec<String> {
    let mut told = Vec::new();
    for _ in 0..count {
        told.push(match next(changes).await.expect("a change") {
            Change::Put(e) => format!("+{}={}", e.key, String::from_utf8(e.value).unwrap()),
            Change::Deleted { key, .. } => format!("-{key}"),
            Change::Compacted { .. } => "compacted".to_owned(),
        });
    }
    told
}

async fn keys(store: &Arc<dyn Store>, prefix: &str, after: &str, limit: usize) -> Vec<String> {
    let (entries, _) = store.scan(prefix, after, limit).await.unwrap();
    entries.into_iter().map(|entry| entry.key).collect()
}

pub(crate) async fn compares(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let first = done(&store, vec![put("/made-again", "1")]).await;
    done(&store, vec![delete("/made-again")]).await;
    let created = done(&store, vec![put("/made-again", "2"), put("/there", "1")]).await;
    let modified = done(&store, vec![put("/there", "2")]).await;
    let key = str::to_owned;
    for (compare, holds) in [
        (Compare::Absent(key("/gone")), true),
        (Compare::Absent(key("/there")), false),
        (Compare::Absent(key("/the")), true),
        (Compare::Created(key("/there"), created), true),
        (Compare::Created(key("/there"), modified), false),
        (Compare::Created(key("/made-again"), created), true),
        (Compare::Created(key("/made-again"), first), false),
        (Compare::Created(key("/gone"), created), false),
        (Compare::Created(key("/gone"), 0), false),
        (Compare::Modified(key("/there"), modified), true),
        (Compare::Modified(key("/there"), created), false),
        (Compare::Modified(key("/gone"), modified), false),
        (Compare::Modified(key("/gone"), 0), false),
    ] {
        let outcome = commit(&store, vec![compare.clone()], vec![put("/out", "x")]).await;
        assert_eq!(outcome != Outcome::Refused, holds, "{compare:?}");
    }
    let both = vec![
        Compare::Absent(key("/gone")),
        Compare::Created(key("/there"), created),
        Compare::Modified(key("/there"), created),
    ];
    assert_eq!(commit(&store, both, vec![]).await, Outcome::Refused, "all must hold");
}

pub(crate) async fn refusals_change_nothing(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let before = done(&store, vec![put("/a", "1"), put("/b", "1")]).await;
    let ops = || vec![put("/a", "2"), delete("/b"), put("/c", "2")];
    let refused = commit(&store, vec![Compare::Absent("/a".to_owned())], ops()).await;
    assert_eq!(refused, Outcome::Refused);
    let (entries, revision) = store.scan("/", "", 10).await.unwrap();
    fixture.assert_still(revision, before);
    let entry = |key: &str| Entry {
        key: key.to_owned(),
        value: b"1".to_vec(),
        created: before,
        modified: before,
    };
    assert_eq!(entries, [entry("/a"), entry("/b")]);
    let twice = Txn { compares: vec![], ops: vec![put("/d", "1"), put("/d", "2")] };
    assert!(store.commit(twice).await.is_err(), "a key may appear once");
    fixture.assert_still(now(&store).await, before);
    done(&store, ops()).await;
    assert_eq!(keys(&store, "/", "", 10).await, ["/a", "/c"]);
}

pub(crate) async fn revisions(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let start = now(&store).await;
    assert_eq!(store.get("/a").await.unwrap(), None);
    // The number of the commit that made the key, and of the one that put it last.
    let mut commits = vec![start];
    for (ops, changes, created, modified) in [
        (vec![put("/a", "1")], true, Some(1), 1),
        (vec![put("/a", "1")], true, Some(1), 2),
        (vec![put("/b", "1"), put("/c", "1")], true, Some(1), 2),
        (vec![delete("/gone")], false, Some(1), 2),
        (vec![], false, Some(1), 2),
        (vec![delete("/a")], true, None, 0),
        (vec![delete("/a")], false, None, 0),
        (vec![put("/a", "2")], true, Some(5), 5),
    ] {
        let (at, before) = (done(&store, ops.clone()).await, commits[commits.len() - 1]);
        if changes {
            fixture.assert_next(at, before);
            commits.push(at);
        } else {
            fixture.assert_still(at, before);
        }
        let found = store.get("/a").await.unwrap().map(|e| (e.created, e.modified));
        let right = created.map(|created| (commits[created], commits[modified]));
        assert_eq!(found, right, "{ops:?}");
        fixture.assert_still(now(&store).await, at);
    }
}

pub(crate) async fn prefixes(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let all = ["/a", "/a/", "/a/1", "/a0", "/ab", "/b", "/é", "/\u{10ffff}", "/\u{10ffff}/x"];
    done(&store, all.iter().map(|key| put(key, "1")).collect()).await;
    for (prefix, found) in [
        ("", &all[..]),
        ("/", &all[..]),
        ("/a", &all[..5]),
        ("/a/", &all[1..3]),
        ("/a/1", &all[2..3]),
        ("/a/11", &[]),
        ("/ab", &all[4..5]),
        ("/c", &[]),
        ("/é", &all[6..7]),
        ("/\u{10ffff}", &all[7..]),
        ("a", &[]),
    ] {
        assert_eq!(keys(&store, prefix, "", 100).await, found, "{prefix:?}");
    }
}

pub(crate) async fn pages(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let names: Vec<_> = (0..1200).map(|n| format!("/n/{n:04}")).collect();
    for chunk in names.chunks(100) {
        done(&store, chunk.iter().map(|key| put(key, "1")).collect()).await;
    }
    let revision = done(&store, vec![put("/m", "1"), put("/o", "1")]).await;
    for (after, limit, found) in [
        ("", 0, 0..0),
        ("", 2, 0..2),
        ("/a", 2, 0..2),
        ("/n/", 2, 0..2),
        ("/n/0001", 2, 2..4),
        ("/n/0001x", 2, 2..4),
        ("/n/1198", 5, 1199..1200),
        ("/n/1199", 5, 0..0),
        ("/z", 5, 0..0),
        ("/n/0999", usize::MAX, 1000..1200),
    ] {
        assert_eq!(keys(&store, "/n/", after, limit).await, names[found], "{after:?} {limit}");
    }
    let (all, at) = scan_all(&*store, "/n/").await.unwrap();
    assert_eq!(all.into_iter().map(|entry| entry.key).collect::<Vec<_>>(), names);
    fixture.assert_still(at, revision);
}

pub(crate) async fn watch_from_the_past(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let start = done(&store, vec![put("/a/0", "before")]).await;
    done(&store, vec![put("/a/2", "x"), put("/ab", "x"), put("/a/1", "x")]).await;
    done(&store, vec![put("/b", "x")]).await;
    let last = done(&store, vec![delete("/a/2"), put("/a/1", "y"), delete("/gone")]).await;
    let past = ["+/a/2=x", "+/a/1=x", "-/a/2", "+/a/1=y"];
    let mut under_a = store.watch("/a/", start).await.unwrap();
    let mut all = store.watch("", last).await.unwrap();
    assert_eq!(told(&mut under_a, 4).await, past);
    done(&store, vec![put("/a", "live"), put("/a/3", "live")]).await;
    assert_eq!(told(&mut under_a, 1).await, ["+/a/3=live"]);
    assert_eq!(told(&mut all, 2).await, ["+/a=live", "+/a/3=live"]);
}

pub(crate) async fn watch_resumes(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut seen = now(&store).await;
    let writer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for n in 0..60 {
                done(&store, vec![put("/n", &n.to_string())]).await;
            }
        }
    });
    // A watch that breaks again and again, while somebody writes, sees everything once and in
    // order.
    let mut values = Vec::new();
    while values.len() < 60 {
        let mut watch = store.watch("/n", seen).await.unwrap();
        for _ in 0..7.min(60 - values.len()) {
            let Some(Change::Put(entry)) = next(&mut watch).await else { panic!("a put") };
            seen = entry.modified;
            values.push(String::from_utf8(entry.value).unwrap().parse::<u32>().unwrap());
        }
    }
    assert_eq!(values, (0..60).collect::<Vec<_>>());
    writer.await.unwrap();
}

pub(crate) async fn watch_forgotten(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let start = done(&store, vec![put("/a", "1")]).await;
    fixture.forget_history(&store).await;
    let mut watch = store.watch("/a", start - 1).await.unwrap();
    let Some(Change::Compacted { now: revision }) = next(&mut watch).await else {
        panic!("compacted")
    };
    fixture.assert_still(now(&store).await, revision);
    assert_eq!(next(&mut watch).await, None, "the watch is over");
    let mut again = store.watch("/a", revision).await.unwrap();
    done(&store, vec![put("/a", "2")]).await;
    assert_eq!(told(&mut again, 1).await, ["+/a=2"]);
}

pub(crate) async fn slow_watch_holds_nobody_up(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let mut slow = store.watch("/n", now(&store).await).await.unwrap();
    for n in 0..100 {
        done(&store, (0..10).map(|i| put(&format!("/n/{i}"), &n.to_string())).collect()).await;
    }
    // It may have been ended, but what it was told has no gap.
    let mut count = 0;
    while count < 1000
        && let Some(change) = next(&mut slow).await
    {
        let Change::Put(entry) = change else { panic!("a put, not {change:?}") };
        let (value, key) = ((count / 10).to_string(), format!("/n/{}", count % 10));
        assert_eq!((entry.key, entry.value), (key, value.into_bytes()));
        count += 1;
    }
    assert!(count > 0);
}

pub(crate) async fn leases_end(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let lease = store.grant(fixture.lease_min()).await.unwrap();
    let at = done(&store, vec![leased("/b", lease), leased("/a", lease), put("/c", "x")]).await;
    let mut watch = store.watch("/", at).await.unwrap();
    let mut ended = [deleted(&mut watch).await, deleted(&mut watch).await];
    ended.sort();
    let [(first, then), (second, also)] = ended;
    assert_eq!((first.as_str(), second.as_str()), ("/a", "/b"));
    assert_eq!(then, also, "both at once");
    fixture.assert_next(then, at);
    assert_eq!(keys(&store, "/", "", 10).await, ["/c"]);
    assert!(!store.keep_alive(lease).await.unwrap(), "it has ended");
    assert!(!store.keep_alive(LeaseId(i64::MAX)).await.unwrap(), "there is none");
    let late = commit(&store, vec![], vec![put("/d", "x"), leased("/a", lease)]).await;
    assert_eq!(late, Outcome::Refused, "nothing is put under a lease that has ended");
    assert_eq!(keys(&store, "/", "", 10).await, ["/c"]);
    store.revoke(lease).await.unwrap();
}

pub(crate) async fn leases_kept(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let ttl = fixture.lease_min() * 4;
    let (kept, left) = (store.grant(ttl).await.unwrap(), store.grant(ttl).await.unwrap());
    let at = done(&store, vec![leased("/kept", kept), leased("/left", left)]).await;
    let mut watch = store.watch("/", at).await.unwrap();
    let mut every = tokio::time::interval(ttl / 8);
    let (first, ended) = loop {
        tokio::select! {
            ended = deleted(&mut watch) => break ended,
            _ = every.tick() => assert!(store.keep_alive(kept).await.unwrap()),
        }
    };
    assert_eq!(first, "/left");
    fixture.assert_next(ended, at);
    assert!(store.keep_alive(kept).await.unwrap());
    assert_eq!(told(&mut watch, 1).await, ["-/kept"], "when nobody keeps it any more");
}

pub(crate) async fn leases_revoked(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    let at = done(&store, vec![leased("/a", lease)]).await;
    store.revoke(lease).await.unwrap();
    assert_eq!(store.get("/a").await.unwrap(), None);
    assert!(!store.keep_alive(lease).await.unwrap());
    let mut watch = store.watch("/", at).await.unwrap();
    let (gone, ended) = deleted(&mut watch).await;
    assert_eq!(gone, "/a");
    fixture.assert_next(ended, at);
    store.revoke(lease).await.unwrap();
    fixture.assert_still(now(&store).await, ended);
}

pub(crate) async fn leases_let_go(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let (one, two) = (
        store.grant(Duration::from_secs(600)).await.unwrap(),
        store.grant(Duration::from_secs(600)).await.unwrap(),
    );
    let all = ["/deleted", "/for-good", "/moved", "/stays"];
    done(&store, all.iter().map(|key| leased(key, one)).collect()).await;
    done(&store, vec![put("/for-good", "x"), leased("/moved", two), delete("/deleted")]).await;
    done(&store, vec![put("/deleted", "again")]).await;
    store.revoke(one).await.unwrap();
    assert_eq!(keys(&store, "/", "", 10).await, ["/deleted", "/for-good", "/moved"]);
    store.revoke(two).await.unwrap();
    assert_eq!(keys(&store, "/", "", 10).await, ["/deleted", "/for-good"]);
}

pub(crate) async fn no_increment_is_lost(fixture: &impl Fixture) {
    let store = fixture.open().await;
    done(&store, vec![put("/count", "0")]).await;
    let raise = |store: Arc<dyn Store>| async move {
        for _ in 0..10 {
            loop {
                let entry = store.get("/count").await.unwrap().unwrap();
                let count: u32 = String::from_utf8(entry.value).unwrap().parse().unwrap();
                let same = vec![Compare::Modified("/count".to_owned(), entry.modified)];
                let raised = vec![put("/count", &(count + 1).to_string())];
                if commit(&store, same, raised).await != Outcome::Refused {
                    break;
                }
            }
        }
    };
    let tasks: Vec<_> = (0..16).map(|_| tokio::spawn(raise(Arc::clone(&store)))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.get("/count").await.unwrap().unwrap().value, b"160");
}

pub(crate) async fn big_ones(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let big: Vec<u8> = (0..1024 * 1024).map(|n: u32| n.to_le_bytes()[0] ^ 0xa5).collect();
    let at = done(&store, vec![Op::put("/big", big.clone()), put("/empty", "")]).await;
    assert_eq!(store.get("/big").await.unwrap().unwrap().value, big);
    assert_eq!(store.get("/empty").await.unwrap().unwrap().value, b"");
    let mut watch = store.watch("/big", at - 1).await.unwrap();
    let Some(Change::Put(entry)) = next(&mut watch).await else { panic!("a put") };
    assert_eq!(entry.value, big);
    let count = fixture.ops_max().min(1000);
    let many = (0..count).map(|n| put(&format!("/many/{n:04}"), "x")).collect();
    let done = done(&store, many).await;
    fixture.assert_next(done, at);
    let (entries, _) = store.scan("/many/", "", usize::MAX).await.unwrap();
    assert_eq!(entries.len(), count);
    assert!(entries.iter().all(|entry| entry.modified == done));
}

pub(crate) async fn reopened(fixture: &impl Fixture) {
    let store = fixture.open().await;
    let start = now(&store).await;
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    done(&store, vec![put("/a", "1"), leased("/l", lease)]).await;
    done(&store, vec![put("/a", "2"), put("/b", "1")]).await;
    done(&store, vec![delete("/b")]).await;
    let before = store.scan("", "", 10).await.unwrap();
    let mut open = store.watch("", before.1).await.unwrap();
    drop(store);
    assert_eq!(next(&mut open).await, None, "a watch ends with its store");
    let store = fixture.open().await;
    let (entries, revision) = store.scan("", "", 10).await.unwrap();
    assert_eq!(entries, before.0);
    fixture.assert_still(revision, before.1);
    let mut watch = store.watch("", start).await.unwrap();
    assert_eq!(told(&mut watch, 5).await, ["+/a=1", "+/l=held", "+/a=2", "+/b=1", "-/b"]);
    assert!(store.keep_alive(lease).await.unwrap());
    store.revoke(lease).await.unwrap();
    assert!(done(&store, vec![put("/c", "1")]).await > before.1 + 1);
}
