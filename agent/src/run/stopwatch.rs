//! What an update leaves behind beside its result: how long each step took, what was in flight, what scripts printed.
//! The machine has no clock of such fineness; the loop hears every step begin.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::report::{Measured, Printed, Step, What as Say};

/// Points of one curve. Enough to see its shape; when it is full, every second one goes.
const POINTS_MAX: usize = 64;

/// Outputs of one update that are kept: more scripts than anybody has.
const PRINTED_MAX: usize = 16;

/// Bytes of each: the end of it. Failures carry more.
const PRINTED_BYTES_MAX: usize = 16 * 1024;

/// The update under way.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    ended: Vec<(Step, Duration)>,
    current: Option<(Step, Instant)>,
    curve: Curve,
    printed: Vec<Printed>,
    not_asked: BTreeSet<String>,
}

/// What was in flight since the drain began.
#[derive(Debug, Default)]
struct Curve {
    begun: Option<Instant>,
    points: Vec<(u64, u64)>,
}

impl Curve {
    fn begin(&mut self, now: Instant) {
        self.begun.get_or_insert(now);
    }

    fn add(&mut self, in_flight: u64, now: Instant) {
        let Some(begun) = self.begun else { return };
        if self.points.len() >= POINTS_MAX {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.points.push((ms(now.saturating_duration_since(begun)), in_flight));
    }

    /// Nothing is in flight any more: it is drained, or what was left was cut.
    fn drained(&mut self, now: Instant) {
        if self.points.last().is_none_or(|(_, in_flight)| *in_flight > 0) {
            self.add(0, now);
        }
    }
}

fn ms(took: Duration) -> u64 {
    u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
}

impl Stopwatch {
    /// A hook or a smoke test printed something.
    pub fn print(&mut self, what: String, mut output: Vec<u8>) {
        if output.is_empty() || self.printed.len() >= PRINTED_MAX {
            return;
        }
        let excess = output.len().saturating_sub(PRINTED_BYTES_MAX);
        output.drain(..excess);
        self.printed.push(Printed { what, output });
    }

    /// It went on without the word of these edges. Is that news?
    pub fn not_asked(&mut self, edges: &BTreeSet<String>) -> bool {
        let news = !edges.is_subset(&self.not_asked);
        self.not_asked.extend(edges.iter().cloned());
        news
    }

    /// Hears what is said of the update, and adds to it what is known here. At the end: a line for people.
    pub fn hear(&mut self, say: &mut Say, now: Instant) -> Option<String> {
        match say {
            Say::Step { step, in_flight } => {
                self.step(*step, *in_flight, now);
                None
            }
            Say::Joined(measured) => {
                self.close(now);
                self.curve.add(0, now);
                self.fill(measured);
                None
            }
            Say::Done(measured) => self.end(measured, now),
            Say::Failed(failed) => self.end(&mut failed.measured, now),
            Say::Prepared
            | Say::Once(_)
            | Say::Ran { .. }
            | Say::Broken { .. }
            | Say::Stale { .. } => None,
        }
    }

    fn step(&mut self, step: Step, in_flight: u64, now: Instant) {
        if self.current.is_none() && self.ended.is_empty() {
            self.not_asked.clear(); // of what was no update
        }
        let same = self.current.is_some_and(|(known, _)| known == step);
        match (step, same) {
            (Step::Drain, false) => self.curve.begin(now),
            (Step::Drain, true) => self.curve.add(in_flight, now),
            (Step::Stop, _) => self.curve.drained(now),
            (_, _) => {}
        }
        if !same {
            self.close(now);
            self.current = Some((step, now));
        }
    }

    fn close(&mut self, now: Instant) {
        if let Some((step, since)) = self.current.take() {
            self.ended.push((step, now.saturating_duration_since(since)));
        }
    }

    fn fill(&self, measured: &mut Measured) {
        measured.steps = self.ended.iter().map(|(step, took)| (*step, ms(*took))).collect();
        measured.in_flight.clone_from(&self.curve.points);
        measured.printed.clone_from(&self.printed);
        measured.not_asked = self.not_asked.iter().cloned().collect();
    }

    fn end(&mut self, measured: &mut Measured, now: Instant) -> Option<String> {
        self.close(now);
        self.fill(measured);
        let Self { ended, .. } = std::mem::take(self);
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

    fn hears(watch: &mut Stopwatch, begun: Instant, said: &[(u64, Step, u64)]) {
        for (ms, step, in_flight) in said {
            let at = begun + Duration::from_millis(*ms);
            let mut say = Say::Step { step: *step, in_flight: *in_flight };
            assert_eq!(watch.hear(&mut say, at), None);
        }
    }

    #[test]
    fn each_step_lasts_until_the_next_one_begins() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut watch = Stopwatch::default();
        let said =
            [(0, Step::Fetch, 0), (2, Step::Drain, 0), (4, Step::Drain, 7), (9, Step::Join, 0)];
        hears(&mut watch, begun, &said);
        watch.print("before_drain".to_owned(), b"hello".to_vec());
        watch.print("smoke".to_owned(), Vec::new());
        let mut joined = Say::Joined(Measured::default());
        assert_eq!(watch.hear(&mut joined, at(12)), None);
        let steps = vec![(Step::Fetch, 2), (Step::Drain, 7), (Step::Join, 3)];
        let printed = Printed { what: "before_drain".to_owned(), output: b"hello".to_vec() };
        let known = Measured {
            steps,
            in_flight: vec![(2, 7), (10, 0)],
            printed: vec![printed],
            ..Measured::default()
        };
        assert_eq!(joined, Say::Joined(known));
        hears(&mut watch, begun, &[(12, Step::Monitor, 0)]);
        let line = watch.hear(&mut Say::Done(Measured::default()), at(20));
        let expected = "fetch 2.00ms, drain 7.00ms, join 3.00ms, monitor 8.00ms";
        assert_eq!(line.as_deref(), Some(expected));
        let again = watch.hear(&mut Say::Done(Measured::default()), at(30));
        assert_eq!(again, None, "a repeat has no times");
    }

    #[test]
    fn a_curve_has_few_points_and_ends_with_nothing_in_flight() {
        let begun = Instant::now();
        for drains in [0, 1, 63, 64, 65, 1000] {
            let mut watch = Stopwatch::default();
            hears(&mut watch, begun, &[(0, Step::Drain, 0)]);
            for n in 1..=drains {
                hears(&mut watch, begun, &[(n, Step::Drain, 2000 - n)]);
            }
            hears(&mut watch, begun, &[(drains + 1, Step::Stop, 0), (drains + 2, Step::Start, 0)]);
            let points = &watch.curve.points;
            assert!(points.len() <= POINTS_MAX, "{} points", points.len());
            assert_eq!(points.last(), Some(&(drains + 1, 0)));
            assert!(drains == 0 || points[0] == (1, 1999), "the first one stays: {points:?}");
        }
    }
}
