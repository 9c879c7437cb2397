//! A fleet of real processes with several controllers on a real etcd, every wire between them one that can be cut.
//!
//! Each controller reaches etcd and is reached by agents, operators and the other controllers through wires of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Trouble;
use crate::etcd::Etcd;
use crate::farm::{App, ENV, answer, count, read, sweep, write_app};
use crate::processes::{Process, Programs};
use crate::relay::Relay;

/// How long the fleet may take to get where a test wants it.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many of everything.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Members of etcd.
    pub etcd: usize,
    /// Controllers.
    pub controllers: usize,
    /// Nodes.
    pub nodes: usize,
}

/// One controller and its wires.
pub struct Controller {
    /// Its name.
    pub name: String,
    /// The process; `None` while it is dead.
    pub process: Option<Process>,
    /// To the members of etcd.
    pub to_store: Vec<Relay>,
    /// From agents, operators and other controllers.
    pub from_others: Relay,
    listens: Option<SocketAddr>,
    shows: Option<SocketAddr>,
}

/// The fleet.
pub struct Several {
    dir: tempfile::TempDir,
    /// The programs.
    pub programs: Programs,
    /// The store.
    pub etcd: Etcd,
    /// The controllers, `c1` first.
    pub controllers: Vec<Controller>,
    edge: Option<Process>,
    /// The nodes' agents.
    pub nodes: Vec<Process>,
    /// Members of etcd that are dead.
    pub broken: Vec<usize>,
}

impl Several {
    /// Starts everything; `None` where there is no etcd, which was said.
    pub fn start(size: Size) -> Result<Option<Self>, Trouble> {
        Self::start_of(Programs::build()?, size)
    }

    /// The same with these programs.
    pub fn start_of(programs: Programs, size: Size) -> Result<Option<Self>, Trouble> {
        let Some(etcd) = Etcd::start(size.etcd) else { return Ok(None) };
        let dir = tempfile::tempdir()?;
        let (controllers, nodes, broken) = (Vec::new(), Vec::new(), Vec::new());
        let mut farm = Self { dir, programs, etcd, controllers, edge: None, nodes, broken };
        for number in 1..=size.controllers {
            farm.add_controller(number)?;
        }
        let uses = size.nodes.to_string();
        let token = farm.token(&["--for", "agent", "--uses", &uses])?;
        let edge_token = farm.token(&["--for", "edge"])?;
        farm.edge = Some(farm.start_edge(&["--token", &edge_token])?);
        for number in 1..=size.nodes {
            let node = farm.start_node(number, &["--token", &token])?;
            farm.nodes.push(node);
        }
        for at in 0..size.controllers {
            farm.all_here(at, size.nodes)?;
        }
        Ok(Some(farm))
    }

    /// Waits until a controller has sessions with all nodes and the edge.
    pub fn all_here(&self, at: usize, nodes: usize) -> Result<(), Trouble> {
        self.wait(at, "/api/v1/nodes", |list| count(list, "state", "ready") == nodes)?;
        self.wait(at, "/api/v1/edges", |list| count(list, "state", "ready") == 1)?;
        let sessions = format!("rota_session_count {}\n", nodes + 1);
        until(|| self.read(at, "/metrics")?.contains(&sessions).then_some(()))
            .ok_or_else(|| format!("controller {} has not all sessions", at + 1).into())
    }

    fn add_controller(&mut self, number: usize) -> Result<(), Trouble> {
        let name = format!("c{number}");
        let wire = |address: &str| -> Result<Relay, Trouble> {
            let relay = Relay::start()?;
            relay.leads_to(address.parse()?);
            Ok(relay)
        };
        let url = self.etcd.url();
        let members = url.trim_start_matches("etcd://").split(',');
        let to_store = members.map(wire).collect::<Result<Vec<_>, _>>()?;
        let from_others = Relay::start()?;
        let controller =
            Controller { name, process: None, to_store, from_others, listens: None, shows: None };
        self.controllers.push(controller);
        self.start_controller(number - 1)
    }

