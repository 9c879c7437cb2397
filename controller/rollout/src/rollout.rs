//! The whole state of a rollout: what was asked, where it stands, and every node.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::gate::Hold;
use crate::names::{Attempt, NodeName, Release, RolloutId, Span, Timestamp};
use crate::node::{Node, Phase, Serving, Skip};
use crate::open::Batches;
use crate::rehearsal::Rehearsal;
use crate::shut::Closed;
use crate::strategy::Strategy;

/// A rollout. `spec` never changes; `head` and `nodes` change only by [`Rollout::apply`].
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// What was asked.
    pub spec: Spec,
    /// Where it stands as a whole.
    pub head: Head,
    nodes: BTreeMap<NodeName, Node>,
    tally: Tally,
    open: Batches,
}

/// What was asked; fixed when the rollout is admitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub id: RolloutId,
    /// What sort of movement it is.
    pub kind: Kind,
    /// The release to end on.
    pub to: Release,
    /// The environment's current release when it was admitted.
    pub from: Option<Release>,
    /// How.
    pub strategy: Strategy,
    /// The nodes of each batch in order; nodes that are left alone are in none.
    pub batches: Vec<Vec<NodeName>>,
    /// How many targets there were when it was admitted, the ones left alone included: what every percentage is of.
    pub targets: usize,
    /// How long things may take.
    pub limits: Limits,
    /// Must the once-per-release job run first?
    pub once: bool,
    /// Why its nodes may not go back, when the new release forbids that.
    #[serde(default)]
    pub fence: Option<String>,
    /// When it was admitted.
    pub started: Timestamp,
    /// By whom.
    pub who: String,
    /// Why.
    pub message: String,
}

/// What sort of movement a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// To a release named by the operator.
    Deploy,
    /// To the release of an earlier revision.
    Undo,
    /// The release that runs, once more.
    Restart,
    /// No movement at all: a command on every node that runs the app.
    Run,
}

/// How long things may take before they are a reason to hold; from the manifest, with slack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Download, verify, unpack.
    pub prepare: Span,
    /// From the order until the node joined or failed.
    pub update: Span,
    /// From joined until done: the monitor time and slack.
    pub monitor: Span,
    /// The once-per-release job.
    pub once: Span,
}

/// Where a rollout stands as a whole: small, and compared and set by its owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// What it is doing.
    pub stage: Stage,
    /// An operator stopped new updates: who, and why if he said so.
    pub paused: Option<String>,
    /// Why it does not move, and since when.
    pub held: Option<Held>,
    /// The batch in turn, from 1.
    pub batch: usize,
    /// When the batch before ended (in window mode: the node before).
    pub gap_since: Option<Timestamp>,
    /// Batches up to this number need no (further) approval.
    pub approved: usize,
    /// So many failures were seen and accepted by an operator.
    pub forgiven: usize,
    /// An operator went on after the deadline.
    pub deadline_waived: bool,
    /// Why the environment is frozen.
    pub frozen: Option<String>,
    /// The environment's windows are closed.
    #[serde(default)]
    pub closed: Option<Closed>,
    /// Who broke the glass, and why: no freeze and no window holds it any more.
    #[serde(default)]
    pub break_glass: Option<String>,
    /// Edges of its pool that are offline: without their word no drain is proven.
    #[serde(default)]
    pub edges_offline: Vec<NodeName>,
    /// Nodes that go with another batch than was planned: those that returned after theirs was due go with the one in
    /// turn, those that came after the rollout was admitted with the one after it.
    pub late: Vec<NodeName>,
    /// Nodes that an operator asked for by name once more: they are tried, although others stay failed.
    #[serde(default)]
    pub asked_again: Vec<NodeName>,
    /// How the once-per-release job failed last, also when the rollout was aborted since.
    #[serde(default)]
    pub once_failed: Option<OnceFailure>,
    /// How far the rehearsal of the way back is.
    #[serde(default)]
    pub rehearsal: Rehearsal,
    /// The fewest targets in traffic at any moment.
    pub least_in_traffic: usize,
}

