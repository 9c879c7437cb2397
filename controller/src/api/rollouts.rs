//! Rollouts as people and programs see them.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::names::{NodeName, RolloutId, Timestamp};
use rota_rollout::node::{Cause, Left, Node, Phase, Skip, StepName};
use rota_rollout::rollout::{Kind, Outcome, Stage};
use rota_rollout::{Hold, Rollout};

use super::traces;
use crate::access::{now, rfc3339};
use crate::calendar::ahead;
use crate::engine::records::{CommandRecord, EvidenceRecord, SpecRecord, keys};
use crate::engine::windows::instant;
use crate::engine::{Active, Ended, State, pace};
use crate::store::{Record, Store, StoreError};
use crate::view::{
    BatchView, Evidence, HistoryEntry, HoldView, NodeProgress, RolloutView, evidence_line,
};

/// A rollout that runs here.
pub fn of_active(state: &State, active: &Active) -> RolloutView {
    let mut view = view(&active.rollout, &active.record, &active.evidence);
    view.controller = state.owner(&active.owner).to_owned();
    view.term = active.term;
    let in_flight = in_flight(state, active);
    for progress in &mut view.nodes {
        progress.in_flight = in_flight.get(progress.name.as_str()).copied().unwrap_or(0);
    }
    view.eta_ms = eta(state, active);
    if active.rollout.is_ended() {
        not_yet_over(&mut view, &active.rollout);
    }
    if let Some(why) = &state.store_down
        && view.finished_at.is_none()
    {
        view.state = "held".to_owned();
        view.hold = Some(HoldView {
            kind: "store".to_owned(),
            text: format!("this controller decides nothing: {why}"),
            hint: "it goes on by itself when that is over".to_owned(),
            nodes: Vec::new(),
            since: view.started_at.clone(),
        });
    }
    view
}

/// Nothing moves any more, but its edges have not said their last word: it is over when its evidence is whole.
fn not_yet_over(view: &mut RolloutView, rollout: &Rollout) {
    let back = matches!(rollout.head.stage, Stage::Ended { outcome: Outcome::RolledBack, .. });
    view.state = if back { "rolling_back" } else { "rolling" }.to_owned();
    (view.finished_at, view.duration_ms) = (None, None);
    (view.evidence.duration_ms, view.evidence.text) = (None, None);
}

/// A rollout whose evidence is whole.
pub fn closed(controller: &str, active: &Active) -> RolloutView {
    let view = view(&active.rollout, &active.record, &active.evidence);
    RolloutView { controller: controller.to_owned(), term: active.term, ..view }
}

/// The same in a list of many: without its nodes, of which there may be thousands.
pub fn summed_up(view: RolloutView) -> RolloutView {
    RolloutView { nodes: Vec::new(), batches: Vec::new(), ..view }
}

/// A rollout that is over, as lists show it. `None`: it runs, or an older controller ended it.
pub async fn summary(store: &dyn Store, id: &RolloutId) -> Result<Option<RolloutView>, StoreError> {
    let entry = store.get(&keys::summary(id)).await?;
    // One that another version wrote in another way is made anew from the rollout itself.
    Ok(entry.and_then(|entry| RolloutView::decode(&entry).ok()))
}

/// A rollout that is over.
pub fn of_ended(ended: &Ended) -> RolloutView {
    let mut view = view(&ended.rollout, &ended.record, &ended.evidence);
    view.controller.clone_from(&ended.owner.controller);
    view.term = ended.owner.term;
    view
}

/// How much longer it takes to go forward, as earlier rollouts here went.
fn eta(state: &State, active: &Active) -> Option<u64> {
    let rollout = &active.rollout;
    let spec = &rollout.spec;
    let fleet = state.fleets.get(&(spec.id.app.clone(), spec.id.env.clone()))?;
    let moving = matches!(rollout.head.stage, Stage::Rolling) && rollout.head.held.is_none();
    if fleet.paces.is_empty() || !moving {
        return None;
    }
    let open: Vec<usize> =
        (1..=spec.batches.len()).map(|batch| rollout.open().of(batch).unsettled).collect();
    Some(pace::rolling(&spec.strategy, spec.targets, &open, &fleet.paces).0)
}

/// What the edges say that each node still has in flight.
fn in_flight<'a>(state: &'a State, active: &Active) -> BTreeMap<&'a str, u64> {
    let mut counts = BTreeMap::new();
    let Some(pool) = &active.record.pool else { return counts };
    let env = active.rollout.spec.id.env.as_str();
    let edges = state.edges().filter(|(_, edge)| edge.record.env == env);
    let pools = edges.flat_map(|(_, edge)| &edge.pools).filter(|there| there.pool == *pool);
    for member in pools.flat_map(|there| &there.members) {
        *counts.entry(member.node.as_str()).or_default() += member.in_flight;
    }
    counts
}

