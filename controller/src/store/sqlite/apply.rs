//! Carries out one transaction against the tables; the caller wraps it in a savepoint.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::{LeaseId, StoreRevision, Txn};
use crate::store::{Compare, Op};

/// What a transaction came to.
pub(super) enum Applied {
    /// It was carried out and changed something.
    Changed,
    /// It was carried out; there was nothing to change.
    Same,
    /// A compare did not hold, or a lease has ended.
    Refused,
}

/// Carries `txn` out as `revision`, or finds that it must not be.
pub(super) fn apply(
    conn: &Connection,
    revision: StoreRevision,
    txn: &Txn,
) -> rusqlite::Result<Applied> {
    for compare in &txn.compares {
        if !holds(conn, compare)? {
            return Ok(Applied::Refused);
        }
    }
    for op in &txn.ops {
        if let Op::Put { lease: Some(lease), .. } = op
            && !is_alive(conn, *lease)?
        {
            return Ok(Applied::Refused);
        }
    }
    let mut n = 0;
    for op in &txn.ops {
        n += match op {
            Op::Put { key, value, lease } => put(conn, (revision, n), key, value, *lease)?,
            Op::Delete(key) => delete(conn, (revision, n), key)?,
        };
    }
    Ok(if n > 0 { Applied::Changed } else { Applied::Same })
}

/// Makes a lease.
pub(super) fn grant(conn: &Connection, ttl: Duration) -> rusqlite::Result<LeaseId> {
    let millis = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    conn.prepare_cached("INSERT INTO leases (ttl_ms) VALUES (?1)")?.execute([millis])?;
    Ok(LeaseId(conn.last_insert_rowid()))
}

/// Removes a lease and its keys as `revision`.
pub(super) fn end_lease(
    conn: &Connection,
    revision: StoreRevision,
    lease: LeaseId,
) -> rusqlite::Result<Applied> {
    conn.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([lease.0])?;
    let keys = conn
        .prepare_cached("SELECT key FROM entries WHERE lease = ?1 ORDER BY key")?
        .query_map([lease.0], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    let mut n = 0;
    for key in &keys {
        n += delete(conn, (revision, n), key)?;
    }
    Ok(if n > 0 { Applied::Changed } else { Applied::Same })
}

/// All leases, for a start.
pub(super) fn leases(conn: &Connection) -> rusqlite::Result<Vec<(LeaseId, Duration)>> {
    conn.prepare("SELECT id, ttl_ms FROM leases")?
        .query_map([], |row| Ok((LeaseId(row.get(0)?), Duration::from_millis(row.get(1)?))))?
        .collect()
}

fn holds(conn: &Connection, compare: &Compare) -> rusqlite::Result<bool> {
    let key = compare.key();
    let found: Option<(StoreRevision, StoreRevision)> = conn
        .prepare_cached("SELECT created, modified FROM entries WHERE key = ?1")?
        .query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match (compare, found) {
        (Compare::Absent(_), found) => found.is_none(),
        (Compare::Created(_, at), Some((created, _))) => *at == created,
        (Compare::Modified(_, at), Some((_, modified))) => *at == modified,
        (Compare::Created(..) | Compare::Modified(..), None) => false,
    })
}

fn is_alive(conn: &Connection, lease: LeaseId) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT 1 FROM leases WHERE id = ?1")?.exists([lease.0])
}

/// The place of a change in the history: its revision and its number there.
type Place = (StoreRevision, u32);

fn put(
    conn: &Connection,
    (revision, n): Place,
    key: &str,
    value: &[u8],
    lease: Option<LeaseId>,
) -> rusqlite::Result<u32> {
    let created: StoreRevision = conn
        .prepare_cached(
            "INSERT INTO entries (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?3, ?4)
             ON CONFLICT (key) DO UPDATE SET
                value = excluded.value, modified = excluded.modified, lease = excluded.lease
             RETURNING created",
        )?
        .query_row(params![key, value, revision, lease.map(|lease| lease.0)], |row| row.get(0))?;
    remember(conn, (revision, n), key, Some(value), created)?;
    Ok(1)
}

fn delete(conn: &Connection, place: Place, key: &str) -> rusqlite::Result<u32> {
    let gone = conn.prepare_cached("DELETE FROM entries WHERE key = ?1")?.execute([key])?;
    if gone == 0 {
        return Ok(0);
    }
    remember(conn, place, key, None, 0)?;
    Ok(1)
}

fn remember(
    conn: &Connection,
    (revision, n): Place,
    key: &str,
    value: Option<&[u8]>,
    created: StoreRevision,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO history (revision, n, key, value, created) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![revision, n, key, value, created])
    .map(|_| ())
}
