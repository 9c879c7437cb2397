//! Members that die, freeze and come back, while writers write: no acknowledged write is lost, no refused one is there,
//! and a watch sees all of it once and in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rota::store::{Change, Op, Outcome, Reach, Store, StoreError, Txn};
use rota_tests::etcd::Etcd;
use tokio::time::timeout;

use crate::writers::{PATIENCE, Writers, open, put};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let store = open(&etcd.url()).await;
    let writers = Writers::start(&store).await;
    for _ in 0..3 {
        writers.go_on(100).await;
        let leader = etcd.leader();
        etcd.kill(leader);
        writers.go_on(100).await;
        etcd.spawn(leader);
        etcd.wait_ready();
    }
    writers.check("the leader was killed three times").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_lost_and_comes_back() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let store = open(&etcd.url()).await;
    let writers = Writers::start(&store).await;
    for n in 0..3 {
        writers.go_on(100).await;
        etcd.kill(n);
        writers.go_on(200).await;
        etcd.spawn(n);
        etcd.wait_ready();
    }
    writers.check("each member was lost and came back").await;
}

/// As near as we come to a slow disk: a member that neither answers nor breaks its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_freeze_in_turns() {
    let Some(etcd) = Etcd::start(3) else { return };
    let store = open(&etcd.url()).await;
    let writers = Writers::start(&store).await;
    for n in [0, 1, 2, etcd.leader()] {
        writers.go_on(50).await;
        etcd.freeze(n);
        writers.go_on(100).await;
        etcd.thaw(n);
        etcd.wait_ready();
    }
    writers.check("each member froze, and the leader again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quorum_is_lost_and_comes_back() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let store = open(&etcd.url()).await;
    let ttl = Duration::from_secs(5);
    let lease = store.grant(ttl).await.unwrap();
    let at = {
        let op = Op::Put { key: "/member".to_owned(), value: vec![], lease: Some(lease) };
        let Outcome::Done(at) =
            store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap()
        else {
            panic!("refused")
        };
        at
    };
    let mut watch = store.watch("/", at).await.unwrap();
    let mut reach = store.reach();
    assert_eq!(*reach.borrow_and_update(), Reach::Here);
    let leader = etcd.leader();
    let other = (leader + 1) % 3;
    etcd.kill(leader);
    etcd.kill(other);
    let lost = Instant::now();
    let (mut refused, mut unknown) = (0, 0);
    while refused + unknown < 3 || lost.elapsed() < ttl + Duration::from_secs(2) {
        let txn = Txn { compares: vec![], ops: vec![Op::put("/lost", vec![])] };
        match store.commit(txn).await {
            Err(StoreError::Unavailable(_)) => refused += 1,
            Err(StoreError::Unknown(_)) => unknown += 1,
            other => panic!("{other:?} without a quorum"),
        }
    }
    assert!(matches!(&*reach.borrow_and_update(), Reach::Away(_)), "that it is away is told");
    assert!(watch.try_recv().is_err(), "nothing has happened");
    etcd.spawn(leader);
    etcd.spawn(other);
    let last = put(&*store, "/back").await;
    assert_eq!(*reach.borrow_and_update(), Reach::Here, "that it is back is told");
    assert!(store.keep_alive(lease).await.unwrap(), "a new leader gives leases their full time");
    loop {
        match timeout(PATIENCE, watch.recv()).await.unwrap() {
            Some(Change::Put(entry)) if entry.key == "/back" => {
                // Several attempts may have come through.
                assert!(entry.modified <= last);
                break;
            }
            Some(Change::Put(entry)) => {
                assert!(entry.key == "/lost" && unknown > 0, "{} was refused", entry.key);
            }
            other => panic!("{other:?}"),
        }
    }
    println!("without a quorum: {refused} refused, {unknown} unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_outlast_a_loss_of_quorum() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let store = open(&etcd.url()).await;
    let writers = Writers::start(&store).await;
    writers.go_on(100).await;
    let leader = etcd.leader();
    let other = (leader + 1) % 3;
    etcd.kill(leader);
    etcd.kill(other);
    let mut reach = store.reach();
    let away = reach.wait_for(|reach| matches!(reach, Reach::Away(_)));
    drop(timeout(PATIENCE, away).await.unwrap().unwrap());
    etcd.spawn(leader);
    etcd.spawn(other);
    writers.go_on(200).await;
    writers.check("quorum was lost").await;
}

/// A store that knows one member only: what is away is away for it, and what is told is that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_answers_at_the_start() {
    let Some(mut etcd) = Etcd::start(1) else { return };
    let url = etcd.url();
    etcd.kill(0);
    let begun = Instant::now();
    let refused = rota::store::etcd::EtcdStore::open(url.parse().unwrap()).await;
    let told = refused.map(|_: Arc<_>| ()).unwrap_err().to_string();
    let member = url.strip_prefix("etcd://").unwrap();
    assert!(told.contains(member) && told.contains("cannot be reached"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}
