//! Every verb in every state: allowed, or why not.

use crate::event::What;
use crate::node::Left;
use crate::rollout::Rollout;
use crate::strategy::{Deadline, OnFailure, Strategy};
use crate::tests::{Story, admitted, name, one_by_one, ordered};
use crate::verbs::{Verb, allow};

#[expect(clippy::type_complexity, reason = "rows of a table")]
const VERBS: [(&str, fn() -> Verb); 7] = [
    ("pause", || Verb::Pause),
    ("resume", || Verb::Resume),
    ("promote", || Verb::Promote),
    ("abort", || Verb::Abort),
    ("rollback", || Verb::Rollback),
    ("retry", || Verb::Retry(Vec::new())),
    ("skip", || Verb::Skip(vec!["n3".parse().unwrap()])),
];

fn story(strategy: Strategy, after: impl FnOnce(&mut Story)) -> Rollout {
    let mut story = Story::prepared(&["n1", "n2", "n3"], strategy);
    after(&mut story);
    story.rollout
}

fn states() -> Vec<(&'static str, Rollout, &'static str)> {
    let approve = Strategy { approve_after: vec![1.try_into().unwrap()], ..one_by_one() };
    let deadline = Strategy { deadline: Deadline::After(crate::Span::seconds(1)), ..one_by_one() };
    let back = Strategy { on_failure: OnFailure::Rollback, ..one_by_one() };
    vec![
        ("rolling", story(one_by_one(), |_| ()), "pause abort rollback skip"),
        ("paused", story(one_by_one(), |s| drop(s.ask(Verb::Pause))), "resume abort rollback skip"),
        (
            "failures",
            story(one_by_one(), |s| drop(s.fail("n1", Left::Restored))),
            "pause resume abort rollback retry skip",
        ),
        ("approval", story(approve, |s| drop(s.done("n1"))), "pause promote abort rollback skip"),
        ("deadline", story(deadline, |s| drop(s.wait(2))), "pause resume abort rollback skip"),
        (
            "frozen",
            story(one_by_one(), |s| drop(s.hear(What::Frozen(Some("x".to_owned()))))),
            "pause abort rollback skip",
        ),
        (
            "rolling back",
            story(back, |s| {
                s.done("n1");
                s.fail("n2", Left::Restored);
            }),
            "pause abort skip",
        ),
        (
            "rollback failed",
            story(back_of_one(), |s| {
                s.done("n1");
                s.fail("n2", Left::Restored);
                s.fail("n1", Left::Out);
            }),
            "pause resume abort retry skip",
        ),
        (
            "rehearsal failed",
            story(Strategy { rehearse_rollback: true, ..one_by_one() }, |s| {
                s.done("n1");
                s.fail("n1", Left::Out);
            }),
            "pause resume abort rollback retry skip",
        ),
        ("aborting", story(one_by_one(), |s| drop(s.ask(Verb::Abort))), ""),
        (
            "completed",
            story(one_by_one(), |s| {
                for node in ["n1", "n2", "n3"] {
                    s.done(node);
                }
            }),
            "",
        ),
    ]
}

fn back_of_one() -> Strategy {
    Strategy { on_failure: OnFailure::Rollback, ..one_by_one() }
}

#[test]
fn every_verb_in_every_state() {
    for (state, rollout, allowed) in states() {
        let is: Vec<&str> = VERBS
            .iter()
            .filter(|(_, verb)| allow(&rollout, &verb()).is_ok())
            .map(|(word, _)| *word)
            .collect();
        assert_eq!(is.join(" "), allowed, "{state}");
    }
}

/// A refusal says what is in the way.
#[test]
fn refusals_have_reasons() {
    for (state, rollout, _) in states() {
        for (word, verb) in VERBS {
            if let Err(refusal) = allow(&rollout, &verb()) {
                assert!(!refusal.reason.is_empty(), "{state} {word}");
            }
        }
    }
}

#[test]
fn who_may_be_retried_and_skipped() {
    let mut story = Story::prepared(&["n1", "n2", "n3 current"], one_by_one());
    story.fail("n1", Left::Restored);
    for (verb, reason) in [
        (Verb::Retry(vec![name("n1")]), ""),
        (Verb::Retry(vec![name("n2")]), "n2 has not failed in rollout shop/prod/7"),
        (Verb::Retry(vec![name("x9")]), "x9 is no target of rollout shop/prod/7"),
        (Verb::Skip(vec![name("n1"), name("n2")]), ""),
        (Verb::Skip(vec![name("n3")]), "n3 is skipped already"),
        (Verb::Skip(vec![name("x9")]), "x9 is no target of rollout shop/prod/7"),
        (Verb::Skip(Vec::new()), "no node is named"),
    ] {
        let said = allow(&story.rollout, &verb).err().map(|refusal| refusal.reason);
        assert_eq!(said.unwrap_or_default(), reason, "{verb:?}");
    }
}

#[test]
fn what_skip_and_retry_do() {
    let mut story = Story::prepared(&["n1", "n2"], one_by_one());
    story.fail("n1", Left::Restored);
    assert_eq!(ordered(&story.ask(Verb::Retry(Vec::new()))), "prepare n1#2");
    story.say("n1", crate::node::Report::Prepared);
    assert_eq!(story.updating(), "n1");
    story.fail("n1", Left::Restored);
    assert_eq!(ordered(&story.ask(Verb::Skip(vec![name("n1")]))), "update n2#1 1.1.0");
    story.done("n2");
    assert_eq!(story.stands(), "completed");
}

#[test]
fn a_retry_before_anything_was_started() {
    let mut story = Story::from(admitted(&["n1", "n2"], one_by_one()));
    story.hear(What::Started);
    story.fail("n1", Left::Untouched);
    assert_eq!(ordered(&story.ask(Verb::Retry(vec![name("n1")]))), "prepare n1#2");
    assert_eq!(story.stands(), "preparing");
}
