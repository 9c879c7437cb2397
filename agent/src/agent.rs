//! Puts the agent together: everything around the run loop, started in the right order.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rota_proto::agent as proto;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::config::{Balancer as BalancerConfig, Config};
use crate::enrol::{self, EnrolError};
use crate::journal::JournalError;
use crate::link::{self, Event, Link};
use crate::local::{self, Facts, Request};
use crate::own::Own;
use crate::spec::Driver;
use crate::traffic::Balancer;
use crate::traffic::client::Edges;
use crate::traffic::edge::{Edge, Pools, listen};
use crate::traffic::endpoint::Endpoint;
use crate::traffic::haproxy::Haproxy;
use crate::traffic::nginx::Nginx;
use crate::traffic::proxy::{Proxy, ProxyError};
use crate::wire;

/// How long the start waits for a pool's proxy before it goes on without; it is named in the log.
const POOL_TIMEOUT: Duration = Duration::from_secs(10);

/// Whose agent starts units by default.
const UNITS_LOCK: &str = "/run/rota-units.lock";

/// A running agent, without its run loop.
#[derive(Debug)]
pub struct Agent {
    /// What it was told.
    pub config: Config,
    /// Who it is.
    pub own: Arc<Own>,
    /// Says things to the controllers, and fetches artifacts.
    pub link: Link,
    /// What the controllers say.
    pub events: mpsc::Receiver<Event>,
    /// Moves this node's members.
    pub edges: Edges,
    /// What people on the node ask.
    pub requests: mpsc::Receiver<Request>,
    /// Where load balancers ask for the readiness of apps, and what answers them once the loop says so.
    pub endpoint: Option<(Endpoint, TcpListener)>,
    /// Where the `Traffic` service listens, on edges.
    pub traffic: Option<SocketAddr>,
    /// The pools served here, and where clients reach them.
    pub pools: Vec<proto::EdgePool>,
    /// Held while this agent lives.
    _lock: File,
    /// Held while this agent may give units their names, where systemd is.
    _units: Option<File>,
}

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder.
    #[error("cannot {deed} {}", path.display())]
    Folder {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// Another agent.
    #[error("another agent runs with the folder {}", path.display())]
    Running { path: PathBuf },
    /// Who is it?
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// A pool.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// What was wanted of its members.
    #[error("cannot read what is wanted of a pool's members")]
    Book(#[from] JournalError),
    /// The `Traffic` service, or the readiness endpoint.
    #[error("cannot listen on {address} for {whom}")]
    Listen {
        address: SocketAddr,
        whom: &'static str,
        #[source]
        cause: io::Error,
    },
}

impl StartError {
    /// Is it the fault of what this agent was told, and not of what it found?
    pub fn is_mistake(&self) -> bool {
        let Self::Enrol(error) = self else { return false };
        matches!(
            error,
            EnrolError::NoToken { .. } | EnrolError::Token(_) | EnrolError::SomebodyElse { .. }
        )
    }
}

impl Agent {
    /// Starts everything around the run loop. Joins first, if it has to.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let lock = lock(&config.data)?;
        // Before the identity: a port that is taken should not cost a token.
        let taken = |address, whom| move |cause| StartError::Listen { address, whom, cause };
        let edge = Some(config.traffic_listen).filter(|_| !config.edges.is_empty());
        let listener =
            edge.map(|at| listen(at).map_err(taken(at, "nodes (--traffic-listen)"))).transpose()?;
        let endpoint = config
            .endpoint_listen
            .map(|at| Endpoint::bind(at).map_err(taken(at, "load balancers (--endpoint-listen)")));
        let endpoint = endpoint.transpose()?;
        let own = Arc::new(enrol::identity(&config).await?);
        let pools = start_pools(&config).await?;
        let listens = reached(&config, &pools).await;
        let traffic = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let (driver, units) = default_driver();
        let setup = link::Setup { driver, ..setup(&config, traffic, &listens) };
        let (link, events) = link::start(setup, Arc::clone(&own));
        if let Some(listener) = listener {
            serve_edge(Edge::new(pools, link.refusals()), listener, &own, &link);
        }
        let facts = Facts {
            own: Arc::clone(&own),
            env: config.env.clone(),
            link: link.clone(),
            endpoint: endpoint.as_ref().map(|(endpoint, _)| endpoint.clone()),
        };
        let requests = local::serve(&config.data, facts).map_err(|cause| StartError::Folder {
            deed: "open the socket",
            path: local::place(&config.data),
            cause,
        })?;
        let edges = Edges::start(Arc::clone(&own));
        Ok(Self {
            config,
            own,
            link,
            events,
            edges,
            requests,
            endpoint,
            traffic,
            pools: listens,
            _lock: lock,
            _units: units,
        })
    }

    /// The line that scripts wait for.
    pub fn ready_line(&self) -> String {
        let mut line = format!("ready: agent {}", self.own.name());
        if let Some(traffic) = self.traffic {
            line += &format!(" traffic={traffic}");
        }
        if let Some((endpoint, _)) = &self.endpoint {
            line += &format!(" endpoint={}", endpoint.listen());
        }
        for proto::EdgePool { pool, listen, .. } in &self.pools {
            let listen = if listen.is_empty() { "starting" } else { listen };
            line += &format!(" {pool}={listen}");
        }
        line + &format!(" controllers={}", self.config.controllers.join(","))
    }
}

/// Makes the agent's folder, and takes it for this process.
fn lock(data: &Path) -> Result<File, StartError> {
    let fail = |deed| move |cause| StartError::Folder { deed, path: data.to_owned(), cause };
    DirBuilder::new().recursive(true).mode(0o711).create(data).map_err(fail("make the folder"))?;
    let path = data.join("agent.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(fail("write into"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StartError::Running { path: data.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(fail("lock")(cause)),
    }
}

