//! Whether the environment lets updates start: freezes, windows, and the glass that was broken to go on all the same.

use serde::{Deserialize, Serialize};

use crate::gate::Hold;
use crate::names::Timestamp;
use crate::rollout::Head;

/// The environment has windows, and this is outside of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Outside of which windows, and what opens next, for people.
    pub text: String,
    /// When they open.
    pub opens: Timestamp,
}

/// What keeps the environment from letting new updates start.
pub fn forward(head: &Head) -> Option<Hold> {
    let closed = || head.closed.clone().filter(|_| head.break_glass.is_none());
    back(head).or_else(|| closed().map(Hold::Closed))
}

/// The same on the way back. A window says when changes may start; to take a change back is to mend, and waits for no
/// window. A freeze means that nothing is touched.
pub fn back(head: &Head) -> Option<Hold> {
    let frozen = head.frozen.as_ref().filter(|_| head.break_glass.is_none())?;
    Some(Hold::Frozen { why: frozen.clone() })
}
