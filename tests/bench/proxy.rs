//! The built-in proxy beside HAProxy: throughput and latency in front of the same backend, in one run, with as many
//! threads each. `wrk` makes the load.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rota_proxy::control::Client;
use rota_proxy::{Intent, Key, Observed, Want};
use rota_tests::Trouble;
use rota_tests::processes::Programs;

use super::Flags;
use super::backend;
use super::table::{Samples, Table, machine};

/// How long a balancer may take to answer after its start.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two looks whether a balancer that starts answers: it is another program's start, which tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs the bench.
pub fn run(args: &[String]) -> Result<(), Trouble> {
    let flags = Flags::read(args, &["connections", "seconds", "runs"])?;
    for tool in ["haproxy", "wrk"] {
        if Command::new(tool)
            .arg("-v")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_err()
        {
            println!("proxy: SKIPPED: there is no `{tool}` here (`apt-get install haproxy wrk`)");
            return Ok(());
        }
    }
    let load = Load {
        connections: flags.number("connections", 64)?,
        seconds: flags.number("seconds", 4)?,
    };
    let threads = std::thread::available_parallelism()?.get();
    println!("proxy: {}; {threads} threads each; {load:?}", machine()?);
    let dir = tempfile::tempdir()?;
    let backend = backend::start()?;
    let ours = Balancer::built_in(&Programs::build()?.agent, dir.path(), backend)?;
    let haproxy = Balancer::haproxy(dir.path(), backend, threads)?;
    let head = ["", "req/s min", "median", "max", "p50 ms", "p99 ms", "errors"];
    let mut table = Table::new("Medians of all runs", &head);
    let targets =
        [("no proxy", backend), ("built-in proxy", ours.address), ("HAProxy", haproxy.address)];
    for (kind, close) in [("keep-alive", false), ("a connection a request", true)] {
        let mut seen: [Seen; 3] = Default::default();
        for _ in 0..flags.number("runs", 3)? {
            for ((_, address), seen) in targets.iter().zip(&mut seen) {
                load.run(*address, close, seen)?;
            }
        }
        for ((name, _), seen) in targets.iter().zip(&seen) {
            let rate = seen.rate.shown();
            let [p50, p99] = [&seen.p50, &seen.p99].map(|it| super::table::number(it.median()));
            let row = [format!("{name}, {kind}")].into_iter().chain(rate);
            table.row(row.chain([p50, p99, seen.errors.to_string()]));
        }
    }
    table.print();
    Ok(())
}

/// What `wrk` said in several runs.
#[derive(Default)]
struct Seen {
    rate: Samples,
    p50: Samples,
    p99: Samples,
    errors: u64,
}

#[derive(Debug)]
struct Load {
    connections: usize,
    seconds: usize,
}

impl Load {
    fn run(&self, address: SocketAddr, close: bool, seen: &mut Seen) -> Result<(), Trouble> {
        let mut command = Command::new("wrk");
        command.args(["-t1", "--latency"]);
        command.args([format!("-c{}", self.connections), format!("-d{}s", self.seconds)]);
        if close {
            command.args(["-H", "Connection: close"]);
        }
        let output = command.arg(format!("http://{address}/")).output()?;
        let text = String::from_utf8(output.stdout)?;
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(key));
            line.map(str::trim).ok_or_else(|| format!("wrk did not tell {key}: {text}"))
        };
        seen.rate.add(value("Requests/sec:")?.parse()?);
        seen.p50.add(milliseconds(value("50%")?)?);
        seen.p99.add(milliseconds(value("99%")?)?);
        // Lines that wrk prints only when there is something to tell.
        let bad = value("Non-2xx or 3xx responses:").unwrap_or("0");
        seen.errors += bad.parse::<u64>()?;
        let socket = value("Socket errors:").unwrap_or_default();
        let counts =
            socket.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u64>().ok());
        seen.errors += counts.sum::<u64>();
        Ok(())
    }
}

/// `1.25ms`, `890.00us` or `1.02s`.
fn milliseconds(text: &str) -> Result<f64, Trouble> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let found = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let (number, factor) = found.ok_or_else(|| format!("wrk told a time as `{text}`"))?;
    Ok(number.parse::<f64>()? * factor)
}

/// A balancer in front of the backend, as a process of its own.
struct Balancer {
    address: SocketAddr,
    process: Child,
}

impl Balancer {
    fn built_in(agent: &Path, dir: &Path, backend: SocketAddr) -> Result<Self, Trouble> {
        let address = free()?;
        let control = dir.join("control.sock");
        let mut command = Command::new(agent);
        command.args(["proxy", "--listen", &address.to_string(), "--control"]).arg(&control);
        command.arg("--state").arg(dir.join("state.json"));
        let balancer = Self { address, process: quiet(command)? };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(join(&control, backend))?;
        Ok(balancer)
    }

    fn haproxy(dir: &Path, backend: SocketAddr, threads: usize) -> Result<Self, Trouble> {
        let address = free()?;
        let path: PathBuf = dir.join("haproxy.cfg");
        let config = format!(
            "global\n nbthread {threads}\n maxconn 4096\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             frontend in\n bind {address}\n default_backend app\n\
             backend app\n balance leastconn\n http-reuse always\n option httpchk GET /\n \
             server one {backend} check inter 1s\n"
        );
        std::fs::write(&path, config)?;
        let mut command = Command::new("haproxy");
        command.arg("-q").arg("-f").arg(&path);
        let balancer = Self { address, process: quiet(command)? };
        let begun = Instant::now();
        while !backend::answers(address) {
            if begun.elapsed() > READY_TIMEOUT {
                return Err("haproxy does not answer".into());
            }
            // It says nothing when it is ready: only a try shows it.
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(balancer)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        if self.process.kill().and_then(|()| self.process.wait()).is_err() {
            eprintln!("bench: process {} could not be ended", self.process.id());
        }
    }
}

fn quiet(mut command: Command) -> Result<Child, Trouble> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().map_err(|error| format!("cannot start {command:?}: {error}").into())
}

fn free() -> Result<SocketAddr, Trouble> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Brings the backend into the pool, and waits until it is in.
async fn join(control: &Path, backend: SocketAddr) -> Result<(), Trouble> {
    let begun = Instant::now();
    let client = loop {
        match Client::connect(control).await {
            Ok(client) => break client,
            Err(error) if begun.elapsed() > READY_TIMEOUT => return Err(error.into()),
            // The socket appears without a word.
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    let mut changes = client.subscribe().await?;
    let intent = Intent {
        key: Key::new("web-01", ""),
        address: backend,
        want: Want::In,
        cut: false,
        health_path: "/".to_owned(),
        version: "1.0.0".to_owned(),
    };
    client.apply(intent).await?;
    while let Some(member) = changes.next().await? {
        if member.observed == Observed::In {
            return Ok(());
        }
    }
    Err("the proxy ended".into())
}
