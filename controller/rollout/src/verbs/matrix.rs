//! Every verb in every state, as the operator's page shows it: `docs/verbs.md` is compared with what the code says, and
//! `ROTA_BLESS=1` writes it anew. Each refusal has a reason, and a hint whose verbs are allowed in that state.

use std::fmt::Write as _;
use std::path::PathBuf;

use super::sample::{VERBS, states};
use crate::rollout::{Kind, Rollout, Stage};
use crate::tests::name;
use crate::verbs::{Refusal, Verb, allow, with_glass};

/// The table and the sentences lie between these lines.
const BEGIN: &str = "<!-- from here on written by a test: ROTA_BLESS=1 -->\n";

/// The verbs of rollouts that a hint names: `rota rollout retry ID`, and alone in backticks, as in "then `resume`".
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
    if rollout.spec.fence.is_some() && way == Verb::Rollback {
        // That nobody passes the fence by chance is seen to by the engine.
        assert!(quoted.contains("--break-fence -m WHY"), "{quoted}");
    }
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
    }
}

/// What a hold says would clear it can be done, also where it is a restart that is held.
#[test]
fn every_hold_names_a_way_that_is_open() {
    let mut kinds = std::collections::BTreeSet::new();
    for (state, mut rollout) in states() {
        let Some(held) = rollout.head.held.clone() else { continue };
        kinds.insert(held.hold.kind());
        let restart = (rollout.spec.kind == Kind::Deploy).then_some(Kind::Restart);
        for kind in [rollout.spec.kind].into_iter().chain(restart) {
            if kind == Kind::Restart && rollout.spec.fence.is_some() {
                continue; // the release that runs may always run again
            }
            rollout.spec.kind = kind;
            for (quoted, way) in named(&held.hold.hint(&rollout.spec)) {
                let open = open(&rollout, &quoted, way);
                assert!(open.is_ok(), "{state}, {kind:?}: `{quoted}` is refused: {open:?}");
            }
        }
    }
    let all = "approval capacity deadline failures fence frozen offline once rehearsal";
    assert_eq!(kinds.into_iter().collect::<Vec<_>>().join(" "), all);
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
                let forced = rollout.spec.fence.is_some() && verb() == Verb::Rollback;
                table.push_str(if forced { " `--break-fence` |" } else { " yes |" });
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
