//! What the engine knows: a cache of the store, and who is here right now.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rota_proto::agent::{Banned, Directory, Edge, PoolState, ToAgent};
use rota_rollout::Rollout;
use rota_rollout::names::{
    AppName, EnvName, NodeName, Release, Revision, RolloutId, Timestamp, Version,
};
use rota_rollout::node::{Observed, Serving};
use tokio::sync::mpsc;

use super::carry::Known;
use super::cluster::{Cluster, Owner};
use super::evidence::LastWords;
use super::live::Lives;
use super::number;
use super::pace::Clock;
use super::records::{
    AgentRecord, EnvRecord, EvidenceRecord, FleetRecord, ReleaseRecord, SpecRecord,
};
use super::unsure::serving;
use super::windows::Today;
use crate::manifest::Needed;
use crate::view::EventView;

/// A node that was not heard of for so long is offline: three heartbeats.
pub const OFFLINE_AFTER_MS: u64 = 15_000;

/// After a controller started, nodes have so long to come back before they count as offline: agents spread their
/// reconnects, so that ten thousand do not come at once.
pub const RETURN_GRACE_MS: u64 = 45_000;

/// Events that are older than this are the same for ever.
const EVENTS_SURE_MS: u64 = 60_000;

/// Events kept in memory for followers; older ones are read from the store.
pub const EVENTS_IN_MEMORY: usize = 2_000;

/// Which agent: nodes and edges have names of their own. Edges come last; [`State::edges`] relies on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum AgentKey {
    /// A node's.
    Node(NodeName),
    /// An edge's.
    Edge(NodeName),
}

/// One agent.
#[derive(Debug)]
pub struct Agent {
    /// What is durable.
    pub record: AgentRecord,
    /// Its session with this controller.
    pub session: Option<Session>,
    /// When it last said more than a heartbeat.
    pub heard: Timestamp,
    /// Does it count as online?
    pub online: bool,
    /// Edges: the newest state of each pool.
    pub pools: Vec<PoolState>,
    /// Nodes: apps of which it says in its session that an update is under way.
    pub moving: Vec<AppName>,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// Names this session, and no other.
    pub id: u64,
    /// To the agent. Full means that the agent does not read: it counts as lost.
    pub out: ToSession,
    /// When its last heartbeat came.
    pub beat: Heartbeat,
}

/// The way to one agent. Boxed, because a queue holds room for 32 messages at a time, and an order is large: it would
/// be 20 KiB of each of ten thousand agents, and three times that after a rollout.
pub type ToSession = mpsc::Sender<Box<ToAgent>>;

/// When an agent's last heartbeat came. Its session writes it down by itself: thousands come in a second, and nobody
/// but the look for silent agents wants to know.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat(Arc<AtomicU64>);

impl Heartbeat {
    /// One came.
    pub fn came(&self, at: Timestamp) {
        self.0.fetch_max(at.0, Ordering::Relaxed);
    }

    fn last(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }

    /// Until when whoever beats was awake, at most until now. One that never beat says nothing.
    pub(super) fn awake_until(&self, now: Timestamp) -> Timestamp {
        match self.last() {
            Timestamp(0) => now,
            last => last.min(now),
        }
    }
}

impl Agent {
    /// When it was last heard.
    pub fn heard(&self) -> Timestamp {
        self.session.as_ref().map_or(self.heard, |session| self.heard.max(session.beat.last()))
    }

    /// Is it news of this agent that a session begins? That this controller was away itself is none.
    pub fn was_away(&self, started: Timestamp) -> bool {
        !self.online || (self.session.is_none() && self.heard > started)
    }

    /// Ends its session. From its last word on it has the time to come back that everybody has.
    pub fn hang_up(&mut self) {
        self.heard = self.heard();
        self.session = None;
    }
}

/// A rollout that runs.
#[derive(Debug)]
pub struct Active {
    /// The core's state.
    pub rollout: Rollout,
    /// What was asked.
    pub record: SpecRecord,
    /// What was measured.
    pub evidence: EvidenceRecord,
    /// Who runs it.
    pub owner: Owner,
    /// Its owner's term.
    pub term: u64,
    /// With the embedded store: the store's revision of our claim, the fence of every commit.
    pub fence: u64,
    /// When it wants to be woken.
    pub wakes: BTreeSet<Timestamp>,
    /// Since when nodes fetch the release ahead of their updates.
    pub fetching_since: BTreeMap<NodeName, Timestamp>,
    /// How long its nodes take.
    pub clock: Clock,
    /// It is over, and its edges were asked what they have counted.
    pub last_words: Option<LastWords>,
    /// Releases as nodes are told of them.
    pub known: BTreeMap<Version, Known>,
}

