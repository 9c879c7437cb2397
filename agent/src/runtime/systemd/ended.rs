//! How a unit ended, or did not begin, in words.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::bus::{Bus, BusError, Look};
use crate::runtime::launch::Plan;
use crate::runtime::running::{Exit, ended_of};
use crate::runtime::shim::explain;

/// How long systemd may take to say how a process ended that the kernel says has ended.
const HOW_TIMEOUT: Duration = Duration::from_secs(5);

/// What `ExecMainCode` says: ended by itself, by a signal, by one that left a core.
const EXITED: i32 = 1;
const KILLED: i32 = 2;
const DUMPED: i32 = 3;

/// What systemd exits with in the app's place when it cannot become the app.
const OWN_CODES: std::ops::RangeInclusive<i32> = 200..=245;

/// What came of a start.
pub(super) enum AtStart {
    /// It runs, or ran and has ended already.
    Runs,
    /// It was given up because it did not say that it is ready.
    NeverReady,
    /// It never ran.
    Refused(String),
}

pub(super) fn at_start(job: &str, look: &Look, program: &str, plan: &Plan) -> AtStart {
    if job == "done" {
        return AtStart::Runs;
    }
    let status = look.main_status;
    let own = look.main_code == EXITED && OWN_CODES.contains(&status);
    match look.result.as_str() {
        "timeout" => AtStart::NeverReady,
        "exit-code" if own => AtStart::Refused(own_code(status, program, plan)),
        // It ended before it was ready: that it ended, and how, is told like any other end.
        "exit-code" | "signal" | "core-dump" | "oom-kill" | "protocol" if look.main_code != 0 => {
            AtStart::Runs
        }
        result => AtStart::Refused(format!("its job ended as `{job}`, its result is `{result}`")),
    }
}

fn own_code(status: i32, program: &str, plan: &Plan) -> String {
    let user = plan.user.as_ref().map(|ids| ids.uid).unwrap_or_default();
    match status {
        200 => format!("cannot enter the folder {}", plan.folder.display()),
        203 => {
            let cause = io::Error::from(io::ErrorKind::NotFound);
            format!(
                "cannot run `{program}`: {}",
                explain(program, (&plan.folder, &plan.env), &cause)
            )
        }
        205 => "its limits cannot be set (205/LIMITS)".to_owned(),
        209 => "its log cannot be opened (209/STDOUT)".to_owned(),
        216 | 217 => format!("it cannot become user {user} ({status})"),
        status => format!("systemd could not prepare it (status {status}; see `journalctl`)"),
    }
}

/// Waits until the main process has ended, and says how.
pub(super) async fn of(bus: &Bus, unit: &str, process: Option<OwnedFd>) -> Exit {
    if let Some(process) = process
        && let Err(cause) = ended_of(process).await
    {
        tracing::error!(unit, %cause, "cannot watch a process; taken as ended");
    }
    match timeout(HOW_TIMEOUT, Box::pin(how(bus, unit))).await {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            tracing::warn!(unit, %error, "systemd does not say how it ended");
            Exit::Unknown
        }
        Err(_elapsed) => Exit::Unknown,
    }
}

async fn how(bus: &Bus, unit: &str) -> Result<Exit, BusError> {
    let Some(loaded) = bus.unit(unit).await? else { return Ok(Exit::Unknown) };
    // A kill by the kernel for want of memory is known only when all of the unit has ended.
    let known = |look: &Look| {
        look.has_ended() || (look.main_code != 0 && !is_kill(look) && look.main_pid == 0)
    };
    Ok(loaded.wait(known).await?.map_or(Exit::Unknown, |look| exit(&look)))
}

fn is_kill(look: &Look) -> bool {
    look.main_code == KILLED && look.main_status == 9
}

fn exit(look: &Look) -> Exit {
    match (look.result.as_str(), look.main_code) {
        ("oom-kill", _) => Exit::OutOfMemory,
        (_, EXITED) => Exit::Code(look.main_status),
        (_, KILLED | DUMPED) => Exit::Signal(look.main_status),
        (_, _) => Exit::Unknown,
    }
}
