//! What operators ask for, once [`crate::verbs`] has allowed it.

use super::observed::joins_late;
use super::{controllers_cause, once, overdue, prepare, rehearse};
use crate::draft::Draft;
use crate::gate::Hold;
use crate::names::NodeName;
use crate::node::{Direction, Left, Node, Phase, Skip};
use crate::rollout::{Once, Stage};
use crate::verbs::{self, Verb};
use crate::{rehearsal, rollback};

pub(super) fn asked(draft: &mut Draft, verb: &Verb, who: &str) {
    match verb {
        // Why is part of `who` here: whoever finds it paused wants to know both.
        Verb::Pause => draft.note(format!("paused by {who}")),
        Verb::BreakGlass => draft.note(format!(
            "the glass is broken by {who}: no freeze and no window holds it any more"
        )),
        Verb::Resume
        | Verb::Promote
        | Verb::Abort
        | Verb::Rollback
        | Verb::Retry(_)
        | Verb::Skip(_) => draft.note(format!("{who} asks: {verb}")),
    }
    match verb {
        Verb::Pause => draft.head.paused = Some(who.to_owned()),
        Verb::Resume => resume(draft),
        Verb::Promote => draft.head.approved = draft.head.batch,
        Verb::Abort => {
            draft.head.paused = None;
            draft.head.stage = Stage::Aborting;
            overdue::tick(draft); // whom it waited for beyond the deadline is waited for no more
        }
        Verb::Rollback => {
            draft.head.paused = None;
            draft.head.forgiven = 0;
            draft.head.asked_again.clear();
            // Who could not go back in a rehearsal is asked once more.
            for name in draft.names(rehearsal::has_failed_back) {
                ask_back_again(draft, &name);
            }
            draft.head.stage = Stage::RollingBack { why: format!("{who} asked for it") };
        }
        Verb::BreakGlass => draft.head.break_glass = Some(who.to_owned()),
        Verb::Retry(nodes) => retry(draft, nodes),
        Verb::Skip(nodes) => {
            for name in nodes {
                if let Some(mut node) = draft.node(name).cloned() {
                    if let Phase::Updating { takes_out: true, .. } = node.phase {
                        node.is_left_out(draft.at); // as far as anybody knows, until it is seen
                    }
                    node.phase = Phase::Skipped { why: Skip::ByOperator };
                    draft.set(name, node);
                }
            }
        }
    }
}

fn resume(draft: &mut Draft) {
    if draft.head.paused.take().is_some() {
        return;
    }
    match draft.head.held.as_ref().map(|held| &held.hold) {
        Some(Hold::Failures { failed, .. } | Hold::Fence { failed, .. }) => {
            draft.head.forgiven = failed.len()
        }
        Some(Hold::RollbackFailed { nodes }) => draft.head.forgiven = nodes.len(),
        Some(Hold::Rehearsal { .. }) => rehearse::waive(draft),
        Some(Hold::OnceUnknown { .. }) => once::took_effect(draft),
        Some(Hold::Deadline { .. }) => draft.head.deadline_waived = true,
        Some(
            Hold::Approval { .. }
            | Hold::Capacity { .. }
            | Hold::Offline { .. }
            | Hold::Busy { .. }
            | Hold::Frozen { .. }
            | Hold::Closed(_)
            | Hold::Edges { .. }
            | Hold::Once { .. },
        )
        | None => {}
    }
}

/// Makes a node a candidate of the rollback again, whatever it runs.
fn ask_back_again(draft: &mut Draft, name: &NodeName) {
    let Some(mut node) = draft.node(name).filter(|node| node.previous.is_some()).cloned() else {
        return;
    };
    let text = "it is to be taken back once more".to_owned();
    let cause = controllers_cause(text, Direction::Forward);
    node.phase = Phase::Failed { cause, left: Left::Unknown };
    draft.set(name, node);
}

fn retry(draft: &mut Draft, named: &[NodeName]) {
    if let Stage::Once(Once::Failed { node, attempt, .. } | Once::Unknown { node, attempt }) =
        draft.head.stage.clone()
    {
        draft.head.stage = once::order(draft, node, attempt.next());
        return;
    }
    if draft.head.stage == Stage::Rehearsing {
        rehearse::retry(draft);
    }
    let back = matches!(draft.head.stage, Stage::RollingBack { .. });
    let failed = |node: &Node| match back {
        true => rollback::is_stuck(node),
        false => verbs::is_retryable(&node.phase),
    };
    let is_meant = |name: &NodeName| named.is_empty() || named.contains(name);
    let (again, others): (Vec<NodeName>, Vec<NodeName>) =
        draft.names(failed).into_iter().partition(is_meant);
    // What was accepted of the others stays accepted.
    draft.head.forgiven = draft.head.forgiven.min(others.len());
    // While nodes still prepare, to fetch is what they are asked again.
    if draft.head.stage != Stage::Preparing && !named.is_empty() {
        draft.head.asked_again.retain(|name| !again.contains(name));
        draft.head.asked_again.extend(again.iter().cloned());
    }
    for name in again {
        let Some(mut node) = draft.node(&name).cloned() else { continue };
        if back {
            ask_back_again(draft, &name);
            continue;
        }
        node.phase = Phase::Waiting;
        if node.batch < draft.head.batch {
            node.batch = draft.head.batch;
            joins_late(draft, &name);
        }
        draft.set(&name, node);
        prepare(draft, &name);
    }
}
