//! Why a rollout does not move: typed, with a sentence for people, the word of the public contract, and what would
//! clear it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{NodeName, Span};
use crate::rollout::{Kind, Spec};
use crate::shut::Closed;
use crate::strategy::OnNodeFailure;

/// Names are listed up to this many in a sentence; the rest is counted.
const NAMES_SHOWN_MAX: usize = 5;

/// Why a rollout does not move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// More nodes failed than may.
    Failures { failed: Vec<NodeName>, targets: usize, limit: usize },
    /// More nodes failed than may, and the new release forbids to take them back.
    Fence { failed: Vec<NodeName>, why: String },
    /// Nodes could not be taken back.
    RollbackFailed { nodes: Vec<NodeName> },
    /// Nodes of the first batch could not be taken back when that was rehearsed.
    Rehearsal { nodes: Vec<NodeName> },
    /// An operator must promote.
    Approval { batch: usize, batches: usize },
    /// As many targets are out of traffic as may be.
    Capacity { down: Vec<NodeName>, limit: usize },
    /// The nodes in turn are offline.
    Offline { nodes: Vec<NodeName> },
    /// The nodes in turn are being updated by another rollout.
    Busy { nodes: Vec<NodeName> },
    /// Edges of the pool are offline.
    Edges { edges: Vec<NodeName> },
    /// The environment is frozen.
    Frozen { why: String },
    /// The environment's windows are closed.
    Closed(Closed),
    /// The rollout's own deadline passed.
    Deadline { after: Span },
    /// The once-per-release job failed.
    Once { node: NodeName, text: String },
    /// Whether the once-per-release job took effect is not known.
    OnceUnknown { node: NodeName },
}

/// A list of names for people.
pub fn list(names: &[NodeName]) -> String {
    let shown: Vec<&str> = names.iter().take(NAMES_SHOWN_MAX).map(NodeName::as_str).collect();
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn nodes(count: usize) -> &'static str {
    if count == 1 { "node" } else { "nodes" }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { failed, targets, limit } => write!(
                f,
                "{} of {targets} nodes failed ({}) and the limit is {limit}",
                failed.len(),
                list(failed)
            ),
            Self::Fence { failed, why } => {
                write!(f, "{} failed, and there is no way back by itself: {why}", list(failed))
            }
            Self::RollbackFailed { nodes } => write!(f, "could not take back {}", list(nodes)),
            Self::Rehearsal { nodes } => {
                write!(f, "the way back was rehearsed and did not work on {}", list(nodes))
            }
            Self::Approval { batch, batches } => {
                write!(f, "batch {batch} of {batches} is done and waits for an approval")
            }
            Self::Capacity { down, limit } => write!(
                f,
                "{} {} out of traffic ({}) and the limit is {limit}",
                down.len(),
                if down.len() == 1 { "node is" } else { "nodes are" },
                list(down)
            ),
            Self::Offline { nodes: names } => {
                write!(f, "{} {} offline: {}", names.len(), nodes(names.len()), list(names))
            }
            Self::Busy { nodes: names } => {
                write!(f, "another rollout is updating {}", list(names))
            }
            Self::Edges { edges } => write!(
                f,
                "{} {} offline ({}): without {} no drain is proven",
                edges.len(),
                if edges.len() == 1 { "edge is" } else { "edges are" },
                list(edges),
                if edges.len() == 1 { "its word" } else { "their word" },
            ),
            Self::Frozen { why } => write!(f, "the environment is frozen: {why}"),
            Self::Closed(closed) => f.write_str(&closed.text),
            Self::Deadline { after } => write!(f, "its deadline of {after} has passed"),
            Self::OnceUnknown { node } => write!(
                f,
                "the once-per-release job on {node}: it is not known whether it took effect"
            ),
            Self::Once { node, text } => write!(f, "the once-per-release job on {node} {text}"),
        }
    }
}

