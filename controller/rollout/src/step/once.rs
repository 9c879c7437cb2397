//! The once-per-release job: ordered of one node, and what its end means.

use crate::draft::Draft;
use crate::event::OnceResult;
use crate::gate::{Hold, Next};
use crate::names::{Attempt, NodeName};
use crate::order::Order;
use crate::rollout::{Once, OnceFailure, Stage};
use crate::shut;

/// Orders the once-per-release job of a node.
pub(super) fn order(draft: &mut Draft, node: NodeName, attempt: Attempt) -> Stage {
    let deadline = draft.deadline(draft.spec().limits.once);
    draft.note_on(&node, format!("runs the once-per-release job, attempt {attempt}"));
    draft.order(Order::Once { node: node.clone(), attempt });
    Stage::Once(Once::Running { node, attempt, deadline })
}

pub(super) fn ended(draft: &mut Draft, from: &NodeName, of: Attempt, result: &OnceResult) {
    let Stage::Once(once) = &draft.head.stage else { return };
    let (node, attempt) = match once {
        Once::Running { node, attempt, .. } | Once::Unknown { node, attempt } => {
            (node.clone(), *attempt)
        }
        Once::Failed { .. } => return,
    };
    if node != *from || attempt != of {
        return;
    }
    draft.head.stage = match result {
        OnceResult::Succeeded => {
            draft.note_on(&node, "the once-per-release job succeeded");
            draft.head.once_failed = None;
            Stage::Rolling
        }
        OnceResult::Failed { text, output } => {
            draft.note_on(&node, format!("the once-per-release job failed: {text}"));
            let (text, output) = (text.clone(), output.clone());
            draft.head.once_failed = Some(OnceFailure {
                node: node.clone(),
                text: text.clone(),
                output: output.clone(),
            });
            Stage::Once(Once::Failed { node, attempt, text, output })
        }
        OnceResult::Unknown => {
            draft.note_on(&node, "whether the once-per-release job took effect is not known");
            Stage::Once(Once::Unknown { node, attempt })
        }
        OnceResult::NeverBegan => match shut::forward(&draft.head) {
            None => order(draft, node, attempt),
            Some(hold) => {
                let text = format!("it never began, and meanwhile {hold}");
                Stage::Once(Once::Failed { node, attempt, text, output: String::new() })
            }
        },
    };
}

/// An operator has found out that it took effect.
pub(super) fn took_effect(draft: &mut Draft) {
    draft.note("the once-per-release job counts as done: an operator found that it took effect");
    draft.head.once_failed = None;
    draft.head.stage = Stage::Rolling;
}

pub(super) fn hold(once: &Once) -> Next {
    match once {
        Once::Running { .. } => Next::UnderWay,
        Once::Failed { node, text, .. } => {
            Next::Hold(Hold::Once { node: node.clone(), text: format!("failed: {text}") })
        }
        Once::Unknown { node, .. } => Next::Hold(Hold::OnceUnknown { node: node.clone() }),
    }
}
