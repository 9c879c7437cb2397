//! What a node reports about its update: the phase it moves to, and what else that makes true.

use super::destination;
use crate::draft::Draft;
use crate::names::{Attempt, NodeName, Release, Span};
use crate::node::{Deadlines, Direction, Left, Measured, Node, Phase, Report, Serving, StepName};
use crate::rollout::Kind;
use crate::strategy::Mode;

pub(super) fn reported(
    draft: &mut Draft,
    name: &NodeName,
    attempt: Attempt,
    report: &Report,
) -> bool {
    let Some(mut node) = draft.node(name).cloned() else { return false };
    if attempt != node.attempt {
        return false; // of an earlier attempt: what it said then is settled
    }
    let monitoring = draft.rounded_after(draft.spec().limits.monitor);
    let Ok(phase) = node.phase.on(report, Deadlines { monitoring }) else { return false };
    if let Phase::Monitoring { deadline, .. } = phase {
        draft.wake_at(deadline);
    }
    note_report(draft, name, report);
    let progress_only = matches!(report, Report::Began { .. });
    take_over(draft, &mut node, report);
    node.phase = phase;
    let ended = node.phase.is_settled();
    draft.set(name, node);
    if ended && draft.spec().strategy.mode == Mode::Window {
        draft.head.gap_since = Some(draft.at);
    }
    !progress_only
}

/// What a report says beside the phase: which release runs, whether it serves, what was measured.
fn take_over(draft: &Draft, node: &mut Node, report: &Report) {
    if draft.spec().kind == Kind::Run {
        return; // a command moves nothing
    }
    let direction = match &node.phase {
        Phase::Updating { direction, .. } | Phase::Monitoring { direction, .. } => *direction,
        Phase::Failed { cause, .. } => cause.direction,
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Done
        | Phase::Skipped { .. }
        | Phase::RolledBack => Direction::Forward,
    };
    match report {
        Report::Prepared => {}
        Report::Began { in_flight, .. } => {
            node.measured.in_flight_at_drain = node.measured.in_flight_at_drain.max(*in_flight);
        }
        Report::Joined(measured) | Report::Done(measured) => {
            node.measures(*measured);
            node.runs = destination(&draft.spec().to, node, direction);
            serves_again(node, *measured);
        }
        Report::Failed(failure) => {
            node.measures(failure.measured);
            match failure.left {
                Left::Restored => {
                    serves_again(node, failure.measured);
                    let back = if direction == Direction::Forward {
                        node.previous.clone()
                    } else {
                        Some(draft.spec().to.clone())
                    };
                    node.runs = back;
                }
                Left::Out | Left::Unknown => {
                    falls_out(draft, node);
                    let known = [Some(&draft.spec().to), node.previous.as_ref()];
                    let is_current = |r: &&Release| Some(&r.version) == failure.current.as_ref();
                    if let Some(current) = known.into_iter().flatten().find(is_current) {
                        node.runs = Some(current.clone());
                    }
                }
                Left::Untouched => stays_out(draft, node),
            }
        }
        Report::Broken { .. } => falls_out(draft, node),
    }
}

/// It does not serve, and no update measures for how long from now on.
fn falls_out(draft: &Draft, node: &mut Node) {
    node.observed.serving = Serving::Out;
    node.out_since = None;
    node.is_left_out(draft.at);
}

/// This attempt changed nothing: whom an earlier one left out still waits for the way back.
fn stays_out(draft: &Draft, node: &mut Node) {
    let served = node.observed.serving == Serving::In || node.observed.drained;
    if !served && node.earlier.out_of_traffic > Span::ZERO {
        node.is_left_out(draft.at);
    }
}

/// It says that it is back in traffic, before the fleet has seen it; unless an operator keeps it out, or did when it
/// said so.
fn serves_again(node: &mut Node, measured: Measured) {
    if !node.observed.drained && !measured.kept_out {
        node.observed.serving = Serving::In;
        // Also of whom nobody waited for any more; the report has measured all of it.
        (node.observed.unsure, node.out_since) = (false, None);
    }
}

