//! The hidden subcommand `exec-shim`: a new process of this program that makes itself ready and
//! then becomes the app.
//!
//! It stands between fork and exec, where a program without `unsafe` may not run code of its own.
//! It reads its plan from stdin and complains on stdout, whose copy closes by itself when the app
//! begins.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
use rustix::{fs::Gid, fs::Uid};

mod listen;

use super::ProcessId;
use super::launch::{Output, Plan};
use super::users::Ids;
use crate::journal::replace;

/// How the agent asks this program to be the shim.
pub const SUBCOMMAND: &str = "exec-shim";

/// Its second argument when it becomes an app that is given its listening socket.
pub(super) const LISTEN: &str = "listen";

/// Bytes of a plan: the kernel itself takes no more than 2 MiB of arguments and environment.
const PLAN_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// What shells use for a command that cannot be run.
const CANNOT_RUN: u8 = 127;

/// The first thing `main` does, before there is any thread: becomes the app if this is the shim,
/// and answers only when it is not (`None`) or could not (`Some`).
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|it| it != SUBCOMMAND) {
        return None;
    }
    if arguments.next().is_some_and(|it| it == LISTEN) {
        return Some(listen::become_app(arguments));
    }
    let complaint = match run() {
        Ok(never) => match never {},
        Err(complaint) => complaint,
    };
    Some(complain(&complaint))
}

/// Why the shim did not become the app.
struct Complaint {
    text: String,
    /// Where to say it, once stdout is no longer the pipe.
    pipe: Option<OwnedFd>,
}

enum Never {}

fn run() -> Result<Never, Complaint> {
    let early = |text| Complaint { text, pipe: None };
    let mut text = Vec::new();
    io::stdin()
        .take(PLAN_BYTES_MAX)
        .read_to_end(&mut text)
        .map_err(|cause| early(format!("the shim cannot read its plan: {cause}")))?;
    let plan: Plan = serde_json::from_slice(&text)
        .map_err(|cause| early(format!("the shim cannot understand its plan: {cause}")))?;
    let copy = |of: BorrowedFd<'_>| {
        rustix::io::fcntl_dupfd_cloexec(of, 3)
            .map_err(|cause| early(format!("the shim cannot copy a descriptor: {cause}")))
    };
    let pipe = copy(io::stdout().as_fd())?;
    let socket = if plan.socket { Some(copy(io::stderr().as_fd())?) } else { None };
    let became = prepare(&plan).and_then(|()| match &socket {
        Some(socket) => listen::become_listener(&plan, socket, &pipe),
        None => become_app(&plan),
    });
    match became {
        Ok(never) => Ok(never),
        Err(text) => Err(Complaint { text, pipe: Some(pipe) }),
    }
}

fn complain(complaint: &Complaint) -> ExitCode {
    let said = match &complaint.pipe {
        Some(pipe) => {
            pipe.try_clone().and_then(|it| File::from(it).write_all(complaint.text.as_bytes()))
        }
        None => io::stdout().write_all(complaint.text.as_bytes()),
    };
    match said {
        Ok(()) => ExitCode::from(CANNOT_RUN),
        // Nobody listens any more; the code is all that is left to say it with.
        Err(_) => ExitCode::from(CANNOT_RUN - 1),
    }
}

/// Everything that needs the agent's privileges comes before they are given up.
fn prepare(plan: &Plan) -> Result<(), String> {
    setsid().map_err(|cause| format!("cannot make a session: {cause}"))?;
    umask(Mode::WGRP | Mode::WOTH);
    if let Some(folder) = &plan.cgroup {
        join_cgroup(folder);
    }
    reset_oom_score();
    redirect(plan)?;
    if let Some((path, instance)) = &plan.record {
        let process =
            own_id().map_err(|cause| format!("cannot find its own start time: {cause}"))?;
        let instance = super::Instance { process, ..instance.clone() };
        serde_json::to_vec(&instance)
            .map_err(io::Error::from)
            .and_then(|json| replace(path, &json))
            .map_err(|cause| format!("cannot write {}: {cause}", path.display()))?;
    }
    if let Some(files) = plan.open_files {
        limit_open_files(files)?;
    }
    // All descriptors that the agent's own parent left open, too; the pipe closes by the same mark.
    close_fds::set_fds_cloexec(3, &[]);
    if let Some(ids) = &plan.user {
        switch_user(ids)?;
    }
    std::env::set_current_dir(&plan.folder)
        .map_err(|cause| format!("cannot enter the folder {}: {cause}", plan.folder.display()))
}

