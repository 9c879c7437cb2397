//! May the next update start, and if not, why not? Waiting is an answer, with its reason.

use crate::draft::Draft;
pub use crate::hold::{Hold, list};
use crate::names::{NodeName, Timestamp};
use crate::node::{Node, Phase, Serving};
use crate::rehearsal;
use crate::rollout::{Kind, Outcome};
use crate::shut;
use crate::strategy::{Deadline, Mode, Offline, OnFailure, StartOrder};

/// What may happen next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Start these.
    Start(Vec<NodeName>),
    /// These are in turn but offline, and the strategy does not wait for them.
    GiveUp(Vec<NodeName>),
    /// These are in turn but drained by an operator.
    LeaveDrained(Vec<NodeName>),
    /// The next batch is in turn.
    Advance,
    /// The batch in turn is to show that it can go back.
    Rehearse,
    /// It has shown that, and goes forward again.
    ForwardAgain,
    /// Something is under way; there is nothing to say.
    UnderWay,
    /// Nothing to do until then.
    Sleep(Timestamp),
    /// It does not move.
    Hold(Hold),
    /// It is over.
    End(Outcome),
}

/// May the next update start? The paragraph of section 5 of the design, going forward.
pub(crate) fn next(draft: &Draft) -> Next {
    if let Some(hold) = failures(draft) {
        return asked_again(draft).unwrap_or(Next::Hold(hold));
    }
    if let Some(hold) = blocked(draft) {
        return Next::Hold(hold);
    }
    if draft.head.paused.is_some() {
        return Next::UnderWay;
    }
    let open = draft.in_turn();
    if open.ready > 0 {
        let is_ready = |name: &NodeName| draft.node(name).is_some_and(|n| n.phase == Phase::Ready);
        return start(draft, members(draft).filter(|name| is_ready(name)).cloned().collect());
    }
    let passed = match draft.spec().strategy.mode {
        Mode::Batches => open.unsettled == 0,
        Mode::Window => open.unsettled == open.running && (open.unsettled == 0 || !waits(draft)),
    };
    match passed {
        true => pass(draft),
        // Nothing of the batch in turn can be started: is that because some of it is under way?
        false if open.unsettled == 0 || open.online > 0 => Next::UnderWay,
        false => Next::Hold(Hold::Offline { nodes: unsettled(draft) }),
    }
}

/// More failed than may: only those go on that an operator asked for by name. `None`: there is none that could.
fn asked_again(draft: &Draft) -> Option<Next> {
    let asked = |name: &&NodeName| draft.head.asked_again.contains(name);
    let phase = |name: &NodeName| draft.node(name).map(|node| &node.phase);
    let nodes: Vec<&NodeName> = members(draft)
        .filter(asked)
        .filter(|name| phase(name).is_some_and(|phase| !phase.is_settled()))
        .collect();
    let is = |name: &NodeName, test: fn(&Phase) -> bool| phase(name).is_some_and(test);
    let moves = |phase: &Phase| phase.is_running() || matches!(phase, Phase::Preparing { .. });
    let ready: Vec<NodeName> =
        nodes.iter().filter(|name| is(name, |p| *p == Phase::Ready)).copied().cloned().collect();
    let under_way = nodes.iter().any(|name| is(name, moves));
    if ready.is_empty() {
        return under_way.then_some(Next::UnderWay);
    }
    if let Some(hold) = stopped(draft) {
        return Some(Next::Hold(hold));
    }
    Some(if draft.head.paused.is_some() { Next::UnderWay } else { start(draft, ready) })
}

/// What forbids every new update, whichever node is in turn.
pub(crate) fn blocked(draft: &Draft) -> Option<Hold> {
    failures(draft).or_else(|| stopped(draft).filter(|_| has_more(draft)))
}

/// Is there a node whose update has not begun? Where there is none, nothing stands in the way of the end.
fn has_more(draft: &Draft) -> bool {
    let tally = draft.tally();
    draft.size() > tally.settled + tally.running
}

/// The nodes of the batch in turn, and those that came late.
pub(crate) fn members<'a>(draft: &'a Draft) -> impl Iterator<Item = &'a NodeName> {
    let batch = draft.spec().batches.get(draft.head.batch - 1);
    let in_turn = |name: &&NodeName| draft.node(name).is_some_and(|n| n.batch == draft.head.batch);
    batch.into_iter().flatten().chain(&draft.head.late).filter(in_turn)
}

fn unsettled(draft: &Draft) -> Vec<NodeName> {
    let open = |name: &&NodeName| draft.node(name).is_some_and(|node| !node.phase.is_settled());
    members(draft).filter(open).cloned().collect()
}

pub(crate) fn failures(draft: &Draft) -> Option<Hold> {
    let limit = draft.failures_borne();
    let stops = draft.spec().strategy.on_failure != OnFailure::Continue;
    (stops && draft.tally().failed > limit).then(|| Hold::Failures {
        failed: draft.names(|node| matches!(node.phase, Phase::Failed { .. })),
        targets: draft.size(),
        limit,
    })
}

pub(crate) fn stopped(draft: &Draft) -> Option<Hold> {
    if let Some(hold) = shut::forward(&draft.head) {
        return Some(hold);
    }
    if !draft.head.edges_offline.is_empty() {
        return Some(Hold::Edges { edges: draft.head.edges_offline.clone() });
    }
    match draft.spec().strategy.deadline {
        Deadline::After(after)
            if !draft.head.deadline_waived && draft.at >= draft.spec().started.after(after) =>
        {
            Some(Hold::Deadline { after })
        }
        Deadline::After(_) | Deadline::None => None,
    }
}

/// Must the batch in turn be done before the window slides on?
fn waits(draft: &Draft) -> bool {
    barrier(draft) || rehearsal::is_due(draft)
}

