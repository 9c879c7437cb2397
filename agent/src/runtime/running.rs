//! An instance that runs: how to signal it and to learn of its end, whoever its parent is.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Child;
use tokio::sync::watch;

use super::{Instance, RuntimeError};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// By the kernel, because it needed more memory than it may have.
    OutOfMemory,
    /// Only its parent is told how, and that was an earlier agent.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            Exit::Signal(number) => write!(f, "was ended by signal {number}"),
            Exit::OutOfMemory => write!(f, "was killed because it ran out of memory"),
            Exit::Unknown => write!(f, "ended"),
        }
    }
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Exit {
        match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(number)) => Exit::Signal(number),
            (None, None) => Exit::Unknown,
        }
    }
}

/// An instance whose first process was alive when this was made. Clones are the same instance;
/// dropping them does nothing to it.
#[derive(Debug, Clone)]
pub struct Running {
    instance: Arc<Instance>,
    /// `None`: it had ended before it could be looked at.
    process: Option<Arc<OwnedFd>>,
    ended: watch::Receiver<Option<Exit>>,
}

impl Running {
    /// An instance whose end somebody else tells of. Without a process it has ended already.
    pub(super) fn watched(
        instance: Instance,
        process: Option<OwnedFd>,
        end: impl Future<Output = Exit> + Send + 'static,
    ) -> Running {
        let (tell, ended) = watch::channel(None);
        tokio::spawn(async move {
            tell.send_replace(Some(end.await));
        });
        Running { instance: Arc::new(instance), process: process.map(Arc::new), ended }
    }

    /// Watches a process that this agent started.
    pub(super) fn started(instance: Instance, process: OwnedFd, mut child: Child) -> Running {
        let end = async move { child.wait().await.map_or(Exit::Unknown, Exit::from) };
        Running::watched(instance, Some(process), end)
    }

    /// Watches a process that an earlier agent started.
    pub(super) fn adopted(instance: Instance, process: OwnedFd) -> io::Result<Running> {
        let watched = process.try_clone()?;
        let end = async move {
            match ended_of(watched).await {
                Ok(()) => {}
                Err(cause) => tracing::error!(%cause, "cannot watch a process; taken as ended"),
            }
            Exit::Unknown
        };
        Ok(Running::watched(instance, Some(process), end))
    }

    /// What runs.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Waits until its first process has ended.
    pub async fn exited(&self) -> Exit {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Unknown),
            // Only when the async runtime is being torn down.
            Err(_) => Exit::Unknown,
        }
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.ended.borrow()
    }

    /// Sends a signal to its first process; one that has ended does not mind.
    pub fn signal(&self, number: i32) -> Result<(), RuntimeError> {
        let Some(signal) = Signal::from_named_raw(number) else {
            return Err(RuntimeError::Signal { number });
        };
        let Some(process) = &self.process else { return Ok(()) };
        send(process, signal).map_err(|cause| RuntimeError::Process {
            deed: "signal",
            pid: self.instance.process.pid,
            app: self.instance.app.clone(),
            cause,
        })
    }
}

/// Sends a signal to this very process; one that has ended does not mind.
pub(super) fn send(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    match pidfd_send_signal(process, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        result => Ok(result?),
    }
}

/// Waits until this very process has ended.
pub(super) async fn ended_of(process: OwnedFd) -> io::Result<()> {
    #[expect(deprecated, reason = "the other one is unsafe; an OwnedFd keeps its descriptor open")]
    let process = AsyncFd::with_interest(process, Interest::READABLE)?;
    process.readable().await?.retain_ready();
    Ok(())
}
