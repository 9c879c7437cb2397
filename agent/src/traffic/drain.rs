//! Leaving and entering traffic, confirmed by reading it back.
//!
//! A node is drained when (1) every edge of the pool has confirmed that new requests no longer go
//! to it, (2) the edges count none in flight, and (3) the kernel shows no established connection
//! on the app's port except idle ones that the edges hold open.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Edges, Member, Seen, unconfirmed};
use super::{Desired, Observed, Want};
use crate::sockets::{SocketsError, established};

/// The first wait between two looks at the kernel's table. The kernel has no event for "the last
/// connection of this port is gone", so this is the one place where a drain polls; a look takes
/// under a millisecond, and most connections are gone with the first.
const LOOK_FIRST: Duration = Duration::from_millis(2);

/// The longest: long drains (large downloads) need no finer answer.
const LOOK_LONGEST: Duration = Duration::from_millis(50);

/// How long an edge may be away until others are enough, where [`Needed::Reachable`] allows that: longer than its agent
/// takes to start again.
pub const EDGE_GRACE: Duration = Duration::from_secs(5);

/// Who is connected to a port of this host.
pub trait Connections: Send + Sync {
    /// The other ends of all established connections.
    fn to(&self, port: u16) -> Result<Vec<SocketAddr>, SocketsError>;
}

/// The kernel's own table.
#[derive(Debug, Clone, Copy)]
pub struct Kernel;

impl Connections for Kernel {
    fn to(&self, port: u16) -> Result<Vec<SocketAddr>, SocketsError> {
        Ok(established(port)?.into_iter().map(|peer| peer.remote).collect())
    }
}

/// Who leaves, and how its app is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaving {
    /// By the edges of a pool. What is wanted is filled in.
    Edges { member: Member, app: Desired },
    /// Nobody is told; only the kernel is asked (`via = "none"`).
    Kernel { port: u16 },
}

/// Out of traffic, nothing in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Requests in flight when the drain began.
    pub in_flight_at_start: u64,
    /// How long it took.
    pub took: Duration,
    /// Requests ended by us.
    pub cut: u64,
}

/// Why a node is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// The deadline passed.
    #[error("not drained within {} ms: {waiting}", .after.as_millis())]
    NotDrained { after: Duration, in_flight_at_start: u64, in_flight: u64, waiting: Waiting },
    /// The deadline passed.
    #[error("not in traffic within {} ms: {waiting}", .after.as_millis())]
    NotJoined { after: Duration, waiting: Waiting },
    /// Nobody serves the pool.
    #[error("no edge serves the pool {pool}")]
    NoEdges { pool: String },
    /// The kernel did not tell.
    #[error(transparent)]
    Kernel(#[from] SocketsError),
    /// The sessions with the edges are gone, because the agent stops.
    #[error("the agent stops")]
    Stopping,
}

/// What a drain or join still waits for: each edge and what it said, then the kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Waiting {
    /// The edges' names, and what is missing.
    pub edges: Vec<(String, String)>,
    /// Established connections of others than the edges.
    pub connections: usize,
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (edge, why) in &self.edges {
            write!(f, "{separator}edge {edge}: {why}")?;
            separator = "; ";
        }
        if self.connections > 0 {
            write!(f, "{separator}{} open connections to the app", self.connections)?;
        }
        Ok(())
    }
}

/// Moves a member of this node, and waits until it is there.
#[derive(Clone, Copy)]
pub struct Mover<'a> {
    /// The sessions with the edges.
    pub edges: &'a Edges,
    /// The kernel's table.
    pub connections: &'a dyn Connections,
    /// Whose word is needed.
    pub needs: Needs<'a>,
}

/// Whose word is needed.
#[derive(Debug, Clone, Copy)]
pub enum Needs<'a> {
    /// That of every edge of the pool.
    All,
    /// That of the edges that can be asked, at least one. The others are named here once they have been away for
    /// [`EDGE_GRACE`].
    Reachable {
        /// Who was not asked.
        not_asked: &'a Mutex<BTreeSet<String>>,
    },
}

