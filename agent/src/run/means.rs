//! What jobs work with: releases on disk, processes, edges, controllers. Cheap to clone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Happened;
use crate::config::Config;
use crate::health::{self, Change, Probe};
use crate::link::Link;
use crate::order::Edge;
use crate::release::Releases;
use crate::runtime::docker::Docker;
use crate::runtime::drivers::Drivers;
use crate::runtime::ports::Ports;
use crate::runtime::{Launcher, Running, Runtime, StartSpec};
use crate::spec::{Check, Spec, Via};
use crate::traffic::client::{Edges, Member};
use crate::traffic::endpoint::Endpoint;
use crate::traffic::{Desired, Want};
use crate::update::{Instance, Side};

/// How often an app at rest is asked for its health. The edges ask more often; this is for people.
const WATCH_EVERY: Duration = Duration::from_secs(5);

/// The same where load balancers may have nothing else to go by than what the node says.
const WATCH_FOR_OTHERS_EVERY: Duration = Duration::from_secs(1);

/// See the file's first lines.
#[derive(Clone)]
pub(crate) struct Means {
    pub releases: Releases,
    pub runtime: Arc<dyn Runtime>,
    pub launcher: Launcher,
    pub ports: Arc<Ports>,
    pub edges: Edges,
    /// Where load balancers ask; `None`: nowhere.
    pub endpoint: Option<Endpoint>,
    pub link: Link,
    pub node: String,
    pub labels: BTreeMap<String, String>,
    pub address: Option<String>,
    pub happened: mpsc::Sender<Happened>,
    /// One download or unpacking at a time: two would fight over the same files and the same link.
    pub fetching: Arc<tokio::sync::Mutex<()>>,
    /// Once-per-release jobs under way.
    once: Arc<Mutex<BTreeSet<String>>>,
}

impl Means {
    pub fn new(
        config: &Config,
        link: Link,
        (edges, endpoint): (Edges, Option<Endpoint>),
        happened: mpsc::Sender<Happened>,
    ) -> Self {
        let launcher = Launcher::this_program().with_docker(Docker::new(&config.data));
        Self {
            releases: Releases::new(&config.data),
            runtime: Arc::new(Drivers::new(&config.data, launcher.clone())),
            launcher,
            ports: Arc::default(),
            edges,
            endpoint,
            link,
            node: config.name.clone(),
            labels: config.labels.clone(),
            address: config.address.clone(),
            happened,
            fetching: Arc::default(),
            once: Arc::default(),
        }
    }

    /// Tells the loop. It only stops listening when the agent stops.
    pub async fn tell(&self, happened: Happened) {
        if self.happened.send(happened).await.is_err() {
            tracing::debug!("the agent stops: nobody hears of it");
        }
    }

    /// The edges of the directory, and those that an order names: the order may be newer.
    pub fn with_directory(&self, edges: &[Edge]) -> Vec<Edge> {
        let directory = self.link.directory();
        let told = directory.borrow().as_ref().map(|it| it.edges.clone()).unwrap_or_default();
        let mut all = edges.to_vec();
        all.extend(
            told.into_iter().filter(|edge| {
                !edges.iter().any(|it| it.name == edge.name && it.pool == edge.pool)
            }),
        );
        all
    }

    /// Is this once-per-release job under way?
    pub fn once_runs(&self, name: &str) -> bool {
        self.once.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// It begins.
    pub fn once_begins(&self, name: &str) {
        self.once.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// It has ended.
    pub fn once_ends(&self, name: &str) {
        self.once.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Everything that commands and checks of an instance may name.
    pub fn start_spec(&self, spec: &Spec, instance: &Instance) -> StartSpec {
        StartSpec {
            spec: spec.clone(),
            instance: instance.label.clone(),
            folder: self.releases.folder(spec),
            port: (instance.port > 0).then_some(instance.port),
            host: IpAddr::V4(Ipv4Addr::LOCALHOST),
            node: self.node.clone(),
            labels: self.labels.clone(),
        }
    }

    /// The process of an instance, if it runs: what was last started under its label, of the same release.
    pub async fn find(&self, spec: &Spec, instance: &Instance) -> Result<Option<Running>, String> {
        let found = self.runtime.find(&spec.app, &instance.label).await;
        let found = found.map_err(|error| health::chain(&error))?;
        Ok(found
            .filter(|running| running.instance().digest == spec.digest && running.exit().is_none()))
    }

    /// The member of the pool that an instance is; `None`: no edges move it.
    pub fn member(&self, spec: &Spec, instance: &Instance) -> Option<(Member, Desired)> {
        let Via::Edge(pool) = &spec.traffic.via else { return None };
        let member = Member { pool: pool.clone(), instance: instance.label.clone() };
        let health_path = match &spec.health.check {
            Check::Http(path) => Some(path.clone()),
            Check::Alive | Check::Tcp | Check::Command(_) => None,
        };
        let desired = Desired {
            host: self.address.clone(),
            port: instance.port,
            want: Want::In,
            cut: false,
            health_path,
            version: spec.version.clone(),
        };
        Some((member, desired))
    }

    /// Repeats to the edges where an instance belongs; nobody waits for the answer.
    pub fn assert(&self, spec: &Spec, instance: &Instance, side: Side) {
        if instance.port == 0 {
            return; // it has not started yet
        }
        if let Some((member, desired)) = self.member(spec, instance) {
            let want = match side {
                Side::In => Want::In,
                Side::Out => Want::Out,
            };
            self.edges.set(&member, Desired { want, ..desired });
        }
    }

    /// The end of what an instance wrote since it started.
    pub async fn tail(&self, running: &Running) -> String {
        match self.runtime.output(running.instance()).await {
            Ok(output) => output,
            Err(error) => format!("(its output cannot be read: {})", health::chain(&error)),
        }
    }

    /// Tells the loop when a process ends, with the end of what it wrote.
    pub fn watch_exit(&self, app: &str, token: u64, running: &Running) {
        let (means, app, running) = (self.clone(), app.to_owned(), running.clone());
        tokio::spawn(async move {
            let exit = running.exited().await;
            let output = means.tail(&running).await;
            means.tell(Happened::Exited { app, token, how: exit.to_string(), output }).await;
        });
    }

    /// Tells the loop when an app at rest turns unhealthy, or healthy again.
    pub fn watch_health(
        &self,
        app: &str,
        spec: Spec,
        instance: &Instance,
        running: Running,
    ) -> JoinHandle<()> {
        let start = self.start_spec(&spec, instance);
        let (means, app, token) = (self.clone(), app.to_owned(), instance.token);
        tokio::spawn(async move {
            let (tell, mut changes) = mpsc::channel(1);
            let probe = Probe { launcher: &means.launcher, start: &start, running: &running };
            let every = match spec.traffic.via {
                Via::Endpoint { .. } => WATCH_FOR_OTHERS_EVERY,
                Via::Edge(_) | Via::Command(_) | Via::None => WATCH_EVERY,
            };
            let watching = health::watch(probe, &spec.health, every, tell);
            tokio::pin!(watching);
            loop {
                let change = tokio::select! {
                    () = &mut watching => return,
                    change = changes.recv() => change,
                };
                let healthy = match change {
                    Some(Change::Healthy) => true,
                    Some(Change::Unhealthy { .. }) => false,
                    Some(Change::Exited { .. }) | None => return,
                };
                let app = app.clone();
                means.tell(Happened::Health { app, token, healthy }).await;
            }
        })
    }
}