fn become_app(plan: &Plan) -> Result<Never, String> {
    let Some((program, arguments)) = plan.argv.split_first() else {
        return Err("the command is empty".into());
    };
    let cause = Command::new(program).args(arguments).env_clear().envs(&plan.env).exec();
    Err(explain(program, (&plan.folder, &plan.env), &cause))
}

fn own_id() -> io::Result<ProcessId> {
    ProcessId::of(std::process::id().cast_signed())?
        .ok_or_else(|| io::Error::other("this process is not in /proc"))
}

fn limit_open_files(files: u32) -> Result<(), String> {
    let most = Some(u64::from(files));
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })
        .map_err(|cause| format!("cannot limit its open files to {files}: {cause}"))
}

fn join_cgroup(folder: &Path) {
    // Without the group the session still tells who belongs to the app; that is no reason not to
    // run.
    if let Err(_cause) = std::fs::write(folder.join("cgroup.procs"), "0") {}
}

/// The agent may be protected from the kernel's out-of-memory killer; the app is not the agent.
fn reset_oom_score() {
    // It may always be raised, so this fails only where there is no /proc, and there it does not
    // matter.
    if let Err(_cause) = std::fs::write("/proc/self/oom_score_adj", "0") {}
}

fn redirect(plan: &Plan) -> Result<(), String> {
    let failed = |cause: rustix::io::Errno| format!("cannot redirect its output: {cause}");
    let null =
        File::open("/dev/null").map_err(|cause| format!("cannot open /dev/null: {cause}"))?;
    dup2_stdin(&null).map_err(failed)?;
    match &plan.output {
        Output::Pipe => dup2_stdout(rustix::stdio::stderr()).map_err(failed),
        Output::Log(path) => {
            let log = open_log(path, plan.user.as_ref())
                .map_err(|cause| format!("cannot open the log {}: {cause}", path.display()))?;
            dup2_stdout(&log).map_err(failed)?;
            dup2_stderr(&log).map_err(failed)
        }
    }
}

/// The log belongs to the app's user, so that the app can open `/dev/stdout` again.
pub(super) fn open_log(path: &Path, user: Option<&Ids>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let log = options.append(true).create(true).mode(0o640).open(path)?;
    if let Some(ids) = user {
        let (uid, gid) = (Uid::from_raw(ids.uid), Gid::from_raw(ids.gid));
        rustix::fs::fchown(&log, Some(uid), Some(gid))?;
    }
    Ok(log)
}

/// The shim has one thread, so what changes the thread changes the process.
fn switch_user(ids: &Ids) -> Result<(), String> {
    let groups: Vec<Gid> = ids.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups)
        .and_then(|()| set_thread_gid(Gid::from_raw(ids.gid)))
        .and_then(|()| set_thread_uid(Uid::from_raw(ids.uid)))
        .map_err(|cause| format!("cannot become user {}: {cause}", ids.uid))
}

/// The kernel says `No such file` also of a script whose interpreter is missing.
pub(super) fn explain(
    program: &str,
    (folder, env): (&Path, &BTreeMap<String, String>),
    cause: &io::Error,
) -> String {
    if !program.contains('/') {
        let path = env.get("PATH").map_or("", String::as_str);
        return match cause.kind() {
            io::ErrorKind::NotFound => format!("there is no such program in {path}"),
            _ => cause.to_string(),
        };
    }
    let file: PathBuf = folder.join(program);
    let shown = file.display();
    match (std::fs::metadata(&file), cause.kind()) {
        (Err(_), io::ErrorKind::NotFound) => format!("there is no file {shown}"),
        (Ok(it), _) if it.is_dir() => format!("{shown} is a folder"),
        (Ok(it), _) if it.permissions().mode() & 0o111 == 0 => {
            format!("{shown} is not executable (mode {:04o})", it.permissions().mode() & 0o7777)
        }
        (Ok(_), io::ErrorKind::NotFound) => match interpreter(&file) {
            Some(name) => format!("{shown} needs the interpreter {name}, which is not there"),
            None => format!("{shown} needs a loader or library that is not there"),
        },
        (Ok(_) | Err(_), _) => format!("{shown}: {cause}"),
    }
}

fn interpreter(file: &Path) -> Option<String> {
    let mut first = [0; 256];
    let read = File::open(file).and_then(|mut it| it.read(&mut first)).ok()?;
    let line = first[..read].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    line.split_whitespace().next().map(str::to_owned)
}
