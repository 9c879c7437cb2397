//! One member inside the pool: its phase, what is in flight, and its idle connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::member::{Intent, Key, MemberState, Observed, Want};
use crate::ticket::{Stay, Ticket};

/// Idle connections kept to one member. As many as a busy member has in flight; above that a new
/// connection is cheaper than what an idle one holds in both kernels.
pub const IDLE_MAX: usize = 512;

/// How long an idle connection is kept. The shortest idle limit that is common among app servers
/// is the 5 s of Node.js: closing first spares requests the race with the server's close.
pub const IDLE_AGE_MAX: Duration = Duration::from_secs(4);

/// How long a member is passed over after a connection to it failed, if others can serve. As long
/// as the pause between two health checks, which know better.
pub const EJECTED_FOR: Duration = Duration::from_secs(1);

/// Failed health checks in a row that take a member out. One may be a hiccup.
pub const FAILURES_MAX: u32 = 2;

/// What the member may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Wanted in; waits for its health check since this moment.
    Joining { since: Instant },
    /// Serves; so many health checks failed in a row.
    In { failures: u32 },
    /// Wanted out.
    Leaving,
}

/// A connection without a request.
#[derive(Debug)]
struct Idle<C> {
    link: C,
    since: Instant,
}

/// One member.
#[derive(Debug)]
pub struct Slot<C> {
    pub key: Key,
    pub address: SocketAddr,
    pub health_path: String,
    pub version: String,
    pub phase: Phase,
    pub stay: Stay,
    /// Passed over until then, if another member can serve.
    pub ejected_until: Option<Instant>,
    /// Why the last check or connection failed.
    pub failure: String,
    /// The exchanges in flight: their number is the length of this list.
    pub in_flight: Vec<Arc<Ticket>>,
    /// Health checks under way; they hold connections too. One, and those of an earlier stay.
    pub probes: Vec<Arc<Ticket>>,
    /// Cut since it last joined.
    pub cut: u64,
    idle: Vec<Idle<C>>,
}

impl<C> Slot<C> {
    pub fn new(intent: &Intent, phase: Phase) -> Self {
        Self {
            key: intent.key.clone(),
            address: intent.address,
            health_path: intent.health_path.clone(),
            version: intent.version.clone(),
            phase,
            stay: Stay(0),
            ejected_until: None,
            failure: String::new(),
            in_flight: Vec::new(),
            probes: Vec::new(),
            cut: 0,
            idle: Vec::new(),
        }
    }

    /// Begins a new stay: nothing is known about its health, and old connections are not used.
    pub fn join(&mut self, now: Instant) {
        self.retire(Phase::Joining { since: now });
        self.cut = 0;
        self.failure.clear();
    }

    /// Takes it out of traffic and closes what it does not need any more, at once.
    pub fn leave(&mut self) {
        self.retire(Phase::Leaving);
    }

    fn retire(&mut self, phase: Phase) {
        self.phase = phase;
        self.stay = Stay(self.stay.0 + 1);
        self.ejected_until = None;
        self.idle.clear();
        for probe in &self.probes {
            probe.cut();
        }
    }

    /// Ends what is in flight; says how many exchanges that were.
    pub fn cut_in_flight(&mut self) -> u64 {
        let cut = self.in_flight.iter().filter(|ticket| ticket.cut()).count() as u64;
        self.cut += cut;
        cut
    }

    /// Does it take requests?
    pub fn is_in(&self) -> bool {
        match self.phase {
            Phase::In { .. } => true,
            Phase::Joining { .. } | Phase::Leaving => false,
        }
    }

    /// Is it passed over for a moment?
    pub fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// The newest idle connection that is young enough and, by `alive`, still open.
    pub fn take_idle(&mut self, now: Instant, mut alive: impl FnMut(&mut C) -> bool) -> Option<C> {
        while let Some(mut idle) = self.idle.pop() {
            if now.duration_since(idle.since) >= IDLE_AGE_MAX {
                // The list is ordered by age: the others are older still.
                self.idle.clear();
                return None;
            }
            if alive(&mut idle.link) {
                return Some(idle.link);
            }
        }
        None
    }

    /// Keeps a connection for the next request, or closes it when it is not needed.
    pub fn put_idle(&mut self, link: C, stay: Stay, now: Instant) {
        if self.is_in() && self.stay == stay && self.idle.len() < IDLE_MAX {
            self.idle.push(Idle { link, since: now });
        }
    }

    /// Closes the idle connections that are too old or, by `alive`, closed already.
    pub fn sweep(&mut self, now: Instant, mut alive: impl FnMut(&mut C) -> bool) {
        self.idle.retain_mut(|idle| {
            now.duration_since(idle.since) < IDLE_AGE_MAX && alive(&mut idle.link)
        });
        if self.idle.is_empty() {
            // A burst should not hold its memory for ever.
            self.idle.shrink_to_fit();
        }
    }

    /// How many connections wait.
    pub fn idle_count(&self) -> usize {
        self.idle.len()
    }

    /// Lists one more exchange in flight.
    pub fn admit(&mut self, ticket: impl FnOnce(Stay, usize) -> Ticket) -> Arc<Ticket> {
        let ticket = Arc::new(ticket(self.stay, self.in_flight.len()));
        self.in_flight.push(ticket.clone());
        ticket
    }

    /// Strikes an exchange from the list; false when it is not there.
    pub fn dismiss(&mut self, ticket: &Ticket) -> bool {
        let place = ticket.place.load(Ordering::Relaxed);
        match self.in_flight.get(place) {
            Some(listed) if std::ptr::eq(Arc::as_ptr(listed), ticket) => {}
            Some(_) | None => return false,
        }
        self.in_flight.swap_remove(place);
        if let Some(moved) = self.in_flight.get(place) {
            moved.place.store(place, Ordering::Relaxed);
        }
        true
    }

    /// What it is seen to do.
    pub fn observed(&self) -> Observed {
        match self.phase {
            Phase::Joining { .. } => Observed::Joining,
            Phase::In { .. } => Observed::In,
            Phase::Leaving if self.in_flight.is_empty() && self.probes.is_empty() => Observed::Out,
            Phase::Leaving => Observed::Draining,
        }
    }

    /// What was last wanted.
    pub fn want(&self) -> Want {
        match self.phase {
            Phase::Joining { .. } | Phase::In { .. } => Want::In,
            Phase::Leaving => Want::Out,
        }
    }

    /// All that others may know.
    pub fn state(&self) -> MemberState {
        MemberState {
            key: self.key.clone(),
            address: self.address,
            want: self.want(),
            observed: self.observed(),
            in_flight: self.in_flight.len() as u64,
            cut: self.cut,
            health_path: self.health_path.clone(),
            version: self.version.clone(),
            failure: self.failure.clone(),
        }
    }

    /// The intent that would bring it back as it is, for the state file.
    pub fn intent(&self) -> Intent {
        Intent {
            key: self.key.clone(),
            address: self.address,
            want: self.want(),
            cut: false,
            health_path: self.health_path.clone(),
            version: self.version.clone(),
        }
    }
}
