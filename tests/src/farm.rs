//! A small fleet of real processes on loopback: one controller, one edge with the built-in proxy, some nodes.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::Trouble;
use crate::hosts::Hosts;
use crate::processes::{Process, Programs};

/// How long the fleet may take to get where a test wants it.
const PATIENCE: Duration = Duration::from_secs(90);

/// The environment that everything here belongs to.
pub const ENV: &str = "prod";

/// The fleet.
pub struct Farm {
    dir: tempfile::TempDir,
    /// The programs.
    pub programs: Programs,
    /// The controller.
    pub controller: Process,
    /// The edge's agent.
    pub edge: Process,
    /// The nodes' agents.
    pub nodes: Vec<Process>,
    token: String,
    balancer: String,
    /// More arguments of `rota serve`.
    serving: Vec<String>,
    /// Where the nodes are; `None`: here.
    hosts: Option<Hosts>,
}

/// Where nodes on hosts of their own are asked for their apps' readiness.
const ENDPOINT: &str = "0.0.0.0:7403";

/// What is written into an app's manifest beside what they all have.
#[derive(Debug, Clone, Copy, Default)]
pub struct App<'a> {
    /// More arguments of the sample app.
    pub args: &'a [&'a str],
    /// Below `[health]`.
    pub health: &'a str,
    /// Below `[traffic]`.
    pub traffic: &'a str,
    /// Below `[strategy]`.
    pub strategy: &'a str,
}

/// What a fleet is made of.
struct Layout<'a> {
    nodes: usize,
    balancer: &'a str,
    serving: &'a [&'a str],
    hosts: Option<Hosts>,
}

impl Default for Layout<'_> {
    fn default() -> Self {
        Self { nodes: 1, balancer: "proxy@127.0.0.1:0", serving: &[], hosts: None }
    }
}

impl Farm {
    /// One controller, one edge, so many nodes; all on free ports.
    pub fn start(nodes: usize) -> Result<Self, Trouble> {
        Self::of(Programs::build()?, nodes)
    }

    /// The same with these programs.
    pub fn of(programs: Programs, nodes: usize) -> Result<Self, Trouble> {
        Self::laid_out(programs, Layout { nodes, ..Layout::default() })
    }

    /// The same behind this load balancer, as `--edge` has it.
    pub fn behind(programs: Programs, balancer: &str, nodes: usize) -> Result<Self, Trouble> {
        Self::laid_out(programs, Layout { nodes, balancer, ..Layout::default() })
    }

    /// The same with more arguments of `rota serve`.
    pub fn serving(programs: Programs, nodes: usize, serving: &[&str]) -> Result<Self, Trouble> {
        Self::laid_out(programs, Layout { nodes, serving, ..Layout::default() })
    }

    /// The same with every node on a host of its own, where it is asked for its apps' readiness.
    pub fn on_hosts(programs: Programs, nodes: usize, hosts: Hosts) -> Result<Self, Trouble> {
        Self::laid_out(programs, Layout { nodes, hosts: Some(hosts), ..Layout::default() })
    }

