//! Which events a follower was told. Several controllers number theirs at the same time: one of another controller may
//! come here after newer ones, by as much as their clocks and the way through the store differ.

use std::collections::BTreeSet;

use crate::engine::State;
use crate::engine::number::floor;

/// How much later one may come, in milliseconds.
const LATE_MS: u64 = 10_000;

/// What was told.
pub struct Told {
    /// Everything up to this number was, or comes too late.
    pub since: u64,
    newest: u64,
    /// Of the later ones, those that were.
    told: BTreeSet<u64>,
    late_ms: u64,
}

impl Told {
    /// Everything up to this number; 0: everything that there is.
    pub fn new(state: &State, after: u64) -> Self {
        let newest = if after == 0 { state.next_event.saturating_sub(1) } else { after };
        // With the embedded store they come in their order.
        let late_ms = if state.cluster.is_some() { LATE_MS } else { 0 };
        let since = floor(newest, late_ms);
        let known = state.events.iter().map(|event| event.seq);
        let told = known.filter(|seq| *seq > since && *seq <= newest).collect();
        Self { since, newest, told, late_ms }
    }

    /// Was it not told yet?
    pub fn is_news(&self, seq: u64) -> bool {
        seq > self.since && !self.told.contains(&seq)
    }

    /// These were told now.
    pub fn tell(&mut self, seqs: impl Iterator<Item = u64>) {
        self.told.extend(seqs);
        self.newest = self.told.last().copied().unwrap_or(0).max(self.newest);
        self.since = floor(self.newest, self.late_ms).max(self.since);
        self.told = self.told.split_off(&(self.since + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cluster::Cluster;

    fn news(told: &mut Told, seqs: &[u64]) -> Vec<u64> {
        let news: Vec<u64> = seqs.iter().copied().filter(|seq| told.is_news(*seq)).collect();
        told.tell(news.iter().copied());
        news
    }

    #[test]
    fn one_that_comes_late_is_told_once() {
        let second = 256 * 1000;
        let state = State { cluster: Some(Cluster::default()), ..State::default() };
        let mut told = Told::new(&state, 100 * second);
        assert_eq!(news(&mut told, &[101 * second]), [101 * second]);
        assert_eq!(news(&mut told, &[99 * second, 101 * second]), [99 * second]);
        assert_eq!(news(&mut told, &[99 * second, 150 * second]), [150 * second]);
        assert!(news(&mut told, &[99 * second, 130 * second]).is_empty(), "too late");
        let mut alone = Told::new(&State::default(), 7);
        assert_eq!(news(&mut alone, &[7, 8, 9]), [8, 9]);
        assert!(news(&mut alone, &[6, 9]).is_empty());
    }
}
