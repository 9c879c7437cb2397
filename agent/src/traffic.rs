//! In and out of traffic. Nodes ask ([`client`], [`drain`]), edges do it ([`edge`], [`proxy`]).
//!
//! ```text
//! run loop ── client ──mTLS──► edge ── proxy ──control socket──► the built-in proxy's process
//!   drain       one session      Traffic   Balancer
//!               an edge          service
//! ```
//!
//! Where load balancers ask the node itself, [`endpoint`] answers them.
//!
//! What is wanted of a member is a state. The node repeats it in every new session, the edge's
//! balancer reads back what is, and only what was read back counts.

pub mod book;
pub mod client;
pub mod drain;
pub mod edge;
pub mod endpoint;
pub mod haproxy;
pub mod nginx;
pub mod proxy;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a node wants of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// New requests go to it, once its health check passes.
    In,
    /// No new requests; those in flight finish.
    Out,
    /// It is forgotten.
    Gone,
}

/// What an edge reads back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observed {
    /// It takes new requests.
    In,
    /// It is wanted in, and its health check has not passed yet.
    Joining,
    /// It takes no new requests; some are in flight.
    Draining,
    /// It takes no new requests, and none is in flight.
    Out,
    /// It is not a member.
    Absent,
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "in",
            Self::Joining => "joining",
            Self::Draining => "draining",
            Self::Out => "out",
            Self::Absent => "absent",
        })
    }
}

/// What a node says to an edge, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The node's number for this; the answer repeats it.
    pub seq: u64,
    /// Which pool: a DNS label.
    pub pool: String,
    /// Whose member: a DNS label.
    pub node: String,
    /// Which of its instances: empty, or a DNS label.
    pub instance: String,
    /// What is wanted.
    pub desired: Desired,
}

/// What is wanted of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    /// Where the app is reached; `None`: where the node calls from.
    pub host: Option<String>,
    /// The app's port.
    pub port: u16,
    /// In or out.
    pub want: Want,
    /// With [`Want::Out`]: end what is in flight now, and count it.
    pub cut: bool,
    /// The path of the edge's health check; `None`: a TCP connect.
    pub health_path: Option<String>,
    /// What runs there, for people.
    pub version: String,
}

/// What an edge says to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The newest intent for this member that is in force there; 0 before any.
    pub seq: u64,
    /// Which pool.
    pub pool: String,
    /// Which of the node's instances.
    pub instance: String,
    /// What was read back.
    pub observed: Observed,
    /// Requests that it has accepted and not finished.
    pub in_flight: u64,
    /// Requests ended by us since it last joined.
    pub cut: u64,
    /// Why the intent was refused; nothing changed then.
    pub refused: Option<String>,
    /// The load balancer does not answer: nothing was read back.
    pub silent: bool,
}

/// Which member of a pool.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The node.
    pub node: String,
    /// Its instance: empty for the only one.
    pub instance: String,
}

/// A member as its balancer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Where the app is reached.
    pub address: SocketAddr,
    /// What it does.
    pub observed: Observed,
    /// Requests that it has accepted and not finished.
    pub in_flight: u64,
    /// Requests ended by us since it last joined.
    pub cut: u64,
    /// What runs there, for people.
    pub version: String,
}

/// A change of one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which member.
    pub key: Key,
    /// Where the app is reached.
    pub address: SocketAddr,
    /// In or out.
    pub want: Want,
    /// With [`Want::Out`]: end what is in flight.
    pub cut: bool,
    /// The path of the health check; `None`: a TCP connect.
    pub health_path: Option<String>,
    /// What runs there, for people.
    pub version: String,
}

/// A pool as read back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The balancer answers; while it does not, the rest is what it said last.
    pub answers: bool,
    /// Where clients reach it, where that is ours to say.
    pub listen: Option<SocketAddr>,
    /// Requests since the balancer started.
    pub requests: u64,
    /// Of those, failed by the balancer or broken off.
    pub failed: u64,
    /// Ended by us.
    pub cut: u64,
    /// Everyone.
    pub members: BTreeMap<Key, Member>,
}

impl View {
    /// The member that a change was about, as it stands now.
    pub fn after(&self, change: Change) -> Member {
        let Change { key, address, version, .. } = change;
        let absent = Member { address, observed: Observed::Absent, in_flight: 0, cut: 0, version };
        self.members.get(&key).cloned().unwrap_or(absent)
    }
}

/// Why a balancer did not do it.
#[derive(Debug, thiserror::Error)]
pub enum BalancerError {
    /// It does not answer now; the change is repeated.
    #[error("the load balancer of pool {pool} does not answer")]
    Silent { pool: String },
    /// It broke off; whether the change is in force is not known, so it is repeated.
    #[error("the load balancer of pool {pool} broke off")]
    Broken {
        pool: String,
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It said no. Nothing changed, and a repeat would be refused too.
    #[error("the load balancer of pool {pool} refused: {why}")]
    Refused { pool: String, why: String },
}

/// What serves one pool: the built-in proxy, HAProxy or nginx.
#[tonic::async_trait]
pub trait Balancer: fmt::Debug + Send + Sync {
    /// Puts a change in force. When this returns it is, and the member was read back after it.
    async fn apply(&self, change: Change) -> Result<Member, BalancerError>;
    /// The pool as read back, and every change. Never older than what `apply` returned.
    fn view(&self) -> watch::Receiver<Arc<View>>;
    /// Reads the counters anew, where they are not always new. Who does not answer keeps what it said last.
    async fn count(&self) {}
}

/// A node asked for what it may not: for the controllers' audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who, by certificate.
    pub who: String,
    /// From where.
    pub peer: String,
    /// `POOL/NODE`.
    pub target: String,
    /// Why not.
    pub why: String,
}
