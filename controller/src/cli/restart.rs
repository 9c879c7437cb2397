//! `rota restart`: what runs, once more, in batches.

use clap::Args;
use rota_proto::operator::{Kind, StartRequest};
use rota_rollout::names::{AppName, EnvName};

use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::starting::{ReplaceArgs, StartingArgs, start};

/// Restart what runs, in batches, and follow it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota restart shop --env prod\n  \
    rota restart shop --env prod -m \"new certificates\" --detach\n  \
    rota restart shop --env prod --supersede --yes")]
pub struct RestartArgs {
    /// The app
    app: AppName,
    /// The environment
    #[arg(long)]
    env: EnvName,
    #[command(flatten)]
    replace: ReplaceArgs,
    #[command(flatten)]
    start: StartingArgs,
}

/// Carries out `rota restart`.
pub async fn restart(desk: &Desk, args: RestartArgs) -> Result<Exit, Failure> {
    args.replace.ask(desk, &args.app, &args.env).await?;
    let request = StartRequest {
        app: args.app.to_string(),
        env: args.env.to_string(),
        message: args.start.message,
        supersede: args.replace.supersede,
        break_glass: args.start.glass.break_glass,
        kind: Kind::Restart.into(),
        ..StartRequest::default()
    };
    start(desk, request, &args.start.follow).await
}
