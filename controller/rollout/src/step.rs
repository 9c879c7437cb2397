//! The only place where a rollout changes its mind: (rollout, event) -> (changes, orders, notes).
//!
//! An event is taken in by the part that knows it; if anything moved, `go_on` starts whatever may start now.
//!
//! - `reported`: what nodes say of their updates.
//! - `observed`: what the fleet sees of nodes.
//! - `around`: all of that at once, with the environment.
//! - `newcomer`: nodes that came after it was admitted.
//! - `once`: the once-per-release job.
//! - `asked`: what operators ask for.
//! - `overdue`: who should have answered by now.
//! - `rehearse`: the moves of a rehearsal.
//! - `go_on`: the next updates, a hold, or the end.

mod around;
mod asked;
mod go_on;
mod newcomer;
mod observed;
mod once;
mod overdue;
mod rehearse;
mod reported;

use std::collections::BTreeSet;

use crate::draft::Draft;
pub use crate::draft::Step;
use crate::event::{Event, What};
use crate::names::{NodeName, Release, Timestamp};
use crate::node::{Cause, Direction, Left, Node, Phase, Skip};
use crate::order::Order;
use crate::rehearsal::Rehearsal;
use crate::rollout::{Kind, Once, Rollout, Stage};
use crate::strategy::{Deadline, Offline};

pub use go_on::outcome_text;
pub use reported::left_text;

/// What the event changes, and what is to be done about it. Total, deterministic, and without effect by itself.
pub fn step(rollout: &Rollout, event: &Event) -> Step {
    let mut draft = Draft::new(rollout, event.at);
    if rollout.is_ended() {
        return draft.finish();
    }
    let moved = react(&mut draft, &event.what);
    if moved {
        go_on::go_on(&mut draft);
    }
    draft.finish()
}

/// What a new owner sends again: everything that was ordered and not answered. Agents answer repeats harmlessly.
pub fn outstanding(rollout: &Rollout) -> Vec<Order> {
    let mut orders = Vec::new();
    if rollout.is_ended() {
        return orders;
    }
    let mut deadlines = BTreeSet::new();
    for (name, node) in rollout.nodes() {
        orders.extend(ordered(rollout, name, node));
        deadlines.extend(node.phase.deadline());
    }
    orders.extend(deadlines.into_iter().map(Order::WakeAt));
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

/// Of these, what one node has to do. A fleet that comes back asks for it node by node.
pub fn outstanding_of(rollout: &Rollout, name: &NodeName) -> Vec<Order> {
    if rollout.is_ended() {
        return Vec::new();
    }
    let node = rollout.nodes().get(name);
    let mut orders: Vec<Order> =
        node.and_then(|node| ordered(rollout, name, node)).into_iter().collect();
    if let Stage::Once(Once::Running { node, attempt, .. }) = &rollout.head.stage
        && node == name
    {
        orders.push(Order::Once { node: node.clone(), attempt: *attempt });
    }
    orders
}

/// What a node was ordered and has not answered.
fn ordered(rollout: &Rollout, name: &NodeName, node: &Node) -> Option<Order> {
    match &node.phase {
        Phase::Preparing { .. } => {
            Some(Order::Prepare { node: name.clone(), attempt: node.attempt })
        }
        Phase::Updating { .. } if rollout.spec.kind == Kind::Run => {
            Some(Order::Run { node: name.clone(), attempt: node.attempt })
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
    }
}

/// Takes the event in. `false`: nothing moved that could let anything else move.
fn react(draft: &mut Draft, what: &What) -> bool {
    match what {
        What::Started => start(draft),
        What::Reported { node, attempt, report } => {
            return reported::reported(draft, node, *attempt, report);
        }
        What::Observed { node, observed, runs } => {
            return observed::observe(draft, node, *observed, runs);
        }
        What::Around(around) => return around::around(draft, around),
        What::Newcomer(target) => return newcomer::joins(draft, target),
        What::OnceEnded { node, attempt, result } => once::ended(draft, node, *attempt, result),
        What::Asked { verb, who } => asked::asked(draft, verb, who),
        What::Frozen(why) => draft.head.frozen.clone_from(why),
        What::Closed(closed) => draft.head.closed.clone_from(closed),
        What::EdgesOffline(edges) => draft.head.edges_offline.clone_from(edges),
        What::Tick => overdue::tick(draft),
    }
    true
}

fn start(draft: &mut Draft) {
    if let Deadline::After(after) = draft.spec().strategy.deadline {
        draft.wake_at(draft.spec().started.after(after));
    }
    if draft.spec().strategy.rehearse_rollback {
        draft.head.rehearsal = Rehearsal::Due;
    }
    for name in draft.names(|node| node.phase == Phase::Waiting) {
        prepare(draft, &name);
    }
}

/// Asks a waiting node to fetch the release, or applies the policy for nodes that are offline.
fn prepare(draft: &mut Draft, name: &NodeName) {
    let Some(mut node) = draft.node(name).cloned() else { return };
    if draft.spec().kind == Kind::Run && node.observed.online {
        node.attempt = node.attempt.next();
        node.phase = Phase::Ready; // what it needs is there: it runs the app
    } else if node.observed.drained {
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
        Offline::Skip if draft.spec().kind == Kind::Run => {
            draft.note_on(name, "skipped: offline");
            Phase::Skipped { why: Skip::Offline }
        }
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

/// Where an update of this direction ends; `None`: there is nothing to go back to.
fn destination(to: &Release, node: &Node, direction: Direction) -> Option<Release> {
    match direction {
        Direction::Forward => Some(to.clone()),
        Direction::Back => node.previous.clone(),
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
            | Order::Run { .. }
            | Order::Once { .. }
            | Order::Settle { .. } => None,
        })
        .min()
}
