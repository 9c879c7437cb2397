//! Whom verbs are about, what they do, and that every rollout gives way. What is allowed when: `matrix.rs`.

use super::sample::states;
use crate::event::What;
use crate::node::Left;
use crate::strategy::{Offline, Strategy};
use crate::tests::{Story, admitted, name, one_by_one, ordered, window};
use crate::verbs::{Verb, allow};

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

/// Whatever it does or waits for, a newer rollout may take its place: it ends when what is under way has ended.
#[test]
fn whatever_it_does_it_gives_way() {
    for (state, rollout) in states() {
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

/// A host that is gone for good in the middle of its update: it is said, and there are two ways on. Left alone it still
/// counts as out, for it may have been taken out before it went; removed it does not.
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
    assert_eq!(ordered(&story.ask(skip)), "");
    assert_eq!(story.stands(), "held: 1 node is out of traffic (n1) and the limit is 1");
    // Back, but with its update under way, it still counts.
    assert_eq!(ordered(&story.observe("n1 unsure")), "");
    assert_eq!(ordered(&story.observe("n1 out unsure")), "");
    assert_eq!(ordered(&story.observe("n1")), "update n2#1 1.1.0");
    let mut story = gone();
    story.ask(Verb::Skip(vec![name("n1")]));
    assert_eq!(ordered(&story.observe("n1 offline absent")), "update n2#1 1.1.0");
    let mut story = gone();
    story.ask(Verb::Abort);
    assert_eq!(story.stands(), "aborted");
}
