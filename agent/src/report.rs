//! What this node tells the controllers. Reports are kept in the journal until acknowledged.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::order::Rollout;
use crate::update::Said;

pub use crate::update::{Left, Step};

/// The tail of an app's or a script's output that a report carries, in bytes.
/// Enough for a stack trace with its context, and far below the wire's limit of 1 MiB a message.
pub const OUTPUT_MAX: usize = 64 * 1024;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Rises by one with every report of this agent, from 1.
    pub seq: u64,
    /// In which rollout.
    pub rollout: Rollout,
    /// In which attempt of this node.
    pub attempt: u32,
    /// The agent's clock, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The release is here, verified and unpacked.
    Prepared,
    /// A step of the update began.
    Step { step: Step, in_flight: u64 },
    /// Back in traffic on the new release; the monitor time runs now.
    Joined(Measured),
    /// The update is complete.
    Done(Measured),
    /// The update failed.
    Failed(Box<Failed>),
    /// The once-per-release job.
    Once(Once),
    /// An operator's command.
    Ran {
        ended: Once,
        took_ms: u64,
        /// Bytes that it printed in all.
        #[serde(default)]
        printed: u64,
    },
    /// A finished node's app died or turned unhealthy while the rollout still runs.
    Broken { cause: String, output: Vec<u8> },
    /// The order was of an older term than this node has accepted for that rollout.
    Stale { newest_term: u64 },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Fetch => "fetch",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Swap => "swap",
            Self::Start => "start",
            Self::Health => "health",
            Self::Smoke => "smoke",
            Self::Join => "join",
            Self::Monitor => "monitor",
            Self::Restore => "restore",
        })
    }
}

/// What an update cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// Between leaving traffic and being back.
    pub out_of_traffic_ms: u64,
    /// Requests in flight when the drain began.
    pub in_flight_at_drain: u64,
    /// Requests ended by us.
    pub cut: u64,
    /// The app did not end within `stop_timeout`.
    pub killed: bool,
    /// An operator keeps the node out of traffic: what runs there did not rejoin.
    #[serde(default)]
    pub kept_out: bool,
    /// How long each step took, in order.
    pub steps: Vec<(Step, u64)>,
    /// What was in flight, from the drain's begin until it was back: milliseconds and requests.
    #[serde(default)]
    pub in_flight: Vec<(u64, u64)>,
    /// What hooks and smoke tests printed.
    #[serde(default)]
    pub printed: Vec<Printed>,
    /// Edges that were not reachable, so that it went on without their word.
    #[serde(default)]
    pub not_asked: Vec<String>,
}

/// What one hook or smoke test printed: its tail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Printed {
    /// Which.
    pub what: String,
    /// The tail.
    pub output: Vec<u8>,
}

impl From<crate::update::Measured> for Measured {
    /// The rest the shell knows.
    fn from(measured: crate::update::Measured) -> Self {
        Self {
            out_of_traffic_ms: measured.out_of_traffic_ms,
            in_flight_at_drain: measured.in_flight_at_drain,
            cut: measured.cut,
            killed: measured.killed,
            kept_out: measured.kept_out,
            ..Self::default()
        }
    }
}

impl From<Said> for What {
    fn from(said: Said) -> Self {
        match said {
            Said::Prepared => Self::Prepared,
            Said::Began { step, in_flight } => Self::Step { step, in_flight },
            Said::Joined(measured) => Self::Joined(measured.into()),
            Said::Done(measured) => Self::Done(measured.into()),
            Said::Broken { cause, output } => Self::Broken { cause, output: output.into_bytes() },
            Said::Stale { newest_term } => Self::Stale { newest_term },
            Said::Failed(failed) => Self::Failed(Box::new(Failed {
                step: failed.failure.step,
                cause: failed.failure.cause,
                output: failed.failure.output.into_bytes(),
                left: failed.left,
                restore_error: failed.restore_error,
                measured: failed.measured.into(),
                release: failed.release,
            })),
        }
    }
}

/// Why an update failed, and what it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// In which step.
    pub step: Step,
    /// One line.
    pub cause: String,
    /// The tail of the output, at most [`OUTPUT_MAX`] bytes.
    pub output: Vec<u8>,
    /// What is there now.
    pub left: Left,
    /// With [`Left::Out`] after a failed restore.
    pub restore_error: Option<String>,
    /// What it cost.
    pub measured: Measured,
    /// The version that runs now.
    pub release: Option<String>,
}

/// How a command that may take effect once only ended: the once-per-release job, or an operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Once {
    /// It ended by itself.
    Exited { code: i32, output: Vec<u8> },
    /// It could not begin, or this node ended it.
    Failed { cause: String, output: Vec<u8> },
    /// A crash came between; nobody knows.
    Unknown { output: Vec<u8> },
}

/// A piece of what a command printed while it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// In which rollout.
    pub rollout: Rollout,
    /// In which attempt of this node.
    pub attempt: u32,
    /// How many bytes it printed before this piece.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Something that nobody ordered, for the controllers' event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// The app.
    pub app: String,
    /// One line for people.
    pub text: String,
}

/// What this node has of one app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Which app.
    pub app: String,
    /// Version and digest of the release that `current` points to.
    pub release: Option<(String, String)>,
    /// Of its process.
    pub health: Health,
    /// As the edges read it back.
    pub traffic: TrafficState,
    /// As the edges count it.
    pub in_flight: u64,
    /// Where it listens.
    pub port: Option<u16>,
    /// The pool it is a member of.
    pub pool: Option<String>,
    /// The step of an update under way.
    pub step: Option<Step>,
}

/// How an app is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It passes its check.
    Healthy,
    /// It runs and does not.
    Unhealthy,
    /// It does not run.
    Stopped,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
        })
    }
}

/// Where an app stands with the load balancers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrafficState {
    /// It gets new requests.
    In,
    /// It gets no new requests; some are in flight.
    Draining,
    /// It gets nothing.
    Out,
}

impl fmt::Display for TrafficState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Draining => "draining",
            Self::Out => "out",
        })
    }
}