impl Hold {
    /// The word of the public contract.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Failures { .. } | Self::RollbackFailed { .. } => "failures",
            Self::Rehearsal { .. } => "rehearsal",
            Self::Fence { .. } => "fence",
            Self::Approval { .. } => "approval",
            Self::Capacity { .. } | Self::Busy { .. } => "capacity",
            Self::Offline { .. } | Self::Edges { .. } => "offline",
            Self::Frozen { .. } | Self::Closed(_) => "frozen",
            Self::Deadline { .. } => "deadline",
            Self::Once { .. } | Self::OnceUnknown { .. } => "once",
        }
    }

    /// What would clear it.
    pub fn hint(&self, spec: &Spec) -> String {
        let id = &spec.id;
        // A restart has no other release to go back to.
        let back = if spec.kind == Kind::Restart { "" } else { "`rollback` or " };
        let turn = if back.is_empty() { "" } else { "`rollback` goes back, " };
        match self {
            Self::Failures { .. } => format!(
                "`rota rollout retry {id}` tries again, `resume` goes on, {turn}`abort` ends it; \
                 `rota rollout status {id}` shows the cause"
            ),
            Self::Fence { .. } => format!(
                "`rota rollout retry {id}` tries again, `resume` goes on, `abort` ends it; \
                 or back all the same: `rota rollout rollback {id} --break-fence -m WHY`"
            ),
            Self::RollbackFailed { .. } => format!(
                "repair them, then `rota rollout retry {id}`; \
                 or leave them with `rota rollout abort {id}`"
            ),
            Self::Rehearsal { .. } => format!(
                "`rota rollout retry {id}` tries it once more, `resume` goes on without it, \
                 `abort` ends the rollout; `rota rollout status {id}` shows the cause"
            ),
            Self::Approval { .. } => format!("`rota rollout promote {id}`"),
            Self::Capacity { .. } if spec.strategy.on_node_failure == OnNodeFailure::Leave => {
                format!(
                    "those that failed here stay out: `rota rollout retry {id}` tries them again, \
                     `rollback` or `abort` ends it; it goes on when the others serve again"
                )
            }
            Self::Capacity { .. } => {
                "it goes on when they serve again: `rota status` shows why they do not; a node \
                 that is gone for good: `rota node rm NODE`"
                    .to_owned()
            }
            Self::Offline { .. } => {
                format!("it goes on when they return; or `rota rollout skip {id} NODE`")
            }
            Self::Busy { .. } => "it goes on when that rollout is done with them".to_owned(),
            Self::Edges { edges } => format!(
                "it goes on when the agent there and its load balancer answer again; an edge \
                 that is gone for good: `rota node rm {}`",
                edges.first().map_or("EDGE", NodeName::as_str)
            ),
            Self::Frozen { .. } => format!(
                "it goes on after `rota env unfreeze {}`; \
                 or now, by `rota rollout resume {id} --break-glass -m WHY`",
                id.env
            ),
            Self::Closed(_) => format!(
                "it goes on by itself then; \
                 or now, by `rota rollout resume {id} --break-glass -m WHY`"
            ),
            Self::Deadline { .. } => {
                format!("`rota rollout resume {id}` goes on without a deadline; or {back}`abort`")
            }
            Self::OnceUnknown { .. } => format!(
                "find out: if it took effect, `rota rollout resume {id}` goes on without \
                 running it again; \
                 if not, `rota rollout retry {id}` runs it again; \
                 `rota rollout abort {id}` ends the rollout"
            ),
            Self::Once { .. } => format!(
                "`rota rollout retry {id}` runs it again; \
                 `rota rollout abort {id}` ends the rollout"
            ),
        }
    }

    /// The nodes it is about.
    pub fn nodes(&self) -> &[NodeName] {
        match self {
            Self::Failures { failed: nodes, .. }
            | Self::Fence { failed: nodes, .. }
            | Self::RollbackFailed { nodes }
            | Self::Rehearsal { nodes }
            | Self::Capacity { down: nodes, .. }
            | Self::Offline { nodes }
            | Self::Busy { nodes } => nodes,
            Self::Edges { edges } => edges,
            Self::Once { node, .. } | Self::OnceUnknown { node } => std::slice::from_ref(node),
            Self::Approval { .. }
            | Self::Frozen { .. }
            | Self::Closed(_)
            | Self::Deadline { .. } => &[],
        }
    }
}
