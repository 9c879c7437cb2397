//! The driver `docker`: an instance is a container of its own, on the host's network.
//!
//! The kernel tells when its first process ends, dockerd then tells how; so an end is noticed also while dockerd is
//! away. The agent starts it again, as with every driver, never dockerd.

mod commands;
mod container;
mod images;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use thiserror::Error;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use self::container::{COMMAND, Labels};
use super::process::ProcessId;
use super::running::{Exit, ended_of};
use super::{Instance, LaunchError, Places, Running, Runtime, RuntimeError, StartSpec, Stopped};
use crate::spec::{Driver, Spec};

/// How long dockerd may take to say how a container ended whose process the kernel says has ended.
const HOW_TIMEOUT: Duration = Duration::from_secs(10);

/// Lines of output that are asked for: more than fit into what is told of them.
const LINES: &str = "2000";

/// dockerd did not do what it was asked.
#[derive(Debug, Error)]
pub enum DockerError {
    /// There is nobody to ask.
    #[error("cannot reach dockerd")]
    Reach(#[source] Box<bollard::errors::Error>),
    /// It refused.
    #[error("dockerd refused: {message}")]
    Refused { code: u16, message: String },
}

impl From<bollard::errors::Error> for DockerError {
    fn from(error: bollard::errors::Error) -> DockerError {
        use bollard::errors::Error;
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                DockerError::Refused { code: status_code, message: message.trim().to_owned() }
            }
            Error::DockerStreamError { error } => {
                DockerError::Refused { code: 500, message: error.trim().to_owned() }
            }
            other => DockerError::Reach(Box::new(other)),
        }
    }
}

impl DockerError {
    fn is_missing(&self) -> bool {
        matches!(self, DockerError::Refused { code: 404, .. })
    }

    /// It is so already, or is being done.
    fn is_conflict(&self) -> bool {
        matches!(self, DockerError::Refused { code: 304 | 409, .. })
    }
}

/// Starts containers and finds them again. Clones share one connection, made when it is first needed.
#[derive(Debug, Clone)]
pub struct Docker {
    places: Places,
    root: PathBuf,
    client: Arc<OnceCell<bollard::Docker>>,
}

impl Docker {
    /// Notes go to `root/apps/APP`; containers are labelled with `root`, so that two agents leave each other's alone.
    pub fn new(root: &Path) -> Docker {
        Docker { places: Places::new(root), root: root.into(), client: Arc::default() }
    }

    async fn client(&self) -> Result<&bollard::Docker, DockerError> {
        let connect = async {
            let client = bollard::Docker::connect_with_unix_defaults()?;
            let client = client.negotiate_version().await?;
            self.remove_commands(&client).await;
            Ok(client)
        };
        self.client.get_or_try_init(|| connect).await
    }

