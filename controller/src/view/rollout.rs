//! Rollouts: one as it stands, what one would do, and which there were.

use serde::{Deserialize, Serialize};

use super::Evidence;

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
    /// What it is: `deploy`, `undo`, `restart` or `run`.
    pub kind: String,
    /// The command of a `run`.
    #[serde(default)]
    pub command: Option<String>,
    /// The version that ran before, if any.
    pub from: Option<String>,
    /// The version it moves to.
    pub to: String,
    /// How it moves, in one line for people.
    #[serde(default)]
    pub strategy: String,
    /// Why, in the operator's words.
    pub message: String,
    /// Who started it.
    pub who: String,
    /// `pending|preparing|rolling|held|paused|rolling_back|completed|partial|rolled_back|failed|aborted`.
    pub state: String,
    /// Why it does not move.
    pub hold: Option<HoldView>,
    /// Who paused it, and why: `alice: looking at errors`; absent while it is not paused.
    #[serde(default)]
    pub paused: Option<String>,
    /// How far the rehearsal of the way back is: `forward|back|again|shown|waived|skipped`; absent when none is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<String>,
    /// Who broke the glass, and why: `alice: the site is down`; no freeze and no window holds it. Absent: nobody.
    #[serde(default)]
    pub break_glass: Option<String>,
    /// How many of its nodes run the release that it moves to.
    #[serde(default)]
    pub on_release: usize,
    /// Its owner.
    pub controller: String,
    /// The owner's term.
    pub term: u64,
    /// The batches in order; none where older rollouts are listed.
    pub batches: Vec<BatchView>,
    /// Every target; none where older rollouts are listed.
    pub nodes: Vec<NodeProgress>,
    /// What was measured.
    pub evidence: Evidence,
    /// How much longer it takes, as earlier rollouts here went; absent where that is not known.
    #[serde(default)]
    pub eta_ms: Option<u64>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; absent while it runs.
    pub finished_at: Option<String>,
    /// From its start to its end; absent while it runs.
    #[serde(default)]
    pub duration_ms: Option<u64>,
}

impl RolloutView {
    /// How many of the nodes run the release that it moves to: proven, or left alone because they ran it already. After
    /// a restart only those count that were restarted.
    pub fn count_on_release(&self) -> usize {
        let runs = |node: &&NodeProgress| match node.state.as_str() {
            "done" => true,
            "skipped" => {
                !matches!(self.kind.as_str(), "restart" | "run")
                    && node.release.as_deref() == Some(self.to.as_str())
            }
            _ => false,
        };
        self.nodes.iter().filter(runs).count()
    }
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
    /// It puts its previous release back.
    #[serde(default)]
    pub restoring: bool,
    /// The version that it runs, as last heard.
    pub release: Option<String>,
    /// How often it was asked.
    pub attempt: u32,
    /// What it was left as, when it failed: `restored|out|untouched|unknown`.
    #[serde(default)]
    pub left: Option<String>,
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

impl NodeProgress {
    /// What it does now, in one word for people.
    pub fn doing(&self) -> Option<&str> {
        if self.restoring { Some("restore") } else { self.step.as_deref() }
    }
}

/// One line of an app's history in an environment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The rollout's number.
    pub revision: u64,
    /// The version it moved to.
    pub release: String,
    /// As in [`RolloutView`].
    #[serde(default)]
    pub kind: String,
    /// The command of a `run`.
    #[serde(default)]
    pub command: Option<String>,
    /// As in [`RolloutView`].
    pub state: String,
    /// Why.
    pub message: String,
    /// Who.
    pub who: String,
    /// As in [`RolloutView`].
    #[serde(default)]
    pub break_glass: Option<String>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339; absent while it runs.
    pub finished_at: Option<String>,
}
