//! What users and other programs read: the JSON documents of the public contract, one type each.
//!
//! `/api/v1`, the `Read` and `Follow` calls and `-o json` all print these; the CLI's tables are drawn from them.

use serde::{Deserialize, Serialize};

/// One rollout, as `rota rollout status` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    /// `APP/ENV/REVISION`.
    pub id: String,
    /// The app.
    pub app: String,
    /// The environment.
    pub env: String,
    /// The number of this rollout there.
    pub revision: u64,
    /// What it is: `deploy`, `undo` or `restart`.
    pub kind: String,
    /// The version that ran before, if any.
    pub from: Option<String>,
    /// The version it moves to.
    pub to: String,
    /// Why, in the operator's words.
    pub message: String,
    /// Who started it.
    pub who: String,
    /// `pending|preparing|rolling|held|paused|rolling_back|completed|partial|rolled_back|failed|aborted`.
    pub state: String,
    /// Why it does not move.
    pub hold: Option<HoldView>,
    /// Its owner.
    pub controller: String,
    /// The owner's term.
    pub term: u64,
    /// The batches in order.
    pub batches: Vec<BatchView>,
    /// Every target.
    pub nodes: Vec<NodeProgress>,
    /// What was measured.
    pub evidence: Evidence,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; absent while it runs.
    pub finished_at: Option<String>,
}

/// Why a rollout does not move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldView {
    /// `failures|approval|capacity|offline|frozen|deadline|once|store`.
    pub kind: String,
    /// One line for people.
    pub text: String,
    /// What would clear it: a command or an event.
    pub hint: String,
    /// The nodes it is about.
    pub nodes: Vec<String>,
    /// RFC 3339.
    pub since: String,
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BatchView {
    /// From 1.
    pub index: usize,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// `pending|running|done|failed`.
    pub state: String,
}

/// One target of a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeProgress {
    /// Its name.
    pub name: String,
    /// `pending|updating|done|failed|restored|skipped|rolled_back`.
    pub state: String,
    /// `fetch|drain|stop|swap|start|health|smoke|join|monitor`, while it is updating.
    pub step: Option<String>,
    /// The version that it runs, as last heard.
    pub release: Option<String>,
    /// How often it was asked.
    pub attempt: u32,
    /// Why it failed or was skipped.
    pub error: Option<String>,
    /// The tail of what the app or script printed, when it failed.
    pub output: Option<String>,
    /// How long it was out of traffic.
    pub out_of_traffic_ms: u64,
    /// What was in flight when the drain began.
    pub in_flight_at_drain: u64,
    /// In flight now, while it drains.
    pub in_flight: u64,
    /// Requests that we ended.
    pub cut: u64,
}

/// What was measured during a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The fewest targets in traffic at any moment.
    pub least_in_traffic: usize,
    /// All targets.
    pub targets: usize,
    /// In-flight requests that we ended.
    pub cut: u64,
    /// Requests that an edge answered with an error of its own, or that broke off.
    pub failed_requests: u64,
    /// Requests that the edges served meanwhile.
    pub requests: u64,
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
    pub labels: std::collections::BTreeMap<String, String>,
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

/// One line of an app's history in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The rollout's number.
    pub revision: u64,
    /// The version it moved to.
    pub release: String,
    /// As in [`RolloutView`].
    pub state: String,
    /// Why.
    pub message: String,
    /// Who.
    pub who: String,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; absent while it runs.
    pub finished_at: Option<String>,
}

/// What a deploy would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanView {
    /// The nodes of each batch in order.
    pub batches: Vec<Vec<String>>,
    /// How many targets.
    pub targets: usize,
    /// Targets left alone, and why.
    pub skipped: Vec<SkippedView>,
    /// The fewest targets in traffic at any moment.
    pub least_in_traffic: usize,
    /// Everything that would stop it.
    pub refusals: Vec<String>,
    /// How each percentage resolved: "10 % of 37 = 3".
    pub notes: Vec<String>,
    /// The version now, if any, and the one to come.
    pub from: Option<String>,
    /// The version to come.
    pub to: String,
}

/// A target that is left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkippedView {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// One release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// The app.
    pub app: String,
    /// The version.
    pub version: String,
    /// SHA-256 of the artifact.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// RFC 3339.
    pub created_at: String,
    /// Who pushed it.
    pub who: String,
    /// Environments where it is current.
    pub current_in: Vec<String>,
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

/// One edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeView {
    /// Its name.
    pub name: String,
    /// Its environment.
    pub env: String,
    /// `ready|offline|revoked`.
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

/// One token, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenView {
    /// What `rota token rm` takes.
    pub id: String,
    /// `agent|edge|controller|operator`.
    pub kind: String,
    /// `viewer|deployer|admin`, for operators.
    pub role: Option<String>,
    /// The only name it may be used for.
    pub name: Option<String>,
    /// How often it can still be used.
    pub uses_left: u32,
    /// RFC 3339.
    pub expires_at: String,
}

/// One event of the log, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Rises by one.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// The app, when it is about one.
    pub app: Option<String>,
    /// The environment, when it is about one.
    pub env: Option<String>,
    /// The rollout, when it is about one.
    pub rollout: Option<String>,
    /// The node, when it is about one.
    pub node: Option<String>,
    /// `rollout|node|edge|controller|release|store`.
    pub kind: String,
    /// One line.
    pub text: String,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditView {
    /// Rises by one.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// The identity that asked, as in its certificate; `-` without one.
    pub who: String,
    /// Where the call came from.
    pub peer: String,
    /// What was asked.
    pub what: String,
    /// On what.
    pub target: String,
    /// Why, in the operator's words.
    pub message: String,
    /// `done`, or `refused: ` and why.
    pub result: String,
}

/// One screen: what runs where, what moves, and what needs care (`status`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// Each app in each environment.
    pub fleets: Vec<FleetView>,
    /// The rollouts that have not ended.
    pub rollouts: Vec<RolloutView>,
    /// Nodes and edges that somebody should look at.
    pub care: Vec<CareView>,
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
    /// The last rollout's revision.
    pub revision: u64,
    /// The nodes that run the app or are to run it.
    pub targets: usize,
    /// Of these, the ones that are healthy and in traffic.
    pub in_traffic: usize,
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

/// One environment (`envs`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnvView {
    /// Its name.
    pub env: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// Set while it is frozen.
    pub frozen: Option<FreezeView>,
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

/// The answer to `Start`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartedView {
    /// `APP/ENV/REVISION`.
    pub id: String,
}

/// The answer to `Apply` with `create_token`: the only time that the secret is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTokenView {
    /// The whole token, as `--token` takes it.
    pub token: String,
    /// What `rota token rm` takes.
    pub id: String,
    /// RFC 3339.
    pub expires_at: String,
}

/// The answer to every other `Apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedView {
    /// What was done and what stands now, in one line for people.
    pub text: String,
}

/// An error, as `-o json` and `/api/v1` print it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorView {
    /// `usage|manifest|refused|not_found|unreachable|not_permitted|store|internal`; the CLI adds the
    /// state of a rollout that did not complete: `held|paused|failed|partial|aborted|rolled_back`.
    pub kind: String,
    /// What is wrong, with the name of the thing.
    pub message: String,
    /// The way out; may be empty.
    pub hint: String,
}