    /// Starts a controller (again, at the same addresses).
    pub fn start_controller(&mut self, at: usize) -> Result<(), Trouble> {
        let name = self.controllers[at].name.clone();
        let token = match at {
            0 => None,
            _ if self.path(&format!("{name}/identity/ca.pem")).exists() => None,
            _ => Some(self.token(&["--for", "controller", "--name", &name])?),
        };
        let controller = &self.controllers[at];
        let any = || SocketAddr::from(([127, 0, 0, 1], 0)).to_string();
        let wires: Vec<String> =
            controller.to_store.iter().map(|wire| wire.address.to_string()).collect();
        let mut command = Command::new(&self.programs.rota);
        command.args(["serve", "--name", &name]);
        command.args(["--store", &format!("etcd://{}", wires.join(","))]);
        command.args(["--listen", &controller.listens.map_or_else(any, |it| it.to_string())]);
        command.args(["--http", &controller.shows.map_or_else(any, |it| it.to_string())]);
        command.args(["--advertise", &controller.from_others.address.to_string()]);
        command.arg("--data").arg(self.path(&name));
        if let Some(token) = &token {
            let first = self.controllers[0].from_others.address.to_string();
            command.args(["--join", &first, "--token", token]);
        }
        let process = Process::start(command, &self.path(&format!("{name}.log")))?;
        let listens: SocketAddr = process.told("grpc").ok_or("no gRPC address")?.parse()?;
        let shows: SocketAddr = process.told("http").ok_or("no HTTP address")?.parse()?;
        let controller = &mut self.controllers[at];
        controller.from_others.leads_to(listens);
        (controller.listens, controller.shows) = (Some(listens), Some(shows));
        controller.process = Some(process);
        Ok(())
    }

    fn start_edge(&self, more: &[&str]) -> Result<Process, Trouble> {
        let mut edge = self.agent("lb-01");
        edge.args(["--edge", "shop=proxy@127.0.0.1:0", "--traffic-listen", "127.0.0.1:0"]);
        edge.args(more);
        Process::start(edge, &self.path("lb-01.log"))
    }

    fn start_node(&self, number: usize, more: &[&str]) -> Result<Process, Trouble> {
        let name = format!("web-{number:02}");
        let mut node = self.agent(&name);
        node.args(["--role", "web"]).args(more);
        Process::start(node, &self.path(&format!("{name}.log")))
    }

    /// Stops the edge's agent and starts it again, of the programs as they are now.
    pub fn restart_edge(&mut self) -> Result<(), Trouble> {
        self.edge.as_mut().ok_or("there is no edge")?.terminate()?;
        self.edge = Some(self.start_edge(&[])?);
        Ok(())
    }

    /// The same with the agent of a node, counted from 0.
    pub fn restart_node(&mut self, at: usize) -> Result<(), Trouble> {
        self.nodes[at].terminate()?;
        self.nodes[at] = self.start_node(at + 1, &[])?;
        Ok(())
    }

    fn agent(&self, name: &str) -> Command {
        let mut command = Command::new(&self.programs.agent);
        let first = self.controllers[0].from_others.address.to_string();
        command.args(["run", "--name", name, "--env", ENV, "--controller", &first]);
        command.arg("--data").arg(self.path(name));
        command
    }

