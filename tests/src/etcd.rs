//! A real etcd for tests: one member or several, which can be killed, stopped and started again. `None` where this
//! machine has no etcd: such a test says so and is skipped.
//!
//! Also used by the unit tests of the controller, so it names nothing of this crate.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// For a member to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first port of a member.
const FIRST_PORT: u16 = 12_000;

/// So many, up to those that agents give to apps.
const PORTS: u16 = 8_000;

/// The first ports of two processes are so far apart.
const PORTS_APART: u32 = 61;

static PORTS_GIVEN: AtomicU32 = AtomicU32::new(0);

/// Starts the member, tells its pid, and ends it when whoever asked for it is gone: also where a test dies, and where
/// nobody is left to drop it.
const GUARDIAN: &str = r#"
log=$1; remove=$2; shift 2
"$@" >>"$log" 2>&1 </dev/null &
echo $!
cat >/dev/null
kill -9 $! 2>/dev/null
wait
[ -z "$remove" ] || rm -rf "$remove"
"#;

/// A cluster.
pub struct Etcd {
    members: Vec<Member>,
    /// Files that members need besides their data; gone with the cluster.
    dir: Dir,
}

enum Dir {
    Owned(TempDir),
    /// The guardian of the only member removes it: a static is never dropped.
    Guarded(PathBuf),
}

struct Member {
    command: Vec<String>,
    client: u16,
    /// Without TLS: the same as `client` where that has none.
    plain: u16,
    metrics: u16,
    running: Option<(Child, ChildStdin, Pid)>,
}

/// How clients come in.
#[derive(Default)]
pub struct Access {
    /// `https`, by certificates that `args` name, instead of `http`.
    pub tls: bool,
    /// Further arguments of every member.
    pub args: Vec<String>,
    /// Data lies on a disk, where a bench measures what that costs.
    pub on_disk: bool,
}

impl Etcd {
    /// So many members, or `None`, loudly, where there is no etcd.
    pub fn start(members: usize) -> Option<Self> {
        Self::start_with(members, &Access::default())
    }

    /// As [`Self::start`], with arguments.
    pub fn start_with(members: usize, access: &Access) -> Option<Self> {
        let dir = || match access.on_disk {
            true => tempfile::tempdir().expect("a folder for etcd"),
            false => dir(),
        };
        is_there().then(|| Self::begin(members, access, Dir::Owned(dir())))
    }

    /// One member that lives as long as this process.
    pub fn shared() -> Option<Self> {
        let kept = || Dir::Guarded(dir().keep());
        is_there().then(|| Self::begin(1, &Access::default(), kept()))
    }

