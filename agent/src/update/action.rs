//! What the machine asks of the shell.

use serde::{Deserialize, Serialize};

use super::{Instance, Said, Side};
use crate::spec::Spec;

/// What the shell must do. Each is harmless when repeated; a new numbered one ends the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "a few live at a time, each for a moment")]
pub enum Action {
    /// Do this and answer with its number.
    Do { number: u64, task: Job },
    /// Tell the controllers.
    Say { rollout: String, attempt: u32, said: Said },
    /// Keep this member as it is, whatever the edges remember.
    Assert { instance: Instance, side: Side },
    /// Tell people what nobody ordered.
    Tell(String),
    /// Remove what no longer serves any purpose on the disk.
    Prune,
}

/// A numbered action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Download, verify, unpack; at once when it is there.
    Fetch(Spec),
    /// Run these scripts in the release's folder.
    Hooks { spec: Spec, which: HookSet, instance: Option<Instance> },
    /// Leave traffic, confirmed. At the deadline the spec's policy decides; `must`: what is left is cut.
    Drain { spec: Spec, instance: Instance, must: bool },
    /// End the process and everything it started. `forget`: its member leaves the pool for good.
    Stop { spec: Spec, instance: Instance, forget: bool },
    /// Point `current` at this release; `None`: at nothing.
    Swap(Option<Spec>),
    /// Start a process with this token, unless it runs already.
    Start { spec: Spec, label: String, token: u64 },
    /// Wait until it is healthy.
    Health { spec: Spec, instance: Instance },
    /// Test it.
    Smoke { spec: Spec, instance: Instance },
    /// Enter traffic, confirmed.
    Join { spec: Spec, instance: Instance },
    /// Watch it for so long.
    Monitor { spec: Spec, instance: Instance, for_ms: u64 },
    /// Do nothing for so long.
    Wait { for_ms: u64 },
}

/// Which of the operator's scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the manifest has them")]
pub enum HookSet {
    BeforeDrain,
    BeforeStart,
    AfterJoin,
    OnFailure,
}
