//! What one node does with one app: (app, event) -> (app, actions, notes). Pure: no I/O, no clock, no chance.
//!
//! The shell (`run.rs`) writes the app's state into the journal before it carries out the actions, and feeds what
//! came of them back as events. After a crash it loads the state and says [`What::Booted`]: whatever was under way is
//! asked for again, and every action is harmless when it is repeated.
//!
//! - `forward`: the steps of an update, in both orders.
//! - `restore`: putting the previous release back.
//! - `rest`: what happens between updates: adopt, revive, stay drained.

mod forward;
mod rest;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::spec::Spec;

pub use forward::{Facts, Failure, Phase, Task, Update};
pub use rest::{Deaths, Revive, RevivePhase};
pub use restore::Mend;

/// How many rollouts' fences are remembered. Orders of a rollout older than these are refused.
const FENCES_KEPT: usize = 4;

/// Everything that a node remembers of one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Whom to believe, by rollout.
    pub fences: BTreeMap<String, Fence>,
    /// What runs here when nothing is under way.
    pub current: Option<Settled>,
    /// What ran before it, proven.
    pub previous: Option<Spec>,
    /// What is under way.
    pub work: Work,
    /// The newest order that waits for what is under way.
    pub queued: Option<UpdateOrder>,
    /// The finished update whose rollout is not over yet.
    pub watching: Option<Watch>,
    /// An operator wants this node out of traffic.
    pub drained: bool,
    /// How often in a row it died.
    pub deaths: Deaths,
    /// Numbers actions and starts; never goes back.
    pub counter: u64,
}

/// The newest term and attempt accepted for a rollout, and what was last said about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The newest owner.
    pub term: u64,
    /// The newest attempt; 0 before the first update.
    pub attempt: u32,
    /// What is said again when the same attempt is ordered again.
    pub last: Option<Said>,
}

/// The release that is current, and its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// What runs.
    pub spec: Spec,
    /// Its process; `None`: it does not run.
    pub instance: Option<Instance>,
    /// Where it belongs, unless an operator drained the node. A failed node stays out.
    pub side: Side,
}

/// A process that the runtime started. The runtime finds it again by its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which of a node's members of the pool it is: empty, or `b` beside another.
    pub label: String,
    /// Names this start, and no other.
    pub token: u64,
    /// Where it listens; 0: nowhere.
    pub port: u16,
}

/// What is under way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Nothing.
    #[default]
    Idle,
    /// An update.
    Update(Box<Update>),
    /// The current release is brought back to life.
    Revive(Revive),
    /// The current instance leaves or enters traffic because an operator said so.
    Move(Side),
}

/// In or out of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// In.
    In,
    /// Out.
    Out,
}

/// Whose late crash is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The rollout.
    pub rollout: String,
    /// The attempt.
    pub attempt: u32,
}

/// An order to update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateOrder {
    /// `APP/ENV/REVISION`; empty: asked for on this node.
    pub rollout: String,
    /// The owner's term.
    pub term: u64,
    /// The n-th time.
    pub attempt: u32,
    /// What to end on.
    pub spec: Spec,
    /// Which way.
    pub direction: Direction,
    /// The new instance starts beside the old one.
    pub start_first: bool,
    /// A failed node stays out.
    pub leave_on_failure: bool,
    /// How long it is watched, in milliseconds.
    pub monitor_ms: u64,
}

/// Which way an update goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// To a new release.
    Forward,
    /// To an earlier one: no scripts are run, no smoke tests.
    Back,
    /// The same one again.
    Restart,
}

/// The names of the steps, as they are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the glossary has them")]
pub enum Step {
    Fetch,
    Drain,
    Stop,
    Swap,
    Start,
    Health,
    Smoke,
    Join,
    Monitor,
    Restore,
}

/// What the controller hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// The release is on the disk.
    Prepared,
    /// A step begins.
    Began { step: Step, in_flight: u64 },
    /// Back in traffic; the monitor time runs.
    Joined(Measured),
    /// Proven.
    Done(Measured),
    /// Not.
    Failed(Box<Failed>),
    /// It was done, and broke.
    Broken { cause: String, output: String },
    /// The order was of an owner of yesterday.
    Stale { newest_term: u64 },
}