    fn begin(count: usize, access: &Access, dir: Dir) -> Self {
        let scheme = if access.tls { "https" } else { "http" };
        let ports: Vec<[u16; 4]> = (0..count).map(|_| free_ports()).collect();
        let peers = ports.iter().enumerate();
        let peers: Vec<_> = peers.map(|(n, p)| format!("m{n}=http://127.0.0.1:{}", p[1])).collect();
        let member = |(n, [client, peer, metrics, plain]): (usize, &[u16; 4])| {
            let (client_url, peer_url) =
                (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
            let plain = if access.tls { *plain } else { *client };
            let mut listen = client_url.clone();
            if access.tls {
                listen = format!("{listen},http://127.0.0.1:{plain}");
            }
            let data = dir.path().join(format!("m{n}")).display().to_string();
            let mut command = vec!["etcd".to_owned()];
            for (flag, value) in [
                ("name", format!("m{n}")),
                ("data-dir", data),
                ("listen-client-urls", listen),
                ("advertise-client-urls", client_url),
                ("listen-peer-urls", peer_url.clone()),
                ("initial-advertise-peer-urls", peer_url),
                ("initial-cluster", peers.join(",")),
                ("initial-cluster-token", format!("test-{}", ports[0][1])),
                ("listen-metrics-urls", format!("http://127.0.0.1:{metrics}")),
                ("log-level", "warn".to_owned()),
                ("logger", "zap".to_owned()),
            ] {
                command.push(format!("--{flag}={value}"));
            }
            command.extend(access.args.iter().cloned());
            Member { command, client: *client, plain, metrics: *metrics, running: None }
        };
        let members = ports.iter().enumerate().map(member).collect();
        let mut etcd = Self { members, dir };
        // All must be there before one of them is ready.
        for n in 0..count {
            etcd.spawn(n);
        }
        etcd.wait_ready();
        etcd
    }

    /// `etcd://…` without options.
    pub fn url(&self) -> String {
        let members = self.members.iter().map(|m| format!("127.0.0.1:{}", m.client));
        format!("etcd://{}", members.collect::<Vec<_>>().join(","))
    }

    /// `etcd://…` of one member alone.
    pub fn url_of(&self, n: usize) -> String {
        format!("etcd://127.0.0.1:{}", self.members[n].client)
    }

    /// `etcd://…` of the first member without TLS, where the others have it.
    pub fn plain_url(&self) -> String {
        format!("etcd://127.0.0.1:{}", self.members[0].plain)
    }

    /// Calls etcd's own JSON interface, without TLS: how a test does what `etcdctl` does for an operator.
    pub fn post(&self, path: &str, json: &str) -> String {
        let length = json.len();
        let head = format!("POST /v3/{path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n");
        let answer = exchange(self.members[0].plain, &format!("{head}{json}"));
        let answer = answer.expect("etcd's JSON interface answers");
        assert!(answer.contains(" 200 "), "{path}: {answer}");
        answer
    }

    /// The process of a member, while it runs.
    pub fn pid(&self, n: usize) -> Option<u32> {
        let (.., pid) = self.members[n].running.as_ref()?;
        u32::try_from(pid.as_raw_nonzero().get()).ok()
    }

    /// A place for files of a test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts a member that was killed, without waiting for it.
    pub fn spawn(&mut self, n: usize) {
        let remove = match &self.dir {
            Dir::Owned(_) => String::new(),
            Dir::Guarded(path) => path.display().to_string(),
        };
        let log = self.dir.path().join(format!("m{n}.log"));
        let member = &mut self.members[n];
        let mut guardian = Command::new("sh");
        guardian.args(["-c", GUARDIAN, "guardian"]).arg(log).arg(remove).args(&member.command);
        guardian.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = guardian.spawn().expect("a shell");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = stdin.zip(stdout).expect("both are pipes");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("the pid of etcd");
        let pid = line.trim().parse().ok().and_then(Pid::from_raw).expect("the pid of etcd");
        member.running = Some((child, stdin, pid));
    }

    /// Kill -9.
    pub fn kill(&mut self, n: usize) {
        if let Some((mut guardian, stdin, pid)) = self.members[n].running.take() {
            if let Err(gone) = kill_process(pid, Signal::KILL) {
                eprintln!("member {n} had ended already: {gone}");
            }
            drop(stdin);
            guardian.wait().expect("it ends");
        }
    }

    /// Freezes a member.
    pub fn freeze(&self, n: usize) {
        self.signal(n, Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self, n: usize) {
        self.signal(n, Signal::CONT);
    }

    fn signal(&self, n: usize, signal: Signal) {
        let (.., pid) = self.members[n].running.as_ref().expect("it runs");
        kill_process(*pid, signal).expect("it runs");
    }

    /// Kills a member and starts it again.
    pub fn restart(&mut self, n: usize) {
        self.kill(n);
        self.spawn(n);
    }

    /// Waits until every member that runs has a leader.
    pub fn wait_ready(&self) {
        let end = Instant::now() + PATIENCE;
        for n in 0..self.members.len() {
            let healthy = |text: String| text.contains(r#""health":"true""#);
            while self.members[n].running.is_some()
                && !self.asked(n, "/health").is_some_and(healthy)
            {
                assert!(Instant::now() < end, "etcd is not ready: {}", self.log(n));
                pace();
            }
        }
    }

    /// The member that leads; waits for one.
    pub fn leader(&self) -> usize {
        let end = Instant::now() + PATIENCE;
        loop {
            let leads = |n: &usize| {
                let told = self.asked(*n, "/metrics").unwrap_or_default();
                told.lines().any(|line| line == "etcd_server_is_leader 1")
            };
            if let Some(leader) = (0..self.members.len()).find(leads) {
                return leader;
            }
            assert!(Instant::now() < end, "nobody leads");
            pace();
        }
    }

    fn asked(&self, n: usize, path: &str) -> Option<String> {
        exchange(self.members[n].metrics, &format!("GET {path} HTTP/1.0\r\n\r\n"))
    }

    fn log(&self, n: usize) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(self.dir.path().join(format!("m{n}.log"))) {
            drop(file.read_to_string(&mut text));
        }
        // The last lines say why.
        let start = text.len().saturating_sub(2000);
        text.get(start..).unwrap_or(&text).to_owned()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for n in 0..self.members.len() {
            self.kill(n);
        }
    }
}

impl Dir {
    fn path(&self) -> &Path {
        match self {
            Self::Owned(dir) => dir.path(),
            Self::Guarded(path) => path,
        }
    }
}

/// Is there an etcd?
pub fn is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join("etcd").is_file());
    if !found {
        eprintln!("SKIPPED: there is no etcd on the PATH (Debian: apt install etcd-server)");
    }
    found
}

/// In memory where that is possible: what etcd promises of disks is not what is tested.
fn dir() -> TempDir {
    let shm = Path::new("/dev/shm");
    if fs::metadata(shm).is_ok_and(|found| found.is_dir())
        && let Ok(dir) = tempfile::tempdir_in(shm)
    {
        return dir;
    }
    tempfile::tempdir().expect("a folder for etcd")
}

fn exchange(port: u16, request: &str) -> Option<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Some that are free, and stay so while a member is dead: below those that the kernel gives to whoever asks for any,
/// and never the same ones twice in one process.
fn free_ports() -> [u16; 4] {
    let mut ports = [0; 4];
    for port in &mut ports {
        *port = loop {
            let turn = PORTS_GIVEN.fetch_add(1, Ordering::Relaxed);
            let place = (std::process::id() * PORTS_APART + turn) % u32::from(PORTS);
            let candidate = FIRST_PORT + u16::try_from(place).expect("below PORTS");
            if TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)).is_ok() {
                break candidate;
            }
        };
    }
    ports
}

/// Etcd tells nobody when it is ready: it is asked at this pace.
fn pace() {
    // Etcd's own pace.
    std::thread::sleep(Duration::from_millis(20));
}
