//! Requests that are committed together: each in a savepoint of its own, all answered after the one
//! COMMIT.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::apply::{self, Applied};
use super::errors::{explain, is_unconfirmed};
use super::writer::{Answer, Write, tell};
use super::{LeaseId, Limits, Outcome, StoreError, StoreRevision};

/// An answer that waits for the COMMIT.
type Held = Box<dyn FnOnce(&Result<(), StoreError>)>;

/// What became of the whole group.
pub(super) enum Verdict {
    /// Durable, up to this revision; these leases began and ended.
    Durable { revision: StoreRevision, begun: Vec<(LeaseId, Duration)>, ended: Vec<LeaseId> },
    /// Nothing of it happened, and the next group may fare better.
    Failed,
    /// The disk did not confirm what was written: nothing more may be built on it.
    Doubtful(String),
}

/// One SQLite transaction around many requests.
pub(super) struct Group<'a> {
    conn: &'a Connection,
    path: &'a Path,
    before: StoreRevision,
    revision: StoreRevision,
    begun: Vec<(LeaseId, Duration)>,
    ended: Vec<LeaseId>,
    held: Vec<Held>,
    /// Why SQLite gave up the transaction; then every request of the group fails with it.
    lost: Option<StoreError>,
}

impl<'a> Group<'a> {
    /// Begins the transaction. When that fails the group only collects requests, to answer them all
    /// with the reason.
    pub(super) fn begin(conn: &'a Connection, path: &'a Path) -> Self {
        let begun = run(conn, "BEGIN IMMEDIATE").and_then(|()| {
            conn.prepare_cached("SELECT revision FROM meta")?.query_row([], |row| row.get(0))
        });
        let (revision, lost) = match begun {
            Ok(revision) => (revision, None),
            Err(cause) => (0, Some(explain(path, "begin a transaction", &cause))),
        };
        let (begun, ended, held) = (Vec::new(), Vec::new(), Vec::new());
        Self { conn, path, before: revision, revision, begun, ended, held, lost }
    }

    /// Carries one request out and keeps its answer back.
    pub(super) fn add(&mut self, write: Write) {
        match write {
            Write::Commit { txn, answer } => {
                let result = self.change(|conn, revision| apply::apply(conn, revision, &txn));
                self.hold(answer, result);
            }
            Write::Grant { ttl, answer } => {
                let result = self.attempt(|conn| apply::grant(conn, ttl));
                self.begun.extend(result.iter().map(|lease| (*lease, ttl)));
                self.hold(answer, result);
            }
            Write::Revoke { lease, answer } => {
                let result = self.end_lease(lease);
                self.hold(answer, result);
            }
        }
    }

    /// Removes a lease and its keys.
    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        self.change(|conn, revision| apply::end_lease(conn, revision, lease))?;
        self.ended.push(lease);
        Ok(())
    }

    /// Makes all of it durable, then answers everybody.
    pub(super) fn commit(mut self, limits: Limits) -> Verdict {
        let mut doubt = None;
        let result = match self.lost.take() {
            Some(why) => Err(why),
            None => self.finish(limits).map_err(|cause| {
                let why = explain(self.path, "commit", &cause);
                if is_unconfirmed(&cause) {
                    doubt = Some(why.to_string());
                    return StoreError::Unknown(why.to_string());
                }
                why
            }),
        };
        if !self.conn.is_autocommit()
            && let Err(cause) = run(self.conn, "ROLLBACK")
        {
            doubt.get_or_insert_with(|| explain(self.path, "roll back", &cause).to_string());
        }
        for answer in self.held {
            answer(&result);
        }
        match (result, doubt) {
            (_, Some(why)) => Verdict::Doubtful(why),
            (Err(_), None) => Verdict::Failed,
            (Ok(()), None) => {
                Verdict::Durable { revision: self.revision, begun: self.begun, ended: self.ended }
            }
        }
    }

    fn finish(&self, limits: Limits) -> rusqlite::Result<()> {
        if self.revision > self.before {
            let gone = self.revision.saturating_sub(limits.history_revisions);
            self.conn
                .prepare_cached("UPDATE meta SET revision = ?1, compacted = max(compacted, ?2)")?
                .execute([self.revision, gone])?;
            self.conn
                .prepare_cached("DELETE FROM history WHERE revision <= ?1")?
                .execute([gone])?;
        }
        run(self.conn, "COMMIT")
    }

    /// Does something that may take the next revision.
    fn change(
        &mut self,
        deed: impl FnOnce(&Connection, StoreRevision) -> rusqlite::Result<Applied>,
    ) -> Result<Outcome, StoreError> {
        let next = self.revision + 1;
        match self.attempt(|conn| deed(conn, next))? {
            Applied::Changed => {
                self.revision = next;
                Ok(Outcome::Done(next))
            }
            Applied::Same => Ok(Outcome::Done(self.revision)),
            Applied::Refused => Ok(Outcome::Refused),
        }
    }

    /// Does something in a savepoint: when it fails, what others of the group did stays.
    fn attempt<T>(
        &mut self,
        deed: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        if let Some(why) = &self.lost {
            return Err(why.clone());
        }
        let conn = self.conn;
        let tried = run(conn, "SAVEPOINT one")
            .and_then(|()| deed(conn))
            .and_then(|done| run(conn, "RELEASE one").map(|()| done));
        tried.map_err(|cause| {
            let why = explain(self.path, "carry out a transaction", &cause);
            // On some errors SQLite rolls everything back by itself.
            let undone = run(conn, "ROLLBACK TO one").and_then(|()| run(conn, "RELEASE one"));
            if conn.is_autocommit() || undone.is_err() {
                self.lost = Some(why.clone());
            }
            why
        })
    }

    fn hold<T: 'static>(&mut self, answer: Answer<T>, result: Result<T, StoreError>) {
        self.held.push(Box::new(move |group| {
            tell(answer, group.clone().and(result));
        }));
    }
}

fn run(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}
