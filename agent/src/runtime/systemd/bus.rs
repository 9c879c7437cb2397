//! What is asked of systemd, over the system's bus: our own few lines of its interface.

use std::collections::HashMap;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::StreamExt;
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant, Variant, fdo};

/// How long systemd may take to answer; it answers in a millisecond, unless it is about to fall over.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(25);

/// What every unit has.
const UNIT: &str = "org.freedesktop.systemd1.Unit";

/// What a service has besides.
const SERVICE: &str = "org.freedesktop.systemd1.Service";

/// systemd did not do what it was asked.
#[derive(Debug, Error)]
pub enum BusError {
    /// There is nobody to ask.
    #[error("cannot reach systemd over D-Bus")]
    Reach(#[source] Box<zbus::Error>),
    /// It refused.
    #[error("systemd refused")]
    Refused(#[source] Box<zbus::Error>),
    /// The bus was restarted, or systemd hangs.
    #[error("systemd did not say what came of it: is the system's bus being restarted?")]
    Silent,
}

impl From<zbus::Error> for BusError {
    fn from(cause: zbus::Error) -> BusError {
        match cause {
            zbus::Error::MethodError(..) | zbus::Error::FDO(_) => {
                BusError::Refused(Box::new(cause))
            }
            _ => BusError::Reach(Box::new(cause)),
        }
    }
}

impl BusError {
    /// Does systemd know no such unit?
    fn is_no_unit(&self) -> bool {
        let BusError::Refused(cause) = self else { return false };
        let zbus::Error::MethodError(name, ..) = &**cause else { return false };
        name.as_str() == "org.freedesktop.systemd1.NoSuchUnit"
    }
}

/// A property of a unit to be.
pub(super) type Property<'a> = (&'a str, Variant<'a>);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[Property<'_>],
        aux: &[(&str, &[Property<'_>])],
    ) -> zbus::Result<OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn kill_unit(&self, name: &str, whom: &str, signal: i32) -> zbus::Result<()>;
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn ref_unit(&self, name: &str) -> zbus::Result<()>;
    fn unref_unit(&self, name: &str) -> zbus::Result<()>;
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: ObjectPath<'_>,
        unit: &str,
        result: &str,
    ) -> zbus::Result<()>;
}

/// The connection, made when it is first needed, and again when it broke.
#[derive(Debug, Default)]
pub(super) struct Bus {
    connection: Mutex<Option<Connection>>,
}

impl Bus {
    async fn connection(&self) -> Result<Connection, BusError> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = &*known {
            let alive = fdo::DBusProxy::new(connection).await?.get_id().await;
            if alive.is_ok() {
                return Ok(connection.clone());
            }
        }
        let made = Box::pin(timeout(ANSWER_TIMEOUT, connect())).await;
        let connection = made.map_err(|_elapsed| BusError::Silent)??;
        *known = Some(connection.clone());
        Ok(connection)
    }

    /// systemd itself.
    pub(super) async fn manager(&self) -> Result<ManagerProxy<'static>, BusError> {
        Ok(ManagerProxy::new(&self.connection().await?).await?)
    }

    /// Orders a job, and waits until it has ended: `done`, `failed`, `timeout`, `canceled`, …
    pub(super) async fn job<F>(
        &self,
        manager: &ManagerProxy<'static>,
        order: F,
        limit: Duration,
    ) -> Result<String, BusError>
    where
        F: Future<Output = zbus::Result<OwnedObjectPath>>,
    {
        let deadline = Instant::now() + limit + ANSWER_TIMEOUT;
        let mut removed = manager.receive_job_removed().await?;
        let job = order.await?;
        loop {
            match timeout_at(deadline, removed.next()).await {
                Ok(Some(signal)) => {
                    let told = signal.args()?;
                    if told.job.as_str() == job.as_str() {
                        return Ok(String::from(told.result));
                    }
                }
                Ok(None) | Err(_) => return Err(BusError::Silent),
            }
        }
    }

    /// The unit of this name; `None` when systemd has not loaded one.
    pub(super) async fn unit(&self, name: &str) -> Result<Option<Unit>, BusError> {
        let manager = self.manager().await?;
        match manager.get_unit(name).await.map_err(BusError::from) {
            Ok(path) => Ok(Some(Unit { connection: manager.inner().connection().clone(), path })),
            Err(error) if error.is_no_unit() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Stops a unit, and waits until it is gone; one that is not there is.
    pub(super) async fn stop(&self, name: &str, limit: Duration) -> Result<(), BusError> {
        let manager = self.manager().await?;
        match self.job(&manager, manager.stop_unit(name, "replace"), limit).await {
            Err(error) if error.is_no_unit() => Ok(()),
            result => result.map(|_| ()),
        }
    }
}

impl Bus {
    /// Keeps systemd from forgetting the unit when it ends.
    pub(super) async fn hold(&self, name: &str) -> Result<(), BusError> {
        Ok(self.manager().await?.ref_unit(name).await?)
    }

    /// It may be forgotten. When the bus is away it was: holds end with the connection.
    pub(super) async fn release(&self, name: &str) {
        let released = async { Ok::<_, BusError>(self.manager().await?.unref_unit(name).await?) };
        if let Err(error) = released.await {
            tracing::debug!(unit = name, %error, "the unit is not held any more");
        }
    }

    /// Kills all of its processes; one that is not there has none.
    pub(super) async fn kill(&self, name: &str) -> Result<(), BusError> {
        match self.manager().await?.kill_unit(name, "all", 9).await.map_err(BusError::from) {
            Err(error) if error.is_no_unit() => Ok(()),
            result => result,
        }
    }
}

async fn connect() -> Result<Connection, BusError> {
    let connection = Connection::system().await?;
    // Without it systemd tells nobody how jobs end.
    ManagerProxy::new(&connection).await?.subscribe().await?;
    Ok(connection)
}

/// A unit that is loaded.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    connection: Connection,
    path: OwnedObjectPath,
}

