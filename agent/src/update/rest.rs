//! Between updates: adopt what runs, bring back to life what died, stay out of traffic while an operator wants it so.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::forward::{Failure, Phase, sides};
use super::restore::Mend;
use super::task::Task;
use super::{Action, Did, Direction, Instance, Job, Machine, Said, Side, UpdateOrder, Work};

/// After the n-th death in a row the app waits so long (milliseconds) before it is started again: a crash loop must
/// not eat the host, and a single crash must not cost more than a blink.
pub(super) const BACKOFF_MS: [u64; 7] = [0, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// An app that lived so long (milliseconds) is not in a crash loop.
const STEADY_MS: u64 = 60_000;

/// The current release is brought back to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revive {
    /// Where it is.
    pub phase: RevivePhase,
    /// The number of the action under way.
    pub action: u64,
}

/// The steps of bringing an app back to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevivePhase {
    /// Not too soon.
    Wait,
    /// Starting.
    Start,
    /// Getting healthy.
    Health,
    /// Leaving traffic, in case that it got there, because it did not get healthy.
    Leave,
    /// Ending what did not get healthy.
    Stop,
    /// Entering traffic.
    Join,
}

/// How often in a row an app died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deaths {
    /// In a row.
    pub count: u32,
    /// When it last died.
    pub last_at: u64,
}

impl Revive {
    pub(crate) fn action(self) -> u64 {
        self.action
    }
}

impl Machine {
    /// What is queued begins; else the operator's standing wish is followed.
    pub(crate) fn next_in_queue(&mut self) {
        self.app.work = Work::Idle;
        if let Some(order) = self.app.queued.take() {
            return self.accept(order);
        }
        match &self.app.current {
            Some(settled) if settled.instance.is_none() && settled.side == Side::In => {
                self.revive();
            }
            Some(settled) if self.app.drained && settled.instance.is_some() => {
                self.move_to(Side::Out);
            }
            Some(_) | None => self.rest(),
        }
    }

    /// Where the current instance should be.
    fn wanted(&self) -> Side {
        match &self.app.current {
            Some(settled) if !self.app.drained => settled.side,
            Some(_) | None => Side::Out,
        }
    }

    /// The agent started: nothing is known of what it had under way but the journal.
    pub(crate) fn booted(&mut self, alive: &BTreeSet<u64>) {
        match std::mem::take(&mut self.app.work) {
            Work::Update(mut update) => {
                let starting = |token: u64, mine: bool| mine && !alive.contains(&token);
                let new_starts = update.phase == Phase::Forward(Task::Start);
                let old_starts = matches!(update.phase, Phase::Back { mend: Mend::OldStart, .. });
                let dead = |i: &Instance, starts: bool| {
                    !alive.contains(&i.token) && !starting(i.token, starts)
                };
                let old_died = update.facts.old.as_ref().is_some_and(|i| dead(i, old_starts));
                let new_died = update.facts.new.as_ref().is_some_and(|i| dead(i, new_starts));
                if old_died {
                    update.facts.old = None;
                    update.facts.old_in = false;
                }
                if new_died {
                    update.facts.new = None;
                    update.facts.new_in = false;
                }
                let asserts: Vec<_> = sides(&update.facts).collect();
                for (instance, side) in asserts {
                    self.actions.push(Action::Assert { instance, side });
                }
                let phase = update.phase.clone();
                self.app.work = Work::Update(update);
                self.resume(phase, new_died);
            }
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => {
                self.rest_booted(alive);
            }
        }
    }

    /// What had died is started again: a restore that a power cut interrupts has not failed.
    fn resume(&mut self, phase: Phase, new_died: bool) {
        self.notes.push(format!("resumes {phase:?}"));
        match phase {
            Phase::Forward(task) if new_died => {
                let cause = "the app ended while the agent was away".to_owned();
                let step = task.step();
                self.fail(Failure { step, cause, output: String::new() });
            }
            Phase::Forward(task) => self.resume_forward(task),
            Phase::Back { mend, failure } => self.resume_back(mend, *failure),
        }
    }