/// Everything.
#[derive(Debug, Default)]
pub struct State {
    /// This controller.
    pub name: String,
    /// Where agents reach it.
    pub advertise: String,
    /// Nodes and edges.
    pub agents: BTreeMap<AgentKey, Agent>,
    /// The rollouts that run.
    pub rollouts: BTreeMap<RolloutId, Active>,
    /// Every app in every environment.
    pub fleets: BTreeMap<(AppName, EnvName), FleetRecord>,
    /// Numbers up to this one were given by a state that is lost: this one was put back from an older backup.
    pub lost: u64,
    /// Environments of which something is remembered.
    pub envs: BTreeMap<EnvName, EnvRecord>,
    /// Of these, the ones that have windows: how they stand.
    pub calendar: BTreeMap<EnvName, Today>,
    /// All releases.
    pub releases: BTreeMap<(AppName, Version), ReleaseRecord>,
    /// The newest events.
    pub events: VecDeque<EventView>,
    /// The number of the next event.
    pub next_event: u64,
    /// What commands print while they run.
    pub live: Lives,
    /// Counts the engine's turns. Readers may see one that is not durable yet.
    pub turn: u64,
    /// Why the store does not answer.
    pub store_down: Option<String>,
    /// This controller takes no new rollouts.
    pub draining: bool,
    /// And what it runs goes to others, as soon as one can take it.
    pub hands_over: bool,
    /// When it was last said how many agents are heard here.
    pub hears_told: Timestamp,
    /// The heartbeat of what hears agents here: where that is late itself, nobody was silent.
    pub ears: Heartbeat,
    /// Before this moment nobody can have been silent for too long.
    pub silence_due: Timestamp,
    /// What agents said of themselves that was not written down.
    pub unsaved: Vec<AgentKey>,
    /// Agents that an operator drained, or no longer drains, and that were not told: it was read with everything else.
    pub wished: Vec<AgentKey>,
    /// Nodes whose session was ended here, of which rollouts were not told yet.
    pub hung_up: Vec<NodeName>,
    /// Since when this controller hears few of the agents that others hear.
    pub deaf_since: Option<Timestamp>,
    /// Rollouts that were just claimed.
    pub taken: Vec<(RolloutId, String)>,
    /// The other controllers; `None` with the embedded store, where there are none.
    pub cluster: Option<Cluster>,
    /// When nodes that run something else than they should were looked for last.
    pub strays_seen: Timestamp,
    /// The certificates of nodes that were revoked: serial and node.
    pub banned: Vec<(String, NodeName)>,
    /// Nodes that were removed, as they were last. Shown while a certificate of theirs is revoked.
    pub removed: BTreeMap<NodeName, AgentRecord>,
}

impl State {
    /// The same controller, with everything still to be read.
    pub fn anew(&self) -> Self {
        let cluster = self.cluster.as_ref().map(|_| Cluster::default());
        let (name, next_event) = (self.name.clone(), self.next_event);
        // Of the newest some may not have become durable, and others not have been seen yet.
        let old = |event: &&EventView| event.seq < number::floor(self.next_event, EVENTS_SURE_MS);
        let events = self.events.iter().filter(old).cloned().collect();
        Self { name, next_event, cluster, events, ..Self::default() }
    }

    /// A node's agent.
    pub fn node(&self, name: &NodeName) -> Option<&Agent> {
        self.agents.get(&AgentKey::Node(name.clone()))
    }

    /// Nodes that were removed and could still show a certificate; they count nowhere.
    pub fn revoked(&self) -> impl Iterator<Item = (&NodeName, &AgentRecord)> {
        let shown = |name: &NodeName| {
            self.node(name).is_none() && self.banned.iter().any(|(_, banned)| banned == name)
        };
        self.removed.iter().filter(move |(name, _)| shown(name))
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeName, &Agent)> {
        self.agents.iter().filter_map(|(key, agent)| match key {
            AgentKey::Node(name) => Some((name, agent)),
            AgentKey::Edge(_) => None,
        })
    }

    /// All edges. They stand behind all nodes, and every order asks for them: so the nodes are not walked through.
    pub fn edges(&self) -> impl Iterator<Item = (&NodeName, &Agent)> {
        let backwards = self.agents.iter().rev().map_while(|(key, agent)| match key {
            AgentKey::Edge(name) => Some((name, agent)),
            AgentKey::Node(_) => None,
        });
        let mut edges: Vec<_> = backwards.collect();
        edges.reverse();
        edges.into_iter()
    }

    /// The release that is current for an app in an environment.
    pub fn current(&self, app: &AppName, env: &EnvName) -> Option<&Release> {
        let fleet = self.fleets.get(&(app.clone(), env.clone()))?;
        fleet.currents.last().map(|current| &current.release)
    }

