//! The store in one SQLite file: the embedded default, for one controller.
//!
//! One thread writes ([`writer`]) and commits whatever waits together, so that a disk with a slow
//! fsync still takes many transactions a second. Reads have connections of their own and never wait
//! for the disk to confirm a write. A watch reads the history table at its own pace ([`watch`]): it
//! neither misses a change nor holds a commit up.
//!
//! Durable means: SQLite's write-ahead log was synced (`synchronous=FULL`) before `Done` was
//! answered. `sqlite3 DIR/rota.db` reads everything at any time; only this process may write.

mod apply;
mod errors;
mod group;
mod lease;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::snapshot::Snapshot;
use super::{Change, Entry, LeaseId, Outcome, Store, StoreError, StoreRevision, Txn, limits};
use reader::Readers;
use writer::{Request, Write, Writer};

/// Requests that wait for the writer; further ones wait before they are taken. A fleet of 10,000
/// that reports at once is a few groups' worth, and each request is small.
const WRITES_QUEUED_MAX: usize = 4096;

/// The largest value, with its key.
pub const VALUE_BYTES_MAX: usize = limits::TXN_BYTES_MAX;

/// The shortest lease that is granted. Shorter ones would end between two turns of a busy machine.
const LEASE_MIN: Duration = Duration::from_millis(10);

/// The longest lease that is granted. A lease says that somebody is alive; a day is no longer
/// "now".
const LEASE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What one database may grow to.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Revisions that a watch can go back. Enough for a rollout over 10,000 nodes, some tens of MB
    /// of history.
    pub history_revisions: u64,
    /// Pages of 4 KiB in the file. 16 GiB is a hundred times a big fleet's state, and a runaway
    /// ends there.
    pub file_pages: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { history_revisions: 20_000, file_pages: 4 * 1024 * 1024 }
    }
}

/// The store in one file. Dropping the last handle closes it cleanly.
pub struct SqliteStore {
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    /// `None` only while it is dropped.
    writer: Option<JoinHandle<()>>,
    readers: Readers,
    wake: tokio::sync::watch::Receiver<StoreRevision>,
}

impl SqliteStore {
    /// Opens the database at `path`, or makes it. Refused while another process uses it, when it
    /// was written by a newer program, and when it is damaged. Blocks for as long as the disk
    /// needs; after a crash that includes a check.
    pub fn open(path: &Path) -> Result<Arc<Self>, StoreError> {
        Self::open_with(path, Limits::default())
    }

    /// As [`Self::open`], with limits of its own.
    pub fn open_with(path: &Path, limits: Limits) -> Result<Arc<Self>, StoreError> {
        let opened = schema::open(path, limits)?;
        let readers = Readers::open(path)?;
        let (requests, queue) = mpsc::channel(WRITES_QUEUED_MAX);
        let (waker, wake) = tokio::sync::watch::channel(schema::revision(path, &opened.conn)?);
        let writer = Writer::new(opened, path, limits, waker)?;
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|cause| {
                StoreError::Unavailable(format!("cannot start the writer's thread: {cause}"))
            })?;
        Ok(Arc::new(Self { requests: Some(requests), writer: Some(writer), readers, wake }))
    }

    /// Everything that is there for good, as of one revision; also while a controller uses the
    /// file. Refused where there is no such file.
    pub fn snapshot(path: &Path) -> Result<Snapshot, StoreError> {
        if !path.exists() {
            let path = path.display();
            return Err(StoreError::Unavailable(format!(
                "there is no {path}: no controller ran there"
            )));
        }
        reader::snapshot(path)
    }

    /// Where a database lies that was moved aside.
    pub fn aside(path: &Path) -> PathBuf {
        schema::aside(path)
    }

    /// Moves a database aside whose state is somewhere else now, and says where it is: no controller
    /// starts on it by mistake, and none begins anew in its place. It must be closed.
    pub fn move_aside(path: &Path) -> Result<PathBuf, StoreError> {
        let aside = schema::aside(path);
        for end in ["", "-wal", "-shm"] {
            let (from, to) = (schema::beside(path, end), schema::beside(&aside, end));
            match std::fs::rename(&from, to) {
                Ok(()) => {}
                Err(cause) if !end.is_empty() && cause.kind() == ErrorKind::NotFound => {}
                Err(cause) => return Err(schema::unavailable("move aside", &from, &cause)),
            }
        }
        Ok(aside)
    }

    /// Hands a request to the writer and waits until it is durable.
    async fn ask<T>(
        &self,
        request: impl FnOnce(writer::Answer<T>) -> Request,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the store was closed".to_owned());
        let (answer, told) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(closed)?;
        requests.send(request(answer)).await.map_err(|_| closed())?;
        told.await.unwrap_or_else(|_| {
            Err(StoreError::Unknown("the writer ended before it answered".to_owned()))
        })
    }
}

#[tonic::async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = key.to_owned();
        self.readers.run("read a key", move |conn| reader::get(conn, &key)).await
    }

    async fn scan(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Entry>, StoreRevision), StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.to_owned());
        self.readers.run("read keys", move |conn| reader::scan(conn, &prefix, &after, limit)).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        limits::check(&txn)?;
        self.ask(|answer| Request::Write(Write::Commit { txn, answer })).await
    }

    /// A watch that falls further behind than the history reaches, or that asks for a revision
    /// which this store has not reached (a backup was put back), is told `Compacted` and ends.
    async fn watch(
        &self,
        prefix: &str,
        since: StoreRevision,
    ) -> Result<mpsc::Receiver<Change>, StoreError> {
        Ok(watch::start(self.readers.clone(), self.wake.clone(), prefix.to_owned(), since))
    }

    /// Deadlines live in memory: after a restart every lease has its full time again.
    async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let ttl = ttl.clamp(LEASE_MIN, LEASE_MAX);
        self.ask(|answer| Request::Write(Write::Grant { ttl, answer })).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError> {
        let asked = Instant::now();
        self.ask(|answer| Request::KeepAlive { lease, asked, answer }).await
    }

    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|answer| Request::Write(Write::Revoke { lease, answer })).await
    }
}

impl Drop for SqliteStore {
    /// Waits for what is queued, so that whoever opens the file next finds it closed.
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(Err(_)) = self.writer.take().map(JoinHandle::join) {
            tracing::error!("the store's writer panicked; its file is checked at the next start");
        }
    }
}
