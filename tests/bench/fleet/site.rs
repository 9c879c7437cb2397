//! Controllers for a crowd: one on SQLite, or several on an etcd, with one edge, and no relays between them and the
//! crowd: ten thousand agents would need a thread each there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rota_tests::Trouble;
use rota_tests::etcd::{Access, Etcd};
use rota_tests::farm::{App, ENV, read, sweep, write_app};
use rota_tests::processes::{Process, Programs};

use super::super::process;
use super::crowd::PATIENCE;

/// How often a rollout is looked at.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// One controller.
pub struct Controller {
    /// Its name.
    pub name: String,
    process: Process,
    listens: SocketAddr,
    shows: SocketAddr,
}

/// All of it.
pub struct Site {
    dir: tempfile::TempDir,
    programs: Programs,
    etcd: Option<Etcd>,
    /// The controllers, `c1` first.
    pub controllers: Vec<Controller>,
    edge: Option<Process>,
    rolled: usize,
}

impl Site {
    /// So many controllers; several need an etcd, whose one member keeps its data on the disk as they keep theirs.
    pub fn start(programs: Programs, controllers: usize) -> Result<Self, Trouble> {
        let dir = tempfile::tempdir()?;
        let etcd = match controllers {
            1 => None,
            _ => {
                let access = Access { on_disk: true, ..Access::default() };
                Some(Etcd::start_with(1, &access).ok_or("this needs etcd on the PATH")?)
            }
        };
        let mut site = Self { dir, programs, etcd, controllers: Vec::new(), edge: None, rolled: 0 };
        for number in 1..=controllers {
            let name = format!("c{number}");
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let token = match number {
                1 => None,
                _ => Some(site.token(&["--for", "controller", "--name", &name])?),
            };
            let controller = site.serve(&name, (any, any), token.as_deref())?;
            site.controllers.push(controller);
        }
        site.start_edge()?;
        Ok(site)
    }

    fn serve(
        &self,
        name: &str,
        (listens, shows): (SocketAddr, SocketAddr),
        token: Option<&str>,
    ) -> Result<Controller, Trouble> {
        let mut command = Command::new(&self.programs.rota);
        command.args(["serve", "--name", name, "--listen", &listens.to_string()]);
        command.args(["--http", &shows.to_string()]).arg("--data").arg(self.path(name));
        if let Some(etcd) = &self.etcd {
            command.args(["--store", &etcd.url()]);
        }
        if let Some(token) = token {
            command.args(["--join", &self.address(0), "--token", token]);
        }
        let process = Process::start(command, &self.path(&format!("{name}.log")))?;
        let listens = process.told("grpc").ok_or("no gRPC address")?.parse()?;
        let shows = process.told("http").ok_or("no HTTP address")?.parse()?;
        Ok(Controller { name: name.to_owned(), process, listens, shows })
    }

    fn start_edge(&mut self) -> Result<(), Trouble> {
        let token = self.token(&["--for", "edge"])?;
        let mut command = Command::new(&self.programs.agent);
        command.args(["run", "--name", "lb-01", "--env", ENV, "--edge", "shop=proxy@127.0.0.1:0"]);
        command.args(["--traffic-listen", "127.0.0.1:0", "--controller", &self.address(0)]);
        command.args(["--token", &token, "--data"]).arg(self.path("lb-01"));
        self.edge = Some(Process::start(command, &self.path("lb-01.log"))?);
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where agents reach a controller.
    pub fn address(&self, at: usize) -> String {
        self.controllers[at].listens.to_string()
    }

    /// Its process.
    pub fn pid(&self, at: usize) -> u32 {
        self.controllers[at].process.pid()
    }

    /// Etcd's process.
    pub fn etcd_pid(&self) -> Option<u32> {
        self.etcd.as_ref()?.pid(0)
    }

    /// A new token.
    pub fn token(&self, args: &[&str]) -> Result<String, Trouble> {
        let made = self.run(0, &[&["token", "create"], args].concat())?;
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    }

    /// Runs the CLI at one controller; that it works is expected.
    pub fn run(&self, at: usize, args: &[&str]) -> Result<Output, Trouble> {
        let path = self.path(&format!("admin-{at}.toml"));
        if !path.exists() {
            let text = std::fs::read_to_string(self.path("c1/admin.toml"))?;
            let mut context: toml::Table = text.parse()?;
            context.insert("controllers".to_owned(), vec![self.address(at)].into());
            rota_identity::write_private(&path, toml::to_string(&context)?.as_bytes())?;
        }
        let mut command = Command::new(&self.programs.rota);
        let said = command.args(args).env("ROTA_CONTEXT", path).output()?;
        if said.status.code().is_none_or(|code| code > 1) {
            let why = String::from_utf8_lossy(&said.stderr);
            return Err(format!("`rota {}` fails: {why}", args.join(" ")).into());
        }
        Ok(said)
    }

    /// Starts a rollout of another version over all nodes, and leaves it alone. Answers its id.
    pub fn roll(&mut self, strategy: &str) -> Result<String, Trouble> {
        self.rolled += 1;
        let app = App { strategy, ..App::default() };
        let manifest = write_app(&self.path("app"), &self.programs, "\"auto\"", app)?;
        let manifest = manifest.to_str().ok_or("a path")?;
        let version = format!("1.{}.0", self.rolled);
        let deploy = ["deploy", "-f", manifest, "--version", &version, "--env", ENV, "--detach"];
        self.run(0, &deploy)?;
        Ok(format!("shop/{ENV}/{}", self.rolled))
    }

    /// Waits until the newest rollout has completed.
    pub fn completed(&self, at: usize) -> Result<(), Trouble> {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            let text = read(self.controllers[at].shows, "/api/v1/rollouts/shop/prod");
            let view: serde_json::Value =
                serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default();
            match view["state"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "aborted" | "rolled_back") => {
                    return Err(format!("the rollout ended otherwise: {}", view["state"]).into());
                }
                Some(_) | None => std::thread::sleep(ASKED_EVERY), // the document is large
            }
        }
        Err("the rollout does not come to its end".into())
    }

    /// Ends a controller at once.
    pub fn kill(&mut self, at: usize) -> Result<Instant, Trouble> {
        let killed = Instant::now();
        self.controllers[at].process.kill()?;
        Ok(killed)
    }

    /// How to start it again at the same addresses.
    pub fn start_again(&self, at: usize) -> Result<Controller, Trouble> {
        let dead = &self.controllers[at];
        self.serve(&dead.name, (dead.listens, dead.shows), None)
    }

    /// What a controller has logged, over its restarts.
    pub fn log(&self, at: usize) -> String {
        self.controllers[at].process.log()
    }

    /// CPU seconds of each controller, then of etcd.
    pub fn used(&self) -> Result<Vec<f64>, Trouble> {
        let controllers = (0..self.controllers.len()).map(|at| self.pid(at));
        let all = controllers.chain(self.etcd_pid());
        all.map(|pid| Ok(process::cpu(pid)?.as_secs_f64())).collect()
    }

    /// Resident KiB of each controller, then of etcd.
    pub fn resident(&self) -> Result<Vec<f64>, Trouble> {
        let controllers = (0..self.controllers.len()).map(|at| self.pid(at));
        let all = controllers.chain(self.etcd_pid());
        all.map(|pid| Ok(process::resident(pid)?.0 as f64)).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let controllers = self.controllers.iter_mut().map(|it| &mut it.process);
        for process in controllers.chain(&mut self.edge) {
            if process.kill().is_err() {
                eprintln!("a process of the site had ended already");
            }
        }
        sweep(self.dir.path());
    }
}
