//! `rota controller`: the controllers themselves, and how one is taken out of service.

use std::time::Duration;

use clap::Subcommand;
use rota_proto::operator::{ControllerVerb, change};
use rota_rollout::names::ControllerName;
use tokio::time::sleep;

use super::desk::{self, Desk};
use super::outcome::{Exit, Failure};
use super::render;
use super::talk;
use crate::view::ControllerView;

/// Between two looks at a controller that drains; it has no stream to follow.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Look at controllers, drain and undrain them, forget lost ones
#[derive(Debug, Subcommand)]
pub enum ControllerCommand {
    /// List the controllers and the rollouts that they run
    #[command(after_help = "Examples:\n  rota controller ls")]
    Ls,
    /// Let a controller finish what it runs and take nothing new
    #[command(after_help = "Examples:\n  rota controller drain c1 --wait\n  \
                            rota controller drain c1 --handover --wait\n  \
                            rota controller drain c1 --force --wait")]
    Drain {
        /// The controller
        name: ControllerName,
        /// Hand its rollouts to the others at once
        #[arg(long)]
        handover: bool,
        /// Although it is the last one: until it is undrained or started again, nothing new begins
        #[arg(long)]
        force: bool,
        /// Return when it is idle
        #[arg(long)]
        wait: bool,
    },
    /// Forget a controller that is lost, and revoke its certificates
    #[command(after_help = "Examples:\n  rota controller rm c3\n  rota controller rm c3 --yes\n\n\
                            It is refused while the controller is running. The lost host still has \
                            the CA's key on its disk.")]
    Rm {
        /// The controller
        name: ControllerName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Let it work again
    #[command(after_help = "Examples:\n  rota controller undrain c1")]
    Undrain {
        /// The controller
        name: ControllerName,
    },
}

/// Carries out `rota controller`.
pub async fn run(desk: &Desk, command: ControllerCommand) -> Result<Exit, Failure> {
    let verb = |name: &ControllerName, verb: &str, handover, force| {
        change::Change::Controller(ControllerVerb {
            name: name.to_string(),
            verb: verb.to_owned(),
            handover,
            force,
        })
    };
    match command {
        ControllerCommand::Ls => desk.list("controllers", &render::CONTROLLERS).await,
        ControllerCommand::Drain { name, handover, force, wait } => {
            let done = format!("{name} takes nothing new");
            desk.apply(verb(&name, "drain", handover, force), &done).await?;
            if wait { drained(desk, &name).await } else { Ok(Exit::Done) }
        }
        ControllerCommand::Rm { name, yes } => {
            desk.talk.confirm(&format!("forget controller {name}?"), yes)?;
            let done = format!("controller {name} is forgotten and its certificates are revoked");
            desk.apply(verb(&name, "rm", false, false), &done).await
        }
        ControllerCommand::Undrain { name } => {
            desk.apply(verb(&name, "undrain", false, false), &format!("{name} works again")).await
        }
    }
}

/// Waits until a controller is idle.
async fn drained(desk: &Desk, name: &ControllerName) -> Result<Exit, Failure> {
    let mut client = desk.client()?;
    let mut told: Option<Vec<String>> = None;
    loop {
        let all: Vec<ControllerView> = talk::parse(&client.read("controllers").await?)?;
        let Some(view) = all.into_iter().find(|view| view.name == name.as_str()) else {
            return Err(Failure::new("not_found", format!("controller {name} is gone")));
        };
        match view.state.as_str() {
            "draining" => {}
            "drained" => {
                desk.talk.say(&format!("{name} is idle: it can be stopped"));
                return Ok(Exit::Done);
            }
            "lost" => {
                let message = format!("controller {name} was lost while it drained");
                return Err(Failure::new("refused", message)
                    .hint("`rota controller ls` shows who owns its rollouts now"));
            }
            state => {
                let message = format!("controller {name} is {state} again: somebody undrained it");
                return Err(Failure::new("refused", message));
            }
        }
        if told.as_ref() != Some(&view.rollouts) {
            desk.talk.say(&format!("{name} still runs {}", desk::list(&view.rollouts)));
            told = Some(view.rollouts);
        }
        sleep(LOOK_EVERY).await;
    }
}
