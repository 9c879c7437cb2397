//! What a rollout asks of the world. The shell sends orders only after the changes of the same step are durable.

use crate::names::{Attempt, NodeName, Release, Timestamp};
use crate::node::Direction;

/// One thing to do. Every order to a node is harmless when it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Fetch, verify and unpack the rollout's release; the app is not touched.
    Prepare { node: NodeName, attempt: Attempt },
    /// Move the node to this release.
    Update { node: NodeName, attempt: Attempt, direction: Direction, to: Release },
    /// Run the rollout's command: at most once for each attempt.
    Run { node: NodeName, attempt: Attempt },
    /// Run the once-per-release job.
    Once { node: NodeName, attempt: Attempt },
    /// The rollout is over for this node: stop watching.
    Settle { node: NodeName },
    /// Send [`crate::event::What::Tick`] at this time.
    WakeAt(Timestamp),
}
