//! All drivers as one: a release says what runs it, and an instance what runs it already.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::docker::Docker;
use super::exec::Exec;
use super::listeners::Listeners;
use super::systemd::Systemd;
use super::{
    Instance, LaunchError, Launcher, Places, Running, Runtime, RuntimeError, StartSpec, Stopped,
    cgroup,
};
use crate::spec::{Driver, Spec};

/// See the file's first lines.
pub struct Drivers {
    places: Places,
    exec: Exec,
    systemd: Systemd,
    docker: Docker,
}

impl Drivers {
    /// The drivers of an agent with this folder.
    pub fn new(root: &Path, launcher: Launcher) -> Drivers {
        let docker = launcher.docker().cloned().unwrap_or_else(|| Docker::new(root));
        let listeners = Arc::new(Listeners::default());
        let systemd = Systemd::new(root, &launcher).with_listeners(Arc::clone(&listeners));
        let exec = Exec::new(root, launcher).with_listeners(listeners);
        let exec = match cgroup::delegated() {
            Some(group) => exec.with_cgroups(&group),
            None => exec,
        };
        Drivers { places: Places::new(root), exec, systemd, docker }
    }

    fn of(&self, driver: Driver) -> &dyn Runtime {
        match driver {
            Driver::Exec => &self.exec,
            Driver::Systemd => &self.systemd,
            Driver::Docker => &self.docker,
        }
    }
}

#[async_trait]
impl Runtime for Drivers {
    async fn check(&self, spec: &Spec) -> Result<(), RuntimeError> {
        self.of(spec.run.driver).check(spec).await
    }

    fn places(&self) -> &Places {
        &self.places
    }

    async fn launch(&self, start: &StartSpec) -> Result<Running, LaunchError> {
        self.of(start.spec.run.driver).launch(start).await
    }

    async fn look(&self, noted: &Instance) -> Result<Option<Running>, RuntimeError> {
        self.of(noted.driver).look(noted).await
    }

    async fn stop(
        &self,
        running: &Running,
        signal: i32,
        timeout: Duration,
    ) -> Result<Stopped, RuntimeError> {
        self.of(running.instance().driver).stop(running, signal, timeout).await
    }

    async fn kill_leftovers(&self, instance: &Instance) -> Result<usize, RuntimeError> {
        self.of(instance.driver).kill_leftovers(instance).await
    }

    async fn output(&self, instance: &Instance) -> Result<String, RuntimeError> {
        self.of(instance.driver).output(instance).await
    }
}
