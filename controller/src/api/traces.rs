//! What the attempts of a rollout's nodes left behind, read from the store when somebody looks.

use std::collections::VecDeque;

use rota_rollout::names::{NodeName, RolloutId, Span};
use rota_rollout::strategy::{Mode, OnFailure, StartOrder, Strategy};

use crate::engine::records::{EvidenceRecord, SpecRecord, keys};
use crate::engine::trace::{Printed, TraceRecord};
use crate::store::{Record, Store, StoreError, scan_all};
use crate::view::{EventView, PointView, PrintedView, StepTimeView, TraceView};

/// Events of one rollout that are listed: a rollout of a thousand nodes has some ten thousand.
const EVENTS_MAX: usize = 20_000;

/// Events that are read of the store at once.
const EVENTS_PAGE: usize = 1_000;

/// Of one node, or of all: by name, each in the order of its attempts.
pub async fn traces(
    store: &dyn Store,
    id: &RolloutId,
    node: Option<&NodeName>,
) -> Result<Vec<TraceView>, StoreError> {
    let all = keys::traces(id);
    let prefix = node.map_or_else(|| all.clone(), |node| format!("{all}{node}/"));
    let (entries, _) = scan_all(store, &prefix).await?;
    let view = |entry| -> Result<TraceView, StoreError> {
        let entry: &crate::store::Entry = entry;
        let name = entry.key[all.len()..].split('/').next().unwrap_or_default();
        Ok(of_record(name, TraceRecord::decode(entry)?))
    };
    entries.iter().map(view).collect()
}

/// How a rollout moves, in one line for people.
pub fn strategy(strategy: &Strategy) -> String {
    let sizes: Vec<String> = strategy.batch.iter().map(ToString::to_string).collect();
    let mode = match strategy.mode {
        Mode::Batches => "batches of",
        Mode::Window => "a window of",
    };
    let order = match strategy.order {
        StartOrder::StopFirst => "stop-first",
        StartOrder::StartFirst => "start-first",
    };
    let on_failure = match strategy.on_failure {
        OnFailure::Pause => "pause",
        OnFailure::Rollback => "roll back",
        OnFailure::Continue => "continue",
    };
    let mut parts = vec![format!("{mode} {}", sizes.join(", then ")), order.to_owned()];
    if let Some(most) = strategy.max_unavailable {
        parts.push(format!("at most {most} out of traffic"));
    }
    if strategy.monitor > Span::ZERO {
        parts.push(format!("watched for {}", strategy.monitor));
    }
    if strategy.delay > Span::ZERO {
        parts.push(format!("{} between batches", strategy.delay));
    }
    parts.push(format!("more than {} failures: {on_failure}", strategy.max_failures));
    if !strategy.approve_after.is_empty() {
        let after: Vec<String> = strategy.approve_after.iter().map(ToString::to_string).collect();
        parts.push(format!("approval after batch {}", after.join(", ")));
    }
    parts.join("; ")
}

/// The events of one rollout, oldest first; of very many the newest. Only the part of the log is read in which they
/// lie.
pub async fn events(store: &dyn Store, id: &RolloutId) -> Result<Vec<EventView>, StoreError> {
    let (first, last) = part_of_the_log(store, id).await?;
    let id = id.to_string();
    let mut own = VecDeque::new();
    let mut after = keys::event(first.saturating_sub(1));
    loop {
        let (page, _) = store.scan(keys::EVENTS, &after, EVENTS_PAGE).await?;
        for entry in &page {
            let event = EventView::decode(entry)?;
            if event.seq > last {
                return Ok(own.into());
            }
            if event.rollout.as_deref() == Some(id.as_str()) {
                own.push_back(event);
                if own.len() > EVENTS_MAX {
                    own.pop_front();
                }
            }
        }
        match page.last() {
            Some(entry) if page.len() == EVENTS_PAGE => after.clone_from(&entry.key),
            Some(_) | None => return Ok(own.into()),
        }
    }
}

/// From which event to which the log tells of a rollout; all of it where that was not kept, or it still runs.
async fn part_of_the_log(store: &dyn Store, id: &RolloutId) -> Result<(u64, u64), StoreError> {
    let prefix = keys::rollout(id);
    let spec = store.get(&format!("{prefix}spec")).await?;
    let first = spec.map(|entry| SpecRecord::decode(&entry)).transpose()?;
    let evidence = store.get(&format!("{prefix}evidence")).await?;
    let last = evidence.map(|entry| EvidenceRecord::decode(&entry)).transpose()?;
    let last = last.map_or(0, |evidence| evidence.last_event);
    Ok((first.map_or(0, |spec| spec.first_event), if last == 0 { u64::MAX } else { last }))
}

fn of_record(node: &str, trace: TraceRecord) -> TraceView {
    let step = |(step, took): (rota_rollout::node::StepName, rota_rollout::Span)| StepTimeView {
        step: step.to_string(),
        took_ms: took.0,
    };
    TraceView {
        node: node.to_owned(),
        attempt: trace.attempt,
        once: trace.once,
        steps: trace.steps.into_iter().map(step).collect(),
        in_flight: trace
            .in_flight
            .into_iter()
            .map(|(at_ms, in_flight)| PointView { at_ms, in_flight })
            .collect(),
        killed: trace.killed,
        error: trace.error,
        outputs: trace
            .printed
            .into_iter()
            .map(|Printed { what, output, bytes }| PrintedView { what, output, bytes })
            .collect(),
        exit_code: trace.exit_code,
        took_ms: trace.took.map(|took| took.0),
    }
}