    /// Nothing was under way, or something small that is easily begun again.
    fn rest_booted(&mut self, alive: &BTreeSet<u64>) {
        if let Some(stray) = &self.app.stray {
            let instance = stray.instance.clone();
            self.actions.push(Action::Assert { instance, side: Side::Out });
            self.refuse_queued();
        }
        self.current_booted(alive);
        if self.app.work == Work::Idle {
            self.rest();
        }
    }

    fn current_booted(&mut self, alive: &BTreeSet<u64>) {
        let side = self.wanted();
        let Some(settled) = &mut self.app.current else { return };
        let lives = settled.instance.as_ref().is_some_and(|i| alive.contains(&i.token));
        match settled.instance.clone() {
            Some(instance) if lives => {
                self.actions.push(Action::Assert { instance, side });
                self.move_to(side);
            }
            Some(_) | None => {
                settled.lose_instance();
                if settled.side == Side::In {
                    let version = settled.spec.version.clone();
                    let text = format!("{version} was not running after the agent's start");
                    self.actions.push(Action::Tell(format!("{text}; it is started again")));
                    self.notes.push("the app does not run: it is started".to_owned());
                    self.revive();
                }
            }
        }
    }

    /// A process ended by itself while no update was under way.
    pub(crate) fn rest_exited(&mut self, token: u64, how: String, output: String) {
        let Some(settled) = &mut self.app.current else { return };
        if settled.instance.as_ref().is_none_or(|instance| instance.token != token) {
            return;
        }
        settled.lose_instance();
        let tend = settled.side == Side::In;
        self.notes.push(format!("the app {how}"));
        let then = if tend { "it is started again" } else { "it stays as it is" };
        let version = settled.spec.version.clone();
        self.actions.push(Action::Tell(format!("{version} {how}; {then}")));
        if let Some(watch) = self.app.watching.take() {
            let said = Said::Broken { cause: format!("the app {how}"), output };
            self.say(&watch.rollout, watch.attempt, said);
        }
        if tend {
            self.refuse_queued();
            self.revive();
        }
    }

    /// Begins to bring the current release back to life, with growing patience.
    pub(crate) fn revive(&mut self) {
        let deaths = &mut self.app.deaths;
        let in_a_row = self.at.saturating_sub(deaths.last_at) < STEADY_MS && deaths.last_at > 0;
        deaths.count = if in_a_row { deaths.count.saturating_add(1) } else { 0 };
        deaths.last_at = self.at;
        let wait = BACKOFF_MS[(deaths.count as usize).min(BACKOFF_MS.len() - 1)];
        self.revive_job(RevivePhase::Wait, Job::Wait { for_ms: wait });
    }

    /// Starts the current instance, unless it runs, and brings it back into traffic.
    pub(crate) fn restart(&mut self) {
        let Some(settled) = &self.app.current else { return };
        let Some(Instance { label, token, .. }) = settled.instance.clone() else { return };
        let job = Job::Start { spec: settled.spec.clone(), label, token };
        self.revive_job(RevivePhase::Start, job);
    }

    fn revive_job(&mut self, phase: RevivePhase, job: Job) {
        let action = self.job(job);
        self.app.work = Work::Revive(Revive { phase, action });
    }