fn note_report(draft: &mut Draft, name: &NodeName, report: &Report) {
    let text = match report {
        Report::Prepared => "prepared".to_owned(),
        Report::Began { step: StepName::Drain, in_flight } => {
            format!("drain: {in_flight} in flight")
        }
        Report::Began { step, .. } => step.to_string(),
        Report::Joined(measured) => format!("joined after {}", measured.out_of_traffic),
        Report::Done(_) if draft.spec().kind == Kind::Run => "ran".to_owned(),
        Report::Failed(failure) if draft.spec().kind == Kind::Run => {
            format!("failed: {}", failure.text)
        }
        Report::Done(measured) => format!("done, out of traffic {}", measured.out_of_traffic),
        Report::Failed(failure) => {
            let (step, text) = (failure.step, &failure.text);
            // Some causes begin with their step.
            let at = match text.starts_with(&step.to_string()) {
                true => String::new(),
                false => format!(" at {step}"),
            };
            format!("failed{at}: {text}; {}", left_text(failure.left))
        }
        Report::Broken { cause, .. } => format!("broke after it was done: {cause}"),
    };
    draft.note_on(name, text);
}

/// What a failed node was left as, for people.
pub fn left_text(left: Left) -> &'static str {
    match left {
        Left::Restored => "restored",
        Left::Out => "left out of traffic",
        Left::Untouched => "not touched",
        Left::Unknown => "its state is not known",
    }
}

#[cfg(test)]
mod tests {
    use crate::node::{Direction, Failure, Left, Measured, Phase, Report, Serving};
    use crate::tests::{Story, failure, name, one_by_one, release};
    use crate::verbs::Verb;

    /// What was said under an operator's drain may be heard when he has ended it, and the node still has to join.
    #[test]
    fn who_was_kept_out_is_not_in_traffic_before_it_is_seen_there() {
        for (kept_out, serving) in [(false, Serving::In), (true, Serving::Out)] {
            let measured = Measured { kept_out, ..Measured::default() };
            let reports = [
                Report::Done(measured),
                Report::Failed(Failure { measured, ..failure(Left::Restored) }),
            ];
            for report in reports {
                let mut story = Story::prepared(&["n1", "n2"], one_by_one());
                story.observe("n1 out");
                story.say("n1", report);
                assert_eq!(story.rollout.nodes()[&name("n1")].observed.serving, serving);
            }
        }
    }

    #[test]
    fn who_was_left_out_goes_back_also_when_another_attempt_changed_nothing() {
        for (first, goes_back) in [(Left::Out, true), (Left::Restored, false)] {
            let mut story = Story::prepared(&["n1", "n2"], one_by_one());
            story.say("n1", Report::Failed(failure(first)));
            story.wait(1);
            story.ask(Verb::Retry(Vec::new()));
            story.say("n1", Report::Prepared);
            story.say("n1", Report::Failed(failure(Left::Untouched)));
            story.ask(Verb::Rollback);
            let phase = &story.rollout.nodes()[&name("n1")].phase;
            let back = matches!(phase, Phase::Updating { direction: Direction::Back, .. });
            assert_eq!(back, goes_back, "{first:?}: {phase:?}");
        }
    }

    /// A rollout may end before the fleet has seen what a node runs now.
    #[test]
    fn what_is_current_on_a_node_that_was_left_out() {
        for (current, runs) in [
            (Some(release(1)), Some(release(1))),
            (Some(release(0)), Some(release(0))),
            (Some(release(7)), Some(release(0))), // of neither: what was seen last
            (None, Some(release(0))),
        ] {
            let mut story = Story::prepared(&["n1", "n2"], one_by_one());
            let current = current.map(|release| release.version);
            story.say("n1", Report::Failed(Failure { current, ..failure(Left::Out) }));
            story.ask(Verb::Abort);
            assert!(story.rollout.is_ended());
            assert_eq!(story.rollout.nodes()[&name("n1")].runs, runs);
        }
    }
}
