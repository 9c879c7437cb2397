//! What the controllers hear of an update.

use serde::{Deserialize, Serialize};

use super::Failure;

/// What the controller hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// The release is on the disk.
    Prepared,
    /// A step begins.
    Began { step: Step, in_flight: u64 },
    /// Back in traffic; the monitor time runs.
    Joined(Measured),
    /// Proven.
    Done(Measured),
    /// Not.
    Failed(Box<Failed>),
    /// It was done, and broke.
    Broken { cause: String, output: String },
    /// The order was of an owner of yesterday.
    Stale { newest_term: u64 },
}

/// The names of the steps, as they are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the glossary has them")]
pub enum Step {
    Fetch,
    Drain,
    Stop,
    Swap,
    Start,
    Health,
    Smoke,
    Join,
    Monitor,
    Restore,
}

/// How an update failed, and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Where and why.
    pub failure: Failure,
    /// What the node was left as.
    pub left: Left,
    /// Why the restore failed, when it did.
    pub restore_error: Option<String>,
    /// What was measured until then.
    pub measured: Measured,
    /// The version that is current now, whether or not it runs.
    pub release: Option<String>,
}

/// What a failed node was left as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    /// The previous release runs, healthy, in traffic.
    Restored,
    /// Out of traffic.
    Out,
    /// Nothing was done to the app.
    Untouched,
}

/// What an update measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// From the beginning of the drain until it joined.
    pub out_of_traffic_ms: u64,
    /// When the drain began.
    pub in_flight_at_drain: u64,
    /// Ended by us.
    pub cut: u64,
    /// The app did not end within its stop timeout.
    pub killed: bool,
    /// An operator keeps the node out of traffic: what runs there did not rejoin.
    #[serde(default)]
    pub kept_out: bool,
}
