//! Commands of an app that runs in containers: what looks at the instance (health, smoke) runs inside its container,
//! every other (hooks, the once-per-release job, `rota run`) in one of its own, of the same image.

use std::time::Duration;

use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::StartExecResults;
use bollard::models::ExecConfig;
use bollard::query_parameters::LogsOptionsBuilder;
use rustix::process::Signal;
use tokio::time::{Instant, timeout_at};
use tokio_stream::{Stream, StreamExt};

use super::{Docker, DockerError, container, images, remove};
use crate::logs::TAIL_BYTES;
use crate::runtime::command::{Ended, Hear};
use crate::runtime::process::Member;
use crate::runtime::running::{Exit, send};
use crate::runtime::{Instance, LaunchError, StartSpec};

/// From dockerd's word that it begins a program in a container to its first instruction: a tenth of a second, unless
/// the host hangs.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The last bytes of a stream, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    printed: u64,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let max = usize::try_from(TAIL_BYTES).unwrap_or(usize::MAX);
        self.bytes.extend_from_slice(bytes);
        self.printed += bytes.len() as u64;
        if self.bytes.len() > 2 * max {
            self.bytes.drain(..self.bytes.len() - max);
        }
    }

    pub(super) fn bytes(mut self) -> Vec<u8> {
        let max = usize::try_from(TAIL_BYTES).unwrap_or(usize::MAX);
        let excess = self.bytes.len().saturating_sub(max);
        self.bytes.drain(..excess);
        self.bytes
    }

    /// Hears a stream to its end; or not, when the deadline passes.
    async fn follow(
        &mut self,
        output: &mut (impl Stream<Item = Result<LogOutput, Error>> + Unpin),
        hear: Hear<'_>,
        deadline: Instant,
    ) -> Result<bool, DockerError> {
        loop {
            match timeout_at(deadline, output.next()).await {
                Ok(Some(piece)) => {
                    let piece = piece?;
                    hear(piece.as_ref());
                    self.push(piece.as_ref());
                }
                Ok(None) => return Ok(true),
                Err(_elapsed) => return Ok(false),
            }
        }
    }
}

/// Removes a container, also when nobody waits for its command any more.
struct Guard {
    docker: Docker,
    id: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (docker, id) = (self.docker.clone(), std::mem::take(&mut self.id));
        tokio::spawn(async move {
            let removed = async { remove(docker.client().await?, &id).await };
            if let Err(error) = removed.await {
                tracing::warn!(id, %error, "cannot remove a command's container");
            }
        });
    }
}

impl Docker {
    /// Runs a command in a container of its own for at most `limit`, counted from when its program begins.
    pub(in crate::runtime) async fn run(
        &self,
        start: &StartSpec,
        argv: &[String],
        limit: Duration,
        hear: Hear<'_>,
    ) -> Result<Ended, LaunchError> {
        let image = images::image_of(&start.folder)?;
        let body = container::command(start, &self.root, (&image, argv))?;
        let client = self.client().await?;
        let made = client.create_container(None, body).await.map_err(DockerError::from)?;
        let guard = Guard { docker: self.clone(), id: made.id };
        let refused = |error: Error| match DockerError::from(error) {
            DockerError::Refused { message, .. } => LaunchError::Refused {
                program: argv.first().cloned().unwrap_or_default(),
                complaint: message,
            },
            error @ DockerError::Reach(_) => error.into(),
        };
        client.start_container(&guard.id, None).await.map_err(refused)?;
        let deadline = Instant::now() + limit;
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).build();
        let mut tail = Tail::default();
        let mut output = client.logs(&guard.id, Some(options));
        let in_time = tail.follow(&mut output, hear, deadline).await?;
        let ended = timeout_at(deadline, self.how(&guard.id)).await;
        let exit = match ended {
            Ok(exit) if in_time => Some(exit?),
            Ok(_) | Err(_) => None,
        };
        let printed = tail.printed;
        Ok(Ended { exit, output: tail.bytes(), printed })
    }

    /// Runs a command in the container of an instance for at most `limit`, counted from when its program begins.
    pub(in crate::runtime) async fn run_inside(
        &self,
        instance: &Instance,
        start: &StartSpec,
        (argv, limit): (&[String], Duration),
    ) -> Result<Ended, LaunchError> {
        let id = instance.container.clone().unwrap_or_default();
        let argv = start.values().render_all(argv)?;
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(argv),
            ..ExecConfig::default()
        };
        let client = self.client().await?;
        let made = client.create_exec(&id, config).await.map_err(DockerError::from)?;
        let started = client.start_exec(&made.id, None).await.map_err(DockerError::from)?;
        let StartExecResults::Attached { mut output, .. } = started else {
            return Ok(Ended { exit: Some(Exit::Unknown), output: Vec::new(), printed: 0 });
        };
        let mut tail = Tail::default();
        let latest = Instant::now() + BEGIN_TIMEOUT;
        let (in_time, state) = loop {
            let deadline = Instant::now() + limit;
            let in_time = tail.follow(&mut output, &|_| (), deadline).await?;
            let state = client.inspect_exec(&made.id).await.map_err(DockerError::from)?;
            // dockerd answers before the program begins. One that was given up before could not be killed, and would
            // begin later, when nobody waits for it.
            let begun = state.pid.is_some_and(|pid| pid > 0) || state.exit_code.is_some();
            if in_time || begun || deadline >= latest {
                break (in_time, state);
            }
        };
        let printed = tail.printed;
        let output = tail.bytes();
        if !in_time {
            kill(state.pid);
            return Ok(Ended { exit: None, output, printed });
        }
        let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
        Ok(Ended { exit: Some(code.map_or(Exit::Unknown, Exit::Code)), output, printed })
    }
}

/// dockerd has no word for it.
fn kill(pid: Option<i64>) {
    let pid = pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    let killed = pid.map(|pid| match Member::with_pid(pid)? {
        Some(member) => send(&member.fd, Signal::KILL),
        None => Ok(()),
    });
    if let Some(Err(cause)) = killed {
        tracing::warn!(?pid, %cause, "cannot kill a command in a container");
    }
}
