//! What is measured while the engine works. Counted once the turn is durable; a restart begins anew, as counters do.

use std::time::Duration;

use rota_rollout::names::{NodeName, RolloutId, Span, Timestamp};
use rota_rollout::node::{Left, Phase, StepName};

use super::Turn;

/// One measurement.
#[derive(Debug, Clone, PartialEq)]
pub enum Measure {
    /// One commit of the store.
    Commit(Duration),
    /// A node ended a step of its update. As heard here: what a node did while no controller listened is told late.
    Step { id: RolloutId, step: StepName, took: Span },
    /// A node's update ended, in the words of a node's state.
    Update { id: RolloutId, result: &'static str },
}

/// The step that a node is in.
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
        active.clock.see(name, (was, is), self.at);
        let (old, new) = (step_of(was), step_of(is));
        if old != new {
            let since: Option<Timestamp> = match new {
                Some(_) => active.step_since.insert(name.clone(), self.at),
                None => active.step_since.remove(name),
            };
            if let (Some(step), Some(since)) = (old, since) {
                let took = self.at.since(since);
                self.batch.measures.push(Measure::Step { id: id.clone(), step, took });
            }
        }
        if let Some(result) = result_of(is).filter(|result| result_of(was) != Some(*result)) {
            self.batch.measures.push(Measure::Update { id: id.clone(), result });
        }
    }
}
