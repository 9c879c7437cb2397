//! One node of a rollout: its phases and the table of their transitions.

mod clock;
mod report;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{Attempt, Release, Timestamp};

pub use report::{Failure, Measured, Report};

/// The record of one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The number of its batch, from 1.
    pub batch: usize,
    /// The n-th time it is asked; 0 before the first.
    pub attempt: Attempt,
    /// Where it is in this rollout.
    pub phase: Phase,
    /// What the fleet last said of it.
    pub observed: Observed,
    /// The release it ran, proven healthy, before this rollout.
    pub previous: Option<Release>,
    /// The release it runs now, as last heard.
    pub runs: Option<Release>,
    /// What its updates measured, summed over the attempts.
    pub measured: Measured,
    /// Of these, what the attempts before the newest measured.
    #[serde(default)]
    pub earlier: Measured,
    /// Since when it is out of traffic without an update that would measure it.
    #[serde(default)]
    pub out_since: Option<Timestamp>,
    /// Why it was taken back, when it had failed: its phase does not say it any more.
    #[serde(default)]
    pub broke: Option<Cause>,
    /// Its value of the label that the strategy spreads by.
    #[serde(default)]
    pub spread: Option<String>,
}

/// What the fleet says of a node, apart from this rollout's own reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Does its agent answer?
    pub online: bool,
    /// Does the app serve there?
    pub serving: Serving,
    /// Is another rollout updating it?
    pub busy: bool,
    /// Did an operator drain it?
    pub drained: bool,
    /// May that change by itself? It is not heard here, or says that an update is under way which this rollout does not
    /// wait for, or does no more.
    #[serde(default)]
    pub unsure: bool,
}

/// Does the app serve on a node?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Serving {
    /// It was never there: the node is no capacity yet.
    Absent,
    /// It is healthy and in traffic.
    In,
    /// It is out of traffic, unhealthy or stopped.
    Out,
}

/// Which way an update goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// To the rollout's release.
    Forward,
    /// To the release the node ran before.
    Back,
}

/// Where a node is in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Not asked for anything yet.
    Waiting,
    /// Fetching, verifying and unpacking, while it serves.
    Preparing { deadline: Timestamp },
    /// The release is on its disk; its turn comes.
    Ready,
    /// Its update is ordered; what it last said it does. `takes_out`: it served when it was asked.
    Updating { direction: Direction, step: Option<StepName>, deadline: Timestamp, takes_out: bool },
    /// In traffic on what it was asked to run, and watched.
    Monitoring { direction: Direction, deadline: Timestamp },
    /// It runs the rollout's release, proven.
    Done,
    /// It does not; `left` says what it was left as.
    Failed { cause: Cause, left: Left },
    /// It was left alone.
    Skipped { why: Skip },
    /// It runs again what it ran before this rollout.
    RolledBack,
}

/// The steps of an update, as nodes report them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepName {
    /// Download, verify, unpack.
    Fetch,
    /// Leave traffic.
    Drain,
    /// End the old process.
    Stop,
    /// Point `current` at the new release.
    Swap,
    /// Begin the new process.
    Start,
    /// Wait until it is ready.
    Health,
    /// Test it out of traffic.
    Smoke,
    /// Enter traffic.
    Join,
    /// Watch it in traffic.
    Monitor,
    /// Put the previous release back.
    Restore,
    /// Run a command; the app is not touched.
    Run,
}

impl fmt::Display for StepName {
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
            Self::Run => "run",
        })
    }
}

/// Why a node failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Where it failed; `None`: the controller says so, not the node.
    pub step: Option<StepName>,
    /// One line.
    pub text: String,
    /// The tail of what the app or script printed; may be empty.
    pub output: String,
    /// The direction it was going.
    pub direction: Direction,
    /// Nothing was heard from it in time; a late report still counts.
    pub silent: bool,
}

/// What a failed node was left as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    /// On the release it ran before, healthy and in traffic.
    Restored,
    /// Out of traffic.
    Out,
    /// As it was: nothing was done to the app.
    Untouched,
    /// Nobody knows.
    Unknown,
}

/// Why a node was left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Skip {
    /// It already runs the release, healthy.
    AlreadyCurrent,
    /// It is offline, and the strategy skips such nodes until they return.
    Offline,
    /// An operator drained it; it catches up when it is undrained.
    Drained,
    /// An operator said so.
    ByOperator,
    /// Only nodes that were away are meant.
    NotMeant,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AlreadyCurrent => "already runs this release, healthy",
            Self::Offline => "offline; it catches up when it returns",
            Self::Drained => "drained by an operator; it catches up when it is undrained",
            Self::ByOperator => "skipped by an operator",
            Self::NotMeant => "left as it is: only other nodes are meant",
        })
    }
}

/// A report that does not fit the phase: refused, and nothing moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfOrder;

/// How long the next phase may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    /// For the monitor time, with slack.
    pub monitoring: Timestamp,
}

