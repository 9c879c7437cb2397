//! What operators may ask of a rollout, in which state, and why not otherwise.

mod glass;
mod late;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gate::{Hold, list};
use crate::names::{NodeName, RolloutId};
use crate::node::{Direction, Left, Node, Phase};
use crate::rollout::{Kind, Once, Rollout, Stage};
use crate::{rehearsal, rollback, shut};

pub use glass::with_glass;

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Start no new updates.
    Pause,
    /// Go on.
    Resume,
    /// Approve what it waits for.
    Promote,
    /// Finish running updates and end, mixed as it is.
    Abort,
    /// Take every updated node back.
    Rollback,
    /// Ask failed nodes again; none named: all of them.
    Retry(Vec<NodeName>),
    /// Leave these nodes alone.
    Skip(Vec<NodeName>),
    /// Heed no freeze and no window from now on.
    BreakGlass,
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Retry(_) => "retry",
            Self::Skip(_) => "skip",
            Self::BreakGlass => "break-glass",
        })
    }
}

/// Why a verb is refused, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is in the way.
    pub reason: String,
    /// The right verb; may be empty.
    pub hint: String,
}

fn refuse(reason: impl Into<String>, hint: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal { reason: reason.into(), hint: hint.into() })
}

/// The refusal of everything that is asked of a rollout that is over.
pub fn over(id: &RolloutId, verb: &Verb) -> Refusal {
    let undo = || format!("`rota rollout undo {} --env {}` starts a rollout back", id.app, id.env);
    let status = || format!("`rota rollout status {id}` shows how it ended");
    let deploy = || format!("{}; `rota deploy` starts a new one", status());
    let (cannot, hint) = match verb {
        Verb::Pause => ("be paused", status()),
        Verb::Resume => ("go on", deploy()),
        Verb::Promote => ("be promoted", status()),
        Verb::Abort => ("be aborted", status()),
        Verb::Rollback => ("be rolled back", undo()),
        Verb::Retry(_) | Verb::BreakGlass => ("try again", deploy()),
        Verb::Skip(_) => ("skip nodes", status()),
    };
    Refusal { reason: format!("rollout {id} is over: it cannot {cannot} any more"), hint }
}

/// May this be asked now?
pub fn allow(rollout: &Rollout, verb: &Verb) -> Result<(), Refusal> {
    match rollout.head.stage {
        Stage::Ended { outcome, .. } => return late::ended(rollout, verb, outcome),
        Stage::Aborting => return late::aborting(rollout, verb),
        Stage::Preparing
        | Stage::Once(_)
        | Stage::Rehearsing
        | Stage::Rolling
        | Stage::RollingBack { .. } => {}
    }
    match verb {
        Verb::Pause => allow_pause(rollout),
        Verb::Resume => allow_resume(rollout),
        Verb::Promote => allow_promote(rollout),
        Verb::Abort => Ok(()),
        Verb::Rollback => allow_rollback(rollout),
        Verb::Retry(nodes) => allow_retry(rollout, nodes),
        Verb::Skip(nodes) => allow_skip(rollout, nodes),
        Verb::BreakGlass => glass::allow_breaking(rollout),
    }
}

fn allow_pause(rollout: &Rollout) -> Result<(), Refusal> {
    match &rollout.head.paused {
        Some(who) => refuse(
            format!("rollout {} is paused already, by {who}", rollout.spec.id),
            format!("`rota rollout resume {}`", rollout.spec.id),
        ),
        None => Ok(()),
    }
}

