//! The SQLite adapter keeps every promise, and does the right thing with files that it cannot use.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::store::Op;
use crate::store::conformance::{Fixture, suite};

/// Revisions that a store under test remembers.
const HISTORY: u64 = 500;

struct Sqlite(TempDir);

impl Sqlite {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn of(_promise: &str) -> Option<Self> {
        Some(Self::new())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("rota.db")
    }

    fn open_with(&self, limits: Limits) -> Arc<SqliteStore> {
        SqliteStore::open_with(&self.path(), limits).unwrap()
    }

    fn refusal(&self) -> String {
        SqliteStore::open(&self.path()).map(|_| ()).unwrap_err().to_string()
    }
}

impl Fixture for Sqlite {
    async fn open(&self) -> Arc<dyn Store> {
        self.open_with(Limits { history_revisions: HISTORY, ..Limits::default() })
    }

    async fn forget_history(&self, store: &Arc<dyn Store>) {
        let puts = (0..=HISTORY).map(|n| put(store, "/filler", n.to_string().into_bytes()));
        for done in puts.map(tokio::spawn).collect::<Vec<_>>() {
            done.await.unwrap().unwrap();
        }
    }

    /// Less than this may pass between a grant and what is put under it.
    fn lease_min(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn ops_max(&self) -> usize {
        60_000
    }

    fn is_alone(&self) -> bool {
        true
    }
}

suite!(Sqlite::of);

fn put<S: Store + ?Sized>(
    store: &Arc<S>,
    key: &str,
    value: Vec<u8>,
) -> impl Future<Output = Result<Outcome, StoreError>> + use<S> {
    let (store, txn) =
        (Arc::clone(store), Txn { compares: vec![], ops: vec![Op::put(key, value)] });
    async move { store.commit(txn).await }
}

#[tokio::test]
async fn one_process_at_a_time() {
    let files = Sqlite::new();
    let open = SqliteStore::open(&files.path()).unwrap();
    let told = files.refusal();
    for part in [files.0.path().to_str().unwrap(), "rota serve", &std::process::id().to_string()] {
        assert!(told.contains(part), "{told}");
    }
    drop(open);
    SqliteStore::open(&files.path()).unwrap();
}

#[tokio::test]
async fn nobody_else_reads_the_files() {
    let files = Sqlite::new();
    let _open = SqliteStore::open(&files.path()).unwrap();
    for entry in std::fs::read_dir(files.0.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn files_that_are_not_ours_are_refused_and_left_alone() {
    for (sql, why) in [
        ("PRAGMA user_version = 99", "schema 99 and this program knows 1"),
        ("PRAGMA application_id = 7", "another program"),
        ("PRAGMA user_version = 0", "another program"),
    ] {
        let files = Sqlite::new();
        drop(SqliteStore::open(&files.path()).unwrap());
        let conn = rusqlite::Connection::open(files.path()).unwrap();
        conn.execute_batch(sql).unwrap();
        drop(conn);
        let before = std::fs::read(files.path()).unwrap();
        let told = files.refusal();
        assert!(told.contains(why) && told.contains("rota.db"), "{sql}: {told}");
        assert_eq!(std::fs::read(files.path()).unwrap(), before);
    }
    let files = Sqlite::new();
    std::fs::write(files.path(), "a letter to my aunt ".repeat(500)).unwrap();
    assert!(files.refusal().contains("not a database"));
}

#[tokio::test]
async fn damage_is_found_after_a_crash() {
    let files = Sqlite::new();
    let store = SqliteStore::open(&files.path()).unwrap();
    for n in 0..50 {
        put(&store, &format!("/{n}"), vec![b'x'; 2000]).await.unwrap();
    }
    drop(store);
    let conn = rusqlite::Connection::open(files.path()).unwrap();
    conn.execute("UPDATE meta SET clean = 0", []).unwrap();
    drop(conn);
    drop(SqliteStore::open(&files.path()).unwrap());
    let conn = rusqlite::Connection::open(files.path()).unwrap();
    conn.execute("UPDATE meta SET clean = 0", []).unwrap();
    drop(conn);
    let mut bytes = std::fs::read(files.path()).unwrap();
    let pages = bytes.len() / 4096;
    bytes[8 * 4096..(pages - 2) * 4096].fill(0xff);
    std::fs::write(files.path(), bytes).unwrap();
    let told = files.refusal();
    assert!(told.contains("put a backup back"), "{told}");
}

#[tokio::test]
async fn a_full_disk_refuses_one_and_takes_the_next() {
    let files = Sqlite::new();
    let store = files.open_with(Limits { history_revisions: 1, file_pages: 64 });
    put(&store, "/a", b"1".to_vec()).await.unwrap();
    let before = store.scan("", "", 10).await.unwrap();
    let told = put(&store, "/big", vec![0; 1024 * 1024]).await.unwrap_err();
    assert!(matches!(&told, StoreError::Unavailable(why) if why.contains("free space")), "{told}");
    assert_eq!(store.scan("", "", 10).await.unwrap(), before, "nothing of it is visible");
    put(&store, "/b", b"1".to_vec()).await.unwrap();
    drop(store);
    let store = files.open_with(Limits::default());
    assert_eq!(store.scan("", "", 10).await.unwrap().0.len(), 2);
}

#[tokio::test]
async fn one_that_fails_does_not_spoil_its_group() {
    let files = Sqlite::new();
    let store = files.open_with(Limits { history_revisions: 1000, file_pages: 256 });
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let size = if n % 8 == 0 { 2 * 1024 * 1024 } else { 10 };
            tokio::spawn(put(&store, &format!("/{n:02}"), vec![0; size]))
        })
        .collect();
    for (n, task) in tasks.into_iter().enumerate() {
        let done = task.await.unwrap();
        let there = store.get(&format!("/{n:02}")).await.unwrap().is_some();
        assert_eq!(done.is_ok(), there, "{n}: {done:?}");
        assert_eq!(there, n % 8 != 0, "{n}");
    }
}

#[tokio::test]
async fn absurd_transactions_are_refused_with_the_limit() {
    let files = Sqlite::new();
    let store = SqliteStore::open(&files.path()).unwrap();
    let many = |count| (0..count).map(|n| Op::Delete(n.to_string())).collect::<Vec<_>>();
    for (ops, why) in [
        (many(60_001), "at most 60000"),
        (vec![Op::put("/a", vec![0; 33 * 1024 * 1024])], "at most 33554432"),
        (vec![Op::put("", vec![])], "the key \"\""),
        (vec![Op::put("k".repeat(1025), vec![])], "is not 1 to 1024 bytes"),
        (vec![Op::put("/a\0b", vec![])], "is not 1 to 1024 bytes"),
        (vec![Op::put("a", vec![])], "begins with `/`"),
        (vec![Op::put("/a", vec![]), Op::Delete("/a".to_owned())], "changes /a twice"),
    ] {
        let told = store.commit(Txn { compares: vec![], ops }).await.unwrap_err().to_string();
        assert!(told.contains(why), "{told}");
    }
    assert_eq!(store.scan("", "", 1).await.unwrap(), (vec![], 0));
}

#[tokio::test]
async fn a_watch_from_a_future_that_was_lost_begins_anew() {
    let files = Sqlite::new();
    let store = SqliteStore::open(&files.path()).unwrap();
    put(&store, "/a", vec![]).await.unwrap();
    let mut watch = store.watch("/", 7).await.unwrap();
    assert_eq!(watch.recv().await, Some(Change::Compacted { now: 1 }));
    assert_eq!(watch.recv().await, None);
}

#[tokio::test]
async fn a_lease_has_its_full_time_after_a_restart() {
    let files = Sqlite::new();
    let store = SqliteStore::open(&files.path()).unwrap();
    let ttl = Duration::from_secs(2);
    let lease = store.grant(ttl).await.unwrap();
    let op = Op::Put { key: "/l".to_owned(), value: vec![], lease: Some(lease) };
    let put = store.commit(Txn { compares: vec![], ops: vec![op] }).await.unwrap();
    assert!(matches!(put, Outcome::Done(_)), "{put:?}");
    drop(store);
    let store = SqliteStore::open(&files.path()).unwrap();
    let opened = Instant::now();
    let mut watch = store.watch("/", 1).await.unwrap();
    assert_eq!(watch.recv().await, Some(Change::Deleted { key: "/l".to_owned(), at: 2 }));
    assert!(opened.elapsed() > ttl / 2, "not as if the time had gone on");
}
