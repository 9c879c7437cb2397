//! Opens the database file: used by nobody else, private, of a schema that this program knows, and
//! checked after a crash.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::errors::explain;
use super::{Limits, StoreError, StoreRevision};
use crate::store::snapshot::{FILLING, half_filled};

/// The layout of the tables below; raised with every change of them, in `user_version`.
const SCHEMA: i32 = 1;

/// "Rota" in ASCII: tells our files from anybody else's.
const APPLICATION_ID: i32 = 0x526f_7461;

/// How long to wait for an operator's `sqlite3` that holds a lock, before saying so.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Statements that each connection keeps prepared; we have about twenty.
const STATEMENTS_KEPT: usize = 64;

/// What the log file shrinks to when it was emptied; it grows past it under load.
const LOG_BYTES_KEPT: i64 = 64 * 1024 * 1024;

/// `history.value` is NULL for a deletion. `lease` is NULL for a key that stays.
const TABLES: &str = "
    CREATE TABLE meta (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        revision INTEGER NOT NULL,
        compacted INTEGER NOT NULL,
        clean INTEGER NOT NULL
    );
    INSERT INTO meta VALUES (1, 0, 0, 1);
    CREATE TABLE entries (
        key TEXT PRIMARY KEY,
        value BLOB NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL,
        lease INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX entries_of_lease ON entries (lease) WHERE lease IS NOT NULL;
    CREATE TABLE history (
        revision INTEGER NOT NULL,
        n INTEGER NOT NULL,
        key TEXT NOT NULL,
        value BLOB,
        created INTEGER NOT NULL,
        PRIMARY KEY (revision, n)
    ) WITHOUT ROWID;
    CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ms INTEGER NOT NULL);
";

/// An open database, and the lock that keeps others out for as long as it lives.
pub(super) struct Opened {
    pub(super) conn: Connection,
    pub(super) lock: File,
}

/// Opens or makes the database, for writing.
pub(super) fn open(path: &Path, limits: Limits) -> Result<Opened, StoreError> {
    let dir = folder(path);
    refuse_moved(path)?;
    let make = |cause| unavailable("make the folder", &dir, &cause);
    DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(make)?;
    let lock = lock(path, &dir)?;
    make_private(path, &dir)?;
    let conn = connect(path)?;
    let failed = |deed: &str, cause: &rusqlite::Error| explain(path, deed, cause);
    settle_schema(path, &conn, make_tables)?;
    check_filled(path, &conn)?;
    let mode: String = conn
        .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
        .map_err(|cause| failed("switch to a write-ahead log", &cause))?;
    if mode != "wal" {
        return Err(StoreError::Unavailable(format!(
            "{} is on a file system without shared memory ({mode}); use a local disk",
            path.display()
        )));
    }
    conn.pragma_update(None, "synchronous", "FULL")
        .and_then(|()| conn.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT))
        .and_then(|()| conn.pragma_update(None, "max_page_count", limits.file_pages))
        .map_err(|cause| failed("set up the connection", &cause))?;
    check_after_crash(path, &conn)?;
    mark(path, &conn, false)?;
    Ok(Opened { conn, lock })
}

/// One more connection, which can only read.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let conn = connect(path)?;
    conn.pragma_update(None, "query_only", true)
        .map_err(|cause| explain(path, "set up a reader", &cause))?;
    Ok(conn)
}

/// Writes down whether the file was closed as it should be.
pub(super) fn mark(path: &Path, conn: &Connection, clean: bool) -> Result<(), StoreError> {
    conn.execute("UPDATE meta SET clean = ?1", [clean])
        .map(|_| ())
        .map_err(|cause| explain(path, "mark the database", &cause))
}

/// The last revision.
pub(super) fn revision(path: &Path, conn: &Connection) -> Result<StoreRevision, StoreError> {
    conn.query_row("SELECT revision FROM meta", [], |row| row.get(0))
        .map_err(|cause| explain(path, "read the revision", &cause))
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let failed = |cause| explain(path, "open the database", &cause);
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    conn.busy_timeout(LOCK_WAIT).map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(conn)
}

/// Two controllers on one file would each trust a memory of it that the other makes wrong.
fn lock(path: &Path, dir: &Path) -> Result<File, StoreError> {
    let name = beside(path, ".lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name)
        .map_err(|cause| unavailable("open the lock", &name, &cause))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(dir, &mut file)),
        Err(TryLockError::Error(cause)) => return Err(unavailable("lock", &name, &cause)),
    }
    file.set_len(0)
        .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()))
        .map_err(|cause| unavailable("write the lock", &name, &cause))?;
    Ok(file)
}