fn allow_resume(rollout: &Rollout) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    if rollout.head.paused.is_some() {
        return Ok(());
    }
    match rollout.head.held.as_ref().map(|held| &held.hold) {
        None => refuse(
            format!("rollout {id} is neither paused nor held"),
            format!("`rota rollout status {id}` shows what it does"),
        ),
        Some(Hold::Approval { .. }) => refuse(
            format!("rollout {id} waits for an approval"),
            format!("`rota rollout promote {id}`"),
        ),
        Some(Hold::Once { .. }) => refuse(
            format!("rollout {id} cannot go on before its once-per-release job succeeded"),
            format!("`rota rollout retry {id}` runs the job again"),
        ),
        Some(
            Hold::Failures { .. }
            | Hold::Fence { .. }
            | Hold::RollbackFailed { .. }
            | Hold::Rehearsal { .. }
            | Hold::OnceUnknown { .. }
            | Hold::Deadline { .. },
        ) => Ok(()),
        Some(
            hold @ (Hold::Capacity { .. }
            | Hold::Offline { .. }
            | Hold::Busy { .. }
            | Hold::Frozen { .. }
            | Hold::Closed(_)
            | Hold::Edges { .. }),
        ) => refuse(format!("rollout {id} goes on by itself: {hold}"), hold.hint(&rollout.spec)),
    }
}

fn allow_promote(rollout: &Rollout) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    match rollout.head.held.as_ref().map(|held| &held.hold) {
        Some(Hold::Approval { .. }) => Ok(()),
        Some(hold) => refuse(
            format!("rollout {id} does not wait for an approval, but is held: {hold}"),
            hold.hint(&rollout.spec),
        ),
        None if rollout.head.paused.is_some() => refuse(
            format!("rollout {id} is paused and does not wait for an approval"),
            format!("`rota rollout resume {id}`"),
        ),
        None => refuse(
            format!("rollout {id} does not wait for an approval"),
            format!("`rota rollout status {id}` shows what it does"),
        ),
    }
}

fn allow_rollback(rollout: &Rollout) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    if let Stage::RollingBack { .. } = rollout.head.stage {
        let hint = match (&rollout.head.paused, &rollout.head.held) {
            (Some(_), _) => format!("`rota rollout resume {id}` goes on with it"),
            (None, Some(held)) => held.hold.hint(&rollout.spec),
            (None, None) => format!("`rota rollout status {id} -w` follows it"),
        };
        return refuse(format!("rollout {id} is rolling back already"), hint);
    }
    if rollout.spec.kind == Kind::Run {
        return refuse(
            format!("rollout {id} runs a command: what it did is not known to Rota"),
            format!("`rota rollout abort {id}` ends it"),
        );
    }
    if rollout.spec.kind == Kind::Restart {
        return refuse(
            format!("rollout {id} is a restart: there is no other release to go back to"),
            format!("`rota rollout abort {id}` ends it"),
        );
    }
    Ok(())
}

/// May this node be asked again?
pub(crate) fn is_retryable(phase: &Phase) -> bool {
    matches!(phase, Phase::Failed { .. })
}

/// On the way back only those are asked again that could not be taken back, and have something to go back to.
fn may_retry(rollout: &Rollout, node: &Node) -> bool {
    match rollout.head.stage {
        Stage::RollingBack { .. } => rollback::is_stuck(node) && node.previous.is_some(),
        Stage::Preparing
        | Stage::Once(_)
        | Stage::Rolling
        | Stage::Rehearsing
        | Stage::Aborting
        | Stage::Ended { .. } => is_retryable(&node.phase),
    }
}

