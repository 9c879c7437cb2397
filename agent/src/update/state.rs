//! What a node remembers of one app; the journal keeps it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::{Clearing, Deaths, Revive, RevivePhase, Said, Stray, Update};
use crate::spec::Spec;

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
    #[serde(serialize_with = "as_known_before")]
    pub work: Work,
    /// What the last restore could not get rid of.
    #[serde(default)]
    pub stray: Option<Stray>,
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

/// An agent of the version before reads this journal, too: to it, who clears away is idle. At its start an agent begins
/// with that anew anyway.
fn as_known_before<S: Serializer>(work: &Work, to: S) -> Result<S::Ok, S::Error> {
    match work {
        Work::Clear(_) => Work::Idle.serialize(to),
        Work::Idle | Work::Update(_) | Work::Revive(_) | Work::Move(_) => work.serialize(to),
    }
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
    /// While it does not run: which member of the pool it was, for it comes back as the same.
    #[serde(default)]
    pub label: String,
    /// Where it belongs, unless an operator drained the node. A failed node stays out.
    pub side: Side,
}

impl Settled {
    /// A release and its process.
    pub fn new(spec: Spec, instance: Option<Instance>, side: Side) -> Self {
        Self { spec, instance, label: String::new(), side }
    }

    /// Which member of the pool it is, or was while it ran.
    pub(crate) fn member(&self) -> &str {
        self.instance.as_ref().map_or(&self.label, |instance| &instance.label)
    }

    /// Its process is gone.
    pub(crate) fn lose_instance(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.label = instance.label;
        }
    }
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
    /// What a restore could not get rid of is tried again.
    Clear(Clearing),
}

/// In or out of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// In.
    In,
    /// Out.
    Out,
}

/// What who asks for an app's readiness is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// New requests may come.
    In,
    /// It leaves traffic, or is out of it.
    Out,
    /// It belongs in traffic, and nothing answers there now.
    Down,
}

impl App {
    /// May new requests come, as things stand? Where load balancers ask the node, this alone moves it.
    pub fn ready(&self) -> Ready {
        if self.serving().is_some() {
            return Ready::In;
        }
        let down = match (&self.work, &self.current) {
            (Work::Update(update), _) => update.facts.old.is_none(),
            (_, Some(settled)) => settled.side == Side::In,
            (_, None) => false,
        };
        if down && !self.drained { Ready::Down } else { Ready::Out }
    }

    /// The instance in traffic, as far as we asked for it.
    pub fn serving(&self) -> Option<&Instance> {
        let coming = match &self.work {
            Work::Update(update) => {
                let facts = &update.facts;
                let new = facts.new.as_ref().filter(|_| facts.new_in);
                return new.or(facts.old.as_ref().filter(|_| facts.old_in && !self.drained));
            }
            // To wait with a process is to try once more to be heard.
            Work::Revive(Revive { phase, .. }) => {
                !matches!(phase, RevivePhase::Wait | RevivePhase::Join)
            }
            Work::Idle | Work::Move(_) | Work::Clear(_) => false,
        };
        let settled = self.current.as_ref().filter(|it| it.side == Side::In)?;
        settled.instance.as_ref().filter(|_| !coming && !self.drained)
    }
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
