//! What to run and how, as the order said it; checked in `wire.rs`, kept in the journal.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The file in a release's folder that names its image, for apps in containers.
pub const IMAGE_FILE: &str = "image";

/// One release of one app, with everything a node needs to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The app: a DNS label.
    pub app: String,
    /// The environment: a DNS label.
    pub env: String,
    /// The version; safe as a part of a path.
    pub version: String,
    /// SHA-256 of the artifact: 64 hexadecimal digits.
    pub digest: String,
    /// Bytes of the artifact.
    pub size: u64,
    /// How the artifact is packed.
    pub format: Format,
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
    /// The image and its digest, where it comes from a registry.
    #[serde(default)]
    pub image: Option<String>,
}

impl Spec {
    /// The same release, whatever else is said of it?
    pub fn is_release_of(&self, other: &Spec) -> bool {
        (&self.version, &self.digest) == (&other.version, &other.digest)
    }

    /// The name of the release's folder: `VERSION-DIGEST12`.
    pub fn folder(&self) -> String {
        format!("{}-{}", self.version, &self.digest[..12])
    }
}

/// How an artifact is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// Plain.
    Tar,
    /// With gzip.
    TarGz,
    /// With zstd.
    TarZst,
}

/// The process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What runs it.
    pub driver: Driver,
    /// Its command line, before substitutions.
    pub command: Vec<String>,
    /// The user; `None`: the agent's own.
    pub user: Option<String>,
    /// Its environment, before substitutions.
    pub env: BTreeMap<String, String>,
    /// A file of `NAME=value` lines on the node; a leading `-` makes it optional.
    pub env_file: Option<String>,
    /// Where it listens.
    pub port: Port,
    /// The signal's number, for example 15.
    pub stop_signal: i32,
    /// Then it is killed.
    pub stop_timeout: Duration,
    /// It says itself when it is ready: `READY=1` to `$NOTIFY_SOCKET`.
    #[serde(default)]
    pub notify: bool,
    /// It is given its listening socket, which outlives it.
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
    pub cpu_percent: Option<u32>,
    /// Processes and threads.
    pub tasks: Option<u32>,
    /// Open files of each process.
    pub open_files: Option<u32>,
}

/// Where an app listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Port {
    /// Nowhere.
    None,
    /// On a free port, which the agent picks for each instance.
    Auto,
    /// Always on this one.
    Fixed(u16),
}

/// What runs the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// A process in a session of its own.
    Exec,
    /// A unit of its own.
    Systemd,
    /// A container.
    Docker,
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Driver::Exec => "exec",
            Driver::Systemd => "systemd",
            Driver::Docker => "docker",
        })
    }
}

/// When an instance counts as healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// What is asked.
    pub check: Check,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// How long without a failure.
    pub healthy_for: Duration,
    /// For the first healthy answer and `healthy_for` together.
    pub deadline: Duration,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Check {
    /// Is the process alive?
    Alive,
    /// Does this path answer 2xx?
    Http(String),
    /// Does the port accept?
    Tcp,
    /// Does this command end with 0?
    Command(Vec<String>),
}

/// How an app leaves and enters traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// By whom.
    pub via: Via,
    /// How long in-flight requests may take to finish.
    pub drain_timeout: Duration,
    /// What happens then.
    pub on_drain_timeout: OnDrainTimeout,
    /// Whose word a drain needs.
    #[serde(default)]
    pub edges: Needed,
}

/// Which edges of a pool must confirm that a node is out of traffic, or back in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Needed {
    /// Every one.
    #[default]
    All,
    /// Those that can be asked, at least one.
    Reachable,
}

/// Who moves an app in and out of traffic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Via {
    /// The edges of this pool.
    Edge(String),
    /// Load balancers that ask this node for its readiness.
    Endpoint {
        /// So many answers each of them must have acted on.
        settle: u32,
    },
    /// The operator's own scripts.
    Command(Scripts),
    /// Nobody; only the kernel's socket table is looked at.
    None,
}

/// The operator's own scripts for leaving and entering traffic. Each is harmless when it is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scripts {
    /// Ends with 0 when no new requests come.
    pub leave: Vec<String>,
    /// Ends with 0 when new requests come.
    pub join: Vec<String>,
    /// Prints how many requests are in flight; `None`: nobody is asked.
    pub in_flight: Option<Vec<String>>,
}

/// What happens when in-flight requests outlive `drain_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    pub timeout: Duration,
    /// Tries after the first.
    pub retries: u32,
}

/// What a smoke test does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SmokeTest {
    /// A request, and what the answer must be.
    Http { path: String, status: u16, contains: Option<String>, matches: Option<String> },
    /// A command that must end with 0.
    Command(Vec<String>),
}

/// The operator's scripts, each a list of command lines that run one after the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// While the node is still in traffic.
    pub before_drain: Vec<Vec<String>>,
    /// After the swap.
    pub before_start: Vec<Vec<String>>,
    /// Back in traffic.
    pub after_join: Vec<Vec<String>>,
    /// After the update failed; its own failure is only noted.
    pub on_failure: Vec<Vec<String>>,
}
