//! A failed release beside the one that was put back, which could not leave traffic or could not be ended: it is tried
//! again until it is gone. Nothing new begins before, for its name among the pool's members is taken.

use serde::{Deserialize, Serialize};

use super::rest::BACKOFF_MS;
use super::{Did, Failed, Failure, Instance, Job, Left, Machine, Measured, Said, Step};
use super::{UpdateOrder, Work};
use crate::spec::Spec;

/// What is left of a failed update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// What runs there.
    pub spec: Spec,
    /// Its process, and its member of the pool.
    pub instance: Instance,
    /// Why it is still there.
    pub cause: String,
    /// How often it was tried in vain.
    pub tries: u32,
}

/// It is being cleared away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clearing {
    /// Where it is.
    pub phase: ClearingPhase,
    /// The number of the action under way.
    pub action: u64,
}

/// The steps of clearing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClearingPhase {
    /// Not too soon.
    Wait,
    /// Leaving traffic.
    Leave,
    /// Ending.
    Stop,
    /// `current` points to what runs.
    Swap,
}

impl Stray {
    fn told(&self) -> String {
        format!("{}, which failed, is still there: {}", self.spec.version, self.cause)
    }
}

impl Machine {
    /// Nothing else is to be done: what is left over is cleared away, if there is any.
    pub(crate) fn rest(&mut self) {
        self.app.work = Work::Idle;
        let Some(stray) = &self.app.stray else { return };
        let tries = (stray.tries as usize).min(BACKOFF_MS.len() - 1);
        self.clear(ClearingPhase::Wait, Job::Wait { for_ms: BACKOFF_MS[tries] });
    }

    fn clear(&mut self, phase: ClearingPhase, job: Job) {
        let action = self.job(job);
        self.app.work = Work::Clear(Clearing { phase, action });
    }

    /// An order may have come because what was in the way is repaired: then it is tried at once.
    pub(crate) fn begin_when_clear(&mut self, order: UpdateOrder) {
        match self.app.work {
            Work::Idle | Work::Clear(Clearing { phase: ClearingPhase::Wait, .. }) => {
                self.app.queued = Some(order);
                self.leave();
            }
            Work::Clear(_) => self.app.queued = Some(order),
            Work::Update(_) | Work::Revive(_) | Work::Move(_) => self.refuse(order),
        }
    }

    fn leave(&mut self) {
        let Some(Stray { spec, instance, .. }) = self.app.stray.clone() else { return };
        self.clear(ClearingPhase::Leave, Job::Drain { spec, instance, must: true });
    }

    /// What waited for a clear place will not get one soon.
    pub(crate) fn refuse_queued(&mut self) {
        if let Some(order) = self.app.queued.take() {
            self.refuse(order);
        }
    }

    /// Nothing was touched for this order, and the reason is on this node.
    fn refuse(&mut self, order: UpdateOrder) {
        let Some(cause) = self.app.stray.as_ref().map(Stray::told) else { return };
        self.notes.push(format!("attempt {} is refused: {cause}", order.attempt));
        let failed = Failed {
            failure: Failure { step: Step::Drain, cause, output: String::new() },
            left: Left::Untouched,
            restore_error: None,
            measured: Measured::default(),
            release: self.app.current.as_ref().map(|settled| settled.spec.version.clone()),
        };
        self.say(&order.rollout, order.attempt, Said::Failed(Box::new(failed)));
    }

    pub(crate) fn clear_did(&mut self, phase: ClearingPhase, result: Did) {
        let Some(stray) = &mut self.app.stray else { return self.next_in_queue() };
        if let Did::Failed { cause, .. } = result {
            stray.tries = stray.tries.saturating_add(1);
            stray.cause = cause;
            self.refuse_queued();
            return self.next_in_queue();
        }
        let Stray { spec, instance, .. } = stray.clone();
        match phase {
            ClearingPhase::Wait => self.leave(),
            ClearingPhase::Leave => {
                self.clear(ClearingPhase::Stop, Job::Stop { spec, instance, forget: true });
            }
            ClearingPhase::Stop => {
                let current = self.app.current.as_ref().map(|settled| settled.spec.clone());
                self.clear(ClearingPhase::Swap, Job::Swap(current));
            }
            ClearingPhase::Swap => {
                self.app.stray = None;
                let text = format!("{}, which failed, is out of traffic and ended", spec.version);
                self.actions.push(super::Action::Tell(text));
                self.next_in_queue();
            }
        }
    }
}