    /// A new token.
    pub fn token(&self, args: &[&str]) -> Result<String, Trouble> {
        let output = self.rota(0).args(["token", "create"]).args(args).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// A path in the farm's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The operator's command line, as the first admin, at one controller.
    pub fn rota(&self, at: usize) -> Command {
        let mut command = Command::new(&self.programs.rota);
        let context = self.context(at).unwrap_or_else(|_| self.path("c1/admin.toml"));
        command.env("ROTA_CONTEXT", context).env_remove("NO_COLOR");
        command
    }

    /// The first admin's context with the address of this controller alone.
    fn context(&self, at: usize) -> Result<PathBuf, Trouble> {
        let path = self.path(&format!("admin-{}.toml", at + 1));
        let text = fs::read_to_string(self.path("c1/admin.toml"))?;
        let mut context: toml::Table = text.parse()?;
        let address = self.controllers[at].from_others.address.to_string();
        context.insert("controllers".to_owned(), vec![address].into());
        rota_identity::write_private(&path, toml::to_string(&context)?.as_bytes())?;
        Ok(path)
    }

    /// Runs the CLI at a controller and gives back what it said.
    pub fn run(&self, at: usize, args: &[&str]) -> Result<Output, Trouble> {
        Ok(self.rota(at).args(args).output()?)
    }

    /// One document of a controller's API; `None` while it does not answer.
    pub fn read(&self, at: usize, path: &str) -> Option<String> {
        read(self.controllers[at].shows?, path)
    }

    /// Asks a controller again, until the document is as it should be.
    pub fn wait(
        &self,
        at: usize,
        path: &str,
        right: impl Fn(&Value) -> bool,
    ) -> Result<Value, Trouble> {
        let mut last = String::new();
        let found = until(|| {
            last = self.read(at, path).unwrap_or_default();
            let value: Value = serde_json::from_str(&last).unwrap_or_default();
            right(&value).then_some(value)
        });
        found.ok_or_else(|| format!("{path} at controller {} still says {last}", at + 1).into())
    }

    /// Where clients reach the pool.
    pub fn pool(&self) -> Result<SocketAddr, Trouble> {
        let edge = self.edge.as_ref().ok_or("there is no edge")?;
        Ok(edge.told("shop").ok_or("the edge has no pool")?.parse()?)
    }

    /// Which controller runs the newest rollout, as another one sees it.
    pub fn owner(&self, seen_by: usize) -> Result<usize, Trouble> {
        let view =
            self.wait(seen_by, "/api/v1/rollouts/shop/prod", |it| it["controller"].is_string())?;
        let name = view["controller"].as_str().unwrap_or_default();
        let found = self.controllers.iter().position(|controller| controller.name == name);
        found.ok_or_else(|| format!("nobody is called {name}").into())
    }

    /// Ends a controller at once.
    pub fn kill(&mut self, at: usize) -> Result<(), Trouble> {
        match self.controllers[at].process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Stops a controller, or lets it go on.
    pub fn signal(&self, at: usize, signal: Signal) -> Result<(), Trouble> {
        let process = self.controllers[at].process.as_ref().ok_or("it is dead")?;
        let pid = Pid::from_raw(i32::try_from(process.pid())?).ok_or("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Begins a rollout at a controller, and does not wait for it.
    pub fn begin(&self, at: usize, version: &str, app: App<'_>) -> Result<(), Trouble> {
        let manifest = write_app(&self.path("app"), &self.programs, "\"auto\"", app)?;
        let manifest = manifest.to_str().ok_or("a path")?;
        let deploy = ["deploy", "-f", manifest, "--version", version, "--env", ENV, "--detach"];
        let asked = self.run(at, &deploy)?;
        if !asked.status.success() {
            return Err(String::from_utf8_lossy(&asked.stderr).into_owned().into());
        }
        self.wait(at, "/api/v1/rollouts/shop/prod", |view| view["to"] == version)?;
        Ok(())
    }

    /// The head of a controller's answer.
    pub fn status(&self, at: usize, path: &str) -> Option<String> {
        answer(self.controllers[at].shows?, path)
    }

    /// Asks a controller to end, and waits until it has.
    pub fn terminate(&mut self, at: usize) -> Result<(), Trouble> {
        match self.controllers[at].process.take() {
            Some(mut process) => process.terminate(),
            None => Ok(()),
        }
    }

    /// What a controller logged.
    pub fn log(&self, at: usize) -> String {
        fs::read_to_string(self.path(&format!("{}.log", self.controllers[at].name)))
            .unwrap_or_default()
    }
}

/// Tries again until there is an answer, or nobody has patience any more.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::yield_now();
    }
    None
}

impl Drop for Several {
    fn drop(&mut self) {
        let controllers = self.controllers.iter_mut().filter_map(|it| it.process.as_mut());
        for process in controllers.chain(&mut self.nodes).chain(&mut self.edge) {
            if process.kill().is_err() {
                eprintln!("a process of the farm had ended already");
            }
        }
        sweep(self.dir.path());
    }
}