/// How an update failed, and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Where and why.
    pub failure: Failure,
    /// What the node was left as.
    pub left: Left,
    /// Why the restore failed, when it did.
    pub restore_error: Option<String>,
    /// What was measured until then.
    pub measured: Measured,
    /// The version that runs now.
    pub release: Option<String>,
}

/// What a failed node was left as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    /// The previous release runs, healthy, in traffic.
    Restored,
    /// Out of traffic.
    Out,
    /// Nothing was done to the app.
    Untouched,
}

/// What an update measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// From the beginning of the drain until it joined.
    pub out_of_traffic_ms: u64,
    /// When the drain began.
    pub in_flight_at_drain: u64,
    /// Ended by us.
    pub cut: u64,
    /// The app did not end within its stop timeout.
    pub killed: bool,
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds by the node's monotonic clock.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time, each for a moment")]
pub enum What {
    /// An update was ordered.
    Ordered(UpdateOrder),
    /// A rollout is over: stop watching for it.
    Settle { rollout: String, term: u64 },
    /// An action ended. `action`: the number it was given; an older one's result is too late to matter.
    Did { action: u64, result: Did },
    /// How many requests the drain under way still waits for.
    Draining { in_flight: u64 },
    /// A process ended by itself.
    Exited { token: u64, how: String, output: String },
    /// The agent started. `alive`: the tokens of the processes that still run.
    Booted { alive: BTreeSet<u64> },
    /// An operator wants this node out of traffic, or no longer.
    Standing { drained: bool },
    /// Somebody on this node wants the previous release back.
    AskedBack,
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// It worked.
    Ok,
    /// The drain ended, in time or by the cut that its policy allows.
    Drained { in_flight_at_start: u64, cut: u64 },
    /// The process ended.
    Stopped { killed: bool },
    /// The process runs.
    Started { port: u16 },
    /// It did not work.
    Failed { cause: String, output: String },
}

/// What the shell must do. Each is harmless when repeated; a new numbered one ends the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time, each for a moment")]
pub enum Action {
    /// Do this and answer with its number.
    Do { number: u64, task: Job },
    /// Tell the controllers.
    Say { rollout: String, attempt: u32, said: Said },
    /// Keep this member as it is, whatever the edges remember.
    Assert { instance: Instance, side: Side },
    /// Remove what no longer serves any purpose on the disk.
    Prune,
}

/// A numbered action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Download, verify, unpack; at once when it is there.
    Fetch(Spec),
    /// Run these scripts in the release's folder.
    Hooks { spec: Spec, which: HookSet, instance: Option<Instance> },
    /// Leave traffic, confirmed. At the deadline the spec's policy decides; `must`: what is left is cut.
    Drain { spec: Spec, instance: Instance, must: bool },
    /// End the process and everything it started. `forget`: its member leaves the pool for good.
    Stop { spec: Spec, instance: Instance, forget: bool },
    /// Point `current` at this release; `None`: at nothing.
    Swap(Option<Spec>),
    /// Start a process with this token, unless it runs already.
    Start { spec: Spec, label: String, token: u64 },
    /// Wait until it is healthy.
    Health { spec: Spec, instance: Instance },
    /// Test it.
    Smoke { spec: Spec, instance: Instance },
    /// Enter traffic, confirmed.
    Join { spec: Spec, instance: Instance },
    /// Watch it for so long.
    Monitor { spec: Spec, instance: Instance, for_ms: u64 },
    /// Do nothing for so long.
    Wait { for_ms: u64 },
}

/// Which of the operator's scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the manifest has them")]
pub enum HookSet {
    BeforeDrain,
    BeforeStart,
    AfterJoin,
    OnFailure,
}

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
            Work::Idle | Work::Revive(_) | Work::Move(_) => self.begin(order),
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
    pub(crate) fn say(&mut self, rollout: &str, attempt: u32, said: Said) {
        if rollout.is_empty() {
            return; // asked for on this node: nobody else waits for it
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
            Work::Idle | Work::Update(_) | Work::Revive(_) | Work::Move(_) => {}
        }
    }

    fn exited(&mut self, token: u64, how: String, output: String) {
        match &self.app.work {
            Work::Update(_) => self.update_exited(token, how, output),
            Work::Idle | Work::Revive(_) | Work::Move(_) => self.rest_exited(token, how, output),
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
