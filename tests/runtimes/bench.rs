//! An agent's folder with one driver, and apps made of `sh`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rota_agent::runtime::docker::Docker;
use rota_agent::runtime::drivers::Drivers;
use rota_agent::runtime::{Launcher, Running, Runtime, StartSpec};
use rota_agent::spec::{
    Check, Driver, Format, Health, Hooks, IMAGE_FILE, Limits, OnDrainTimeout, Port, Run, Spec,
    Traffic, Via,
};
use rota_tests::Trouble;

/// For what must happen, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(30);
/// The time that an app has to end, where it will not.
pub const SHORT: Duration = Duration::from_millis(300);

/// One driver, in an agent's folder.
pub struct Bench {
    pub driver: Driver,
    pub runtime: Drivers,
    agent: PathBuf,
    pub app: PathBuf,
    /// What containers are made of.
    pub image: String,
    folder: tempfile::TempDir,
}

impl Bench {
    pub fn new(driver: Driver, agent: PathBuf, app: PathBuf) -> Result<Bench, Trouble> {
        let folder = tempfile::tempdir()?;
        // As the agent's folder is: the app's user must get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711))?;
        let runtime = drivers(folder.path(), &agent);
        Ok(Bench { driver, runtime, agent, app, image: String::new(), folder })
    }

    /// The same, with an image.
    pub fn with_image(mut self, image: &str) -> Bench {
        image.clone_into(&mut self.image);
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn agent(&self) -> &Path {
        &self.agent
    }

    /// Runs the app's commands.
    pub fn launcher(&self) -> Launcher {
        Launcher::program(&self.agent).with_docker(Docker::new(self.folder.path()))
    }

    /// What the next agent has: the folder, and nothing in memory.
    pub fn next_agent(&self) -> Drivers {
        drivers(self.folder.path(), &self.agent)
    }

    /// A release whose program is this line of `sh`, ready to be started.
    pub fn shell(&self, app: &str, script: &str) -> StartSpec {
        start(self.folder.path(), (self.driver, &self.image), app, script)
    }

    pub async fn start(&self, start: &StartSpec) -> Running {
        self.runtime.start(start).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// Waits until an instance of this app runs, whoever starts it.
    pub async fn runs(&self, app: &str) {
        let begun = Instant::now();
        while self.runtime.find(app, "").await.expect("is looked for").is_none() {
            assert!(begun.elapsed() < LONG, "{app} was never started");
            // The pace of looking at what systemd does.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Why it does not start.
    pub async fn refusal(&self, start: &StartSpec) -> String {
        match self.runtime.start(start).await {
            Ok(running) => panic!("it started: {:?}", running.instance()),
            Err(error) => chain(&error),
        }
    }

    /// The output, once this is in it.
    pub async fn wrote(&self, running: &Running, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let output = self.runtime.output(running.instance()).await.expect("is read");
            if output.contains(text) {
                return output;
            }
            assert!(begun.elapsed() < LONG, "never wrote {text:?}: {output:?}");
            // The pace of looking at what another process does.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Bench {
    /// Containers outlive whoever started them.
    fn drop(&mut self) {
        if self.driver == Driver::Docker {
            let label = format!("label=rota.agent={}", self.folder.path().display());
            let list = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output();
            let ids = list.map(|list| String::from_utf8_lossy(&list.stdout).into_owned());
            for id in ids.unwrap_or_default().split_whitespace() {
                if Command::new("docker").args(["rm", "-f", id]).output().is_err() {
                    eprintln!("container {id} is not removed");
                }
            }
        }
    }
}

pub fn drivers(folder: &Path, agent: &Path) -> Drivers {
    Drivers::new(folder, Launcher::program(agent))
}

/// A release of this app in the agent's folder.
pub fn start(root: &Path, (driver, image): (Driver, &str), app: &str, script: &str) -> StartSpec {
    let spec = spec(driver, app, script);
    let folder = root.join("apps").join(app).join("releases").join(spec.folder());
    fs::create_dir_all(&folder).expect("is made");
    if driver == Driver::Docker {
        fs::write(folder.join(IMAGE_FILE), image).expect("is written");
    }
    StartSpec {
        spec,
        instance: String::new(),
        folder,
        port: Some(9000),
        host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        node: "web-01".into(),
        labels: BTreeMap::from([("zone".into(), "a".into())]),
    }
}

fn spec(driver: Driver, app: &str, script: &str) -> Spec {
    Spec {
        app: app.into(),
        env: "prod".into(),
        version: "1.2.0".into(),
        digest: "ab".repeat(32),
        size: 1,
        format: Format::Tar,
        run: Run {
            driver,
            command: vec!["sh".into(), "-c".into(), script.into()],
            user: None,
            env: BTreeMap::new(),
            env_file: None,
            port: Port::Fixed(9000),
            stop_signal: 15,
            stop_timeout: LONG,
            notify: false,
            socket: false,
            limits: Limits::default(),
        },
        health: Health {
            check: Check::Alive,
            interval: Duration::from_millis(20),
            timeout: LONG,
            healthy_for: Duration::ZERO,
            deadline: LONG,
        },
        traffic: Traffic {
            via: Via::None,
            drain_timeout: LONG,
            on_drain_timeout: OnDrainTimeout::Cut,
            edges: Default::default(),
        },
        smoke: Vec::new(),
        hooks: Hooks::default(),
        image: None,
    }
}

/// An error with all its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// How many processes of this host have this word in their command line.
pub fn processes_with(word: &str) -> usize {
    let all = fs::read_dir("/proc").expect("is read").flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.split(|byte| *byte == 0).any(|it| it == word.as_bytes())).count()
}

/// Waits until no process has this word in its command line.
pub async fn all_gone(word: &str) {
    let begun = Instant::now();
    while processes_with(word) > 0 {
        assert!(begun.elapsed() < LONG, "{word} still runs");
        // The pace of looking at what another process does.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
