//! Breaking the glass: a rollout that heeds no freeze and no window from now on.

use super::{Refusal, Verb, allow, refuse};
use crate::gate::Hold;
use crate::rollout::{Rollout, Stage};

/// It is broken once, and for the whole rollout.
pub(super) fn allow_breaking(rollout: &Rollout) -> Result<(), Refusal> {
    let id = &rollout.spec.id;
    match &rollout.head.break_glass {
        Some(who) => refuse(
            format!("no freeze and no window holds rollout {id} any more: {who}"),
            format!("`rota rollout status {id}` shows what it waits for"),
        ),
        None => Ok(()),
    }
}

/// What to ask of the rollout, in this order, when a verb comes with `--break-glass`. Where the freeze is all that is
/// in the way of what the verb wants, to break the glass is enough.
pub fn with_glass(rollout: &Rollout, verb: Verb) -> Result<Vec<Verb>, Refusal> {
    let breaking = allow(rollout, &Verb::BreakGlass);
    if let (Stage::Once(_), Verb::Retry(_), Ok(())) = (&rollout.head.stage, &verb, &breaking) {
        // The job waits for nothing else: not even to be asked again is allowed before.
        let held = matches!(rollout.head.held.as_ref().map(|h| &h.hold), Some(Hold::Once { .. }));
        if held {
            return Ok(vec![Verb::BreakGlass, verb]);
        }
    }
    match (allow(rollout, &verb), breaking) {
        // Broken last: nothing may start that the verb is about to forbid.
        (Ok(()), Ok(())) => Ok(vec![verb, Verb::BreakGlass]),
        (Ok(()), Err(_)) => Ok(vec![verb]),
        (Err(_), Ok(())) if is_under_way(rollout, &verb) => Ok(vec![Verb::BreakGlass]),
        (Err(_), Err(refusal)) if is_under_way(rollout, &verb) => Err(refusal),
        (Err(refusal), _) => Err(refusal),
    }
}

/// Does it do already what the verb wants, as far as it may?
fn is_under_way(rollout: &Rollout, verb: &Verb) -> bool {
    let hold = rollout.head.held.as_ref().map(|held| &held.hold);
    match verb {
        Verb::Resume => match hold {
            Some(Hold::Approval { .. } | Hold::Once { .. }) => false,
            Some(
                Hold::Failures { .. }
                | Hold::Fence { .. }
                | Hold::RollbackFailed { .. }
                | Hold::Rehearsal { .. }
                | Hold::OnceUnknown { .. }
                | Hold::Capacity { .. }
                | Hold::Offline { .. }
                | Hold::Busy { .. }
                | Hold::Edges { .. }
                | Hold::Frozen { .. }
                | Hold::Closed(_)
                | Hold::Deadline { .. },
            )
            | None => !matches!(rollout.head.stage, Stage::Aborting | Stage::Ended { .. }),
        },
        Verb::Rollback => matches!(rollout.head.stage, Stage::RollingBack { .. }),
        Verb::Pause
        | Verb::Promote
        | Verb::Abort
        | Verb::Retry(_)
        | Verb::Skip(_)
        | Verb::BreakGlass => false,
    }
}
