//! `--break-glass`: one rollout goes on although its environment is frozen or closed.

use clap::Args;

/// Whether the glass is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct GlassArgs {
    /// Heed no freeze and no window with this rollout; needs -m, and is written into the audit log
    #[arg(long, requires = "message")]
    pub break_glass: bool,
}
