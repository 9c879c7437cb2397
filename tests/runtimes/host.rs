//! A host that runs systemd, as a container.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::PART;
use rota_tests::Trouble;
use rota_tests::processes::Programs;

/// Debian with systemd and D-Bus; `tests/lab/lab image` makes it.
const IMAGE: &str = "rota-lab:bookworm";

/// Where the programs are inside.
const PROGRAMS: &str = "/opt/rota";

/// The programs, for who is inside.
pub fn programs() -> Programs {
    let at = |name: &str| Path::new(PROGRAMS).join(name);
    Programs { rota: at("rota"), agent: at("rota-agent"), app: at("sample-app") }
}

/// How long it may take to boot.
const BOOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Removed with everything in it when it is dropped.
pub struct Host {
    name: String,
}

fn docker(args: &[&str]) -> Result<Output, Trouble> {
    Ok(Command::new("docker").args(args).output()?)
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&all).trim().to_owned()
}

impl Host {
    /// Boots one that has the programs.
    pub fn start(programs: &Programs) -> Result<Host, Trouble> {
        if !docker(&["image", "inspect", IMAGE])?.status.success() {
            return Err(format!("docker has no image {IMAGE} (tests/lab/lab image)").into());
        }
        let name = format!("rota-runtimes-{}", std::process::id());
        let here = programs.agent.parent().unwrap_or(Path::new("/"));
        let mount = format!("{}:{PROGRAMS}:ro", here.display());
        let words = "run -d --stop-signal SIGRTMIN+3 --cap-add SYS_ADMIN --cap-add NET_ADMIN \
                     --cap-add SYS_PTRACE --security-opt seccomp=unconfined \
                     --security-opt apparmor=unconfined --tmpfs /run --tmpfs /run/lock \
                     --tmpfs /tmp:exec -v /sys/fs/cgroup:/sys/fs/cgroup --cgroupns=host";
        let mut args: Vec<&str> = words.split_whitespace().collect();
        args.extend(["-v", &mount, "--name", &name, IMAGE, "/sbin/init"]);
        let started = docker(&args)?;
        let host = Host { name };
        if !started.status.success() {
            return Err(said(&started).into());
        }
        let begun = Instant::now();
        loop {
            // `degraded`: a unit that has nothing to do with us failed.
            let state = said(&host.exec(&["systemctl", "is-system-running", "--wait"])?);
            if ["running", "degraded"].contains(&state.as_str()) {
                return Ok(host);
            }
            if begun.elapsed() > BOOT_TIMEOUT {
                return Err(format!("it did not boot: {state}").into());
            }
        }
    }

    /// Runs a command in it.
    pub fn exec(&self, command: &[&str]) -> Result<Output, Trouble> {
        docker(&[&["exec", &self.name][..], command].concat())
    }

    /// Runs a part of this program's tests in it.
    pub fn run_part(&self, part: &str) -> Result<(), Trouble> {
        let own = std::env::current_exe()?;
        let file = own.file_name().and_then(|it| it.to_str()).ok_or("no name")?;
        let (program, part_is) = (format!("{PROGRAMS}/deps/{file}"), format!("{PART}={part}"));
        let words = ["env", &part_is, &program, "--ignored", "--exact", "part", "--nocapture"];
        let output = self.exec(&words)?;
        eprintln!("{}", said(&output));
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{part} failed inside the host: see above").into()),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        match docker(&["rm", "-f", "-v", &self.name]) {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("{} is not removed: {}", self.name, said(&output)),
            Err(error) => eprintln!("{} is not removed: {error}", self.name),
        }
    }
}