fn allow_retry(rollout: &Rollout, nodes: &[NodeName]) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    if let Stage::Once(Once::Failed { .. } | Once::Unknown { .. }) = rollout.head.stage {
        return match shut::forward(&rollout.head) {
            None => Ok(()),
            Some(hold) => refuse(
                format!("the once-per-release job cannot run again now: {hold}"),
                format!("`rota rollout retry {id} --break-glass -m WHY` runs it all the same"),
            ),
        };
    }
    let whole = |name: &NodeName, node: &Node| {
        rehearsal::has_failed_back(node) && !nodes.is_empty() && !nodes.contains(name)
    };
    if rollout.head.stage == Stage::Rehearsing
        && rollout.nodes().iter().any(|(name, node)| whole(name, node))
    {
        return refuse(
            "the way back is rehearsed with all nodes of the batch together",
            format!("`rota rollout retry {id}` without nodes"),
        );
    }
    if nodes.is_empty() && !rollout.nodes().values().any(|node| may_retry(rollout, node)) {
        let way = if goes_back(rollout) { "failed on the way back" } else { "has failed" };
        return refuse(format!("no node of rollout {id} {way}"), shows_nodes(rollout));
    }
    for name in nodes {
        match rollout.nodes().get(name) {
            None => return no_target(rollout, name),
            Some(node) if !may_retry(rollout, node) => {
                let reason = match goes_back(rollout) {
                    true => format!("{name} did not fail on the way back of rollout {id}"),
                    false => format!("{name} has not failed in rollout {id}"),
                };
                return refuse(reason, retry_others(rollout));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whom a retry would be right for.
fn retry_others(rollout: &Rollout) -> String {
    let others = rollout.nodes().iter().filter(|(_, node)| may_retry(rollout, node));
    let others: Vec<NodeName> = others.map(|(name, _)| name.clone()).collect();
    match others.as_slice() {
        [] => shows_nodes(rollout),
        others => {
            let id = &rollout.spec.id;
            let have = if others.len() == 1 { "has" } else { "have" };
            format!("{} {have}: `rota rollout retry {id}` tries again", list(others))
        }
    }
}

fn shows_nodes(rollout: &Rollout) -> String {
    format!("`rota rollout status {}` shows every node", rollout.spec.id)
}

fn no_target(rollout: &Rollout, name: &NodeName) -> Result<(), Refusal> {
    refuse(format!("{name} is no target of rollout {}", rollout.spec.id), shows_nodes(rollout))
}

fn allow_skip(rollout: &Rollout, nodes: &[NodeName]) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    if nodes.is_empty() {
        return refuse("no node is named", format!("`rota rollout skip {id} NODE`"));
    }
    for name in nodes {
        let node = rollout.nodes().get(name);
        let away = node.is_some_and(|node| !node.observed.online);
        match node.map(|node| &node.phase) {
            None => return no_target(rollout, name),
            // It may be gone for good, and nothing would ever be heard of its update.
            Some(Phase::Updating { direction, .. } | Phase::Monitoring { direction, .. })
                if away && *direction == Direction::Forward => {}
            Some(Phase::Updating { .. } | Phase::Monitoring { .. }) => {
                return refuse(
                    format!("{name} is being updated right now"),
                    format!("wait until it is done: `rota rollout status {id} -w`"),
                );
            }
            // On the way back nobody waits for ever for a node that will not return.
            Some(Phase::Done) if goes_back(rollout) && is_offline(rollout, name) => {}
            Some(Phase::Done | Phase::RolledBack) => {
                return refuse(
                    format!("rollout {id} is done with {name} already"),
                    shows_nodes(rollout),
                );
            }
            Some(Phase::Skipped { .. }) => {
                return refuse(format!("{name} is skipped already"), shows_nodes(rollout));
            }
            Some(Phase::Failed { left: Left::Out | Left::Unknown, cause })
                if cause.direction == Direction::Back =>
            {
                return refuse(
                    format!("{name} is out of traffic and must not be forgotten"),
                    format!("`rota rollout retry {id} {name}`"),
                );
            }
            Some(
                Phase::Waiting | Phase::Preparing { .. } | Phase::Ready | Phase::Failed { .. },
            ) => {}
        }
    }
    Ok(())
}

fn goes_back(rollout: &Rollout) -> bool {
    matches!(rollout.head.stage, Stage::Rehearsing | Stage::RollingBack { .. })
}

fn is_offline(rollout: &Rollout, name: &NodeName) -> bool {
    rollout.nodes().get(name).is_some_and(|node| !node.observed.online)
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
