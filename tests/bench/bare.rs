//! The baseline of an update: the loop that a careful operator would write by hand, one node after the other. SIGTERM,
//! wait for the end, swap the link, start, ask for the health every 5 ms. No drain, no journal, no check of a digest.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rota_tests::Trouble;
use rustix::process::{Pid, Signal, kill_process};

/// Between two questions for the health.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// An app that is not healthy after this never will be.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(10);

/// Nodes without an agent: a folder, a port and a process each.
pub struct Bare {
    nodes: Vec<Node>,
    _dir: tempfile::TempDir,
}

struct Node {
    folder: PathBuf,
    address: SocketAddr,
    app: Child,
}

impl Bare {
    /// So many nodes that run the app's first release.
    pub fn start(app: &Path, nodes: usize) -> Result<Self, Trouble> {
        let dir = tempfile::tempdir()?;
        let node = |number: usize| {
            let folder = dir.path().join(format!("node-{number}"));
            for release in RELEASES {
                let release = folder.join(release);
                std::fs::create_dir_all(&release)?;
                std::fs::copy(app, release.join("sample-app"))?;
            }
            let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
            swap(&folder, RELEASES[0])?;
            let app = launch(&folder, address, RELEASES[0])?;
            wait_healthy(address)?;
            Ok(Node { folder, address, app })
        };
        let nodes = (0..nodes).map(node).collect::<Result<_, Trouble>>()?;
        Ok(Self { nodes, _dir: dir })
    }

    /// Updates one node after the other; `round` says which release is next.
    pub fn roll(&mut self, round: usize) -> Result<Duration, Trouble> {
        let release = RELEASES[(round + 1) % RELEASES.len()];
        let begun = Instant::now();
        for node in &mut self.nodes {
            end(&mut node.app)?;
            swap(&node.folder, release)?;
            node.app = launch(&node.folder, node.address, release)?;
            wait_healthy(node.address)?;
        }
        Ok(begun.elapsed())
    }
}

const RELEASES: [&str; 2] = ["1.0.0", "1.1.0"];

impl Drop for Bare {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Err(error) = end(&mut node.app) {
                eprintln!("bench: process {} could not be ended: {error}", node.app.id());
            }
        }
    }
}

fn end(app: &mut Child) -> Result<(), Trouble> {
    let pid = i32::try_from(app.id()).ok().and_then(Pid::from_raw).ok_or("no process number")?;
    kill_process(pid, Signal::TERM)?;
    app.wait()?;
    Ok(())
}

fn swap(folder: &Path, release: &str) -> Result<(), Trouble> {
    let aside = folder.join("current.new");
    std::os::unix::fs::symlink(release, &aside)?;
    std::fs::rename(&aside, folder.join("current"))?;
    Ok(())
}

fn launch(folder: &Path, address: SocketAddr, release: &str) -> Result<Child, Trouble> {
    let current = folder.join("current");
    let mut command = Command::new(current.join("sample-app"));
    command.args(["--port", &address.port().to_string()]).env("ROTA_VERSION", release);
    command.current_dir(current).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.spawn()?)
}

fn wait_healthy(address: SocketAddr) -> Result<(), Trouble> {
    let begun = Instant::now();
    while !is_healthy(address) {
        if begun.elapsed() > HEALTHY_TIMEOUT {
            return Err(format!("the app at {address} does not get healthy").into());
        }
        std::thread::sleep(ASK_EVERY); // what the baseline does, not a wait of the bench
    }
    Ok(())
}

fn is_healthy(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: app\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    ask().unwrap_or(false)
}
