//! The built-in proxy as a pool's balancer: a process of its own, which this agent starts, finds
//! again after its own restart, and starts again when it dies.
//!
//! The proxy outlives the agent, so its control socket is the only sure sign of it. What is read
//! back goes through one connection in turn with what is changed: a view is never older than the
//! answer to a change.

mod process;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rota_proxy::control::{CallError, Client, Stats, Subscription};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{info, warn};

use super::{Balancer, BalancerError, Change, Key, Member, Observed, View, Want};
use crate::backoff::{Backoff, chance};
use process::Process;

/// How long the proxy may take for one call. It only waits for its state file's disk.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the counters are read. Controllers hear them with each heartbeat.
const STATS_EVERY: Duration = Duration::from_secs(1);

/// The built-in proxy of one pool.
#[derive(Debug)]
pub struct Proxy {
    pool: String,
    /// While one answers. Held over each call, so that answers are seen in their order.
    client: Mutex<Option<Client>>,
    view: watch::Sender<Arc<View>>,
}

/// Why a pool cannot be served at all.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// Its folder.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    /// The kernel's limit for the names of sockets.
    #[error(
        "the control socket {} has a longer name than the kernel takes ({SOCKET_MAX} bytes): \
         use a shorter --data",
        path.display()
    )]
    LongPath { path: PathBuf },
}

/// `sun_path` has 108 bytes, the last is a zero. The proxy binds aside first, with a longer suffix.
const SOCKET_MAX: usize = 105;

impl Proxy {
    /// Finds or starts the proxy of a pool, in DIR/edge/POOL, and keeps it alive.
    pub fn start(data: &Path, pool: &str, listen: SocketAddr) -> Result<Arc<Self>, ProxyError> {
        let folder = data.join("edge").join(pool);
        std::fs::create_dir_all(&folder)
            .map_err(|cause| ProxyError::Folder { path: folder.clone(), cause })?;
        // The agent may later start a proxy from another folder than it found this one in.
        let folder = std::fs::canonicalize(&folder)
            .map_err(|cause| ProxyError::Folder { path: folder, cause })?;
        let process = Process::new(folder, listen);
        if process.control().as_os_str().len() > SOCKET_MAX {
            return Err(ProxyError::LongPath { path: process.control() });
        }
        let proxy = Arc::new(Self {
            pool: pool.to_owned(),
            client: Mutex::new(None),
            view: watch::Sender::new(Arc::default()),
        });
        tokio::spawn(Arc::clone(&proxy).keep(process));
        Ok(proxy)
    }

    /// Holds the connection to the proxy, for as long as this agent lives.
    async fn keep(self: Arc<Self>, mut process: Process) {
        let mut backoff = Backoff::default();
        loop {
            match process.reach().await {
                Ok(client) => {
                    if let Err(error) = self.follow(client, &mut process).await {
                        warn!(pool = self.pool, "lost the proxy: {error}");
                    }
                    self.lose().await;
                    backoff = Backoff::default();
                }
                Err(error) => {
                    warn!(pool = self.pool, "{error}");
                    tokio::time::sleep(backoff.after_failure(chance())).await;
                }
            }
        }
    }

    /// Nobody can say how the members are until a proxy answers again.
    async fn lose(&self) {
        *self.client.lock().await = None;
        self.view.send_modify(|view| {
            let silent = View { answers: false, ..View::clone(view) };
            *view = Arc::new(silent);
        });
    }