impl Phase {
    /// The phase after a report. This is the whole table: what is not listed is refused.
    pub fn on(&self, report: &Report, deadlines: Deadlines) -> Result<Self, OutOfOrder> {
        use Report as R;
        match (self, report) {
            (Self::Preparing { .. }, R::Prepared) => Ok(Self::Ready),
            (Self::Preparing { .. }, R::Began { .. }) => Ok(self.clone()),
            (Self::Preparing { .. }, R::Failed(failure)) => Ok(failure.phase(Direction::Forward)),
            (Self::Updating { direction, deadline, takes_out, .. }, R::Began { step, .. }) => {
                Ok(Self::Updating {
                    direction: *direction,
                    step: Some(*step),
                    deadline: *deadline,
                    takes_out: *takes_out,
                })
            }
            (Self::Updating { direction, .. }, R::Joined(_)) => {
                Ok(Self::Monitoring { direction: *direction, deadline: deadlines.monitoring })
            }
            (Self::Updating { direction, .. } | Self::Monitoring { direction, .. }, R::Done(_)) => {
                Ok(direction.end())
            }
            (
                Self::Updating { direction, .. } | Self::Monitoring { direction, .. },
                R::Failed(failure),
            ) => Ok(failure.phase(*direction)),
            (Self::Done, R::Broken { cause, output }) => {
                Ok(broken(Direction::Forward, cause, output))
            }
            // It had been done, and that report was lost.
            (
                Self::Updating { direction, .. } | Self::Monitoring { direction, .. },
                R::Broken { cause, output },
            ) => Ok(broken(*direction, cause, output)),
            (Self::Failed { cause, .. }, late) if cause.silent => Self::late(cause.direction, late),
            (_, _) => Err(OutOfOrder),
        }
    }

    /// What a report means that comes after the controller had given up waiting for it. Only an end counts: its place
    /// among the nodes under way may be another's by now.
    fn late(direction: Direction, report: &Report) -> Result<Self, OutOfOrder> {
        match report {
            Report::Done(_) => Ok(direction.end()),
            Report::Failed(failure) => Ok(failure.phase(direction)),
            Report::Broken { cause, output } => Ok(broken(direction, cause, output)),
            Report::Prepared | Report::Began { .. } | Report::Joined(_) => Err(OutOfOrder),
        }
    }

    /// Is this node under way right now?
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Updating { .. } | Self::Monitoring { .. })
    }

    /// Does its update take it out of traffic, or has it?
    pub fn takes_out(&self) -> bool {
        matches!(self, Self::Updating { takes_out: true, .. })
    }

    /// Does nobody wait for its update any more, without knowing what came of it?
    pub fn is_given_up(&self) -> bool {
        let silent = matches!(self, Self::Failed { left: Left::Unknown, .. });
        silent || matches!(self, Self::Skipped { why: Skip::ByOperator })
    }

    /// Has this node nothing more to do, going forward?
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Done | Self::Failed { .. } | Self::Skipped { .. } | Self::RolledBack)
    }

    /// Until when is something expected of this node?
    pub fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Preparing { deadline }
            | Self::Updating { deadline, .. }
            | Self::Monitoring { deadline, .. } => Some(*deadline),
            Self::Waiting
            | Self::Ready
            | Self::Done
            | Self::Failed { .. }
            | Self::Skipped { .. }
            | Self::RolledBack => None,
        }
    }
}

impl Direction {
    /// The phase in which an update of this direction ends well.
    fn end(self) -> Phase {
        match self {
            Self::Forward => Phase::Done,
            Self::Back => Phase::RolledBack,
        }
    }
}

impl Failure {
    fn phase(&self, direction: Direction) -> Phase {
        let cause = Cause {
            step: Some(self.step),
            text: self.text.clone(),
            output: self.output.clone(),
            direction,
            silent: false,
        };
        Phase::Failed { cause, left: self.left }
    }
}

fn broken(direction: Direction, text: &str, output: &str) -> Phase {
    let cause = Cause {
        step: Some(StepName::Monitor),
        text: text.to_owned(),
        output: output.to_owned(),
        direction,
        silent: false,
    };
    Phase::Failed { cause, left: Left::Out }
}

impl Node {
    /// A target that nothing was asked of yet.
    pub fn waiting(batch: usize, observed: Observed, runs: Option<Release>) -> Self {
        Self {
            batch,
            attempt: Attempt(0),
            phase: Phase::Waiting,
            observed,
            previous: runs.clone(),
            runs,
            measured: Measured::default(),
            earlier: Measured::default(),
            out_since: None,
            broke: None,
            spread: None,
        }
    }

    /// Is it, for whatever reason, capacity that does not serve now?
    pub fn is_out(&self) -> bool {
        if let Phase::Updating { takes_out: true, .. } = self.phase {
            return true;
        }
        match self.observed.serving {
            Serving::Absent => false,
            // Whose update was ordered, and is waited for no more, may be on its way out.
            Serving::In => {
                !self.observed.online || (self.observed.unsure && self.out_since.is_some())
            }
            Serving::Out => true,
        }
    }

    /// Is it in traffic now, as far as anybody knows? Whose update was ordered serves until its drain begins.
    pub fn is_in_traffic(&self) -> bool {
        let left = matches!(
            self.phase,
            Phase::Updating { takes_out: true, step: Some(step), .. } if step >= StepName::Drain
        );
        self.observed.serving == Serving::In && self.observed.online && !left
    }

    /// Does it serve now, and is nobody about to take it out?
    pub fn is_serving(&self) -> bool {
        self.observed.serving == Serving::In && !self.is_out()
    }
}

#[cfg(test)]
mod tests;
