//! `rota node converge`: nodes that run something else than they should, brought to the current release.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use rota_proto::operator::{Kind, StartRequest};
use rota_rollout::names::{AppName, EnvName, NodeName};

use super::desk::{self, Desk};
use super::outcome::{Exit, Failure};
use super::starting::{StartingArgs, start};
use super::talk;
use crate::view::{DriftView, StatusView};

/// Bring nodes that drifted to the current release of their environment, and follow it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota node converge web-03\n  \
    rota node converge web-03 web-04 -m \"after the new disk\"\n  \
    rota node converge\n  rota node converge --env prod --app shop --detach\n\n\
    Each app gets a rollout that moves only these nodes, within the limits of its strategy. \
    Exit codes are those of `rota deploy`; 0 also when nothing has drifted.")]
pub struct ConvergeArgs {
    /// Only these nodes; default: all that drifted
    nodes: Vec<NodeName>,
    /// Only in this environment
    #[arg(long)]
    env: Option<EnvName>,
    /// Only this app
    #[arg(long)]
    app: Option<AppName>,
    /// Go back although a release's fence forbids it; takes -m
    #[arg(long, requires = "message")]
    break_fence: bool,
    #[command(flatten)]
    start: StartingArgs,
}

/// Carries out `rota node converge`.
pub async fn run(desk: &Desk, args: ConvergeArgs) -> Result<Exit, Failure> {
    let mut client = desk.client()?;
    for node in &args.nodes {
        client.read(&format!("nodes/{node}")).await?; // a slip of the pen is no node in order
    }
    let path = desk::only("status", args.app.as_ref(), args.env.as_ref());
    let status: StatusView = talk::parse(&client.read(&path).await?)?;
    let wanted = |drift: &&DriftView| {
        let named =
            args.nodes.is_empty() || args.nodes.iter().any(|node| node.as_str() == drift.node);
        named && drift.should.is_some()
    };
    let mut groups: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for drift in status.drift.iter().filter(wanted) {
        groups.entry((&drift.app, &drift.env)).or_default().insert(&drift.node);
    }
    if groups.is_empty() {
        let running: Vec<String> = status.rollouts.into_iter().map(|view| view.id).collect();
        desk.talk.say(&match running.as_slice() {
            [] => "nothing to do: they run what they should".to_owned(),
            ids => format!(
                "nothing to do: they run what they should, or are being moved by {}",
                desk::list(ids)
            ),
        });
        return Ok(Exit::Done);
    }
    let mut worst = Exit::Done;
    for ((app, env), nodes) in groups {
        let names: Vec<String> = nodes.iter().map(ToString::to_string).collect();
        desk.talk.say(&format!("{app} in {env}: {}", names.join(", ")));
        let message = match args.start.message.as_str() {
            "" => format!("converges: {}", crate::words::names(nodes.iter().copied())),
            why => why.to_owned(),
        };
        let request = StartRequest {
            app: app.to_owned(),
            env: env.to_owned(),
            message,
            kind: Kind::Converge.into(),
            nodes: names,
            break_glass: args.start.glass.break_glass,
            break_fence: args.break_fence,
            ..StartRequest::default()
        };
        let exit = start(desk, request, &args.start.follow).await?;
        if exit != Exit::Done {
            worst = exit;
        }
    }
    Ok(worst)
}
