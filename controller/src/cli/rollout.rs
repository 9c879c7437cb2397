//! `rota rollout`: start one, look at it, steer it.

use clap::{Args, Subcommand};
use rota_proto::operator::{Kind, RolloutVerb, StartRequest};
use rota_rollout::names::{AppName, EnvName, Span, Version};

use super::args::{self, RolloutRef};
use super::desk::{self, Desk};
use super::outcome::{Exit, Failure};
use super::starting::{ReplaceArgs, StartingArgs, start};
use super::steer::{
    GlassVerbArgs, NodesVerbArgs, RollbackArgs, SkipArgs, SureVerbArgs, VerbArgs, asking, steer,
};
use super::story::Since;
use super::{follow, inspect, render, talk};
use crate::view::RolloutView;

/// Start, watch and steer rollouts
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    Start(StartArgs),
    Ls(LsArgs),
    Status(StatusArgs),
    Inspect(inspect::InspectArgs),
    /// List all rollouts of an app in an environment
    #[command(after_help = "Examples:\n  rota rollout history shop --env prod")]
    History {
        /// The app
        app: AppName,
        /// The environment
        #[arg(long)]
        env: EnvName,
    },
    /// Start no new update; those under way finish
    #[command(after_help = "Examples:\n  rota rollout pause shop/prod -m \"looking at errors\"")]
    Pause(VerbArgs),
    /// Go on after a pause or a hold
    #[command(after_help = "Examples:\n  rota rollout resume shop/prod/14\n  \
                            rota rollout resume shop/prod --break-glass -m \"the site is down\"")]
    Resume(GlassVerbArgs),
    /// Approve the next batches, after a batch of `approve_after`
    #[command(after_help = "Examples:\n  rota rollout promote shop/prod")]
    Promote(VerbArgs),
    /// Finish what is under way, then stop for good; nodes stay as they are
    #[command(after_help = "Examples:\n  rota rollout abort shop/prod/14 -m \"wrong version\"")]
    Abort(SureVerbArgs),
    /// Take every touched node back to the release before, in batches
    #[command(after_help = "Examples:\n  rota rollout rollback shop/prod/14 --yes\n  \
        rota rollout rollback shop/prod/14 --break-fence -m \"the backup is restored\"")]
    Rollback(RollbackArgs),
    /// Try the failed nodes again
    #[command(after_help = "Examples:\n  rota rollout retry shop/prod/14\n  \
                            rota rollout retry shop/prod/14 web-03 web-04")]
    Retry(NodesVerbArgs),
    /// Leave nodes out of this rollout
    #[command(after_help = "Examples:\n  rota rollout skip shop/prod/14 web-07")]
    Skip(SkipArgs),
    Undo(UndoArgs),
}

/// Start a rollout of a release that was pushed before, and follow it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota rollout start shop --release 1.1.0 --env prod\n  \
    rota rollout start shop --release 1.1.0 --env prod -m \"faster search\" --detach")]
pub struct StartArgs {
    /// The app
    app: AppName,
    /// The version of the release
    #[arg(long, value_name = "VERSION")]
    release: Version,
    /// The environment
    #[arg(long)]
    env: EnvName,
    /// Go back although a release's fence forbids it; takes -m
    #[arg(long, requires = "message")]
    break_fence: bool,
    #[command(flatten)]
    replace: ReplaceArgs,
    #[command(flatten)]
    start: StartingArgs,
}

/// List the newest rollouts of every app in every environment, those that run first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota rollout ls\n  rota rollout ls --env prod --app shop")]
pub struct LsArgs {
    /// Only of this app
    #[arg(long)]
    app: Option<AppName>,
    /// Only in this environment
    #[arg(long)]
    env: Option<EnvName>,
}

/// Show a rollout; with -w follow it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota rollout status shop/prod\n  \
    rota rollout status shop/prod/14 -w\n  rota rollout status shop/prod/14 -o json\n\n\
    With -w the exit code is the rollout's: 0 completed, 3 stopped, 4 rolled back.")]
pub struct StatusArgs {
    /// APP/ENV/REVISION, or APP/ENV for the latest
    id: RolloutRef,
    /// Follow it until it ends or stops
    #[arg(short, long)]
    watch: bool,
    /// Leave with exit code 3 when it waited this long for something that clears by itself
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = args::duration)]
    max_hold: Span,
}

/// Return an environment to an earlier revision, in a new rollout, and follow it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota rollout undo shop --env prod\n  \
    rota rollout undo shop --env prod --to-revision 12 -m \"errors since 13\"")]