impl Mover<'_> {
    /// Takes the app out of traffic and waits until nothing is in flight. After the deadline the
    /// member stays out at the edges: the caller decides between [`Mover::cut`] and
    /// [`Mover::join`].
    pub async fn drain(
        &self,
        leaving: &Leaving,
        deadline: Duration,
    ) -> Result<Drained, TrafficError> {
        let (begun, end) = (Instant::now(), Instant::now() + deadline);
        let (member, app) = match leaving {
            Leaving::Edges { member, app } => (member, app),
            Leaving::Kernel { port } => {
                let at_start = self.connections.to(*port)?.len() as u64;
                return match self.quiet(*port, &BTreeSet::new(), end).await? {
                    0 => {
                        Ok(Drained { in_flight_at_start: at_start, took: begun.elapsed(), cut: 0 })
                    }
                    connections => Err(TrafficError::NotDrained {
                        after: deadline,
                        in_flight_at_start: at_start,
                        in_flight: connections as u64,
                        waiting: Waiting { edges: Vec::new(), connections },
                    }),
                };
            }
        };
        let desired = Desired { want: Want::Out, cut: false, ..app.clone() };
        let mut progress = self.wish(member, desired)?;
        let not_drained = |progress: &Progress<'_>, waiting| TrafficError::NotDrained {
            after: deadline,
            in_flight_at_start: progress.at_start(),
            in_flight: progress.in_flight(),
            waiting,
        };
        if let Err(edges) = progress.reach(is_out, end).await? {
            return Err(not_drained(&progress, Waiting { edges, connections: 0 }));
        }
        let idle = progress.remotes();
        match self.quiet(app.port, &idle, end).await? {
            0 => Ok(Drained {
                in_flight_at_start: progress.at_start(),
                took: begun.elapsed(),
                cut: progress.cut(),
            }),
            connections => Err(not_drained(&progress, Waiting { edges: Vec::new(), connections })),
        }
    }

    /// The drain's deadline passed: the edges end what is in flight, and count it. What is
    /// connected past the edges is not theirs to end; it ends with the app.
    pub async fn cut(
        &self,
        member: &Member,
        app: &Desired,
        deadline: Duration,
    ) -> Result<u64, TrafficError> {
        let end = Instant::now() + deadline;
        let desired = Desired { want: Want::Out, cut: true, ..app.clone() };
        let mut progress = self.wish(member, desired)?;
        match progress.reach(is_out, end).await? {
            Ok(()) => Ok(progress.cut()),
            Err(edges) => Err(TrafficError::NotDrained {
                after: deadline,
                in_flight_at_start: progress.at_start(),
                in_flight: progress.in_flight(),
                waiting: Waiting { edges, connections: 0 },
            }),
        }
    }

    /// Brings a healthy app into traffic, and waits until every edge reads it back as in.
    pub async fn join(
        &self,
        member: &Member,
        app: &Desired,
        deadline: Duration,
    ) -> Result<Duration, TrafficError> {
        let (begun, end) = (Instant::now(), Instant::now() + deadline);
        let desired = Desired { want: Want::In, cut: false, ..app.clone() };
        let mut progress = self.wish(member, desired)?;
        match progress.reach(|observed| observed == Observed::In, end).await? {
            Ok(()) => Ok(begun.elapsed()),
            Err(edges) => {
                let waiting = Waiting { edges, connections: 0 };
                Err(TrafficError::NotJoined { after: deadline, waiting })
            }
        }
    }

    /// Makes every edge forget a member that is out: the old instance of a start-first update.
    pub async fn leave(
        &self,
        member: &Member,
        app: &Desired,
        deadline: Duration,
    ) -> Result<(), TrafficError> {
        let end = Instant::now() + deadline;
        let desired = Desired { want: Want::Gone, cut: false, ..app.clone() };
        let mut progress = self.wish(member, desired)?;
        match progress.reach(|observed| observed == Observed::Absent, end).await? {
            Ok(()) => {
                self.edges.forget(member);
                Ok(())
            }
            Err(edges) => Err(TrafficError::NotDrained {
                after: deadline,
                in_flight_at_start: progress.at_start(),
                in_flight: progress.in_flight(),
                waiting: Waiting { edges, connections: 0 },
            }),
        }
    }

    fn wish(&self, member: &Member, desired: Desired) -> Result<Progress<'_>, TrafficError> {
        if self.edges.of_pool(&member.pool).is_empty() {
            return Err(TrafficError::NoEdges { pool: member.pool.clone() });
        }
        let seen = self.edges.watch();
        let seq = self.edges.set(member, desired);
        Ok(Progress { member: member.clone(), seq, seen, first: Vec::new(), needs: self.needs })
    }

    /// Waits until only these addresses are connected to the port; says how many others still are
    /// when the deadline passes.
    async fn quiet(
        &self,
        port: u16,
        idle: &BTreeSet<IpAddr>,
        end: Instant,
    ) -> Result<usize, SocketsError> {
        let mut wait = LOOK_FIRST;
        loop {
            let peers = self.connections.to(port)?;
            let others =
                peers.iter().filter(|peer| !idle.contains(&peer.ip().to_canonical())).count();
            if others == 0 || Instant::now() >= end {
                return Ok(others);
            }
            sleep(wait.min(end.saturating_duration_since(Instant::now()))).await;
            wait = (wait * 2).min(LOOK_LONGEST);
        }
    }
}

