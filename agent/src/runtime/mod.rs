//! What runs apps: one trait, behind which a driver starts, finds again and stops an instance.
//!
//! An app is never the agent's child in a way that kills it: it has a session, a unit or a container
//! of its own, and an agent that restarts adopts it by its process's number and start time.

pub mod cgroup;
pub mod command;
pub mod docker;
pub mod drivers;
mod environment;
pub mod exec;
pub mod launch;
mod listeners;
mod places;
pub mod ports;
pub mod process;
mod running;
pub mod shim;
mod stop;
pub mod systemd;
pub mod users;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::environment::EnvironmentError;
pub use self::launch::{LaunchError, Launcher};
pub use self::places::Places;
pub use self::process::ProcessId;
pub use self::running::{Exit, Running};

use crate::logs;
use crate::spec::{Driver, Spec};
use crate::template::Values;

/// One instance to start, and everything that its commands may name.
#[derive(Debug, Clone)]
pub struct StartSpec {
    /// The release.
    pub spec: Spec,
    /// Its name beside others of the app: empty, or `b` in a start-first update.
    pub instance: String,
    /// The release's folder: where it runs.
    pub folder: PathBuf,
    /// Where it is to listen; `None` when it listens nowhere.
    pub port: Option<u16>,
    /// Where this node reaches it: 127.0.0.1 unless it listens on one address only.
    pub host: IpAddr,
    /// This node.
    pub node: String,
    /// This node's labels.
    pub labels: BTreeMap<String, String>,
}

impl StartSpec {
    /// What the substitutions stand for.
    pub fn values(&self) -> Values<'_> {
        let Spec { app, version, env, .. } = &self.spec;
        let (node, port, labels) = (&self.node, self.port, &self.labels);
        Values { app, version, env, node, port, labels }
    }

    /// Where checks and tests ask; `None` when it listens nowhere.
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(self.host, port))
    }
}

/// An instance that was started: enough to find it again after a restart of the agent. Kept in the
/// journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// The app.
    pub app: String,
    /// Its name beside others of the app.
    pub instance: String,
    /// The release's version.
    pub version: String,
    /// The release's digest.
    pub digest: String,
    /// What runs it.
    pub driver: Driver,
    /// Where it listens.
    pub port: Option<u16>,
    /// Its first process; for `exec` it leads its session.
    pub process: ProcessId,
    /// Where its output goes.
    pub log: PathBuf,
    /// How long the log was when it started.
    pub log_since: u64,
    /// Its control group, where one could be made.
    pub cgroup: Option<PathBuf>,
    /// Its unit, when systemd runs it.
    #[serde(default)]
    pub unit: Option<String>,
    /// Its container, when docker runs it.
    #[serde(default)]
    pub container: Option<String>,
    /// It was given its listening socket.
    #[serde(default)]
    pub socket: bool,
}

/// How an instance ended that was told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// It, or a process that it left behind, did not end in time and was killed.
    pub killed: bool,
    /// How its first process ended.
    pub exit: Exit,
}