    async fn follow(&self, client: Client, process: &mut Process) -> Result<(), CallError> {
        let mut changes = client.subscribe().await?;
        let stats = client.stats().await?;
        if !process.fits(stats.listen) {
            warn!(
                pool = self.pool,
                "the proxy listens on {}, but {} is wanted: it finishes what is in flight, and \
                 another takes over",
                stats.listen,
                process.wanted()
            );
            client.shutdown().await?;
            while changes.next().await?.is_some() {}
            return Ok(());
        }
        process.found(&stats);
        *self.client.lock().await = Some(client);
        self.read_back().await?;
        info!(pool = self.pool, listen = %stats.listen, pid = stats.pid, "edge ready: \
            pool={} listen={}", self.pool, stats.listen);
        let mut due = interval(STATS_EVERY);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.next() => {
                    if change?.is_none() {
                        return Ok(());
                    }
                    drain_ready(&mut changes).await?;
                }
                _ = due.tick() => {}
            }
            self.read_back().await?;
        }
    }

    /// Reads the whole pool in turn with changes: what a subscription says may be older.
    async fn read_back(&self) -> Result<(), CallError> {
        let held = self.client.lock().await;
        let Some(client) = held.as_ref() else { return Ok(()) };
        let both = async { Ok((client.stats().await?, client.list().await?)) };
        let late = |_| Err(CallError::Broken);
        let (stats, members) = timeout(CALL_TIMEOUT, both).await.unwrap_or_else(late)?;
        self.show(&stats, members);
        Ok(())
    }

    fn show(&self, stats: &Stats, members: Vec<rota_proxy::MemberState>) {
        let members: BTreeMap<Key, Member> = members.into_iter().map(member).collect();
        let now = View {
            answers: true,
            listen: Some(stats.listen),
            requests: stats.requests,
            failed: stats.failed,
            cut: stats.cut,
            members,
        };
        self.view.send_if_modified(|view| {
            let news = **view != now;
            *view = Arc::new(now);
            news
        });
    }
}

/// Takes what is already here: one reading covers many changes.
async fn drain_ready(changes: &mut Subscription) -> Result<(), CallError> {
    while let Ok(change) = timeout(Duration::ZERO, changes.next()).await {
        if change?.is_none() {
            break;
        }
    }
    Ok(())
}

fn member(state: rota_proxy::MemberState) -> (Key, Member) {
    let key = Key { node: state.key.node, instance: state.key.instance };
    let observed = match state.observed {
        rota_proxy::Observed::In => Observed::In,
        rota_proxy::Observed::Joining => Observed::Joining,
        rota_proxy::Observed::Draining => Observed::Draining,
        rota_proxy::Observed::Out => Observed::Out,
        rota_proxy::Observed::Absent => Observed::Absent,
    };
    let member = Member {
        address: state.address,
        observed,
        in_flight: state.in_flight,
        cut: state.cut,
        version: state.version,
    };
    (key, member)
}

fn intent(change: Change) -> rota_proxy::Intent {
    rota_proxy::Intent {
        key: rota_proxy::Key { node: change.key.node, instance: change.key.instance },
        address: change.address,
        want: match change.want {
            Want::In => rota_proxy::Want::In,
            Want::Out => rota_proxy::Want::Out,
            Want::Gone => rota_proxy::Want::Gone,
        },
        cut: change.cut,
        health_path: change.health_path.unwrap_or_default(),
        version: change.version,
    }
}

#[tonic::async_trait]
impl Balancer for Proxy {
    async fn apply(&self, change: Change) -> Result<Member, BalancerError> {
        let pool = || self.pool.clone();
        let held = self.client.lock().await;
        let Some(client) = held.as_ref() else {
            return Err(BalancerError::Silent { pool: pool() });
        };
        let late = |_| Err(CallError::Broken);
        let applied = timeout(CALL_TIMEOUT, client.apply(intent(change))).await;
        let (key, member) = match applied.unwrap_or_else(late) {
            Ok(state) => self::member(state),
            Err(CallError::Refused(why)) => {
                return Err(BalancerError::Refused { pool: pool(), why });
            }
            Err(cause) => {
                return Err(BalancerError::Broken { pool: pool(), cause: cause.into() });
            }
        };
        let read_back = member.clone();
        self.view.send_modify(|view| {
            let mut now = View::clone(view);
            match read_back.observed {
                Observed::Absent => drop(now.members.remove(&key)),
                Observed::In | Observed::Joining | Observed::Draining | Observed::Out => {
                    now.members.insert(key, read_back);
                }
            }
            *view = Arc::new(now);
        });
        Ok(member)
    }

    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    async fn count(&self) {
        if let Err(error) = self.read_back().await {
            warn!(pool = self.pool, "the proxy did not count: {error}");
        }
    }
}
