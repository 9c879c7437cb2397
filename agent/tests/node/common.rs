//! A node in a temporary folder, with the real `rota-agent` as the shim, and apps made of `sh`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_agent::runtime::exec::Exec;
use rota_agent::runtime::{Instance, Launcher, Running, Runtime, RuntimeError, StartSpec};
use rota_agent::spec::{
    Check, Driver, Format, Health, Hooks, Limits, OnDrainTimeout, Port, Run, Spec, Traffic, Via,
};

pub const SECOND: Duration = Duration::from_secs(1);
/// For what must happen, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(60);

/// A release whose program is this line of `sh`.
pub fn spec(script: &str) -> Spec {
    Spec {
        app: "shop".into(),
        env: "prod".into(),
        version: "1.2.0".into(),
        digest: "ab".repeat(32),
        size: 1,
        format: Format::Tar,
        run: Run {
            driver: Driver::Exec,
            command: vec!["sh".into(), "-c".into(), script.into()],
            user: None,
            env: BTreeMap::new(),
            env_file: None,
            port: Port::None,
            stop_signal: 15,
            stop_timeout: SECOND,
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
            drain_timeout: SECOND,
            on_drain_timeout: OnDrainTimeout::Cut,
            edges: Default::default(),
        },
        smoke: Vec::new(),
        hooks: Hooks::default(),
        image: None,
    }
}

pub struct Node {
    pub folder: tempfile::TempDir,
    pub launcher: Launcher,
    pub exec: Exec,
}

impl Node {
    pub fn new() -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        // As the data folder is: the app's user must get through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("opens it");
        fs::create_dir(folder.path().join("release")).expect("makes it");
        let launcher = Launcher::program(Path::new(env!("CARGO_BIN_EXE_rota-agent")));
        let exec = Exec::new(folder.path(), launcher.clone());
        Node { folder, launcher, exec }
    }

    pub fn release(&self) -> PathBuf {
        self.folder.path().join("release")
    }

    pub fn start_spec(&self, spec: Spec) -> StartSpec {
        StartSpec {
            spec,
            instance: String::new(),
            folder: self.release(),
            port: Some(9000),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            node: "web-01".into(),
            labels: BTreeMap::from([("zone".into(), "a".into())]),
        }
    }

    pub async fn start(&self, script: &str) -> Running {
        self.exec.start(&self.start_spec(spec(script))).await.expect("starts")
    }

    pub async fn start_error(&self, start: &StartSpec) -> String {
        match self.exec.start(start).await {
            Ok(running) => panic!("it started: {running:?}"),
            Err(error @ RuntimeError::Start { .. }) => chain(&error),
            Err(error) => panic!("another error: {error}"),
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.exec.log("shop", "")).unwrap_or_default()
    }

    /// Waits until the app has written this.
    pub async fn wrote(&self, text: &str) -> String {
        until(text, || Some(self.log()).filter(|log| log.contains(text))).await
    }

    pub async fn end(&self, running: &Running) {
        self.exec.stop(running, 9, SECOND).await.expect("stops");
    }
}

/// Waits for what another process does; there is nothing to be told by.
pub async fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            match found() {
                Some(it) => return it,
                // The pace of looking, where nothing tells; the caller's time limit ends it.
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Whether this process is there and no zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|it| !it.is_empty() && !it.starts_with(['Z', 'X']))
}

pub fn pid_of(instance: &Instance) -> i32 {
    instance.process.pid
}

pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text = format!("{text}: {it}");
        cause = it.source();
    }
    text
}
