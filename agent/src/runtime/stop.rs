//! Ends an instance and everything that it forked: asks first, kills then, and says which it was.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, timeout_at};

use super::process::{Member, ProcessId};
use super::running::{ended_of, send};
use super::{Instance, Running, RuntimeError, Stopped, cgroup};

/// How long a killed process may take to disappear; the kernel frees its memory and closes its
/// files first.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// After this the children that an instance left behind are asked once more.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What a process and everything that it forked are found by.
#[derive(Debug, Clone)]
pub(super) struct Family {
    pub app: String,
    pub process: ProcessId,
    pub cgroup: Option<PathBuf>,
}

impl Family {
    pub(super) fn of(instance: &Instance) -> Family {
        let Instance { app, process, cgroup, .. } = instance;
        Family { app: app.clone(), process: process.clone(), cgroup: cgroup.clone() }
    }

    /// All that are alive: of the session that its first process led, and of the control group.
    async fn members(&self) -> Result<Vec<Member>, RuntimeError> {
        let family = self.clone();
        let worker = tokio::task::spawn_blocking(move || {
            let mut members = family.process.session()?;
            if let Some(group) = &family.cgroup {
                let known: Vec<i32> = members.iter().map(|it| it.pid).collect();
                let more = cgroup::members(group)?.into_iter();
                members.extend(more.filter(|it| !known.contains(&it.pid)));
            }
            Ok(members)
        });
        match worker.await {
            Ok(members) => members.map_err(self.failed("find the children of")),
            Err(_) => Err(RuntimeError::Stopping { app: self.app.clone() }),
        }
    }

    /// Kills all of them, and those that they fork meanwhile; says how many were seen.
    pub(super) async fn kill(&self) -> Result<usize, RuntimeError> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        let mut killed = 0;
        loop {
            let members = self.members().await?;
            if members.is_empty() {
                self.remove_cgroup();
                return Ok(killed);
            }
            killed += members.len();
            if let Some(group) = &self.cgroup {
                cgroup::kill(group).map_err(self.failed("kill the control group of"))?;
            }
            for member in &members {
                send(&member.fd, Signal::KILL).map_err(self.failed("kill"))?;
            }
            let pids = members.iter().map(|it| it.pid).collect();
            match timeout_at(deadline, all_ended(members)).await {
                Ok(result) => result.map_err(self.failed("wait for"))?,
                Err(_elapsed) => return Err(RuntimeError::Undead { app: self.app.clone(), pids }),
            }
        }
    }

    fn remove_cgroup(&self) {
        if let Some(group) = &self.cgroup
            && let Err(cause) = cgroup::remove(group)
        {
            // An empty group costs nothing and harms nobody.
            tracing::debug!(group = %group.display(), %cause, "cannot remove a control group");
        }
    }

    fn failed(&self, deed: &'static str) -> impl FnOnce(io::Error) -> RuntimeError + use<> {
        let (pid, app) = (self.process.pid, self.app.clone());
        move |cause| RuntimeError::Process { deed, pid, app, cause }
    }
}

/// First its first process is asked, which may have children to see off; what is left then is asked
/// too, and in the end killed.
pub(super) async fn stop(
    running: &Running,
    signal: i32,
    patience: Duration,
) -> Result<Stopped, RuntimeError> {
    let family = Family::of(running.instance());
    let deadline = Instant::now() + patience;
    if running.exit().is_none() {
        running.signal(signal)?;
    }
    let in_time = timeout_at(deadline, running.exited()).await.is_ok();
    let in_time = in_time && rest_ended(&family, signal, deadline).await?;
    let killed_some = family.kill().await? > 0;
    // Who is killed ends, so this waits for the code only.
    let exit = running.exited().await;
    Ok(Stopped { killed: !in_time || killed_some, exit })
}

/// Asks again and again: a process that was just forked has its parent's handlers for a moment, and
/// a signal that comes then is lost; and others may be forked between the look and the signal.
async fn rest_ended(family: &Family, signal: i32, deadline: Instant) -> Result<bool, RuntimeError> {
    let signal = Signal::from_named_raw(signal).ok_or(RuntimeError::Signal { number: signal })?;
    loop {
        let rest = family.members().await?;
        if rest.is_empty() {
            return Ok(true);
        }
        for member in &rest {
            send(&member.fd, signal).map_err(family.failed("signal a child of"))?;
        }
        let until = deadline.min(Instant::now() + ASK_AGAIN);
        match timeout_at(until, all_ended(rest)).await {
            Ok(result) => result.map_err(family.failed("wait for a child of"))?,
            Err(_elapsed) if until == deadline => return Ok(false),
            Err(_elapsed) => {}
        }
    }
}

async fn all_ended(members: Vec<Member>) -> io::Result<()> {
    for member in members {
        ended_of(member.fd).await?;
    }
    Ok(())
}
