//! A new rollout, as it is asked for.

use std::collections::BTreeSet;

use rota_rollout::names::{AppName, EnvName, NodeName, Revision, Version};
use rota_rollout::rollout::Kind;

use crate::engine::RunAsked;
use crate::manifest::Manifest;

/// A new rollout, as asked.
#[derive(Debug, Clone)]
pub struct Start {
    /// What.
    pub app: AppName,
    /// Where.
    pub env: EnvName,
    /// To which release; `None` with undo and restart.
    pub version: Option<Version>,
    /// A manifest whose strategy and target count instead of the release's own.
    pub manifest: Option<Given>,
    /// What sort of movement.
    pub kind: Kind,
    /// Undo: to this revision.
    pub to_revision: Option<Revision>,
    /// Why.
    pub message: String,
    /// Replace a rollout that runs.
    pub supersede: bool,
    /// Plan: the artifact that would be pushed.
    pub digest: Option<rota_rollout::Digest>,
    /// Go back although a fence forbids it; then `message` says why.
    pub break_fence: bool,
    /// Only these nodes are moved, although the others count.
    pub only: Option<BTreeSet<NodeName>>,
    /// Heed no freeze and no window, and why.
    pub break_glass: Option<String>,
    /// Nobody asked for it: nodes catch up.
    pub by_itself: bool,
    /// A command is run, and nothing moved.
    pub run: Option<RunAsked>,
}

impl Start {
    /// The plainest rollout of this sort.
    pub fn new(app: AppName, env: EnvName, kind: Kind) -> Self {
        Self {
            app,
            env,
            version: None,
            manifest: None,
            kind,
            to_revision: None,
            message: String::new(),
            supersede: false,
            digest: None,
            break_fence: false,
            only: None,
            break_glass: None,
            by_itself: false,
            run: None,
        }
    }
}

/// A manifest as an operator sent it.
#[derive(Debug, Clone)]
pub struct Given {
    /// Checked.
    pub manifest: Manifest,
    /// As it was written.
    pub text: String,
    /// Its name as the operator wrote it.
    pub name: String,
}
