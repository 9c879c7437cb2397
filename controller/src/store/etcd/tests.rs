//! The etcd adapter keeps every promise, with a real etcd; skipped, loudly, where there is none.

#[path = "../../../../tests/src/etcd.rs"]
#[expect(dead_code, reason = "clusters are for the tests of faults, which share this file")]
mod server;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use rota_proto::etcd::etcdserverpb::CompactionRequest;
use server::Etcd;

use super::*;
use crate::store::conformance::{Fixture, suite};
use crate::store::{Compare, Op};

/// One etcd for all tests, each below a prefix of its own.
fn shared() -> Option<&'static Etcd> {
    static SHARED: OnceLock<Option<Etcd>> = OnceLock::new();
    SHARED.get_or_init(Etcd::shared).as_ref()
}

struct Own {
    url: String,
    /// One that nobody else uses: its history can be forgotten.
    _alone: Option<Etcd>,
}

impl Own {
    fn of(promise: &str) -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if promise == "watch_forgotten" {
            let etcd = Etcd::start(1)?;
            return Some(Self { url: etcd.url(), _alone: Some(etcd) });
        }
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        Some(Self { url: format!("{}?prefix=/test/{n}", shared()?.url()), _alone: None })
    }

    async fn store(&self) -> Arc<EtcdStore> {
        EtcdStore::open(self.url.parse().unwrap()).await.unwrap()
    }
}

impl Fixture for Own {
    async fn open(&self) -> Arc<dyn Store> {
        self.store().await
    }

    async fn forget_history(&self, _: &Arc<dyn Store>) {
        let store = self.store().await;
        // The revision of a compaction is still there afterwards.
        let filler = Txn { compares: vec![], ops: vec![put("/filler".to_owned(), 1)] };
        store.commit(filler).await.unwrap();
        let revision = revision(&store.cluster, &store.keys).await.unwrap();
        let ask = |channel, request: Request<CompactionRequest>| async move {
            KvClient::new(channel).compact(request).await
        };
        let request =
            CompactionRequest { revision: i64::try_from(revision).unwrap(), physical: true };
        store.cluster.ask(Repeat::No, request, ask).await.unwrap();
    }

    fn lease_min(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn ops_max(&self) -> usize {
        60_000
    }

    fn is_alone(&self) -> bool {
        self._alone.is_some()
    }
}

suite!(Own::of);

fn put(key: String, size: usize) -> Op {
    Op::put(key, vec![b'x'; size])
}

#[tokio::test]
async fn thousands_are_one_transaction() {
    let Some(own) = Own::of("thousands") else { return };
    let store = own.store().await;
    let ops = |value: usize| (0..9000).map(|n| put(format!("/n/{n:05}"), value)).collect();
    let Outcome::Done(at) = store.commit(Txn { compares: vec![], ops: ops(1) }).await.unwrap()
    else {
        panic!("refused")
    };
    let (all, _) = store.scan("/n/", "", usize::MAX).await.unwrap();
    assert_eq!(all.len(), 9000);
    assert!(all.iter().all(|entry| entry.modified == at));
    let same = |n: usize| Compare::Modified(format!("/n/{n:05}"), at);
    let mut compares: Vec<Compare> = (0..9000).map(same).collect();
    compares.push(Compare::Absent("/other".to_owned()));
    let other = vec![put("/other".to_owned(), 1)];
    let txn = Txn { compares, ops: other };
    assert!(matches!(store.commit(txn.clone()).await.unwrap(), Outcome::Done(_)));
    assert_eq!(store.commit(txn).await.unwrap(), Outcome::Refused, "/other is there");
}

/// A controller that is busy does not read its watch: what it commits meanwhile is answered all the same.
#[tokio::test]
async fn a_watch_that_nobody_reads_is_in_nobodys_way() {
    let Some(own) = Own::of("unread") else { return };
    let store = own.store().await;
    let mut watch = store.watch("", 0).await.unwrap();
    for round in 0..30 {
        let ops = (0..20).map(|n| put(format!("/n/{round:02}/{n:02}"), 50_000)).collect();
        let committed = store.commit(Txn { compares: vec![], ops }).await;
        assert!(matches!(committed, Ok(Outcome::Done(_))), "after {round} MB: {committed:?}");
    }
    for _ in 0..600 {
        assert!(matches!(watch.recv().await, Some(Change::Put(_))), "nothing of it is lost");
    }
}

/// A transaction of some MiB that also puts a key which it compares.
fn large(head: u64, size: usize) -> Txn {
    let head = match head {
        0 => Compare::Absent("/head".to_owned()),
        at => Compare::Modified("/head".to_owned(), at),
    };
    let mut ops = vec![Op::put("/head", b"moved".to_vec())];
    ops.extend((0..40).map(|n| put(format!("/n/{n:02}"), size)));
    Txn { compares: vec![head], ops }
}

#[tokio::test]
async fn what_is_larger_than_a_request_is_staged() {
    let Some(own) = Own::of("staged") else { return };
    let store = own.store().await;
    let mut watch = store.watch("", 0).await.unwrap();
    let Outcome::Done(at) = store.commit(large(0, 100_000)).await.unwrap() else { panic!() };
    let head = store.get("/head").await.unwrap().unwrap();
    assert_eq!(head.modified, at, "what is compared is there at once");
    let (all, _) = store.scan("", "", usize::MAX).await.unwrap();
    assert_eq!(all.len(), 41, "all is there, and nothing else is seen");
    assert_eq!(store.commit(large(0, 100_001)).await.unwrap(), Outcome::Refused);
    let (same, _) = store.scan("", "", usize::MAX).await.unwrap();
    assert_eq!(same, all, "a refused one changes nothing");
    let (left, _) = store.range(store.keys.staged(""), usize::MAX).await.unwrap();
    assert_eq!(left, [], "nothing is left");
    for _ in 0..41 {
        let Some(Change::Put(entry)) = watch.recv().await else { panic!("a put") };
        assert!(!entry.key.starts_with("/staged"), "{}", entry.key);
    }
    assert!(watch.try_recv().is_err(), "nothing else is told");
    let huge = Txn { compares: vec![], ops: vec![put("/huge".to_owned(), 2_000_000)] };
    let told = store.commit(huge).await.unwrap_err().to_string();
    assert!(told.contains("/huge with its value is 2000005 bytes"), "{told}");
}
