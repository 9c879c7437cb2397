//! When each lease ends. In memory: a restart gives every lease its full time again, as its holder
//! could not keep it alive meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::LeaseId;

/// When to try again to remove the keys of a lease that has ended but could not be written off.
const RETRY: Duration = Duration::from_secs(1);

/// All leases and their deadlines.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_id: HashMap<LeaseId, (Duration, Instant)>,
    by_deadline: BTreeSet<(Instant, i64)>,
}

impl Leases {
    /// Begins a lease.
    pub(super) fn arm(&mut self, lease: LeaseId, ttl: Duration, now: Instant) {
        self.move_to(lease, ttl, now + ttl);
    }

    /// Lengthens a lease, counted from when that was asked: a keep-alive that waited behind a slow
    /// disk was in time.
    pub(super) fn keep(&mut self, lease: LeaseId, asked: Instant) -> bool {
        match self.by_id.get(&lease) {
            Some(&(ttl, deadline)) if asked < deadline => {
                self.move_to(lease, ttl, deadline.max(asked + ttl));
                true
            }
            Some(_) | None => false,
        }
    }

    /// Forgets a lease.
    pub(super) fn forget(&mut self, lease: LeaseId) {
        if let Some((_, deadline)) = self.by_id.remove(&lease) {
            self.by_deadline.remove(&(deadline, lease.0));
        }
    }

    /// When the next lease ends.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|&(deadline, _)| deadline)
    }

    /// The leases that have ended by now, the oldest first.
    pub(super) fn due(&self, now: Instant) -> Vec<LeaseId> {
        let ended = self.by_deadline.iter().take_while(|(deadline, _)| *deadline <= now);
        ended.map(|&(_, id)| LeaseId(id)).collect()
    }

    /// Looks at leases again later, as their end could not be written down.
    pub(super) fn postpone(&mut self, leases: &[LeaseId], now: Instant) {
        for lease in leases {
            if let Some(&(ttl, _)) = self.by_id.get(lease) {
                self.move_to(*lease, ttl, now + RETRY);
            }
        }
    }

    fn move_to(&mut self, lease: LeaseId, ttl: Duration, deadline: Instant) {
        self.forget(lease);
        self.by_id.insert(lease, (ttl, deadline));
        self.by_deadline.insert((deadline, lease.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_after_its_time_unless_kept_alive() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut leases = Leases::default();
        assert_eq!(leases.next_deadline(), None);
        leases.arm(LeaseId(1), Duration::from_millis(100), at(0));
        leases.arm(LeaseId(2), Duration::from_millis(50), at(0));
        assert_eq!(leases.next_deadline(), Some(at(50)));
        assert!(leases.keep(LeaseId(2), at(49)));
        assert_eq!(leases.due(at(98)), []);
        assert_eq!(leases.due(at(99)), [LeaseId(2)]);
        assert_eq!(leases.due(at(100)), [LeaseId(2), LeaseId(1)]);
        assert!(!leases.keep(LeaseId(1), at(100)), "too late");
        leases.postpone(&[LeaseId(2)], at(100));
        assert_eq!(leases.due(at(100)), [LeaseId(1)]);
        leases.forget(LeaseId(1));
        leases.forget(LeaseId(1));
        assert!(!leases.keep(LeaseId(1), at(1)), "gone");
        assert_eq!(leases.next_deadline(), Some(at(1100)));
    }

    #[test]
    fn a_late_keep_alive_never_shortens() {
        let start = Instant::now();
        let mut leases = Leases::default();
        leases.arm(LeaseId(1), Duration::from_secs(5), start + Duration::from_secs(9));
        assert!(leases.keep(LeaseId(1), start));
        assert_eq!(leases.next_deadline(), Some(start + Duration::from_secs(14)));
    }
}
