//! What is measured while the engine works. Counted once the turn is durable; a restart begins anew, as counters do.

use std::time::Duration;

use rota_rollout::names::{NodeName, RolloutId, Span};
use rota_rollout::node::{Left, Phase, StepName};

use rota_rollout::rollout::Kind;

use super::Turn;
use super::trace::TraceRecord;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// One commit of the store.
    Commit(Duration),
    /// A node ended a step of its update.
    Step { id: RolloutId, step: StepName, took: Span },
    /// A node's update ended, in the words of a node's state.
    Update { id: RolloutId, result: &'static str },
}

/// How an update ended, if this is an end of one.
fn result_of(phase: &Phase) -> Option<&'static str> {
    match phase {
        Phase::Done => Some("done"),
        Phase::Failed { left: Left::Restored, .. } => Some("restored"),
        Phase::Failed { left: Left::Out | Left::Untouched | Left::Unknown, .. } => Some("failed"),
        Phase::RolledBack => Some("rolled_back"),
        Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Updating { .. }
        | Phase::Monitoring { .. }
        | Phase::Skipped { .. } => None,
    }
}

impl Turn<'_> {
    /// A node of a rollout goes from one phase to another.
    pub(super) fn measure(&mut self, id: &RolloutId, name: &NodeName, was: &Phase, is: &Phase) {
        let Some(active) = self.state.rollouts.get_mut(id) else { return };
        if active.rollout.spec.kind == Kind::Run {
            return; // a command is no update
        }
        active.clock.see(name, (was, is), self.at);
        // Fetching ahead is no step of the update: nobody but us hears how long it takes.
        let fetching = |phase: &Phase| matches!(phase, Phase::Preparing { .. });
        match (fetching(was), fetching(is)) {
            (false, true) => drop(active.fetching_since.insert(name.clone(), self.at)),
            (true, false) => {
                if let Some(since) = active.fetching_since.remove(name) {
                    let took = self.at.since(since);
                    let step = StepName::Fetch;
                    self.batch.measures.push(Measure::Step { id: id.clone(), step, took });
                }
            }
            (true, true) | (false, false) => {}
        }
        if let Some(result) = result_of(is).filter(|result| result_of(was) != Some(*result)) {
            self.batch.measures.push(Measure::Update { id: id.clone(), result });
        }
    }

    /// How long the steps of an update took, as its node measured it. `watched`: it had joined, and said so; then only
    /// what came after counts.
    pub(super) fn measure_steps(&mut self, id: &RolloutId, trace: &TraceRecord, watched: bool) {
        let steps = trace.steps.iter().filter(|(step, _)| *step != StepName::Fetch);
        let news = steps.skip_while(|(step, _)| watched && *step != StepName::Monitor);
        let measure = |(step, took): &(StepName, Span)| Measure::Step {
            id: id.clone(),
            step: *step,
            took: *took,
        };
        self.batch.measures.extend(news.map(measure));
    }
}
