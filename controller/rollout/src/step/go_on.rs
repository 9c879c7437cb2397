//! After everything that moved: starts whatever may start now, and says why nothing does.

use super::{destination, gone, once, rehearse};
use crate::draft::Draft;
use crate::gate::{self, Hold, Next};
use crate::names::{Attempt, NodeName};
use crate::node::{Direction, Phase, Skip, StepName};
use crate::order::Order;
use crate::rollout::{Held, Kind, Outcome, Stage};
use crate::strategy::{Mode, OnFailure};
use crate::{rehearsal, rollback};

/// Starts whatever may start now, and says why nothing does.
pub(super) fn go_on(draft: &mut Draft) {
    leave_preparing(draft);
    loop {
        let next = match &draft.head.stage {
            Stage::Preparing => preparing(draft),
            Stage::Once(once) => once::hold(once),
            Stage::Rolling => gate::next(draft),
            Stage::Rehearsing => rehearsal::next(draft),
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
            Next::Rehearse => rehearse::begin(draft),
            Next::ForwardAgain => rehearse::forward_again(draft),
            Next::Hold(Hold::Failures { .. }) if draft.spec().kind == Kind::Run => {
                return end_run(draft);
            }
            Next::Hold(hold) => {
                if let Err(hold) = turn_round(draft, hold) {
                    return held(draft, hold);
                }
            }
            Next::Sleep(until) => {
                draft.wake_at(until);
                return moving(draft);
            }
            Next::UnderWay => {
                return match unheard(draft) {
                    Some(hold) => held(draft, hold),
                    None => moving(draft),
                };
            }
            Next::End(outcome) => return end(draft, outcome),
        }
    }
}

/// Is everything that is under way offline? Then nothing moves until one returns, or its deadline passes.
fn unheard(draft: &Draft) -> Option<Hold> {
    let tally = draft.tally();
    let waits = tally.running > 0 && tally.heard == 0 && draft.head.paused.is_none();
    waits.then(|| Hold::Offline { nodes: draft.names(|node| node.phase.is_running()) })
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

/// All are prepared (or settled): the once-per-release job, then the first batch.
fn leave_preparing(draft: &mut Draft) {
    let ready = draft.tally().unprepared == 0 && draft.head.stage == Stage::Preparing;
    // Whatever holds updates holds the once-per-release job: it is a change like they are.
    if !ready || gate::blocked(draft).is_some() || draft.head.paused.is_some() {
        return;
    }
    let first = draft
        .nodes()
        .find(|(_, node)| node.phase == Phase::Ready && node.observed.online)
        .map(|(name, node)| (name.clone(), node.attempt));
    draft.head.stage = match first {
        Some((node, attempt)) if draft.spec().once => once::order(draft, node, attempt),
        _ => Stage::Rolling,
    };
}

fn update(draft: &mut Draft, nodes: &[NodeName]) {
    let direction = match draft.head.stage {
        Stage::Rehearsing | Stage::RollingBack { .. } => Direction::Back,
        Stage::Preparing
        | Stage::Once(_)
        | Stage::Rolling
        | Stage::Aborting
        | Stage::Ended { .. } => Direction::Forward,
    };
    for name in nodes {
        let Some(mut node) = draft.node(name).cloned() else { continue };
        let Some(to) = destination(&draft.spec().to, &node, direction) else { continue };
        let takes_out = gate::takes_out(draft, &node);
        if direction == Direction::Back {
            node.attempt = node.attempt.next();
            if let Phase::Failed { cause, .. } = &node.phase {
                node.broke = Some(cause.clone());
            }
        }
        let span = draft.spec().limits.update;
        let deadline = draft.deadline(span);
        let attempt = node.attempt;
        node.begins_at(draft.at);
        if draft.spec().kind == Kind::Run {
            let step = Some(StepName::Run);
            node.phase = Phase::Updating { direction, step, deadline, takes_out: false };
            draft.set(name, node);
            draft.note_on(name, format!("ordered: run, attempt {attempt}"));
            draft.order(Order::Run { node: name.clone(), attempt });
            continue;
        }
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

fn is_skipped(phase: &Phase) -> bool {
    matches!(phase, Phase::Skipped { .. })
}

fn next_batch(draft: &mut Draft) {
    if draft.spec().strategy.mode == Mode::Batches {
        let batch = draft.head.batch;
        let touched = draft.nodes().any(|(_, n)| n.batch == batch && !is_skipped(&n.phase));
        draft.note(match touched {
            true => format!("batch {batch} is done"),
            false => format!("batch {batch} is over: all of its nodes were skipped"),
        });
        draft.head.gap_since = Some(draft.at);
    }
    draft.head.batch += 1;
    let batch = draft.head.batch;
    let late = std::mem::take(&mut draft.head.late).into_iter();
    let its = late.filter(|name| draft.node(name).is_some_and(|node| node.batch == batch));
    draft.head.late = its.collect();
}

/// Does this hold turn the rollout round? Then the way back begins at once; `Err`: it holds, perhaps for want of a way.
fn turn_round(draft: &mut Draft, hold: Hold) -> Result<(), Hold> {
    let Hold::Failures { failed, .. } = &hold else { return Err(hold) };
    let turns = draft.spec().strategy.on_failure == OnFailure::Rollback
        && draft.spec().kind != Kind::Restart
        && matches!(draft.head.stage, Stage::Rolling | Stage::Rehearsing | Stage::Preparing);
    if !turns {
        return Err(hold);
    }
    match &draft.spec().fence {
        Some(why) => Err(Hold::Fence { failed: failed.clone(), why: why.clone() }),
        None => {
            draft.note(format!("rolling back: {hold}"));
            draft.head.forgiven = 0;
            draft.head.asked_again.clear();
            draft.head.stage = Stage::RollingBack { why: hold.to_string() };
            Ok(())
        }
    }
}

/// More nodes failed than may: a run goes no further, and is over when what is under way has ended. There is nothing
/// that could be taken back, so nobody has to decide anything.
fn end_run(draft: &mut Draft) {
    if draft.tally().running > 0 {
        return moving(draft);
    }
    end(draft, gate::outcome(draft));
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
    for name in draft.names(|node| node.out_since.is_some()) {
        if let Some(mut node) = draft.node(&name).cloned() {
            node.is_back(draft.at);
            draft.set(&name, node);
        }
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
