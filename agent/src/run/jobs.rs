//! Carries out the machine's jobs. Each is harmless when it is repeated; each ends with what came of it.

mod moves;
mod polls;
mod scripts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Happened;
use super::means::Means;
use crate::health::{self, Change, Probe, Verdict, chain};
use crate::hooks::{self, HOOK_TIMEOUT, Moment};
use crate::order::Rollout;
use crate::report::{Failed, Left, Measured, Step, What as Say};
use crate::runtime::Running;
use crate::smoke;
use crate::spec::{Driver, Needed, Port, Spec, Via};
use crate::traffic::drain::{Kernel, Mover, Needs};
use crate::traffic::endpoint::EndpointError;
use crate::update::{Did, HookSet, Instance, Job};

/// How long an edge may take to forget a member. It is out already; nothing depends on it.
const FORGET_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two health checks of an app in its monitor time.
const MONITOR_EVERY: Duration = Duration::from_millis(500);

/// What a job that did not work says.
struct Trouble {
    cause: String,
    output: String,
}

impl Trouble {
    fn of(error: &dyn std::error::Error) -> Self {
        Self { cause: chain(error), output: String::new() }
    }
}

impl From<String> for Trouble {
    fn from(cause: String) -> Self {
        Self { cause, output: String::new() }
    }
}

type Outcome = Result<Did, Trouble>;

/// Begins a job; its result comes back as [`Happened::Did`] with its number.
pub(super) fn spawn(
    means: Means,
    app: String,
    number: u64,
    job: Job,
    running: BTreeMap<u64, Running>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let not_asked = Mutex::default();
        let desk = Desk { means: means.clone(), app: app.clone(), running, not_asked };
        let did = match Box::pin(desk.run(job)).await {
            Ok(did) => did,
            Err(Trouble { cause, output }) => Did::Failed { cause, output },
        };
        let edges = desk.not_asked.into_inner().unwrap_or_else(PoisonError::into_inner);
        if !edges.is_empty() {
            means.tell(Happened::NotAsked { app: app.clone(), edges }).await;
        }
        means.tell(Happened::Did { app, action: number, did }).await;
    })
}

/// Fetches, verifies and unpacks a release ahead of its update; the app is not touched.
pub(super) fn prepare(means: Means, rollout: Rollout, attempt: u32, spec: Spec) {
    tokio::spawn(async move {
        let say = match fetch(&means, &spec).await {
            Ok(_) => Say::Prepared,
            Err(trouble) => Say::Failed(Box::new(Failed {
                step: Step::Fetch,
                cause: trouble.cause,
                output: trouble.output.into_bytes(),
                left: Left::Untouched,
                restore_error: None,
                measured: Measured::default(),
                release: None,
            })),
        };
        means.tell(Happened::Answer { rollout, attempt, say: Box::new(say) }).await;
    });
}

/// Downloads what is missing, verifies the digest, unpacks. At once when the release is there.
async fn fetch(means: &Means, spec: &Spec) -> Outcome {
    endpoint_here(means, spec)?;
    means.runtime.check(spec).await.map_err(|error| Trouble::of(&error))?;
    let _one_at_a_time = means.fetching.lock().await;
    let docker = means.launcher.docker().filter(|_| spec.run.driver == Driver::Docker);
    let is_here = match docker {
        // Somebody may have removed its image meanwhile.
        Some(docker) => docker.has(&means.releases.folder(spec)).await,
        None => true,
    };
    if means.releases.is_installed(spec) && is_here {
        return Ok(Did::Ok);
    }
    let of = |error: crate::release::ReleaseError| Trouble::of(&error);
    if spec.image.is_none() {
        download(means, spec).await?;
    }
    match docker {
        Some(docker) => {
            let image = docker.bring(spec, &means.releases.fetched(spec)).await;
            let image = image.map_err(|error| Trouble::of(&error))?;
            means.releases.install_image(spec, image).await.map_err(of)?;
        }
        None => drop(means.releases.install(spec).await.map_err(of)?),
    }
    Ok(Did::Ok)
}

async fn download(means: &Means, spec: &Spec) -> Result<(), Trouble> {
    let of = |error: crate::release::ReleaseError| Trouble::of(&error);
    means.releases.check_space(spec).map_err(of)?;
    if means.releases.is_fetched(spec) {
        return Ok(());
    }
    let mut partial = means.releases.partial(spec).await.map_err(of)?;
    // The agent may have ended between the last byte and this.
    if !partial.is_whole() {
        let fetched = means.link.fetch(&spec.digest, &mut partial).await;
        fetched.map_err(|error| Trouble::of(&error))?;
    }
    partial.finish().await.map_err(of)?;
    Ok(())
}