impl Unit {
    async fn properties(&self) -> Result<fdo::PropertiesProxy<'_>, BusError> {
        let builder = fdo::PropertiesProxy::builder(&self.connection)
            .destination("org.freedesktop.systemd1")
            .path(&self.path);
        Ok(builder.build().await?)
    }

    /// Does systemd have more of it than the name?
    async fn is_loaded(&self) -> Result<bool, BusError> {
        let properties = self.properties().await?;
        let state = properties.get(UNIT.try_into()?, "LoadState").await;
        match state {
            Ok(state) => Ok(state.downcast_ref::<&str>().ok() != Some("not-found")),
            Err(fdo::Error::UnknownObject(_) | fdo::Error::UnknownInterface(_)) => Ok(false),
            Err(error) => Err(zbus::Error::from(error).into()),
        }
    }

    /// How it stands; `None` when it was unloaded meanwhile, or was never more than a name: systemd answers for one
    /// that others mention or that is asked for by its path, as for a unit whose file is not found.
    pub(super) async fn look(&self) -> Result<Option<Look>, BusError> {
        let properties = self.properties().await?;
        let mut all = HashMap::new();
        for interface in [UNIT, SERVICE] {
            let interface = interface.try_into()?;
            match properties.get_all(interface).await {
                Ok(some) => all.extend(some),
                Err(fdo::Error::UnknownObject(_) | fdo::Error::UnknownInterface(_)) => {
                    return Ok(None);
                }
                Err(error) => return Err(zbus::Error::from(error).into()),
            }
        }
        // Asked last: a unit that was forgotten between the two answers is loaded by the first, and an empty name by
        // the second, which would look like a unit of somebody else.
        Ok(self.is_loaded().await?.then(|| Look::of(&all)))
    }

    /// The first look that is right, at each change of the unit. `None` when it is unloaded before.
    pub(super) async fn wait(
        &self,
        right: impl Fn(&Look) -> bool,
    ) -> Result<Option<Look>, BusError> {
        let properties = self.properties().await?;
        let mut changes = properties.receive_properties_changed().await?;
        loop {
            match self.look().await? {
                Some(look) if !right(&look) => {}
                look => return Ok(look),
            }
            if changes.next().await.is_none() {
                return Err(BusError::Silent);
            }
        }
    }
}

/// What a unit says of itself, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// `active`, `activating`, `deactivating`, `inactive`, `failed`.
    pub active: String,
    /// Did somebody start it by name, and not from a file?
    pub transient: bool,
    /// The file it was made of.
    pub fragment: String,
    pub folder: String,
    pub cgroup: String,
    /// 0: none.
    pub main_pid: i32,
    /// How the last main process ended: 1 exited, 2 killed, 3 dumped; 0 not yet.
    pub main_code: i32,
    pub main_status: i32,
    /// `success`, `exit-code`, `signal`, `oom-kill`, `timeout`, …
    pub result: String,
}

impl Look {
    fn of(all: &HashMap<String, OwnedVariant>) -> Look {
        let text = |name: &str| {
            all.get(name).and_then(|value| value.downcast_ref::<&str>().ok()).unwrap_or_default()
        };
        let signed = |name: &str| all.get(name).and_then(|value| value.downcast_ref::<i32>().ok());
        let pid = all.get("MainPID").and_then(|value| value.downcast_ref::<u32>().ok());
        Look {
            active: text("ActiveState").to_owned(),
            transient: all.get("Transient").is_some_and(|it| matches!(**it, Variant::Bool(true))),
            fragment: text("FragmentPath").to_owned(),
            folder: text("WorkingDirectory").to_owned(),
            cgroup: text("ControlGroup").to_owned(),
            main_pid: pid.and_then(|pid| i32::try_from(pid).ok()).unwrap_or(0),
            main_code: signed("ExecMainCode").unwrap_or(0),
            main_status: signed("ExecMainStatus").unwrap_or(0),
            result: text("Result").to_owned(),
        }
    }

    /// Nothing of it runs any more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.active.as_str(), "inactive" | "failed")
    }
}
