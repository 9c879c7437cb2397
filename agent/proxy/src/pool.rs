//! The pool decides which member takes a request, and counts what is in flight. Data without I/O:
//! time and what happened come in, connections (`C`) are only stored and dropped here.
//!
//! Every method is one step under the caller's lock. So an assignment and a drain never overlap:
//! once `apply` with [`Want::Out`] returned, no request is assigned to that member any more.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::member::{Intent, Key, MEMBERS_MAX, MemberState, Observed, Refused, Want};
use crate::slot::{EJECTED_FOR, FAILURES_MAX, Phase, Slot};
use crate::ticket::{MemberId, Stay, Ticket};

/// Between two health checks of a member in traffic.
pub const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Between two checks of a member that joins: its node waits for this, so it is soon noticed.
pub const CHECK_JOINING_EVERY: Duration = Duration::from_millis(20);

/// A member that did not pass for this long is down rather than starting.
pub const CHECK_JOINING_FAST_FOR: Duration = Duration::from_secs(30);

/// Between two checks of a member that is down.
pub const CHECK_DOWN_EVERY: Duration = Duration::from_millis(250);

/// What a step changed that somebody may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Nothing that is told.
    None,
    /// The number in flight at a draining member.
    InFlight,
    /// What a member is seen to do.
    State,
}

/// A request's member.
#[derive(Debug)]
pub struct Assigned<C> {
    /// In flight from now on, until it is released.
    pub ticket: Arc<Ticket>,
    /// Where to connect, when there is no open connection.
    pub address: SocketAddr,
    /// An idle connection to it.
    pub link: Option<C>,
}

/// A health check to do.
#[derive(Debug)]
pub struct Probe {
    /// Cut when the member leaves.
    pub ticket: Arc<Ticket>,
    /// Where.
    pub address: SocketAddr,
    /// Empty: connect only.
    pub path: String,
}

/// What an intent led to.
#[derive(Debug)]
pub struct Applied {
    /// The member as it is now.
    pub state: MemberState,
    /// What changed.
    pub change: Change,
    /// It joins: check its health in this stay.
    pub check: Option<(MemberId, Stay)>,
}

/// The members.
#[derive(Debug)]
pub struct Pool<C> {
    slots: BTreeMap<MemberId, Slot<C>>,
    next: u64,
    /// The member chosen last; ties go to the next one after it.
    turn: MemberId,
    in_flight: u64,
    cut: u64,
    /// Rises whenever what the state file says changes.
    edition: u64,
}

impl<C> Default for Pool<C> {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
            next: 1,
            turn: MemberId(0),
            in_flight: 0,
            cut: 0,
            edition: 0,
        }
    }
}

impl<C> Pool<C> {
    /// Puts an intent in force.
    pub fn apply(&mut self, intent: &Intent, now: Instant) -> Result<Applied, Refused> {
        intent.check()?;
        let known = self.id_of(&intent.key);
        if known.is_none() && intent.want != Want::Gone && self.slots.len() >= MEMBERS_MAX {
            return Err(Refused::Full);
        }
        Ok(match intent.want {
            Want::In => self.apply_in(known, intent, now),
            Want::Out => self.apply_out(known, intent),
            Want::Gone => self.apply_gone(known, intent),
        })
    }

    fn apply_in(&mut self, known: Option<MemberId>, intent: &Intent, now: Instant) -> Applied {
        let id = known.unwrap_or_else(|| self.insert(intent));
        let slot = self.slot_of(id, intent);
        let stays = slot.want() == Want::In && slot.address == intent.address;
        let before = slot.intent();
        slot.address = intent.address;
        slot.health_path.clone_from(&intent.health_path);
        slot.version.clone_from(&intent.version);
        if !stays {
            slot.join(now);
        }
        let same = known.is_some() && before == slot.intent();
        let check = (!stays).then_some((id, slot.stay));
        let state = slot.state();
        self.edition += u64::from(!same);
        Applied { state, change: if same { Change::None } else { Change::State }, check }
    }

