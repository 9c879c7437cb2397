//! The steps of an update, stop-first and start-first, and what each result means.

use serde::{Deserialize, Serialize};

use super::restore::Mend;
use super::task::Task::{
    self, AfterJoin, BeforeDrain, Drain, Fetch, Health, Join, Monitor, Smoke, Start, Stop, Swap,
};
use super::task::job_of;
use super::{
    Did, Instance, Machine, Measured, Said, Settled, Side, Step, UpdateOrder, Watch, Work,
};
use crate::spec::Spec;

/// The label of a second instance beside the first.
const SECOND: &str = "b";

/// One update under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What was asked.
    pub order: UpdateOrder,
    /// What was there before; `None`: nothing.
    pub old: Option<Spec>,
    /// Where it belonged. What a failed update left out is never put into traffic again, only ended.
    pub side: Side,
    /// Which member of the pool it was: what starts alone takes its place.
    #[serde(default)]
    pub label: String,
    /// The proven release that a restore puts back; `None`: there is none.
    pub back: Option<Spec>,
    /// What is true of both instances now.
    pub facts: Facts,
    /// Where it is.
    pub phase: Phase,
    /// The number of the action under way.
    pub action: u64,
    /// When the drain began.
    pub left_traffic_at: Option<u64>,
    /// What was measured so far.
    pub measured: Measured,
    /// An operator kept the old release out when it would have rejoined.
    #[serde(default)]
    pub kept_out: bool,
}

/// What is true of the two instances and of the link; every result changes just this.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The old process, while it runs.
    pub old: Option<Instance>,
    /// Is it in traffic, as far as we asked for it?
    pub old_in: bool,
    /// The new process, while it runs.
    pub new: Option<Instance>,
    /// Is it in traffic, as far as we asked for it?
    pub new_in: bool,
    /// May `current` point to the new release?
    pub swapped: bool,
    /// Was anything done to the app at all?
    pub touched: bool,
}

/// Where an update is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// On its way.
    Forward(Task),
    /// On its way back, and why.
    Back { mend: Mend, failure: Box<Failure> },
}

/// Where and why an update failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step.
    pub step: Step,
    /// One line.
    pub cause: String,
    /// The tail of what was printed.
    pub output: String,
}

impl Update {
    /// Is it in traffic and proven but for the time?
    pub(crate) fn is_monitoring(&self) -> bool {
        self.phase == Phase::Forward(Monitor)
    }

    /// Does the new instance start beside the old one? Only beside one that serves.
    pub(crate) fn is_beside(&self) -> bool {
        self.order.start_first && self.side == Side::In
    }
}

impl Machine {
    /// Begins an update from what runs now.
    pub(crate) fn begin(&mut self, order: UpdateOrder) {
        let current = self.app.current.take();
        let label = current.as_ref().map_or("", Settled::member).to_owned();
        let (old, instance, side) = match current {
            Some(settled) => (Some(settled.spec), settled.instance, settled.side),
            None => (None, None, Side::In),
        };
        let back = if side == Side::In { old.clone() } else { self.app.previous.clone() };
        let at_rest = self.app.work == Work::Idle; // else it is not where it belongs yet
        let old_in = instance.is_some() && side == Side::In && !self.app.drained && at_rest;
        let facts = Facts { old_in, old: instance, ..Facts::default() };
        // What an earlier failure left out of traffic is out from the first step on.
        let out_already = old.is_some() && !old_in && !self.app.drained;
        self.app.watching = None;
        self.notes
            .push(format!("update to {} begins, attempt {}", order.spec.version, order.attempt));
        self.app.work = Work::Update(Box::new(Update {
            order,
            old,
            side,
            label,
            back,
            facts,
            phase: Phase::Forward(Fetch),
            action: 0,
            left_traffic_at: out_already.then_some(self.at),
            measured: Measured::default(),
            kept_out: false,
        }));
        self.enter(Fetch);
    }

    /// Enters a step forward: says so, and gives out its job.
    fn enter(&mut self, task: Task) {
        let at = self.at;
        let counter = self.app.counter;
        let Work::Update(update) = &mut self.app.work else { return };
        let before = match &update.phase {
            Phase::Forward(before) if *before != task => Some(before.step()),
            Phase::Forward(_) | Phase::Back { .. } => None,
        };
        update.phase = Phase::Forward(task);
        if task == Drain {
            update.facts.old_in = false;
            update.facts.touched = true;
            if !update.is_beside() {
                update.left_traffic_at.get_or_insert(at);
            }
        }
        if task == Swap {
            update.facts.swapped = true;
            update.facts.touched = true;
        }
        if task == Join {
            update.facts.new_in = true;
        }
        if task == Start {
            update.facts.touched = true;
            if update.facts.new.is_none() {
                let label = new_label(update);
                update.facts.new = Some(Instance { label, token: counter + 1, port: 0 });
            }
        }
        let Some(job) = job_of(update, task) else { return };
        let (rollout, attempt) = (update.order.rollout.clone(), update.order.attempt);
        if before != Some(task.step()) {
            self.say(&rollout, attempt, Said::Began { step: task.step(), in_flight: 0 });
        }
        let number = self.job(job);
        if let Work::Update(update) = &mut self.app.work {
            update.action = number;
        }
    }