fn in_use(dir: &Path, lock: &mut File) -> StoreError {
    let mut holder = String::new();
    let holder = match lock.read_to_string(&mut holder) {
        Ok(_) if !holder.is_empty() => format!(" (process {holder})"),
        // The number is a courtesy; the refusal stands without it.
        Ok(_) | Err(_) => String::new(),
    };
    StoreError::Unavailable(format!(
        "another `rota serve`{holder} uses {}; stop it first, or name another folder",
        dir.display()
    ))
}

/// SQLite gives its log and shared-memory files the mode of the database.
fn make_private(path: &Path, dir: &Path) -> Result<(), StoreError> {
    let fresh = !path.exists();
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .map_err(|cause| unavailable("make the database private:", path, &cause))?;
    if fresh {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|cause| unavailable("sync the folder", dir, &cause))?;
    }
    Ok(())
}

/// Where a database lies whose state was copied to another store.
pub(super) fn aside(path: &Path) -> PathBuf {
    beside(path, ".moved")
}

/// The path with something behind it.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// A state that went elsewhere is not begun anew where it was.
fn refuse_moved(path: &Path) -> Result<(), StoreError> {
    let aside = aside(path);
    if path.exists() || !aside.exists() {
        return Ok(());
    }
    let (path, aside) = (path.display(), aside.display());
    Err(StoreError::Unavailable(format!(
        "the state was copied from here to another store: start controllers with that `--store`; \
         rename {aside} to {path} to go back to what it was then, or move it away to begin anew"
    )))
}

/// Refuses a file of another program or a newer version, and one without tables.
pub(super) fn check_known(path: &Path, conn: &Connection) -> Result<(), StoreError> {
    settle_schema(path, conn, |path, _| {
        let path = path.display();
        Err(StoreError::Unavailable(format!("{path} is empty: no controller ran there")))
    })
}

/// Refuses a database that was filled by half.
fn check_filled(path: &Path, conn: &Connection) -> Result<(), StoreError> {
    let filling = conn
        .prepare("SELECT 1 FROM entries WHERE key = ?1")
        .and_then(|mut asked| asked.exists([FILLING]))
        .map_err(|cause| explain(path, "look for a mark", &cause))?;
    if filling { Err(half(path)) } else { Ok(()) }
}

/// What to do about one that was filled by half.
pub(super) fn half(path: &Path) -> StoreError {
    let path = path.display();
    half_filled(&format!("remove {path}, {path}-wal and {path}-shm"))
}

fn settle_schema(
    path: &Path,
    conn: &Connection,
    empty: impl FnOnce(&Path, &Connection) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let failed = |cause: rusqlite::Error| explain(path, "read the schema", &cause);
    let pragma = |name| conn.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (app, version) =
        (pragma("application_id").map_err(failed)?, pragma("user_version").map_err(failed)?);
    let tables: i64 = conn
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    match (app, version) {
        (APPLICATION_ID, SCHEMA) => Ok(()),
        (0, 0) if tables == 0 => empty(path, conn),
        (APPLICATION_ID, newer) if newer > SCHEMA => Err(StoreError::Unavailable(format!(
            "{} has schema {newer} and this program knows {SCHEMA}: a newer `rota serve` wrote it; \
             start that version, or put a backup back",
            path.display()
        ))),
        _ => Err(StoreError::Unavailable(format!(
            "{} is a database of another program; move it away or choose another --data",
            path.display()
        ))),
    }
}

fn make_tables(path: &Path, conn: &Connection) -> Result<(), StoreError> {
    let all = format!(
        "BEGIN; {TABLES} PRAGMA application_id = {APPLICATION_ID}; \
         PRAGMA user_version = {SCHEMA}; COMMIT;"
    );
    conn.execute_batch(&all).map_err(|cause| explain(path, "make the tables", &cause))
}

/// A crash does not damage SQLite's files, but what made the machine crash may have.
fn check_after_crash(path: &Path, conn: &Connection) -> Result<(), StoreError> {
    let failed = |cause: rusqlite::Error| explain(path, "check the database", &cause);
    let clean: bool =
        conn.query_row("SELECT clean FROM meta", [], |row| row.get(0)).map_err(failed)?;
    if clean {
        return Ok(());
    }
    tracing::info!(path = %path.display(), "the store was not closed cleanly: checking it");
    let verdict: String =
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("{}: {verdict}; put a backup back", path.display())))
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

pub(super) fn unavailable(deed: &str, path: &Path, cause: &std::io::Error) -> StoreError {
    StoreError::Unavailable(format!("cannot {deed} {}: {cause}", path.display()))
}