    fn laid_out(programs: Programs, layout: Layout<'_>) -> Result<Self, Trouble> {
        let Layout { nodes, balancer, serving, hosts } = layout;
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let serving: Vec<String> = serving.iter().map(|&arg| arg.to_owned()).collect();
        let here = hosts.as_ref().map_or("127.0.0.1".to_owned(), Hosts::gateway);
        let controller = serve(&programs, dir.path(), &format!("{here}:0"), &serving)?;
        let address = controller.told("grpc").ok_or("no gRPC address")?.to_owned();
        let rota = |args: &[&str]| -> Result<String, Trouble> {
            let mut command = Command::new(&programs.rota);
            command.args(args).env("ROTA_CONTEXT", at("controller/admin.toml"));
            let output = command.output()?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
            }
            Ok(String::from_utf8(output.stdout)?.trim().to_owned())
        };
        let edge_token = rota(&["token", "create", "--for", "edge"])?;
        let uses = nodes.max(1).to_string();
        let token = rota(&["token", "create", "--for", "agent", "--uses", &uses])?;
        let edge = edge(&programs, dir.path(), (balancer, &address), &edge_token)?;
        let (none, balancer) = (Vec::new(), balancer.to_owned());
        let mut farm =
            Self { dir, programs, controller, edge, nodes: none, token, balancer, serving, hosts };
        for number in 1..=nodes {
            let node = farm.start_node(number)?;
            farm.nodes.push(node);
        }
        farm.wait("/api/v1/nodes", |list| count(list, "state", "ready") == nodes)?;
        farm.wait("/api/v1/edges", |list| count(list, "state", "ready") == 1)?;
        Ok(farm)
    }

    /// Starts (again) the agent of a node, counted from 1.
    pub fn start_node(&self, number: usize) -> Result<Process, Trouble> {
        let name = format!("web-{number:02}");
        let address = self.controller.told("grpc").ok_or("no gRPC address")?;
        let agent = &self.programs.agent;
        let mut command = match &self.hosts {
            Some(hosts) => hosts.on(number, agent),
            None => Command::new(agent),
        };
        command.args(["run", "--name", &name, "--env", ENV, "--role", "web"]);
        if self.hosts.is_some() {
            command.args(["--endpoint-listen", ENDPOINT]);
        }
        command.args(["--controller", address, "--token", &self.token, "--data"]);
        command.arg(self.path(&name));
        Process::start(command, &self.path(&format!("{name}.log")))
    }

    /// Starts the edge's agent again.
    pub fn start_edge(&self) -> Result<Process, Trouble> {
        let address = self.controller.told("grpc").ok_or("no gRPC address")?;
        edge(&self.programs, self.dir.path(), (&self.balancer, address), "")
    }

    /// Starts the controller again, at the same addresses.
    pub fn restart_controller(&mut self) -> Result<(), Trouble> {
        let address = self.controller.told("grpc").ok_or("no gRPC address")?.to_owned();
        self.controller = serve(&self.programs, self.dir.path(), &address, &self.serving)?;
        Ok(())
    }

    /// The same with other arguments of `rota serve`, from now on.
    pub fn restart_controller_with(&mut self, serving: &[&str]) -> Result<(), Trouble> {
        self.serving = serving.iter().map(|&arg| arg.to_owned()).collect();
        self.restart_controller()
    }

    /// A path in the farm's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where clients reach the pool.
    pub fn pool(&self) -> Result<SocketAddr, Trouble> {
        Ok(self.edge.told("shop").ok_or("the edge has no pool")?.parse()?)
    }

    /// The operator's command line as the first admin.
    pub fn rota(&self) -> Command {
        let mut command = Command::new(&self.programs.rota);
        command.env("ROTA_CONTEXT", self.path("controller/admin.toml")).env_remove("NO_COLOR");
        command
    }

    /// Runs the CLI and gives back what it said.
    pub fn run(&self, args: &[&str]) -> Result<Output, Trouble> {
        Ok(self.rota().args(args).output()?)
    }

    /// One document of the API; `None` while the controller does not answer.
    pub fn read(&self, path: &str) -> Option<String> {
        read(self.controller.told("http")?.parse().ok()?, path)
    }

    /// The rollout `shop/prod`, the newest one, once it is as it should be.
    pub fn rollout(
        &self,
        right: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value, Trouble> {
        self.wait("/api/v1/rollouts/shop/prod", right)
    }

    /// Asks again, until the document is as it should be.
    pub fn wait(
        &self,
        path: &str,
        right: impl Fn(&serde_json::Value) -> bool,
    ) -> Result<serde_json::Value, Trouble> {
        let begun = Instant::now();
        loop {
            let text = self.read(path).unwrap_or_default();
            let value = serde_json::from_str(&text).unwrap_or_default();
            if right(&value) {
                return Ok(value);
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("{path} still says {text}").into());
            }
            std::thread::yield_now();
        }
    }

    /// Writes an app's folder and manifest.
    pub fn write_app(&self, app: App<'_>) -> Result<PathBuf, Trouble> {
        // Load balancers that ask the nodes know one port of them.
        let port = if self.hosts.is_some() { "9000" } else { "\"auto\"" };
        write_app(&self.path("app"), &self.programs, port, app)
    }
}

