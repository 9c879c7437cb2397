//! What is said to verbs that come too late: the rollout ends, or is over.

use super::{Refusal, Verb, over, refuse};
use crate::node::{Node, Phase, Skip};
use crate::rollout::{Kind, Outcome, Rollout};

/// It only finishes what runs.
pub(super) fn aborting(rollout: &Rollout, verb: &Verb) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    let back = matches!(verb, Verb::Rollback) && rollout.spec.kind != Kind::Restart;
    let then = if back {
        format!("; then `rota rollout undo {} --env {}` takes its nodes back", id.app, id.env)
    } else {
        String::new()
    };
    refuse(
        format!("rollout {id} is being aborted and only finishes its running updates"),
        format!("`rota rollout status {id} -w` follows it{then}"),
    )
}

/// It has ended: its nodes are moved by another rollout only.
pub(super) fn ended(rollout: &Rollout, verb: &Verb, outcome: Outcome) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    let look = || format!("`rota rollout status {id}` shows how it ended");
    let hint = match verb {
        Verb::Rollback => way_back(rollout, outcome),
        Verb::Resume | Verb::Retry(_) => match outcome {
            Outcome::Completed => look(),
            Outcome::Partial | Outcome::RolledBack | Outcome::Failed | Outcome::Aborted => {
                again(rollout)
            }
        },
        Verb::Pause | Verb::Promote | Verb::Abort | Verb::Skip(_) | Verb::BreakGlass => look(),
    };
    refuse(over(id, verb).reason, hint)
}

/// How its nodes come to the release before.
fn way_back(rollout: &Rollout, outcome: Outcome) -> String {
    let id = &rollout.spec.id;
    match (rollout.spec.kind, outcome, &rollout.spec.from) {
        (Kind::Run, _, _) => "it ran a command and moved no release".into(),
        (Kind::Restart, _, _) => "it was a restart: there is no other release to go back to".into(),
        (Kind::Deploy | Kind::Undo, Outcome::RolledBack, _) => {
            format!("its nodes are back already: `rota rollout status {id}`")
        }
        (Kind::Deploy | Kind::Undo, _, _) if !rollout.nodes().values().any(runs_it) => {
            format!("no node runs {}: there is nothing to take back", rollout.spec.to)
        }
        (Kind::Deploy | Kind::Undo, _, None) => {
            format!("nothing of {} was current in {} before it", id.app, id.env)
        }
        (Kind::Deploy | Kind::Undo, _, Some(_)) => {
            format!("`rota rollout undo {} --env {}` starts a rollout back", id.app, id.env)
        }
    }
}

fn runs_it(node: &Node) -> bool {
    matches!(node.phase, Phase::Done | Phase::Skipped { why: Skip::AlreadyCurrent })
}

/// How its nodes are tried once more.
fn again(rollout: &Rollout) -> String {
    let (id, to) = (&rollout.spec.id, &rollout.spec.to);
    match rollout.spec.kind {
        Kind::Run => format!("`rota run {} --env {} -- COMMAND` runs it again", id.app, id.env),
        Kind::Restart => format!("`rota restart {} --env {}` restarts once more", id.app, id.env),
        Kind::Deploy | Kind::Undo => {
            format!("`rota rollout start {} --release {to} --env {}` tries again", id.app, id.env)
        }
    }
}
