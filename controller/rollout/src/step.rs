//! The only place where a rollout changes its mind: (rollout, event) -> (changes, orders, notes).

use crate::draft::Draft;
pub use crate::draft::Step;
use crate::event::{Event, OnceResult, What};
use crate::gate::{self, Hold, Next};
use crate::names::{Attempt, NodeName, Release, Timestamp};
use crate::node::{
    Cause, Deadlines, Direction, Left, Node, Observed, Phase, Report, Serving, Skip, StepName,
};
use crate::order::Order;
use crate::rollback;
use crate::rollout::{Held, Kind, Once, Outcome, Rollout, Stage};
use crate::strategy::{Deadline, Mode, Offline, OnFailure, StartOrder};
use crate::verbs::{self, Verb};

/// What the event changes, and what is to be done about it. Total, deterministic, and without effect by itself.
pub fn step(rollout: &Rollout, event: &Event) -> Step {
    let mut draft = Draft::new(rollout, event.at);
    if rollout.is_ended() {
        return draft.finish();
    }
    let moved = react(&mut draft, &event.what);
    if moved {
        go_on(&mut draft);
    }
    draft.finish()
}

/// What a new owner sends again: everything that was ordered and not answered. Agents answer repeats harmlessly.
pub fn outstanding(rollout: &Rollout) -> Vec<Order> {
    let mut orders = Vec::new();
    if rollout.is_ended() {
        return orders;
    }
    for (name, node) in rollout.nodes() {
        let node_order = match &node.phase {
            Phase::Preparing { .. } => {
                Some(Order::Prepare { node: name.clone(), attempt: node.attempt })
            }
            Phase::Updating { direction, .. } | Phase::Monitoring { direction, .. } => {
                destination(&rollout.spec.to, node, *direction).map(|to| Order::Update {
                    node: name.clone(),
                    attempt: node.attempt,
                    direction: *direction,
                    to,
                })
            }
            Phase::Waiting
            | Phase::Ready
            | Phase::Done
            | Phase::Failed { .. }
            | Phase::Skipped { .. }
            | Phase::RolledBack => None,
        };
        orders.extend(node_order);
        if let Some(deadline) = node.phase.deadline()
            && !orders.contains(&Order::WakeAt(deadline))
        {
            orders.push(Order::WakeAt(deadline));
        }
    }
    if let Stage::Once(Once::Running { node, attempt, deadline }) = &rollout.head.stage {
        orders.push(Order::Once { node: node.clone(), attempt: *attempt });
        orders.push(Order::WakeAt(*deadline));
    }
    if let Deadline::After(after) = rollout.spec.strategy.deadline {
        orders.push(Order::WakeAt(rollout.spec.started.after(after)));
    }
    if let Some(gap) = rollout.head.gap_since {
        orders.push(Order::WakeAt(gap.after(rollout.spec.strategy.delay)));
    }
    orders
}

/// Takes the event in. `false`: nothing moved that could let anything else move.
fn react(draft: &mut Draft, what: &What) -> bool {
    match what {
        What::Started => start(draft),
        What::Reported { node, attempt, report } => return reported(draft, node, *attempt, report),
        What::Observed { node, observed, runs } => return observe(draft, node, *observed, runs),
        What::OnceEnded { node, attempt, result } => once_ended(draft, node, *attempt, result),
        What::Asked { verb, who } => asked(draft, verb, who),
        What::Frozen(why) => draft.head.frozen.clone_from(why),
        What::Tick => tick(draft),
    }
    true
}

fn start(draft: &mut Draft) {
    if let Deadline::After(after) = draft.spec().strategy.deadline {
        draft.wake_at(draft.spec().started.after(after));
    }
    for name in draft.names(|node| node.phase == Phase::Waiting) {
        prepare(draft, &name);
    }
}

/// Asks a waiting node to fetch the release, or applies the policy for nodes that are offline.
fn prepare(draft: &mut Draft, name: &NodeName) {
    let Some(mut node) = draft.node(name).cloned() else { return };
    if node.observed.drained {
        node.phase = Phase::Skipped { why: Skip::Drained };
        draft.note_on(name, "skipped: drained by an operator");
    } else if node.observed.online {
        node.attempt = node.attempt.next();
        node.phase = Phase::Preparing { deadline: draft.deadline(draft.spec().limits.prepare) };
        draft.order(Order::Prepare { node: name.clone(), attempt: node.attempt });
    } else {
        node.phase = gone(draft, name);
    }
    draft.set(name, node);
}

