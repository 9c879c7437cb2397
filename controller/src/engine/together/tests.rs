//! Controllers among which one writes what others do not understand: nobody decides on half a state. And one for which
//! reading everything takes longer than its lease lives.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rota_rollout::names::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::engine::records::keys;
use crate::engine::{AgentKey, Ask, Asked, Batch, Handle, Heartbeat, Hello};
use crate::members::{MemberRecord, SPEAKS, keys as members};
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, Entry, LeaseId, Op, Outcome, Record, Txn};

/// Frozen by a version that knows more about it.
const NEWER: &[u8] = br#"{"v":2,"frozen":{"of":"the future"},"windows":[]}"#;

struct Site {
    _dir: TempDir,
    store: Arc<SqliteStore>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("rota.db")).unwrap();
        Self { _dir: dir, store }
    }

    async fn begin(&self, name: &str) -> Result<Handle, OpenError> {
        let (store, advertise) = (self.store.clone(), format!("{name}:7400"));
        let membership = Membership {
            store,
            name: name.to_owned(),
            advertise: advertise.clone(),
            instance: name.to_owned(),
            rollouts_max: 100,
        };
        let who = Own { name: name.to_owned(), advertise, membership: Some(membership) };
        let (engine, handle) = Engine::open(self.store.clone(), who, Box::new(|_| {})).await?;
        tokio::spawn(engine.run());
        Ok(handle)
    }

    async fn change(&self, op: Op) {
        self.store.commit(Txn { compares: Vec::new(), ops: vec![op] }).await.unwrap();
    }

    async fn is_in(&self, name: &str) -> bool {
        self.store.get(&members::member(name)).await.unwrap().is_some()
    }

    /// As somebody else would be in.
    async fn member(&self, name: &str, speaks: u32) -> MemberRecord {
        let entry = self.store.get(&members::member(name)).await.unwrap().unwrap();
        let there = MemberRecord::decode(&entry).unwrap();
        MemberRecord { speaks, version: "9.0.0".to_owned(), ..there }
    }
}

fn down(handle: &Handle) -> String {
    handle.read().store_down.clone().unwrap_or_default()
}