/// One job, and everything it needs.
struct Desk {
    means: Means,
    app: String,
    running: BTreeMap<u64, Running>,
    /// Edges that were not reachable, so that others were enough.
    not_asked: Mutex<BTreeSet<String>>,
}

impl Desk {
    async fn run(&self, job: Job) -> Outcome {
        match job {
            Job::Fetch(spec) => fetch(&self.means, &spec).await,
            Job::Hooks { spec, which, instance } => self.hooks(&spec, which, instance).await,
            Job::Drain { spec, instance, must } => self.drain(&spec, &instance, must).await,
            Job::Stop { spec, instance, forget } => self.stop(&spec, &instance, forget).await,
            Job::Swap(spec) => self.swap(spec).await,
            Job::Start { spec, label, token } => {
                self.start(&spec, &Instance { label, token, port: 0 }).await
            }
            Job::Health { spec, instance } => self.health(&spec, &instance).await,
            Job::Smoke { spec, instance } => self.smoke(&spec, &instance).await,
            Job::Join { spec, instance } => self.join(&spec, &instance).await,
            Job::Monitor { spec, instance, for_ms } => {
                self.monitor(&spec, &instance, Duration::from_millis(for_ms)).await
            }
            Job::Wait { for_ms } => {
                tokio::time::sleep(Duration::from_millis(for_ms)).await;
                Ok(Did::Ok)
            }
        }
    }

    async fn process(&self, spec: &Spec, instance: &Instance) -> Result<Option<Running>, Trouble> {
        match self.running.get(&instance.token) {
            Some(running) if running.exit().is_none() => Ok(Some(running.clone())),
            Some(_) | None => Ok(self.means.find(spec, instance).await?),
        }
    }

    async fn alive(&self, spec: &Spec, instance: &Instance) -> Result<Running, Trouble> {
        if let Some(running) = self.process(spec, instance).await? {
            return Ok(running);
        }
        let Some(gone) = self.running.get(&instance.token) else {
            return Err("the app ended".to_owned().into());
        };
        let how = gone.exit().map_or("ended".to_owned(), |exit| exit.to_string());
        Err(Trouble { cause: format!("the app {how}"), output: self.means.tail(gone).await })
    }

    async fn hooks(&self, spec: &Spec, which: HookSet, instance: Option<Instance>) -> Outcome {
        let moment = match which {
            HookSet::BeforeDrain => Moment::BeforeDrain,
            HookSet::BeforeStart => Moment::BeforeStart,
            HookSet::AfterJoin => Moment::AfterJoin,
            HookSet::OnFailure => Moment::OnFailure,
        };
        let nobody = Instance { label: String::new(), token: 0, port: 0 };
        let start = self.means.start_spec(spec, &instance.unwrap_or(nobody));
        let ran = hooks::run_all(&self.means.launcher, &start, moment, HOOK_TIMEOUT).await;
        match ran {
            Ok(output) => Ok(self.printed(moment.name(), output).await),
            Err(error) => Err(Trouble {
                cause: chain(&error),
                output: String::from_utf8_lossy(&error.output).into_owned(),
            }),
        }
    }

    async fn swap(&self, spec: Option<Spec>) -> Outcome {
        let of = |error: crate::release::ReleaseError| Trouble::of(&error);
        match spec {
            Some(spec) => {
                self.means.releases.point_current(&spec).await.map_err(of)?;
            }
            None => self.means.releases.clear_current(&self.app).await.map_err(of)?,
        }
        Ok(Did::Ok)
    }

    /// Starts a process, unless the one of this start runs already: a crash of the agent may have come between.
    async fn start(&self, spec: &Spec, instance: &Instance) -> Outcome {
        let of = |error: crate::runtime::RuntimeError| Trouble::of(&error);
        let left = self.means.runtime.find(&spec.app, &instance.label).await.map_err(of)?;
        if let Some(left) = left.filter(|running| running.exit().is_none()) {
            if left.instance().digest == spec.digest {
                return Ok(self.started(instance.token, left).await);
            }
            let (signal, timeout) = (spec.run.stop_signal, spec.run.stop_timeout);
            self.means.runtime.stop(&left, signal, timeout).await.map_err(of)?;
        }
        let port = match spec.run.port {
            Port::None => None,
            Port::Fixed(port) => Some(port),
            Port::Auto => Some(self.means.ports.free().map_err(|error| Trouble::of(&error))?),
        };
        let start = crate::runtime::StartSpec { port, ..self.means.start_spec(spec, instance) };
        let running = self.means.runtime.start(&start).await.map_err(|error| {
            let output = error.output().to_owned();
            Trouble { cause: chain(&error), output }
        })?;
        Ok(self.started(instance.token, running).await)
    }

    async fn started(&self, token: u64, running: Running) -> Did {
        let port = running.instance().port.unwrap_or(0);
        self.means.tell(Happened::Runs { app: self.app.clone(), token, running }).await;
        Did::Started { port }
    }

