//! Every state that a rollout can be in as far as verbs tell them apart: what the tests of the verbs share.

use crate::event::{OnceResult, What};
use crate::names::{Attempt, Span};
use crate::node::Left;
use crate::rollout::{Kind, Rollout};
use crate::shut::Closed;
use crate::strategy::{Deadline, Offline, OnFailure, Strategy};
use crate::tests::{Story, admitted, name, number, one_by_one};
use crate::verbs::Verb;

#[expect(clippy::type_complexity, reason = "columns of a table")]
pub(super) const VERBS: [(&str, fn() -> Verb); 8] = [
    ("pause", || Verb::Pause),
    ("resume", || Verb::Resume),
    ("promote", || Verb::Promote),
    ("abort", || Verb::Abort),
    ("rollback", || Verb::Rollback),
    ("retry", || Verb::Retry(Vec::new())),
    ("retry NODE", || Verb::Retry(vec![name("n3")])),
    ("skip NODE", || Verb::Skip(vec![name("n3")])),
];

const NODES: [&str; 3] = ["n1", "n2", "n3"];

pub(super) fn story(strategy: Strategy, after: impl FnOnce(&mut Story)) -> Rollout {
    let mut story = Story::prepared(&NODES, strategy);
    after(&mut story);
    story.rollout
}

/// With a once-per-release job under way on n1.
fn once(result: Option<OnceResult>) -> Rollout {
    let mut rollout = admitted(&NODES, one_by_one());
    rollout.spec.once = true;
    let mut story = Story::from(rollout).begun();
    if let Some(result) = result {
        story.hear(What::OnceEnded { node: name("n1"), attempt: Attempt(1), result });
    }
    story.rollout
}

fn of_kind(kind: Kind, after: impl FnOnce(&mut Story)) -> Rollout {
    let mut rollout = admitted(&NODES, one_by_one());
    rollout.spec.kind = kind;
    let mut story = Story::from(rollout).begun();
    after(&mut story);
    story.rollout
}

fn restart(after: impl FnOnce(&mut Story)) -> Rollout {
    of_kind(Kind::Restart, after)
}

/// `rota run`.
fn command(after: impl FnOnce(&mut Story)) -> Rollout {
    of_kind(Kind::Run, after)
}

/// The new release forbids the way back by itself.
fn fenced() -> Rollout {
    let mut rollout = admitted(&NODES, back());
    rollout.spec.fence = Some("1.1.0 can go back to >=1.1.0 only, and 1.0.0 is not".to_owned());
    let mut story = Story::from(rollout).begun();
    turned(&mut story);
    story.rollout
}

fn frozen(story: &mut Story) {
    story.hear(What::Frozen(Some("sale (by ann)".to_owned())));
    story.done("n1");
}

fn closed(story: &mut Story) {
    let text = "outside the windows of prod: opens Mon 22:00 Europe/Berlin".to_owned();
    let opens = story.at.after(Span::seconds(3_600));
    story.hear(What::Closed(Some(Closed { text, opens })));
    story.done("n1");
}

fn all_done(story: &mut Story) {
    for node in NODES {
        story.done(node);
    }
}

fn approve() -> Strategy {
    Strategy { approve_after: vec![1.try_into().unwrap()], ..one_by_one() }
}

fn deadline() -> Strategy {
    Strategy { deadline: Deadline::After(Span::seconds(1)), ..one_by_one() }
}

fn back() -> Strategy {
    Strategy { on_failure: OnFailure::Rollback, ..one_by_one() }
}

fn onwards() -> Strategy {
    Strategy { on_failure: OnFailure::Continue, ..one_by_one() }
}

fn rehearse() -> Strategy {
    Strategy { rehearse_rollback: true, ..one_by_one() }
}

fn failed(story: &mut Story) {
    story.fail("n1", Left::Restored);
}

/// n1 is done, n2 failed: it turns round.
fn turned(story: &mut Story) {
    story.done("n1");
    story.fail("n2", Left::Restored);
}

