//! The way back: newest batch first, under the same limits, each node to what it ran before.

use crate::draft::Draft;
use crate::gate::{self, Hold, Next};
use crate::names::NodeName;
use crate::node::{Direction, Left, Node, Phase};
use crate::rollout::{Outcome, Spec};
use crate::shut;
use crate::strategy::OnNodeFailure;

/// May the next node go back? Nodes that were not touched are not restarted, and no approval is asked.
pub(crate) fn next(draft: &Draft) -> Next {
    let stuck = draft.names(|node| is_stuck(draft.spec(), node));
    if stuck.len() > draft.head.forgiven {
        return Next::Hold(Hold::RollbackFailed { nodes: stuck });
    }
    if draft.head.paused.is_some() {
        return Next::UnderWay;
    }
    if draft.nodes().any(|(_, node)| is_going_forward(node)) {
        return Next::UnderWay;
    }
    let newest =
        draft.nodes().filter(|(_, n)| is_open(draft.spec(), n)).map(|(_, n)| n.batch).max();
    let Some(newest) = newest else {
        let outcome = if stuck.is_empty() { Outcome::RolledBack } else { Outcome::Failed };
        return Next::End(outcome);
    };
    if let Some(hold) = shut::back(&draft.head) {
        return Next::Hold(hold);
    }
    if !draft.head.edges_offline.is_empty() {
        return Next::Hold(Hold::Edges { edges: draft.head.edges_offline.clone() });
    }
    let candidates =
        draft.names(|n| n.batch == newest && is_candidate(draft.spec(), n) && !n.observed.busy);
    let (online, offline): (Vec<NodeName>, Vec<NodeName>) = candidates
        .into_iter()
        .partition(|name| draft.node(name).is_some_and(|node| node.observed.online));
    let starting = gate::admit(draft, &online, newest);
    if !starting.is_empty() {
        Next::Start(starting)
    } else if draft.tally().running > 0 {
        Next::UnderWay
    } else if online.is_empty() {
        Next::Hold(Hold::Offline { nodes: offline })
    } else {
        Next::Hold(gate::capacity(draft, newest))
    }
}

/// Is it still on its way to the new release, where it must not be disturbed?
fn is_going_forward(node: &Node) -> bool {
    matches!(node.phase, Phase::Updating { direction: Direction::Forward, .. })
}

/// Must it still be taken back, or is it on its way?
fn is_open(spec: &Spec, node: &Node) -> bool {
    is_candidate(spec, node) || node.phase.is_running()
}

/// Does it run the new release (or nothing), and is there something to go back to?
fn is_candidate(spec: &Spec, node: &Node) -> bool {
    let can = node.previous.as_ref().is_some_and(|previous| *previous != spec.to);
    can && match &node.phase {
        Phase::Done | Phase::Monitoring { direction: Direction::Forward, .. } => true,
        Phase::Failed { cause, left } => {
            cause.direction == Direction::Forward && is_unsettled(spec, *left)
        }
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Updating { .. }
        | Phase::Monitoring { direction: Direction::Back, .. }
        | Phase::Skipped { .. }
        | Phase::RolledBack => false,
    }
}

/// Did it run the new release and cannot go back?
pub(crate) fn is_stuck(spec: &Spec, node: &Node) -> bool {
    let nowhere = node.previous.is_none();
    match &node.phase {
        Phase::Done => nowhere,
        Phase::Failed { cause, left } => match cause.direction {
            Direction::Back => true,
            Direction::Forward => nowhere && is_unsettled(spec, *left),
        },
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Updating { .. }
        | Phase::Monitoring { .. }
        | Phase::Skipped { .. }
        | Phase::RolledBack => false,
    }
}

/// Is a node that was left so one for the way back? One that was left out for inspection stays as it is.
fn is_unsettled(spec: &Spec, left: Left) -> bool {
    match left {
        Left::Unknown => true,
        Left::Out => spec.strategy.on_node_failure == OnNodeFailure::Restore,
        Left::Restored | Left::Untouched => false,
    }
}