fn is_out(observed: Observed) -> bool {
    matches!(observed, Observed::Out | Observed::Absent)
}

/// What the edges say about one wish, as it comes true.
struct Progress<'a> {
    member: Member,
    seq: u64,
    seen: watch::Receiver<Seen>,
    /// The first answer of each edge: how many were in flight when it took the member out.
    first: Vec<(String, u64)>,
    needs: Needs<'a>,
}

impl Progress<'_> {
    /// Waits until every edge of the pool confirms; says who has not when the deadline passes.
    async fn reach(
        &mut self,
        is_right: fn(Observed) -> bool,
        end: Instant,
    ) -> Result<Result<(), Vec<(String, String)>>, TrafficError> {
        loop {
            let missing = self.missing(is_right);
            let enough = self.enough(&missing);
            if enough.is_some_and(|at| at <= Instant::now()) {
                self.note_not_asked(missing);
                return Ok(Ok(()));
            }
            let until = enough.map_or(end, |at| at.min(end));
            match timeout_at(until, self.seen.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(TrafficError::Stopping),
                Err(_) if Instant::now() >= end => return Ok(Err(missing)),
                Err(_) => {}
            }
        }
    }

    /// From when on those that confirmed are enough, as things stand; `None`: they are not.
    fn enough(&self, missing: &[(String, String)]) -> Option<Instant> {
        if missing.is_empty() {
            return Some(Instant::now());
        }
        let Needs::Reachable { .. } = self.needs else { return None };
        let seen = self.seen.borrow();
        let serving = seen.values().filter(|edge| edge.pools.contains(&self.member.pool)).count();
        let away = missing.iter().map(|(name, _)| seen.get(name)?.unreachable_since(&self.member));
        let last = away.collect::<Option<Vec<_>>>()?.into_iter().max()?;
        (missing.len() < serving).then(|| last + EDGE_GRACE)
    }

    fn note_not_asked(&self, missing: Vec<(String, String)>) {
        if let Needs::Reachable { not_asked } = self.needs {
            let names = missing.into_iter().map(|(name, _)| name);
            not_asked.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
        }
    }

    fn missing(&mut self, is_right: fn(Observed) -> bool) -> Vec<(String, String)> {
        let seen = self.seen.borrow_and_update();
        let mut missing = Vec::new();
        for (name, edge) in seen.iter().filter(|(_, e)| e.pools.contains(&self.member.pool)) {
            if let Some(state) = edge.members.get(&self.member).filter(|m| m.seq >= self.seq)
                && !self.first.iter().any(|(known, _)| known == name)
            {
                self.first.push((name.clone(), state.in_flight));
            }
            if let Some(why) = unconfirmed(edge, &self.member, self.seq, is_right) {
                missing.push((name.clone(), why));
            }
        }
        if seen.values().all(|edge| !edge.pools.contains(&self.member.pool)) {
            let why = format!("no edge serves the pool {}", self.member.pool);
            missing.push(("(none)".to_owned(), why));
        }
        missing
    }

    fn at_start(&self) -> u64 {
        self.first.iter().map(|(_, in_flight)| in_flight).sum()
    }

    fn sum(&self, of: fn(&super::client::SeenMember) -> u64) -> u64 {
        let seen = self.seen.borrow();
        seen.values().filter_map(|edge| edge.members.get(&self.member)).map(of).sum()
    }

    fn in_flight(&self) -> u64 {
        self.sum(|member| member.in_flight)
    }

    fn cut(&self) -> u64 {
        self.sum(|member| member.cut)
    }

    fn remotes(&self) -> BTreeSet<IpAddr> {
        let seen = self.seen.borrow();
        let serving = seen.values().filter(|edge| edge.pools.contains(&self.member.pool));
        serving.filter_map(|edge| edge.remote).collect()
    }
}