    async fn stop(&self, spec: &Spec, instance: &Instance, forget: bool) -> Outcome {
        let of = |error: crate::runtime::RuntimeError| Trouble::of(&error);
        let mut killed = false;
        if let Some(running) = self.process(spec, instance).await? {
            let (signal, timeout) = (spec.run.stop_signal, spec.run.stop_timeout);
            let stopped = self.means.runtime.stop(&running, signal, timeout).await;
            killed = stopped.map_err(of)?.killed;
        } else if let Some(dead) = self.running.get(&instance.token) {
            self.means.runtime.kill_leftovers(dead.instance()).await.map_err(of)?;
        }
        if forget && let Some((member, desired)) = self.means.member(spec, instance) {
            let left = self.mover(spec).leave(&member, &desired, FORGET_TIMEOUT).await;
            if let Err(error) = left {
                tracing::info!(app = self.app, %error, "an edge still lists the old instance");
            }
            self.means.edges.forget(&member);
        }
        Ok(Did::Stopped { killed })
    }

    async fn health(&self, spec: &Spec, instance: &Instance) -> Outcome {
        let running = self.alive(spec, instance).await?;
        let start = self.means.start_spec(spec, instance);
        let probe = Probe { launcher: &self.means.launcher, start: &start, running: &running };
        let cause = match health::wait_healthy(probe, &spec.health).await {
            Verdict::Healthy { .. } => return Ok(Did::Ok),
            Verdict::Unhealthy { cause, .. } => cause,
            Verdict::Exited { exit, .. } => format!("the app {exit}"),
        };
        Err(Trouble { cause, output: self.means.tail(&running).await })
    }

    async fn smoke(&self, spec: &Spec, instance: &Instance) -> Outcome {
        let running = self.alive(spec, instance).await?;
        let start = self.means.start_spec(spec, instance);
        let probe = Probe { launcher: &self.means.launcher, start: &start, running: &running };
        match smoke::run(probe, &spec.smoke).await {
            Ok(output) => Ok(self.printed("smoke", output).await),
            Err(error) => {
                let own = String::from_utf8_lossy(&error.output).into_owned();
                let output = if own.is_empty() { self.means.tail(&running).await } else { own };
                Err(Trouble { cause: chain(&error), output })
            }
        }
    }

    /// What worked has its output told all the same.
    async fn printed(&self, what: &'static str, output: Vec<u8>) -> Did {
        if !output.is_empty() {
            self.means.tell(Happened::Printed { app: self.app.clone(), what, output }).await;
        }
        Did::Ok
    }

    /// Watches the app in traffic. A process that ends is told by the loop too; whoever is first ends the job.
    async fn monitor(&self, spec: &Spec, instance: &Instance, time: Duration) -> Outcome {
        let running = self.alive(spec, instance).await?;
        if time.is_zero() {
            return Ok(Did::Ok);
        }
        let start = self.means.start_spec(spec, instance);
        let probe = Probe { launcher: &self.means.launcher, start: &start, running: &running };
        let (tell, mut changes) = mpsc::channel(1);
        let every = MONITOR_EVERY.min(time);
        let cause = tokio::select! {
            () = health::watch(probe, &spec.health, every, tell) => "the app ended".to_owned(),
            change = first_bad(&mut changes) => change,
            () = tokio::time::sleep(time) => return Ok(Did::Ok),
        };
        Err(Trouble { cause, output: self.means.tail(&running).await })
    }

    fn mover(&self, spec: &Spec) -> Mover<'_> {
        let needs = match spec.traffic.edges {
            Needed::All => Needs::All,
            Needed::Reachable => Needs::Reachable { not_asked: &self.not_asked },
        };
        Mover { edges: &self.means.edges, connections: &Kernel, needs }
    }
}

/// Whoever would ask nobody here is refused while the old release still serves.
fn endpoint_here(means: &Means, spec: &Spec) -> Result<(), Trouble> {
    match (&spec.traffic.via, &means.endpoint) {
        (Via::Endpoint { .. }, None) => Err(Trouble::of(&EndpointError::Closed)),
        (Via::Endpoint { .. }, Some(_)) | (Via::Edge(_) | Via::Command(_) | Via::None, _) => Ok(()),
    }
}

/// The first change for the worse.
async fn first_bad(changes: &mut mpsc::Receiver<Change>) -> String {
    loop {
        match changes.recv().await {
            Some(Change::Healthy) => {}
            Some(Change::Unhealthy { cause }) => return format!("it turned unhealthy: {cause}"),
            Some(Change::Exited { exit }) => return format!("the app {exit}"),
            None => std::future::pending::<()>().await,
        }
    }
}
