//! The edge's side: the `Traffic` service, in which each node moves its own members and no others.

mod accept;
mod banned;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rota_identity::{Identity, Kind, Leaf};
use rota_proto::traffic::traffic_server::{Traffic, TrafficServer};
use rota_proto::traffic::{MemberIntent, MemberReport};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info, warn};

use super::{Balancer, BalancerError, Change, Key, Report, View};
use crate::own::Own;
use crate::traffic::{Intent, Observed, Refusal};
use crate::wire;

pub use accept::listen;

/// Reports on their way to one node.
const REPORTS_MAX: usize = 64;

/// A node that does not read its reports for so long has lost its session.
const REPORT_TIMEOUT: Duration = Duration::from_secs(15);

/// The members of one node in all pools together: a few apps, two instances each.
const MEMBERS_MAX: usize = 256;

/// Between two tries of a change that a balancer did not take, while it restarts.
const RETRY_EVERY: Duration = Duration::from_millis(100);

/// How long the name of a node's host may take to be found.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest intent, in bytes.
const MESSAGE_MAX: usize = 64 * 1024;

/// How often an idle session is tried: a node that lost its power is noticed after this and tonic's
/// 20 s for the answer.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// The pools of this edge, by name.
pub type Pools = BTreeMap<String, Arc<dyn Balancer>>;

/// The service of one edge.
#[derive(Debug, Clone)]
pub struct Edge {
    pools: Arc<Pools>,
    /// Rises when any pool changed.
    moved: watch::Sender<u64>,
    /// What nodes were refused.
    refusals: mpsc::Sender<Refusal>,
    /// Serials of certificates that count no more.
    banned: watch::Sender<BTreeSet<String>>,
}

impl Edge {
    /// An edge that serves these pools.
    pub fn new(pools: Pools, refusals: mpsc::Sender<Refusal>) -> Self {
        let edge = Self {
            pools: Arc::new(pools),
            moved: watch::Sender::new(0),
            refusals,
            banned: watch::Sender::default(),
        };
        for balancer in edge.pools.values() {
            let (mut view, moved) = (balancer.view(), edge.moved.clone());
            tokio::spawn(async move {
                while view.changed().await.is_ok() {
                    moved.send_modify(|moved| *moved += 1);
                }
            });
        }
        edge
    }

    /// Rises when any pool changed.
    pub fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    /// Reads every pool's counters anew.
    pub async fn count(&self) {
        for balancer in self.pools.values() {
            balancer.count().await;
        }
    }

    /// All pools as read back.
    pub fn views(&self) -> Vec<(String, Arc<View>)> {
        let pools = self.pools.iter();
        pools
            .map(|(name, balancer)| (name.clone(), Arc::clone(&balancer.view().borrow())))
            .collect()
    }

    /// Serves nodes on this port until the agent ends.
    pub async fn serve(
        self,
        listener: TcpListener,
        own: Arc<Own>,
    ) -> Result<(), tonic::transport::Error> {
        let (accepted, incoming) = mpsc::channel(accept::HANDSHAKES_MAX);
        tokio::spawn(accept::accept(listener, own, accepted));
        let service = TrafficServer::new(self).max_decoding_message_size(MESSAGE_MAX);
        tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(service)
            .serve_with_incoming(ReceiverStream::new(incoming))
            .await
    }
}

