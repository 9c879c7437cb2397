//! The fleet: what runs where, who serves, who decides, and what needs care.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RolloutView;

/// One screen: what runs where, what moves, and what needs care (`status`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Each app in each environment.
    pub fleets: Vec<FleetView>,
    /// The rollouts that have not ended.
    pub rollouts: Vec<RolloutView>,
    /// Nodes and edges that somebody should look at.
    pub care: Vec<CareView>,
    /// Nodes that run something else than they should; each needs care, too.
    #[serde(default)]
    pub drift: Vec<DriftView>,
    /// Every environment.
    pub envs: Vec<EnvView>,
    /// Every controller.
    pub controllers: Vec<ControllerView>,
}

/// One app in one environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FleetView {
    /// The app.
    pub app: String,
    /// The environment.
    pub env: String,
    /// The current release; absent before the first rollout completed.
    pub release: Option<String>,
    /// The rollout that made it current; absent like the release.
    pub revision: Option<u64>,
    /// The nodes that run the app or are to run it.
    pub targets: usize,
    /// Of these, the ones that serve: healthy and in traffic.
    pub in_traffic: usize,
    /// Of those in traffic, the ones on another release than the current one or, while a rollout runs, the one that it
    /// moves to.
    #[serde(default)]
    pub on_another: usize,
}

/// A node or an edge that somebody should look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CareView {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub env: String,
    /// What is wrong with it.
    pub text: String,
    /// What to do: a command, or empty.
    pub hint: String,
}

/// A node that runs something else than it should, while no rollout is about to change that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DriftView {
    /// The node.
    pub node: String,
    /// Its environment.
    pub env: String,
    /// The app.
    pub app: String,
    /// The version that runs; absent: none, it is new or was made anew.
    pub runs: Option<String>,
    /// The version that should; absent: none, it is no target any more.
    pub should: Option<String>,
    /// The rollout in which it failed or was skipped: it is not moved by itself any more. Absent: none.
    pub left_by: Option<String>,
}

/// How far a node is out of traffic (`drains/NODE`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainView {
    /// The node.
    pub node: String,
    /// As in [`NodeView`].
    pub state: String,
    /// Does an operator want it out of traffic?
    pub drained: bool,
    /// Why it could not be drained now; empty: it may.
    pub refusals: Vec<String>,
    /// Is every app that runs there out of traffic, with nothing in flight?
    pub out: bool,
    /// Is every app that runs there in traffic?
    pub serves: bool,
    /// What runs there.
    pub apps: Vec<DrainedAppView>,
}

/// One app of a node that drains.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrainedAppView {
    /// The app.
    pub app: String,
    /// `healthy|unhealthy|stopped`.
    pub health: String,
    /// `in|draining|out`.
    pub traffic: String,
    /// What the edges say is still in flight there.
    pub in_flight: u64,
}

/// One environment (`envs`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvView {
    /// Its name.
    pub env: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// Set while it is frozen.
    pub frozen: Option<FreezeView>,
    /// The times in which updates may start; none: always.
    #[serde(default)]
    pub windows: Vec<WindowView>,
    /// Are its windows open now? One without windows always is.
    #[serde(default)]
    pub open: bool,
    /// RFC 3339: when its windows open or close next; absent where they never do.
    #[serde(default)]
    pub changes_at: Option<String>,
    /// The same as people of its zone read it: `Thu 05:00 Europe/Berlin`; empty like it.
    #[serde(default)]
    pub changes: String,
}

/// One recurring time in which updates may start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowView {
    /// From 1; `rota env window rm` takes it.
    pub number: usize,
    /// `Mon-Fri 22:00-05:00 Europe/Berlin`.
    pub window: String,
    /// Is it open now?
    pub open: bool,
    /// RFC 3339: when it closes, or opens next.
    pub changes_at: Option<String>,
    /// Why.
    pub message: String,
    /// Who added it.
    pub who: String,
    /// RFC 3339.
    pub since: String,
}

/// Why an environment takes no rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FreezeView {
    /// RFC 3339; absent: until unfrozen.
    pub until: Option<String>,
    /// Why.
    pub message: String,
    /// Who froze it.
    pub who: String,
    /// RFC 3339.
    pub since: String,
}

/// One node of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub env: String,
    /// Its roles.
    pub roles: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `ready|drained|offline|revoked`.
    pub state: String,
    /// The agent's version.
    pub version: String,
    /// What runs there.
    pub apps: Vec<AppView>,
    /// RFC 3339; absent when never.
    pub last_seen: Option<String>,
}

/// One app on one node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppView {
    /// The app.
    pub app: String,
    /// The version that runs.
    pub release: String,
    /// `healthy|unhealthy|stopped`.
    pub health: String,
    /// `in|draining|out`.
    pub traffic: String,
}

/// One edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeView {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub env: String,
    /// `ready|silent|offline`; silent: it has just gone, or its load balancer does not answer it.
    pub state: String,
    /// `POOL=DRIVER@LISTEN`.
    pub pools: Vec<String>,
    /// HOST:PORT of its Traffic service.
    pub address: String,
    /// The agent's version.
    pub version: String,
    /// RFC 3339; absent when never.
    pub last_seen: Option<String>,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolView {
    /// Its name.
    pub pool: String,
    /// Its environment.
    pub env: String,
    /// The edges that serve it.
    pub edges: Vec<String>,
    /// Its members, as the edges see them.
    pub members: Vec<MemberView>,
    /// Requests served since the edges started.
    pub requests: u64,
    /// Of these, failed at the edge.
    pub failed: u64,
    /// In-flight requests that we ended.
    pub cut: u64,
}

/// One member of a pool at one edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// The node.
    pub node: String,
    /// The edge that says so.
    pub edge: String,
    /// `HOST:PORT`.
    pub address: String,
    /// `in|joining|draining|out`.
    pub state: String,
    /// Requests it has accepted and not finished.
    pub in_flight: u64,
    /// What runs there.
    pub version: String,
}

/// One controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControllerView {
    /// Its name.
    pub name: String,
    /// `active|draining|drained|lost`.
    pub state: String,
    /// The rollouts that it owns.
    pub rollouts: Vec<String>,
    /// Its version.
    pub version: String,
    /// HOST:PORT as it advertises itself; `rota login` keeps all of them. Empty: not known.
    #[serde(default)]
    pub address: String,
}
