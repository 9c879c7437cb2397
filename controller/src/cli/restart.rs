//! `rota restart`: what runs, once more, in batches.

use clap::Args;
use rota_proto::operator::{Kind, StartRequest};
use rota_rollout::names::{AppName, EnvName};

use super::desk::Desk;
use super::glass::GlassArgs;
use super::outcome::{Exit, Failure};
use super::rollout::{FollowArgs, may_supersede, start};

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
    /// Why, for the history
    #[arg(short, long, value_name = "WHY", default_value = "", hide_default_value = true)]
    message: String,
    /// Replace a rollout of this app that runs here
    #[arg(long)]
    supersede: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    glass: GlassArgs,
    #[command(flatten)]
    follow: FollowArgs,
}

/// Carries out `rota restart`.
pub async fn restart(desk: &Desk, args: RestartArgs) -> Result<Exit, Failure> {
    if args.supersede {
        may_supersede(desk, &args.app, &args.env, args.yes).await?;
    }
    let request = StartRequest {
        app: args.app.to_string(),
        env: args.env.to_string(),
        message: args.message,
        supersede: args.supersede,
        break_glass: args.glass.break_glass,
        kind: Kind::Restart.into(),
        ..StartRequest::default()
    };
    start(desk, request, &args.follow).await
}
