//! The driver `systemd`: an instance is a transient unit of its own, over D-Bus.
//!
//! The unit is not below the agent's: whatever happens to the agent, the app goes on. The kernel tells when its main
//! process ends, systemd then tells how; so an end is noticed also while the bus is away.

mod bus;
mod ended;
mod unit;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;

pub use self::bus::BusError;
use self::bus::{Bus, Look};
use super::launch::{self, Launcher, Output};
use super::listeners::Listeners;
use super::{
    Instance, LaunchError, Places, ProcessId, Running, Runtime, RuntimeError, StartSpec, Stopped,
    cgroup, shim,
};
use crate::logs;
use crate::spec::{Driver, Spec};

/// The first version that appends output to a file and knows when a program really runs.
const VERSION_MIN: u32 = 240;

/// How long a unit may take to be gone after its last process was killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the control groups are that systemd manages: alone, beside older ones, or as one of them.
const CGROUPS: [&str; 3] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// Starts units and finds them again.
#[derive(Debug, Clone)]
pub struct Systemd {
    places: Places,
    bus: Arc<Bus>,
    listeners: Arc<Listeners>,
    /// This program, for apps that are given their socket.
    program: PathBuf,
}

impl Systemd {
    /// Logs and notes go to `root/apps/APP`. The bus is dialled when it is first needed.
    pub fn new(root: &Path, launcher: &Launcher) -> Systemd {
        let (bus, listeners) = (Arc::default(), Arc::default());
        Systemd { places: Places::new(root), bus, listeners, program: launcher.path() }
    }

    /// Shares listening sockets with the other drivers.
    pub fn with_listeners(self, listeners: Arc<Listeners>) -> Systemd {
        Systemd { listeners, ..self }
    }

    /// The job has ended as `result`: what came of it?
    async fn look_after(
        &self,
        mut instance: Instance,
        result: &str,
        (plan, within): (&launch::Plan, Duration),
    ) -> Result<Running, LaunchError> {
        let unit = instance.unit.clone().unwrap_or_default();
        let program = plan.argv.first().cloned().unwrap_or_default();
        let complaint = format!("its job ended as `{result}`");
        let Some(look) = self.unit(&unit).await? else {
            return Err(LaunchError::Unit { unit, complaint });
        };
        match ended::at_start(result, &look, &program, plan) {
            ended::AtStart::Runs => {}
            ended::AtStart::NeverReady => {
                self.bus.release(&unit).await;
                let output = logs::tail(&instance.log, logs::TAIL_BYTES, instance.log_since);
                return Err(LaunchError::NotReady { within, output: output.unwrap_or_default() });
            }
            ended::AtStart::Refused(complaint) => {
                self.bus.release(&unit).await;
                return Err(LaunchError::Unit { unit, complaint });
            }
        }
        let process = process_of(&look, &mut instance);
        let deed = "watch the process of";
        let process = process.map_err(|cause| LaunchError::Shim { deed, program, cause })?;
        self.places.write(&instance)?;
        Ok(self.watch(instance, process))
    }

    /// Whatever has the unit's name and is ours makes room; what is not ours is left alone.
    async fn make_room(&self, unit: &str) -> Result<(), LaunchError> {
        let Some(look) = self.unit(unit).await? else { return Ok(()) };
        if !self.is_ours(&look) {
            let whose = match look.fragment.as_str() {
                "" => "something else".to_owned(),
                file => file.to_owned(),
            };
            return Err(LaunchError::Unit {
                unit: unit.to_owned(),
                complaint: format!(
                    "that name is taken by {whose} ({}); rename the app, or use driver = \"exec\"",
                    look.folder
                ),
            });
        }
        tracing::info!(unit, active = look.active, "an earlier unit makes room");
        let manager = self.bus.manager().await?;
        self.bus.stop(unit, KILL_TIMEOUT).await?;
        // One that has failed stays until it is told to go; one that has not is gone.
        if let Err(cause) = manager.reset_failed_unit(unit).await {
            tracing::debug!(unit, %cause, "there is nothing to reset");
        }
        // A start that was given up midway left its hold; systemd forgets no unit that is held.
        while manager.unref_unit(unit).await.is_ok() {}
        let Some(look) = self.unit(unit).await? else { return Ok(()) };
        tracing::info!(unit, "other units mention it: systemd reads all units again to forget it");
        let path = PathBuf::from(look.fragment);
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(LaunchError::Disk { deed: "remove", path, cause })
            }
            Ok(()) | Err(_) => Ok(manager.reload().await.map_err(BusError::from)?),
        }
    }

    fn is_ours(&self, look: &Look) -> bool {
        look.transient && self.places.holds(Path::new(&look.folder))
    }

    async fn unit(&self, unit: &str) -> Result<Option<Look>, BusError> {
        match self.bus.unit(unit).await? {
            Some(loaded) => loaded.look().await,
            None => Ok(None),
        }
    }

    fn socket(&self, start: &StartSpec) -> Result<Option<OwnedFd>, LaunchError> {
        let app = &start.spec.app;
        let Some(port) = start.port.filter(|_| start.spec.run.socket) else {
            self.listeners.close(app);
            return Ok(None);
        };
        let socket = self.listeners.give(app, port);
        socket.map(Some).map_err(|cause| LaunchError::Listen { port, cause })
    }

    /// An instance whose unit is held until it is known how it ended.
    fn watch(&self, instance: Instance, process: Option<OwnedFd>) -> Running {
        let unit = instance.unit.clone().unwrap_or_default();
        let watched = process.as_ref().map(OwnedFd::try_clone).and_then(Result::ok);
        let bus = Arc::clone(&self.bus);
        Running::watched(instance, process, async move {
            let exit = ended::of(&bus, &unit, watched).await;
            bus.release(&unit).await;
            exit
        })
    }
}