/// The phase of a node that was asked nothing yet and is offline.
fn gone(draft: &mut Draft, name: &NodeName) -> Phase {
    match draft.spec().strategy.offline {
        Offline::Skip => {
            draft.note_on(name, "skipped: offline; it catches up when it returns");
            Phase::Skipped { why: Skip::Offline }
        }
        Offline::Wait => Phase::Waiting,
        Offline::Fail => {
            draft.note_on(name, "failed: offline");
            let cause = controllers_cause("the node is offline".to_owned(), Direction::Forward);
            Phase::Failed { cause, left: Left::Untouched }
        }
    }
}

fn controllers_cause(text: String, direction: Direction) -> Cause {
    Cause { step: None, text, output: String::new(), direction, silent: false }
}

fn reported(draft: &mut Draft, name: &NodeName, attempt: Attempt, report: &Report) -> bool {
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
    let direction = match &node.phase {
        Phase::Updating { direction, .. } | Phase::Monitoring { direction, .. } => *direction,
        Phase::Failed { cause, .. } => cause.direction,
        _ => Direction::Forward,
    };
    match report {
        Report::Prepared => {}
        Report::Began { in_flight, .. } => {
            node.measured.in_flight_at_drain = node.measured.in_flight_at_drain.max(*in_flight);
        }
        Report::Joined(measured) | Report::Done(measured) => {
            if !matches!(node.phase, Phase::Monitoring { .. }) {
                node.measured = node.measured.plus(*measured);
            }
            node.runs = destination(&draft.spec().to, node, direction);
            serves_again(node);
        }
        Report::Failed(failure) => {
            node.measured = node.measured.plus(failure.measured);
            match failure.left {
                Left::Restored => {
                    serves_again(node);
                    let back = if direction == Direction::Forward {
                        node.previous.clone()
                    } else {
                        Some(draft.spec().to.clone())
                    };
                    node.runs = back;
                }
                Left::Out | Left::Unknown => node.observed.serving = Serving::Out,
                Left::Untouched => {}
            }
        }
        Report::Broken { .. } => node.observed.serving = Serving::Out,
    }
}

