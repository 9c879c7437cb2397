//! What an attempt of a node leaves behind for people: times, curves and outputs. Nothing is decided by it.
//!
//! Each attempt has a record of its own, written in the same commit as the phase that it explains, and read only by
//! whoever looks at the rollout. So a rollout of a thousand nodes keeps none of it in memory.

use rota_rollout::names::Attempt;
use rota_rollout::names::{NodeName, RolloutId, Span};
use rota_rollout::node::{Phase, StepName};
use serde::{Deserialize, Serialize};

use super::Turn;
use super::records::keys;
use crate::store::Record;

/// What one attempt of one node left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// The attempt.
    pub attempt: u32,
    /// It was the once-per-release job.
    #[serde(default)]
    pub once: bool,
    /// How long each step took, in order.
    #[serde(default)]
    pub steps: Vec<(StepName, Span)>,
    /// What was in flight, from the drain's begin on: milliseconds and requests.
    #[serde(default)]
    pub in_flight: Vec<(u64, u64)>,
    /// The app did not end within its `stop_timeout`.
    #[serde(default)]
    pub killed: bool,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
    /// What scripts, tests, the app or the command printed.
    #[serde(default)]
    pub printed: Vec<Printed>,
    /// A command that was run: its exit code, if it ended by itself.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// How long the command took.
    #[serde(default)]
    pub took: Option<Span>,
    /// Edges that were not reachable, so that it went on without their word.
    #[serde(default)]
    pub not_asked: Vec<String>,
}

/// What something printed: its tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Who: `command`, `once`, `smoke`, `before_drain`, ...
    pub what: String,
    /// The tail of it.
    pub output: String,
    /// How many bytes it was in all, of a command.
    #[serde(default)]
    pub bytes: u64,
}

impl Record for TraceRecord {}

impl TraceRecord {
    fn is_empty(&self) -> bool {
        *self == Self { attempt: self.attempt, once: self.once, ..Self::default() }
    }
}

impl Turn<'_> {
    /// Keeps what an attempt left behind. A repeat, which knows less, changes nothing.
    pub(super) fn trace(&mut self, id: &RolloutId, node: &NodeName, trace: &TraceRecord) {
        let Some(active) = self.state.rollouts.get(id) else { return };
        let Some(known) = active.rollout.nodes().get(node) else { return };
        let news =
            trace.once || (known.attempt == Attempt(trace.attempt) && !known.phase.is_settled());
        if trace.is_empty() || !news {
            return;
        }
        let watched = matches!(known.phase, Phase::Monitoring { .. });
        self.measure_steps(id, trace, watched);
        if trace.killed && !watched {
            let text = "the app did not end within its stop_timeout and was killed".to_owned();
            self.event_of(id, Some(node), text);
        }
        if let Some(active) = self.state.rollouts.get_mut(id)
            && trace.not_asked.iter().any(|edge| !active.evidence.not_asked.contains(edge))
        {
            active.evidence.not_asked.extend(trace.not_asked.iter().cloned());
            let key = format!("{}evidence", keys::rollout(id));
            let written = self.batch.put(key, &active.evidence);
            self.written(written);
        }
        let part = if trace.once { "once" } else { "update" };
        let key = format!("{}{node}/{:06}-{part}", keys::traces(id), trace.attempt);
        let written = self.batch.put(key, trace);
        self.written(written);
    }
}
