//! Every verb in every state, as the operator's page shows it: `docs/verbs.md` is compared with what the code says, and
//! `ROTA_BLESS=1` writes it anew. Each refusal has a reason, and a hint whose verbs are allowed in that state.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::event::{OnceResult, What};
use crate::names::{Attempt, Span};
use crate::node::Left;
use crate::rollout::{Kind, Rollout, Stage};
use crate::strategy::{Deadline, Offline, OnFailure, Strategy};
use crate::tests::{Story, admitted, name, number, one_by_one};
use crate::verbs::{Refusal, Verb, allow, with_glass};

/// The table and the sentences lie between these lines.
const BEGIN: &str = "<!-- from here on written by a test: ROTA_BLESS=1 -->\n";

#[expect(clippy::type_complexity, reason = "columns of a table")]
const VERBS: [(&str, fn() -> Verb); 8] = [
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

fn story(strategy: Strategy, after: impl FnOnce(&mut Story)) -> Rollout {
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

fn restart(after: impl FnOnce(&mut Story)) -> Rollout {
    let mut rollout = admitted(&NODES, one_by_one());
    rollout.spec.kind = Kind::Restart;
    let mut story = Story::from(rollout).begun();
    after(&mut story);
    story.rollout
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

type State = (&'static str, Rollout);

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
        ("paused", story(one_by_one(), paused)),
        ("held: failures", story(one_by_one(), failed)),
        ("held: failures, a restart", restart(failed)),
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
    vec![
        ("held: capacity", full.rollout),
        ("held: offline", after("n2 offline", wait)),
        ("held: busy", after("n2 busy", one_by_one())),
        ("held: edge offline", heard(What::EdgesOffline(vec![name("lb-01")]))),
        ("held: frozen", heard(What::Frozen(Some("sale (by ann)".to_owned())))),
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
        ("partial", partial),
        ("rolled back", story(back(), failed)),
        ("failed", none),
        ("aborted, some nodes moved", mixed),
        ("aborted, no node moved", untouched),
    ]
}

fn states() -> Vec<State> {
    [beginnings(), on_the_way(), waits(), ends()].concat()
}

/// The verbs that a hint names: `rota rollout retry ID`, and alone in backticks, as in "then `resume`".
fn named(hint: &str) -> Vec<(String, Verb)> {
    let mut found = Vec::new();
    for quoted in hint.split('`').skip(1).step_by(2) {
        let words: Vec<&str> = quoted.split(' ').collect();
        let word = match words.as_slice() {
            ["rota", "rollout", word, ..] | [word] => *word,
            _ => continue,
        };
        let node = words.get(4).and_then(|node| node.parse().ok()).unwrap_or_else(|| name("n3"));
        let verb = match word {
            "pause" => Verb::Pause,
            "resume" => Verb::Resume,
            "promote" => Verb::Promote,
            "abort" => Verb::Abort,
            "rollback" => Verb::Rollback,
            "retry" if words.len() > 4 && !words[4].starts_with('-') => Verb::Retry(vec![node]),
            "retry" => Verb::Retry(Vec::new()),
            "skip" => Verb::Skip(vec![node]),
            "status" | "undo" | "start" => continue,
            other => panic!("`{other}` is no verb of a rollout: {hint}"),
        };
        found.push((quoted.to_owned(), verb));
    }
    found
}

/// Is the way that a hint names allowed?
fn open(rollout: &Rollout, quoted: &str, way: Verb) -> Result<(), Refusal> {
    match quoted.contains("--break-glass") {
        true => with_glass(rollout, way).map(drop),
        false => allow(rollout, &way),
    }
}

#[test]
fn every_refusal_names_a_way_that_is_open() {
    for (state, rollout) in states() {
        assert_eq!(state.starts_with("held"), rollout.state() == "held", "{state}");
        let over = matches!(rollout.head.stage, Stage::Ended { .. });
        for (word, verb) in VERBS {
            let Err(refusal) = allow(&rollout, &verb()) else { continue };
            let told = format!("{state}, {word}: {} ({})", refusal.reason, refusal.hint);
            assert!(!refusal.reason.is_empty() && !refusal.hint.is_empty(), "{told}");
            for (quoted, way) in named(&refusal.hint) {
                let open = open(&rollout, &quoted, way);
                assert!(open.is_ok(), "{told}: `{quoted}` is refused, too: {open:?}");
            }
            let starts = ["rollout undo", "rollout start", "rota restart"];
            let another = starts.iter().any(|start| refusal.hint.contains(start));
            let aborting = matches!(rollout.head.stage, Stage::Aborting);
            assert!(!another || over || aborting, "{told}: another rollout is refused meanwhile");
        }
        if let Some(held) = &rollout.head.held {
            for (quoted, way) in named(&held.hold.hint(&rollout.spec)) {
                let open = open(&rollout, &quoted, way);
                assert!(open.is_ok(), "{state} says `{quoted}`, and that is refused: {open:?}");
            }
        }
    }
}

/// The page as the code says it.
fn page() -> String {
    let mut table = String::from("\n| state |");
    VERBS.iter().for_each(|(word, _)| write!(table, " {word} |").unwrap());
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(VERBS.len()));
    let mut sentences = String::new();
    for (state, rollout) in states() {
        write!(table, "\n| {state} |").unwrap();
        let mut told: Vec<(String, Vec<&str>)> = Vec::new();
        for (word, verb) in VERBS {
            let Err(refusal) = allow(&rollout, &verb()) else {
                table.push_str(" yes |");
                continue;
            };
            table.push_str("  |");
            let text = format!("error: {}\n    hint: {}", refusal.reason, refusal.hint);
            match told.iter_mut().find(|(known, _)| *known == text) {
                Some((_, words)) => words.push(word),
                None => told.push((text, vec![word])),
            }
        }
        write!(sentences, "\n### {state}\n").unwrap();
        if let Some(held) = &rollout.head.held {
            let hint = held.hold.hint(&rollout.spec);
            write!(sentences, "\nIt says why: `{}`; hint: {hint}\n", held.hold).unwrap();
        }
        for (text, words) in told {
            write!(sentences, "\n{}:\n\n    {text}\n", words.join(", ")).unwrap();
        }
    }
    format!("{table}\n\n## What is said\n{sentences}")
}

#[test]
fn the_page_says_what_the_code_does() {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../docs/verbs.md"].iter().collect();
    let there = std::fs::read_to_string(&path).unwrap();
    let (head, body) = there.split_once(BEGIN).unwrap();
    if std::env::var_os("ROTA_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{}", page())).unwrap();
        return;
    }
    assert_eq!(body, page(), "`ROTA_BLESS=1 cargo test -p rota-rollout matrix` writes it anew");
}
