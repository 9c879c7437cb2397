//! Writers that go on while things break, and what must be true of what they were told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rota::store::etcd::EtcdStore;
use rota::store::{Change, Compare, Op, Outcome, Store, StoreError, Txn, scan_all};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

/// For what must come once nothing is broken any more.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Writers at once.
const WRITERS: usize = 4;

pub async fn open(url: &str) -> Arc<EtcdStore> {
    EtcdStore::open(url.parse().unwrap()).await.unwrap()
}

/// Commits until it is done, whatever is broken meanwhile.
pub async fn put(store: &dyn Store, key: &str) -> u64 {
    let begun = Instant::now();
    loop {
        let txn = Txn { compares: vec![], ops: vec![Op::put(key, b"x".to_vec())] };
        match store.commit(txn).await {
            Ok(Outcome::Done(at)) => return at,
            other => assert!(begun.elapsed() < PATIENCE, "{other:?}"),
        }
    }
}

/// What one writer was told of the keys that it wrote.
#[derive(Default)]
struct Told {
    /// With the revision.
    done: BTreeMap<String, u64>,
    /// Must not be there.
    never: BTreeSet<String>,
    /// Nobody knows.
    unknown: BTreeSet<String>,
    /// The longest time without an answer that it is done.
    gap: Duration,
}

/// Writers, and a watch that sees what they do.
pub struct Writers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Told>>,
    watch: JoinHandle<BTreeMap<String, u64>>,
    store: Arc<EtcdStore>,
}

impl Writers {
    pub async fn start(store: &Arc<EtcdStore>) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let since = put(&**store, "/fence").await;
        let watch = tokio::spawn(see(store.watch("/", since).await.unwrap()));
        let write = |n| write(n, Arc::clone(store), since, Arc::clone(&stop), Arc::clone(&done));
        let writers = (0..WRITERS).map(|n| tokio::spawn(write(n))).collect();
        Self { stop, done, writers, watch, store: Arc::clone(store) }
    }

    /// Waits until so many more commits were acknowledged.
    pub async fn go_on(&self, more: usize) {
        let (begun, want) = (Instant::now(), self.done.load(Ordering::Relaxed) + more);
        while self.done.load(Ordering::Relaxed) < want {
            assert!(begun.elapsed() < PATIENCE, "the writers stand still");
            // The writers' pace.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops them, and checks that what they were told is so.
    pub async fn check(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Told::default();
        for writer in self.writers {
            let one = writer.await.unwrap();
            told.done.extend(one.done);
            told.never.extend(one.never);
            told.unknown.extend(one.unknown);
            told.gap = told.gap.max(one.gap);
        }
        put(&*self.store, "/end").await;
        let (entries, _) = scan_all(&*self.store, "/w/").await.unwrap();
        let there: BTreeMap<_, _> = entries.into_iter().map(|e| (e.key, e.modified)).collect();
        for (key, at) in &told.done {
            assert_eq!(there.get(key), Some(at), "{key} was acknowledged");
        }
        for key in &told.never {
            assert!(!there.contains_key(key), "{key} was refused, and is there");
        }
        for key in there.keys() {
            assert!(told.done.contains_key(key) || told.unknown.contains(key), "{key} is nobody's");
        }
        let seen = tokio::time::timeout(PATIENCE, self.watch).await.unwrap().unwrap();
        assert_eq!(seen, there, "the watch saw each key once, at its revision");
        let (done, never, unknown) = (told.done.len(), told.never.len(), told.unknown.len());
        println!(
            "{what}: {done} done, {never} refused, {unknown} unknown; at most {:?} without an \
             answer",
            told.gap
        );
    }
}

/// Sees every change once, in order, until the last key.
async fn see(mut watch: Receiver<Change>) -> BTreeMap<String, u64> {
    let (mut seen, mut last) = (BTreeMap::new(), 0);
    loop {
        let Some(Change::Put(entry)) = watch.recv().await else { panic!("only puts are told") };
        assert!(entry.modified >= last, "{} at {} after {last}", entry.key, entry.modified);
        last = entry.modified;
        if entry.key == "/end" {
            return seen;
        }
        if entry.key.starts_with("/w/") {
            assert_eq!(seen.insert(entry.key.clone(), entry.modified), None, "{}", entry.key);
        }
    }
}

/// One writer: a chain of commits, each behind the one before, and now and then one that must be refused.
async fn write(
    n: usize,
    store: Arc<EtcdStore>,
    fence: u64,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> Told {
    let (mut told, mut last, mut since) = (Told::default(), 0, Instant::now());
    let own = format!("/last/{n}");
    for i in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("/w/{n}/{i:06}");
        let fenced = i % 10 == 9;
        let behind = match last {
            0 => Compare::Absent(own.clone()),
            at => Compare::Modified(own.clone(), at),
        };
        let fence = Compare::Created("/fence".to_owned(), if fenced { fence - 1 } else { fence });
        let ops = vec![Op::put(&*own, vec![]), Op::put(&*key, vec![])];
        match store.commit(Txn { compares: vec![fence, behind], ops }).await {
            Ok(Outcome::Done(at)) => {
                assert!(!fenced, "{key} went through its fence");
                told.gap = told.gap.max(since.elapsed());
                (last, since) = (at, Instant::now());
                done.fetch_add(1, Ordering::Relaxed);
                told.done.insert(key, at);
            }
            Ok(Outcome::Refused) => {
                assert!(fenced, "{key} was refused, and nobody else writes here");
                told.never.insert(key);
            }
            Err(StoreError::Unavailable(_)) => {
                told.never.insert(key);
            }
            Err(StoreError::Unknown(_)) => {
                told.unknown.insert(key);
                last = read(&*store, &own).await;
            }
            Err(StoreError::Corrupt(what)) => panic!("{what}"),
        }
    }
    told
}

/// The revision of a key, whatever is broken meanwhile.
async fn read(store: &dyn Store, key: &str) -> u64 {
    let begun = Instant::now();
    loop {
        match store.get(key).await {
            Ok(entry) => return entry.map_or(0, |entry| entry.modified),
            Err(why) => assert!(begun.elapsed() < PATIENCE, "{why}"),
        }
    }
}
