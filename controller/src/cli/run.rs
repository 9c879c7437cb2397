//! `rota run`: a command on the nodes that run an app, batch by batch, and what it printed there.

use clap::Args;
use rota_proto::operator::{Kind, StartRequest};
use rota_rollout::names::{AppName, EnvName, NodeName, Span};
use serde::Serialize;
use tokio::sync::mpsc;

use super::desk::Desk;
use super::follow::{self, Feed};
use super::outcome::{Exit, Failure};
use super::printed::Outputs;
use super::starting::StartingArgs;
use super::talk::{self, Format};
use super::watch::Watch;
use super::{args, ending};
use crate::view::{RolloutView, StartedView, StatusView, TraceView};

/// Run a command on the nodes that run an app, batch by batch, and show what it prints
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota run shop --env prod -- ./shop check\n  \
    rota run shop --on web-01 --timeout 30s -- ./shop cache clear\n  \
    rota run shop --env prod --batch 1 -m \"new index\" -- ./shop reindex --all\n\n\
    It runs as the app's user, in the folder of the release that runs there, with the app's \
    environment, at most once on each node. No node leaves traffic for it. The command is \
    written into the audit log: put no secrets on its command line.\n\n\
    Exit codes: 0 it succeeded on all nodes, 3 not. Ctrl-C detaches (130); it never stops a run.")]
pub struct RunArgs {
    /// The app
    app: AppName,
    /// The environment; may be left out where the app has only one
    #[arg(long)]
    env: Option<EnvName>,
    /// Only on this node; may be given several times
    #[arg(long, value_name = "NODE")]
    on: Vec<NodeName>,
    /// How many nodes at once: a number, or a percentage of them
    #[arg(long, value_name = "N|N%", default_value = "25%")]
    batch: String,
    /// Then it is killed on a node, with all that it forked
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = args::some_duration)]
    timeout: Span,
    /// Go no further when it failed on more nodes than this
    #[arg(long, value_name = "N", default_value = "0")]
    max_failures: u32,
    #[command(flatten)]
    start: StartingArgs,
    /// The command; substitutions as in the manifest: {version}, {node}, ...
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// What a command came to on one node.
#[derive(Debug, Serialize)]
struct Ran<'a> {
    node: &'a str,
    /// `done|failed|skipped|pending`.
    state: &'a str,
    /// Absent where it did not end by itself, or did not begin.
    exit_code: Option<i32>,
    output: String,
    took_ms: Option<u64>,
    attempt: u32,
    error: Option<&'a str>,
}

/// Carries out `rota run`.
pub async fn run(desk: &Desk, args: RunArgs) -> Result<Exit, Failure> {
    let env = match args.env {
        Some(env) => env.to_string(),
        None => only_env(desk, &args.app).await?,
    };
    let request = StartRequest {
        app: args.app.to_string(),
        env,
        message: args.start.message,
        kind: Kind::Run.into(),
        break_glass: args.start.glass.break_glass,
        run_command: args.command,
        run_timeout_ms: args.timeout.0,
        run_on: args.on.iter().map(ToString::to_string).collect(),
        run_batch: args.batch,
        run_max_failures: args.max_failures,
        ..StartRequest::default()
    };
    let json = desk.client()?.start(request).await?;
    let StartedView { id } = talk::parse(&json)?;
    if args.start.follow.detach {
        desk.talk.say(&format!("started; `rota rollout inspect {id}` shows what it printed"));
        match desk.talk.format {
            Format::Json => desk.talk.data(&talk::pretty(&json)?)?,
            Format::Table => desk.talk.data(&format!("{id}\n"))?,
        }
        return Ok(Exit::Done);
    }
    follow(desk, &id, args.start.follow.max_hold).await
}

/// The environment that is meant when none is named.
async fn only_env(desk: &Desk, app: &AppName) -> Result<String, Failure> {
    let status: StatusView = talk::parse(&desk.client()?.read("status").await?)?;
    let envs: Vec<String> = status
        .fleets
        .into_iter()
        .filter(|fleet| fleet.app == app.as_str())
        .map(|fleet| fleet.env)
        .collect();
    match envs.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::usage(format!("{app} runs in no environment that you may see"))
            .hint("`rota status` lists what runs where")),
        several => Err(Failure::usage(format!("{app} runs in {}", several.join(", ")))
            .hint("say which one is meant: --env ENV")),
    }
}

