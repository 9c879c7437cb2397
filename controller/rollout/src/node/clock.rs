//! How long a node was out of traffic in all: what each attempt measured, and what lay between and behind them.

use super::{Measured, Node};
use crate::names::{Span, Timestamp};

impl Node {
    /// An attempt begins: what was measured before it stays, and the attempt measures by itself from now on.
    pub(crate) fn begins_at(&mut self, at: Timestamp) {
        self.is_back(at);
        self.earlier = self.measured;
    }

    /// What the attempt under way measured up to now. It counts anew with every report, so the newest one says it all.
    pub(crate) fn measures(&mut self, measured: Measured) {
        self.measured = self.earlier.plus(measured);
    }

    /// It was left out of traffic, or fell out of it; nobody measures any more until it is back.
    pub(crate) fn is_left_out(&mut self, at: Timestamp) {
        if self.previous.is_some() {
            self.out_since.get_or_insert(at); // who never served is not missed
        }
    }

    /// It serves again, or an attempt measures again, or the rollout is over.
    pub(crate) fn is_back(&mut self, at: Timestamp) {
        if let Some(since) = self.out_since.take() {
            let Span(before) = self.measured.out_of_traffic;
            self.measured.out_of_traffic = Span(before + at.since(since).0);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::names::Span;
    use crate::node::{Left, Measured, Report};
    use crate::tests::{Story, failure, name, one_by_one};
    use crate::verbs::Verb;

    fn out(ms: u64) -> Measured {
        Measured { out_of_traffic: Span(ms), ..Measured::default() }
    }

    fn measured(story: &Story) -> u64 {
        story.rollout.nodes()[&name("n1")].measured.out_of_traffic.0
    }

    fn failed(ms: u64, left: Left) -> Report {
        Report::Failed(crate::node::Failure { measured: out(ms), ..failure(left) })
    }

    #[test]
    fn the_reports_of_one_attempt_are_not_added_up() {
        let mut story = Story::prepared(&["n1", "n2"], one_by_one());
        story.say("n1", Report::Joined(out(800)));
        assert_eq!(measured(&story), 800);
        story.say("n1", failed(1_300, Left::Restored)); // it died in its monitor time: 500 ms more
        assert_eq!(measured(&story), 1_300);
        story.ask(Verb::Retry(Vec::new()));
        story.say("n1", Report::Prepared);
        story.say("n1", Report::Joined(out(700)));
        story.say("n1", Report::Done(out(700)));
        assert_eq!(measured(&story), 2_000, "attempts are");
    }

    #[test]
    fn the_time_between_attempts_counts_where_a_node_was_left_out() {
        let mut story = Story::prepared(&["n1", "n2"], one_by_one());
        story.say("n1", failed(1_000, Left::Out));
        story.wait(10);
        story.ask(Verb::Retry(Vec::new()));
        story.wait(2);
        story.say("n1", Report::Prepared);
        story.say("n1", Report::Done(out(300)));
        assert_eq!(measured(&story), 13_300);
    }

    #[test]
    fn a_late_crash_counts_until_it_serves_again_or_the_rollout_is_over() {
        for (back, expected) in [(true, 5_000), (false, 9_000)] {
            let mut story = Story::prepared(&["n1", "n2"], one_by_one());
            story.done("n1");
            story.say("n1", Report::Broken { cause: "it died".to_owned(), output: String::new() });
            story.wait(5);
            if back {
                story.observe("n1 current");
            }
            story.wait(4);
            story.ask(Verb::Abort);
            story.done("n2");
            assert!(story.rollout.is_ended());
            assert_eq!(measured(&story), expected, "back: {back}");
        }
    }
}
