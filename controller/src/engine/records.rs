//! What the engine keeps in the store, and under which keys.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::names::{
    AppName, Digest, EnvName, NodeName, Release, Revision, RolloutId, Span, Timestamp, Version,
};
use rota_rollout::node::Node;
use rota_rollout::rollout::{Head, Spec};
use serde::{Deserialize, Serialize};

use super::pace::Pace;
use crate::manifest::{Compatibility, Needed, Target};
use crate::store::Record;

/// A release: manifest and artifact, immutable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The app.
    pub app: AppName,
    /// What its makers call it.
    pub version: Version,
    /// SHA-256 of the artifact.
    pub digest: Digest,
    /// Bytes of the artifact.
    pub size: u64,
    /// `tar`, `tar.gz` or `tar.zst`.
    pub format: String,
    /// The text of `rota.toml`.
    pub manifest: String,
    /// Its name as the operator wrote it.
    pub manifest_name: String,
    /// When it was pushed.
    pub created: Timestamp,
    /// By whom.
    pub who: String,
}

impl ReleaseRecord {
    /// As rollouts name it.
    pub fn release(&self) -> Release {
        Release { version: self.version.clone(), digest: self.digest.clone() }
    }
}

/// One agent, of a node or of an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// The fleet it belongs to.
    pub env: String,
    /// As its command line says.
    pub roles: Vec<String>,
    /// As its command line says.
    pub labels: BTreeMap<String, String>,
    /// What operators set instead; an empty value removes the label.
    pub labels_set: BTreeMap<String, String>,
    /// Where its apps are reached.
    pub address: String,
    /// Edges: HOST:PORT of the Traffic service.
    pub traffic_address: String,
    /// Edges: the pools served there.
    pub pools: Vec<EdgePoolRecord>,
    /// The agent's version.
    pub version: String,
    /// An operator wants it out of traffic.
    pub drained: bool,
    /// What runs there, as last heard.
    pub apps: Vec<AppRecord>,
    /// When it last said Hello or went silent.
    pub last_seen: Timestamp,
    /// It was silent for too long, and has not come back.
    #[serde(default)]
    pub offline: bool,
}

impl AgentRecord {
    /// The labels that count.
    pub fn all_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        for (name, value) in &self.labels_set {
            if value.is_empty() {
                labels.remove(name);
            } else {
                labels.insert(name.clone(), value.clone());
            }
        }
        labels
    }
}

/// One pool at an edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EdgePoolRecord {
    /// Its name.
    pub pool: String,
    /// `proxy`, `haproxy` or `nginx`.
    pub driver: String,
    /// Where clients reach it.
    pub listen: String,
}

/// One app at a node, as last heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppRecord {
    /// The app.
    pub app: AppName,
    /// The release that is current there.
    pub release: Option<Release>,
    /// `healthy`, `unhealthy` or `stopped`.
    pub health: String,
    /// `in`, `draining` or `out`.
    pub traffic: String,
}

/// One app in one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetRecord {
    /// The number of the newest rollout.
    pub revision: Revision,
    /// The releases that became current, oldest first; the last one is current now.
    pub currents: Vec<Current>,
    /// Releases whose once-per-release job has succeeded here; the oldest go first.
    #[serde(default)]
    pub once_ran: Vec<Release>,
    /// Targets of the current release that were away when it came, and have not got it yet.
    #[serde(default)]
    pub late: BTreeSet<NodeName>,
    /// Nodes that failed on the way to the current release, or were skipped by an operator, and the rollout in which:
    /// they are not moved by themselves.
    #[serde(default)]
    pub left: BTreeMap<NodeName, Revision>,
    /// The rollouts that are not over, or whose evidence is not closed. Several only while older ones give way to the
    /// newest, or wait for their edges' last word.
    #[serde(default)]
    pub open: BTreeSet<Revision>,
    /// Of the rollouts up to this one only a line of the history is kept.
    #[serde(default)]
    pub summed_up: u64,
    /// How many rollouts ended in each state.
    #[serde(default)]
    pub ended: BTreeMap<String, u64>,
    /// How long the newest rollouts took, oldest first.
    #[serde(default)]
    pub paces: Vec<Pace>,
}

impl FleetRecord {
    /// Of an app that was never rolled out there.
    pub fn new(revision: Revision) -> Self {
        Self {
            revision,
            currents: Vec::new(),
            once_ran: Vec::new(),
            late: BTreeSet::new(),
            left: BTreeMap::new(),
            open: BTreeSet::new(),
            summed_up: 0,
            ended: BTreeMap::new(),
            paces: Vec::new(),
        }
    }
}

/// A release that became current, and by which rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The rollout.
    pub revision: Revision,
    /// The release.
    pub release: Release,
    /// What it says of the way back from it; a record of an older controller says nothing.
    #[serde(default)]
    pub declared: Option<Declared>,
}

/// What a release says of the way back from it, kept although the release itself may go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// `[compatibility]`.
    pub compatibility: Compatibility,
    /// Where its fence is written: `rota.toml:41`.
    pub at: String,
}

/// So many releases that were once current are remembered for `undo`.
pub const CURRENTS_KEPT: usize = 50;

/// So many releases are remembered whose once-per-release job succeeded: far more than can still be undone to.
pub const ONCE_KEPT: usize = 500;

/// One environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvRecord {
    /// Why nothing may move there.
    pub frozen: Option<Freeze>,
    /// The times in which updates may start; none: always.
    #[serde(default)]
    pub windows: Vec<WindowRecord>,
}

