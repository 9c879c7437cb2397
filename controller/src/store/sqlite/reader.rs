//! Reads, on connections of their own: they see the last committed state and never wait for a sync.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::Semaphore;

use super::errors::explain;
use super::{Change, Entry, StoreError, StoreRevision, schema};
use crate::store::snapshot::{FILLING, Snapshot};

/// Connections for reading. One reads a page of history while another answers a `get`; more only
/// take memory.
const READERS: usize = 3;

/// Changes of one page of history, and their bytes; it ends with the revision that passes one of
/// them.
const PAGE_CHANGES: usize = 256;
const PAGE_BYTES: usize = 1024 * 1024;

/// A few connections that take turns.
#[derive(Clone)]
pub(super) struct Readers {
    path: Arc<Path>,
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
}

impl Readers {
    /// Opens the connections.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let idle: Vec<_> =
            (0..READERS).map(|_| schema::open_reader(path)).collect::<Result<_, _>>()?;
        let (idle, free) = (Arc::new(Mutex::new(idle)), Arc::new(Semaphore::new(READERS)));
        Ok(Self { path: path.into(), idle, free })
    }

    /// Reads something in one snapshot, on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        deed: &'static str,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Unavailable(format!("cannot {deed}: the reader ended"));
        let turn = Arc::clone(&self.free).acquire_owned().await.map_err(|_| ended())?;
        let this = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            // A reader that panicked took its connection along; then a new one is made.
            let conn = this.idle().pop().map_or_else(|| schema::open_reader(&this.path), Ok)?;
            let result = in_snapshot(&conn, read);
            this.idle().push(conn);
            drop(turn);
            result.map_err(|cause| explain(&this.path, deed, &cause))
        });
        reading.await.map_err(|_| ended())?
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_snapshot<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let snapshot = conn.unchecked_transaction()?;
    let result = read(&snapshot)?;
    snapshot.commit()?;
    Ok(result)
}

/// Everything that does not hang on a lease.
pub(super) fn snapshot(path: &Path) -> Result<Snapshot, StoreError> {
    let conn = schema::open_reader(path)?;
    schema::check_known(path, &conn)?;
    let read = |conn: &Connection| {
        let revision = conn.query_row("SELECT revision FROM meta", [], |row| row.get(0))?;
        let found = conn
            .prepare("SELECT key, value, lease IS NOT NULL FROM entries ORDER BY key")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        Ok((revision, found))
    };
    let (revision, found) =
        in_snapshot(&conn, read).map_err(|cause| explain(path, "read all keys", &cause))?;
    let snapshot = Snapshot::of(revision, found);
    if snapshot.entries.iter().any(|(key, _)| key == FILLING) {
        return Err(schema::half(path));
    }
    Ok(snapshot)
}

/// One key.
pub(super) fn get(conn: &Connection, key: &str) -> rusqlite::Result<Option<Entry>> {
    conn.prepare_cached("SELECT key, value, created, modified FROM entries WHERE key = ?1")?
        .query_row([key], entry)
        .optional()
}

/// Keys under `prefix` after `after`, and the revision of the snapshot.
pub(super) fn scan(
    conn: &Connection,
    prefix: &str,
    after: &str,
    limit: usize,
) -> rusqlite::Result<(Vec<Entry>, StoreRevision)> {
    let (from, sql) = if after < prefix || after.is_empty() {
        (prefix, "SELECT key, value, created, modified FROM entries WHERE key >= ?1 ORDER BY key")
    } else {
        (after, "SELECT key, value, created, modified FROM entries WHERE key > ?1 ORDER BY key")
    };
    let mut found = Vec::new();
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query([from])?;
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        // In order, so the first key beyond the prefix ends them.
        if !row.get_ref(0)?.as_str()?.starts_with(prefix) {
            break;
        }
        found.push(entry(row)?);
    }
    drop(rows);
    Ok((found, state(conn)?.revision))
}

/// A page of history.
#[derive(Debug)]
pub(super) enum Page {
    /// Whole revisions up to and with `upto`; `more`: there are others.
    Changes { changes: Vec<Change>, upto: StoreRevision, more: bool },
    /// It is not known any more what came after the asked revision.
    Compacted { now: StoreRevision },
}

/// What changed under `prefix` after `since`.
pub(super) fn history(
    conn: &Connection,
    prefix: &str,
    since: StoreRevision,
) -> rusqlite::Result<Page> {
    let State { revision, compacted } = state(conn)?;
    if since < compacted || since > revision {
        return Ok(Page::Compacted { now: revision });
    }
    let mut statement = conn.prepare_cached(
        "SELECT key, value, created, revision FROM history WHERE revision > ?1
         ORDER BY revision, n",
    )?;
    let mut rows = statement.query([since])?;
    let (mut changes, mut bytes, mut upto) = (Vec::new(), 0, since);
    while let Some(row) = rows.next()? {
        let at: StoreRevision = row.get(3)?;
        if at != upto && (changes.len() >= PAGE_CHANGES || bytes >= PAGE_BYTES) {
            return Ok(Page::Changes { changes, upto, more: true });
        }
        upto = at;
        if row.get_ref(0)?.as_str()?.starts_with(prefix) {
            bytes += row.get_ref(1)?.as_blob_or_null()?.map_or(0, <[u8]>::len);
            changes.push(change(row)?);
        }
    }
    Ok(Page::Changes { changes, upto: revision, more: false })
}

struct State {
    revision: StoreRevision,
    compacted: StoreRevision,
}

fn state(conn: &Connection) -> rusqlite::Result<State> {
    conn.prepare_cached("SELECT revision, compacted FROM meta")?
        .query_row([], |row| Ok(State { revision: row.get(0)?, compacted: row.get(1)? }))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let (key, value) = (row.get(0)?, row.get(1)?);
    Ok(Entry { key, value, created: row.get(2)?, modified: row.get(3)? })
}

fn change(row: &Row<'_>) -> rusqlite::Result<Change> {
    let (key, at) = (row.get(0)?, row.get(3)?);
    Ok(match row.get::<_, Option<Vec<u8>>>(1)? {
        Some(value) => Change::Put(Entry { key, value, created: row.get(2)?, modified: at }),
        None => Change::Deleted { key, at },
    })
}
