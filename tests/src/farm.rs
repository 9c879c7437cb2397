//! A small fleet of real processes on loopback: one controller, one edge with the built-in proxy, some nodes.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a process may take to say that it is ready, on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// The environment that everything here belongs to.
pub const ENV: &str = "prod";

/// Why the farm does not stand.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// The programs under test.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The controller and CLI.
    pub rota: PathBuf,
    /// The agent.
    pub agent: PathBuf,
    /// The sample app.
    pub app: PathBuf,
}

impl Programs {
    /// Builds them in the profile of the running program, and says where they are.
    pub fn build() -> Result<Self, Trouble> {
        let own = std::env::current_exe()?;
        let mut dir = own.parent().ok_or("this program lies nowhere")?.to_owned();
        if dir.ends_with("deps") {
            dir.pop();
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--quiet", "--workspace", "--bins"]);
        if dir.ends_with("release") {
            command.arg("--release");
        }
        let target = dir.parent().ok_or("no target folder")?;
        command.env("CARGO_TARGET_DIR", target).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !command.status()?.success() {
            return Err("the programs could not be built: see above".into());
        }
        let program = |name: &str| dir.join(name);
        let (rota, agent) = (program("rota"), program("rota-agent"));
        Ok(Self { rota, agent, app: program("sample-app") })
    }
}

/// One process, and what it logs.
pub struct Process {
    child: Child,
    /// The line with `ready`.
    pub ready: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program and waits for its ready line; everything goes into a log file too.
    fn start(mut command: Command, log: &Path) -> Result<Self, Trouble> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let (tell, lines) = mpsc::channel();
        let mut file = fs::File::options().create(true).append(true).open(log)?;
        std::thread::spawn(move || {
            use std::io::Write;
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if writeln!(file, "{line}").is_err() {
                    return;
                }
                if line.contains(" ready: ")
                    && !line.contains("edge ready")
                    && tell.send(line).is_err()
                {
                    continue; // nobody waits any more; the log goes on
                }
            }
        });
        match lines.recv_timeout(READY_TIMEOUT) {
            Ok(ready) => Ok(Self { child, ready, log: log.to_owned() }),
            Err(_) => {
                let log = fs::read_to_string(log).unwrap_or_default();
                Err(format!("{command:?} did not get ready; its log:\n{log}").into())
            }
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The value of `key=` in the ready line.
    pub fn told(&self, key: &str) -> Option<&str> {
        self.ready.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) -> Result<(), Trouble> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end, and waits.
    pub fn terminate(&mut self) -> Result<(), Trouble> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        self.child.wait()?;
        Ok(())
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

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
}

impl Farm {
    /// One controller, one edge, so many nodes; all on free ports.
    pub fn start(nodes: usize) -> Result<Self, Trouble> {
        Self::of(Programs::build()?, nodes)
    }

    /// The same with these programs.
    pub fn of(programs: Programs, nodes: usize) -> Result<Self, Trouble> {
        let dir = tempfile::tempdir()?;
        let at = |name: &str| dir.path().join(name);
        let controller = serve(&programs, dir.path(), "127.0.0.1:0")?;
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
        let mut command = Command::new(&programs.agent);
        command.args(["run", "--name", "lb-01", "--env", ENV, "--edge", "shop=proxy@127.0.0.1:0"]);
        command.args(["--traffic-listen", "127.0.0.1:0", "--controller", &address]);
        command.args(["--token", &edge_token, "--data"]).arg(at("lb-01"));
        let edge = Process::start(command, &at("lb-01.log"))?;
        let mut farm = Self { dir, programs, controller, edge, nodes: Vec::new(), token };
        for number in 1..=nodes {
            let node = farm.start_node(number)?;
            farm.nodes.push(node);
        }
        let ready = |count: usize| move |list: &str| list.matches("\"ready\"").count() == count;
        farm.wait(ready(nodes), &["node", "ls"])?;
        farm.wait(ready(1), &["edge", "ls"])?;
        Ok(farm)
    }

    /// Starts (again) the agent of a node, counted from 1.
    pub fn start_node(&self, number: usize) -> Result<Process, Trouble> {
        let name = format!("web-{number:02}");
        let address = self.controller.told("grpc").ok_or("no gRPC address")?;
        let mut command = Command::new(&self.programs.agent);
        command.args(["run", "--name", &name, "--env", ENV, "--role", "web"]);
        command.args(["--controller", address, "--token", &self.token, "--data"]);
        command.arg(self.path(&name));
        Process::start(command, &self.path(&format!("{name}.log")))
    }

    /// Starts the controller again, at the same addresses.
    pub fn restart_controller(&mut self) -> Result<(), Trouble> {
        let address = self.controller.told("grpc").ok_or("no gRPC address")?.to_owned();
        self.controller = serve(&self.programs, self.dir.path(), &address)?;
        Ok(())
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

    /// Asks again, until the JSON answer is as it should be.
    pub fn wait(&self, right: impl Fn(&str) -> bool, args: &[&str]) -> Result<String, Trouble> {
        let begun = Instant::now();
        loop {
            let output = self.rota().args(args).args(["-o", "json"]).output()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if right(&text) {
                return Ok(text);
            }
            if begun.elapsed() > READY_TIMEOUT {
                return Err(format!("{args:?} still says {text}").into());
            }
            std::thread::yield_now();
        }
    }

    /// Writes an app's folder and manifest; `strategy` goes below `[strategy]`.
    pub fn write_app(&self, broken: bool, strategy: &str) -> Result<PathBuf, Trouble> {
        let folder = self.path("app");
        fs::create_dir_all(folder.join("dist"))?;
        fs::copy(&self.programs.app, folder.join("dist/sample-app"))?;
        let flag = if broken { ", \"--broken-page\"" } else { "" };
        let manifest = format!(
            r#"app = "shop"

[artifact]
path = "dist"

[run]
command = ["./sample-app", "--port", "{{port}}"{flag}]
port = "auto"

[health]
http = "/healthz"
interval = "50ms"

[traffic]
pool = "shop"

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
}

fn serve(programs: &Programs, dir: &Path, listen: &str) -> Result<Process, Trouble> {
    let mut command = Command::new(&programs.rota);
    command.args(["serve", "--listen", listen, "--http", "127.0.0.1:0", "--data"]);
    command.arg(dir.join("controller"));
    Process::start(command, &dir.join("controller.log"))
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
        let here = self.dir.path().as_os_str().as_encoded_bytes().to_owned();
        let Ok(all) = fs::read_dir("/proc") else { return };
        for entry in all.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
                continue;
            };
            let ours = |file: &str| {
                let path = entry.path().join(file);
                let link =
                    fs::read_link(&path).map(|link| link.into_os_string().into_encoded_bytes());
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
}
