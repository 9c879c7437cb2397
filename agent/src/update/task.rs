//! The steps forward: in which order they come, whether there is anything to do in one, and its job.

use serde::{Deserialize, Serialize};

use super::{Direction, HookSet, Job, Step, Update};
use crate::spec::{Spec, Traffic, Via};

/// One step forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the design's section 3 has them")]
pub enum Task {
    Fetch,
    BeforeDrain,
    Drain,
    Stop,
    Swap,
    BeforeStart,
    Start,
    Health,
    Smoke,
    Join,
    AfterJoin,
    Monitor,
}

use Task::{
    AfterJoin, BeforeDrain, BeforeStart, Drain, Fetch, Health, Join, Monitor, Smoke, Start, Stop,
    Swap,
};

const STOP_FIRST: [Task; 12] = [
    Fetch,
    BeforeDrain,
    Drain,
    Stop,
    Swap,
    BeforeStart,
    Start,
    Health,
    Smoke,
    Join,
    AfterJoin,
    Monitor,
];

const START_FIRST: [Task; 12] = [
    Fetch,
    BeforeStart,
    Start,
    Health,
    Smoke,
    Join,
    BeforeDrain,
    Drain,
    Stop,
    Swap,
    AfterJoin,
    Monitor,
];

impl Task {
    /// The step under which it is reported.
    pub(crate) fn step(self) -> Step {
        match self {
            Fetch => Step::Fetch,
            BeforeDrain | Drain => Step::Drain,
            Stop => Step::Stop,
            Swap => Step::Swap,
            BeforeStart | Start => Step::Start,
            Health => Step::Health,
            Smoke => Step::Smoke,
            Join | AfterJoin => Step::Join,
            Monitor => Step::Monitor,
        }
    }
}

impl Update {
    fn path(&self) -> &'static [Task; 12] {
        if self.is_beside() { &START_FIRST } else { &STOP_FIRST }
    }

    /// Is there anything to do in this step?
    pub(super) fn applies(&self, task: Task) -> bool {
        let hooks = &self.order.spec.hooks;
        let scripts = self.order.direction == Direction::Forward;
        match task {
            BeforeDrain => scripts && !hooks.before_drain.is_empty() && self.facts.old.is_some(),
            BeforeStart => scripts && !hooks.before_start.is_empty(),
            AfterJoin => scripts && !hooks.after_join.is_empty(),
            Smoke => self.order.direction != Direction::Back && !self.order.spec.smoke.is_empty(),
            Drain | Stop => self.facts.old.is_some(),
            Fetch | Swap | Start | Health | Join | Monitor => true,
        }
    }

    /// The next step that has anything to do; `None`: it is done.
    pub(super) fn after(&self, task: Task) -> Option<Task> {
        let done = self.path().iter().position(|other| *other == task).unwrap_or(0);
        self.path()[done + 1..].iter().copied().find(|next| self.applies(*next))
    }
}

/// The job of a step.
pub(super) fn job_of(update: &Update, task: Task) -> Option<Job> {
    let spec = update.order.spec.clone();
    let old = update.old.clone().zip(update.facts.old.clone());
    let new = update.facts.new.clone();
    let hooks = |which, instance| Job::Hooks { spec: spec.clone(), which, instance };
    Some(match task {
        Fetch => Job::Fetch(spec),
        BeforeDrain => hooks(HookSet::BeforeDrain, update.facts.old.clone()),
        Drain => old.map(|(old, instance)| {
            let traffic = leaving(&old.traffic, &spec.traffic);
            Job::Drain { spec: Spec { traffic, ..old }, instance, must: false }
        })?,
        Stop => {
            old.map(|(spec, instance)| Job::Stop { spec, instance, forget: update.is_beside() })?
        }
        Swap => Job::Swap(Some(spec)),
        BeforeStart => hooks(HookSet::BeforeStart, None),
        Start => new.map(|new| Job::Start { spec, label: new.label, token: new.token })?,
        Health => new.map(|instance| Job::Health { spec, instance })?,
        Smoke => new.map(|instance| Job::Smoke { spec, instance })?,
        Join => new.map(|instance| Job::Join { spec, instance })?,
        AfterJoin => hooks(HookSet::AfterJoin, new),
        Monitor => {
            new.map(|instance| Job::Monitor { spec, instance, for_ms: update.order.monitor_ms })?
        }
    })
}

/// Who moves the old release is what its manifest says. How long to wait, for whose word, and what then, is what the
/// operator says now.
fn leaving(old: &Traffic, new: &Traffic) -> Traffic {
    let via = match (&old.via, &new.via) {
        (Via::Endpoint { .. }, Via::Endpoint { settle }) => Via::Endpoint { settle: *settle },
        (via, _) => via.clone(),
    };
    Traffic { via, ..new.clone() }
}