#[tonic::async_trait]
impl Traffic for Edge {
    type SessionStream = ReceiverStream<Result<MemberReport, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<MemberIntent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let Leaf { identity: caller, serial, .. } = caller(&request)?;
        if self.banned.borrow().contains(&serial) {
            warn!(node = caller.name(), "a removed node calls: turned away");
            return Err(Status::permission_denied(format!(
                "the certificate of {caller} was revoked"
            )));
        }
        let from = request.remote_addr().map(|address| address.ip().to_canonical());
        let from = from.ok_or_else(|| Status::internal("a connection without an address"))?;
        let (reports, outbound) = mpsc::channel(REPORTS_MAX);
        info!(node = caller.name(), %from, "traffic session");
        let session = Session {
            edge: self.clone(),
            caller,
            serial,
            from,
            members: BTreeMap::new(),
            reports,
            refused: false,
        };
        tokio::spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

fn caller<T>(request: &Request<T>) -> Result<Leaf, Status> {
    let certificates = request.peer_certs();
    let leaf = certificates.as_ref().and_then(|certificates| certificates.first());
    let leaf = leaf.ok_or_else(|| Status::unauthenticated("show a node's certificate"))?;
    let leaf = Leaf::parse(leaf).map_err(|error| Status::unauthenticated(error.to_string()))?;
    match leaf.identity.kind() {
        Kind::Node | Kind::Edge => Ok(leaf),
        Kind::Controller | Kind::Operator => Err(Status::permission_denied(format!(
            "{} is no node: only nodes move members, each its own",
            leaf.identity
        ))),
    }
}

/// One node's session.
struct Session {
    edge: Edge,
    caller: Identity,
    /// Of the certificate that it was opened with.
    serial: String,
    from: IpAddr,
    /// What this node has spoken of, by pool and instance.
    members: BTreeMap<(String, String), Spoken>,
    reports: mpsc::Sender<Result<MemberReport, Status>>,
    /// A refusal of this session was told to the controllers; one is enough, or a node could flood their log.
    refused: bool,
}

/// A member that the node has spoken of in this session.
#[derive(Debug, Default)]
struct Spoken {
    /// The newest intent that is in force.
    seq: u64,
    /// A newer one that is not yet.
    pending: Option<(u64, Change)>,
    /// What the node was told last.
    told: Option<Report>,
}

/// The node is gone, or does not listen.
struct Over;

impl Session {
    async fn run(mut self, mut intents: Streaming<MemberIntent>) {
        let mut moved = self.edge.moved();
        let mut banned = self.edge.banned.subscribe();
        let mut retry = interval(RETRY_EVERY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let pending = self.members.values().any(|member| member.pending.is_some());
            let step = tokio::select! {
                intent = intents.message() => match intent {
                    Ok(Some(intent)) => self.take(intent).await,
                    Ok(None) | Err(_) => Err(Over),
                },
                changed = moved.changed() => match changed {
                    Ok(()) => self.tell_all().await,
                    Err(_) => Err(Over),
                },
                changed = banned.changed() => match changed {
                    Ok(()) if banned.borrow().contains(&self.serial) => {
                        warn!(node = self.caller.name(), "the node was removed");
                        Err(Over)
                    }
                    Ok(()) => Ok(()),
                    Err(_) => Err(Over),
                },
                _ = retry.tick(), if pending => self.apply_pending().await,
            };
            if step.is_err() {
                break;
            }
        }
        // The members stay as they are: a session that breaks says nothing about the app.
        info!(node = self.caller.name(), "traffic session ended");
    }

    async fn take(&mut self, intent: MemberIntent) -> Result<(), Over> {
        let echo = Report {
            seq: intent.seq,
            pool: intent.pool.clone(),
            instance: intent.instance.clone(),
            observed: Observed::Absent,
            in_flight: 0,
            cut: 0,
            refused: None,
            silent: false,
        };
        let target = format!("{}/{}", intent.pool, intent.node);
        match self.check(intent).await {
            Err(why) => {
                warn!(node = self.caller.name(), from = %self.from, "refused an intent: {why}");
                self.tell_refusal(target, why.clone());
                self.send(Report { refused: Some(why), ..echo }).await
            }
            Ok((pool, seq, change)) => {
                let key = (pool, change.key.instance.clone());
                self.members.entry(key).or_default().pending = Some((seq, change));
                self.apply_pending().await
            }
        }
    }

    fn tell_refusal(&mut self, target: String, why: String) {
        if std::mem::replace(&mut self.refused, true) {
            return;
        }
        let (who, peer) = (self.caller.to_string(), self.from.to_string());
        if self.edge.refusals.try_send(Refusal { who, peer, target, why }).is_err() {
            warn!("too many refusals wait for a controller: this one is only logged here");
        }
    }

