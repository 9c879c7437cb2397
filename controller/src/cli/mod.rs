//! The operator's hands: one file a noun, each with its arguments and what they do.
//!
//! `render` and its neighbours `table`, `words`, `watch`, `live`, `ending` are pure: state to text.
//! `desk` and `talk` hold what touches the world, `follow` the long looks at one rollout.

pub mod args;
mod checked;
pub mod complete;
mod content;
mod controller;
mod converge;
mod deploy;
mod desk;
mod drain;
mod edge;
mod ending;
mod env;
mod events;
mod files;
mod follow;
mod glass;
mod inspect;
mod live;
mod login;
mod man;
mod manifest;
mod node;
pub mod outcome;
mod pool;
mod printed;
mod progress;
mod release;
mod render;
mod renew;
mod restart;
mod rollout;
mod run;
#[cfg(test)]
mod sample;
mod shell;
mod starting;
mod status;
mod steer;
mod store;
mod story;
mod table;
mod talk;
mod token;
mod upload;
mod watch;
#[cfg(test)]
mod widths;
mod window;

use std::ffi::{OsStr, OsString};

use clap::builder::{self, Resettable};
use clap::error::ErrorKind;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::serve_args::ServeArgs;
use crate::words;
use desk::Desk;
use outcome::{Exit, Failure};
use talk::{Format, Talk};

/// Every exit code, for `--help`.
const AFTER_HELP: &str = "\
Examples:
  rota status
  rota deploy --version 1.1.0 --env prod -m \"faster search\"
  rota rollout status shop/prod -w
  rota --context staging node ls -o json

Exit codes: 0 done; 1 refused or internal error; 2 usage or invalid manifest;
  3 the rollout failed, is held or was aborted; 4 rolled back;
  5 no controller reachable; 6 not permitted; 130 detached by Ctrl-C (the rollout goes on).";

/// Rolls new versions of applications over fleets of hosts with no downtime
#[derive(Debug, Parser)]
#[command(name = "rota", version, after_help = AFTER_HELP, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Which controllers, and as whom: a context's name, or a file such as DIR/admin.toml; else
    /// ROTA_CONTEXT says it
    #[arg(long, global = true, value_name = "NAME|FILE")]
    pub context: Option<String>,
    /// What ROTA_CONTEXT says, where the command line says nothing.
    #[arg(skip)]
    pub env_context: Option<String>,

    /// How data is printed
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Format,

    /// No colours (so does NO_COLOR)
    #[arg(long, global = true)]
    pub no_color: bool,

    /// Only data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more about what goes on
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    Deploy(deploy::DeployArgs),
    Plan(deploy::PlanArgs),
    Check(deploy::CheckArgs),
    Status(status::StatusArgs),
    #[command(
        subcommand,
        after_help = "Examples:\n  rota rollout status shop/prod -w\n  \
        rota rollout pause shop/prod -m \"looking at errors\"\n  \
        rota rollout undo shop --env prod"
    )]
    Rollout(rollout::RolloutCommand),
    Restart(restart::RestartArgs),
    Run(run::RunArgs),
    #[command(
        subcommand,
        after_help = "Examples:\n  rota release ls shop\n  \
        rota release push --version 1.1.0\n  rota release inspect shop 1.1.0"
    )]
    Release(release::ReleaseCommand),
    #[command(
        subcommand,
        after_help = "Examples:\n  rota node ls --env prod\n  \
        rota node drain web-01 -m \"new disk\"\n  rota node undrain web-01"
    )]
    Node(node::NodeCommand),
    #[command(subcommand, after_help = "Examples:\n  rota edge ls")]
    Edge(edge::EdgeCommand),
    #[command(subcommand, after_help = "Examples:\n  rota pool ls\n  rota pool inspect shop")]
    Pool(pool::PoolCommand),
    #[command(
        subcommand,
        after_help = "Examples:\n  rota env ls\n  \
        rota env freeze prod --until 2h -m \"database move\"\n  rota env unfreeze prod\n  \
        rota env window add prod \"Mon-Fri 22:00-05:00 Europe/Berlin\""
    )]
    Env(env::EnvCommand),
    #[command(
        subcommand,
        after_help = "Examples:\n  rota controller ls\n  \
        rota controller drain c1 --wait\n  rota controller undrain c1"
    )]
    Controller(controller::ControllerCommand),
    #[command(
        subcommand,
        after_help = "Examples:\n  rota token create --for agent\n  \
        rota token create --for operator --role deployer --name alice\n  rota token ls"
    )]
    Token(token::TokenCommand),
    #[command(
        subcommand,
        after_help = "Examples:\n  \
        rota store backup /backup/rota-monday\n  \
        rota store restore /backup/rota-monday --to sqlite:/var/lib/rota\n  \
        rota store copy --from sqlite --to etcd://h1:2379,h2:2379,h3:2379"
    )]
    Store(store::StoreCommand),
    Login(login::LoginArgs),
    Events(events::EventsArgs),
    Audit(events::AuditArgs),
    Serve(ServeArgs),
    Completions(shell::CompletionsArgs),
    #[command(hide = true)]
    Complete(complete::CompleteArgs),
    Man(shell::ManArgs),
}

