//! What all tasks of the proxy share: the pool behind its lock, and the bells that ring when it
//! changes. The lock is held for one step of the pool and never across an await.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::health;
use crate::member::{Intent, MemberState, Observed, Refused};
use crate::pool::{Applied, Assigned, Change, Pool, Probe};
use crate::ticket::{Cut, MemberId, Stay, Ticket};
use crate::upstream::Link;

/// How long a request waits for a member that can take it. A restart of a single member (stop,
/// start, first health check) mostly fits; a client's own patience is rarely shorter.
pub const MEMBER_WAIT: Duration = Duration::from_secs(5);

/// Every member was tried and none could be connected to: a breath before the next round.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// Requests that wait for a member at once. Each holds its client's connection and its head.
const WAITING_MAX: usize = 4096;

/// How long the answer to "out" waits for connections that are being closed, if nothing is in
/// flight. Closing takes microseconds; the answer then says `out` and spares a second message.
const SETTLE_WAIT: Duration = Duration::from_millis(50);

/// No member took the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMember {
    /// None was in, for as long as a request may wait.
    Absent,
    /// Some were in, but none could be connected to.
    Unreachable,
    /// Too many requests wait already.
    Crowded,
}

/// What all tasks share.
#[derive(Debug)]
pub struct Shared {
    pool: Mutex<Pool<Box<Link>>>,
    /// A member came in.
    available: Notify,
    /// Nothing is in flight at any member.
    quiet: Notify,
    /// What a member is seen to do changed.
    states: watch::Sender<()>,
    /// The number in flight at a draining member changed.
    counts: watch::Sender<()>,
    /// What the state file should say changed.
    edition: watch::Sender<u64>,
    /// The edition that the state file has, or as near as it could be written.
    saved: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    requests: AtomicU64,
    failed: AtomicU64,
    waiting: AtomicUsize,
}

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            pool: Mutex::default(),
            available: Notify::new(),
            quiet: Notify::new(),
            states: watch::Sender::new(()),
            counts: watch::Sender::new(()),
            edition: watch::Sender::new(0),
            saved: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    /// The pool, for one step.
    pub fn pool(&self) -> MutexGuard<'_, Pool<Box<Link>>> {
        // Poisoned means that a step panicked; the counts may be off, but serving goes on.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an intent in force and starts what follows from it.
    pub fn apply(self: &Arc<Self>, intent: &Intent) -> Result<MemberState, Refused> {
        let (applied, edition) = {
            let mut pool = self.pool();
            (pool.apply(intent, Instant::now().into_std())?, pool.edition())
        };
        let Applied { state, change, check } = applied;
        self.edition.send_if_modified(|known| std::mem::replace(known, edition) != edition);
        self.announce(change);
        if let Some((id, stay)) = check {
            tokio::spawn(health::watch(self.clone(), id, stay));
        }
        Ok(state)
    }

    /// Waits until what was applied survives a restart, and until a member without requests has
    /// no connections either; then says how it is now.
    pub async fn settle(&self, applied: MemberState) -> MemberState {
        let edition = *self.edition.borrow();
        let mut saved = self.saved.subscribe();
        tokio::select! {
            _saved = saved.wait_for(|saved| *saved >= edition) => {}
            () = self.stopped() => {} // What is not saved yet is saved at the end.
        }
        let mut states = self.states.subscribe();
        let deadline = Instant::now() + SETTLE_WAIT;
        loop {
            let Some(state) = self.pool().state(&applied.key) else { return applied };
            let closing = state.observed == Observed::Draining && state.in_flight == 0;
            let changed = tokio::time::timeout_at(deadline, states.changed());
            if !closing || changed.await.is_err() {
                return state;
            }
        }
    }

    fn announce(&self, change: Change) {
        match change {
            Change::None => {}
            Change::InFlight => self.counts.send_modify(|()| {}),
            Change::State => self.states.send_modify(|()| {}),
        }
    }

    /// A member for a request, waiting for one if it must.
    pub async fn assign(self: &Arc<Self>, search: &mut Search) -> Result<Given, NoMember> {
        if let Some(given) = self.try_assign(&search.tried) {
            return Ok(given);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(NoMember::Crowded);
        }
        let waiting = Waiting(self);
        let found = self.wait_for_member(search).await;
        drop(waiting);
        found
    }

    async fn wait_for_member(self: &Arc<Self>, search: &mut Search) -> Result<Given, NoMember> {
        let deadline = search.deadline();
        loop {
            let mut available = std::pin::pin!(self.available.notified());
            available.as_mut().enable();
            if let Some(given) = self.try_assign(&search.tried) {
                return Ok(given);
            }
            if Instant::now() >= deadline {
                return Err(search.why());
            }
            // All were tried: after a breath they are tried again. None is in: one will ring.
            let round = Instant::now() + ROUND_PAUSE;
            let until = if search.tried.is_empty() { deadline } else { deadline.min(round) };
            if tokio::time::timeout_at(until, available).await.is_err() {
                search.tried.clear();
            }
        }
    }

    fn try_assign(self: &Arc<Self>, tried: &[MemberId]) -> Option<Given> {
        let now = Instant::now().into_std();
        let Assigned { ticket, address, link } =
            self.pool().assign(tried, now, |link| link.is_alive())?;
        Some(Given { exchange: Exchange { shared: self.clone(), ticket }, address, link })
    }

    /// Begins a health check, unless its stay ended or the proxy stops.
    pub fn begin_check(self: &Arc<Self>, id: MemberId, stay: Stay) -> Option<Checking> {
        if *self.stop.borrow() {
            return None;
        }
        let probe = self.pool().begin_check(id, stay)?;
        Some(Checking { shared: self.clone(), probe, done: false })
    }

    /// Rings when what a member is seen to do changes.
    pub fn states(&self) -> watch::Receiver<()> {
        self.states.subscribe()
    }

    /// Rings when the number in flight at a draining member changes.
    pub fn counts(&self) -> watch::Receiver<()> {
        self.counts.subscribe()
    }

    /// Rings when there is something to save.
    pub fn editions(&self) -> watch::Receiver<u64> {
        self.edition.subscribe()
    }

    /// The state file has this edition.
    pub fn note_saved(&self, edition: u64) {
        self.saved.send_replace(edition);
    }

    /// Asks everything to stop.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns when everything is asked to stop.
    pub async fn stopped(&self) {
        if self.stop.subscribe().wait_for(|stop| *stop).await.is_err() {
            tracing::debug!("the proxy ended while something waited for its stop");
        }
    }

    /// Returns when nothing is in flight.
    pub async fn quiet(&self) {
        loop {
            let mut quiet = std::pin::pin!(self.quiet.notified());
            quiet.as_mut().enable();
            if self.pool().in_flight() == 0 {
                return;
            }
            quiet.await;
        }
    }

    pub fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests, and those of them that failed by the proxy's or a member's doing.
    pub fn counted(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }

    /// Requests that wait for a member.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// One request less that waits, also when its client gave up.
struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's search for a member.
#[derive(Debug, Default)]
pub struct Search {
    tried: Vec<MemberId>,
    failed: bool,
    deadline: Option<Instant>,
}

impl Search {
    /// Not this one again, as long as there are others; and not for ever.
    pub fn failed(&mut self, member: MemberId) {
        self.tried.push(member);
        self.failed = true;
        self.deadline();
    }

    fn deadline(&mut self) -> Instant {
        *self.deadline.get_or_insert_with(|| Instant::now() + MEMBER_WAIT)
    }

    fn why(&self) -> NoMember {
        if self.failed { NoMember::Unreachable } else { NoMember::Absent }
    }
}

/// A member, given to a request.
#[derive(Debug)]
pub struct Given {
    pub exchange: Exchange,
    pub address: std::net::SocketAddr,
    pub link: Option<Box<Link>>,
}

/// An exchange in flight. However it ends, dropping this takes it off its member's count.
#[derive(Debug)]
pub struct Exchange {
    shared: Arc<Shared>,
    ticket: Arc<Ticket>,
}

impl Exchange {
    /// Which member has it.
    pub fn member(&self) -> MemberId {
        self.ticket.member()
    }

    /// Was it cut?
    pub fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<Cut> {
        self.ticket.poll_cut(cx)
    }

    /// Runs `work` unless the exchange is cut.
    pub async fn guard<F: Future>(&self, work: F) -> Result<F::Output, Cut> {
        self.ticket.guard(work).await
    }

    /// The member could not be talked to: others are preferred for a moment.
    pub fn blame(&self, why: String) {
        self.shared.pool().failed(&self.ticket, why, Instant::now().into_std());
    }

    /// It ended without its whole response.
    pub fn count_failed(&self) {
        self.shared.count_failed();
    }

    /// Ends it, and leaves its connection for the next one.
    pub fn finish(self, link: Option<Box<Link>>) {
        self.release(link);
        // Dropping `self` releases again, which finds nothing to do.
    }

    fn release(&self, link: Option<Box<Link>>) {
        let now = Instant::now().into_std();
        let (change, in_flight) = {
            let mut pool = self.shared.pool();
            (pool.release(&self.ticket, link, now), pool.in_flight())
        };
        self.shared.announce(change);
        if in_flight == 0 {
            self.shared.quiet.notify_waiters();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.release(None);
    }
}

/// A health check under way; the member is not `out` before it ends.
#[derive(Debug)]
pub struct Checking {
    shared: Arc<Shared>,
    pub probe: Probe,
    done: bool,
}

impl Checking {
    /// Ends it with its result; says when the next is due.
    pub fn finish(mut self, result: Result<(), String>) -> Option<Duration> {
        self.done = true;
        let now = Instant::now().into_std();
        let (change, next) = self.shared.pool().checked(&self.probe.ticket, result, now);
        self.shared.announce(change);
        if change == Change::State {
            self.shared.available.notify_waiters();
        }
        next
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        if !self.done {
            let change = self.shared.pool().abandon_check(&self.probe.ticket);
            self.shared.announce(change);
        }
    }
}
