//! What must hold after every step, as far as one rollout's own state can show it (design, section 8).

use crate::names::NodeName;
use crate::node::{Node, Phase, Serving};
use crate::rehearsal::Rehearsal;
use crate::rollout::{Kind, Outcome, Rollout, Stage};
use crate::strategy::StartOrder;

/// Everything that is wrong with this state; empty in a program without mistakes.
pub fn violations(rollout: &Rollout) -> Vec<String> {
    let mut wrong = Vec::new();
    let spec = &rollout.spec;
    let updating = rollout.nodes().values().filter(|n| matches!(n.phase, Phase::Updating { .. }));
    let taken_out = rollout.nodes().values().filter(|node| node.phase.takes_out()).count();
    let most = (1..=spec.batches.len().max(1))
        .map(|batch| spec.strategy.unavailable_limit(batch, spec.targets))
        .max()
        .unwrap_or(0);
    if taken_out > most {
        wrong.push(format!("{taken_out} targets are out of traffic by our doing, limit {most}"));
    }
    let widest = (1..=spec.batches.len().max(1))
        .map(|batch| spec.strategy.batch_size(batch, spec.targets))
        .max()
        .unwrap_or(0);
    let running = rollout.tally().running;
    if running > widest {
        wrong.push(format!("{running} nodes are under way at once, the largest batch is {widest}"));
    }
    if rollout.is_ended() && updating.count() > 0 {
        wrong.push("it ended while nodes are being updated".to_owned());
    }
    if let Stage::Preparing | Stage::Once(_) = rollout.head.stage
        && rollout.nodes().values().any(|node| node.phase.is_running())
    {
        wrong.push("a node is updated before all are prepared".to_owned());
    }
    if spec.strategy.order == StartOrder::StartFirst && taken_out > 0 {
        wrong.push("start-first took a node out of traffic".to_owned());
    }
    if spec.kind == Kind::Run && taken_out > 0 {
        wrong.push("a command takes a node out of traffic".to_owned());
    }
    let counted = Rollout::new(spec.clone(), rollout.head.clone(), rollout.nodes().clone());
    if counted.tally() != rollout.tally() {
        wrong.push(format!("the tally is {:?}, counted {:?}", rollout.tally(), counted.tally()));
    }
    if counted.open() != rollout.open() {
        wrong.push(format!("open are {:?}, counted {:?}", rollout.open(), counted.open()));
    }
    if rollout.head.rehearsal == Rehearsal::Due {
        let early = |node: &Node| node.batch > rollout.head.batch && node.phase.is_running();
        if rollout.nodes().values().any(early) {
            wrong.push("a later batch began before the way back was rehearsed".to_owned());
        }
    }
    wrong.extend(twice_in_turn(rollout));
    for (name, node) in rollout.nodes() {
        if rollout.is_ended() && node.out_since.is_some() {
            wrong.push(format!("it ended and still measures how long {name} is out of traffic"));
        }
        if node.phase == Phase::Done
            && spec.kind != Kind::Run
            && !is_given_up(&rollout.head.stage)
            && node.runs.as_ref() != Some(&spec.to)
            && node.observed.online
            && node.observed.serving == Serving::In
        {
            wrong.push(format!("{name} is done but does not run {}", spec.to));
        }
    }
    wrong
}

/// Nodes that are in the batch in turn by the plan and by coming late.
fn twice_in_turn(rollout: &Rollout) -> Vec<String> {
    let (batch, late) = (rollout.head.batch, &rollout.head.late);
    let planned = rollout.spec.batches.get(batch - 1);
    let twice = |(index, name): &(usize, &NodeName)| {
        let in_turn = rollout.nodes().get(*name).is_some_and(|node| node.batch == batch);
        let by_plan = planned.is_some_and(|nodes| nodes.contains(name));
        in_turn && (by_plan || late[..*index].contains(name))
    };
    let found = late.iter().enumerate().filter(twice);
    found.map(|(_, name)| format!("{name} is in batch {batch} twice")).collect()
}

/// Does a newer rollout perhaps move its nodes already?
fn is_given_up(stage: &Stage) -> bool {
    matches!(stage, Stage::Aborting | Stage::Ended { outcome: Outcome::Aborted, .. })
}
