//! The moves of a rehearsal: back, forward again, and what operators make of a way back that did not work.

use super::prepare;
use crate::draft::Draft;
use crate::names::NodeName;
use crate::node::{Node, Phase};
use crate::rehearsal::{Rehearsal, has_failed_back, names};
use crate::rollout::Stage;

/// The batch in turn is done: it goes back.
pub(super) fn begin(draft: &mut Draft) {
    draft.note(format!("rehearsal: batch {} goes back", draft.head.batch));
    draft.head.stage = Stage::Rehearsing;
}

/// All of it is back: it goes forward again, and then the rollout goes on.
pub(super) fn forward_again(draft: &mut Draft) {
    let batch = draft.head.batch;
    if draft.head.rehearsal == Rehearsal::Waived {
        draft.note(format!("rehearsal: batch {batch} goes forward again"));
    } else {
        draft.note(format!("rehearsal: the way back works; batch {batch} goes forward again"));
        draft.head.rehearsal = Rehearsal::Shown { batch };
    }
    // On a way back that was waived, some did not get there.
    let gone_back = |node: &Node| node.phase == Phase::RolledBack || has_failed_back(node);
    let back = names(draft, gone_back);
    forward(draft, &back);
}

/// An operator goes on although the way back did not work: when those on it have arrived.
pub(super) fn waive(draft: &mut Draft) {
    draft.note("the rollout goes on without a way back that is known to work");
    draft.head.rehearsal = Rehearsal::Waived;
}

/// Those that could not go back go forward again (what failed is out of traffic, as like as not), and then the whole
/// batch tries the way back once more. Once that is waived, all go forward together, when the others have arrived.
pub(super) fn retry(draft: &mut Draft) {
    let failed = names(draft, has_failed_back);
    if draft.head.rehearsal == Rehearsal::Waived || failed.is_empty() {
        return; // who failed on the way forward goes with the others, too
    }
    forward(draft, &failed);
}

fn forward(draft: &mut Draft, nodes: &[NodeName]) {
    draft.head.stage = Stage::Rolling;
    for name in nodes {
        let Some(mut node) = draft.node(name).cloned() else { continue };
        node.phase = Phase::Waiting;
        draft.set(name, node);
        prepare(draft, name);
    }
}