/// Shows what each node printed as it comes in, and says how it ended.
async fn follow(desk: &Desk, id: &str, max_hold: Span) -> Result<Exit, Failure> {
    let mut pressed = follow::ctrl_c()?;
    let mut feed = follow::feed(desk.client()?, format!("rollouts/{id}"), 0, |_| 0);
    let mut watch = Watch::new(max_hold);
    let mut outputs = Outputs::of(desk, id);
    let mut live: Option<mpsc::Receiver<Feed>> = None;
    let exit = loop {
        tokio::select! {
            _ = pressed.recv() => {
                desk.talk.answer(&format!("detached: {id} goes on without you"));
                let back = format!("hint: `rota rollout inspect {id}` shows what it printed");
                desk.talk.answer(&back);
                return Ok(Exit::Detached);
            }
            fed = feed.recv() => match fed {
                Some(Feed::Document(json)) => {
                    watch.see(talk::now(), talk::parse(&json)?);
                    if let Some(view) = watch.view() {
                        outputs.show(view).await?;
                        if desk.talk.format == Format::Table && live.is_none() {
                            live = Some(printing(desk, id)?);
                        }
                    }
                }
                Some(Feed::Lost(cause)) => {
                    desk.talk.say(&format!("connection lost: {cause}; the run goes on"));
                }
                Some(Feed::Over(failure)) => return Err(failure),
                None => return Err(Failure::new("internal", "the stream's task ended early")),
            },
            Some(fed) = heard(&mut live) => {
                if let (Feed::Document(json), Some(view)) = (fed, watch.view()) {
                    outputs.hear(view, &json)?;
                }
            }
        }
        if let Some(exit) = watch.verdict(talk::now()) {
            break exit;
        }
    };
    let Some(view) = watch.view() else {
        return Err(Failure::new("internal", "a verdict without a view"));
    };
    match (desk.talk.format, ending::ending(view, exit, talk::now())) {
        (Format::Json, ended) => {
            let all = all(desk, id, view).await?;
            desk.talk.data(&talk::pretty(&all)?)?;
            ended.map(|_| exit).map_err(|failure| *failure)
        }
        (Format::Table, Ok(words)) => desk.talk.data(&words).map(|()| exit),
        (Format::Table, Err(failure)) => Err(*failure),
    }
}

/// What the nodes print while they run.
fn printing(desk: &Desk, id: &str) -> Result<mpsc::Receiver<Feed>, Failure> {
    Ok(follow::feed(desk.client()?, format!("rollouts/{id}/output"), 0, |_| 0))
}

/// The next of it. That it broke is told by the stream of the rollout itself, and a controller that has nothing of the
/// sort lacks only this.
async fn heard(live: &mut Option<mpsc::Receiver<Feed>>) -> Option<Feed> {
    match live {
        Some(feed) => feed.recv().await,
        None => std::future::pending().await,
    }
}

/// The whole, as JSON.
async fn all(desk: &Desk, id: &str, view: &RolloutView) -> Result<String, Failure> {
    let path = format!("rollouts/{id}/traces");
    let traces: Vec<TraceView> = talk::parse(&desk.client()?.read(&path).await?)?;
    let ran = view.nodes.iter().map(|node| {
        let own = |trace: &&TraceView| trace.node == node.name && trace.attempt == node.attempt;
        let trace = traces.iter().rfind(own);
        let printed = trace.into_iter().flat_map(|trace| &trace.outputs);
        Ran {
            node: &node.name,
            state: &node.state,
            exit_code: trace.and_then(|trace| trace.exit_code),
            output: printed.map(|printed| printed.output.as_str()).collect(),
            took_ms: trace.and_then(|trace| trace.took_ms),
            attempt: node.attempt,
            error: node.error.as_deref(),
        }
    });
    let ran: Vec<Ran<'_>> = ran.collect();
    serde_json::to_string(&ran)
        .map_err(|error| Failure::internal("cannot write what the nodes printed", &error))
}