async fn until(what: &str, right: impl AsyncFn() -> bool) {
    let looks = async {
        while !right().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looks).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_not_decided_about() {
    let site = Site::new();
    let handles = [site.begin("c1").await.unwrap(), site.begin("c2").await.unwrap()];
    until("somebody leads", async || handles.iter().any(|it| it.read().leads())).await;
    // With the seal that says: whoever has seen this has seen the freeze, too.
    let seal = Op::put("/seal/guard/prod", br#"{"v":1,"at":1,"by":"c9"}"#.to_vec());
    let ops = vec![Op::put("/envs/prod", NEWER.to_vec()), seal];
    site.store.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
    for handle in &handles {
        let says = "/envs/prod: it has version 2 and this program knows 1; a newer `rota serve`";
        until("it says so", async || down(handle).contains(says)).await;
        let seen = handle.read().cluster.as_ref().unwrap().revs.contains_key("/seal/guard/prod");
        assert!(!seen, "the seal counts as seen, and its freeze was not");
    }
    until("both step aside", async || !site.is_in("c1").await && !site.is_in("c2").await).await;
    let refused = site.begin("c3").await.err().unwrap().to_string();
    assert!(refused.contains("/envs/prod: it has version 2"), "{refused}");
    assert!(!site.is_in("c3").await, "it was in although it cannot take part");
    site.change(Op::Delete("/envs/prod".to_owned())).await;
    for (name, handle) in ["c1", "c2"].into_iter().zip(&handles) {
        until("it works again", async || down(handle).is_empty() && site.is_in(name).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_new_is_not_worked_with() {
    let site = Site::new();
    let handle = site.begin("c1").await.unwrap();
    let (near, far) = (SPEAKS + 1, SPEAKS + 2);
    let key = members::member("c9");
    site.change(Op::put(&key, site.member("c1", near).await.encode().unwrap())).await;
    let knows = async || handle.read().cluster.as_ref().unwrap().members.contains_key("c9");
    until("a neighbour is known", knows).await;
    assert_eq!(down(&handle), "");
    site.change(Op::put(&key, site.member("c1", far).await.encode().unwrap())).await;
    until("it says so", async || down(&handle).contains("controller c9 is in with 9.0.0")).await;
    until("it steps aside", async || !site.is_in("c1").await).await;
    let refused = site.begin("c2").await.err().unwrap().to_string();
    assert!(refused.contains("controller c9 is in with 9.0.0"), "{refused}");
    site.change(Op::Delete(key)).await;
    until("it works again", async || down(&handle).is_empty() && site.is_in("c1").await).await;
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_left_out() {
    let site = Site::new();
    let event = |seq: u64| format!("/events/{seq:020}");
    site.change(Op::put(event(7), br#"{"v":2,"song":true}"#.to_vec())).await;
    let handle = site.begin("c1").await.unwrap();
    assert!(handle.read().events.is_empty() && handle.read().next_event > 7);
}

/// An edge says Hello to this one alone.
async fn edge_comes(
    handle: &Handle,
    name: &str,
) -> mpsc::Receiver<Box<rota_proto::agent::ToAgent>> {
    let (out, told) = mpsc::channel(100);
    let hello = rota_proto::agent::Hello { env: "prod".into(), protocol: 1, ..Default::default() };
    let (key, peer) = (AgentKey::Edge(name.parse().unwrap()), "10.0.0.9".to_owned());
    let hello = Hello { key, session: 7, peer, hello, out, beat: Heartbeat::default() };
    assert!(handle.tell(Input::Hello(Box::new(hello))).await);
    until("it is known", async || knows_edge(handle, name)).await;
    told
}

fn knows_edge(handle: &Handle, name: &str) -> bool {
    handle.read().edges().any(|(edge, _)| edge.as_str() == name)
}

/// Nothing that is watched would take such an edge away again, and every rollout of its pool would wait for its word.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_was_removed_meanwhile_stays_away() {
    let site = Site::new();
    let lead = site.begin("c1").await.unwrap();
    until("c1 leads", async || lead.read().leads()).await;
    let handle = site.begin("c2").await.unwrap();
    let revoke = async |name: &str| {
        let of = format!("spiffe://rota/edge/{name}");
        let record = serde_json::json!({
            "v": 1, "identity": of, "why": "removed", "at": 1, "not_after": u32::MAX
        });
        site.change(Op::put(format!("/revoked/{name}"), record.to_string().into_bytes())).await;
    };
    let read_anew = async || {
        let epoch = || handle.read().cluster.as_ref().unwrap().epoch;
        let before = epoch();
        site.change(Op::Delete(members::member("c2"))).await;
        until("it is in again", async || epoch() > before && down(&handle).is_empty()).await;
    };
    let mut told = edge_comes(&handle, "lb-02").await;
    read_anew().await;
    assert!(knows_edge(&handle, "lb-02"), "it said Hello here");
    revoke("lb-02").await;
    read_anew().await;
    assert!(!knows_edge(&handle, "lb-02"), "it was removed");
    while told.recv().await.is_some() {}
    // It comes in again before this controller hears that it is revoked.
    let _told = edge_comes(&handle, "lb-02").await;
    let key = AgentKey::Edge("lb-02".parse().unwrap());
    assert!(handle.tell(Input::Gone { key, session: 7, revoked: true }).await);
    until("it is away", async || !knows_edge(&handle, "lb-02")).await;
}

/// A store with troubles.
struct Troubled {
    inner: Arc<SqliteStore>,
    granted: AtomicBool,
    /// Once a lease is granted, nodes are not read before it was renewed.
    renewed: watch::Sender<bool>,
    /// It answers, and takes nothing.
    full: AtomicBool,
    /// What it did not take.
    refused: AtomicUsize,
}

impl Troubled {
    fn open(dir: &TempDir, renewed: bool) -> Arc<Troubled> {
        Arc::new(Troubled {
            inner: SqliteStore::open(&dir.path().join("rota.db")).unwrap(),
            granted: AtomicBool::new(false),
            renewed: watch::Sender::new(renewed),
            full: AtomicBool::new(false),
            refused: AtomicUsize::new(0),
        })
    }

    fn owned_by_c1(self: &Arc<Self>) -> Own {
        let membership = Membership {
            store: self.clone(),
            name: "c1".to_owned(),
            advertise: "c1:7400".to_owned(),
            instance: "one".to_owned(),
            rollouts_max: 100,
        };
        Own { membership: Some(membership), ..Own::alone("c1", "c1:7400") }
    }
}

#[tonic::async_trait]
impl Store for Troubled {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.get(key).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Entry>, StoreRevision), StoreError> {
        if prefix == keys::NODES && self.granted.load(Ordering::SeqCst) {
            self.renewed.subscribe().wait_for(|renewed| *renewed).await.unwrap();
        }
        self.inner.scan(prefix, after, limit).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        if !self.full.load(Ordering::SeqCst) {
            return self.inner.commit(txn).await;
        }
        self.refused.fetch_add(1, Ordering::SeqCst);
        Err(StoreError::Unavailable("mvcc: database space exceeded".to_owned()))
    }

    async fn watch(
        &self,
        prefix: &str,
        since: StoreRevision,
    ) -> Result<mpsc::Receiver<Change>, StoreError> {
        self.inner.watch(prefix, since).await
    }

    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.granted.store(true, Ordering::SeqCst);
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        self.renewed.send_replace(true);
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.inner.revoke(lease).await
    }
}

#[tokio::test]
async fn a_lease_is_renewed_while_everything_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Troubled::open(&dir, false);
    let who = store.owned_by_c1();
    let opening = Engine::open(store, who, Box::new(|_| {}));
    let opened = tokio::time::timeout(Duration::from_secs(20), opening).await;
    let (_engine, handle) = opened.expect("the lease was not renewed").unwrap();
    assert!(handle.read().place() > 0);
}

/// A controller that leads, on a store that may be full.
async fn on_full(dir: &TempDir) -> (Arc<Troubled>, Engine, Handle) {
    let store = Troubled::open(dir, true);
    let who = store.owned_by_c1();
    let (engine, handle) = Engine::open(store.clone(), who, Box::new(|_| {})).await.unwrap();
    (store, engine, handle)
}

/// Else every agent would be asked again for what could not be written down again, without a pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_only_answers_is_not_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, engine, handle) = on_full(&dir).await;
    tokio::spawn(engine.run());
    until("it leads", async || handle.read().leads()).await;
    let freeze = || {
        let (env, why, until) = ("prod".parse().unwrap(), "sale".to_owned(), None);
        Asked { who: "ann".to_owned(), ask: Ask::Freeze { env, why, until }, forwarded: false }
    };
    let epoch = || handle.read().cluster.as_ref().unwrap().epoch;
    store.full.store(true, Ordering::SeqCst);
    handle.ask(freeze()).await.unwrap_err();
    let before = epoch();
    let tried = async || store.refused.load(Ordering::SeqCst) >= 3;
    until("it tries again", tried).await;
    assert!(down(&handle).contains("mvcc: database space exceeded"), "{}", down(&handle));
    assert_eq!(epoch(), before, "everything was read although nothing can be written");
    store.full.store(false, Ordering::SeqCst);
    until("it works again", async || down(&handle).is_empty()).await;
    handle.ask(freeze()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_it_turned_away_gets_the_time_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, mut engine, _handle) = on_full(&dir).await;
    let away = StoreError::Unavailable("away".to_owned());
    engine.started = Timestamp(1);
    engine.recover(Batch::default(), &away).await;
    assert_eq!(engine.started, Timestamp(1), "nobody was turned away");
    store.full.store(true, Ordering::SeqCst);
    let back = async {
        until("it tries", async || store.refused.load(Ordering::SeqCst) >= 1).await;
        store.full.store(false, Ordering::SeqCst);
    };
    tokio::join!(engine.recover(Batch::default(), &away), back);
    assert!(engine.started > Timestamp(1));
}