    fn apply_out(&mut self, known: Option<MemberId>, intent: &Intent) -> Applied {
        let id = known.unwrap_or_else(|| self.insert(intent));
        let slot = self.slot_of(id, intent);
        let before = slot.intent();
        slot.address = intent.address;
        slot.health_path.clone_from(&intent.health_path);
        slot.version.clone_from(&intent.version);
        if slot.want() != Want::Out {
            slot.leave();
        }
        let cut = if intent.cut { slot.cut_in_flight() } else { 0 };
        let same = known.is_some() && before == slot.intent();
        let state = slot.state();
        self.cut += cut;
        self.edition += u64::from(!same);
        let change = if same && cut == 0 { Change::None } else { Change::State };
        Applied { state, change, check: None }
    }

    fn apply_gone(&mut self, known: Option<MemberId>, intent: &Intent) -> Applied {
        let gone = known.and_then(|id| self.slots.remove(&id));
        let change = if gone.is_some() { Change::State } else { Change::None };
        let mut slot = gone.unwrap_or_else(|| Slot::new(intent, Phase::Leaving));
        slot.leave();
        self.cut += slot.cut_in_flight();
        self.in_flight -= slot.in_flight.len() as u64;
        self.edition += u64::from(change == Change::State);
        let state = MemberState {
            want: Want::Gone,
            observed: Observed::Absent,
            in_flight: 0,
            ..slot.state()
        };
        Applied { state, change, check: None }
    }

    fn insert(&mut self, intent: &Intent) -> MemberId {
        let id = MemberId(self.next);
        self.next += 1;
        self.slots.insert(id, Slot::new(intent, Phase::Leaving));
        id
    }

    fn slot_of(&mut self, id: MemberId, intent: &Intent) -> &mut Slot<C> {
        self.slots.entry(id).or_insert_with(|| Slot::new(intent, Phase::Leaving))
    }

    /// Gives a request to the member with the least in flight, in turn among equals, but to none
    /// that `tried` names. A member that failed a moment ago serves only if no other can.
    pub fn assign(
        &mut self,
        tried: &[MemberId],
        now: Instant,
        alive: impl FnMut(&mut C) -> bool,
    ) -> Option<Assigned<C>> {
        let id = self.choose(tried, now)?;
        let slot = self.slots.get_mut(&id)?;
        self.turn = id;
        self.in_flight += 1;
        Some(Assigned {
            address: slot.address,
            link: slot.take_idle(now, alive),
            ticket: slot.admit(|stay, place| Ticket::new(id, stay, place)),
        })
    }

    fn choose(&self, tried: &[MemberId], now: Instant) -> Option<MemberId> {
        let after = self.slots.range((Excluded(self.turn), Unbounded));
        let mut best: Option<((bool, usize), MemberId)> = None;
        for (id, slot) in after.chain(self.slots.range(..=self.turn)) {
            if !slot.is_in() || tried.contains(id) {
                continue;
            }
            let rank = (slot.is_ejected(now), slot.in_flight.len());
            if best.is_none_or(|(least, _)| rank < least) {
                best = Some((rank, *id));
            }
        }
        best.map(|(_, id)| id)
    }

    /// Ends what `assign` began. The connection is kept if it is given and still of use; it is
    /// closed before the exchange counts as ended.
    pub fn release(&mut self, ticket: &Ticket, link: Option<C>, now: Instant) -> Change {
        let Some(slot) = self.slots.get_mut(&ticket.member) else {
            return Change::None; // The member is gone, and with it its count.
        };
        if let Some(link) = link {
            slot.put_idle(link, ticket.stay, now);
        }
        if !slot.dismiss(ticket) {
            return Change::None;
        }
        self.in_flight -= 1;
        match slot.observed() {
            Observed::Out => Change::State,
            Observed::Draining => Change::InFlight,
            Observed::In | Observed::Joining | Observed::Absent => Change::None,
        }
    }

    /// A connection to the member failed: others are preferred for a moment.
    pub fn failed(&mut self, ticket: &Ticket, why: String, now: Instant) {
        if let Some(slot) = self.slots.get_mut(&ticket.member)
            && slot.stay == ticket.stay
        {
            slot.ejected_until = Some(now + EJECTED_FOR);
            slot.failure = why;
        }
    }