    pub(crate) fn revive_did(&mut self, result: Did) {
        let Work::Revive(revive) = self.app.work else { return };
        let token = self.app.counter + 1;
        let drained = self.app.drained;
        let Some(settled) = &mut self.app.current else { return self.rest() };
        let spec = settled.spec.clone();
        match (revive.phase, result) {
            (RevivePhase::Wait, _) if settled.instance.is_some() => {
                self.move_to(self.wanted()); // it runs, and is not where it belongs
            }
            (RevivePhase::Wait, _) => {
                let label = settled.label.clone();
                settled.instance = Some(Instance { label, token, port: 0 });
                self.restart();
            }
            (RevivePhase::Start | RevivePhase::Join, Did::Failed { cause, .. }) => {
                self.notes.push(format!("the app could not be brought back: {cause}"));
                self.revive_again(revive.phase == RevivePhase::Start);
            }
            (RevivePhase::Start, Did::Started { port }) => {
                let Some(instance) = &mut settled.instance else { return };
                instance.port = port;
                let instance = instance.clone();
                self.revive_job(RevivePhase::Health, Job::Health { spec, instance });
            }
            (RevivePhase::Health, Did::Failed { cause, .. }) => {
                self.notes.push(format!("the app did not get healthy: {cause}"));
                let text = format!("{} did not get healthy again: {cause}", spec.version);
                self.actions.push(Action::Tell(text));
                let Some(instance) = settled.instance.clone() else { return };
                self.revive_job(RevivePhase::Leave, Job::Drain { spec, instance, must: true });
            }
            (RevivePhase::Leave, Did::Failed { cause, .. }) => {
                self.notes.push(format!("the unhealthy app could not leave traffic: {cause}"));
                self.revive_again(false);
            }
            (RevivePhase::Leave, _) => {
                let Some(instance) = settled.instance.clone() else { return };
                let job = Job::Stop { spec, instance, forget: false };
                self.revive_job(RevivePhase::Stop, job);
            }
            (RevivePhase::Stop, _) => self.revive_again(true),
            (RevivePhase::Health | RevivePhase::Join, _) if drained => self.move_to(Side::Out),
            (RevivePhase::Health, _) => {
                let Some(instance) = settled.instance.clone() else { return };
                self.revive_job(RevivePhase::Join, Job::Join { spec, instance });
            }
            (RevivePhase::Join, _) => {
                let text = format!("{} runs again, healthy and in traffic", spec.version);
                self.actions.push(Action::Tell(text));
                self.rest();
            }
            (RevivePhase::Start, _) => {}
        }
    }

    fn revive_again(&mut self, dead: bool) {
        if let Some(settled) = &mut self.app.current
            && dead
        {
            settled.lose_instance();
        }
        self.revive();
    }

    /// An operator drains this node, or no longer.
    pub(crate) fn standing(&mut self, drained: bool) {
        if self.app.drained == drained {
            return;
        }
        self.app.drained = drained;
        let side = self.wanted();
        match self.app.work {
            // Followed when that is over.
            Work::Update(_) | Work::Revive(_) => {}
            Work::Clear(_) if self.app.queued.is_some() => {}
            Work::Idle | Work::Move(_) | Work::Clear(_) => self.move_to(side),
        }
    }

    /// Moves the current instance in or out of traffic.
    pub(crate) fn move_to(&mut self, side: Side) {
        let Some(settled) = &self.app.current else { return };
        let Some(instance) = settled.instance.clone() else { return };
        let spec = settled.spec.clone();
        self.app.work = Work::Move(side);
        self.job(match side {
            Side::In => Job::Join { spec, instance },
            Side::Out => Job::Drain { spec, instance, must: true },
        });
    }

    pub(crate) fn moved(&mut self, side: Side, result: Did) {
        if let Did::Failed { cause, .. } = result {
            self.notes.push(format!("moving to {side:?} was not confirmed: {cause}"));
            return self.revive(); // looks whether it is healthy, and moves it to where it belongs
        }
        self.rest();
    }

    /// Somebody on this node wants the previous release back; no controller is needed.
    pub(crate) fn asked_back(&mut self) {
        let Some(spec) = self.app.previous.clone() else {
            self.notes.push("there is no previous release to go back to".to_owned());
            return;
        };
        if matches!(self.app.work, Work::Update(_)) || self.app.stray.is_some() {
            self.notes.push("an update is under way, or left something: not now".to_owned());
            return;
        }
        if let Some(watch) = self.app.watching.take() {
            let cause = "the previous release was asked for on the node".to_owned();
            let said = Said::Broken { cause, output: String::new() };
            self.say(&watch.rollout, watch.attempt, said);
        }
        let text = format!("back to {}: asked for on the node", spec.version);
        self.actions.push(Action::Tell(text));
        self.begin(UpdateOrder {
            rollout: String::new(),
            term: 0,
            attempt: 0,
            spec,
            direction: Direction::Back,
            start_first: false,
            leave_on_failure: false,
            monitor_ms: 0,
        });
    }
}
