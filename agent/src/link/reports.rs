//! The reports that wait for an acknowledgement, as the sessions see them.

use std::collections::VecDeque;
use std::sync::Arc;

use tracing::warn;

use crate::report::Report;

/// Reports kept for repeating. An update has about ten; this is a node that no controller could
/// hear during 400 updates. The journal has them all.
const REPORTS_MAX: usize = 4096;

/// In the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    reports: VecDeque<Arc<Report>>,
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

    /// Forgets the report that a controller acknowledges, and no other: each one is acknowledged, by the owner of its
    /// rollout, and who owns one rollout now need not have heard what was said of it before. Returns the number up to
    /// which nothing waits any more, when it rose.
    pub(super) fn acked(&mut self, seq: u64) -> Option<u64> {
        self.reports.retain(|report| report.seq != seq);
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
    fn what_is_acknowledged_is_forgotten_and_nothing_else() {
        for (acked, settled, left) in [
            (vec![1], vec![Some(1)], vec![2, 3]),
            (vec![3], vec![None], vec![1, 2]),
            (vec![3, 1, 2], vec![None, Some(1), Some(3)], vec![]),
            (vec![1, 1, 9], vec![Some(1), None, None], vec![2, 3]),
        ] {
            let mut waiting = Waiting::default();
            for (seq, rollout) in [(1, "a/p/1"), (2, "b/p/1"), (3, "a/p/1")] {
                waiting.push(report(seq, rollout));
                waiting.push(report(seq, rollout));
            }
            let told: Vec<_> = acked.iter().map(|seq| waiting.acked(*seq)).collect();
            assert_eq!(told, settled, "{acked:?}");
            let seqs: Vec<u64> = waiting.after(0).iter().map(|report| report.seq).collect();
            assert_eq!(seqs, left, "{acked:?}");
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