/// The main process, for the kernel to tell of; `None` when it has ended.
fn process_of(look: &Look, instance: &mut Instance) -> std::io::Result<Option<OwnedFd>> {
    let group = Path::new(&look.cgroup);
    let group = group.strip_prefix("/").ok().filter(|it| !it.as_os_str().is_empty());
    instance.cgroup = group.and_then(|group| {
        let all = CGROUPS.map(|root| Path::new(root).join(group));
        all.into_iter().find(|group| group.join("cgroup.procs").exists())
    });
    if look.main_pid == 0 {
        return Ok(None);
    }
    match ProcessId::of(look.main_pid)? {
        Some(process) => {
            instance.process = process;
            instance.process.open()
        }
        None => Ok(None),
    }
}

fn failed(deed: &'static str, unit: &str) -> impl Fn(BusError) -> RuntimeError + use<> {
    let unit = unit.to_owned();
    move |cause| RuntimeError::Unit { deed, unit: unit.clone(), cause: Box::new(cause) }
}

#[async_trait]
impl Runtime for Systemd {
    async fn check(&self, _spec: &Spec) -> Result<(), RuntimeError> {
        let driver = Driver::Systemd;
        let unusable = |why| RuntimeError::Unusable { driver, why };
        if rustix::process::geteuid().as_raw() != 0 {
            let why = "only an agent that runs as root may start units; use driver = \"exec\"";
            return Err(unusable(why.to_owned()));
        }
        let asked = async { Ok::<_, BusError>(self.bus.manager().await?.version().await?) };
        let version = asked.await.map_err(|error| RuntimeError::NoSystemd(Box::new(error)))?;
        let digits = version.split(|c: char| !c.is_ascii_digit()).find(|it| !it.is_empty());
        match digits.and_then(|it| it.parse::<u32>().ok()) {
            Some(number) if number < VERSION_MIN => Err(unusable(format!(
                "it has systemd {number}, and {VERSION_MIN} is needed; use driver = \"exec\""
            ))),
            Some(_) | None => Ok(()),
        }
    }

    fn places(&self) -> &Places {
        &self.places
    }

    async fn launch(&self, start: &StartSpec) -> Result<Running, LaunchError> {
        let (app, name) = (&start.spec.app, &start.instance);
        let unit = unit::name(app, name);
        self.make_room(&unit).await?;
        self.places.make(app)?;
        let log = self.places.log(app, name);
        let plan = Launcher::plan(start, &start.spec.run.command, Output::Log(log.clone()))?;
        let (user, _) = launch::user_of(start)?;
        open_log(&log, plan.user.as_ref())?;
        let environment = self.places.environment(app, name);
        write_private(&environment, &unit::environment(&plan.env))?;
        let first = plan.argv.first().map(String::as_str).unwrap_or_default();
        let mut program = unit::locate(first, &plan.folder, &plan.env)
            .map_err(|complaint| LaunchError::Refused { program: first.into(), complaint })?;
        let socket = self.socket(start)?;
        let mut argv = plan.argv.clone();
        if socket.is_some() {
            let before = ["rota-agent", shim::SUBCOMMAND, shim::LISTEN].map(str::to_owned);
            argv.splice(..0, before);
            program = self.program.clone();
        }
        let instance = Instance {
            app: app.clone(),
            instance: name.clone(),
            version: start.spec.version.clone(),
            digest: start.spec.digest.clone(),
            driver: Driver::Systemd,
            port: start.port,
            process: ProcessId { pid: 0, start_time: 0, boot_id: String::new() },
            log_since: logs::length(&log),
            log: log.clone(),
            cgroup: None,
            unit: Some(unit.clone()),
            container: None,
            socket: start.spec.run.socket,
        };
        // First the note: an agent that dies now is followed by one that finds the unit.
        self.places.write(&instance)?;
        let properties = unit::properties(unit::Plan {
            start,
            program: &program,
            argv: &argv,
            user: plan.user.as_ref().map(|_| user.name.as_str()),
            environment: &environment,
            log: &log,
            socket,
        });
        let manager = self.bus.manager().await?;
        let order = manager.start_transient_unit(&unit, "fail", &properties, &[]);
        let within = start.spec.health.deadline;
        let result = self.bus.job(&manager, order, within).await?;
        self.look_after(instance, &result, (&plan, within)).await
    }

