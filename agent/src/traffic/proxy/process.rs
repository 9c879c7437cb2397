//! The process of a built-in proxy: found by its control socket, or started in a session of its
//! own, so that it lives on when the agent does not.

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rota_proxy::control::{CallError, Client, Stats};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// How long a new proxy may take until it answers. It only reads its state file; a proxy that
/// still finishes requests for the same address may hold it up for its 30 s.
const START_TIMEOUT: Duration = Duration::from_secs(40);

/// Between two looks for the socket of a proxy that starts. A start takes some 10 ms, and a socket
/// has no event that says "bound" without watching the whole folder.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long an answering proxy may take for the first sign of life.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a log that is begun anew when a proxy starts; the one before is kept.
const LOG_MAX: u64 = 8 << 20;

/// Where the proxy of one pool is, and how it is started.
#[derive(Debug)]
pub(super) struct Process {
    folder: PathBuf,
    wanted: SocketAddr,
    /// Our child, unless an earlier agent started it.
    child: Option<Child>,
}

/// Why no proxy answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("cannot start the proxy: {0}")]
    Spawn(#[source] io::Error),
    #[error("the proxy ended at its start ({status}); its log {} ends with: {last}", log.display())]
    Ended { status: String, log: PathBuf, last: String },
    #[error("the proxy does not answer on {} within {} s", path.display(), START_TIMEOUT.as_secs())]
    Silent { path: PathBuf },
}

impl Process {
    pub(super) fn new(folder: PathBuf, wanted: SocketAddr) -> Self {
        Self { folder, wanted, child: None }
    }

    pub(super) fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    pub(super) fn wanted(&self) -> SocketAddr {
        self.wanted
    }

    /// Does a proxy that listens there do what was asked for?
    pub(super) fn fits(&self, listen: SocketAddr) -> bool {
        let port = self.wanted.port();
        self.wanted.ip() == listen.ip() && (port == 0 || port == listen.port())
    }

    /// A port that was picked stays the same when the proxy has to start again.
    pub(super) fn found(&mut self, stats: &Stats) {
        let text = stats.listen.to_string();
        let path = self.folder.join("listen");
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return;
        }
        if let Err(error) = fs::write(&path, text) {
            // Only a port that was picked, and only after a crash of the proxy, would change.
            warn!("cannot note where the proxy listens in {}: {error}", path.display());
        }
    }

    /// Where the next one should listen.
    fn listen(&self) -> SocketAddr {
        let known = fs::read_to_string(self.folder.join("listen")).ok();
        let known = known.and_then(|text| text.parse().ok());
        known.filter(|known| self.fits(*known)).unwrap_or(self.wanted)
    }

    /// The proxy that answers; a new one, if none does.
    pub(super) async fn reach(&mut self) -> Result<Client, StartError> {
        if let Some(client) = self.answering().await {
            return Ok(client);
        }
        if !self.is_running() {
            self.spawn().map_err(StartError::Spawn)?;
        }
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(client) = self.answering().await {
                return Ok(client);
            }
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                self.child = None;
                let log = self.log();
                let last = last_line(&log);
                return Err(StartError::Ended { status: status.to_string(), log, last });
            }
            sleep(LOOK_EVERY).await;
        }
        Err(StartError::Silent { path: self.control() })
    }

    /// A living proxy answers; the socket of a dead one refuses.
    async fn answering(&self) -> Option<Client> {
        let hello = async {
            let client = Client::connect(self.control()).await?;
            client.stats().await?;
            Ok::<_, CallError>(client)
        };
        match timeout(CONNECT_TIMEOUT, hello).await {
            Ok(Ok(client)) => Some(client),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn log(&self) -> PathBuf {
        self.folder.join("proxy.log")
    }

    fn spawn(&mut self) -> io::Result<()> {
        let (listen, log) = (self.listen(), self.log());
        if fs::metadata(&log).is_ok_and(|found| found.len() > LOG_MAX) {
            fs::rename(&log, log.with_extension("log.old"))?;
        }
        let output = File::options().create(true).append(true).open(&log)?;
        // This very program, also when its file was replaced meanwhile. The subcommand makes a
        // session of its own before anything else.
        let mut command = std::process::Command::new("/proc/self/exe");
        command
            .arg0("rota-agent")
            .arg("proxy")
            .args(["--listen", &listen.to_string()])
            .arg("--control")
            .arg(self.control())
            .arg("--state")
            .arg(self.folder.join("state.json"))
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = Command::from(command).kill_on_drop(false).spawn()?;
        info!(pid = child.id(), %listen, "started the proxy");
        self.child = Some(child);
        Ok(())
    }
}

/// The end of a log, for an error.
fn last_line(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("(nothing)").to_owned()
}
