//! What the world tells the machine.

use std::collections::BTreeSet;

use super::UpdateOrder;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since the host was started.
    pub at: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time, each for a moment")]
pub enum What {
    /// An update was ordered.
    Ordered(UpdateOrder),
    /// Something else than an update was ordered, in this term.
    Heard { rollout: String, term: u64 },
    /// A rollout is over: stop watching for it.
    Settle { rollout: String, term: u64 },
    /// An action ended. `action`: the number it was given; an older one's result is too late to matter.
    Did { action: u64, result: Did },
    /// How many requests the drain under way still waits for.
    Draining { in_flight: u64 },
    /// A process ended by itself.
    Exited { token: u64, how: String, output: String },
    /// The agent started. `alive`: the tokens of the processes that still run.
    Booted { alive: BTreeSet<u64> },
    /// An operator wants this node out of traffic, or no longer.
    Standing { drained: bool },
    /// Somebody on this node wants the previous release back.
    AskedBack,
}

/// What came of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Did {
    /// It worked.
    Ok,
    /// The drain ended, in time or by the cut that its policy allows.
    Drained { in_flight_at_start: u64, cut: u64 },
    /// The process ended.
    Stopped { killed: bool },
    /// The process runs.
    Started { port: u16 },
    /// It did not work.
    Failed { cause: String, output: String },
}