    /// The unit of the note, if it runs and is ours; somebody may have restarted it.
    async fn look(&self, noted: &Instance) -> Result<Option<Running>, RuntimeError> {
        let mut instance = noted.clone();
        let unit = instance.unit.clone().unwrap_or_default();
        let failed = failed("find", &unit);
        let Some(look) = self.unit(&unit).await.map_err(&failed)? else { return Ok(None) };
        if look.main_pid == 0 || !self.is_ours(&look) {
            return Ok(None);
        }
        if let Err(error) = self.bus.hold(&unit).await {
            // Then its end is noticed all the same, only not how it ended.
            tracing::warn!(unit, %error, "cannot hold the unit");
        }
        let process = process_of(&look, &mut instance).map_err(|cause| RuntimeError::Process {
            deed: "adopt",
            pid: look.main_pid,
            app: instance.app.clone(),
            cause,
        })?;
        let Some(process) = process else {
            self.bus.release(&unit).await;
            return Ok(None);
        };
        self.listeners.adopt(&instance, &process);
        Ok(Some(self.watch(instance, Some(process))))
    }

    /// The unit was told at its start how it is stopped, so that everybody stops it alike.
    async fn stop(
        &self,
        running: &Running,
        _signal: i32,
        timeout: Duration,
    ) -> Result<Stopped, RuntimeError> {
        let instance = running.instance();
        let unit = instance.unit.clone().unwrap_or_default();
        let failed = failed("stop", &unit);
        let held = self.bus.hold(&unit).await;
        let begun = Instant::now();
        let stopping = Box::pin(self.bus.stop(&unit, timeout + KILL_TIMEOUT));
        stopping.await.map_err(&failed)?;
        let took = begun.elapsed();
        let look = self.unit(&unit).await.map_err(&failed)?.unwrap_or_default();
        let exit = running.exited().await;
        if held.is_ok() {
            self.bus.release(&unit).await;
        }
        self.places.forget(instance)?;
        Ok(Stopped { killed: look.result == "timeout" || took >= timeout, exit })
    }

    async fn kill_leftovers(&self, instance: &Instance) -> Result<usize, RuntimeError> {
        let unit = instance.unit.clone().unwrap_or_default();
        let failed = failed("kill what is left of", &unit);
        let look = self.unit(&unit).await.map_err(&failed)?;
        let mut killed = 0;
        if look.is_some_and(|look| !look.has_ended() && self.is_ours(&look)) {
            let group = instance.cgroup.as_deref();
            killed = group.and_then(|it| cgroup::members(it).ok()).map_or(0, |it| it.len());
            self.bus.kill(&unit).await.map_err(&failed)?;
            self.bus.stop(&unit, KILL_TIMEOUT).await.map_err(&failed)?;
        }
        self.places.forget(instance)?;
        Ok(killed)
    }
}

/// As `exec` has it: the app's own, so that it can open `/dev/stdout` again.
fn open_log(path: &Path, user: Option<&super::users::Ids>) -> Result<(), LaunchError> {
    let opened = shim::open_log(path, user).map(|_| ());
    opened.map_err(|cause| LaunchError::Disk { deed: "open the log", path: path.into(), cause })
}

/// A file that only root reads, whatever was there before.
fn write_private(path: &Path, text: &str) -> Result<(), LaunchError> {
    let write = || {
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(cause),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|cause| LaunchError::Disk { deed: "write", path: path.into(), cause })
}
