//! Measures the SQLite store: `cargo run --release --example store_bench [DIR]`.
//!
//! DIR chooses the disk. Each line is a few seconds of durable commits of one 200-byte record each.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rota::store::sqlite::SqliteStore;
use rota::store::{Op, Store, StoreError, Txn};

/// How long each line measures.
const LONG: Duration = Duration::from_secs(3);

/// Bytes of one record, about those of a node's step.
const RECORD: usize = 200;

/// Keys that are written in turn: the nodes of a fleet.
const KEYS: u64 = 10_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let parent = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = parent.join(format!("rota-store-bench-{}", std::process::id()));
    let result = measure(&dir).await;
    std::fs::remove_dir_all(&dir)?;
    result
}

async fn measure(dir: &std::path::Path) -> Result<(), Failure> {
    let store = SqliteStore::open(&dir.join("rota.db"))?;
    println!("{:<34} {:>10} {:>10} {:>10}", "", "commits/s", "p50 ms", "p99 ms");
    for (name, tasks, watched) in [
        ("one after another", 1, false),
        ("10 at once", 10, false),
        ("100 at once", 100, false),
        ("100 at once, one watch", 100, true),
        ("1000 at once", 1000, false),
    ] {
        let watch = watched.then(|| tokio::spawn(follow(Arc::clone(&store))));
        let (rate, mut times) = commits(&store, tasks).await?;
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
        println!("{name:<34} {rate:>10.0} {:>10.2} {:>10.2}", at(50), at(99));
        if let Some(watch) = watch {
            watch.abort();
        }
    }
    let begun = Instant::now();
    let ops = (0..KEYS).map(|n| Op::put(format!("/bulk/{n:05}"), vec![b'x'; RECORD])).collect();
    store.commit(Txn { compares: vec![], ops }).await?;
    println!("{KEYS} records in one transaction: {:.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    let begun = Instant::now();
    let (entries, _) = rota::store::scan_all(&*store, "/bulk/").await?;
    println!("{} records scanned: {:.0} ms", entries.len(), begun.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

/// Commits from so many tasks, each after its last one was acknowledged.
async fn commits(store: &Arc<SqliteStore>, tasks: usize) -> Result<(f64, Vec<Duration>), Failure> {
    let (begun, number) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let one = |store: Arc<SqliteStore>, number: Arc<AtomicU64>| async move {
        let mut times = Vec::new();
        while begun.elapsed() < LONG {
            let key = format!("/nodes/{:05}", number.fetch_add(1, Ordering::Relaxed) % KEYS);
            let (asked, ops) = (Instant::now(), vec![Op::put(key, vec![b'x'; RECORD])]);
            store.commit(Txn { compares: vec![], ops }).await?;
            times.push(asked.elapsed());
        }
        Ok::<_, StoreError>(times)
    };
    let running: Vec<_> =
        (0..tasks).map(|_| tokio::spawn(one(Arc::clone(store), Arc::clone(&number)))).collect();
    let mut times = Vec::new();
    for task in running {
        times.extend(task.await??);
    }
    Ok((times.len() as f64 / begun.elapsed().as_secs_f64(), times))
}

/// Reads all changes as they come.
async fn follow(store: Arc<SqliteStore>) -> Result<(), StoreError> {
    let (_, revision) = store.scan("", "", 0).await?;
    let mut changes = store.watch("", revision).await?;
    while changes.recv().await.is_some() {}
    Ok(())
}
