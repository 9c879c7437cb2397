//! What the fleet sees of a node: it came, it went, it serves or not, it runs something else.

use super::{controllers_cause, gone, prepare};
use crate::draft::Draft;
use crate::names::{NodeName, Release};
use crate::node::{Direction, Left, Node, Observed, Phase, Serving, Skip, StepName};
use crate::rollout::{Kind, Stage};
use crate::strategy::StartOrder;

pub(super) fn observe(
    draft: &mut Draft,
    name: &NodeName,
    observed: Observed,
    runs: &Option<Release>,
) -> bool {
    let Some(mut node) = draft.node(name).cloned() else { return false };
    if node.observed == observed && node.runs == *runs {
        return false;
    }
    if observed.online && !node.observed.online {
        renew(draft, &mut node);
    }
    node.observed = observed;
    if observed.serving == Serving::In && observed.online && !observed.unsure {
        node.is_back(draft.at);
    }
    if !node.phase.is_running() {
        node.runs.clone_from(runs);
    }
    let returned = match node.phase {
        Phase::Skipped { why: Skip::Offline } => observed.online,
        Phase::Skipped { why: Skip::Drained } => observed.online && !observed.drained,
        Phase::Skipped { why: Skip::AlreadyCurrent | Skip::ByOperator | Skip::NotMeant }
        | Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Updating { .. }
        | Phase::Monitoring { .. }
        | Phase::Done
        | Phase::Failed { .. }
        | Phase::RolledBack => false,
    };
    // A command is run where the app ran when it was asked for.
    let returned = returned && draft.spec().kind != Kind::Run;
    let stage = &draft.head.stage;
    let rolling =
        matches!(stage, Stage::Preparing | Stage::Once(_) | Stage::Rolling | Stage::Rehearsing);
    if returned && rolling {
        draft.note_on(name, "returned: it catches up");
        node.phase = Phase::Waiting;
        if node.batch <= draft.head.batch && !is_in_batch(draft, name, draft.head.batch) {
            node.batch = draft.head.batch;
            joins_late(draft, name);
        }
    }
    came_to_serve(draft, &mut node);
    moved_by_others(draft, name, &mut node);
    let ask = rolling && observed.online && node.phase == Phase::Waiting;
    let vanished = !observed.online && matches!(node.phase, Phase::Preparing { .. });
    draft.set(name, node);
    if ask {
        prepare(draft, name);
    } else if vanished {
        let phase = gone(draft, name);
        if let Some(mut node) = draft.node(name).cloned() {
            node.phase = phase;
            draft.set(name, node);
        }
    }
    true
}

/// It goes with the batch in turn; once, however often it comes and goes.
pub(super) fn joins_late(draft: &mut Draft, name: &NodeName) {
    if !draft.head.late.contains(name) {
        draft.head.late.push(name.clone());
    }
}

/// It was awaited beyond its deadline, and is back: it gets the time anew to say how far it is.
fn renew(draft: &mut Draft, node: &mut Node) {
    let limits = draft.spec().limits;
    let (deadline, span) = match &mut node.phase {
        Phase::Updating { deadline, .. } => (deadline, limits.update),
        Phase::Monitoring { deadline, .. } => (deadline, limits.monitor),
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Done
        | Phase::Failed { .. }
        | Phase::Skipped { .. }
        | Phase::RolledBack => return,
    };
    if *deadline <= draft.at {
        *deadline = draft.deadline(span);
    }
}

/// It was down when its update was ordered, and came back before it drained: now the update will take it out.
fn came_to_serve(draft: &Draft, node: &mut Node) {
    let stop_first = draft.spec().strategy.order == StartOrder::StopFirst;
    if let Phase::Updating { step, takes_out, .. } = &mut node.phase
        && step.is_none_or(|step| step <= StepName::Drain)
        && node.observed.serving == Serving::In
        && stop_first
    {
        *takes_out = true;
    }
}

/// It was done, and runs something else now: somebody on the node has put another release there.
fn moved_by_others(draft: &mut Draft, name: &NodeName, node: &mut Node) {
    let ours = node.phase == Phase::Done
        && draft.spec().kind != Kind::Run
        && !matches!(draft.head.stage, Stage::Aborting);
    let Some(runs) = node.runs.clone() else { return };
    if !ours || runs == draft.spec().to || node.observed.serving != Serving::In {
        return;
    }
    let text = format!("it runs {runs} now, and this rollout did not order that");
    draft.note_on(name, format!("failed: {text}"));
    let left = if node.previous == Some(runs) { Left::Restored } else { Left::Unknown };
    node.phase = Phase::Failed { cause: controllers_cause(text, Direction::Forward), left };
}

/// Was it planned to be in that batch?
pub(super) fn is_in_batch(draft: &Draft, name: &NodeName, batch: usize) -> bool {
    draft.spec().batches.get(batch - 1).is_some_and(|nodes| nodes.contains(name))
}