/// Does an approval stand between the batch in turn and the next?
fn barrier(draft: &Draft) -> bool {
    let batch = draft.head.batch;
    draft.spec().strategy.approve_after.iter().any(|after| after.get() as usize == batch)
        && draft.head.approved < batch
}

/// The batch in turn is done: may the next one begin?
fn pass(draft: &Draft) -> Next {
    if rehearsal::is_due(draft) {
        return if draft.tally().running > 0 { Next::UnderWay } else { Next::Rehearse };
    }
    let batches = draft.spec().batches.len();
    let last = draft.head.batch >= batches;
    if last {
        return if draft.tally().running == 0 { Next::End(outcome(draft)) } else { Next::UnderWay };
    }
    if !barrier(draft) {
        return Next::Advance;
    }
    if draft.tally().running > 0 {
        return Next::UnderWay; // a window may still have nodes of the batches before
    }
    Next::Hold(Hold::Approval { batch: draft.head.batch, batches })
}

pub(crate) fn outcome(draft: &Draft) -> Outcome {
    match draft.tally() {
        tally if tally.failed == 0 => Outcome::Completed,
        tally if tally.done == 0 => Outcome::Failed,
        _ => Outcome::Partial,
    }
}

/// Which of the nodes in turn may start now, under all limits?
fn start(draft: &Draft, ready: Vec<NodeName>) -> Next {
    if let Some(gap) = draft.head.gap_since {
        let until = gap.after(draft.spec().strategy.delay);
        if draft.at < until {
            return Next::Sleep(until);
        }
    }
    let is = |name: &NodeName, test: fn(&Node) -> bool| draft.node(name).is_some_and(test);
    let drained: Vec<NodeName> =
        ready.iter().filter(|name| is(name, |n| n.observed.drained)).cloned().collect();
    // Who is kept out of traffic can run a command all the same.
    if draft.spec().kind != Kind::Run && !drained.is_empty() {
        return Next::LeaveDrained(drained);
    }
    let (online, offline): (Vec<_>, Vec<_>) =
        ready.into_iter().partition(|name| is(name, |n| n.observed.online));
    if !offline.is_empty() && draft.spec().strategy.offline != Offline::Wait {
        return Next::GiveUp(offline);
    }
    let (busy, free): (Vec<_>, Vec<_>) =
        online.into_iter().partition(|name| is(name, |n| n.observed.busy));
    let starting = admit(draft, &free, draft.head.batch);
    if !starting.is_empty() {
        return Next::Start(starting);
    }
    if draft.tally().running > 0 {
        return Next::UnderWay;
    }
    if !free.is_empty() {
        return Next::Hold(capacity(draft, draft.head.batch));
    }
    if !busy.is_empty() {
        return Next::Hold(Hold::Busy { nodes: busy });
    }
    Next::Hold(Hold::Offline { nodes: offline })
}

/// As many of these as the batch's size and the capacity allow, in order. One that is watched after its join has its
/// place already: it is turned round in it.
pub(crate) fn admit(draft: &Draft, candidates: &[NodeName], batch: usize) -> Vec<NodeName> {
    let spec = draft.spec();
    let size = spec.strategy.batch_size(batch, spec.targets);
    let mut slots = size.saturating_sub(draft.tally().running);
    let mut spare = limit(draft, batch).saturating_sub(down(draft));
    // Who is down may come back by itself before its drain begins: so never more at once than may be out, even of
    // those.
    let mut moves = match spec.strategy.order {
        StartOrder::StopFirst => limit(draft, batch).saturating_sub(draft.tally().updating),
        StartOrder::StartFirst => usize::MAX,
    };
    let mut spread = under_way(draft);
    let mut starting = Vec::new();
    for name in candidates {
        let Some(node) = draft.node(name) else { continue };
        let (costs, has_place) = (takes_out(draft, node), node.phase.is_running());
        let apart = spread.as_ref().is_some_and(|value| *value != node.spread);
        if moves == 0 || (slots == 0 && !has_place) || (spare == 0 && costs) || apart {
            continue;
        }
        if spec.strategy.spread_by.is_some() {
            spread = Some(node.spread.clone());
        }
        spare -= usize::from(costs);
        slots -= usize::from(!has_place);
        moves -= 1;
        starting.push(name.clone());
    }
    starting
}

/// With `spread_by`: the one value of its label that may be under way now; `None`: any.
fn under_way(draft: &Draft) -> Option<Option<String>> {
    draft.spec().strategy.spread_by.as_ref()?;
    draft.nodes().find(|(_, node)| node.phase.is_running()).map(|(_, node)| node.spread.clone())
}

/// Would updating this node take something out of traffic that serves, or may serve by then?
pub(crate) fn takes_out(draft: &Draft, node: &Node) -> bool {
    let back = node.observed.unsure && node.observed.serving != Serving::Absent;
    draft.spec().strategy.order == StartOrder::StopFirst && (node.is_serving() || back)
}

fn limit(draft: &Draft, batch: usize) -> usize {
    draft.spec().strategy.unavailable_limit(batch, draft.spec().targets)
}

/// How much of the limit is used up. Where the operator promised no capacity of his own (`max_unavailable` unset),
/// nodes that are offline and skipped for it do not stop the others.
fn down(draft: &Draft) -> usize {
    let tally = draft.tally();
    match draft.spec().strategy.max_unavailable {
        Some(_) => tally.out,
        None => tally.out - tally.out_skipped,
    }
}

/// The hold that names who is down.
pub(crate) fn capacity(draft: &Draft, batch: usize) -> Hold {
    Hold::Capacity { down: draft.names(Node::is_out), limit: limit(draft, batch) }
}

#[cfg(test)]
mod tests;
