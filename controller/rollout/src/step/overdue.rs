//! Time has passed: whoever should have answered by now counts as failed.

use super::controllers_cause;
use crate::draft::Draft;
use crate::node::{Cause, Direction, Left, Phase};
use crate::rollout::{Once, Stage};
use crate::strategy::Offline;

/// Nodes of which something was expected by now.
pub(super) fn tick(draft: &mut Draft) {
    let overdue =
        draft.names(|node| node.phase.deadline().is_some_and(|deadline| deadline <= draft.at));
    for name in overdue {
        let Some(mut node) = draft.node(&name).cloned() else { continue };
        // Who ends the rollout does not wait for ever for a node that may be gone for good.
        let wait = !node.observed.online
            && draft.spec().strategy.offline == Offline::Wait
            && draft.head.stage != Stage::Aborting;
        let (direction, left, silent) = match &node.phase {
            Phase::Preparing { .. } => (Direction::Forward, Left::Untouched, false),
            Phase::Updating { direction, .. } | Phase::Monitoring { direction, .. } => {
                (*direction, Left::Unknown, true)
            }
            Phase::Waiting
            | Phase::Ready
            | Phase::Done
            | Phase::Failed { .. }
            | Phase::Skipped { .. }
            | Phase::RolledBack => continue,
        };
        if wait {
            continue;
        }
        let who =
            if node.observed.online { "the agent answers but" } else { "it went offline and" };
        let text = format!("{who} did not report the end of its update in time");
        draft.note_on(&name, format!("failed: {text}"));
        if let Phase::Updating { takes_out: true, .. } = node.phase {
            // As far as anybody knows: what was last seen of it was before, or in the middle.
            node.is_left_out(draft.at);
            node.observed.unsure = true;
        }
        let cause = Cause { silent, ..controllers_cause(text, direction) };
        node.phase = Phase::Failed { cause, left };
        draft.set(&name, node);
    }
    if let Stage::Once(Once::Running { node, attempt, deadline }) = draft.head.stage.clone()
        && deadline <= draft.at
    {
        draft.note_on(&node, "the once-per-release job did not report its end in time");
        draft.head.stage = Stage::Once(Once::Unknown { node, attempt });
    }
}

#[cfg(test)]
mod tests {
    use crate::strategy::{Strategy, Tolerance};
    use crate::tests::{Story, number, one_by_one};

    /// It served when it was last seen; that was before its drain.
    #[test]
    fn whose_time_is_over_counts_as_out_until_it_is_seen() {
        let (max_failures, max_unavailable) = (Tolerance::Number(5), Some(number(1)));
        let strategy = Strategy { max_failures, max_unavailable, ..one_by_one() };
        let mut story = Story::prepared(&["n1", "n2", "n3"], strategy);
        assert_eq!(story.updating(), "n1");
        story.wait(600);
        assert_eq!(story.stands(), "held: 1 node is out of traffic (n1) and the limit is 1");
        story.observe("n1 offline");
        assert_eq!(story.updating(), "", "nobody has heard it yet");
        story.observe("n1");
        assert_eq!(story.updating(), "n2");
    }
}