fn view(rollout: &Rollout, record: &SpecRecord, evidence: &EvidenceRecord) -> RolloutView {
    let spec = &rollout.spec;
    let nodes: Vec<NodeProgress> =
        rollout.nodes().iter().map(|(name, node)| progress(rollout, name, node)).collect();
    let duration = ended(rollout).map(|at| at.since(spec.started).0);
    let mut view = RolloutView {
        id: spec.id.to_string(),
        app: spec.id.app.to_string(),
        env: spec.id.env.to_string(),
        revision: spec.id.revision.0,
        kind: kind(spec.kind).to_owned(),
        command: record.command.as_ref().map(CommandRecord::line),
        from: spec.from.as_ref().map(|from| from.version.to_string()),
        to: spec.to.version.to_string(),
        strategy: traces::strategy(&spec.strategy),
        message: spec.message.clone(),
        who: spec.who.clone(),
        state: rollout.state().to_owned(),
        hold: hold(rollout),
        paused: rollout.head.paused.clone(),
        rehearsal: rota_rollout::rehearsal::word(rollout).map(str::to_owned),
        break_glass: rollout.head.break_glass.clone(),
        on_release: 0,
        controller: String::new(),
        term: 0,
        batches: batches(rollout),
        evidence: Evidence {
            least_in_traffic: rollout.head.least_in_traffic,
            targets: rollout.nodes().len(), // those that joined it included
            cut: nodes.iter().map(|node| node.cut).sum(),
            failed_requests: evidence.failed,
            // One that was under way before the rollout and failed in it is one of its own.
            requests: evidence.requests.max(evidence.failed),
            unheard_edges: evidence.unheard.iter().map(ToString::to_string).collect(),
            unasked_edges: evidence.not_asked.iter().cloned().collect(),
            duration_ms: duration,
            longest_out_of_traffic_ms: nodes.iter().map(|n| n.out_of_traffic_ms).max().unwrap_or(0),
            text: None,
        },
        nodes,
        eta_ms: None,
        started_at: rfc3339(spec.started),
        finished_at: finished(rollout),
        duration_ms: duration,
    };
    view.on_release = view.count_on_release();
    view.evidence.text = duration.map(|_| evidence_line(&view, spec.started));
    view
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Deploy => "deploy",
        Kind::Undo => "undo",
        Kind::Restart => "restart",
        Kind::Run => "run",
    }
}

fn finished(rollout: &Rollout) -> Option<String> {
    ended(rollout).map(rfc3339)
}

/// When it ended.
fn ended(rollout: &Rollout) -> Option<Timestamp> {
    match rollout.head.stage {
        Stage::Ended { at, .. } => Some(at),
        Stage::Preparing
        | Stage::Once(_)
        | Stage::Rolling
        | Stage::Rehearsing
        | Stage::RollingBack { .. }
        | Stage::Aborting => None,
    }
}

fn hold(rollout: &Rollout) -> Option<HoldView> {
    let held = rollout.head.held.as_ref()?;
    Some(HoldView {
        kind: held.hold.kind().to_owned(),
        text: match &held.hold {
            Hold::Closed(closed) => {
                format!("{} ({})", closed.text, ahead(instant(now()), instant(closed.opens)))
            }
            hold => hold.to_string(),
        },
        hint: held.hold.hint(&rollout.spec),
        nodes: held.hold.nodes().iter().map(NodeName::to_string).collect(),
        since: rfc3339(held.since),
    })
}

/// As planned, and with those that came along later.
fn batches(rollout: &Rollout) -> Vec<BatchView> {
    let planned: BTreeSet<&NodeName> = rollout.spec.batches.iter().flatten().collect();
    let mut joined: BTreeMap<usize, Vec<&NodeName>> = BTreeMap::new();
    for (name, node) in rollout.nodes() {
        let left_alone = matches!(node.phase, Phase::Skipped { .. });
        if !left_alone && !planned.contains(name) {
            joined.entry(node.batch).or_default().push(name);
        }
    }
    let view = |(index, names): (usize, &Vec<NodeName>)| {
        let names = names.iter().chain(joined.get(&(index + 1)).into_iter().flatten().copied());
        let names: Vec<&NodeName> = names.collect();
        let nodes: Vec<&Node> = names.iter().filter_map(|n| rollout.nodes().get(*n)).collect();
        let any = |test: fn(&Phase) -> bool| nodes.iter().any(|node| test(&node.phase));
        let rehearsed = index + 1 == rollout.head.batch
            && matches!(rota_rollout::rehearsal::word(rollout), Some("back" | "again"));
        let state = if any(Phase::is_running) || rehearsed {
            "running"
        } else if any(|phase| matches!(phase, Phase::Failed { .. })) {
            "failed"
        } else if nodes.iter().all(|node| node.phase.is_settled()) {
            "done"
        } else if any(Phase::is_settled) {
            "running"
        } else {
            "pending"
        };
        let nodes = names.iter().map(ToString::to_string).collect();
        BatchView { index: index + 1, nodes, state: state.to_owned() }
    };
    rollout.spec.batches.iter().enumerate().map(view).collect()
}

