//! `rota node`: the hosts that run the agent.

use clap::Subcommand;
use rota_proto::operator::{NodeVerb, change};
use rota_rollout::names::{EnvName, NodeName};

use super::converge::{self, ConvergeArgs};
use super::desk::{self, Desk};
use super::drain::{self, DrainArgs, UndrainArgs};
use super::outcome::{Exit, Failure};
use super::render::List;
use super::talk::Format;
use super::{args, render};
use crate::view::NodeView;

/// Look at nodes, take them out of traffic, label or remove them
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List the nodes and what runs there
    #[command(after_help = "Examples:\n  rota node ls\n  rota node ls --env prod\n  \
                            rota node ls -o json")]
    Ls {
        /// Only this environment
        #[arg(long)]
        env: Option<EnvName>,
        /// In the table also nodes that were removed (JSON always has them, as `revoked`)
        #[arg(long)]
        all: bool,
    },
    /// Show one node
    #[command(after_help = "Examples:\n  rota node inspect web-01")]
    Inspect {
        /// The node
        name: NodeName,
    },
    /// Take every app of a node out of traffic, and keep it out until `undrain`
    #[command(
        after_help = "It is refused where an app would have less capacity than its strategy \
        promises.\n\nExamples:\n  rota node drain web-01 -m \"new disk\"\n  \
        rota node drain web-01 --wait --timeout 10m -m \"kernel\"\n  \
        rota node drain web-01 --force -m \"it burns\""
    )]
    Drain(DrainArgs),
    /// Bring a drained node back into traffic
    #[command(after_help = "Examples:\n  rota node undrain web-01\n  \
                            rota node undrain web-01 --wait")]
    Undrain(UndrainArgs),
    Converge(ConvergeArgs),
    /// Set labels of a node; `KEY=` removes one
    #[command(after_help = "Examples:\n  rota node label web-01 zone=a tier=front\n  \
                            rota node label web-01 zone=")]
    Label {
        /// The node
        name: NodeName,
        /// The labels
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = args::label)]
        labels: Vec<(String, String)>,
    },
    /// Forget a node and revoke its certificate
    #[command(after_help = "Examples:\n  rota node rm web-01\n  rota node rm web-01 --yes")]
    Rm {
        /// The node
        name: NodeName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Although it is being updated, or an app would have less than its strategy promises
        #[arg(long)]
        force: bool,
    },
}

/// Carries out `rota node`.
pub async fn run(desk: &Desk, command: NodeCommand) -> Result<Exit, Failure> {
    let verb = |name: &NodeName, verb: &str| NodeVerb {
        name: name.to_string(),
        verb: verb.to_owned(),
        ..NodeVerb::default()
    };
    let (change, done) = match command {
        NodeCommand::Ls { env, all } => return ls(desk, env, all).await,
        NodeCommand::Inspect { name } => {
            return desk.show(&format!("nodes/{name}"), render::node).await;
        }
        NodeCommand::Drain(args) => return drain::drain(desk, args).await,
        NodeCommand::Undrain(args) => return drain::undrain(desk, args).await,
        NodeCommand::Converge(args) => return converge::run(desk, args).await,
        NodeCommand::Label { name, labels } => {
            let labels = labels.into_iter().collect();
            (NodeVerb { labels, ..verb(&name, "label") }, format!("the labels of {name} are set"))
        }
        NodeCommand::Rm { name, yes, force } => {
            let question = format!("forget {name} and revoke its certificate?");
            desk.talk.confirm(&question, yes)?;
            (
                NodeVerb { force, ..verb(&name, "rm") },
                format!("{name} is removed, and its certificate is revoked"),
            )
        }
    };
    desk.apply(change::Change::Node(change), &done).await
}

async fn ls(desk: &Desk, env: Option<EnvName>, all: bool) -> Result<Exit, Failure> {
    let all = all || desk.talk.format == Format::Json;
    let keep = |node: &NodeView| all || node.state != "revoked";
    let path = desk::only("nodes", None, env.as_ref());
    match env {
        None => desk.list_some(&path, &render::NODES, keep).await,
        Some(_) => {
            let nothing = "there is no node in this environment";
            desk.list_some(&path, &List { nothing, ..render::NODES }, keep).await
        }
    }
}
