//! The way back: newest batch first, under the same limits, each node to what it ran before.

use crate::draft::Draft;
use crate::gate::{self, Hold, Next};
use crate::names::NodeName;
use crate::node::{Direction, Left, Node, Phase, Skip};
use crate::rollout::{Outcome, Spec};
use crate::shut;

/// What one look at all nodes finds: there may be thousands, and a step is made for each of their reports.
#[derive(Default)]
struct Seen<'a> {
    stuck: Vec<&'a NodeName>,
    forward: bool,
    /// The newest batch that is not back.
    newest: usize,
    /// Those of it that may be asked, and those that another rollout has.
    free: Vec<&'a NodeName>,
    busy: Vec<&'a NodeName>,
}

fn look<'a>(draft: &'a Draft, meant: impl Fn(&NodeName) -> bool) -> Seen<'a> {
    let (spec, mut seen) = (draft.spec(), Seen::default());
    for (name, node) in draft.nodes() {
        if is_stuck(node) {
            seen.stuck.push(name);
        }
        seen.forward |= is_going_forward(node);
        let candidate = is_candidate(spec, node) && meant(name);
        let under_way = node.phase.is_running() && meant(name);
        if !(candidate || under_way) || node.batch < seen.newest {
            continue;
        }
        if node.batch > seen.newest {
            seen.newest = node.batch;
            seen.free.clear();
            seen.busy.clear();
        }
        match (candidate, node.observed.busy) {
            (true, false) => seen.free.push(name),
            (true, true) => seen.busy.push(name),
            (false, _) => {}
        }
    }
    seen
}

fn owned(names: Vec<&NodeName>) -> Vec<NodeName> {
    names.into_iter().cloned().collect()
}

/// May the next node go back? Nodes that were not touched are not restarted, and no approval is asked.
pub(crate) fn next(draft: &Draft) -> Next {
    let mut seen = look(draft, |_| true);
    if seen.stuck.len() > draft.head.forgiven {
        // Those that an operator asked for by name are tried, whoever else is stuck.
        seen = look(draft, |name| draft.head.asked_again.contains(name));
        if seen.newest == 0 {
            return Next::Hold(Hold::RollbackFailed { nodes: owned(seen.stuck) });
        }
    }
    let Seen { stuck, forward, newest, free, busy } = seen;
    if draft.head.paused.is_some() || forward {
        return Next::UnderWay;
    }
    if newest == 0 {
        let outcome = if stuck.is_empty() { Outcome::RolledBack } else { Outcome::Failed };
        return Next::End(outcome);
    }
    if let Some(hold) = shut::back(&draft.head) {
        return Next::Hold(hold);
    }
    if !draft.head.edges_offline.is_empty() {
        return Next::Hold(Hold::Edges { edges: draft.head.edges_offline.clone() });
    }
    let is_online = |name: &&NodeName| draft.node(name).is_some_and(|node| node.observed.online);
    let (online, offline): (Vec<&NodeName>, Vec<&NodeName>) = free.into_iter().partition(is_online);
    let online = owned(online);
    let starting = gate::admit(draft, &online, newest);
    if !starting.is_empty() {
        Next::Start(starting)
    } else if draft.tally().running > 0 {
        Next::UnderWay
    } else if !online.is_empty() {
        Next::Hold(gate::capacity(draft, newest))
    } else if !offline.is_empty() {
        Next::Hold(Hold::Offline { nodes: owned(offline) })
    } else {
        Next::Hold(Hold::Busy { nodes: owned(busy) })
    }
}

/// Is it still on its way to the new release, where it must not be disturbed?
fn is_going_forward(node: &Node) -> bool {
    matches!(node.phase, Phase::Updating { direction: Direction::Forward, .. })
}

/// Does it run the new release (or nothing), and is there something to go back to?
fn is_candidate(spec: &Spec, node: &Node) -> bool {
    let can = node.previous.as_ref().is_some_and(|previous| *previous != spec.to);
    can && match &node.phase {
        Phase::Done | Phase::Monitoring { direction: Direction::Forward, .. } => true,
        Phase::Failed { cause, left } => {
            let out = is_unsettled(*left) || node.out_since.is_some();
            cause.direction == Direction::Forward && out
        }
        // It was left out, and asked again, and that has not begun.
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Skipped { why: Skip::Offline | Skip::Drained } => node.out_since.is_some(),
        Phase::Updating { .. }
        | Phase::Monitoring { direction: Direction::Back, .. }
        | Phase::Skipped { why: Skip::AlreadyCurrent | Skip::ByOperator | Skip::NotMeant }
        | Phase::RolledBack => false,
    }
}

/// Did it run the new release and cannot go back?
pub(crate) fn is_stuck(node: &Node) -> bool {
    let nowhere = node.previous.is_none();
    match &node.phase {
        Phase::Done => nowhere,
        Phase::Failed { cause, left } => match cause.direction {
            Direction::Back => true,
            Direction::Forward => nowhere && is_unsettled(*left),
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

/// Is a node that was left so one for the way back? Also one that was left out for inspection: who goes back has seen
/// enough, and wants the capacity.
fn is_unsettled(left: Left) -> bool {
    match left {
        Left::Unknown | Left::Out => true,
        Left::Restored | Left::Untouched => false,
    }
}