/// A hold and its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Why it does not move.
    pub hold: Hold,
    /// Since when.
    pub since: Timestamp,
}

/// What a rollout is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Every target fetches the release.
    Preparing,
    /// One node runs the once-per-release job.
    Once(Once),
    /// Nodes are updated.
    Rolling,
    /// The batch in turn goes back, to show that it can.
    Rehearsing,
    /// Updated nodes go back.
    RollingBack { why: String },
    /// Running updates finish; then it ends.
    Aborting,
    /// It is over.
    Ended { outcome: Outcome, at: Timestamp },
}

/// The once-per-release job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Once {
    /// It is ordered.
    Running { node: NodeName, attempt: Attempt, deadline: Timestamp },
    /// It ended badly, and nothing was drained.
    Failed { node: NodeName, attempt: Attempt, text: String, output: String },
    /// Whether it took effect is not known.
    Unknown { node: NodeName, attempt: Attempt },
}

/// What is known of a once-per-release job that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnceFailure {
    /// Where it ran.
    pub node: NodeName,
    /// One line.
    pub text: String,
    /// The tail of what it printed.
    pub output: String,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All reachable targets run the release.
    Completed,
    /// Some targets failed, and that was accepted.
    Partial,
    /// All touched nodes are back.
    RolledBack,
    /// No target runs the release; or not all could be taken back from it, and that was accepted.
    Failed,
    /// An operator ended it.
    Aborted,
}

/// One record that changed.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a step has few changes, and most of them are nodes")]
pub enum Change {
    /// The head.
    Head(Head),
    /// One node.
    Node(NodeName, Box<Node>),
}

/// How many nodes are where. Derived from the nodes, kept so that no step needs to count thousands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Waiting or preparing.
    pub unprepared: usize,
    /// Of these, preparing.
    pub preparing: usize,
    /// Updating or monitoring.
    pub running: usize,
    /// Of these, updating.
    pub updating: usize,
    /// Of those under way, online.
    pub heard: usize,
    /// Done.
    pub done: usize,
    /// Failed.
    pub failed: usize,
    /// Settled in any way.
    pub settled: usize,
    /// Capacity that does not serve, whatever the reason.
    pub out: usize,
    /// Of these, offline and skipped for it.
    pub out_skipped: usize,
    /// Serving.
    pub serving: usize,
}

impl Tally {
    fn count(&mut self, node: &Node, sign: isize) {
        let add = |field: &mut usize, yes: bool| {
            *field = field.wrapping_add_signed(if yes { sign } else { 0 });
        };
        add(&mut self.unprepared, matches!(node.phase, Phase::Waiting | Phase::Preparing { .. }));
        add(&mut self.preparing, matches!(node.phase, Phase::Preparing { .. }));
        add(&mut self.running, node.phase.is_running());
        add(&mut self.updating, matches!(node.phase, Phase::Updating { .. }));
        add(&mut self.heard, node.phase.is_running() && node.observed.online);
        add(&mut self.done, matches!(node.phase, Phase::Done));
        add(&mut self.failed, matches!(node.phase, Phase::Failed { .. }));
        add(&mut self.settled, node.phase.is_settled());
        add(&mut self.out, node.is_out());
        add(&mut self.out_skipped, node.is_out() && is_skipped_offline(node));
        add(&mut self.serving, node.is_in_traffic());
    }

    /// The tally after one node changed.
    pub(crate) fn moved(mut self, before: Option<&Node>, after: &Node) -> Self {
        if let Some(before) = before {
            self.count(before, -1);
        }
        self.count(after, 1);
        self
    }
}

