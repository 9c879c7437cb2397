//! Runs one command of the operator to its end: a hook, a smoke test, a health check, the
//! once-per-release job.
//!
//! It runs as the app's user, in the release's folder, with the app's environment. Whatever it
//! forks ends with it.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr};
use tokio::time::{Instant, timeout, timeout_at};

use super::launch::{LaunchError, Launcher, Output};
use super::process::ProcessId;
use super::running::Exit;
use super::stop::Family;
use super::{Instance, RuntimeError, StartSpec};
use crate::logs::TAIL_BYTES;
use crate::spec::Driver;

/// How long the pipe is read after everything that the command forked is dead; there can be no more
/// than it holds.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A command that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How; `None` when it was killed at the limit.
    pub exit: Option<Exit>,
    /// The end of what it wrote, stdout and stderr together.
    pub output: Vec<u8>,
    /// How many bytes it wrote in all.
    pub printed: u64,
}

impl Ended {
    /// Whether it ended by itself with 0.
    pub fn is_success(&self) -> bool {
        self.exit == Some(Exit::Code(0))
    }
}

/// A command that did not run, or was not seen to its end.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It did not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It could not be watched or killed.
    #[error(transparent)]
    Watch(#[from] RuntimeError),
}

/// Hears what a command writes, piece by piece, while it runs.
pub type Hear<'a> = &'a (dyn Fn(&[u8]) + Send + Sync);

/// Runs the command for at most `limit`, counted from when its program begins. A caller that stops waiting kills it.
pub async fn run(
    launcher: &Launcher,
    start: &StartSpec,
    argv: &[String],
    limit: Duration,
) -> Result<Ended, CommandError> {
    run_heard(launcher, start, argv, limit, &|_| ()).await
}

/// The same, for a command that looks at an instance: in its container, if it has one.
pub async fn run_inside(
    launcher: &Launcher,
    (start, instance): (&StartSpec, &Instance),
    argv: &[String],
    limit: Duration,
) -> Result<Ended, CommandError> {
    match launcher.docker().filter(|_| instance.container.is_some()) {
        Some(docker) => Ok(Box::pin(docker.run_inside(instance, start, (argv, limit))).await?),
        None => run(launcher, start, argv, limit).await,
    }
}

/// The same, for somebody who listens.
pub async fn run_heard(
    launcher: &Launcher,
    start: &StartSpec,
    argv: &[String],
    limit: Duration,
    hear: Hear<'_>,
) -> Result<Ended, CommandError> {
    if start.spec.run.driver == Driver::Docker
        && let Some(docker) = launcher.docker()
    {
        return Ok(Box::pin(docker.run(start, argv, limit, hear)).await?);
    }
    let plan = Launcher::plan(start, argv, Output::Pipe)?;
    let child = launcher.launch(&plan, None).await?;
    // The time is the command's: how long this host takes to begin it is no fault of its own, and has a limit, too.
    let deadline = Instant::now() + limit;
    let pid = child.id().map(u32::cast_signed).unwrap_or_default();
    let mut guard = Guard { child, group: Pid::from_raw(pid) };
    let app = start.spec.app.clone();
    let unseen = |cause| RuntimeError::Process { deed: "watch", pid, app: app.clone(), cause };
    let process = ProcessId::of(pid).map_err(unseen)?;
    let mut tail = Tail { hear, bytes: Vec::new(), printed: 0 };
    let mut pipe = guard.child.stderr.take();
    let exit = {
        let wait = guard.child.wait();
        let both = async { tail.follow(&mut pipe, wait).await };
        match timeout_at(deadline, both).await {
            Ok(status) => Some(Exit::from(status.map_err(unseen)?)),
            Err(_elapsed) => None,
        }
    };
    if exit.is_some() {
        // It was waited for, so its number may soon be another's.
        guard.group = None;
    }
    if let Some(process) = process {
        Family { app: app.clone(), process, cgroup: None }.kill().await?;
    }
    guard.child.wait().await.map_err(unseen)?;
    guard.group = None;
    // A child that went into a session of its own may hold the pipe open for ever.
    if timeout(LAST_WORDS, tail.rest(&mut pipe)).await.is_err() {
        tracing::warn!(command = ?argv.first(), "left a process behind that holds its output open");
    }
    Ok(Ended { exit, output: tail.bytes, printed: tail.printed })
}

/// Kills the command's process group when nobody waits for it any more.
struct Guard {
    child: Child,
    group: Option<Pid>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The child was not waited for, so its number is still its own, and its group's.
        if let Some(group) = self.group
            && let Err(cause) = kill_process_group(group, Signal::KILL)
        {
            tracing::warn!(%cause, ?group, "cannot kill a command that nobody waits for");
        }
    }
}

/// The last bytes of a stream.
struct Tail<'a> {
    hear: Hear<'a>,
    bytes: Vec<u8>,
    printed: u64,
}

impl Tail<'_> {
    /// Reads until the process has ended; it must be read meanwhile, or a full pipe would stop the
    /// process.
    async fn follow<T>(
        &mut self,
        pipe: &mut Option<ChildStderr>,
        ended: impl Future<Output = T>,
    ) -> T {
        let mut ended = std::pin::pin!(ended);
        tokio::select! {
            ended = &mut ended => return ended,
            () = self.rest(pipe) => {}
        }
        ended.await
    }

    async fn rest(&mut self, pipe: &mut Option<ChildStderr>) {
        let max = usize::try_from(TAIL_BYTES).unwrap_or(usize::MAX);
        let mut block = [0; 4096];
        while let Some(open) = pipe {
            match open.read(&mut block).await {
                Ok(read) if read > 0 => {
                    self.bytes.extend_from_slice(&block[..read]);
                    self.printed += read as u64;
                    (self.hear)(&block[..read]);
                }
                // What cannot be read is as good as the end: the exit code decides, not the output.
                Ok(_) | Err(_) => *pipe = None,
            }
            if self.bytes.len() > 2 * max {
                self.bytes.drain(..self.bytes.len() - max);
            }
        }
        let excess = self.bytes.len().saturating_sub(max);
        self.bytes.drain(..excess);
    }
}