    /// Commands that an agent which died has left behind: nobody waits for them.
    async fn remove_commands(&self, client: &bollard::Docker) {
        let labels = vec![format!("{}={}", Labels::ROOT, self.root.display()), COMMAND.to_owned()];
        let filters = std::collections::HashMap::from([("label".to_owned(), labels)]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let left = client.list_containers(Some(options)).await.unwrap_or_default();
        for id in left.into_iter().filter_map(|it| it.id) {
            if let Err(error) = remove(client, &id).await {
                tracing::warn!(id, %error, "cannot remove a command's container");
            }
        }
    }

    async fn container(&self, name: &str) -> Result<Option<ContainerInspectResponse>, DockerError> {
        let looked = self.client().await?.inspect_container(name, None::<InspectContainerOptions>);
        match looked.await.map_err(DockerError::from) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn is_ours(&self, found: &ContainerInspectResponse) -> bool {
        let labels = found.config.as_ref().and_then(|it| it.labels.as_ref());
        let root = labels.and_then(|labels| labels.get(Labels::ROOT));
        root.is_some_and(|root| Path::new(root) == self.root)
    }

    /// What has the container's name makes room if it is ours.
    async fn make_room(&self, name: &str) -> Result<(), LaunchError> {
        let Some(found) = self.container(name).await? else { return Ok(()) };
        if !self.is_ours(&found) {
            let complaint = format!(
                "that name is taken by a container that is not this agent's; \
                 `docker rm -f {name}` removes it, or rename the app"
            );
            return Err(LaunchError::Container { name: name.into(), complaint });
        }
        Ok(remove(self.client().await?, name).await?)
    }

    /// The first process, for the kernel to tell of; `None` when it has ended.
    async fn process_of(&self, instance: &mut Instance) -> Result<Option<OwnedFd>, LaunchError> {
        let id = instance.container.clone().unwrap_or_default();
        let found = self.container(&id).await?;
        let pid = found.and_then(|it| it.state).and_then(|it| it.pid).unwrap_or(0);
        let watch = |cause| LaunchError::Shim { deed: "watch", program: id.clone(), cause };
        let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return Ok(None) };
        let Some(process) = ProcessId::of(pid).map_err(watch)? else { return Ok(None) };
        instance.process = process;
        instance.process.open().map_err(watch)
    }

    fn watch(&self, instance: Instance, process: Option<OwnedFd>) -> Running {
        let id = instance.container.clone().unwrap_or_default();
        let watched = process.as_ref().map(OwnedFd::try_clone).and_then(Result::ok);
        let docker = self.clone();
        Running::watched(instance, process, async move { docker.ended(&id, watched).await })
    }

    async fn ended(&self, id: &str, process: Option<OwnedFd>) -> Exit {
        if let Some(process) = process
            && let Err(cause) = ended_of(process).await
        {
            tracing::error!(id, %cause, "cannot watch a process; taken as ended");
        }
        match timeout(HOW_TIMEOUT, Box::pin(self.how(id))).await {
            Ok(Ok(exit)) => exit,
            Ok(Err(error)) => {
                tracing::warn!(id, %error, "dockerd does not say how it ended");
                Exit::Unknown
            }
            Err(_elapsed) => Exit::Unknown,
        }
    }

    async fn how(&self, id: &str) -> Result<Exit, DockerError> {
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let client = self.client().await?;
        // What it answers is an error for each code but 0; the container itself says more.
        if let Some(Err(error)) = client.wait_container(id, Some(options)).next().await {
            tracing::debug!(id, %error, "the container has ended");
        }
        let state = self.container(id).await?.and_then(|found| found.state);
        let Some(state) = state.filter(|state| state.running != Some(true)) else {
            return Ok(Exit::Unknown);
        };
        match (state.oom_killed, state.exit_code.and_then(|code| i32::try_from(code).ok())) {
            (Some(true), _) => Ok(Exit::OutOfMemory),
            (_, Some(code)) => Ok(Exit::Code(code)),
            (_, None) => Ok(Exit::Unknown),
        }
    }

    async fn kill(&self, id: &str, signal: i32) -> Result<(), DockerError> {
        let options = KillContainerOptionsBuilder::default().signal(&signal.to_string()).build();
        match self.client().await?.kill_container(id, Some(options)).await.map_err(Into::into) {
            Err(error @ DockerError::Refused { .. })
                if error.is_missing() || error.is_conflict() =>
            {
                Ok(())
            }
            result => result,
        }
    }

    /// The end of what a container wrote.
    async fn written(&self, id: &str) -> Result<Vec<u8>, DockerError> {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).tail(LINES).build();
        let mut lines = self.client().await?.logs(id, Some(options));
        let mut tail = commands::Tail::default();
        while let Some(line) = lines.next().await {
            tail.push(line?.as_ref());
        }
        Ok(tail.bytes())
    }
}

/// Kills and removes a container with its anonymous volumes; one that is not there is gone.
async fn remove(client: &bollard::Docker, id: &str) -> Result<(), DockerError> {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    match client.remove_container(id, Some(options)).await.map_err(DockerError::from) {
        Err(error) if error.is_missing() || error.is_conflict() => Ok(()),
        result => result,
    }
}

fn failed(deed: &'static str, container: &str) -> impl Fn(DockerError) -> RuntimeError + use<> {
    let container = container.to_owned();
    move |cause| RuntimeError::Container { deed, container: container.clone(), cause }
}

