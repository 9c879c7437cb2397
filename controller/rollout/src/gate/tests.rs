//! Whose turn it is, and why nobody's: rows and small stories.

use std::num::NonZeroU32;

use crate::event::What;
use crate::names::Span;
use crate::node::{Left, Measured, Report, StepName};
use crate::strategy::{Deadline, Offline, OnFailure, StartOrder, Strategy, Tolerance};
use crate::tests::{Story, number, one_by_one, ordered, window};
use crate::verbs::Verb;

fn limited(width: u32, limit: u32) -> Strategy {
    Strategy { max_unavailable: Some(number(limit)), ..window(width) }
}

/// Who is updated at once, and how it stands, after everybody is prepared.
#[test]
fn capacity_with_nodes_down_already() {
    let unset = |size| Strategy { batch: vec![number(size)], ..one_by_one() };
    let beside = |size, limit| Strategy { order: StartOrder::StartFirst, ..limited(size, limit) };
    let wait = |strategy| Strategy { offline: Offline::Wait, ..strategy };
    for (texts, strategy, updating, stands) in [
        (vec!["n1", "n2", "n3"], unset(2), "n1 n2", "rolling"),
        (vec!["n1", "n2", "n3"], limited(3, 1), "n1", "rolling"),
        (vec!["n1", "n2", "n3"], limited(3, 2), "n1 n2", "rolling"),
        (vec!["n1", "n2", "n3"], beside(3, 1), "n1 n2 n3", "rolling"),
        // Down already: it is mended first, and uses the limit up meanwhile.
        (vec!["n1", "n2 out", "n3"], limited(3, 1), "n2", "rolling"),
        (vec!["n1", "n2 out", "n3"], limited(3, 2), "n1 n2", "rolling"),
        // It may serve again, and nobody here has heard.
        (
            vec!["n1", "n2 out unsure", "n3"],
            limited(3, 1),
            "",
            "held: 1 node is out of traffic (n2) and the limit is 1",
        ),
        // Two are down and may come back before they drain: one at a time.
        (vec!["n1 out", "n2 out", "n3"], limited(3, 1), "n1", "rolling"),
        // Drained by an operator: left alone, and counted.
        (
            vec!["n1", "n2 drained", "n3"],
            limited(3, 1),
            "",
            "held: 1 node is out of traffic (n2) and the limit is 1",
        ),
        (vec!["n1", "n2 drained", "n3"], limited(3, 2), "n1", "rolling"),
        // Offline and skipped counts where a capacity was promised, and not where none was.
        (vec!["n1", "n2 offline", "n3"], limited(3, 2), "n1", "rolling"),
        (vec!["n1", "n2 offline", "n3"], unset(1), "n1", "rolling"),
        // Never there: no capacity yet, so it costs none.
        (vec!["n1 absent", "n2", "n3"], limited(3, 1), "n1", "rolling"),
        (vec!["n1 absent", "n2", "n3"], limited(3, 2), "n1 n2", "rolling"),
        // Another rollout has them.
        (vec!["n1 busy", "n2 busy"], unset(2), "", "held: another rollout is updating n1, n2"),
        (vec!["n1 busy", "n2"], unset(2), "n2", "rolling"),
        (vec!["n1 offline"], wait(unset(1)), "", "held: 1 node offline: n1"),
        (vec!["n1"], unset(9), "n1", "rolling"),
    ] {
        let story = Story::prepared(&texts, strategy);
        assert_eq!(
            (story.updating().as_str(), story.stands().as_str()),
            (updating, stands),
            "{texts:?}"
        );
    }
}

#[test]
fn batches_wait_for_the_whole_batch_and_windows_do_not() {
    let two = Strategy { batch: vec![number(2)], ..one_by_one() };
    let mut story = Story::prepared(&["n1", "n2", "n3", "n4"], two);
    assert_eq!(ordered(&story.done("n1")), "");
    assert_eq!(ordered(&story.done("n2")), "update n3#1 1.1.0, update n4#1 1.1.0");
    let mut story = Story::prepared(&["n1", "n2", "n3", "n4"], window(2));
    assert_eq!(ordered(&story.done("n2")), "update n3#1 1.1.0");
    assert_eq!(ordered(&story.done("n3")), "update n4#1 1.1.0");
}

/// The monitor time gates: joined is not done.
#[test]
fn who_is_watched_is_under_way() {
    for strategy in [one_by_one(), window(1)] {
        let mut story = Story::prepared(&["n1", "n2"], strategy);
        assert_eq!(ordered(&story.say("n1", Report::Joined(Measured::default()))), "");
        assert_eq!(ordered(&story.done("n1")), "update n2#1 1.1.0");
    }
}

