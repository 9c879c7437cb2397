//! Nodes that a rollout takes in while it runs: targets that came after it was admitted, and those of its own that were
//! made anew.

use crate::names::NodeName;
use crate::node::{Phase, Skip};
use crate::rollout::{Kind, Rollout, Stage};

/// Would it take this node in now, once it is here and has nothing? What is refused is caught up after the end, with
/// what is current then.
pub fn takes_in(rollout: &Rollout, name: &NodeName) -> bool {
    let moves = matches!(rollout.spec.kind, Kind::Deploy | Kind::Undo);
    // Beside the once-per-release job and in a rehearsal nothing joins; where it goes back, there is nothing to join.
    let forward = matches!(rollout.head.stage, Stage::Preparing | Stage::Rolling);
    let open = match rollout.nodes().get(name) {
        None => true,
        Some(node) => match node.phase {
            Phase::Done | Phase::Skipped { why: Skip::AlreadyCurrent } => node.runs.is_none(),
            Phase::Waiting
            | Phase::Preparing { .. }
            | Phase::Ready
            | Phase::Updating { .. }
            | Phase::Monitoring { .. }
            | Phase::Failed { .. }
            | Phase::Skipped {
                why: Skip::Offline | Skip::Drained | Skip::ByOperator | Skip::NotMeant,
            }
            | Phase::RolledBack => false,
        },
    };
    moves && forward && open
}