#[async_trait]
impl Runtime for Docker {
    async fn check(&self, spec: &Spec) -> Result<(), RuntimeError> {
        let driver = Driver::Docker;
        let cannot = |key, why: &str| RuntimeError::Cannot { key, driver, why: why.to_owned() };
        if spec.run.notify {
            return Err(cannot("notify", "nobody listens for READY=1 there; use [health]"));
        }
        if spec.run.socket {
            return Err(cannot("socket", "a container cannot be given a socket"));
        }
        self.client().await.map(|_| ()).map_err(RuntimeError::NoDocker)
    }

    fn places(&self) -> &Places {
        &self.places
    }

    async fn launch(&self, start: &StartSpec) -> Result<Running, LaunchError> {
        let (app, label) = (&start.spec.app, &start.instance);
        let name = container::name(app, label);
        let body = container::body(start, &self.root, &images::image_of(&start.folder)?)?;
        self.make_room(&name).await?;
        self.places.make(app)?;
        let mut instance = Instance {
            app: app.clone(),
            instance: label.clone(),
            version: start.spec.version.clone(),
            digest: start.spec.digest.clone(),
            driver: Driver::Docker,
            port: start.port,
            process: ProcessId { pid: 0, start_time: 0, boot_id: String::new() },
            log: self.places.log(app, label),
            log_since: 0,
            cgroup: None,
            unit: None,
            container: Some(name.clone()),
            socket: false,
        };
        // First the note: an agent that dies now is followed by one that finds the container.
        self.places.write(&instance)?;
        let client = self.client().await?;
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let made = client.create_container(Some(options), body).await.map_err(DockerError::from)?;
        let started = client.start_container(&made.id, None).await.map_err(DockerError::from);
        if let Err(error) = started {
            remove(client, &made.id).await?;
            return Err(match error {
                DockerError::Refused { message, .. } => {
                    LaunchError::Container { name, complaint: message }
                }
                DockerError::Reach(_) => error.into(),
            });
        }
        instance.container = Some(made.id);
        let process = self.process_of(&mut instance).await?;
        self.places.write(&instance)?;
        Ok(self.watch(instance, process))
    }

    async fn look(&self, noted: &Instance) -> Result<Option<Running>, RuntimeError> {
        let mut instance = noted.clone();
        let name = instance.container.clone().unwrap_or_default();
        let failed = failed("find", &name);
        let Some(found) = self.container(&name).await.map_err(&failed)? else { return Ok(None) };
        let runs = found.state.as_ref().and_then(|state| state.running) == Some(true);
        if !runs || !self.is_ours(&found) {
            return Ok(None);
        }
        instance.container = found.id;
        let process = self.process_of(&mut instance).await;
        let process = process.map_err(|cause| RuntimeError::Start {
            app: instance.app.clone(),
            version: instance.version.clone(),
            cause: Box::new(cause),
        })?;
        Ok(process.map(|process| self.watch(instance, Some(process))))
    }

    async fn stop(
        &self,
        running: &Running,
        signal: i32,
        patience: Duration,
    ) -> Result<Stopped, RuntimeError> {
        let instance = running.instance();
        let id = instance.container.clone().unwrap_or_default();
        let failed = failed("stop", &id);
        if running.exit().is_none() {
            self.kill(&id, signal).await.map_err(&failed)?;
        }
        let killed = timeout(patience, running.exited()).await.is_err();
        if killed {
            self.kill(&id, KILL).await.map_err(&failed)?;
        }
        let exit = running.exited().await;
        // All that it has forked ended with it.
        self.kill_leftovers(instance).await?;
        Ok(Stopped { killed, exit })
    }

    async fn kill_leftovers(&self, instance: &Instance) -> Result<usize, RuntimeError> {
        let id = instance.container.clone().unwrap_or_default();
        let failed = failed("remove", &id);
        let client = self.client().await.map_err(&failed)?;
        remove(client, &id).await.map_err(&failed)?;
        self.places.forget(instance)?;
        Ok(0)
    }

    async fn output(&self, instance: &Instance) -> Result<String, RuntimeError> {
        let id = instance.container.clone().unwrap_or_default();
        match self.written(&id).await {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.is_missing() => Ok(String::new()),
            Err(error) => Err(failed("read the output of", &id)(error)),
        }
    }
}

const KILL: i32 = 9;
