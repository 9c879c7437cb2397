//! The driver `exec`: an instance is a process in a session of its own, and in a control group
//! where there is one.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;

use super::launch::{Launcher, Output};
use super::stop::{Family, stop};
use super::{
    Instance, LaunchError, ProcessId, Running, Runtime, RuntimeError, StartSpec, Stopped, cgroup,
};
use crate::logs;
use crate::spec::Driver;

/// Starts processes and finds them again.
#[derive(Debug, Clone)]
pub struct Exec {
    root: PathBuf,
    launcher: Launcher,
    cgroups: Option<PathBuf>,
}

impl Exec {
    /// Logs and notes go to `root/apps/APP`.
    pub fn new(root: &Path, launcher: Launcher) -> Exec {
        Exec { root: root.into(), launcher, cgroups: None }
    }

    /// Gives each instance a control group below this folder, if it is a writable cgroup v2.
    pub fn with_cgroups(self, base: &Path) -> Exec {
        Exec { cgroups: Some(base.into()), ..self }
    }

    /// Where an instance's output is appended.
    pub fn log(&self, app: &str, instance: &str) -> PathBuf {
        let name = if instance.is_empty() { "app" } else { instance };
        self.root.join("apps").join(app).join("log").join(format!("{name}.log"))
    }

    fn record(&self, app: &str, instance: &str) -> PathBuf {
        let name = if instance.is_empty() { "app" } else { instance };
        self.root.join("apps").join(app).join("run").join(format!("{name}.json"))
    }

    async fn try_start(&self, start: &StartSpec) -> Result<Running, LaunchError> {
        let (app, name) = (&start.spec.app, &start.instance);
        let log = self.log(app, name);
        let record = self.record(app, name);
        make_folder(log.parent(), 0o755)?;
        make_folder(record.parent(), 0o700)?;
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
        };
        plan.cgroup = instance.cgroup.clone();
        plan.record = Some((record, instance.clone()));
        let child = match self.launcher.launch(&plan).await {
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

    fn forget(&self, instance: &Instance) -> Result<(), RuntimeError> {
        let path = self.record(&instance.app, &instance.instance);
        // Another instance may have been started under this name meanwhile.
        if read_record(&path)?.is_some_and(|it| it.process == instance.process) {
            std::fs::remove_file(&path).map_err(|cause| RuntimeError::Disk {
                deed: "remove",
                path,
                cause,
            })?;
        }
        Ok(())
    }
}

const PIDFD_FLAGS: rustix::process::PidfdFlags = rustix::process::PidfdFlags::NONBLOCK;

#[async_trait]
impl Runtime for Exec {
    async fn start(&self, start: &StartSpec) -> Result<Running, RuntimeError> {
        self.try_start(start).await.map_err(|cause| RuntimeError::Start {
            app: start.spec.app.clone(),
            version: start.spec.version.clone(),
            cause: Box::new(cause),
        })
    }

    async fn adopt(&self, instance: &Instance) -> Result<Option<Running>, RuntimeError> {
        let failed = |cause| RuntimeError::Process {
            deed: "adopt",
            pid: instance.process.pid,
            app: instance.app.clone(),
            cause,
        };
        match instance.process.open().map_err(failed)? {
            Some(process) => Ok(Some(Running::adopted(instance.clone(), process).map_err(failed)?)),
            None => Ok(None),
        }
    }

    async fn find(&self, app: &str, instance: &str) -> Result<Option<Running>, RuntimeError> {
        match read_record(&self.record(app, instance))? {
            Some(instance) => self.adopt(&instance).await,
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
        self.forget(running.instance())?;
        Ok(stopped)
    }

    async fn kill_leftovers(&self, instance: &Instance) -> Result<usize, RuntimeError> {
        let killed = Family::of(instance).kill().await?;
        self.forget(instance)?;
        Ok(killed)
    }
}

fn read_record(path: &Path) -> Result<Option<Instance>, RuntimeError> {
    let failed = |cause| RuntimeError::Disk { deed: "read", path: path.into(), cause };
    match std::fs::read(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed(cause)),
        Ok(json) => serde_json::from_slice(&json).map(Some).map_err(|cause| failed(cause.into())),
    }
}

/// With this mode whatever the agent's umask is.
fn make_folder(path: Option<&Path>, mode: u32) -> Result<(), LaunchError> {
    let Some(path) = path else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|cause| LaunchError::Disk { deed: "make", path: path.into(), cause })
}