pub struct UndoArgs {
    /// The app
    app: AppName,
    /// The environment
    #[arg(long)]
    env: EnvName,
    /// Which revision; default: the last completed one before the current
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    to_revision: Option<u64>,
    /// Go back although a release's fence forbids it; takes -m
    #[arg(long, requires = "message")]
    break_fence: bool,
    #[command(flatten)]
    replace: ReplaceArgs,
    #[command(flatten)]
    start: StartingArgs,
}

/// Carries out `rota rollout`.
pub async fn run(desk: &Desk, command: RolloutCommand) -> Result<Exit, Failure> {
    match command {
        RolloutCommand::Start(args) => self::start_release(desk, args).await,
        RolloutCommand::Ls(args) => ls(desk, &args).await,
        RolloutCommand::Status(args) if args.watch => {
            let id = exactly(desk, &args.id).await?;
            follow::rollout(desk, &id, Since::Now, args.max_hold).await
        }
        RolloutCommand::Status(args) => {
            desk.show(&format!("rollouts/{}", args.id), render::rollout).await
        }
        RolloutCommand::Inspect(args) => inspect::run(desk, args).await,
        RolloutCommand::History { app, env } => {
            desk.list(&format!("history/{app}/{env}"), &render::HISTORY).await
        }
        RolloutCommand::Pause(args) => {
            steer(desk, args, asking("pause"), "pauses; updates under way finish").await
        }
        RolloutCommand::Resume(args) => {
            let wanted = RolloutVerb { break_glass: args.glass.break_glass, ..asking("resume") };
            steer(desk, args.verb, wanted, "goes on").await
        }
        RolloutCommand::Promote(args) => steer(desk, args, asking("promote"), "is approved").await,
        RolloutCommand::Abort(args) => {
            let id = &args.verb.id;
            let question = format!("abort rollout {id} and leave its nodes as they are?");
            desk.talk.confirm(&question, args.yes)?;
            let done = "stops when what is under way has finished";
            steer(desk, args.verb, asking("abort"), done).await
        }
        RolloutCommand::Rollback(args) => {
            let SureVerbArgs { verb, yes } = args.sure;
            desk.talk.confirm(&format!("take all nodes of rollout {} back?", verb.id), yes)?;
            let wanted = RolloutVerb {
                break_glass: args.glass.break_glass,
                break_fence: args.break_fence,
                ..asking("rollback")
            };
            steer(desk, verb, wanted, "takes its nodes back").await
        }
        RolloutCommand::Retry(args) => {
            let nodes = args.nodes.iter().map(ToString::to_string).collect();
            let break_glass = args.glass.break_glass;
            let wanted = RolloutVerb { nodes, break_glass, ..asking("retry") };
            steer(desk, args.verb, wanted, "tries again").await
        }
        RolloutCommand::Skip(args) => {
            let nodes = args.nodes.iter().map(ToString::to_string).collect();
            let wanted = RolloutVerb { nodes, ..asking("skip") };
            steer(desk, args.verb, wanted, "goes on without them").await
        }
        RolloutCommand::Undo(args) => undo(desk, args).await,
    }
}

/// The one rollout that is meant: "the latest" may be another one a moment later.
async fn exactly(desk: &Desk, id: &RolloutRef) -> Result<String, Failure> {
    if id.revision.is_some() {
        return Ok(id.to_string());
    }
    let json = desk.client()?.read(&format!("rollouts/{id}")).await?;
    Ok(talk::parse::<RolloutView>(&json)?.id)
}

async fn ls(desk: &Desk, args: &LsArgs) -> Result<Exit, Failure> {
    let path = desk::only("rollouts", args.app.as_ref(), args.env.as_ref());
    desk.list(&path, &render::ROLLOUTS).await
}

async fn start_release(desk: &Desk, args: StartArgs) -> Result<Exit, Failure> {
    args.replace.ask(desk, &args.app, &args.env).await?;
    let request = StartRequest {
        app: args.app.to_string(),
        env: args.env.to_string(),
        release: args.release.to_string(),
        message: args.start.message,
        supersede: args.replace.supersede,
        break_glass: args.start.glass.break_glass,
        break_fence: args.break_fence,
        kind: Kind::Deploy.into(),
        ..StartRequest::default()
    };
    start(desk, request, &args.start.follow).await
}

async fn undo(desk: &Desk, args: UndoArgs) -> Result<Exit, Failure> {
    args.replace.ask(desk, &args.app, &args.env).await?;
    let request = StartRequest {
        app: args.app.to_string(),
        env: args.env.to_string(),
        message: args.start.message,
        supersede: args.replace.supersede,
        break_glass: args.start.glass.break_glass,
        break_fence: args.break_fence,
        kind: Kind::Undo.into(),
        to_revision: args.to_revision.unwrap_or(0),
        ..StartRequest::default()
    };
    start(desk, request, &args.start.follow).await
}
