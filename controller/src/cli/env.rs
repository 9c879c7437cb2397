//! `rota env`: named fleets, their freezes and their windows.

use clap::Subcommand;
use rota_proto::operator::{EnvVerb, change};
use rota_rollout::names::EnvName;

use super::args::Until;
use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::window::{self, WindowCommand};
use super::{render, talk};
use crate::words;

/// Look at environments, freeze and unfreeze them, say when updates may start
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// List the environments, their freezes and their windows
    #[command(after_help = "Examples:\n  rota env ls")]
    Ls,
    /// Let no new update start in an environment
    #[command(after_help = "Examples:\n  rota env freeze prod -m \"sale\"\n  \
                            rota env freeze prod --until 2h -m \"database move\"\n  \
                            rota env freeze prod --until 2026-11-25T06:00:00Z -m sale")]
    Freeze {
        /// The environment
        env: EnvName,
        /// When it ends by itself: a time, or how long from now
        #[arg(long, value_name = "TIME")]
        until: Option<Until>,
        /// Why, for everyone who waits
        #[arg(short, long, value_name = "WHY", value_parser = words::why)]
        message: String,
    },
    /// Let updates start again
    #[command(after_help = "Examples:\n  rota env unfreeze prod")]
    Unfreeze {
        /// The environment
        env: EnvName,
    },
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        rota env window add prod \"Mon-Fri 22:00-05:00 Europe/Berlin\"\n  \
        rota env window ls prod\n  rota env window rm prod 1"
    )]
    Window(WindowCommand),
}

/// Carries out `rota env`.
pub async fn run(desk: &Desk, command: EnvCommand) -> Result<Exit, Failure> {
    match command {
        EnvCommand::Window(command) => window::run(desk, command).await,
        EnvCommand::Ls => desk.list("envs", &render::ENVS).await,
        EnvCommand::Freeze { env, until, message } => {
            let until = until.map(|until| until.moment(talk::now())).transpose();
            let until = until.map_err(|error| Failure::usage(format!("--until: {error}")))?;
            let done = match &until {
                Some(until) => format!("{env} is frozen until {}", super::words::date(until)),
                None => format!("{env} is frozen; `rota env unfreeze {env}` ends it"),
            };
            let verb = EnvVerb {
                env: env.to_string(),
                verb: "freeze".to_owned(),
                until: until.unwrap_or_default(),
                message,
                ..EnvVerb::default()
            };
            desk.apply(change::Change::Env(verb), &done).await
        }
        EnvCommand::Unfreeze { env } => {
            let verb =
                EnvVerb { env: env.to_string(), verb: "unfreeze".to_owned(), ..EnvVerb::default() };
            desk.apply(change::Change::Env(verb), &format!("{env} takes rollouts again")).await
        }
    }
}
