//! What is kept: releases, tokens, and the two logs.

use serde::{Deserialize, Serialize};

/// One release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseView {
    /// The app.
    pub app: String,
    /// The version.
    pub version: String,
    /// SHA-256 of the artifact.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// RFC 3339.
    pub created_at: String,
    /// Who pushed it.
    pub who: String,
    /// Environments where it is current.
    pub current_in: Vec<String>,
}

/// One token, without its secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenView {
    /// What `rota token rm` takes.
    pub id: String,
    /// `agent|edge|controller|operator`.
    pub kind: String,
    /// `viewer|deployer|admin`, for operators.
    pub role: Option<String>,
    /// The only name it may be used for.
    pub name: Option<String>,
    /// How often it can still be used.
    pub uses_left: u32,
    /// RFC 3339.
    pub expires_at: String,
}

/// One event of the log, for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Rises by one.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// The app, when it is about one.
    pub app: Option<String>,
    /// The environment, when it is about one.
    pub env: Option<String>,
    /// The rollout, when it is about one.
    pub rollout: Option<String>,
    /// The node, when it is about one.
    pub node: Option<String>,
    /// `rollout|node|edge|controller|release|store`.
    pub kind: String,
    /// One line.
    pub text: String,
    /// Of a rollout: how many of its targets were in traffic then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_traffic: Option<usize>,
    /// Of a node in a rollout: its state then, as in [`NodeProgress`](super::NodeProgress).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditView {
    /// Rises by one.
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    /// The identity that asked, as in its certificate; `-` without one.
    pub who: String,
    /// Where the call came from.
    pub peer: String,
    /// What was asked.
    pub what: String,
    /// On what.
    pub target: String,
    /// Why, in the operator's words.
    pub message: String,
    /// `done`, or `refused: ` and why.
    pub result: String,
}
