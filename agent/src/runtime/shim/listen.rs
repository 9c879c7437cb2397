//! The last step before an app that is given its listening socket: the socket comes as stdin and must be at
//! descriptor 3, which is free only after an exec has closed what was there.
//!
//! The driver `exec` comes here from the shim, with a pipe for complaints as stderr; systemd starts it as the app's
//! unit, with the app's output as stderr.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::stdio::{dup2_stderr, dup2_stdin};

use super::{LISTEN, Never, Plan, SUBCOMMAND, explain};
use crate::runtime::listeners::FIRST_FD;

/// Where copies go that must not be at the socket's place.
const ASIDE: i32 = 10;

/// What systemd itself says of a program that cannot be run.
pub(in crate::runtime) const CANNOT_RUN: u8 = 203;

/// Becomes this program once more, with nothing open but what it is given.
pub(super) fn become_listener(
    plan: &Plan,
    socket: &OwnedFd,
    pipe: &OwnedFd,
) -> Result<Never, String> {
    let failed = |cause: rustix::io::Errno| format!("cannot hand over its socket: {cause}");
    dup2_stdin(socket).map_err(failed)?;
    dup2_stderr(pipe).map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("rota-agent").args([SUBCOMMAND, LISTEN]).args(&plan.argv);
    let cause = command.env_clear().envs(&plan.env).exec();
    Err(format!("cannot hand over its socket: {cause}"))
}

/// Becomes the app, or says why not.
pub(super) fn become_app(argv: impl Iterator<Item = OsString>) -> ExitCode {
    let argv: Vec<OsString> = argv.collect();
    let aside = fcntl_dupfd_cloexec(io::stderr(), ASIDE);
    let complaint = match hand_over(&argv) {
        Ok(never) => match never {},
        Err(complaint) => complaint,
    };
    match aside.map(|it| File::from(it).write_all(complaint.as_bytes())) {
        // There is nobody left to tell; the code says it.
        Ok(Err(_)) | Err(_) => {}
        Ok(Ok(())) => {}
    }
    ExitCode::from(CANNOT_RUN)
}

fn hand_over(argv: &[OsString]) -> Result<Never, String> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err("the command is empty".into());
    };
    place_socket().map_err(|cause| format!("cannot hand over its socket: {cause}"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", "1");
    command.env("LISTEN_FDNAMES", std::env::var("ROTA_APP").unwrap_or_default());
    let cause = command.exec();
    let env = std::env::vars().collect();
    Err(explain(&program.to_string_lossy(), (Path::new("."), &env), &cause))
}

fn place_socket() -> io::Result<()> {
    let socket = fcntl_dupfd_cloexec(io::stdin(), ASIDE)?;
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stderr(io::stdout())?;
    let placed = fcntl_dupfd_cloexec(&socket, FIRST_FD)?;
    if placed.as_raw_fd() != FIRST_FD {
        return Err(io::Error::other("something else is open at descriptor 3"));
    }
    fcntl_setfd(&placed, FdFlags::empty())?;
    // It stays open for the app.
    let _: i32 = placed.into_raw_fd();
    Ok(())
}
