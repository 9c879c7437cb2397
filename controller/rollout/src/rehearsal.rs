//! The rehearsal: a batch that is done goes back, so that the way back is known to work before anything depends on it;
//! then it goes forward again, and only then the rollout goes on.

use serde::{Deserialize, Serialize};

use crate::draft::Draft;
use crate::gate::{self, Hold, Next};
use crate::names::NodeName;
use crate::node::{Direction, Node, Phase};
use crate::rollout::{Rollout, Spec, Stage};
use crate::strategy::Offline;

/// How far the rehearsal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rehearsal {
    /// The strategy asks for none.
    #[default]
    NotAsked,
    /// The first batch that is done and has something to go back to goes back.
    Due,
    /// The way back worked on this batch, which then went forward again.
    Shown { batch: usize },
    /// It did not work, and an operator went on all the same.
    Waived,
}

/// How far it is, in one word for programs; `None`: there is none.
pub fn word(rollout: &Rollout) -> Option<&'static str> {
    let in_turn = rollout.head.batch;
    match (rollout.head.rehearsal, &rollout.head.stage) {
        (Rehearsal::NotAsked, _) => None,
        (Rehearsal::Due, Stage::Rehearsing) => Some("back"),
        (Rehearsal::Due, Stage::Ended { .. }) => Some("skipped"),
        (Rehearsal::Due, _) => Some("forward"),
        (Rehearsal::Shown { batch }, Stage::Rolling) if batch == in_turn => Some("again"),
        (Rehearsal::Shown { .. }, _) => Some("shown"),
        (Rehearsal::Waived, _) => Some("waived"),
    }
}

/// Must the batch in turn go back before the next one may begin?
pub(crate) fn is_due(draft: &Draft) -> bool {
    let waits_for = |node: &Node| match &node.phase {
        // Back already, when the rest of its batch had to be asked once more.
        Phase::RolledBack => true,
        Phase::Failed { .. } | Phase::Skipped { .. } => false,
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Updating { .. }
        | Phase::Monitoring { .. }
        | Phase::Done => can_go_back(draft.spec(), node),
    };
    draft.head.rehearsal == Rehearsal::Due && in_turn(draft).any(|(_, node)| waits_for(node))
}

/// May the next node go back? Under the same limits as forward, and only those that an update was done on.
pub(crate) fn next(draft: &Draft) -> Next {
    if draft.head.rehearsal == Rehearsal::Waived {
        // Those on the way back arrive first: a batch goes forward again whole.
        return if draft.tally().running > 0 { Next::UnderWay } else { Next::ForwardAgain };
    }
    let failed = names(draft, has_failed_back);
    if !failed.is_empty() {
        return Next::Hold(Hold::Rehearsal { nodes: failed });
    }
    if let Some(hold) = gate::failures(draft) {
        return Next::Hold(hold);
    }
    if draft.head.paused.is_some() {
        return Next::UnderWay;
    }
    let back = in_turn(draft).any(|(_, node)| node.phase == Phase::RolledBack);
    let all = names(draft, |node| node.phase == Phase::Done && can_go_back(draft.spec(), node));
    let (online, offline): (Vec<NodeName>, Vec<NodeName>) =
        all.into_iter().partition(|name| is(draft, name, |node| node.observed.online));
    // Those that are away need not be waited for when others have shown it.
    let waits = !offline.is_empty() && (!back || draft.spec().strategy.offline == Offline::Wait);
    if online.is_empty() && !waits {
        return if draft.tally().running > 0 { Next::UnderWay } else { Next::ForwardAgain };
    }
    if let Some(hold) = gate::stopped(draft) {
        return Next::Hold(hold);
    }
    let (busy, free): (Vec<NodeName>, Vec<NodeName>) =
        online.into_iter().partition(|name| is(draft, name, |node| node.observed.busy));
    let starting = gate::admit(draft, &free, draft.head.batch);
    if !starting.is_empty() {
        Next::Start(starting)
    } else if draft.tally().running > 0 {
        Next::UnderWay
    } else if !free.is_empty() {
        Next::Hold(gate::capacity(draft, draft.head.batch))
    } else if !busy.is_empty() {
        Next::Hold(Hold::Busy { nodes: busy })
    } else {
        Next::Hold(Hold::Offline { nodes: offline })
    }
}

/// Could it not be taken back?
pub(crate) fn has_failed_back(node: &Node) -> bool {
    matches!(&node.phase, Phase::Failed { cause, .. } if cause.direction == Direction::Back)
}

/// The nodes of the batch in turn for which something holds.
pub(crate) fn names(draft: &Draft, which: impl Fn(&Node) -> bool) -> Vec<NodeName> {
    in_turn(draft).filter(|(_, node)| which(node)).map(|(name, _)| name.clone()).collect()
}

fn in_turn<'a>(draft: &'a Draft) -> impl Iterator<Item = (&'a NodeName, &'a Node)> {
    gate::members(draft).filter_map(|name| Some((name, draft.node(name)?)))
}

fn is(draft: &Draft, name: &NodeName, test: impl Fn(&Node) -> bool) -> bool {
    draft.node(name).is_some_and(test)
}

/// Did it run another release before?
fn can_go_back(spec: &Spec, node: &Node) -> bool {
    node.previous.as_ref().is_some_and(|previous| *previous != spec.to)
}