    /// May this node ask for that, and for what exactly?
    async fn check(&self, intent: MemberIntent) -> Result<(String, u64, Change), String> {
        let Intent { seq, pool, node, instance, desired } =
            wire::intent(intent).map_err(|error| error.to_string())?;
        if node != self.caller.name() {
            return Err(format!("{} may not speak for the node {node}", self.caller));
        }
        if !self.edge.pools.contains_key(&pool) {
            let pools: Vec<&str> = self.edge.pools.keys().map(String::as_str).collect();
            let pools = pools.join(", ");
            return Err(format!("this edge does not serve the pool {pool}; it serves {pools}"));
        }
        let known = self.members.contains_key(&(pool.clone(), instance.clone()));
        if !known && self.members.len() >= MEMBERS_MAX {
            return Err(format!("a node has at most {MEMBERS_MAX} members"));
        }
        let address = self.address(desired.host.as_deref(), desired.port).await?;
        let change = Change {
            key: Key { node, instance },
            address,
            want: desired.want,
            cut: desired.cut,
            health_path: desired.health_path,
            version: desired.version,
        };
        Ok((pool, seq, change))
    }

    async fn address(&self, host: Option<&str>, port: u16) -> Result<SocketAddr, String> {
        let Some(host) = host else { return Ok(SocketAddr::new(self.from, port)) };
        let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
        let found = found.map_err(|_| format!("nobody says in time what the host {host} is"))?;
        let mut found = found.map_err(|error| format!("cannot find the host {host}: {error}"))?;
        let found = found.next().ok_or_else(|| format!("the host {host} has no address"))?;
        // What listens on this host alone is nobody's app but a node's of this host.
        if found.ip().to_canonical().is_loopback() && !self.from.is_loopback() {
            return Err(format!("the host {host} is this edge itself, not the node"));
        }
        Ok(found)
    }

    /// Puts in force what is not yet, and says how each member is then.
    async fn apply_pending(&mut self) -> Result<(), Over> {
        if self.edge.banned.borrow().contains(&self.serial) {
            return Err(Over); // removed a moment ago: its members are leaving, and must not come back
        }
        let mut reports = Vec::new();
        for ((pool, instance), member) in &mut self.members {
            let Some((seq, change)) = member.pending.clone() else { continue };
            let Some(balancer) = self.edge.pools.get(pool) else { continue };
            let want = change.want;
            match balancer.apply(change).await {
                Ok(state) => {
                    (member.seq, member.pending) = (seq, None);
                    info!(node = self.caller.name(), pool, ?want, state = %state.observed, "moved");
                }
                Err(BalancerError::Refused { pool, why }) => {
                    member.pending = None;
                    warn!(node = self.caller.name(), pool, "the load balancer refused: {why}");
                    reports.push(Report {
                        seq,
                        pool,
                        instance: instance.clone(),
                        observed: Observed::Absent,
                        in_flight: 0,
                        cut: 0,
                        refused: Some(why),
                        silent: false,
                    });
                }
                // It stays pending; the node waits for its report.
                Err(error @ (BalancerError::Silent { .. } | BalancerError::Broken { .. })) => {
                    debug!(pool, "not in force yet: {error}");
                }
            }
        }
        for report in reports {
            self.send(report).await?;
        }
        self.tell_all().await
    }

    /// Tells the node of each of its members that is not as it was told last.
    async fn tell_all(&mut self) -> Result<(), Over> {
        let mut news = Vec::new();
        let node = self.caller.name();
        for ((pool, instance), member) in &mut self.members {
            let Some(balancer) = self.edge.pools.get(pool) else { continue };
            let view = Arc::clone(&balancer.view().borrow());
            // Before its first intent is in force there is nothing to say.
            if member.seq == 0 && view.answers {
                continue;
            }
            let key = Key { node: node.to_owned(), instance: instance.clone() };
            // While the load balancer does not answer, nobody can say how it is.
            let state = view.members.get(&key).filter(|_| view.answers);
            let report = Report {
                seq: if view.answers { member.seq } else { 0 },
                pool: pool.clone(),
                instance: instance.clone(),
                observed: state.map_or(Observed::Absent, |state| state.observed),
                in_flight: state.map_or(0, |state| state.in_flight),
                cut: state.map_or(0, |state| state.cut),
                refused: None,
                silent: !view.answers,
            };
            if member.told.as_ref() != Some(&report) {
                member.told = Some(report.clone());
                news.push(report);
            }
        }
        for report in news {
            self.send(report).await?;
        }
        Ok(())
    }

    async fn send(&self, report: Report) -> Result<(), Over> {
        let report = Ok(wire::member_report_out(&report));
        match timeout(REPORT_TIMEOUT, self.reports.send(report)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Over),
        }
    }
}
