//! The driver `exec`: an instance is a process in a session of its own, and in a control group
//! where there is one.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::launch::{Launcher, Output};
use super::listeners::Listeners;
use super::stop::{Family, stop};
use super::{
    Instance, LaunchError, Places, ProcessId, Running, Runtime, RuntimeError, StartSpec, Stopped,
    cgroup,
};
use crate::logs;
use crate::spec::{Driver, Spec};

/// Starts processes and finds them again.
#[derive(Debug, Clone)]
pub struct Exec {
    places: Places,
    launcher: Launcher,
    cgroups: Option<PathBuf>,
    listeners: Arc<Listeners>,
}

impl Exec {
    /// Logs and notes go to `root/apps/APP`.
    pub fn new(root: &Path, launcher: Launcher) -> Exec {
        Exec { places: Places::new(root), launcher, cgroups: None, listeners: Arc::default() }
    }

    /// Shares listening sockets with the other drivers.
    pub fn with_listeners(self, listeners: Arc<Listeners>) -> Exec {
        Exec { listeners, ..self }
    }

    /// Gives each instance a control group below this folder, if it is a writable cgroup v2.
    pub fn with_cgroups(self, base: &Path) -> Exec {
        Exec { cgroups: Some(base.into()), ..self }
    }

    /// Where an instance's output is appended.
    pub fn log(&self, app: &str, instance: &str) -> PathBuf {
        self.places.log(app, instance)
    }

    /// The app's listening socket, if it wants one.
    fn socket(&self, start: &StartSpec) -> Result<Option<OwnedFd>, LaunchError> {
        let app = &start.spec.app;
        match start.port.filter(|_| start.spec.run.socket) {
            Some(port) => {
                let socket = self.listeners.give(app, port);
                socket.map(Some).map_err(|cause| LaunchError::Listen { port, cause })
            }
            None => {
                self.listeners.close(app);
                Ok(None)
            }
        }
    }
}

const PIDFD_FLAGS: rustix::process::PidfdFlags = rustix::process::PidfdFlags::NONBLOCK;

#[async_trait]
impl Runtime for Exec {
    async fn check(&self, spec: &Spec) -> Result<(), RuntimeError> {
        let driver = Driver::Exec;
        if spec.run.notify {
            let why = "nobody listens for READY=1; use driver = \"systemd\"".to_owned();
            return Err(RuntimeError::Cannot { key: "notify", driver, why });
        }
        let missing = cgroup::cannot(self.cgroups.as_deref(), &spec.run.limits);
        match missing {
            Some((key, why)) => Err(RuntimeError::Cannot { key, driver, why }),
            None => Ok(()),
        }
    }

    fn places(&self) -> &Places {
        &self.places
    }

    async fn launch(&self, start: &StartSpec) -> Result<Running, LaunchError> {
        let (app, name) = (&start.spec.app, &start.instance);
        let log = self.log(app, name);
        self.places.make(app)?;
        let mut plan = Launcher::plan(start, &start.spec.run.command, Output::Log(log.clone()))?;
        let mut instance = Instance {
            app: app.clone(),
            instance: name.clone(),
            version: start.spec.version.clone(),
            digest: start.spec.digest.clone(),
            driver: Driver::Exec,
            port: start.port,
            process: ProcessId { pid: 0, start_time: 0, boot_id: String::new() },
            log_since: logs::length(&log),
            log,
            cgroup: cgroup::make(self.cgroups.as_deref(), app, name),
            unit: None,
            container: None,
            socket: start.spec.run.socket,
        };
        if let Some(group) = &instance.cgroup {
            cgroup::limit(group, &start.spec.run.limits).map_err(|cause| LaunchError::Disk {
                deed: "write the limits into",
                path: group.clone(),
                cause,
            })?;
        }
        plan.cgroup = instance.cgroup.clone();
        plan.record = Some((self.places.record(app, name), instance.clone()));
        plan.open_files = start.spec.run.limits.open_files;
        let socket = self.socket(start)?;
        plan.socket = socket.is_some();
        let child = match self.launcher.launch(&plan, socket).await {
            Ok(child) => child,
            Err(error) => {
                instance.cgroup.as_deref().map_or(Ok(()), cgroup::remove).unwrap_or_else(|cause| {
                    tracing::debug!(%cause, "cannot remove a control group");
                });
                return Err(error);
            }
        };
        // The child is not waited for yet, so its number is its own, even if it has ended.
        let watch = |cause| LaunchError::Shim {
            deed: "watch",
            program: plan.argv.first().cloned().unwrap_or_default(),
            cause,
        };
        let pid = child.id().map(u32::cast_signed).unwrap_or_default();
        instance.process = ProcessId::of(pid)
            .and_then(|it| it.ok_or_else(|| io::Error::other("it is gone")))
            .map_err(watch)?;
        let number = rustix::process::Pid::from_raw(pid);
        let process = number
            .ok_or_else(|| io::Error::other("it has no number"))
            .and_then(|it| Ok(rustix::process::pidfd_open(it, PIDFD_FLAGS)?))
            .map_err(watch)?;
        Ok(Running::started(instance, process, child))
    }

    async fn look(&self, noted: &Instance) -> Result<Option<Running>, RuntimeError> {
        let failed = |cause| RuntimeError::Process {
            deed: "adopt",
            pid: noted.process.pid,
            app: noted.app.clone(),
            cause,
        };
        match noted.process.open().map_err(failed)? {
            Some(process) => {
                self.listeners.adopt(noted, &process);
                Ok(Some(Running::adopted(noted.clone(), process).map_err(failed)?))
            }
            None => Ok(None),
        }
    }

    async fn stop(
        &self,
        running: &Running,
        signal: i32,
        timeout: Duration,
    ) -> Result<Stopped, RuntimeError> {
        let stopped = stop(running, signal, timeout).await?;
        self.places.forget(running.instance())?;
        Ok(stopped)
    }

    async fn kill_leftovers(&self, instance: &Instance) -> Result<usize, RuntimeError> {
        let killed = Family::of(instance).kill().await?;
        self.places.forget(instance)?;
        Ok(killed)
    }
}
