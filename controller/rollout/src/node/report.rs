//! What a node says of its update, and what it measured.

use serde::{Deserialize, Serialize};

use super::{Left, StepName};
use crate::names::{Span, Version};

/// What an update measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// How long the node was out of traffic.
    pub out_of_traffic: Span,
    /// Requests in flight when the drain began.
    pub in_flight_at_drain: u64,
    /// Requests that were ended by us.
    pub cut: u64,
    /// An operator kept it out of traffic: it did not rejoin.
    #[serde(default)]
    pub kept_out: bool,
}

/// What a node says. Numbered by attempt; may come twice, late, or never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The release is unpacked on its disk.
    Prepared,
    /// It begins a step; `in_flight` is what drains.
    Began { step: StepName, in_flight: u64 },
    /// It is in traffic again; the monitor time runs.
    Joined(Measured),
    /// It is in traffic and proven.
    Done(Measured),
    /// It could not, and what it was left as.
    Failed(Failure),
    /// It was done, and its app broke while the rollout still runs.
    Broken { cause: String, output: String },
}

/// How an update failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where.
    pub step: StepName,
    /// One line.
    pub text: String,
    /// The tail of what was printed.
    pub output: String,
    /// What the node was left as.
    pub left: Left,
    /// What it measured until then.
    pub measured: Measured,
    /// The version that is current there now; `None`: it does not say, or there is none.
    pub current: Option<Version>,
}

impl Measured {
    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            out_of_traffic: Span(self.out_of_traffic.0 + other.out_of_traffic.0),
            in_flight_at_drain: self.in_flight_at_drain.max(other.in_flight_at_drain),
            cut: self.cut + other.cut,
            kept_out: other.kept_out,
        }
    }
}
