//! The thread that writes: takes what waits, carries it out as one group, and ends leases when
//! their time is over.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot, watch};

use super::apply;
use super::errors::explain;
use super::group::{Group, Verdict};
use super::lease::Leases;
use super::schema::{self, Opened};
use super::{LeaseId, Limits, Outcome, StoreError, StoreRevision, Txn};
use crate::store::limits::{self, TXN_BYTES_MAX};

/// Requests of one group. The first of them waits for the last: 512 take about 5 ms, as long as a
/// slow disk's sync.
const GROUP_MAX: usize = 512;

/// Bytes of one group, or one transaction that is bigger: bounds the log file and the first one's
/// wait.
const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;

const _: () = assert!(GROUP_BYTES_MAX <= TXN_BYTES_MAX);

/// Where the answer goes.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the writer is asked.
pub(super) enum Request {
    /// Deadlines are in memory: answered at once.
    KeepAlive { lease: LeaseId, asked: Instant, answer: Answer<bool> },
    /// Answered when it is durable.
    Write(Write),
}

/// What must be durable before it is answered.
pub(super) enum Write {
    Commit { txn: Txn, answer: Answer<Outcome> },
    Grant { ttl: Duration, answer: Answer<LeaseId> },
    Revoke { lease: LeaseId, answer: Answer<()> },
}

impl Write {
    fn size(&self) -> usize {
        match self {
            Self::Commit { txn, .. } => limits::size(txn),
            Self::Grant { .. } | Self::Revoke { .. } => 0,
        }
    }
}

impl Request {
    /// Answers that the store is lost.
    fn refuse(self, why: &str) {
        let why = StoreError::Unavailable(why.to_owned());
        match self {
            Self::KeepAlive { answer, .. } => tell(answer, Err(why)),
            Self::Write(Write::Commit { answer, .. }) => tell(answer, Err(why)),
            Self::Write(Write::Grant { answer, .. }) => tell(answer, Err(why)),
            Self::Write(Write::Revoke { answer, .. }) => tell(answer, Err(why)),
        }
    }
}

/// Answers. Whoever asked may have stopped waiting; what happened has happened.
pub(super) fn tell<T>(answer: Answer<T>, result: Result<T, StoreError>) {
    drop(answer.send(result));
}

/// Owns the connection that writes.
pub(super) struct Writer {
    conn: Connection,
    path: PathBuf,
    limits: Limits,
    leases: Leases,
    wake: watch::Sender<StoreRevision>,
    /// Only for its timer: a queue with a deadline.
    runtime: Runtime,
    /// Keeps others out until the connection is closed: fields drop in their order.
    _lock: File,
}

impl Writer {
    /// Takes over the open database; every lease gets its full time.
    pub(super) fn new(
        opened: Opened,
        path: &Path,
        limits: Limits,
        wake: watch::Sender<StoreRevision>,
    ) -> Result<Self, StoreError> {
        let known = apply::leases(&opened.conn)
            .map_err(|cause| explain(path, "read the leases", &cause))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(
            |cause| StoreError::Unavailable(format!("cannot start the writer: {cause}")),
        )?;
        let (now, mut leases) = (Instant::now(), Leases::default());
        for (lease, ttl) in known {
            leases.arm(lease, ttl, now);
        }
        let Opened { conn, lock } = opened;
        Ok(Self { conn, path: path.to_owned(), limits, leases, wake, runtime, _lock: lock })
    }

    /// Works until nobody can ask any more, then closes the file cleanly.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::with_capacity(GROUP_MAX);
        while self.wait(&mut queue, &mut requests) {
            let mut writes = self.answer_keep_alives(&mut requests);
            while !writes.is_empty() || !self.leases.due(Instant::now()).is_empty() {
                if let Err(why) = self.carry_out(next_group(&mut writes)) {
                    return self.give_up(&why, writes, queue);
                }
            }
        }
        if let Err(why) = schema::mark(&self.path, &self.conn, true) {
            tracing::warn!(%why, "the store could not be closed cleanly");
        }
    }

    /// Sleeps until somebody asks (then takes all that wait) or a lease ends; `false`: nobody can
    /// ask any more.
    fn wait(&self, queue: &mut mpsc::Receiver<Request>, requests: &mut Vec<Request>) -> bool {
        let deadline = self.leases.next_deadline();
        self.runtime.block_on(async {
            let taken = queue.recv_many(requests, GROUP_MAX);
            match deadline {
                None => taken.await > 0,
                Some(at) => match tokio::time::timeout_at(at.into(), taken).await {
                    Ok(count) => count > 0,
                    Err(_a_lease_is_due) => true,
                },
            }
        })
    }

    fn answer_keep_alives(&mut self, requests: &mut Vec<Request>) -> Vec<Write> {
        let mut writes = Vec::with_capacity(requests.len());
        for request in requests.drain(..) {
            match request {
                Request::KeepAlive { lease, asked, answer } => {
                    tell(answer, Ok(self.leases.keep(lease, asked)));
                }
                Request::Write(write) => writes.push(write),
            }
        }
        writes
    }

    /// Carries out one group, and the end of leases whose time is over; the error says that the
    /// file is lost.
    fn carry_out(&mut self, writes: Vec<Write>) -> Result<(), String> {
        let due = self.leases.due(Instant::now());
        let mut group = Group::begin(&self.conn, &self.path);
        for write in writes {
            group.add(write);
        }
        for lease in &due {
            if let Err(why) = group.end_lease(*lease) {
                tracing::warn!(lease = lease.0, %why, "a lease's keys stay a moment longer");
            }
        }
        let verdict = group.commit(self.limits);
        let now = Instant::now();
        match verdict {
            Verdict::Durable { revision, begun, ended } => {
                for (lease, ttl) in begun {
                    self.leases.arm(lease, ttl, now);
                }
                for lease in ended {
                    self.leases.forget(lease);
                }
                self.leases.postpone(&due, now);
                self.wake.send_if_modified(|known| std::mem::replace(known, revision) != revision);
                Ok(())
            }
            Verdict::Failed => {
                self.leases.postpone(&due, now);
                Ok(())
            }
            Verdict::Doubtful(why) => Err(why),
        }
    }

    /// The file cannot be trusted in this process any more: says so to everybody, and never writes
    /// again.
    fn give_up(self, why: &str, rest: Vec<Write>, mut queue: mpsc::Receiver<Request>) {
        let why = format!("{why}; the disk did not confirm a write: restart `rota serve`");
        tracing::error!(%why, "the store is lost");
        // Watches end with this; they must not wait for a revision that never comes.
        drop(self.wake);
        for write in rest {
            Request::Write(write).refuse(&why);
        }
        while let Some(request) = queue.blocking_recv() {
            request.refuse(&why);
        }
    }
}

/// The first of the writes, as many as fit one group.
fn next_group(writes: &mut Vec<Write>) -> Vec<Write> {
    let mut bytes = 0;
    let fits = |write: &&Write| {
        let first = bytes == 0;
        bytes += write.size();
        first || bytes <= GROUP_BYTES_MAX
    };
    let count = writes.iter().take_while(fits).count();
    writes.drain(..count).collect()
}
