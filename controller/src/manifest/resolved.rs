//! A manifest for one environment: checked, complete, every default filled in.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::names::{AppName, Digest, Span, Version};
use rota_rollout::strategy::Strategy;
use serde::{Deserialize, Serialize};

use super::compatibility::Compatibility;
pub use super::read::Argv;
use super::template::{Piece, pieces};

/// What is deployed in one environment, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The app.
    pub app: AppName,
    /// Where its files come from.
    pub artifact: Artifact,
    /// The process.
    pub run: Run,
    /// When it counts as healthy.
    pub health: Health,
    /// How it leaves and enters traffic.
    pub traffic: Traffic,
    /// Tests before it rejoins, in order.
    pub smoke: Vec<Smoke>,
    /// The operator's scripts.
    pub hooks: Hooks,
    /// What runs once, before the first node is drained.
    pub once: Option<Once>,
    /// How the fleet is moved.
    pub strategy: Strategy,
    /// Which nodes.
    pub target: Target,
    /// Which way back its makers allow.
    pub compatibility: Compatibility,
}

/// Where an app's files come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Artifact {
    /// A folder or an archive, relative to the manifest's folder. It must exist when it is packed.
    Path(String),
    /// An archive somewhere, and what it must be.
    Url {
        /// `http` or `https`.
        url: String,
        /// The SHA-256 of the archive.
        sha256: Digest,
    },
    /// A container image.
    Image(String),
}

impl Artifact {
    /// With `{version}` and `{app}` substituted; nothing else is known when a release is made.
    pub fn filled(&self, app: &AppName, version: &Version) -> Self {
        let fill = |text: &str| fill(text, app, version);
        match self {
            Self::Path(path) => Self::Path(fill(path)),
            Self::Url { url, sha256 } => Self::Url { url: fill(url), sha256: sha256.clone() },
            Self::Image(image) => Self::Image(fill(image)),
        }
    }
}

/// The manifest was checked: what cannot be substituted here does not occur.
fn fill(text: &str, app: &AppName, version: &Version) -> String {
    let Ok(pieces) = pieces(text) else { return text.to_owned() };
    let part = |piece: Piece| match piece {
        Piece::Plain(text) => text,
        Piece::App => app.to_string(),
        Piece::Version => version.to_string(),
        Piece::Env | Piece::Port | Piece::Node | Piece::Label(_) => String::new(),
    };
    pieces.into_iter().map(part).collect()
}

/// The process. Texts still have their substitutions; the agent makes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What runs it; `None`: systemd where it is PID 1, else exec.
    pub driver: Option<Driver>,
    /// Its command line; empty only for an image that knows its own.
    pub command: Argv,
    /// Its user; `None`: the agent's own.
    pub user: Option<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// A file of `NAME=value` lines on the node.
    pub env_file: Option<EnvFile>,
    /// Where it listens.
    pub port: Port,
    /// What asks it to stop.
    pub stop_signal: Signal,
    /// Then it is killed.
    pub stop_timeout: Span,
    /// It says itself when it is ready: `READY=1` to `$NOTIFY_SOCKET`.
    #[serde(default)]
    pub notify: bool,
    /// Its listening socket is made for it, and outlives it.
    #[serde(default)]
    pub socket: bool,
    /// The most that it may use.
    #[serde(default)]
    pub limits: Limits,
}

/// The most that an instance may use of its host; `None`: as much as there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Percent of one core.
    pub cpu: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u32>,
    /// Open files of each process.
    pub open_files: Option<u32>,
}

/// What runs the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    /// A process in a session of its own.
    Exec,
    /// A unit of its own.
    Systemd,
    /// A container.
    Docker,
}

impl Driver {
    /// As the manifest and the wire write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Systemd => "systemd",
            Self::Docker => "docker",
        }
    }
}

/// A file on the node with more environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    /// Absolute.
    pub path: String,
    /// It may be missing; written with a leading `-`.
    pub optional: bool,
}

/// Where an app listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Port {
    /// Nowhere.
    None,
    /// On a free port, which the agent picks for each instance.
    Auto,
    /// Always on this one.
    Fixed(u16),
}

/// A signal that may ask an app to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// 1
    Hup,
    /// 2
    Int,
    /// 3
    Quit,
    /// 9
    Kill,
    /// 10
    Usr1,
    /// 12
    Usr2,
    /// 15
    Term,
}

