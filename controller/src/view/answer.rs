//! The answers to what changes something, and the refusal of it.

use serde::{Deserialize, Serialize};

/// The answer to `Start`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartedView {
    /// `APP/ENV/REVISION`.
    pub id: String,
}

/// The answer to `Apply` with `create_token`: the only time that the secret is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewTokenView {
    /// The whole token, as `--token` takes it.
    pub token: String,
    /// What `rota token rm` takes.
    pub id: String,
    /// RFC 3339.
    pub expires_at: String,
}

/// The answer to every other `Apply`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppliedView {
    /// What was done and what stands now, in one line for people.
    pub text: String,
}

/// An error, as `-o json` and `/api/v1` print it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ErrorView {
    /// `usage|manifest|refused|not_found|unreachable|not_permitted|store|internal`; the CLI adds the
    /// state of a rollout that did not complete: `held|paused|failed|partial|aborted|rolled_back`.
    pub kind: String,
    /// What is wrong, with the name of the thing.
    pub message: String,
    /// The way out; may be empty.
    pub hint: String,
}