fn is_skipped_offline(node: &Node) -> bool {
    // What an operator skips may have been taken out by us before it went offline, or by what we had ordered.
    let in_traffic = node.observed.serving == Serving::In && node.out_since.is_none();
    let by_us = node.attempt != Attempt(0) && !in_traffic;
    let by_another = node.observed.busy && node.observed.serving == Serving::Out;
    let away = !node.observed.online;
    match node.phase {
        Phase::Skipped { why: Skip::Offline } => !by_another,
        Phase::Skipped { why: Skip::ByOperator | Skip::NotMeant } => away && !by_us,
        Phase::Skipped { why: Skip::AlreadyCurrent | Skip::Drained }
        | Phase::Waiting
        | Phase::Preparing { .. }
        | Phase::Ready
        | Phase::Updating { .. }
        | Phase::Monitoring { .. }
        | Phase::Done
        | Phase::Failed { .. }
        | Phase::RolledBack => false,
    }
}

impl Rollout {
    /// Puts together what was read back from the store, or what was just admitted.
    pub fn new(spec: Spec, head: Head, nodes: BTreeMap<NodeName, Node>) -> Self {
        let tally = nodes.values().fold(Tally::default(), |tally, node| tally.moved(None, node));
        let mut open = Batches::default();
        nodes.values().for_each(|node| open.take(None, node));
        Self { spec, head, nodes, tally, open }
    }

    /// Takes over changes that a step made. The only way in which a rollout changes.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Head(head) => self.head = head,
                Change::Node(name, node) => {
                    let before = self.nodes.get(&name);
                    self.tally = self.tally.moved(before, &node);
                    self.open.take(before, &node);
                    self.nodes.insert(name, *node);
                }
            }
        }
    }

    /// Every target, by name.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// How many nodes are where.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// What is still open in each batch.
    pub fn open(&self) -> &Batches {
        &self.open
    }

    /// Is it over?
    pub fn is_ended(&self) -> bool {
        matches!(self.head.stage, Stage::Ended { .. })
    }

    /// Does its release become the environment's current one?
    pub fn becomes_current(&self) -> bool {
        if self.spec.kind == Kind::Run {
            return false; // it moved nothing
        }
        match self.head.stage {
            Stage::Ended { outcome: Outcome::Completed, .. } => true,
            Stage::Ended { outcome: Outcome::Partial, .. } => {
                self.tally.failed <= self.failures_borne()
            }
            Stage::Ended {
                outcome: Outcome::RolledBack | Outcome::Failed | Outcome::Aborted,
                ..
            }
            | Stage::Preparing
            | Stage::Once(_)
            | Stage::Rolling
            | Stage::Rehearsing
            | Stage::RollingBack { .. }
            | Stage::Aborting => false,
        }
    }

    /// How many failures are borne before it stops.
    pub fn failures_borne(&self) -> usize {
        self.spec.strategy.max_failures.of(self.spec.targets).max(self.head.forgiven)
    }

    /// The state in the words of the public contract.
    pub fn state(&self) -> &'static str {
        match &self.head.stage {
            Stage::Ended { outcome, .. } => match outcome {
                Outcome::Completed => "completed",
                Outcome::Partial => "partial",
                Outcome::RolledBack => "rolled_back",
                Outcome::Failed => "failed",
                Outcome::Aborted => "aborted",
            },
            _ if self.head.paused.is_some() => "paused",
            _ if self.head.held.is_some() => "held",
            Stage::Preparing | Stage::Once(_) => "preparing",
            Stage::Rolling | Stage::Rehearsing | Stage::Aborting => "rolling",
            Stage::RollingBack { .. } => "rolling_back",
        }
    }
}

impl Head {
    /// The head of a rollout that was just admitted.
    pub fn new(in_traffic: usize) -> Self {
        Self {
            stage: Stage::Preparing,
            paused: None,
            held: None,
            batch: 1,
            gap_since: None,
            approved: 0,
            forgiven: 0,
            deadline_waived: false,
            frozen: None,
            closed: None,
            break_glass: None,
            edges_offline: Vec::new(),
            late: Vec::new(),
            asked_again: Vec::new(),
            once_failed: None,
            rehearsal: Rehearsal::NotAsked,
            least_in_traffic: in_traffic,
        }
    }
}

#[cfg(test)]
mod tests;
