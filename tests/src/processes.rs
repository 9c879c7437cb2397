//! The programs under test, and one running process of them with its log.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use crate::Trouble;

/// How long a process may take to say that it is ready, on a busy machine.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

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
    /// Builds them, once, in the profile of the running program, and says where they are.
    pub fn build() -> Result<Self, Trouble> {
        static BUILT: OnceLock<Result<Programs, String>> = OnceLock::new();
        let built = BUILT.get_or_init(|| Self::build_now().map_err(|error| error.to_string()));
        Ok(built.clone()?)
    }

    /// Those of the version before, which `ROTA_BEFORE` names by their folder, with the same sample app; `None`, which
    /// is said, where there are none.
    pub fn before() -> Result<Option<Self>, Trouble> {
        let Some(dir) = std::env::var_os("ROTA_BEFORE").map(PathBuf::from) else {
            eprintln!(
                "SKIPPED: ROTA_BEFORE names no folder with the programs of the version before: \
                 ROTA_BEFORE=$(.ci/build-before)"
            );
            return Ok(None);
        };
        let (rota, agent) = (dir.join("rota"), dir.join("rota-agent"));
        for program in [&rota, &agent] {
            let found = fs::metadata(program);
            found.map_err(|error| format!("ROTA_BEFORE: {}: {error}", program.display()))?;
        }
        Ok(Some(Self { rota, agent, app: Self::build()?.app }))
    }

    fn build_now() -> Result<Self, Trouble> {
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
        // What Cargo says about this package would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let told = name.to_str().is_some_and(|it| {
                it.starts_with("CARGO_PKG_") || it.starts_with("CARGO_MANIFEST_")
            });
            if told {
                command.env_remove(name);
            }
        }
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
    pub fn start(mut command: Command, log: &Path) -> Result<Self, Trouble> {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or("no stderr")?;
        let (tell, lines) = mpsc::channel();
        let mut file = fs::File::options().create(true).append(true).open(log)?;
        std::thread::spawn(move || {
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

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
