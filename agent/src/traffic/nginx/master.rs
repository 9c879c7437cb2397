//! The master process of an nginx: found by its pid file, asked to test its configuration, told to reload, and watched
//! until every worker from before takes no more requests (nginx: "Controlling nginx").

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use thiserror::Error;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

/// How long `nginx -t` may take. It looks up the names of upstreams, which may hang.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a reload may take until the old workers step back. It takes some ten milliseconds.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at the workers: nginx says nothing when a reload is done.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// How the master and its workers call themselves.
const MASTER_TITLE: &str = "nginx: master process ";
const STEPPING_BACK: &str = "nginx: worker process is shutting down";
const WORKER: &str = "nginx: worker process";

/// The running master.
#[derive(Debug)]
pub struct Master {
    pid: u32,
    program: PathBuf,
    /// What it was started with that says which configuration it reads.
    args: Vec<String>,
}

/// nginx does not run, or did not do it.
#[derive(Debug, Error)]
pub enum MasterError {
    /// It does not run.
    #[error("nginx does not run: {} names no master of nginx", pid_file.display())]
    Absent { pid_file: PathBuf },
    /// `nginx -t` failed.
    #[error("nginx refuses its configuration, which is left as it was: {why}")]
    Refused { why: String },
    /// `nginx -t` could not be run.
    #[error("cannot run {} -t", program.display())]
    Test {
        program: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It was told to reload, and did not.
    #[error(
        "nginx did not reload within {} s: its error log says why; workers {old:?} go on as before",
        RELOAD_TIMEOUT.as_secs()
    )]
    Stuck { old: Vec<u32> },
    /// The kernel did not let us signal it, or does not tell its workers.
    #[error("cannot {deed} nginx's master process {pid}")]
    Process {
        deed: &'static str,
        pid: u32,
        #[source]
        cause: io::Error,
    },
}

impl Master {
    /// The master that the pid file names, if it is one.
    pub fn find(pid_file: &Path) -> Result<Self, MasterError> {
        let absent = || MasterError::Absent { pid_file: pid_file.to_owned() };
        let text = std::fs::read_to_string(pid_file).map_err(|_| absent())?;
        let pid: u32 = text.trim().parse().map_err(|_| absent())?;
        let title = title(pid).ok_or_else(absent)?;
        let line = title.strip_prefix(MASTER_TITLE).ok_or_else(absent)?;
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).map_err(|_| absent())?;
        // The package was upgraded since: the new program tests as well as the old.
        let text = program.to_string_lossy();
        let program = PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(&text));
        let words: Vec<&str> = line.split_whitespace().collect();
        let said = words.windows(2).filter(|pair| ["-c", "-p"].contains(&pair[0]));
        let args = said.flatten().map(|&word| word.to_owned()).collect();
        Ok(Self { pid, program, args })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Would nginx take the configuration as it is on disk now?
    pub async fn test(&self) -> Result<(), MasterError> {
        let mut test = Command::new(&self.program);
        test.args(&self.args).args(["-t", "-q"]).stdin(Stdio::null()).kill_on_drop(true);
        let failed = |cause| MasterError::Test { program: self.program.clone(), cause };
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        let output = timeout(TEST_TIMEOUT, test.output()).await.unwrap_or_else(late);
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let why = text.lines().find(|line| line.contains("[emerg]")).or(text.lines().next());
        Err(MasterError::Refused { why: why.unwrap_or("it does not say why").to_owned() })
    }

    /// Reloads; when this returns, no worker from before takes new requests.
    pub async fn reload(&self) -> Result<(), MasterError> {
        let before = self.workers()?;
        let failed = |cause: rustix::io::Errno| self.failed("signal")(cause.into());
        let pid = Pid::from_raw(self.pid.cast_signed());
        let pid = pid.ok_or_else(|| self.failed("signal")(io::ErrorKind::InvalidInput.into()))?;
        kill_process(pid, Signal::HUP).map_err(failed)?;
        let deadline = Instant::now() + RELOAD_TIMEOUT;
        loop {
            let now = self.workers()?;
            let old: Vec<u32> = before.intersection(&now).copied().collect();
            if old.is_empty() && !now.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(MasterError::Stuck { old });
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// The workers that take requests.
    fn workers(&self) -> Result<BTreeSet<u32>, MasterError> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(path).map_err(self.failed("list the workers of"))?;
        let serves = |pid: &u32| {
            let title = title(*pid).unwrap_or_default();
            title.starts_with(WORKER) && !title.starts_with(STEPPING_BACK)
        };
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        Ok(pids.filter(serves).collect())
    }

    fn failed(&self, deed: &'static str) -> impl FnOnce(io::Error) -> MasterError + use<> {
        let pid = self.pid;
        move |cause| MasterError::Process { deed, pid, cause }
    }
}

/// How a process calls itself.
fn title(pid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    Some(text.trim().to_owned())
}
