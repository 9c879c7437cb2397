//! What every command takes that starts a rollout, and how it starts and follows it.

use clap::Args;
use rota_proto::operator::StartRequest;
use rota_rollout::names::{AppName, EnvName, Span};

use super::desk::Desk;
use super::glass::GlassArgs;
use super::outcome::{Exit, Failure};
use super::story::Since;
use super::talk::{self, Format};
use super::{args, follow};
use crate::view::{RolloutView, StartedView};
use crate::words;

/// Why it is started, and how it is followed.
#[derive(Debug, Clone, Args)]
pub struct StartingArgs {
    /// Why, for the history
    #[arg(short, long, value_name = "WHY", default_value = "", hide_default_value = true)]
    #[arg(value_parser = words::why)]
    pub message: String,
    #[command(flatten)]
    pub glass: GlassArgs,
    #[command(flatten)]
    pub follow: FollowArgs,
}

/// How a rollout is followed.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct FollowArgs {
    /// Return as soon as it is started; prints its ID
    #[arg(long)]
    pub detach: bool,
    /// Leave with exit code 3 when it waited this long for something that clears by itself
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = args::duration)]
    pub max_hold: Span,
}

/// Whether it may replace one that runs.
#[derive(Debug, Clone, Args)]
pub struct ReplaceArgs {
    /// Replace a rollout of this app that runs here
    #[arg(long)]
    pub supersede: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl ReplaceArgs {
    /// Asks before a running rollout is replaced; does not bother anyone when none runs.
    pub async fn ask(&self, desk: &Desk, app: &AppName, env: &EnvName) -> Result<(), Failure> {
        if !self.supersede {
            return Ok(());
        }
        let json = match desk.client()?.read(&format!("rollouts/{app}/{env}")).await {
            Ok(json) => json,
            Err(error) => {
                let failure = Failure::from(error);
                return if failure.kind == "not_found" { Ok(()) } else { Err(failure) };
            }
        };
        let running: RolloutView = talk::parse(&json)?;
        if running.finished_at.is_some() {
            return Ok(());
        }
        let (id, to) = (&running.id, &running.to);
        desk.talk.confirm(&format!("replace rollout {id} to {to}, which has not ended?"), self.yes)
    }
}

/// Starts a rollout and follows it.
pub async fn start(desk: &Desk, request: StartRequest, args: &FollowArgs) -> Result<Exit, Failure> {
    let json = desk.client()?.start(request).await?;
    let started: StartedView = talk::parse(&json)?;
    let id = started.id;
    if args.detach {
        desk.talk.say(&format!("started; `rota rollout status {id} -w` follows it"));
        match desk.talk.format {
            Format::Json => desk.talk.data(&talk::pretty(&json)?)?,
            Format::Table => desk.talk.data(&format!("{id}\n"))?,
        }
        return Ok(Exit::Done);
    }
    follow::rollout(desk, &id, Since::ItsStart, args.max_hold).await
}