/// An instance that could not be started, found or stopped.
#[derive(Debug, Error)]
pub enum RuntimeError {
    /// It did not start.
    #[error("cannot start {app} {version}")]
    Start {
        app: String,
        version: String,
        #[source]
        cause: Box<LaunchError>,
    },
    /// The kernel refused to say or do something about a process.
    #[error("cannot {deed} process {pid} of {app}")]
    Process {
        deed: &'static str,
        pid: i32,
        app: String,
        #[source]
        cause: io::Error,
    },
    /// The disk refused.
    #[error("cannot {deed} {path}")]
    Disk {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// Even SIGKILL did not end it: its disk or network file system hangs.
    #[error("{app} does not die: processes {pids:?} are still there after SIGKILL")]
    Undead { app: String, pids: Vec<i32> },
    /// A number that is no signal.
    #[error("{number} is no signal that can be sent")]
    Signal { number: i32 },
    /// A driver that is not there, or cannot run anything on this host.
    #[error("[run] driver {driver} cannot be used on this node: {why}")]
    Unusable { driver: Driver, why: String },
    /// Nobody there to start units.
    #[error("[run] driver systemd cannot be used on this node")]
    NoSystemd(#[source] Box<systemd::BusError>),
    /// Nobody there to start containers.
    #[error("[run] driver docker cannot be used on this node")]
    NoDocker(#[source] docker::DockerError),
    /// dockerd did not do it.
    #[error("cannot {deed} container {container}")]
    Container {
        deed: &'static str,
        container: String,
        #[source]
        cause: docker::DockerError,
    },
    /// What a driver cannot do here.
    #[error("[run] {key} cannot be done by the driver {driver} on this node: {why}")]
    Cannot { key: &'static str, driver: Driver, why: String },
    /// systemd did not do it.
    #[error("cannot {deed} {unit}")]
    Unit {
        deed: &'static str,
        unit: String,
        #[source]
        cause: Box<systemd::BusError>,
    },
    /// Its output.
    #[error(transparent)]
    Log(#[from] logs::LogError),
    /// The runtime is shutting down.
    #[error("the work on {app} was given up: the agent is stopping")]
    Stopping { app: String },
}

impl RuntimeError {
    /// What the app wrote before it failed to start.
    pub fn output(&self) -> &str {
        if let RuntimeError::Start { cause, .. } = self
            && let LaunchError::NotReady { output, .. } = &**cause
        {
            return output;
        }
        ""
    }
}

/// A driver: exec, systemd or docker.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Whether it can run this release here; asked before anything is touched.
    async fn check(&self, spec: &Spec) -> Result<(), RuntimeError>;

    /// Where it notes what it starts.
    fn places(&self) -> &Places;

    /// Starts an instance; returns when its program runs, before it is healthy.
    async fn launch(&self, start: &StartSpec) -> Result<Running, LaunchError>;

    /// What runs in the place that a note tells of: a process, a unit, a container; `None` when nothing does.
    async fn look(&self, noted: &Instance) -> Result<Option<Running>, RuntimeError>;

    /// `launch`, with the release named where it fails.
    async fn start(&self, start: &StartSpec) -> Result<Running, RuntimeError> {
        self.launch(start).await.map_err(|cause| RuntimeError::Start {
            app: start.spec.app.clone(),
            version: start.spec.version.clone(),
            cause: Box::new(cause),
        })
    }

    /// The instance again, after the agent was restarted; `None` when it has ended or never was.
    async fn adopt(&self, instance: &Instance) -> Result<Option<Running>, RuntimeError> {
        let found = self.look(instance).await?;
        Ok(found.filter(|running| running.instance().process == instance.process))
    }

    /// What was last started under this name, also when the agent died before it could note it, or somebody else has
    /// restarted it since; `None` when it has ended.
    async fn find(&self, app: &str, instance: &str) -> Result<Option<Running>, RuntimeError> {
        match self.places().read(app, instance)? {
            Some(noted) => self.look(&noted).await,
            None => Ok(None),
        }
    }

    /// Asks the instance to end with `signal`, and kills what is left of it after `timeout`,
    /// children included.
    async fn stop(
        &self,
        running: &Running,
        signal: i32,
        timeout: Duration,
    ) -> Result<Stopped, RuntimeError>;

    /// Kills what an instance left behind that has ended by itself; says how many processes that
    /// were.
    async fn kill_leftovers(&self, instance: &Instance) -> Result<usize, RuntimeError>;

    /// The end of what an instance wrote since it started, also when it has ended.
    async fn output(&self, instance: &Instance) -> Result<String, RuntimeError> {
        let Instance { log, log_since, .. } = instance;
        Ok(logs::tail(log, logs::TAIL_BYTES, *log_since)?)
    }
}