/// What it is called, and a rollout in it.
pub(super) type State = (&'static str, Rollout);

/// Before the first node.
fn beginnings() -> Vec<State> {
    let mut preparing = Story::from(admitted(&NODES, one_by_one()));
    preparing.hear(What::Started);
    let text = "exit status 1".to_owned();
    let broken = OnceResult::Failed { text, output: String::new() };
    vec![
        ("preparing", preparing.rollout),
        ("once job runs", once(None)),
        ("held: once failed", once(Some(broken))),
        ("held: once unknown", once(Some(OnceResult::Unknown))),
    ]
}

/// On the way, and what an operator is waited for.
fn on_the_way() -> Vec<State> {
    let paused = |s: &mut Story| drop(s.ask(Verb::Pause));
    let mut late = admitted(&NODES, deadline());
    late.spec.kind = Kind::Restart;
    let mut late = Story::from(late).begun();
    late.wait(2);
    let looked_at = story(one_by_one(), |s| {
        failed(s);
        s.ask(Verb::Pause);
    });
    let rehearsed = story(rehearse(), |s| {
        s.done("n1");
        s.fail("n1", Left::Out);
    });
    vec![
        ("rolling", story(one_by_one(), |_| ())),
        ("rolling, a restart", restart(|_| ())),
        ("rolling, a command", command(|_| ())),
        ("paused", story(one_by_one(), paused)),
        ("paused, a command", command(paused)),
        ("held: failures", story(one_by_one(), failed)),
        ("held: failures, a restart", restart(failed)),
        ("held: fence", fenced()),
        ("paused after failures", looked_at),
        ("held: approval", story(approve(), |s| drop(s.done("n1")))),
        ("held: deadline", story(deadline(), |s| drop(s.wait(2)))),
        ("held: deadline, a restart", late.rollout),
        ("rehearsing the way back", story(rehearse(), |s| drop(s.done("n1")))),
        ("held: rehearsal", rehearsed),
    ]
}

/// What passes by itself.
fn waits() -> Vec<State> {
    let after = |what: &'static str, strategy: Strategy| {
        story(strategy, |s| {
            s.observe(what);
            s.done("n1");
        })
    };
    let tight = Strategy { max_unavailable: Some(number(1)), ..one_by_one() };
    let mut full = Story::prepared(&NODES, tight);
    full.observe("n3 out");
    full.done("n1");
    full.observe("n1 current out");
    let heard = |what: What| {
        story(one_by_one(), |s| {
            s.hear(what);
            s.done("n1");
        })
    };
    let wait = Strategy { offline: Offline::Wait, ..one_by_one() };
    let broken = story(one_by_one(), |s| {
        closed(s);
        s.ask(Verb::BreakGlass);
    });
    vec![
        ("held: capacity", full.rollout),
        ("held: offline", after("n2 offline", wait)),
        ("held: busy", after("n2 busy", one_by_one())),
        ("held: edge offline", heard(What::EdgesOffline(vec![name("lb-01")]))),
        ("held: frozen", story(one_by_one(), frozen)),
        ("held: frozen, a command", command(frozen)),
        ("held: outside the windows", story(one_by_one(), closed)),
        ("held: outside the windows, a command", command(closed)),
        ("the glass is broken", broken),
    ]
}

/// The way back, and the ends.
fn ends() -> Vec<State> {
    let back_paused = story(back(), |s| {
        turned(s);
        s.ask(Verb::Pause);
    });
    let stuck = story(back(), |s| {
        turned(s);
        s.fail("n1", Left::Out);
    });
    let partial = story(onwards(), |s| {
        failed(s);
        s.done("n2");
        s.done("n3");
    });
    let none = story(onwards(), |s| {
        NODES.iter().for_each(|node| drop(s.fail(node, Left::Restored)));
    });
    let mixed = story(one_by_one(), |s| {
        s.ask(Verb::Abort);
        s.done("n1");
    });
    let untouched = story(one_by_one(), |s| {
        failed(s);
        s.ask(Verb::Abort);
    });
    vec![
        ("rolling back", story(back(), turned)),
        ("rolling back, paused", back_paused),
        ("held: cannot take back", stuck),
        ("aborting", story(one_by_one(), |s| drop(s.ask(Verb::Abort)))),
        ("completed", story(one_by_one(), all_done)),
        ("completed, a restart", restart(all_done)),
        ("completed, a command", command(all_done)),
        ("partial", partial),
        ("rolled back", story(back(), failed)),
        ("failed", none),
        ("failed, a command", command(|s| drop(s.fail("n1", Left::Untouched)))),
        ("aborted, some nodes moved", mixed),
        ("aborted, no node moved", untouched),
    ]
}

pub(super) fn states() -> Vec<State> {
    [beginnings(), on_the_way(), waits(), ends()].concat()
}
