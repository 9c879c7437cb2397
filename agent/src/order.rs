//! What a controller asks of this node, checked; `wire.rs` makes it, the journal keeps it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::names::is_label;
use crate::spec::Spec;
use crate::update::UpdateOrder;

pub use crate::update::Direction;

/// One order of one rollout's owner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Of the owner; an older one than this node has seen for the rollout is refused.
    pub term: u64,
    /// Whose order it is.
    pub rollout: Rollout,
    /// Of this node in this rollout; a repeat is answered with progress.
    pub attempt: u32,
    /// What is to be done.
    pub work: Work,
}

/// `APP/ENV/REVISION`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rollout {
    /// What is rolled out: a DNS label.
    pub app: String,
    /// Where: a DNS label.
    pub env: String,
    /// The how-manieth movement there, from 1.
    pub revision: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Fetch, verify and unpack; touch nothing that runs.
    Prepare(Box<Spec>),
    /// Move this node to a release.
    Update(Box<Update>),
    /// Run the once-per-release job.
    Once(Box<Once>),
    /// Run an operator's command beside the app.
    Run(Box<Command>),
    /// The rollout is over: stop watching, and keep only these releases, by the names of their folders
    /// (or their digests), besides the current one and its predecessor.
    Settle { keep: Vec<String> },
}

/// One node's update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What to end on.
    pub release: Spec,
    /// Which way this goes.
    pub direction: Direction,
    /// Which of two instances comes first.
    pub start_order: StartOrder,
    /// What a failed update leaves.
    pub on_failure: OnFailure,
    /// How long the node is watched after it joined.
    pub monitor: Duration,
    /// Every edge of the pool, as known when the order was made.
    pub edges: Vec<Edge>,
}

impl Update {
    /// In the words of the machine that carries it out. The edges are the shell's business.
    pub fn into_order(self, rollout: &Rollout, term: u64, attempt: u32) -> UpdateOrder {
        UpdateOrder {
            rollout: rollout.to_string(),
            term,
            attempt,
            spec: self.release,
            direction: self.direction,
            start_first: self.start_order == StartOrder::StartFirst,
            leave_on_failure: self.on_failure == OnFailure::Leave,
            monitor_ms: u64::try_from(self.monitor.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// Which of two instances comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartOrder {
    /// The old one stops, then the new one starts.
    StopFirst,
    /// The new one starts beside the old one, which then stops.
    StartFirst,
}

/// What a failed update leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// The previous release, running again.
    Restore,
    /// Things as they are, out of traffic, for inspection.
    Leave,
}

/// The once-per-release job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// In whose folder it runs.
    pub release: Spec,
    /// Its command line, before substitutions.
    pub command: Vec<String>,
    /// Then it is killed.
    pub timeout: Duration,
}

/// An operator's command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its command line, before substitutions.
    pub argv: Vec<String>,
    /// Then it is killed.
    pub timeout: Duration,
}

/// One edge of one pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// The edge's name: a DNS label, and what its certificate must say.
    pub name: String,
    /// The pool: a DNS label.
    pub pool: String,
    /// HOST:PORT of its `Traffic` service.
    pub address: String,
}

/// What controllers tell every agent of the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    /// HOST:PORT of all controllers.
    pub controllers: Vec<String>,
    /// The edges of this environment.
    pub edges: Vec<Edge>,
    /// For edges: certificates of nodes that count no more.
    pub banned: Vec<Banned>,
}

/// A node's certificate that counts no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Banned {
    /// Its number, as certificates are read.
    pub serial: String,
    /// Whose it was.
    pub node: String,
    /// No node of this name is in the fleet now.
    pub gone: bool,
}

/// What the operators want of this node as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Nothing special.
    Serving,
    /// Keep every app of this node out of traffic until told otherwise.
    Drained,
}

impl fmt::Display for Rollout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.app, self.env, self.revision)
    }
}

impl FromStr for Rollout {
    type Err = BadRollout;
    fn from_str(text: &str) -> Result<Self, BadRollout> {
        let bad = || BadRollout { text: text.to_owned() };
        let mut parts = text.split('/');
        let (Some(app), Some(env), Some(revision), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let revision: u64 = revision.parse().map_err(|_| bad())?;
        if !is_label(app) || !is_label(env) || revision == 0 {
            return Err(bad());
        }
        Ok(Self { app: app.to_owned(), env: env.to_owned(), revision })
    }
}

impl TryFrom<String> for Rollout {
    type Error = BadRollout;
    fn try_from(text: String) -> Result<Self, BadRollout> {
        text.parse()
    }
}

impl From<Rollout> for String {
    fn from(rollout: Rollout) -> String {
        rollout.to_string()
    }
}

/// A text that is not `APP/ENV/REVISION`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is {text:?}, not APP/ENV/REVISION such as `shop/prod/14`")]
pub struct BadRollout {
    text: String,
}