fn progress(rollout: &Rollout, name: &NodeName, node: &Node) -> NodeProgress {
    let (state, step) = (state_of(&node.phase), step_of(&node.phase));
    let (mut error, mut output, mut left) = (None, None, None);
    match &node.phase {
        Phase::Failed { cause, left: as_what } => {
            left = Some(left_as(*as_what).to_owned());
            error = Some(in_words(cause));
            output = Some(cause.output.clone()).filter(|output| !output.is_empty());
        }
        Phase::Skipped { why: Skip::Offline } if rollout.spec.kind == Kind::Run => {
            error = Some("offline".to_owned());
        }
        Phase::Skipped { why } => error = Some(why.to_string()),
        Phase::RolledBack => {
            if let Some(cause) = &node.broke {
                error = Some(in_words(cause));
                output = Some(cause.output.clone()).filter(|output| !output.is_empty());
            }
        }
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Updating { .. }
        | Phase::Monitoring { .. }
        | Phase::Done => {}
    }
    if let Some(failed) = rollout.head.once_failed.as_ref().filter(|failed| failed.node == *name) {
        error = Some(format!("the once-per-release job failed: {}", failed.text));
        output = Some(failed.output.clone()).filter(|output| !output.is_empty());
    }
    NodeProgress {
        name: name.to_string(),
        state: state.to_owned(),
        step: step.filter(|step| *step != StepName::Restore).map(|step| step.to_string()),
        restoring: step == Some(StepName::Restore),
        release: node.runs.as_ref().map(|release| release.version.to_string()),
        attempt: node.attempt.0,
        left,
        error,
        output,
        out_of_traffic_ms: node.measured.out_of_traffic.0,
        in_flight_at_drain: node.measured.in_flight_at_drain,
        in_flight: 0,
        cut: node.measured.cut,
    }
}

fn in_words(cause: &Cause) -> String {
    match cause.step {
        Some(StepName::Run) | None => cause.text.clone(),
        // Some causes begin with their step.
        Some(step) if cause.text.starts_with(&step.to_string()) => cause.text.clone(),
        Some(step) => format!("{step}: {}", cause.text),
    }
}

/// What a failed node was left as, in the words of the public contract.
fn left_as(left: Left) -> &'static str {
    match left {
        Left::Restored => "restored",
        Left::Out => "out",
        Left::Untouched => "untouched",
        Left::Unknown => "unknown",
    }
}

/// The state of a node, in the words of the public contract.
pub fn state_of(phase: &Phase) -> &'static str {
    match phase {
        Phase::Waiting | Phase::Ready | Phase::Preparing { .. } => "pending",
        Phase::Updating { .. } | Phase::Monitoring { .. } => "updating",
        Phase::Done => "done",
        Phase::Failed { left: Left::Restored, .. } => "restored",
        Phase::Failed { .. } => "failed",
        Phase::Skipped { .. } => "skipped",
        Phase::RolledBack => "rolled_back",
    }
}

fn step_of(phase: &Phase) -> Option<StepName> {
    match phase {
        Phase::Preparing { .. } => Some(StepName::Fetch),
        Phase::Updating { step, .. } => *step,
        Phase::Monitoring { .. } => Some(StepName::Monitor),
        Phase::Waiting
        | Phase::Ready
        | Phase::Done
        | Phase::Failed { .. }
        | Phase::Skipped { .. }
        | Phase::RolledBack => None,
    }
}

/// One line of the history.
pub fn history_entry(rollout: &Rollout, record: &SpecRecord) -> HistoryEntry {
    let spec = &rollout.spec;
    HistoryEntry {
        revision: spec.id.revision.0,
        release: spec.to.version.to_string(),
        kind: kind(spec.kind).to_owned(),
        command: record.command.as_ref().map(CommandRecord::line),
        state: rollout.state().to_owned(),
        message: spec.message.clone(),
        who: spec.who.clone(),
        break_glass: rollout.head.break_glass.clone(),
        started_at: rfc3339(spec.started),
        finished_at: finished(rollout),
    }
}