#[test]
fn the_delay_between_batches() {
    let delay = Span::seconds(10);
    for strategy in [one_by_one(), window(1)] {
        let mut story = Story::prepared(&["n1", "n2"], Strategy { delay, ..strategy });
        let made = story.done("n1");
        assert_eq!(ordered(&made), "");
        let wake = crate::step::next_wake(&made.orders);
        assert_eq!(wake, Some(story.at.after(delay)));
        assert_eq!(ordered(&story.wait(9)), "");
        assert_eq!(ordered(&story.wait(1)), "update n2#1 1.1.0");
        assert_eq!(story.stands(), "rolling");
    }
}

#[test]
fn approvals() {
    let after = |batches: &[u32], strategy| Strategy {
        approve_after: batches.iter().map(|n| NonZeroU32::new(*n).unwrap()).collect(),
        ..strategy
    };
    let waits = "held: batch 1 of 3 is done and waits for an approval";
    let mut story = Story::prepared(&["n1", "n2", "n3"], after(&[1, 3], one_by_one()));
    assert_eq!(ordered(&story.done("n1")), "");
    assert_eq!(story.stands(), waits);
    assert_eq!(ordered(&story.wait(9)), "");
    assert_eq!(ordered(&story.ask(Verb::Promote)), "update n2#1 1.1.0");
    story.done("n2");
    story.done("n3"); // nothing comes after the last batch: no approval
    assert_eq!(story.stands(), "completed");

    // A window stops at the barrier, and asks only when everything before it is done.
    let mut story = Story::prepared(&["n1", "n2", "n3"], after(&[1], window(1)));
    assert_eq!(story.updating(), "n1");
    story.done("n1");
    assert_eq!(story.stands(), waits);

    // A whole batch that needs nothing does not hurry the approval.
    let wide = Strategy { batch: vec![number(2), number(1)], ..window(2) };
    let mut story =
        Story::from(crate::tests::admitted(&["n1", "n2", "n3", "n4"], after(&[2], wide)));
    story.hear(What::Started);
    story.ask(Verb::Skip(vec![crate::tests::name("n3")]));
    for node in ["n1", "n2", "n4"] {
        story.say(node, Report::Prepared);
    }
    assert_eq!((story.updating().as_str(), story.stands().as_str()), ("n1 n2", "rolling"));
    story.done("n1");
    story.done("n2");
    assert_eq!(story.stands(), "held: batch 2 of 3 is done and waits for an approval");
}

/// It stops when failed > max_failures, also on the last node and in a fleet of one.
#[test]
fn failures_stop_it() {
    let tolerant = |failures, on_failure| Strategy {
        max_failures: Tolerance::Number(failures),
        on_failure,
        ..one_by_one()
    };
    for (texts, failures, on_failure, end) in [
        (vec!["n1"], 0, OnFailure::Pause, "held: 1 of 1 nodes failed (n1) and the limit is 0"),
        (vec!["n1"], 1, OnFailure::Pause, "failed"),
        (vec!["n1"], 0, OnFailure::Continue, "failed"),
        (vec!["n1"], 0, OnFailure::Rollback, "rolled_back"),
        (
            vec!["n1", "n2"],
            1,
            OnFailure::Pause,
            "held: 2 of 2 nodes failed (n1, n2) and the limit is 1",
        ),
        (vec!["n1", "n2"], 2, OnFailure::Pause, "failed"),
        (vec!["n1", "n2"], 0, OnFailure::Continue, "failed"),
    ] {
        let mut story = Story::prepared(&texts, tolerant(failures, on_failure));
        for node in &texts {
            story.fail(node, Left::Restored);
        }
        assert_eq!(story.stands(), end, "{texts:?} {failures} {on_failure:?}");
    }
    let mut story = Story::prepared(&["n1", "n2"], tolerant(0, OnFailure::Pause));
    story.done("n1");
    story.fail("n2", Left::Restored);
    assert_eq!(story.stands(), "held: 1 of 2 nodes failed (n2) and the limit is 0");
    story.ask(Verb::Resume);
    assert_eq!(story.stands(), "partial");
}

#[test]
fn failures_while_preparing_drain_nobody() {
    let mut story = Story::from(crate::tests::admitted(&["n1", "n2"], one_by_one()));
    story.hear(What::Started);
    story.fail("n1", Left::Untouched);
    assert_eq!(ordered(&story.say("n2", Report::Prepared)), "");
    assert_eq!(story.stands(), "held: 1 of 2 nodes failed (n1) and the limit is 0");
}

#[test]
fn the_deadline_of_the_rollout() {
    let strategy = Strategy { deadline: Deadline::After(Span::seconds(60)), ..one_by_one() };
    let mut story = Story::prepared(&["n1", "n2"], strategy);
    story.wait(60);
    assert_eq!(story.stands(), "held: its deadline of 1m has passed");
    assert_eq!(ordered(&story.done("n1")), "", "what runs may end; nothing new begins");
    assert_eq!(ordered(&story.ask(Verb::Resume)), "update n2#1 1.1.0");
    story.wait(60);
    assert_eq!(story.stands(), "rolling");
}

