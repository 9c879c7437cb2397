//! When to try again: exponential, with full jitter, so that a fleet does not come as one wave.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};

/// The bound of the first wait. A controller that restarts is back within a second or two.
pub const FIRST: Duration = Duration::from_millis(250);

/// The bound of every wait. An operator who repairs a network does not want to wait longer.
pub const LONGEST: Duration = Duration::from_secs(30);

/// The least bound that waits grow to: so often a fleet of any size may try.
const STEADY: Duration = Duration::from_secs(2);

/// Over this time the first retries are spread when the other end did not say: 10,000 agents are 330 handshakes a
/// second, a quarter of what one core of a controller can do.
pub const SPREAD: Duration = Duration::from_secs(30);

/// How far we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    failures: u32,
    longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::up_to(LONGEST)
    }
}

impl Backoff {
    /// With another bound of every wait.
    pub fn up_to(longest: Duration) -> Self {
        Self { failures: 0, longest }
    }

    /// The wait after one more failure; `chance` is uniform.
    pub fn after_failure(&mut self, chance: u64) -> Duration {
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        part(bound, chance)
    }

    /// The wait after a connection that worked: it ended because the other end did, for all its callers at once. A
    /// small fleet that fails to come back tries more often than a large one: all together no more than the other end
    /// can take.
    pub fn after_life(&mut self, spread: Duration, chance: u64) -> Duration {
        self.failures = 0;
        self.longest = spread.saturating_mul(2).clamp(STEADY, LONGEST);
        part(spread.clamp(FIRST, SPREAD), chance)
    }
}

/// A uniform part of `bound`.
fn part(bound: Duration, chance: u64) -> Duration {
    let nanos = (u128::from(chance) * bound.as_nanos()) >> 64;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// A random number for the waits above. Without randomness the middle has to do.
pub fn chance() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => u64::MAX / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_jittered_fully() {
        let mut backoff = Backoff::default();
        let bounds: Vec<u128> =
            (0..10).map(|_| backoff.after_failure(u64::MAX).as_millis() + 1).collect();
        assert_eq!(bounds, [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.after_failure(0), Duration::ZERO);
        assert_eq!(backoff.after_failure(1 << 63), LONGEST / 2);
    }

    #[test]
    fn after_a_life_the_first_retry_is_spread_as_the_other_end_said() {
        for (said, bound) in [(0, FIRST), (3000, Duration::from_secs(3)), (90_000, SPREAD)] {
            let mut backoff = Backoff { failures: 7, ..Backoff::default() };
            let wait = backoff.after_life(Duration::from_millis(said), 1 << 63);
            assert_eq!(wait, bound / 2, "{said} ms");
            assert_eq!(backoff.failures, 0);
        }
    }

    #[test]
    fn a_small_fleet_waits_less_for_who_does_not_come_back() {
        for (said, longest) in [(0, STEADY), (3000, Duration::from_secs(6)), (90_000, LONGEST)] {
            let mut backoff = Backoff::default();
            backoff.after_life(Duration::from_millis(said), 0);
            let waits = (0..10).map(|_| backoff.after_failure(1 << 63));
            assert_eq!(waits.max(), Some(longest / 2), "{said} ms");
        }
    }
}