    /// What the result of the action under way means.
    pub(crate) fn update_did(&mut self, result: Did) {
        let Work::Update(update) = &self.app.work else { return };
        match &update.phase {
            Phase::Forward(task) => {
                let task = *task;
                match result {
                    Did::Failed { cause, output } => {
                        self.fail(Failure { step: task.step(), cause, output });
                    }
                    Did::Ok | Did::Drained { .. } | Did::Stopped { .. } | Did::Started { .. } => {
                        self.note_result(task, &result);
                        self.go_on(task);
                    }
                }
            }
            Phase::Back { mend, .. } => {
                let mend = *mend;
                self.mend_did(mend, result);
            }
        }
    }

    /// Takes the facts of a result over.
    fn note_result(&mut self, task: Task, result: &Did) {
        let at = self.at;
        let Work::Update(update) = &mut self.app.work else { return };
        match result {
            Did::Drained { in_flight_at_start, cut } => {
                update.measured.in_flight_at_drain = *in_flight_at_start;
                update.measured.cut += cut;
            }
            Did::Stopped { killed } => {
                update.measured.killed |= killed;
                update.facts.old = None;
            }
            Did::Started { port } => {
                if let Some(new) = &mut update.facts.new {
                    new.port = *port;
                }
            }
            Did::Ok | Did::Failed { .. } => {}
        }
        if task == Join
            && let Some(left) = update.left_traffic_at.take()
        {
            update.measured.out_of_traffic_ms += at.saturating_sub(left);
        }
    }

    /// The step is done: the next one, or the end.
    fn go_on(&mut self, task: Task) {
        let Work::Update(update) = &self.app.work else { return };
        let Some(next) = update.after(task) else { return self.done() };
        if next == Monitor || next == AfterJoin {
            let (rollout, attempt) = (update.order.rollout.clone(), update.order.attempt);
            let said = Said::Joined(update.measured);
            if task != AfterJoin {
                self.say(&rollout, attempt, said);
            }
        }
        self.enter(next);
    }

    /// The monitor time is over: the release is proven.
    fn done(&mut self) {
        let Work::Update(update) = &self.app.work else { return };
        let (rollout, attempt) = (update.order.rollout.clone(), update.order.attempt);
        let measured = update.measured;
        self.settle_on_new();
        if !rollout.is_empty() {
            self.app.watching = Some(Watch { rollout: rollout.clone(), attempt });
        }
        self.say(&rollout, attempt, Said::Done(measured));
        self.next_in_queue();
    }

    /// The new instance is the current one; the old release becomes the previous one.
    pub(crate) fn settle_on_new(&mut self) {
        let Work::Update(update) = std::mem::take(&mut self.app.work) else { return };
        if let Some(old) = update.back.filter(|old| !old.is_release_of(&update.order.spec)) {
            self.app.previous = Some(old);
        }
        self.app.current = Some(Settled::new(update.order.spec, update.facts.new, Side::In));
    }

    /// A process ended during an update.
    pub(crate) fn update_exited(&mut self, token: u64, how: String, output: String) {
        let Work::Update(update) = &mut self.app.work else { return };
        let is = |side: &Option<Instance>| side.as_ref().is_some_and(|i| i.token == token);
        if is(&update.facts.old) {
            if let Phase::Back { mend: Mend::OldHealth | Mend::OldJoin, .. } = update.phase {
                return self.mend_failed(format!("the previous release {how}"));
            }
            // What is being started again has ended before that: the start brings another one.
            if let Phase::Back { mend: Mend::OldStart, .. } = update.phase {
                return;
            }
            // A drain or a stop under way ends by itself; everything later does without it.
            if !matches!(update.phase, Phase::Forward(Drain | Stop)) {
                update.facts.old = None;
                update.facts.old_in = false;
            }
            return self.old_exited();
        }
        if !is(&update.facts.new) {
            return;
        }
        let Phase::Forward(task) = update.phase else { return };
        if matches!(task, Health | Smoke | Join | AfterJoin | Monitor | BeforeDrain | Drain) {
            update.facts.new = None;
            self.fail(Failure { step: task.step(), cause: format!("the app {how}"), output });
        }
    }

    /// After a crash of the agent: asks for the step under way once more.
    pub(crate) fn resume_forward(&mut self, task: Task) {
        let Work::Update(update) = &mut self.app.work else { return };
        if !update.applies(task) {
            return self.go_on(task); // the old process ended while the agent was away
        }
        let Some(job) = job_of(update, task) else { return };
        let number = self.job(job);
        if let Work::Update(update) = &mut self.app.work {
            update.action = number;
        }
    }
}

/// The instance beside the old one has the other label; alone, it takes over the old one's, which has ended by then.
fn new_label(update: &Update) -> String {
    match (update.is_beside() && update.facts.old.is_some(), update.label.as_str()) {
        (true, SECOND) => String::new(),
        (true, _) => SECOND.to_owned(),
        (false, same) => same.to_owned(),
    }
}

/// Which side each instance is on, for edges that forgot.
pub(crate) fn sides(facts: &Facts) -> impl Iterator<Item = (Instance, Side)> {
    let side = |is_in| if is_in { Side::In } else { Side::Out };
    let old = facts.old.clone().map(|instance| (instance, side(facts.old_in)));
    let new = facts.new.clone().map(|instance| (instance, side(facts.new_in)));
    old.into_iter().chain(new)
}