/// It says that it is back in traffic, before the fleet has seen it; unless an operator keeps it out.
fn serves_again(node: &mut Node) {
    if !node.observed.drained {
        node.observed.serving = Serving::In;
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
        Report::Done(measured) => format!("done, out of traffic {}", measured.out_of_traffic),
        Report::Failed(failure) => {
            format!("failed at {}: {}; {}", failure.step, failure.text, left_text(failure.left))
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

/// Where an update of this direction ends; `None`: there is nothing to go back to.
fn destination(to: &Release, node: &Node, direction: Direction) -> Option<Release> {
    match direction {
        Direction::Forward => Some(to.clone()),
        Direction::Back => node.previous.clone(),
    }
}

fn observe(draft: &mut Draft, name: &NodeName, observed: Observed, runs: &Option<Release>) -> bool {
    let Some(mut node) = draft.node(name).cloned() else { return false };
    if node.observed == observed && node.runs == *runs {
        return false;
    }
    if observed.online && !node.observed.online {
        renew(draft, &mut node);
    }
    node.observed = observed;
    if !node.phase.is_running() {
        node.runs.clone_from(runs);
    }
    let returned = match node.phase {
        Phase::Skipped { why: Skip::Offline } => observed.online,
        Phase::Skipped { why: Skip::Drained } => observed.online && !observed.drained,
        _ => false,
    };
    let rolling = matches!(draft.head.stage, Stage::Preparing | Stage::Rolling);
    if returned && rolling {
        draft.note_on(name, "returned: it catches up");
        node.phase = Phase::Waiting;
        if node.batch <= draft.head.batch && !is_in_batch(draft, name, draft.head.batch) {
            node.batch = draft.head.batch;
            draft.head.late.push(name.clone());
        }
    }
    came_to_serve(draft, &mut node);
    moved_by_others(draft, name, &mut node);
    let ask = rolling && observed.online && node.phase == Phase::Waiting;
    let vanished = !observed.online && matches!(node.phase, Phase::Preparing { .. });
    draft.set(name, node);
    if ask {
        prepare(draft, name);
    } else if vanished {
        let phase = gone(draft, name);
        if let Some(mut node) = draft.node(name).cloned() {
            node.phase = phase;
            draft.set(name, node);
        }
    }
    true
}

/// It was awaited beyond its deadline, and is back: it gets the time anew to say how far it is.
fn renew(draft: &mut Draft, node: &mut Node) {
    let limits = draft.spec().limits;
    let (deadline, span) = match &mut node.phase {
        Phase::Updating { deadline, .. } => (deadline, limits.update),
        Phase::Monitoring { deadline, .. } => (deadline, limits.monitor),
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Done
        | Phase::Failed { .. }
        | Phase::Skipped { .. }
        | Phase::RolledBack => return,
    };
    if *deadline <= draft.at {
        *deadline = draft.deadline(span);
    }
}

/// It was down when its update was ordered, and came back before it drained: now the update will take it out.
fn came_to_serve(draft: &Draft, node: &mut Node) {
    let stop_first = draft.spec().strategy.order == StartOrder::StopFirst;
    if let Phase::Updating { step, takes_out, .. } = &mut node.phase
        && step.is_none_or(|step| step <= StepName::Drain)
        && node.observed.serving == Serving::In
        && stop_first
    {
        *takes_out = true;
    }
}

/// It was done, and runs something else now: somebody on the node has put another release there.
fn moved_by_others(draft: &mut Draft, name: &NodeName, node: &mut Node) {
    let ours = node.phase == Phase::Done && !matches!(draft.head.stage, Stage::Aborting);
    let Some(runs) = node.runs.clone() else { return };
    if !ours || runs == draft.spec().to || node.observed.serving != Serving::In {
        return;
    }
    let text = format!("it runs {runs} now, and this rollout did not order that");
    draft.note_on(name, format!("failed: {text}"));
    let left = if node.previous == Some(runs) { Left::Restored } else { Left::Unknown };
    node.phase = Phase::Failed { cause: controllers_cause(text, Direction::Forward), left };
}

fn is_in_batch(draft: &Draft, name: &NodeName, batch: usize) -> bool {
    draft.spec().batches.get(batch - 1).is_some_and(|nodes| nodes.contains(name))
}

fn once_ended(draft: &mut Draft, from: &NodeName, of: Attempt, result: &OnceResult) {
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
            Stage::Rolling
        }
        OnceResult::Failed { text, output } => {
            draft.note_on(&node, format!("the once-per-release job failed: {text}"));
            let (text, output) = (text.clone(), output.clone());
            Stage::Once(Once::Failed { node, attempt, text, output })
        }
        OnceResult::Unknown => {
            draft.note_on(&node, "whether the once-per-release job took effect is not known");
            Stage::Once(Once::Unknown { node, attempt })
        }
        OnceResult::NeverBegan => once_on(draft, node, attempt),
    };
}

/// Orders the once-per-release job of a node.
fn once_on(draft: &mut Draft, node: NodeName, attempt: Attempt) -> Stage {
    let deadline = draft.deadline(draft.spec().limits.once);
    draft.note_on(&node, format!("runs the once-per-release job, attempt {attempt}"));
    draft.order(Order::Once { node: node.clone(), attempt });
    Stage::Once(Once::Running { node, attempt, deadline })
}

fn asked(draft: &mut Draft, verb: &Verb, who: &str) {
    draft.note(format!("{who} asks: {verb}"));
    match verb {
        Verb::Pause => draft.head.paused = Some(who.to_owned()),
        Verb::Resume => resume(draft),
        Verb::Promote => draft.head.approved = draft.head.batch,
        Verb::Abort => {
            draft.head.paused = None;
            draft.head.stage = Stage::Aborting;
        }
        Verb::Rollback => {
            draft.head.paused = None;
            draft.head.forgiven = 0;
            draft.head.stage = Stage::RollingBack { why: format!("{who} asked for it") };
        }
        Verb::Retry(nodes) => retry(draft, nodes),
        Verb::Skip(nodes) => {
            for name in nodes {
                if let Some(mut node) = draft.node(name).cloned() {
                    node.phase = Phase::Skipped { why: Skip::ByOperator };
                    draft.set(name, node);
                }
            }
        }
    }
}

fn resume(draft: &mut Draft) {
    if draft.head.paused.take().is_some() {
        return;
    }
    match draft.head.held.as_ref().map(|held| &held.hold) {
        Some(Hold::Failures { failed, .. }) => draft.head.forgiven = failed.len(),
        Some(Hold::RollbackFailed { nodes }) => draft.head.forgiven = nodes.len(),
        Some(Hold::Deadline { .. }) => draft.head.deadline_waived = true,
        Some(
            Hold::Approval { .. }
            | Hold::Capacity { .. }
            | Hold::Offline { .. }
            | Hold::Busy { .. }
            | Hold::Frozen { .. }
            | Hold::Once { .. },
        )
        | None => {}
    }
}

fn retry(draft: &mut Draft, named: &[NodeName]) {
    if let Stage::Once(Once::Failed { node, attempt, .. } | Once::Unknown { node, attempt }) =
        draft.head.stage.clone()
    {
        draft.head.stage = once_on(draft, node, attempt.next());
        return;
    }
    let all = draft.names(|node| verbs::is_retryable(&node.phase));
    let back = matches!(draft.head.stage, Stage::RollingBack { .. });
    for name in all.into_iter().filter(|name| named.is_empty() || named.contains(name)) {
        let Some(mut node) = draft.node(&name).cloned() else { continue };
        if back {
            if rollback::is_stuck(draft.spec(), &node) && node.previous.is_some() {
                // A candidate of the rollback again, whatever it runs.
                let text = "it is to be taken back once more".to_owned();
                let cause = controllers_cause(text, Direction::Forward);
                node.phase = Phase::Failed { cause, left: Left::Unknown };
                draft.set(&name, node);
            }
            continue;
        }
        node.phase = Phase::Waiting;
        if node.batch < draft.head.batch {
            node.batch = draft.head.batch;
            draft.head.late.push(name.clone());
        }
        draft.set(&name, node);
        prepare(draft, &name);
    }
    draft.head.forgiven = 0;
}

/// Nodes of which something was expected by now.
fn tick(draft: &mut Draft) {
    let overdue =
        draft.names(|node| node.phase.deadline().is_some_and(|deadline| deadline <= draft.at));
    for name in overdue {
        let Some(mut node) = draft.node(&name).cloned() else { continue };
        let wait = !node.observed.online && draft.spec().strategy.offline == Offline::Wait;
        let (direction, left, silent) = match &node.phase {
            Phase::Preparing { .. } => (Direction::Forward, Left::Untouched, false),
            Phase::Updating { direction, .. } | Phase::Monitoring { direction, .. } => {
                (*direction, Left::Unknown, true)
            }
            _ => continue,
        };
        if wait {
            continue;
        }
        let who =
            if node.observed.online { "the agent answers but" } else { "it went offline and" };
        let text = format!("{who} did not report the end of its update in time");
        draft.note_on(&name, format!("failed: {text}"));
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

/// Starts whatever may start now, and says why nothing does.
fn go_on(draft: &mut Draft) {
    leave_preparing(draft);
    loop {
        let next = match &draft.head.stage {
            Stage::Preparing => preparing(draft),
            Stage::Once(once) => once_hold(once),
            Stage::Rolling => gate::next(draft),
            Stage::RollingBack { .. } => rollback::next(draft),
            Stage::Aborting if draft.tally().running == 0 => Next::End(Outcome::Aborted),
            Stage::Aborting => Next::UnderWay,
            Stage::Ended { .. } => return,
        };
        match next {
            Next::Start(nodes) => update(draft, &nodes),
            Next::GiveUp(nodes) => give_up(draft, &nodes),
            Next::LeaveDrained(nodes) => leave_drained(draft, &nodes),
            Next::Advance => next_batch(draft),
            Next::Hold(hold) => {
                if !starts_rollback(draft, &hold) {
                    return held(draft, hold);
                }
            }
            Next::Sleep(until) => {
                draft.wake_at(until);
                return moving(draft);
            }
            Next::UnderWay => return moving(draft),
            Next::End(outcome) => return end(draft, outcome),
        }
    }
}

/// While nodes prepare: too many failures stop it already, before anything was drained.
fn preparing(draft: &Draft) -> Next {
    if let Some(hold) = gate::blocked(draft) {
        return Next::Hold(hold);
    }
    if draft.tally().preparing > 0 {
        return Next::UnderWay;
    }
    let offline = draft.names(|node| node.phase == Phase::Waiting && !node.observed.online);
    if offline.is_empty() { Next::UnderWay } else { Next::Hold(Hold::Offline { nodes: offline }) }
}

fn once_hold(once: &Once) -> Next {
    match once {
        Once::Running { .. } => Next::UnderWay,
        Once::Failed { node, text, .. } => {
            Next::Hold(Hold::Once { node: node.clone(), text: format!("failed: {text}") })
        }
        Once::Unknown { node, .. } => Next::Hold(Hold::Once {
            node: node.clone(),
            text: "it is not known whether it took effect".to_owned(),
        }),
    }
}

/// All are prepared (or settled): the once-per-release job, then the first batch.
fn leave_preparing(draft: &mut Draft) {
    let ready = draft.tally().unprepared == 0 && draft.head.stage == Stage::Preparing;
    let stopped = draft.tally().failed > draft.failures_borne()
        && draft.spec().strategy.on_failure != OnFailure::Continue;
    if !ready || stopped || draft.head.paused.is_some() {
        return;
    }
    let first = draft
        .nodes()
        .find(|(_, node)| node.phase == Phase::Ready && node.observed.online)
        .map(|(name, node)| (name.clone(), node.attempt));
    draft.head.stage = match first {
        Some((node, attempt)) if draft.spec().once => once_on(draft, node, attempt),
        _ => Stage::Rolling,
    };
}

fn update(draft: &mut Draft, nodes: &[NodeName]) {
    let direction = match draft.head.stage {
        Stage::RollingBack { .. } => Direction::Back,
        _ => Direction::Forward,
    };
    for name in nodes {
        let Some(mut node) = draft.node(name).cloned() else { continue };
        let Some(to) = destination(&draft.spec().to, &node, direction) else { continue };
        let takes_out = gate::takes_out(draft, &node);
        if direction == Direction::Back {
            node.attempt = node.attempt.next();
        }
        let span = draft.spec().limits.update;
        let deadline = draft.deadline(span);
        let attempt = node.attempt;
        node.phase = Phase::Updating { direction, step: None, deadline, takes_out };
        draft.set(name, node);
        draft.note_on(name, format!("ordered: {to}, attempt {attempt}"));
        draft.order(Order::Update { node: name.clone(), attempt, direction, to });
    }
}

fn give_up(draft: &mut Draft, nodes: &[NodeName]) {
    for name in nodes {
        let phase = gone(draft, name);
        if let Some(mut node) = draft.node(name).cloned() {
            node.phase = phase;
            draft.set(name, node);
        }
    }
}

fn leave_drained(draft: &mut Draft, nodes: &[NodeName]) {
    for name in nodes {
        if let Some(mut node) = draft.node(name).cloned() {
            node.phase = Phase::Skipped { why: Skip::Drained };
            draft.note_on(name, "skipped: drained by an operator");
            draft.set(name, node);
        }
    }
}

fn next_batch(draft: &mut Draft) {
    if draft.spec().strategy.mode == Mode::Batches {
        draft.note(format!("batch {} is done", draft.head.batch));
        draft.head.gap_since = Some(draft.at);
    }
    draft.head.batch += 1;
    draft.head.late.clear();
}

/// Does this hold turn the rollout round? Then the way back begins at once.
fn starts_rollback(draft: &mut Draft, hold: &Hold) -> bool {
    let turns = matches!(hold, Hold::Failures { .. })
        && draft.spec().strategy.on_failure == OnFailure::Rollback
        && draft.spec().kind != Kind::Restart
        && matches!(draft.head.stage, Stage::Rolling | Stage::Preparing);
    if turns {
        draft.note(format!("rolling back: {hold}"));
        draft.head.forgiven = 0;
        draft.head.stage = Stage::RollingBack { why: hold.to_string() };
    }
    turns
}

fn held(draft: &mut Draft, hold: Hold) {
    let same = |held: &Held| held.hold.kind() == hold.kind();
    let since = match draft.head.held.as_ref().filter(|held| same(held)) {
        Some(held) => held.since,
        None => {
            draft.note(format!("held: {hold}"));
            draft.at
        }
    };
    draft.head.held = Some(Held { hold, since });
}

fn moving(draft: &mut Draft) {
    if let Some(held) = draft.head.held.take() {
        draft.note(format!("goes on; it was held for {}", draft.at.since(held.since)));
    }
}

fn end(draft: &mut Draft, outcome: Outcome) {
    draft.head.held = None;
    draft.head.paused = None;
    draft.head.stage = Stage::Ended { outcome, at: draft.at };
    for name in draft.names(|node| node.attempt > Attempt(0)) {
        draft.order(Order::Settle { node: name });
    }
    let took = draft.at.since(draft.spec().started);
    draft.note(format!("{} after {took}", outcome_text(outcome)));
}

/// An outcome for people.
pub fn outcome_text(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "completed",
        Outcome::Partial => "ended partial",
        Outcome::RolledBack => "rolled back",
        Outcome::Failed => "failed",
        Outcome::Aborted => "aborted",
    }
}

/// When the next wake-up is due at the latest, for tests that move the clock.
pub fn next_wake(orders: &[Order]) -> Option<Timestamp> {
    orders
        .iter()
        .filter_map(|order| match order {
            Order::WakeAt(at) => Some(*at),
            Order::Prepare { .. }
            | Order::Update { .. }
            | Order::Once { .. }
            | Order::Settle { .. } => None,
        })
        .min()
}
