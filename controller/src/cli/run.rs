//! `rota run`: a command on the nodes that run an app, batch by batch, and what it printed there.

use std::collections::BTreeSet;

use clap::Args;
use rota_proto::operator::{Kind, StartRequest};
use rota_rollout::names::{AppName, EnvName, NodeName, Span};
use serde::Serialize;

use super::desk::Desk;
use super::follow::{self, Feed};
use super::glass::GlassArgs;
use super::outcome::{Exit, Failure};
use super::rollout::FollowArgs;
use super::talk::{self, Format};
use super::watch::Watch;
use super::{args, ending, words};
use crate::view::{NodeProgress, RolloutView, StartedView, StatusView, TraceView};

/// Run a command on the nodes that run an app, batch by batch, and show what it prints
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota run shop --env prod -- ./shop check\n  \
    rota run shop --on web-01 --timeout 30s -- ./shop cache clear\n  \
    rota run shop --env prod --batch 1 -m \"new index\" -o json -- ./shop reindex --all\n\n\
    It runs as the app's user, in the folder of the release that runs there, with the app's\n\
    environment, at most once on each node. No node leaves traffic for it. The command is\n\
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
    /// Why, for the history
    #[arg(short, long, value_name = "WHY", default_value = "", hide_default_value = true)]
    message: String,
    #[command(flatten)]
    glass: GlassArgs,
    #[command(flatten)]
    follow: FollowArgs,
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
        message: args.message,
        kind: Kind::Run.into(),
        break_glass: args.glass.break_glass,
        run_command: args.command,
        run_timeout_ms: args.timeout.0,
        run_on: args.on.iter().map(ToString::to_string).collect(),
        run_batch: args.batch,
        run_max_failures: args.max_failures,
        ..StartRequest::default()
    };
    let json = desk.client()?.start(request).await?;
    let StartedView { id } = talk::parse(&json)?;
    if args.follow.detach {
        desk.talk.say(&format!("started; `rota rollout inspect {id}` shows what it printed"));
        match desk.talk.format {
            Format::Json => desk.talk.data(&talk::pretty(&json)?)?,
            Format::Table => desk.talk.data(&format!("{id}\n"))?,
        }
        return Ok(Exit::Done);
    }
    follow(desk, &id, args.follow.max_hold).await
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
                    }
                }
                Some(Feed::Lost(cause)) => {
                    desk.talk.say(&format!("connection lost: {cause}; the run goes on"));
                }
                Some(Feed::Over(failure)) => return Err(failure),
                None => return Err(Failure::new("internal", "the stream's task ended early")),
            },
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
            let all = outputs.all(view).await?;
            desk.talk.data(&talk::pretty(&all)?)?;
            ended.map(|_| exit).map_err(|failure| *failure)
        }
        (Format::Table, Ok(words)) => desk.talk.data(&words).map(|()| exit),
        (Format::Table, Err(failure)) => Err(*failure),
    }
}

/// What the nodes printed, each read once, when it has ended there.
struct Outputs<'a> {
    desk: &'a Desk,
    id: &'a str,
    shown: BTreeSet<(String, u32)>,
}

impl<'a> Outputs<'a> {
    fn of(desk: &'a Desk, id: &'a str) -> Self {
        Self { desk, id, shown: BTreeSet::new() }
    }

    /// Prints what came in since.
    async fn show(&mut self, view: &RolloutView) -> Result<(), Failure> {
        if self.desk.talk.format == Format::Json {
            return Ok(());
        }
        let pad = view.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
        for node in view.nodes.iter().filter(|node| has_ended(node)) {
            if !self.shown.insert((node.name.clone(), node.attempt)) {
                continue;
            }
            let name = &node.name;
            let trace = self.of_node(node).await?;
            let printed = trace.outputs.iter().flat_map(|printed| printed.output.lines());
            let lines: String =
                printed.map(|line| format!("{name:pad$} | {}\n", words::clean(line))).collect();
            self.desk.talk.data(&lines)?;
            let took = trace.took_ms.map(|ms| format!(" after {}", words::span(Span(ms))));
            let ended = match &node.error {
                Some(error) => words::clean(error),
                None => "exit code 0".to_owned(),
            };
            self.desk.talk.say(&format!("{name:pad$}   {ended}{}", took.unwrap_or_default()));
        }
        Ok(())
    }

    async fn of_node(&self, node: &NodeProgress) -> Result<TraceView, Failure> {
        let path = format!("rollouts/{}/traces/{}", self.id, node.name);
        let traces: Vec<TraceView> = talk::parse(&self.desk.client()?.read(&path).await?)?;
        Ok(traces.into_iter().rfind(|trace| trace.attempt == node.attempt).unwrap_or_default())
    }

    /// The whole, as JSON.
    async fn all(&self, view: &RolloutView) -> Result<String, Failure> {
        let path = format!("rollouts/{}/traces", self.id);
        let traces: Vec<TraceView> = talk::parse(&self.desk.client()?.read(&path).await?)?;
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
}

/// Has the command ended there, well or not?
fn has_ended(node: &NodeProgress) -> bool {
    matches!(node.state.as_str(), "done" | "failed" | "restored") && node.attempt > 0
}
