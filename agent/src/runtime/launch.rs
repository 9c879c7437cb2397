//! Starts a program through the shim, and knows when this returns that it runs, or why it does not.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::docker::Docker;
use super::environment::EnvironmentError;
use super::shim;
use super::users::{Ids, User, UserError};
use super::{Instance, StartSpec, environment, users};
use crate::template::TemplateError;

/// From the fork to the program's first instruction: half a millisecond, unless a file system
/// hangs.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(20);
/// The running program, even when its file was replaced by a newer one meanwhile.
const OWN: &str = "/proc/self/exe";

/// Bytes of the shim's complaint.
const COMPLAINT_BYTES_MAX: u64 = 64 * 1024;

/// A program that was not started.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// There is nothing to start.
    #[error("the command is empty")]
    Empty,
    /// A substitution in the command.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The environment.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The user.
    #[error(transparent)]
    User(#[from] UserError),
    /// Switching users needs privileges.
    #[error("only root can start a program as user {user}; the agent runs as {own}")]
    NotRoot { user: String, own: String },
    /// The shim could not be started or talked to.
    #[error("cannot {deed} the shim that starts `{program}`")]
    Shim {
        deed: &'static str,
        program: String,
        #[source]
        cause: io::Error,
    },
    /// The shim says why it could not become the program.
    #[error("cannot run `{program}`: {complaint}")]
    Refused { program: String, complaint: String },
    /// The shim hangs.
    #[error("`{program}` did not start within {LAUNCH_TIMEOUT:?}; does a file system hang?")]
    Timeout { program: String },
    /// The app's socket cannot be made for it.
    #[error("cannot listen on port {port} for it")]
    Listen {
        port: u16,
        #[source]
        cause: io::Error,
    },
    /// systemd could not be asked.
    #[error(transparent)]
    Bus(#[from] super::systemd::BusError),
    /// systemd says why it did not run it.
    #[error("systemd did not start {unit}: {complaint}")]
    Unit { unit: String, complaint: String },
    /// dockerd could not be asked.
    #[error(transparent)]
    Docker(#[from] super::docker::DockerError),
    /// dockerd says why it did not run it.
    #[error("docker did not start {name}: {complaint}")]
    Container { name: String, complaint: String },
    /// It never said that it is ready.
    #[error("it did not say READY=1 within {within:?} (`notify = true`)")]
    NotReady { within: Duration, output: String },
    /// The agent's own folders.
    #[error("cannot {deed} {path}")]
    Disk {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// What the shim is told, over a pipe: nothing of it can be seen in `ps`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub argv: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub folder: PathBuf,
    /// `None`: stay who you are.
    pub user: Option<Ids>,
    pub output: Output,
    pub cgroup: Option<PathBuf>,
    /// Where the instance is noted before it runs.
    pub record: Option<(PathBuf, Instance)>,
    /// How many files each of its processes may have open.
    pub open_files: Option<u32>,
    /// Its listening socket is the shim's stderr.
    pub socket: bool,
}

/// Where the program's output goes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Output {
    /// Appended to this file.
    Log(PathBuf),
    /// To the agent, over the shim's stderr.
    Pipe,
}

/// Knows the program whose hidden subcommand is the shim: this one.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    docker: Option<Docker>,
}

impl Launcher {
    /// The running program, even when its file was replaced by a newer one meanwhile.
    pub fn this_program() -> Launcher {
        Launcher { program: PathBuf::from(OWN), docker: None }
    }

    /// Another program that has the shim; for tests.
    pub fn program(program: &Path) -> Launcher {
        Launcher { program: program.into(), docker: None }
    }

    /// Runs the commands of apps in containers with this.
    pub fn with_docker(self, docker: Docker) -> Launcher {
        Launcher { docker: Some(docker), ..self }
    }

    /// What runs the commands of apps in containers.
    pub(crate) fn docker(&self) -> Option<&Docker> {
        self.docker.as_ref()
    }

    /// Where that program lies, for others that start it.
    pub(super) fn path(&self) -> PathBuf {
        if self.program != Path::new(OWN) {
            return self.program.clone();
        }
        // An upgrade of the package puts another file there.
        let own = std::env::current_exe().unwrap_or_default();
        own.to_string_lossy().trim_end_matches(" (deleted)").into()
    }

    /// The plan for running `argv` as the app's user in its folder and environment.
    pub(super) fn plan(
        start: &StartSpec,
        argv: &[String],
        output: Output,
    ) -> Result<Plan, LaunchError> {
        let argv = start.values().render_all(argv)?;
        if argv.first().is_none_or(String::is_empty) {
            return Err(LaunchError::Empty);
        }
        let (user, ids) = user_of(start)?;
        let env = environment::of(start, &user)?;
        let folder = start.folder.clone();
        Ok(Plan {
            argv,
            env,
            folder,
            user: ids,
            output,
            cgroup: None,
            record: None,
            open_files: None,
            socket: false,
        })
    }

    /// Returns when the program has begun. The child is left alone when the handle is dropped.
    pub(super) async fn launch(
        &self,
        plan: &Plan,
        socket: Option<OwnedFd>,
    ) -> Result<Child, LaunchError> {
        let program = plan.argv.first().ok_or(LaunchError::Empty)?;
        let failed = |deed| move |cause| LaunchError::Shim { deed, program: program.into(), cause };
        let mut child = self.shim(&plan.output, socket).spawn().map_err(failed("start"))?;
        let complaint = match timeout(LAUNCH_TIMEOUT, instruct(&mut child, plan)).await {
            Ok(complaint) => complaint.map_err(failed("instruct"))?,
            Err(_elapsed) => {
                // It must not become the app later, when nobody expects that any more.
                child.start_kill().map_err(failed("kill"))?;
                return Err(LaunchError::Timeout { program: program.clone() });
            }
        };
        if complaint.is_empty() {
            return Ok(child);
        }
        child.wait().await.map_err(failed("wait for"))?;
        Err(LaunchError::Refused { program: program.into(), complaint })
    }

    fn shim(&self, output: &Output, socket: Option<OwnedFd>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg0("rota-agent").arg(shim::SUBCOMMAND).env_clear();
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(match (output, socket) {
            (Output::Log(_), Some(socket)) => Stdio::from(socket),
            (Output::Log(_), None) => Stdio::null(),
            (Output::Pipe, _) => Stdio::piped(),
        });
        command
    }
}

/// Hands over the plan and waits until the shim complains, or has become the program, which closes
/// its end of the pipe.
async fn instruct(child: &mut Child, plan: &Plan) -> io::Result<String> {
    if let Some(mut pipe) = child.stdin.take() {
        match pipe.write_all(&serde_json::to_vec(plan)?).await {
            // A shim that died early says more on its own pipe than a broken one here.
            Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => return Err(cause),
            Ok(()) | Err(_) => {}
        }
    }
    let mut complaint = String::new();
    if let Some(pipe) = child.stdout.take() {
        pipe.take(COMPLAINT_BYTES_MAX).read_to_string(&mut complaint).await?;
    }
    Ok(complaint)
}

/// Who the app runs as, and what the shim must switch to.
pub(super) fn user_of(start: &StartSpec) -> Result<(User, Option<Ids>), LaunchError> {
    let own = users::own()?;
    match &start.spec.run.user {
        None => Ok((own, None)),
        Some(name) if *name == own.name => Ok((own, None)),
        Some(name) => {
            let user = users::named(name)?;
            if own.ids.uid != 0 {
                return Err(LaunchError::NotRoot { user: user.name, own: own.name });
            }
            let ids = user.ids.clone();
            Ok((user, Some(ids)))
        }
    }
}