    /// The rollouts of an app in an environment that have not ended, oldest first: the newest, and those that give way
    /// to it and finish what is under way.
    pub fn open<'a>(
        &'a self,
        app: &'a AppName,
        env: &'a EnvName,
    ) -> impl DoubleEndedIterator<Item = &'a Active> {
        let id = |revision| RolloutId { app: app.clone(), env: env.clone(), revision };
        let all = self.rollouts.range(id(Revision(0))..=id(Revision(u64::MAX)));
        all.map(|(_, active)| active).filter(|active| !active.rollout.is_ended())
    }

    /// The rollout of an app that runs in an environment.
    pub fn running<'a>(&'a self, app: &'a AppName, env: &'a EnvName) -> Option<&'a Active> {
        self.open(app, env).next_back()
    }

    /// What a rollout of `app` (with this id, if it has one yet) may know of a node. Who is on his way out for another
    /// rollout of the app is out, whatever was seen last: both share one capacity.
    pub fn observed(&self, name: &NodeName, app: &AppName, own: Option<&RolloutId>) -> Observed {
        let Some(agent) = self.node(name) else {
            return Observed {
                online: false,
                serving: Serving::Absent,
                busy: false,
                drained: false,
                unsure: false,
            };
        };
        Observed {
            online: agent.online,
            serving: match serving(&agent.record, app) {
                // It is on its way out, whatever was seen last: nothing else may be taken out for it.
                Serving::In if agent.record.drained || self.leaves_for_another(name, app, own) => {
                    Serving::Out
                }
                serving => serving,
            },
            busy: self.is_busy(name, own),
            drained: agent.record.drained,
            unsure: self.is_unsure(name, agent, app, own),
        }
    }

    /// Is a rollout of this app other than this one taking the node out of traffic?
    fn leaves_for_another(&self, name: &NodeName, app: &AppName, own: Option<&RolloutId>) -> bool {
        self.rollouts.iter().any(|(id, active)| {
            Some(id) != own
                && id.app == *app
                && active.rollout.nodes().get(name).is_some_and(|node| node.phase.takes_out())
        })
    }

    /// Is a rollout other than this one updating the node?
    fn is_busy(&self, name: &NodeName, own: Option<&RolloutId>) -> bool {
        let here = self.rollouts.iter().any(|(id, active)| {
            Some(id) != own
                && active.rollout.nodes().get(name).is_some_and(|node| node.phase.is_running())
        });
        let busy = self.cluster.as_ref().and_then(|cluster| cluster.busy.get(name));
        here || busy.is_some_and(|id| Some(id) != own)
    }

    /// The release of an app that a node runs.
    pub fn runs(&self, name: &NodeName, app: &AppName) -> Option<Release> {
        let record = &self.node(name)?.record;
        record.apps.iter().find(|entry| entry.app == *app)?.release.clone()
    }

    /// The edges of an environment and the controllers, for agents.
    pub fn directory(&self, env: &str) -> Directory {
        let edges =
            self.edges().filter(|(_, edge)| edge.record.env == env).flat_map(|(name, edge)| {
                edge.record.pools.iter().map(move |pool| Edge {
                    name: name.to_string(),
                    pool: pool.pool.clone(),
                    address: edge.record.traffic_address.clone(),
                })
            });
        Directory { controllers: self.controllers(), edges: edges.collect(), banned: Vec::new() }
    }

    /// The same for one agent. Edges hear too whom they must not listen to any more.
    pub fn directory_for(&self, key: &AgentKey, env: &str) -> Directory {
        let banned = match key {
            AgentKey::Node(_) => Vec::new(),
            AgentKey::Edge(_) => {
                let banned = |(serial, node): &(String, NodeName)| Banned {
                    serial: serial.clone(),
                    node: node.to_string(),
                    gone: self.node(node).is_none(),
                };
                self.banned.iter().map(banned).collect()
            }
        };
        Directory { banned, ..self.directory(env) }
    }

    /// The edges of one pool that do not answer now.
    pub fn edges_offline(&self, env: &EnvName, pool: &str) -> Vec<NodeName> {
        let there = self.edges().filter(|(_, edge)| {
            let serves = edge.record.pools.iter().any(|it| it.pool == pool);
            edge.record.env == env.as_str() && serves && !edge.online
        });
        there.map(|(name, _)| name.clone()).collect()
    }

    /// The edges of one pool that cannot be asked now, be it for a moment: they are not connected, or their load
    /// balancer does not answer them.
    pub fn edges_away(&self, env: &EnvName, pool: &str) -> Vec<NodeName> {
        let there = self.edges().filter(|(_, edge)| {
            let serves = edge.record.pools.iter().any(|it| it.pool == pool);
            let silent = edge.pools.iter().any(|it| it.pool == pool && it.silent);
            edge.record.env == env.as_str() && serves && (edge.session.is_none() || silent)
        });
        there.map(|(name, _)| name.clone()).collect()
    }

    /// The edges of one pool without which nothing can be proven now: those away, unless the others are enough.
    pub fn edges_missing(&self, env: &EnvName, pool: &str, needed: Needed) -> Vec<NodeName> {
        let away = self.edges_away(env, pool);
        let serving = self.edges_of(env, pool).len();
        match needed {
            Needed::Reachable if away.len() < serving => Vec::new(),
            Needed::Reachable | Needed::All => away,
        }
    }

    /// The edges of one pool.
    pub fn edges_of(&self, env: &EnvName, pool: &str) -> Vec<Edge> {
        let mut edges = self.directory(env.as_str()).edges;
        edges.retain(|edge| edge.pool == pool);
        edges
    }
}
