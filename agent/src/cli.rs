//! The command line of `rota-agent`, and nothing about what it means; see `config.rs`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{self, Resettable};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use serde::Deserialize;

const EXAMPLES: &str = "\
Examples:
  The first start of a node (the token is needed once):
    rota-agent run --data /var/lib/rota-agent --controller c1.example:7400 \\
        --token rota-agent-... --name web-01 --env prod --role web --label zone=a
  A load-balancer host with the built-in proxy:
    rota-agent run --data /var/lib/rota-agent --controller c1.example:7400 \\
        --token rota-edge-... --name lb-01 --env prod --edge shop=proxy@0.0.0.0:8080
  With a file:
    rota-agent run --config /etc/rota/agent.toml
  On the node, also with no controller:
    rota-agent status
    rota-agent rollback shop";

/// One node's hands: runs apps, moves them in and out of traffic, and updates them as ordered.
#[derive(Debug, Parser)]
#[command(name = "rota-agent", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What is to be done. `exec-shim` is not among them: it is asked for before this is read.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent.
    #[command(after_help = EXAMPLES)]
    Run(Box<RunArgs>),
    /// What this agent does right now, and which controllers it sees.
    #[command(after_help = "Examples:\n  rota-agent status\n  rota-agent status -o json")]
    Status(LocalArgs),
    /// The apps of this node.
    #[command(after_help = "Examples:\n  rota-agent apps\n  \
        rota-agent apps --data /srv/rota-agent -o json")]
    Apps(LocalArgs),
    /// Put an app back to the release that it last ran proven; needs no controller.
    #[command(after_help = "Examples:\n  rota-agent rollback shop")]
    Rollback(AppArgs),
    /// Print the release that an app runs.
    #[command(after_help = "Examples:\n  rota-agent release shop\n  \
        rota-agent release shop -o json")]
    Release(AppArgs),
    /// Print completions for a shell.
    #[command(after_help = "Examples:\n  rota-agent completions bash\n  \
        rota-agent completions zsh\n  rota-agent completions fish")]
    Completions {
        /// The shell.
        #[arg(value_enum)]
        shell: KnownShell,
    },
    /// Print the manual page, or write one for every command.
    #[command(after_help = "Examples:\n  rota-agent man\n  rota-agent man --dir target/man")]
    Man {
        /// Write rota-agent.1, rota-agent-run.1 and so on there.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// The built-in proxy; started by the agent in a process of its own.
    #[command(hide = true)]
    Proxy(ProxyArgs),
}

/// Reads the command line.
pub fn read(line: &[OsString]) -> Result<Cli, clap::Error> {
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

/// clap's error as a message, and a hint: its tips and how the command is used.
pub fn told(error: &clap::Error) -> (String, String) {
    let text = error.render().to_string();
    let (message, rest) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
    let message = message.strip_prefix("error: ").unwrap_or(message).to_owned();
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = |line: &str| {
        let (tip, usage) = (line.strip_prefix("tip: "), line.strip_prefix("Usage: "));
        tip.map(str::to_owned).or(usage.map(|usage| format!("write `{usage}`")))
    };
    let said: Vec<String> = rest.lines().map(one_line).filter_map(|line| said(&line)).collect();
    let hint = if said.is_empty() { "`--help` says more".to_owned() } else { said.join("; ") };
    (message, hint)
}

/// The shells for which there are completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// Is `-o json` on a command line that could not be read?
pub fn wants_json(line: &[OsString]) -> bool {
    let words: Vec<&str> = line.iter().filter_map(|word| word.to_str()).collect();
    let whole = ["-ojson", "-o=json", "--output=json"];
    words.iter().any(|word| whole.contains(word))
        || words.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
}

/// Flags of `run`. Every one is also a key of agent.toml and a variable ROTA_AGENT_...
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// A file with the same settings; flags and environment win over it.
    #[arg(long, value_name = "FILE", env = "ROTA_AGENT_CONFIG")]
    pub config: Option<PathBuf>,
    /// The folder of this agent: identity, journal, apps.
    #[arg(long, value_name = "DIR", env = "ROTA_AGENT_DATA")]
    pub data: Option<PathBuf>,
    /// Controllers to call first; the others are learned from them.
    #[arg(
        long = "controller",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        env = "ROTA_AGENT_CONTROLLER"
    )]
    pub controller: Vec<String>,
    /// The invitation; needed once.
    #[arg(long, value_name = "TOKEN", env = "ROTA_AGENT_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// What this node is called: a DNS label.
    #[arg(long, env = "ROTA_AGENT_NAME")]
    pub name: Option<String>,
    /// The environment that it belongs to.
    #[arg(long, env = "ROTA_AGENT_ENV")]
    pub env: Option<String>,
    /// What it is for; repeatable.
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',', env = "ROTA_AGENT_ROLE")]
    pub role: Vec<String>,
    /// A label, such as zone=a; repeatable.
    #[arg(
        long = "label",
        value_name = "KEY=VALUE",
        value_delimiter = ',',
        env = "ROTA_AGENT_LABEL"
    )]
    pub label: Vec<String>,
    /// A pool that this host serves, and with what; repeatable.
    #[arg(
        long = "edge",
        value_name = "POOL=proxy@HOST:PORT",
        value_delimiter = ',',
        env = "ROTA_AGENT_EDGE"
    )]
    pub edge: Vec<String>,
    /// Edges: where nodes reach the Traffic service [default: 0.0.0.0:7402].
    #[arg(long, value_name = "HOST:PORT", env = "ROTA_AGENT_TRAFFIC_LISTEN")]
    pub traffic_listen: Option<String>,
    /// Where load balancers ask for the readiness of this node's apps (via = "endpoint") [default: nowhere].
    #[arg(long, value_name = "HOST:PORT", env = "ROTA_AGENT_ENDPOINT_LISTEN")]
    pub endpoint_listen: Option<String>,
    /// Where this node's apps are reached [default: the address that others see].
    #[arg(long, value_name = "HOST", env = "ROTA_AGENT_ADDRESS")]
    pub address: Option<String>,
    /// How log lines look [default: text].
    #[arg(long, value_enum, env = "ROTA_AGENT_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
    #[command(flatten)]
    pub volume: Volume,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: one object a line.
    Json,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Volume {
    /// More; twice for everything.
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Only warnings and errors.
    #[arg(short, long, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// How an agent on this host is reached.
#[derive(Debug, Clone, Args)]
pub struct LocalArgs {
    /// The folder of the agent.
    #[arg(
        long,
        value_name = "DIR",
        env = "ROTA_AGENT_DATA",
        default_value = "/var/lib/rota-agent"
    )]
    pub data: PathBuf,
    /// How the answer is printed.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// An app of this node.
#[derive(Debug, Clone, Args)]
pub struct AppArgs {
    /// Its name.
    pub app: String,
    #[command(flatten)]
    pub local: LocalArgs,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Flags of the built-in proxy.
#[derive(Debug, Clone, Args)]
pub struct ProxyArgs {
    /// Where clients connect.
    #[arg(long, value_name = "HOST:PORT")]
    pub listen: String,
    /// The socket by which the edge's agent steers it.
    #[arg(long, value_name = "SOCKET")]
    pub control: PathBuf,
    /// Where it remembers its members.
    #[arg(long, value_name = "FILE")]
    pub state: PathBuf,
}