    /// Begins a health check; `None` when this stay has ended.
    pub fn begin_check(&mut self, id: MemberId, stay: Stay) -> Option<Probe> {
        let slot = self.slots.get_mut(&id)?;
        if slot.want() != Want::In || slot.stay != stay {
            return None;
        }
        let ticket = Arc::new(Ticket::new(id, stay, usize::MAX));
        slot.probes.push(ticket.clone());
        Some(Probe { ticket, address: slot.address, path: slot.health_path.clone() })
    }

    /// Ends a health check that was given up, because the member left.
    pub fn abandon_check(&mut self, ticket: &Ticket) -> Change {
        match self.end_check(ticket) {
            Some(slot) if slot.observed() == Observed::Out => Change::State,
            Some(_) | None => Change::None,
        }
    }

    /// Ends a health check with its result, and says when the next is due.
    pub fn checked(
        &mut self,
        ticket: &Ticket,
        result: Result<(), String>,
        now: Instant,
    ) -> (Change, Option<Duration>) {
        let Some(slot) = self.end_check(ticket) else { return (Change::None, None) };
        if slot.stay != ticket.stay {
            let out = slot.observed() == Observed::Out;
            return (if out { Change::State } else { Change::None }, None);
        }
        let passed = result.is_ok();
        slot.failure = result.err().unwrap_or_default();
        let phase = slot.phase;
        match (phase, passed) {
            (Phase::Joining { .. } | Phase::In { .. }, true) => {
                slot.phase = Phase::In { failures: 0 };
                slot.ejected_until = None;
            }
            (Phase::In { failures }, false) if failures + 1 >= FAILURES_MAX => {
                slot.phase = Phase::Joining { since: now };
            }
            (Phase::In { failures }, false) => slot.phase = Phase::In { failures: failures + 1 },
            (Phase::Joining { .. } | Phase::Leaving, _) => {}
        }
        let next = match slot.phase {
            Phase::In { .. } => Some(CHECK_EVERY),
            Phase::Joining { since } if now.duration_since(since) < CHECK_JOINING_FAST_FOR => {
                Some(CHECK_JOINING_EVERY)
            }
            Phase::Joining { .. } => Some(CHECK_DOWN_EVERY),
            Phase::Leaving => None,
        };
        let moved = std::mem::discriminant(&phase) != std::mem::discriminant(&slot.phase);
        (if moved { Change::State } else { Change::None }, next)
    }

    fn end_check(&mut self, ticket: &Ticket) -> Option<&mut Slot<C>> {
        let slot = self.slots.get_mut(&ticket.member)?;
        let place = slot.probes.iter().position(|p| std::ptr::eq(Arc::as_ptr(p), ticket))?;
        slot.probes.swap_remove(place);
        Some(slot)
    }

    /// Closes idle connections that are too old or closed by the member.
    pub fn sweep(&mut self, now: Instant, mut alive: impl FnMut(&mut C) -> bool) {
        for slot in self.slots.values_mut() {
            slot.sweep(now, &mut alive);
        }
    }

    /// Ends everything in flight.
    pub fn cut_all(&mut self) {
        for slot in self.slots.values_mut() {
            self.cut += slot.cut_in_flight();
        }
    }

    /// Every member, in the order of their keys.
    pub fn list(&self) -> Vec<MemberState> {
        let mut list: Vec<_> = self.slots.values().map(Slot::state).collect();
        list.sort_by(|a, b| a.key.cmp(&b.key));
        list
    }

    /// One member.
    pub fn state(&self, key: &Key) -> Option<MemberState> {
        self.id_of(key).and_then(|id| self.slots.get(&id)).map(Slot::state)
    }

    /// What brings the members back after a restart, and the edition that this is.
    pub fn intents(&self) -> (u64, Vec<Intent>) {
        (self.edition, self.slots.values().map(Slot::intent).collect())
    }

    /// Which edition of the state file says what is in force.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// Exchanges in flight at all members.
    pub fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Exchanges that were cut since the start.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    /// Idle connections to all members.
    pub fn idle(&self) -> usize {
        self.slots.values().map(Slot::idle_count).sum()
    }

    fn id_of(&self, key: &Key) -> Option<MemberId> {
        self.slots.iter().find(|(_, slot)| slot.key == *key).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests;
