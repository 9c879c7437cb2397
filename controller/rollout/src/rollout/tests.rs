//! The words of the public contract, and which rollout becomes the current one.

use crate::event::What;
use crate::node::Left;
use crate::strategy::{OnFailure, Strategy, Tolerance};
use crate::tests::{Story, admitted, number, one_by_one};
use crate::verbs::Verb;

#[test]
fn the_states_of_one_life() {
    let mut story = Story::from(admitted(&["n1", "n2"], one_by_one()));
    let state = |story: &Story| story.rollout.state();
    assert_eq!(state(&story), "preparing");
    story = story.begun();
    assert_eq!(state(&story), "rolling");
    story.ask(Verb::Pause);
    assert_eq!(state(&story), "paused");
    story.ask(Verb::Resume);
    assert_eq!(state(&story), "rolling");
    story.hear(What::Frozen(Some("x".to_owned())));
    assert_eq!(state(&story), "held");
    story.hear(What::Frozen(None));
    story.done("n1");
    story.ask(Verb::Rollback);
    assert_eq!(state(&story), "rolling_back");
    story.fail("n2", Left::Restored);
    story.done("n1");
    assert_eq!(state(&story), "rolled_back");
}

/// Whether the release becomes the environment's current one.
#[test]
fn which_ends_count() {
    let bear = |failures| Strategy {
        max_failures: Tolerance::Number(failures),
        on_failure: OnFailure::Continue,
        ..one_by_one()
    };
    for (strategy, fails, state, current) in [
        (bear(0), vec![], "completed", true),
        (bear(1), vec!["n1"], "partial", true),
        (bear(0), vec!["n1"], "partial", false),
        (bear(0), vec!["n1", "n2"], "failed", false),
    ] {
        let mut story = Story::prepared(&["n1", "n2"], strategy);
        for node in ["n1", "n2"] {
            if fails.contains(&node) {
                story.fail(node, Left::Restored)
            } else {
                story.done(node)
            };
        }
        let ended = (story.rollout.state(), story.rollout.becomes_current());
        assert_eq!(ended, (state, current), "{fails:?}");
    }
    let mut story = Story::prepared(&["n1", "n2"], one_by_one());
    story.ask(Verb::Abort);
    assert_eq!(story.rollout.state(), "rolling", "what runs may finish");
    story.done("n1");
    assert_eq!((story.rollout.state(), story.rollout.becomes_current()), ("aborted", false));
}

/// A release that was rolled back is never the current one, however the way back ended.
#[test]
fn a_way_back_that_was_given_up() {
    let on_failure = OnFailure::Rollback;
    let strategy = Strategy { on_failure, max_unavailable: Some(number(2)), ..one_by_one() };
    let mut story = Story::prepared(&["n1", "n2", "n3"], strategy);
    story.done("n1");
    story.done("n2");
    story.ask(Verb::Rollback);
    story.done("n3");
    story.fail("n3", Left::Out);
    assert_eq!(story.stands(), "held: could not take back n3");
    story.ask(Verb::Resume);
    story.done("n2");
    story.done("n1");
    assert_eq!((story.rollout.state(), story.rollout.becomes_current()), ("failed", false));
}

#[test]
fn nothing_to_do_is_completed_at_once() {
    for texts in [vec!["n1 current"], vec!["n1 offline"], vec!["n1 drained", "n2 current"]] {
        let story = Story::prepared(&texts, one_by_one());
        assert_eq!(story.stands(), "completed", "{texts:?}");
    }
}
