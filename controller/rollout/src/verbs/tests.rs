//! Every verb in every state: allowed, or why not.

use crate::event::{OnceResult, What};
use crate::node::Left;
use crate::rollout::{Kind, Rollout};
use crate::shut::Closed;
use crate::strategy::{Deadline, Offline, OnFailure, Strategy};
use crate::tests::{Story, admitted, name, number, one_by_one, ordered, window};
use crate::verbs::{Verb, allow, with_glass};

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

/// States in which it is held, with those of which nothing else here tells.
fn holds() -> Vec<(&'static str, Rollout)> {
    let closed = |s: &mut Story| {
        let opens = s.at.after(crate::Span::seconds(9));
        let closed = Closed { text: "outside the windows".to_owned(), opens };
        drop(s.hear(What::Closed(Some(closed))));
    };
    let once = || {
        let mut rollout = admitted(&["n1", "n2", "n3"], one_by_one());
        rollout.spec.once = true;
        let mut story = Story::from(rollout).begun();
        let (node, attempt) = (name("n1"), crate::Attempt(1));
        let result = OnceResult::Failed { text: "x".to_owned(), output: String::new() };
        story.hear(What::OnceEnded { node, attempt, result });
        story.rollout
    };
    let edges = vec![name("lb-1")];
    let waits = Strategy { offline: Offline::Wait, ..one_by_one() };
    let more = vec![
        ("closed", story(one_by_one(), closed)),
        ("edges", story(one_by_one(), |s| drop(s.hear(What::EdgesOffline(edges))))),
        ("once", once()),
        (
            "offline",
            story(waits, |s| {
                s.observe("n2 offline");
                s.done("n1");
            }),
        ),
        ("busy", Story::prepared(&["n1 busy", "n2 busy", "n3 busy"], one_by_one()).rollout),
        ("capacity", {
            let limited = Strategy { max_unavailable: Some(number(1)), ..one_by_one() };
            Story::prepared(&["n1", "n2 drained", "n3"], limited).rollout
        }),
    ];
    let known = states().into_iter().map(|(state, rollout, _)| (state, rollout));
    known.chain(more).filter(|(_, rollout)| rollout.head.held.is_some()).collect()
}

/// What a hint names can be done: every verb of it is allowed as it is written there.
#[test]
fn hints_name_what_is_allowed() {
    let mut kinds = std::collections::BTreeSet::new();
    for (state, mut rollout) in holds() {
        for kind in [Kind::Deploy, Kind::Restart] {
            rollout.spec.kind = kind;
            let hold = rollout.head.held.clone().unwrap().hold;
            kinds.insert(hold.kind());
            let hint = hold.hint(&rollout.spec);
            for quoted in hint.split('`').skip(1).step_by(2) {
                let word = quoted.strip_prefix("rota rollout ").unwrap_or(quoted);
                let word = word.split(' ').next().unwrap();
                let Some((_, verb)) = VERBS.iter().find(|(verb, _)| *verb == word) else {
                    assert!(quoted.starts_with("rota "), "{state}: {quoted}");
                    continue;
                };
                let refusal = match quoted.contains("--break-glass") {
                    true => with_glass(&rollout, verb()).err(),
                    false => allow(&rollout, &verb()).err(),
                };
                assert_eq!(refusal, None, "{state}, {kind:?}: {quoted}");
            }
        }
    }
    let all = ["approval", "capacity", "deadline", "failures", "frozen", "offline", "once"];
    assert!(all.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}

/// Whatever it does or waits for, a newer rollout may take its place: it ends when what is under way has ended.
#[test]
fn whatever_it_does_it_gives_way() {
    for (state, rollout, _) in states() {
        if rollout.is_ended() {
            continue;
        }
        let mut story = Story { rollout, at: crate::tests::START };
        if allow(&story.rollout, &Verb::Abort).is_ok() {
            assert!(!ordered(&story.ask(Verb::Abort)).contains("update"), "{state}");
        }
        let running: Vec<String> = story.updating().split_whitespace().map(str::to_owned).collect();
        for node in running {
            assert!(!ordered(&story.done(&node)).contains("update"), "{state}");
        }
        assert_eq!(story.stands(), "aborted", "{state}");
    }
}

/// A host that is gone for good in the middle of its update: it is said, and there are two ways on.
#[test]
fn who_never_comes_back_can_be_left() {
    let wait = || Strategy { offline: Offline::Wait, ..window(1) };
    let gone = || {
        let mut story = Story::prepared(&["n1", "n2"], wait());
        story.observe("n1 offline");
        story.wait(3_600);
        assert_eq!(story.stands(), "held: 1 node offline: n1");
        story
    };
    let mut story = gone();
    let skip = Verb::Skip(vec![name("n1")]);
    assert_eq!(allow(&story.rollout, &skip), Ok(()));
    assert_eq!(ordered(&story.ask(skip)), "update n2#1 1.1.0");
    let mut story = gone();
    story.ask(Verb::Abort);
    assert_eq!(story.stands(), "aborted");
}
