//! The node's side: one session with every edge, in which it says what it wants of its members.
//!
//! Each `set` gets a number. A member counts as confirmed at an edge only when a report of the
//! session that lives now repeats the newest number: what an edge said before it broke off, or of
//! an earlier wish, says nothing.

mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::error;

use super::{Desired, Observed};
use crate::order::Edge;
use crate::own::Own;

/// Which of this node's members.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The pool.
    pub pool: String,
    /// Which instance of the app: empty for the only one.
    pub instance: String,
}

/// What is wanted, and since which number.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wish {
    seq: u64,
    desired: Desired,
}

#[derive(Debug, Default)]
struct Wishes {
    last: u64,
    members: BTreeMap<Member, Wish>,
}

/// What the edges say, by the edge's name.
pub type Seen = BTreeMap<String, SeenEdge>;

/// One edge as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenEdge {
    /// HOST:PORT of its `Traffic` service.
    pub address: String,
    /// The pools that it serves.
    pub pools: BTreeSet<String>,
    /// Where it really is, while a session lives.
    pub remote: Option<IpAddr>,
    /// Why none does.
    pub error: Option<String>,
    /// Since when none does.
    pub away_since: Option<Instant>,
    /// What was last heard before the session was lost; who cannot ask still shows it.
    pub last_known: BTreeMap<Member, SeenMember>,
    /// What this session's reports said.
    pub members: BTreeMap<Member, SeenMember>,
}

/// One member as an edge reads it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenMember {
    /// The newest intent in force there.
    pub seq: u64,
    /// What it does.
    pub observed: Observed,
    /// Requests not finished.
    pub in_flight: u64,
    /// Requests ended by us.
    pub cut: u64,
    /// Why the intent with this number was refused.
    pub refused: Option<String>,
    /// Since when the load balancer does not answer; what it said before is still here.
    pub silent_since: Option<Instant>,
}

impl SeenEdge {
    /// Since when it cannot be asked about a member: there is no session, or its load balancer does not answer.
    pub fn unreachable_since(&self, member: &Member) -> Option<Instant> {
        self.away_since.or_else(|| self.members.get(member)?.silent_since)
    }
}

/// The sessions with the edges. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Edges {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    own: Arc<Own>,
    wishes: watch::Sender<Wishes>,
    edges: watch::Sender<BTreeMap<String, Known>>,
    seen: watch::Sender<Seen>,
}

/// An edge to hold a session with.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    address: String,
    pools: BTreeSet<String>,
}

impl Edges {
    /// No edges yet; see [`Edges::know`].
    pub fn start(own: Arc<Own>) -> Self {
        let shared = Arc::new(Shared {
            own,
            wishes: watch::Sender::new(Wishes::default()),
            edges: watch::Sender::new(BTreeMap::new()),
            seen: watch::Sender::new(Seen::new()),
        });
        tokio::spawn(supervise(Arc::clone(&shared)));
        Self { shared }
    }

    /// These are the edges now: of the directory, and of the orders under way.
    pub fn know(&self, edges: &[Edge]) {
        let mut known: BTreeMap<String, Known> = BTreeMap::new();
        for edge in edges {
            let entry = known
                .entry(edge.name.clone())
                .or_insert_with(|| Known { address: edge.address.clone(), pools: BTreeSet::new() });
            // An edge has one address; when two are told, the later is the newer.
            entry.address.clone_from(&edge.address);
            entry.pools.insert(edge.pool.clone());
        }
        self.shared.edges.send_if_modified(|before| {
            let news = *before != known;
            *before = known;
            news
        });
    }

    /// The names of the edges that serve a pool.
    pub fn of_pool(&self, pool: &str) -> Vec<String> {
        let edges = self.shared.edges.borrow();
        let serving = edges.iter().filter(|(_, edge)| edge.pools.contains(pool));
        serving.map(|(name, _)| name.clone()).collect()
    }

    /// Wants this of a member, at every edge of its pool, until something else is wanted. Returns
    /// the number that a report must repeat.
    pub fn set(&self, member: &Member, desired: Desired) -> u64 {
        let mut seq = 0;
        self.shared.wishes.send_if_modified(|wishes| {
            if let Some(wish) = wishes.members.get(member).filter(|w| w.desired == desired) {
                seq = wish.seq;
                return false;
            }
            wishes.last += 1;
            seq = wishes.last;
            wishes.members.insert(member.clone(), Wish { seq, desired: desired.clone() });
            true
        });
        seq
    }

    /// What is wanted of a member now.
    pub fn wanted(&self, member: &Member) -> Option<Desired> {
        self.shared.wishes.borrow().members.get(member).map(|wish| wish.desired.clone())
    }

    /// Wants nothing more of a member; new sessions no longer speak of it.
    pub fn forget(&self, member: &Member) {
        self.shared.wishes.send_modify(|wishes| {
            wishes.members.remove(member);
        });
    }

    /// What the edges say, as it changes.
    pub fn watch(&self) -> watch::Receiver<Seen> {
        self.shared.seen.subscribe()
    }
}

/// What an edge has not confirmed, in words; `None` when it has.
pub fn unconfirmed(
    edge: &SeenEdge,
    member: &Member,
    seq: u64,
    is_right: fn(Observed) -> bool,
) -> Option<String> {
    if edge.remote.is_none() {
        let why = edge.error.as_deref().unwrap_or("not reached yet");
        return Some(format!("no session ({why})"));
    }
    match edge.members.get(member) {
        None => Some("has not answered".to_owned()),
        Some(SeenMember { silent_since: Some(_), .. }) => {
            Some("its load balancer does not answer".to_owned())
        }
        Some(seen) => match &seen.refused {
            Some(why) if seen.seq >= seq => Some(format!("refused: {why}")),
            Some(_) | None if seen.seq < seq => Some("has not answered".to_owned()),
            Some(_) | None if is_right(seen.observed) => None,
            Some(_) | None => Some(format!("{}, {} in flight", seen.observed, seen.in_flight)),
        },
    }
}

/// One task for each edge.
async fn supervise(shared: Arc<Shared>) {
    let mut edges = shared.edges.subscribe();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<String, tokio::task::AbortHandle> = BTreeMap::new();
    loop {
        let known = edges.borrow_and_update().clone();
        running.retain(|name, task| {
            let keep = known.contains_key(name);
            if !keep {
                task.abort();
            }
            keep
        });
        shared.seen.send_modify(|seen| {
            seen.retain(|name, _| known.contains_key(name));
            for (name, edge) in &known {
                let away = || SeenEdge { away_since: Some(Instant::now()), ..SeenEdge::default() };
                let entry = seen.entry(name.clone()).or_insert_with(away);
                entry.address.clone_from(&edge.address);
                entry.pools.clone_from(&edge.pools);
            }
        });
        for name in known.into_keys() {
            running
                .entry(name.clone())
                .or_insert_with(|| tasks.spawn(session::keep(Arc::clone(&shared), name)));
        }
        tokio::select! {
            changed = edges.changed() => if changed.is_err() { return },
            Some(ended) = tasks.join_next() => match ended {
                Err(panic) if panic.is_panic() => {
                    error!("an edge's session ended by a mistake in this program: {panic}");
                    running.retain(|_, task| !task.is_finished());
                }
                Ok(()) | Err(_) => {}
            },
        }
    }
}
