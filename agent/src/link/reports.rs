//! The reports that wait for an acknowledgement, as the sessions see them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tracing::warn;

use crate::order::Rollout;
use crate::report::Report;

/// Reports kept for repeating. An update has about ten; this is a node that no controller could
/// hear during 400 updates. The journal has them all.
const REPORTS_MAX: usize = 4096;

/// Rollouts whose owner is remembered; a node is in a few at a time.
const OWNERS_MAX: usize = 256;

/// In the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    reports: VecDeque<Arc<Report>>,
    /// Who ordered last in a rollout: as far as we know, its owner.
    owners: BTreeMap<Rollout, String>,
    /// The highest number that ever waited.
    highest: u64,
    /// All numbers up to this one were acknowledged.
    settled: u64,
}

impl Waiting {
    /// Adds one. A number that waits already is a repeat and changes nothing.
    pub(super) fn push(&mut self, report: Report) {
        let at = self.reports.partition_point(|known| known.seq < report.seq);
        if self.reports.get(at).is_some_and(|known| known.seq == report.seq) {
            return;
        }
        self.highest = self.highest.max(report.seq);
        self.reports.insert(at, Arc::new(report));
        if self.reports.len() > REPORTS_MAX {
            let oldest = self.reports.pop_front().map_or(0, |report| report.seq);
            warn!("report {oldest} waits too long; it is repeated after the next restart");
        }
    }

    /// What a session that has sent everything up to `sent` has still to send.
    pub(super) fn after(&self, sent: u64) -> Vec<Arc<Report>> {
        self.reports.iter().filter(|report| report.seq > sent).cloned().collect()
    }

    /// Notes who orders in a rollout.
    pub(super) fn ordered(&mut self, rollout: &Rollout, controller: &str) {
        let known = self.owners.insert(rollout.clone(), controller.to_owned());
        if known.is_none() && self.owners.len() > OWNERS_MAX {
            // The lowest of all: an old revision, or one whose owner we learn again.
            self.owners.pop_first();
        }
    }

    /// Forgets what this controller acknowledges: the report and those before it, except those of
    /// rollouts that another controller owns, who answers for them itself. Returns the number up
    /// to which nothing waits any more, when it rose.
    pub(super) fn acked(&mut self, seq: u64, controller: &str) -> Option<u64> {
        let exact = self.reports.iter().find(|report| report.seq == seq);
        let exact = exact.map(|report| report.rollout.clone());
        let owners = &self.owners;
        self.reports.retain(|report| {
            let foreign = owners.get(&report.rollout).is_some_and(|owner| owner != controller);
            let covered = exact.as_ref() == Some(&report.rollout) || !foreign;
            report.seq > seq || !covered
        });
        let settled = self.reports.front().map_or(self.highest, |report| report.seq - 1);
        let rose = settled > self.settled;
        self.settled = self.settled.max(settled);
        rose.then_some(settled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::What;

    fn report(seq: u64, rollout: &str) -> Report {
        let rollout = rollout.parse().unwrap();
        Report { seq, rollout, attempt: 1, at_ms: 0, what: What::Prepared }
    }

    #[test]
    fn an_acknowledgement_covers_what_its_sender_owns() {
        let all = [(1, "a/p/1"), (2, "b/p/1"), (3, "a/p/1"), (4, "x/p/1"), (5, "b/p/1")];
        for (acked, by, settled, left) in [
            (3, "c1", Some(1), vec![2, 4, 5]),
            (5, "c2", None, vec![1, 3]),
            (1, "c1", Some(1), vec![2, 3, 4, 5]),
            (4, "c1", Some(1), vec![2, 5]),
            // Its own owner is not the one we know: it has a new one.
            (1, "c3", Some(1), vec![2, 3, 4, 5]),
            (9, "c1", Some(1), vec![2, 5]),
        ] {
            let mut waiting = Waiting::default();
            waiting.ordered(&"a/p/1".parse().unwrap(), "c1");
            waiting.ordered(&"b/p/1".parse().unwrap(), "c2");
            for (seq, rollout) in all {
                waiting.push(report(seq, rollout));
                waiting.push(report(seq, rollout));
            }
            assert_eq!(waiting.acked(acked, by), settled, "{by} acks {acked}");
            let seqs: Vec<u64> = waiting.after(0).iter().map(|report| report.seq).collect();
            assert_eq!(seqs, left, "{by} acks {acked}");
            let rest = [waiting.acked(5, "c1"), waiting.acked(5, "c2")];
            assert!(rest.contains(&Some(5)), "both together settle everything: {rest:?}");
        }
    }

    #[test]
    fn the_oldest_give_way() {
        let mut waiting = Waiting::default();
        for seq in 1..=REPORTS_MAX as u64 + 2 {
            waiting.push(report(seq, "a/p/1"));
        }
        assert_eq!(waiting.after(0).first().unwrap().seq, 3);
        assert_eq!(waiting.after(REPORTS_MAX as u64).len(), 2);
    }
}
