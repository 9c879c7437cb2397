//! What a rollout would do.

use serde::{Deserialize, Serialize};

/// What a deploy would do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
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
    /// What each batch comes to.
    #[serde(default)]
    pub steps: Vec<StepView>,
    /// The batches after which an operator must promote.
    #[serde(default)]
    pub approvals: Vec<usize>,
    /// What would hold it, if nothing changes.
    #[serde(default)]
    pub holds: Vec<PlannedHoldView>,
    /// The once-per-release job, when it would run.
    #[serde(default)]
    pub once: Option<OnceView>,
    /// How long it would take.
    #[serde(default)]
    pub eta: Option<EtaView>,
    /// The keys of the manifest that differ from those of the current release, resolved for the environment.
    #[serde(default)]
    pub changes: Vec<KeyChange>,
    /// The files that differ from those of the current release; absent where they were not compared.
    #[serde(default)]
    pub files: Option<FilesView>,
}

/// A target that is left alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkippedView {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// What one batch comes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Its number, from 1.
    pub batch: usize,
    /// The most serving targets that are out at once, by us.
    pub out: usize,
    /// The fewest targets in traffic meanwhile.
    pub in_traffic: usize,
}

/// What would hold a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedHoldView {
    /// As in a rollout's `hold`.
    pub kind: String,
    /// One line for people.
    pub text: String,
    /// What would clear it.
    pub hint: String,
    /// The nodes it is about.
    pub nodes: Vec<String>,
}

/// The once-per-release job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnceView {
    /// Where it would run.
    pub node: String,
    /// What.
    pub command: Vec<String>,
}

/// How long a rollout would take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EtaView {
    /// The forecast, without waiting for operators.
    pub ms: u64,
    /// On how many earlier rollouts of this app here it rests.
    pub rollouts: usize,
    /// It is only what the strategy itself asks for.
    pub at_least: bool,
    /// One line for people.
    pub text: String,
}

/// A key of the manifest that changes; absent: it is not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChange {
    /// For example `strategy.batch`.
    pub key: String,
    /// Its value in the current release.
    pub old: Option<String>,
    /// Its value in the release to come.
    pub new: Option<String>,
}

/// The files that change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesView {
    /// The first of them, by path.
    pub changed: Vec<FileChange>,
    /// How many there are in all.
    pub total: usize,
    /// Why they were not compared; empty: they were.
    pub not_compared: String,
}

/// A file that changes; absent: it is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// In the release.
    pub path: String,
    /// Its bytes in the current release.
    pub old: Option<u64>,
    /// Its bytes in the release to come.
    pub new: Option<u64>,
}
