//! How long each step of an update took. The machine has no clock of such fineness; the loop hears every step begin.

use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::report::{Measured, Step, What as Say};

/// The steps of the update under way.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    ended: Vec<(Step, Duration)>,
    current: Option<(Step, Instant)>,
}

impl Stopwatch {
    /// Hears what is said of the update, and adds the times to it where they belong. At the end: a line for people.
    pub fn hear(&mut self, say: &mut Say, now: Instant) -> Option<String> {
        match say {
            Say::Step { step, .. } if self.current.is_some_and(|(known, _)| known == *step) => None,
            Say::Step { step, .. } => {
                self.close(now);
                self.current = Some((*step, now));
                None
            }
            Say::Joined(measured) => {
                self.close(now);
                self.fill(measured);
                None
            }
            Say::Done(measured) => self.end(measured, now),
            Say::Failed(failed) => self.end(&mut failed.measured, now),
            Say::Prepared | Say::Once(_) | Say::Broken { .. } | Say::Stale { .. } => None,
        }
    }

    fn close(&mut self, now: Instant) {
        if let Some((step, since)) = self.current.take() {
            self.ended.push((step, now.saturating_duration_since(since)));
        }
    }

    fn fill(&self, measured: &mut Measured) {
        let ms = |took: &Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        measured.steps = self.ended.iter().map(|(step, took)| (*step, ms(took))).collect();
    }

    fn end(&mut self, measured: &mut Measured, now: Instant) -> Option<String> {
        self.close(now);
        self.fill(measured);
        let ended = std::mem::take(&mut self.ended);
        let mut line = String::new();
        for (step, took) in &ended {
            let comma = if line.is_empty() { "" } else { ", " };
            // Writing into a string does not fail.
            write!(line, "{comma}{step} {:.2}ms", took.as_secs_f64() * 1000.0).unwrap_or_default();
        }
        (!ended.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_lasts_until_the_next_one_begins() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let step = |step| Say::Step { step, in_flight: 0 };
        let mut watch = Stopwatch::default();
        for (ms, began) in [(0, Step::Fetch), (2, Step::Drain), (4, Step::Drain), (9, Step::Join)] {
            assert_eq!(watch.hear(&mut step(began), at(ms)), None);
        }
        let mut joined = Say::Joined(Measured::default());
        assert_eq!(watch.hear(&mut joined, at(12)), None);
        let steps = vec![(Step::Fetch, 2), (Step::Drain, 7), (Step::Join, 3)];
        assert_eq!(joined, Say::Joined(Measured { steps, ..Measured::default() }));
        assert_eq!(watch.hear(&mut step(Step::Monitor), at(12)), None);
        let line = watch.hear(&mut Say::Done(Measured::default()), at(20));
        let expected = "fetch 2.00ms, drain 7.00ms, join 3.00ms, monitor 8.00ms";
        assert_eq!(line.as_deref(), Some(expected));
        let again = watch.hear(&mut Say::Done(Measured::default()), at(30));
        assert_eq!(again, None, "a repeat has no times");
    }
}
