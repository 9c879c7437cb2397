//! What an attempt of a node left behind: times, curves, outputs.

use serde::{Deserialize, Serialize};

/// What one attempt of one node left behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TraceView {
    /// The node.
    pub node: String,
    /// The attempt; of the once-per-release job if `once`.
    pub attempt: u32,
    /// It was the once-per-release job.
    #[serde(default)]
    pub once: bool,
    /// How long each step took, in order.
    pub steps: Vec<StepTimeView>,
    /// What was in flight, from the drain's begin until the node was back.
    pub in_flight: Vec<PointView>,
    /// The app did not end within its `stop_timeout`.
    pub killed: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// What scripts, tests, the app or the command printed.
    pub outputs: Vec<PrintedView>,
    /// Of a command that ended by itself.
    pub exit_code: Option<i32>,
    /// How long the command took.
    pub took_ms: Option<u64>,
}

/// How long one step took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepTimeView {
    /// `fetch|drain|stop|swap|start|health|smoke|join|monitor|restore`.
    pub step: String,
    /// In milliseconds.
    pub took_ms: u64,
}

/// What was in flight at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PointView {
    /// Since the drain began.
    pub at_ms: u64,
    /// Requests that the node had not finished.
    pub in_flight: u64,
}

/// What something printed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PrintedView {
    /// `app|smoke|once|command`, or a hook: `before_drain`, ...
    pub what: String,
    /// The tail of it.
    pub output: String,
    /// How many bytes it was in all, of a command; 0: not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
}

impl PrintedView {
    /// What it was that printed, and how much of the beginning is not kept.
    pub fn headline(&self) -> String {
        let what = crate::words::clean(&self.what);
        match self.bytes.saturating_sub(self.output.len() as u64) {
            0 => format!("{what} printed"),
            dropped => {
                format!("{what} printed, after {} that are not kept", crate::words::bytes(dropped))
            }
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A piece of what a command prints while it runs. Bytes that are no letters are question marks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LiveView {
    /// Where.
    pub node: String,
    /// In which attempt.
    pub attempt: u32,
    /// How many bytes were printed before this piece.
    pub offset: u64,
    /// Whole lines.
    pub text: String,
}