/// A window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// As it is best written: `Mon-Fri 22:00-05:00 Europe/Berlin`.
    pub text: String,
    /// Why; may be empty.
    pub why: String,
    /// By whom.
    pub who: String,
    /// Since when.
    pub since: Timestamp,
}

/// A freeze.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// Why.
    pub why: String,
    /// By whom.
    pub who: String,
    /// When it began.
    pub since: Timestamp,
    /// It ends by itself then.
    pub until: Option<Timestamp>,
}

/// What a rollout was asked to do, with everything that its owner needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecRecord {
    /// The core's part.
    pub spec: Spec,
    /// The release it moves to.
    pub release: ReleaseRecord,
    /// The pool, when edges serve it.
    pub pool: Option<String>,
    /// Whose word a drain needs there.
    #[serde(default)]
    pub edges: Needed,
    /// Nobody asked for it: nodes catch up. It gives way to whatever an operator starts.
    #[serde(default)]
    pub by_itself: bool,
    /// The command, when it is one that is run.
    #[serde(default)]
    pub command: Option<CommandRecord>,
    /// Which nodes join it when they come while it runs; `None`: it keeps the targets that it has.
    #[serde(default)]
    pub takes_in: Option<Target>,
    /// The number of its first event; 0, as an older controller wrote it: not known.
    #[serde(default)]
    pub first_event: u64,
}

/// A command that a rollout runs on its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecord {
    /// Its command line.
    pub argv: Vec<String>,
    /// Then it is killed.
    pub timeout: Span,
}

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadRecord {
    /// The core's part.
    pub head: Head,
}

/// One node of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The core's part.
    pub node: Node,
}

/// Who runs a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerRecord {
    /// The controller.
    pub controller: String,
    /// Raised by every claim.
    pub term: u64,
    /// Which place of that controller claimed it; another one: it was handed over, or that process is gone.
    #[serde(default)]
    pub place: u64,
}

/// What the edges counted while a rollout ran.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRecord {
    /// Requests served.
    pub requests: u64,
    /// Of these, failed at an edge.
    pub failed: u64,
    /// While it runs: what each edge had counted when it was last heard. Over restarts of the controller nothing of it
    /// is lost.
    #[serde(default)]
    pub counted: BTreeMap<NodeName, Counted>,
    /// When it is over: the edges that did not say what they had counted by then.
    #[serde(default)]
    pub unheard: BTreeSet<NodeName>,
    /// When it is over: the number of its last event; 0: not known.
    #[serde(default)]
    pub last_event: u64,
    /// Edges that were not reachable, so that updates went on without their word.
    #[serde(default)]
    pub not_asked: BTreeSet<String>,
}

/// What an edge counted since its proxy started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Requests served.
    pub requests: u64,
    /// Of these, failed there.
    pub failed: u64,
}

impl Record for ReleaseRecord {}
impl Record for AgentRecord {}
impl Record for FleetRecord {}
impl Record for EnvRecord {}
impl Record for SpecRecord {}
impl Record for HeadRecord {}
impl Record for NodeRecord {}
impl Record for OwnerRecord {}
impl Record for EvidenceRecord {}
impl Record for crate::view::EventView {}
impl Record for crate::view::RolloutView {}
impl Record for crate::view::HistoryEntry {}

/// Keys, and what is read back from them.
pub mod keys {
    use super::{AppName, EnvName, RolloutId, Version};

    /// All releases.
    pub const RELEASES: &str = "/releases/";
    /// All nodes.
    pub const NODES: &str = "/nodes/";
    /// Nodes that were removed, while their certificates would still be good.
    pub const REMOVED: &str = "/removed/";
    /// All edges.
    pub const EDGES: &str = "/edges/";
    /// All environments.
    pub const ENVS: &str = "/envs/";
    /// All apps in all environments.
    pub const FLEETS: &str = "/fleets/";
    /// All rollouts.
    pub const ROLLOUTS: &str = "/rollouts/";
    /// Written to see whether the store takes changes again.
    pub const PROBE: &str = "/probe";
    /// The event log.
    pub const EVENTS: &str = "/events/";

    /// One release.
    pub fn release(app: &AppName, version: &Version) -> String {
        format!("{RELEASES}{app}/{version}")
    }

    /// One app in one environment.
    pub fn fleet(app: &AppName, env: &EnvName) -> String {
        format!("{FLEETS}{app}/{env}")
    }

    /// One rollout; its records lie below.
    pub fn rollout(id: &RolloutId) -> String {
        format!("{ROLLOUTS}{}/{}/{:010}/", id.app, id.env, id.revision.0)
    }

    /// All rollouts of an app in an environment.
    pub fn rollouts_of(app: &AppName, env: &EnvName) -> String {
        format!("{ROLLOUTS}{app}/{env}/")
    }

    /// What the attempts of a rollout's nodes left behind.
    pub fn traces(id: &RolloutId) -> String {
        format!("/traces/{}/{}/{:010}/", id.app, id.env, id.revision.0)
    }

    /// A rollout that is over, without its nodes: for lists.
    pub fn summary(id: &RolloutId) -> String {
        format!("/summaries/{}/{}/{:010}", id.app, id.env, id.revision.0)
    }

    /// The lines of the history of an app in an environment.
    pub fn history_of(app: &AppName, env: &EnvName) -> String {
        format!("/history/{app}/{env}/")
    }

    /// The line that is kept of a rollout.
    pub fn history(id: &RolloutId) -> String {
        format!("{}{:010}", history_of(&id.app, &id.env), id.revision.0)
    }

    /// One event.
    pub fn event(seq: u64) -> String {
        format!("{EVENTS}{seq:020}")
    }
}