async fn start_pools(config: &Config) -> Result<Pools, StartError> {
    let mut pools = Pools::new();
    for edge in &config.edges {
        let balancer: Arc<dyn Balancer> = match &edge.balancer {
            BalancerConfig::Proxy { listen } => Proxy::start(&config.data, &edge.pool, *listen)?,
            BalancerConfig::Haproxy(settings) => {
                Haproxy::start(&config.data, &edge.pool, settings).await?
            }
            BalancerConfig::Nginx(settings) => {
                Nginx::start(&config.data, &edge.pool, settings).await?
            }
        };
        pools.insert(edge.pool.clone(), balancer);
    }
    Ok(pools)
}

/// What serves each pool, and where clients reach it, once its balancer answers.
async fn reached(config: &Config, pools: &Pools) -> Vec<proto::EdgePool> {
    let mut reached = Vec::new();
    for edge in &config.edges {
        let pool = edge.pool.clone();
        let Some(balancer) = pools.get(&pool) else { continue };
        let mut view = balancer.view();
        let ready = timeout(POOL_TIMEOUT, view.wait_for(|view| view.answers)).await;
        let listen = match ready {
            Ok(Ok(view)) => view.listen,
            Ok(Err(_)) | Err(_) => {
                warn!(pool, "nobody serves this pool yet; going on without");
                None
            }
        };
        let listen = match &edge.balancer {
            BalancerConfig::Proxy { .. } => listen.map(|it| it.to_string()).unwrap_or_default(),
            BalancerConfig::Haproxy(settings) => settings.to_string(),
            BalancerConfig::Nginx(settings) => settings.to_string(),
        };
        reached.push(proto::EdgePool { pool, driver: edge.balancer.driver().to_owned(), listen });
    }
    reached
}

fn setup(config: &Config, traffic: Option<SocketAddr>, listens: &[proto::EdgePool]) -> link::Setup {
    link::Setup {
        data: config.data.clone(),
        seeds: config.controllers.clone(),
        token: config.token.clone(),
        env: config.env.clone(),
        roles: config.roles.clone(),
        labels: config.labels.clone(),
        address: config.address.clone(),
        traffic_address: traffic
            .map(|traffic| advertised(traffic, config.address.as_deref()))
            .unwrap_or_default(),
        edges: listens.to_vec(),
        driver: Driver::Exec,
    }
}

/// What others dial: an address that listens everywhere says nothing about where that is.
fn advertised(listen: SocketAddr, address: Option<&str>) -> String {
    match (listen.ip().is_unspecified(), address) {
        (false, _) => listen.to_string(),
        (true, None) => format!(":{}", listen.port()),
        (true, Some(host)) if host.contains(':') => format!("[{host}]:{}", listen.port()),
        (true, Some(host)) => format!("{host}:{}", listen.port()),
    }
}

/// What runs apps when a release does not say: systemd where it is PID 1 and takes orders from this agent. On a host
/// with several agents only one: units of one name would be in each other's way.
fn default_driver() -> (Driver, Option<File>) {
    let first = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    let booted = first.trim() == "systemd" && Path::new("/run/systemd/system").is_dir();
    if !booted || !rustix::process::geteuid().is_root() {
        return (Driver::Exec, None);
    }
    let file = File::options().create(true).truncate(false).write(true).open(UNITS_LOCK);
    match file.map(|file| file.try_lock().map(|()| file)) {
        Ok(Ok(file)) => (Driver::Systemd, Some(file)),
        Ok(Err(_)) => {
            info!("another agent of this host starts units: here apps run under exec by default");
            (Driver::Exec, None)
        }
        Err(cause) => {
            warn!(%cause, "cannot open {UNITS_LOCK}: apps run under exec by default");
            (Driver::Exec, None)
        }
    }
}

fn serve_edge(edge: Edge, listener: TcpListener, own: &Arc<Own>, link: &Link) {
    let (served, told) = (edge.clone(), link.clone());
    let own = Arc::clone(own);
    tokio::spawn(async move {
        match served.serve(listener, own).await {
            Ok(()) => info!("the Traffic service ended"),
            Err(error) => error!("the Traffic service ended: {error}"),
        }
    });
    let (banning, mut directory) = (edge.clone(), link.directory());
    tokio::spawn(async move {
        loop {
            let news = directory.borrow_and_update().clone();
            if let Some(news) = news {
                banning.ban(news.banned);
            }
            if directory.changed().await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        let mut moved = edge.moved();
        let mut counts = told.counts();
        let mut answered = 0;
        loop {
            let asked = *counts.borrow_and_update();
            if asked != answered {
                edge.count().await;
                answered = asked;
            }
            let views = edge.views();
            let pools = views.iter().map(|(pool, view)| wire::pool_state(pool, view));
            told.pools(proto::EdgeState { pools: pools.collect(), counted: answered });
            tokio::select! {
                moved = moved.changed() => if moved.is_err() { return },
                asked = counts.changed() => if asked.is_err() { return },
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_dial() {
        for (listen, address, dialled) in [
            ("10.0.0.5:7402", None, "10.0.0.5:7402"),
            ("10.0.0.5:7402", Some("lb"), "10.0.0.5:7402"),
            ("0.0.0.0:7402", None, ":7402"),
            ("[::]:7402", None, ":7402"),
            ("0.0.0.0:7402", Some("lb.example"), "lb.example:7402"),
            ("0.0.0.0:7402", Some("fd00::1"), "[fd00::1]:7402"),
        ] {
            assert_eq!(advertised(listen.parse().unwrap(), address), dialled, "{listen}");
        }
    }
}
