//! What one node does with one app: (app, event) -> (app, actions, notes). Pure: no I/O, no clock, no chance.
//!
//! The shell (`run.rs`) writes the app's state into the journal before it carries out the actions, and feeds what
//! came of them back as events. After a crash it loads the state and says [`What::Booted`]: whatever was under way is
//! asked for again, and every action is harmless when it is repeated.
//!
//! - `state`: what is remembered; `event`, `action`, `said`: what goes in and what comes out.
//! - `task`: the steps of an update, in both orders; `forward`: what each of their results means.
//! - `restore`: putting the previous release back.
//! - `rest`: what happens between updates: adopt, revive, stay drained.
//! - `stray`: what a restore could not get rid of.

mod action;
mod event;
mod forward;
mod rest;
mod restore;
mod said;
mod state;
mod stray;
mod task;
#[cfg(test)]
mod tests;

pub use action::{Action, HookSet, Job};
pub use event::{Did, Event, What};
pub use forward::{Facts, Failure, Phase, Update};
pub use rest::{Deaths, Revive, RevivePhase};
pub use restore::Mend;
pub use said::{Failed, Left, Measured, Said, Step};
pub use state::{App, Direction, Fence, Instance, Ready, Settled, Side, UpdateOrder, Watch, Work};
pub use stray::{Clearing, ClearingPhase, Stray};
pub use task::Task;

/// How many rollouts' fences are remembered. A rollout older than these is taken for a new one.
const FENCES_KEPT: usize = 4;

/// What an event comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The app's new state: in the journal before any action.
    pub app: App,
    /// What to do.
    pub actions: Vec<Action>,
    /// What to write down.
    pub notes: Vec<String>,
}

/// The machine while it makes one step.
pub(crate) struct Machine {
    pub app: App,
    pub at: u64,
    pub actions: Vec<Action>,
    pub notes: Vec<String>,
}

/// What an event means for an app.
pub fn on(app: &App, event: Event) -> Outcome {
    let mut machine =
        Machine { app: app.clone(), at: event.at, actions: Vec::new(), notes: Vec::new() };
    match event.what {
        What::Ordered(order) => machine.ordered(order),
        What::Heard { rollout, term } => machine.heard(rollout, term),
        What::Settle { rollout, term } => machine.settle(&rollout, term),
        What::Did { action, result } => machine.did(action, result),
        What::Draining { in_flight } => machine.draining(in_flight),
        What::Exited { token, how, output } => machine.exited(token, how, output),
        What::Booted { alive } => machine.booted(&alive),
        What::Standing { drained } => machine.standing(drained),
        What::AskedBack => machine.asked_back(),
    }
    Outcome { app: machine.app, actions: machine.actions, notes: machine.notes }
}

impl Machine {
    /// The term says whom to believe, the attempt says what is new.
    fn ordered(&mut self, order: UpdateOrder) {
        let fence = self.app.fences.entry(order.rollout.clone()).or_insert(Fence {
            term: order.term,
            attempt: 0,
            last: None,
        });
        if order.term < fence.term {
            let said = Said::Stale { newest_term: fence.term };
            let (rollout, attempt) = (order.rollout, order.attempt);
            self.actions.push(Action::Say { rollout, attempt, said });
            return;
        }
        fence.term = order.term;
        match order.attempt.cmp(&fence.attempt) {
            std::cmp::Ordering::Less => {
                self.notes.push(format!("ignored attempt {}: a newer one came", order.attempt));
            }
            std::cmp::Ordering::Equal => self.progress(&order),
            std::cmp::Ordering::Greater => {
                fence.attempt = order.attempt;
                fence.last = None;
                self.accept(order);
            }
        }
        self.forget_old_fences();
    }

    /// From now on older owners are refused, whatever they order.
    fn heard(&mut self, rollout: String, term: u64) {
        let fence = Fence { term, attempt: 0, last: None };
        let fence = self.app.fences.entry(rollout).or_insert(fence);
        fence.term = fence.term.max(term);
        self.forget_old_fences();
    }

