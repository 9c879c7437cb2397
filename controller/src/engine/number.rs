//! The numbers of events. With the embedded store they count up. Several controllers number at once, so there they
//! tell the time: each controller has numbers of its own, and every one is above all that its writer has seen (a
//! hybrid logical clock, Kulkarni et al. 2014).

use rota_rollout::names::Timestamp;

/// Numbers of one millisecond: 16 for each of 16 controllers. 2^53, the largest whole number that JavaScript and `jq`
/// keep apart, is reached in the year 3084.
pub const PER_MS: u64 = 256;

/// Of these, those of one controller.
const PER_SLOT: u64 = 16;

/// The first number that is above this one, of whichever controller.
pub fn after(seq: u64) -> u64 {
    seq + 1
}

/// The first number of this moment, where numbers tell the time.
pub fn at(at: Timestamp) -> u64 {
    at.0 * PER_MS
}

/// The first number of so many milliseconds before this one, where numbers tell the time.
pub fn floor(next: u64, ms: u64) -> u64 {
    next.saturating_sub(ms * PER_MS)
}

/// The first number of this slot, not below `next`, and not before the clock.
pub fn of_slot(next: u64, slot: u8, at: Timestamp) -> u64 {
    let floor = next.max(at.0 * PER_MS);
    let (ms, rest) = (floor / PER_MS, floor % PER_MS);
    let first = u64::from(slot) * PER_SLOT;
    if rest < first {
        ms * PER_MS + first
    } else if rest < first + PER_SLOT {
        floor
    } else {
        (ms + 1) * PER_MS + first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_are_apart() {
        for (next, slot, at, is) in [
            (0, 0, 10, 2560),
            (2561, 0, 10, 2561),
            (2576, 0, 10, 2816),
            (2561, 1, 10, 2576),
            (2600, 1, 10, 2832),
            (9999, 2, 10, 10016),
            (7, 15, 0, 240),
        ] {
            assert_eq!(of_slot(next, slot, Timestamp(at)), is, "{next} {slot} {at}");
        }
        let mut next = 0;
        for _ in 0..100 {
            let seq = of_slot(next, 3, Timestamp(5));
            assert!(seq >= next && (seq % PER_MS) / PER_SLOT == 3);
            next = after(seq);
        }
    }
}