/// One document that is served at this address; `None` while nobody answers.
pub fn read(address: SocketAddr, path: &str) -> Option<String> {
    Some(answer(address, path)?.split_once("\r\n\r\n")?.1.to_owned())
}

/// The whole answer, with its head.
pub fn answer(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: c1\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Writes the folder and the manifest of an app.
pub fn write_app(
    folder: &Path,
    programs: &Programs,
    port: &str,
    app: App<'_>,
) -> Result<PathBuf, Trouble> {
    let App { args, health, traffic, strategy } = app;
    fs::create_dir_all(folder.join("dist"))?;
    fs::copy(&programs.app, folder.join("dist/sample-app"))?;
    let args: String = args.iter().map(|arg| format!(", {arg:?}")).collect();
    let manifest = format!(
        r#"app = "shop"

[artifact]
path = "dist"

[run]
command = ["./sample-app", "--port", "{{port}}"{args}]
port = {port}

[health]
http = "/healthz"
interval = "50ms"
{health}

[traffic]
pool = "shop"
{traffic}

[[smoke]]
name = "home page"
http = "/"
contains = "v{{version}}"

[target]
roles = ["web"]

[strategy]
{strategy}
"#
    );
    let path = folder.join("rota.toml");
    fs::write(&path, manifest)?;
    Ok(path)
}

fn serve(
    programs: &Programs,
    dir: &Path,
    listen: &str,
    more: &[String],
) -> Result<Process, Trouble> {
    let mut command = Command::new(&programs.rota);
    command.args(["serve", "--listen", listen, "--http", "127.0.0.1:0", "--data"]);
    command.arg(dir.join("controller")).args(more);
    Process::start(command, &dir.join("controller.log"))
}

fn edge(
    programs: &Programs,
    dir: &Path,
    (balancer, controller): (&str, &str),
    token: &str,
) -> Result<Process, Trouble> {
    let mut command = Command::new(&programs.agent);
    let pool = format!("shop={balancer}");
    command.args(["run", "--name", "lb-01", "--env", ENV, "--edge", &pool]);
    command.args(["--traffic-listen", "127.0.0.1:0", "--controller", controller]);
    if !token.is_empty() {
        command.args(["--token", token]);
    }
    command.arg("--data").arg(dir.join("lb-01"));
    Process::start(command, &dir.join("lb-01.log"))
}

/// How many of a list's documents have this text in this field.
pub fn count(list: &serde_json::Value, field: &str, text: &str) -> usize {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|document| document[field] == text).count()
}

impl Drop for Farm {
    /// Ends what the farm started: agents and controller, then the apps and the proxy that outlive their agents.
    fn drop(&mut self) {
        let processes = self.nodes.iter_mut().chain([&mut self.edge, &mut self.controller]);
        for process in processes {
            if process.kill().is_err() {
                eprintln!("a process of the farm had ended already");
            }
        }
        sweep(self.dir.path());
    }
}

/// Ends what works in a folder, or was told of it: apps and proxies outlive their agents.
pub fn sweep(folder: &Path) {
    let here = folder.as_os_str().as_encoded_bytes().to_owned();
    let Ok(all) = fs::read_dir("/proc") else { return };
    for entry in all.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        let ours = |file: &str| {
            let path = entry.path().join(file);
            let link = fs::read_link(&path).map(|link| link.into_os_string().into_encoded_bytes());
            let text = link.or_else(|_| fs::read(&path)).unwrap_or_default();
            text.windows(here.len()).any(|window| window == here)
        };
        let mut kill = Command::new("kill");
        kill.args(["-KILL", pid]).stderr(Stdio::null());
        if (ours("cwd") || ours("cmdline")) && kill.status().is_err() {
            eprintln!("process {pid} of the farm could not be ended");
        }
    }
}
