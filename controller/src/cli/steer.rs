//! Verbs of a running rollout: what they are told, and how they are asked.

use clap::Args;
use rota_proto::operator::{RolloutVerb, change};
use rota_rollout::names::NodeName;

use super::args::RolloutRef;
use super::desk::Desk;
use super::glass::GlassArgs;
use super::outcome::{Exit, Failure};
use crate::words;

/// What most verbs are told.
#[derive(Debug, Args)]
pub struct VerbArgs {
    /// APP/ENV/REVISION, or APP/ENV for the latest
    pub id: RolloutRef,
    /// Why, for the audit log
    #[arg(short, long, value_name = "WHY", default_value = "", hide_default_value = true)]
    #[arg(value_parser = words::why)]
    pub message: String,
}

/// What verbs are told that cannot be taken back.
#[derive(Debug, Args)]
pub struct SureVerbArgs {
    #[command(flatten)]
    pub verb: VerbArgs,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

/// What verbs are told that start updates.
#[derive(Debug, Args)]
pub struct GlassVerbArgs {
    #[command(flatten)]
    pub verb: VerbArgs,
    #[command(flatten)]
    pub glass: GlassArgs,
}

/// What `rollback` is told.
#[derive(Debug, Args)]
pub struct RollbackArgs {
    #[command(flatten)]
    pub sure: SureVerbArgs,
    /// Go back although a release's fence forbids it; takes -m
    #[arg(long, requires = "message")]
    pub break_fence: bool,
    #[command(flatten)]
    pub glass: GlassArgs,
}

/// What `retry` is told.
#[derive(Debug, Args)]
pub struct NodesVerbArgs {
    #[command(flatten)]
    pub verb: VerbArgs,
    #[command(flatten)]
    pub glass: GlassArgs,
    /// Only these nodes
    pub nodes: Vec<NodeName>,
}

/// What `skip` is told.
#[derive(Debug, Args)]
pub struct SkipArgs {
    #[command(flatten)]
    pub verb: VerbArgs,
    /// These nodes
    #[arg(required = true)]
    pub nodes: Vec<NodeName>,
}

/// A verb of a rollout, before its rollout and reason are known.
pub fn asking(verb: &str) -> RolloutVerb {
    RolloutVerb { verb: verb.to_owned(), ..RolloutVerb::default() }
}

/// Asks it of a rollout, and says what was done.
pub async fn steer(
    desk: &Desk,
    args: VerbArgs,
    wanted: RolloutVerb,
    done: &str,
) -> Result<Exit, Failure> {
    let id = args.id.to_string();
    let done = format!("rollout {id} {done}; `rota rollout status {id} -w` follows it");
    let change = RolloutVerb { id, message: args.message, ..wanted };
    desk.apply(change::Change::Rollout(change), &done).await
}