    /// A repeated order: say again how far it is.
    fn progress(&mut self, order: &UpdateOrder) {
        let said = self.app.fences.get(&order.rollout).and_then(|fence| fence.last.clone());
        if let Some(said) = said {
            let (rollout, attempt) = (order.rollout.clone(), order.attempt);
            self.actions.push(Action::Say { rollout, attempt, said });
        }
    }

    /// A new order begins now, or as soon as what is under way has come to its end.
    fn accept(&mut self, order: UpdateOrder) {
        match &self.app.work {
            _ if self.app.stray.is_some() => self.begin_when_clear(order),
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => self.begin(order),
            Work::Update(update) if update.is_monitoring() => {
                self.notes.push("the monitor time ends early: a newer order came".to_owned());
                self.settle_on_new();
                self.begin(order);
            }
            Work::Update(_) => self.app.queued = Some(order),
        }
    }

    fn settle(&mut self, rollout: &str, term: u64) {
        if let Some(fence) = self.app.fences.get_mut(rollout) {
            if term < fence.term {
                return;
            }
            fence.term = term;
        }
        if self.app.watching.as_ref().is_some_and(|watch| watch.rollout == rollout) {
            self.app.watching = None;
        }
        self.actions.push(Action::Prune);
    }

    /// Rollouts of one app are numbered: the oldest fences go first.
    fn forget_old_fences(&mut self) {
        let number = |name: &str| {
            name.rsplit('/').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        while self.app.fences.len() > FENCES_KEPT {
            let oldest = self.app.fences.keys().min_by_key(|name| number(name)).cloned();
            let Some(oldest) = oldest else { return };
            self.app.fences.remove(&oldest);
        }
    }

    /// Says something about an attempt, and remembers it for when it is asked again.
    pub(crate) fn say(&mut self, rollout: &str, attempt: u32, mut said: Said) {
        if rollout.is_empty() {
            return; // asked for on this node: nobody else waits for it
        }
        match &mut said {
            Said::Joined(measured) | Said::Done(measured) => measured.kept_out = self.app.drained,
            Said::Failed(failed) => failed.measured.kept_out |= self.app.drained,
            Said::Prepared | Said::Began { .. } | Said::Broken { .. } | Said::Stale { .. } => {}
        }
        if let Some(fence) = self.app.fences.get_mut(rollout)
            && fence.attempt == attempt
        {
            fence.last = Some(said.clone());
        }
        self.actions.push(Action::Say { rollout: rollout.to_owned(), attempt, said });
    }

    /// Gives out a job under a new number.
    pub(crate) fn job(&mut self, task: Job) -> u64 {
        self.app.counter += 1;
        self.actions.push(Action::Do { number: self.app.counter, task });
        self.app.counter
    }

    fn did(&mut self, action: u64, result: Did) {
        match &self.app.work {
            Work::Update(update) if update.action == action => self.update_did(result),
            Work::Revive(revive) if revive.action() == action => self.revive_did(result),
            Work::Move(side) if self.app.counter == action => self.moved(*side, result),
            Work::Clear(clearing) if clearing.action == action => {
                self.clear_did(clearing.phase, result);
            }
            Work::Idle | Work::Update(_) | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => {}
        }
    }

    fn exited(&mut self, token: u64, how: String, output: String) {
        match &self.app.work {
            Work::Update(_) => self.update_exited(token, how, output),
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => {
                self.rest_exited(token, how, output);
            }
        }
    }

    fn draining(&mut self, in_flight: u64) {
        let Work::Update(update) = &self.app.work else { return };
        if update.phase == Phase::Forward(Task::Drain) {
            let (rollout, attempt) = (update.order.rollout.clone(), update.order.attempt);
            self.say(&rollout, attempt, Said::Began { step: Step::Drain, in_flight });
        }
    }
}