impl Signal {
    /// All of them by name.
    pub(super) const ALL: [(&'static str, Self); 7] = [
        ("TERM", Self::Term),
        ("INT", Self::Int),
        ("QUIT", Self::Quit),
        ("HUP", Self::Hup),
        ("USR1", Self::Usr1),
        ("USR2", Self::Usr2),
        ("KILL", Self::Kill),
    ];

    /// Its number on Linux.
    pub fn number(self) -> i32 {
        match self {
            Self::Hup => 1,
            Self::Int => 2,
            Self::Quit => 3,
            Self::Kill => 9,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
            Self::Term => 15,
        }
    }

    /// Its name without `SIG`, as the wire writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "HUP",
            Self::Int => "INT",
            Self::Quit => "QUIT",
            Self::Kill => "KILL",
            Self::Usr1 => "USR1",
            Self::Usr2 => "USR2",
            Self::Term => "TERM",
        }
    }
}

/// When an instance counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// Between two checks.
    pub interval: Span,
    /// For one check.
    pub timeout: Span,
    /// How long without a failure.
    pub healthy_for: Span,
    /// For the first healthy answer and `healthy_for` together.
    pub deadline: Span,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Is the process alive?
    Alive,
    /// Does this path answer 2xx?
    Http(String),
    /// Does the port accept?
    Tcp,
    /// Does this command end with 0?
    Command(Argv),
}

/// How an app leaves and enters traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// By whom.
    pub via: Via,
    /// How long in-flight requests may take to finish.
    pub drain_timeout: Span,
    /// What happens then.
    pub on_drain_timeout: OnDrainTimeout,
    /// Whose word is needed.
    #[serde(default)]
    pub edges: Needed,
}

/// Which edges of a pool must confirm that a node is out of traffic, or back in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Needed {
    /// Every one.
    #[default]
    All,
    /// Those that can be asked, at least one.
    Reachable,
}

/// Who moves an app in and out of traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// The edges of this pool.
    Edge(String),
    /// Load balancers that ask the node for its readiness.
    Endpoint {
        /// So many answers each of them must have acted on.
        settle: u32,
    },
    /// The operator's own scripts.
    Command(Scripts),
    /// Nobody; only the kernel's socket table is looked at.
    None,
}

/// The operator's own scripts for leaving and entering traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// Ends with 0 when no new requests come.
    pub leave: Argv,
    /// Ends with 0 when new requests come.
    pub join: Argv,
    /// Prints how many requests are in flight; `None`: nobody is asked.
    pub in_flight: Option<Argv>,
}

/// What happens when in-flight requests outlive `drain_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrainTimeout {
    /// Go on, and count what was cut.
    Cut,
    /// Fail the update, and rejoin.
    Fail,
}

/// One smoke test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Smoke {
    /// For people.
    pub name: String,
    /// What is done.
    pub test: SmokeTest,
    /// For each try.
    pub timeout: Span,
    /// Tries after the first.
    pub retries: u32,
}

/// What a smoke test does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SmokeTest {
    /// A request, and what the answer must be.
    Http {
        /// On the node, at the app's port.
        path: String,
        /// The only right one.
        status: u16,
        /// What the body must be like.
        body: Body,
    },
    /// A command that must end with 0.
    Command(Argv),
}

/// What the body of an answer must be like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Body {
    /// Nobody looks at it.
    Any,
    /// It has this text in it.
    Contains(String),
    /// This regular expression finds something in it.
    Matches(String),
}

/// The operator's scripts, each a list of commands that run one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// While the node is still in traffic.
    pub before_drain: Vec<Argv>,
    /// After the swap.
    pub before_start: Vec<Argv>,
    /// Back in traffic.
    pub after_join: Vec<Argv>,
    /// After the update failed; its own failure is only noted.
    pub on_failure: Vec<Argv>,
}

/// What runs once per release, on one node, before the first node is drained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Once {
    /// Must end with 0.
    pub command: Argv,
    /// Then it has failed.
    pub timeout: Span,
}

/// Which nodes of the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Nodes with any of these roles; empty: with any role or none.
    pub roles: BTreeSet<String>,
    /// Nodes with all of these labels.
    pub labels: BTreeMap<String, String>,
}