#[test]
fn frozen_and_paused() {
    let mut story = Story::prepared(&["n1", "n2"], one_by_one());
    story.hear(What::Frozen(Some("a holiday".to_owned())));
    assert_eq!(story.stands(), "held: the environment is frozen: a holiday");
    assert_eq!(ordered(&story.done("n1")), "");
    story.ask(Verb::Pause);
    assert_eq!(ordered(&story.hear(What::Frozen(None))), "", "it is paused still");
    assert_eq!(story.stands(), "paused");
    assert_eq!(ordered(&story.ask(Verb::Resume)), "update n2#1 1.1.0");
}

/// What an offline node means, before its turn and in it.
#[test]
fn offline() {
    let with = |offline| Strategy { offline, ..one_by_one() };
    for (offline, stands) in [
        (Offline::Skip, "completed"),
        (Offline::Wait, "held: 1 node offline: n2"),
        (Offline::Fail, "held: 1 of 2 nodes failed (n2) and the limit is 0"),
    ] {
        let mut story = Story::prepared(&["n1", "n2 offline"], with(offline));
        if story.updating() == "n1" {
            story.done("n1");
        }
        assert_eq!(story.stands(), stands, "from the beginning, {offline:?}");

        let mut story = Story::prepared(&["n1", "n2"], with(offline));
        story.observe("n2 offline");
        story.done("n1");
        assert_eq!(story.stands(), stands, "later, {offline:?}");
    }
}

#[test]
fn who_returns_catches_up() {
    let mut story = Story::prepared(&["n1", "n2 offline", "n3"], one_by_one());
    assert_eq!(ordered(&story.observe("n2")), "prepare n2#1");
    story.done("n1"); // n2 goes with the batch in turn
    assert_eq!(ordered(&story.say("n2", Report::Prepared)), "update n2#1 1.1.0");
    assert_eq!(ordered(&story.done("n2")), "update n3#1 1.1.0");
    story.done("n3");
    assert_eq!(story.stands(), "completed");
}

/// Down when it was ordered, back before it drained: it counts as taken out from then on.
#[test]
fn who_comes_back_before_its_drain_costs_capacity() {
    let mut story = Story::prepared(&["n1 out", "n2", "n3"], limited(2, 1));
    assert_eq!(story.updating(), "n1");
    assert_eq!(ordered(&story.observe("n1")), "", "n2 must wait: n1 is about to drain");
    story.say("n1", Report::Began { step: StepName::Join, in_flight: 0 });
    story.say("n1", Report::Joined(Measured::default()));
    assert_eq!(story.updating(), "n1 n2");
}

#[test]
fn silence() {
    let mut story = Story::prepared(&["n1", "n2"], one_by_one());
    story.wait(119);
    assert_eq!(story.stands(), "rolling");
    story.wait(2);
    assert_eq!(story.stands(), "held: 1 of 2 nodes failed (n1) and the limit is 0");
    // Late, but an end: it counts, and the rollout goes on.
    assert_eq!(story.say("n1", Report::Joined(Measured::default())), crate::Step::default());
    assert_eq!(ordered(&story.done("n1")), "update n2#1 1.1.0");
    assert_eq!(story.stands(), "rolling");
}

/// A node that waits for its agent is not given up where the operator said so.
#[test]
fn silence_of_who_is_awaited() {
    let strategy = Strategy { offline: Offline::Wait, ..one_by_one() };
    let mut story = Story::prepared(&["n1", "n2"], strategy);
    story.observe("n1 offline");
    story.wait(1_000);
    assert_eq!(story.stands(), "held: 1 node offline: n1");
    story.observe("n1");
    story.wait(119); // it gets the time anew
    assert_eq!(story.stands(), "rolling");
    story.wait(1);
    assert_eq!(story.stands(), "held: 1 of 2 nodes failed (n1) and the limit is 0");
}

#[test]
fn a_release_that_somebody_else_put_there() {
    let mut story = Story::prepared(&["n1", "n2"], one_by_one());
    story.done("n1");
    story.observe("n1"); // runs 1.0.0 again
    assert_eq!(story.stands(), "held: 1 of 2 nodes failed (n1) and the limit is 0");
}

/// Also in a window, and for one that comes late: never two values of the label at once.
#[test]
fn one_zone_at_a_time() {
    let spread = Strategy { spread_by: Some("zone".to_owned()), ..window(3) };
    let mut story = Story::prepared(&["n1 @a", "n2 @a", "n3 @b", "n4 @b offline"], spread);
    assert_eq!(story.updating(), "n1 n2");
    story.done("n1");
    assert_eq!(story.updating(), "n2");
    story.observe("n4 @b");
    story.say("n4", Report::Prepared);
    assert_eq!(story.updating(), "n2");
    story.done("n2");
    assert_eq!(story.updating(), "n3 n4");
}
