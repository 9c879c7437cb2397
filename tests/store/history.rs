//! History that is forgotten while a watch is behind or away: it tells all, or says that it cannot.

use rota::store::{Change, Op, Outcome, Store, Txn};
use rota_tests::etcd::Etcd;
use tokio::time::timeout;

use crate::writers::{PATIENCE, open, put};

fn compact(etcd: &Etcd, revision: u64) {
    etcd.post("kv/compaction", &format!(r#"{{"revision":"{revision}","physical":true}}"#));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_away_is_told_that_it_missed_something() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    // This one knows a single member, so that it is away while the others go on.
    let (near, far) = (open(&etcd.url_of(1)).await, open(&etcd.url()).await);
    let since = put(&*far, "/a").await;
    let mut watch = near.watch("/", since).await.unwrap();
    let seen = put(&*far, "/b").await;
    let told = timeout(PATIENCE, watch.recv()).await.unwrap();
    assert!(matches!(told, Some(Change::Put(entry)) if entry.modified == seen));
    etcd.kill(1);
    let mut missed = 0;
    for n in 0..10 {
        missed = put(&*far, &format!("/missed/{n}")).await;
    }
    compact(&etcd, missed);
    etcd.spawn(1);
    etcd.wait_ready();
    let told = timeout(PATIENCE, watch.recv()).await.unwrap();
    let Some(Change::Compacted { now }) = told else { panic!("{told:?}") };
    assert!(now >= missed, "{now} is before {missed}");
    assert_eq!(timeout(PATIENCE, watch.recv()).await.unwrap(), None, "it is over");
    // Read everything again, then watch from there.
    let mut again = near.watch("/", now).await.unwrap();
    let next = put(&*far, "/next").await;
    let told = timeout(PATIENCE, again.recv()).await.unwrap();
    assert!(matches!(told, Some(Change::Put(entry)) if entry.modified == next));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_was_away_goes_on_where_nothing_is_lost() {
    let Some(mut etcd) = Etcd::start(3) else { return };
    let (near, far) = (open(&etcd.url_of(1)).await, open(&etcd.url()).await);
    let since = put(&*far, "/a").await;
    let mut watch = near.watch("/", since).await.unwrap();
    etcd.kill(1);
    let mut puts = Vec::new();
    for n in 0..10 {
        puts.push(put(&*far, &format!("/missed/{n}")).await);
    }
    etcd.spawn(1);
    for at in puts {
        let told = timeout(PATIENCE, watch.recv()).await.unwrap();
        assert!(matches!(told, Some(Change::Put(entry)) if entry.modified == at));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_hears_all_or_that_it_cannot() {
    let Some(etcd) = Etcd::start(1) else { return };
    let store = open(&etcd.url()).await;
    let since = put(&*store, "/n").await;
    let mut watch = store.watch("/n", since).await.unwrap();
    let mut puts = Vec::new();
    // More than the connection and the queue hold: etcd must keep the rest for us.
    for n in 0..600 {
        let ops = vec![Op::put("/n", vec![n as u8; 100_000])];
        let Outcome::Done(at) = store.commit(Txn { compares: vec![], ops }).await.unwrap() else {
            panic!("refused")
        };
        puts.push(at);
    }
    compact(&etcd, *puts.last().unwrap());
    for (n, at) in puts.iter().enumerate() {
        match timeout(PATIENCE, watch.recv()).await.unwrap() {
            Some(Change::Put(entry)) => assert_eq!(entry.modified, *at, "no gap"),
            Some(Change::Compacted { now }) => {
                assert!(now >= *at);
                println!("it was told after {n} of {} changes", puts.len());
                return;
            }
            other => panic!("{other:?}"),
        }
    }
    println!("it heard all {} changes", puts.len());
}