/// Reads the command line. Help and the version are printed here, and so are mistakes.
pub fn parse(line: Vec<OsString>) -> Result<Cli, Exit> {
    let error = match read(&line) {
        Ok(cli) if joins_nobody(&cli, &line) => {
            let text = "--token of `rota serve` needs --join HOST:PORT, a running controller\n";
            Cli::command().error(ErrorKind::MissingRequiredArgument, text)
        }
        Ok(mut cli) => {
            // Not by clap: what it finds there it shows as if it had been typed, in every usage line.
            if cli.global.context.is_none() {
                cli.global.env_context = std::env::var("ROTA_CONTEXT").ok();
            }
            return Ok(cli);
        }
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Stdout that is gone, as with `rota --help | head`, is no failure.
            error.print().ok();
            Err(Exit::Done)
        }
        _ if wants_json(&line) => {
            talk::write_side(&usage_failure(&error).in_json());
            Err(Exit::Usage)
        }
        _ => {
            error.print().ok();
            Err(Exit::Usage)
        }
    }
}

fn read(line: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = heeding(Cli::command());
    let found = command.try_get_matches_from_mut(line)?;
    Cli::from_arg_matches(&found).map_err(|error| error.format(&mut command))
}

/// An empty variable says nothing.
fn heeding(command: clap::Command) -> clap::Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    let heed = |arg: Arg| match arg.get_env().is_some_and(is_empty) {
        true => arg.env(Resettable::<builder::OsStr>::Reset),
        false => arg,
    };
    command.mut_args(heed).mut_subcommands(heeding)
}

/// Was a controller given a token, but nobody to join by it?
fn joins_nobody(cli: &Cli, line: &[OsString]) -> bool {
    let is_token = |word: &str| word == "--token" || word.starts_with("--token=");
    let typed = line.iter().filter_map(|word| word.to_str()).any(is_token);
    matches!(&cli.command, Command::Serve(args) if args.join.is_none()) && typed
}

/// Is `-o json` on a command line that could not be parsed?
fn wants_json(line: &[OsString]) -> bool {
    let words: Vec<&str> = line.iter().filter_map(|word| word.to_str()).collect();
    let whole = ["-ojson", "-o=json", "--output=json"];
    words.iter().any(|word| whole.contains(word))
        || words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
}

/// clap's error as ours: its first paragraph, and as the hint its tips and how the command is used.
fn usage_failure(error: &clap::Error) -> Failure {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Failure::usage("a command is missing").hint("`rota --help` lists all commands");
    }
    let text = error.render().to_string();
    let (message, rest) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = |line: &str| {
        let (tip, usage) = (line.strip_prefix("tip: "), line.strip_prefix("Usage: "));
        tip.map(str::to_owned).or(usage.map(|usage| format!("write `{usage}`")))
    };
    let said: Vec<String> = rest.lines().map(one_line).filter_map(|line| said(&line)).collect();
    let hint = if said.is_empty() { "`--help` says more".to_owned() } else { said.join("; ") };
    Failure::usage(one_line(message)).hint(hint)
}

/// Says an error that came up outside of [`run`], as the command line wants it.
pub fn complain(global: &Global, failure: &Failure) {
    Talk::new(global).error(failure);
}

/// Carries out a command of an operator, and says what went wrong.
pub async fn run(global: Global, command: Command) -> Exit {
    let desk = Desk::new(Talk::new(&global), global.context, global.env_context);
    match Box::pin(carry_out(&desk, command)).await {
        Ok(exit) => {
            renew::when_due(&desk).await;
            exit
        }
        Err(failure) => {
            desk.talk.error(&failure);
            failure.exit
        }
    }
}

async fn carry_out(desk: &Desk, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Deploy(args) => deploy::deploy(desk, args).await,
        Command::Plan(args) => deploy::plan(desk, args).await,
        Command::Check(args) => deploy::check(desk, &args),
        Command::Status(args) => status::run(desk, &args).await,
        Command::Rollout(command) => rollout::run(desk, command).await,
        Command::Restart(args) => restart::restart(desk, args).await,
        Command::Run(args) => run::run(desk, args).await,
        Command::Release(command) => release::run(desk, command).await,
        Command::Node(command) => node::run(desk, command).await,
        Command::Edge(command) => edge::run(desk, &command).await,
        Command::Pool(command) => pool::run(desk, command).await,
        Command::Env(command) => env::run(desk, command).await,
        Command::Controller(command) => controller::run(desk, command).await,
        Command::Token(command) => token::run(desk, command).await,
        Command::Store(command) => store::run(desk, command).await,
        Command::Login(args) => login::run(desk, args).await,
        Command::Events(args) => events::events(desk, args).await,
        Command::Audit(args) => events::audit(desk, &args).await,
        Command::Serve(_) => Err(Failure::new("internal", "`rota serve` is started by main")),
        Command::Complete(_) => Err(Failure::new("internal", "`rota complete` is run by main")),
        Command::Completions(args) => shell::completions(desk, &args),
        Command::Man(args) => shell::man(desk, &args),
    }
}

#[cfg(test)]
mod tests;
