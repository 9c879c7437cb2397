//! What the world tells a rollout. Time comes in here and nowhere else.

use crate::batches::Target;
use crate::names::{Attempt, NodeName, Release, Timestamp};
use crate::node::{Observed, Report};
use crate::shut::Closed;
use crate::verbs::Verb;

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, by the controller's clock.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The rollout was admitted: begin.
    Started,
    /// A node reports on an attempt.
    Reported { node: NodeName, attempt: Attempt, report: Report },
    /// The fleet's view of a node changed. `runs`: the release of this app that it runs now.
    Observed { node: NodeName, observed: Observed, runs: Option<Release> },
    /// Everything around it as it is known now: taken in as a whole before anything goes on, so that nothing is begun
    /// by half of it.
    Around(Box<Around>),
    /// A node that the rollout's target means is here and is not in it, or is and has nothing any more.
    Newcomer(Target),
    /// The once-per-release job ended, as the node that ran it says.
    OnceEnded { node: NodeName, attempt: Attempt, result: OnceResult },
    /// An operator asks for something; already found to be allowed.
    Asked { verb: Verb, who: String },
    /// The environment was frozen (and why), or is no longer.
    Frozen(Option<String>),
    /// The environment's windows closed, or opened.
    Closed(Option<Closed>),
    /// The edges of its pool that are offline now; empty: all are here.
    EdgesOffline(Vec<NodeName>),
    /// The clock moved; a deadline may have passed.
    Tick,
}

/// What the owner of a rollout knows beside its own reports: of the environment, and of the nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    /// As [`What::Frozen`].
    pub frozen: Option<String>,
    /// As [`What::Closed`].
    pub closed: Option<Closed>,
    /// As [`What::EdgesOffline`].
    pub edges_offline: Vec<NodeName>,
    /// As [`What::Observed`]: those of which anything is known.
    pub nodes: Vec<(NodeName, Observed, Option<Release>)>,
}

/// How the once-per-release job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnceResult {
    /// With exit code 0.
    Succeeded,
    /// Otherwise.
    Failed { text: String, output: String },
    /// A crash came between; whether it took effect is not known.
    Unknown,
    /// It certainly never began.
    NeverBegan,
}
