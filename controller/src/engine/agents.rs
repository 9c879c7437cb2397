//! What agents say, and what it means for rollouts: who is here, what runs there, what was reported.

use rota_proto::agent::{Happening, Inventory, Report, Standing, Welcome, to_agent};
use rota_rollout::event::OnceResult;
use rota_rollout::names::{AppName, EnvName, NodeName, RolloutId};
use rota_rollout::{Event, What};

use super::cluster::Owner;
use super::records::{AgentRecord, EdgePoolRecord, keys};
use super::state::{Active, Agent, AgentKey, Session, ToSession};
use super::trace::TraceRecord;
use super::{Hello, Turn, message};
use crate::wire::{self, Said};

/// Agents send a heartbeat this often, in milliseconds: three of them make the 15 s in which silence is noticed.
pub const HEARTBEAT_MS: u64 = 5_000;

/// So long the return of one agent may take of a controller to which all others return as well: a quarter of what one
/// core can do. A small fleet is back at once, one of 10,000 agents within 30 s.
const HANDSHAKE_MS: u64 = 3;

/// What one event of an agent may say; a line of a log, not a log.
const HAPPENING_CHARS_MAX: usize = 400;

/// The version of the session protocol that this controller speaks. It understands that of the version before, and an
/// agent of the version after keeps to this one: controllers are upgraded first, but one may be stepped back.
const PROTOCOL: u32 = 1;

impl Turn<'_> {
    /// A session begins: who it is, what runs there, what it should do again.
    pub(super) fn hello(&mut self, hello: Hello) {
        let Hello { key, session, peer, hello, out, beat } = hello;
        if hello.protocol == 0 || hello.protocol.abs_diff(PROTOCOL) > 1 {
            let reason = format!(
                "this controller speaks protocol {PROTOCOL}, the agent {}: upgrade the older one",
                hello.protocol
            );
            refuse(&out, reason);
            return;
        }
        if let Err(error) = hello.env.parse::<EnvName>() {
            refuse(&out, error.to_string());
            return;
        }
        let old = self.state.agents.remove(&key);
        let was_away = old.as_ref().map(|agent| agent.was_away(self.started));
        let mut record = record(&hello, &peer, old.as_ref().map(|agent| &agent.record));
        record.last_seen = self.at;
        let durable = old.as_ref().is_some_and(|agent| same(&agent.record, &record));
        let edges_changed = old.as_ref().is_none_or(|agent| {
            agent.record.pools != record.pools
                || agent.record.traffic_address != record.traffic_address
        });
        let env = record.env.clone();
        let drained = record.drained;
        if !durable {
            self.keep_agent(&key, &record);
        }
        let agent = Agent {
            record,
            session: Some(Session { id: session, out, beat }),
            heard: self.at,
            online: true,
            pools: old.map(|agent| agent.pools).unwrap_or_default(),
            moving: wire::moving(&hello.inventory.unwrap_or_default()),
        };
        self.state.agents.insert(key.clone(), agent);
        self.batch.touched = true;
        self.welcome(&key, &env, drained);
        match was_away {
            None => self.event_of_agent(&key, "joined the fleet"),
            Some(true) => self.event_of_agent(&key, "is here again"),
            Some(false) => {}
        }
        match &key {
            AgentKey::Node(name) => {
                self.forget_removed(name);
                self.observe(name, None);
                self.resend(name);
            }
            AgentKey::Edge(name) => {
                if edges_changed {
                    self.tell_directory(&env);
                }
                self.ask_again(name);
                self.edges_moved();
            }
        }
    }

    fn welcome(&mut self, key: &AgentKey, env: &str, drained: bool) {
        let welcome = Welcome {
            controller: self.state.name.clone(),
            heartbeat_ms: HEARTBEAT_MS,
            directory: Some(self.state.directory_for(key, env)),
            standing: Some(Standing { drained }),
            now_ms: self.at.0,
            spread_ms: match key {
                AgentKey::Node(_) => self.state.agents.len() as u64 * HANDSHAKE_MS,
                AgentKey::Edge(_) => HANDSHAKE_MS, // few, and every rollout waits for them
            },
        };
        self.batch.send(key.clone(), message(to_agent::Message::Welcome(welcome)));
    }

    /// Keeps what an agent says of itself. Every controller hears it; the lead writes it down.
    pub(super) fn keep_agent(&mut self, key: &AgentKey, record: &AgentRecord) {
        if self.state.leads() {
            let written = self.batch.put(store_key(key), record);
            self.written(written);
        }
    }

    /// Tells every agent which controllers there are now.
    pub(super) fn tell_all(&mut self) {
        self.tell_directory_to(|_, _| true);
    }

    /// Tells everybody in an environment which edges there are now.
    pub(super) fn tell_directory(&mut self, env: &str) {
        self.tell_directory_to(|_, agent| agent.record.env == env);
    }

    /// Tells every edge who counts no more.
    pub(super) fn tell_edges(&mut self) {
        self.tell_directory_to(|key, _| matches!(key, AgentKey::Edge(_)));
    }

    fn tell_directory_to(&mut self, whom: impl Fn(&AgentKey, &Agent) -> bool) {
        let there = self.state.agents.iter().filter(|(key, agent)| whom(key, agent));
        for (key, agent) in there {
            let directory = self.state.directory_for(key, &agent.record.env);
            self.batch.send(key.clone(), message(to_agent::Message::Directory(directory)));
        }
    }

    /// Orders that were given to this node and not answered, once more.
    fn resend(&mut self, node: &NodeName) {
        let ids: Vec<RolloutId> = self.state.rollouts.keys().cloned().collect();
        for id in ids {
            let ours = |active: &&Active| active.owner == Owner::Us;
            let Some(active) = self.state.rollouts.get(&id).filter(ours) else { continue };
            let orders = rota_rollout::outstanding_of(&active.rollout, node);
            self.carry(&id, orders);
        }
    }

    /// A report: what it means for its rollout. Acknowledged once that is durable.
    pub(super) fn report(&mut self, key: &AgentKey, report: Report) {
        let seq = report.seq;
        if !self.may_acknowledge(&report.rollout) {
            return; // its owner does
        }
        let trace = wire::trace(&report);
        match wire::report(report) {
            Ok(said) => self.said(key, said, &trace),
            Err(error) => {
                tracing::warn!(?key, %error, "a report cannot be understood and is ignored");
            }
        }
        if seq > 0 {
            let ack = to_agent::Message::Ack(rota_proto::agent::Ack { seq });
            self.batch.send(key.clone(), message(ack));
        }
    }

    /// Of a rollout that another controller runs, or of which this one does not know yet, nothing is acknowledged.
    fn may_acknowledge(&self, id: &str) -> bool {
        let Some(id) = id.parse::<RolloutId>().ok().filter(|_| self.state.cluster.is_some()) else {
            return true;
        };
        let fleet = self.state.fleets.get(&(id.app.clone(), id.env.clone()));
        self.state.is_ours(&id)
            || fleet.is_some_and(|fleet| {
                id.revision <= fleet.revision && !fleet.open.contains(&id.revision)
            })
    }

    fn said(&mut self, key: &AgentKey, said: Said, trace: &TraceRecord) {
        let AgentKey::Node(node) = key else {
            tracing::warn!(?key, "an edge reports an update: ignored");
            return;
        };
        let node = node.clone();
        match said {
            Said::Report { id, attempt, report } => {
                let trace = self.has_printed(&id, &node, trace);
                self.trace(&id, &node, &trace);
                self.step(&id, What::Reported { node, attempt, report });
            }
            Said::Once { id, attempt, result } => {
                self.trace(&id, &node, trace);
                if result == OnceResult::Succeeded {
                    self.once_succeeded(&id);
                }
                self.step(&id, What::OnceEnded { node, attempt, result });
            }
            Said::Stale { id, newest_term } => self.outvoted(&id, newest_term),
        }
    }

    /// What runs on a node changed.
    pub(super) fn inventory(&mut self, key: &AgentKey, inventory: &Inventory) {
        let (apps, bad) = wire::apps(inventory);
        for problem in bad {
            tracing::warn!(?key, problem, "an entry of an inventory is ignored");
        }
        let Some(agent) = self.state.agents.get_mut(key) else { return };
        let Some(durable) = agent.says(apps, wire::moving(inventory)) else { return };
        if durable {
            let record = agent.record.clone();
            self.keep_agent(key, &record);
        }
        if let AgentKey::Node(name) = key {
            self.observe(name, None);
        }
    }

    /// Tells every rollout that has this node what is known of it now; `but` is the one that caused the change.
    pub(super) fn observe(&mut self, name: &NodeName, but: Option<&RolloutId>) {
        let ids: Vec<RolloutId> = self
            .state
            .rollouts
            .iter()
            .filter(|(id, active)| Some(*id) != but && active.rollout.nodes().contains_key(name))
            .filter(|(_, active)| active.owner == Owner::Us)
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            let observed = self.state.observed(name, &id.app, Some(&id));
            let runs = self.state.runs(name, &id.app);
            self.step(&id, What::Observed { node: name.clone(), observed, runs });
        }
    }

    /// Tells every rollout which edges of its pool are offline now, if that is news.
    pub(super) fn edges_moved(&mut self) {
        let state = &*self.state;
        let news: Vec<(RolloutId, Vec<NodeName>)> = state
            .rollouts
            .iter()
            .filter(|(_, active)| active.owner == Owner::Us)
            .filter_map(|(id, active)| {
                let pool = active.record.pool.as_deref()?;
                let offline = state.edges_missing(&id.env, pool, active.record.edges);
                (offline != active.rollout.head.edges_offline).then(|| (id.clone(), offline))
            })
            .collect();
        for (id, offline) in news {
            self.step(&id, What::EdgesOffline(offline));
        }
    }

    /// Something happened on a node that nobody ordered: into the event log.
    pub(super) fn happened(&mut self, key: &AgentKey, happening: &Happening) {
        let AgentKey::Node(name) = key else { return };
        let Ok(app) = happening.app.parse::<AppName>() else {
            return tracing::warn!(?key, "what happened to an app without a name is ignored");
        };
        let env = self.state.agents.get(key).map(|agent| agent.record.env.clone());
        let text: String = happening.text.chars().take(HAPPENING_CHARS_MAX).collect();
        self.event(super::carry::NewEvent {
            app: Some(app.to_string()),
            env,
            node: Some(name.to_string()),
            ..super::carry::NewEvent::new("node", format!("{app} {text}"))
        });
    }

    pub(super) fn event_of_agent(&mut self, key: &AgentKey, deed: &str) {
        let (kind, name) = match key {
            AgentKey::Node(name) => ("node", name),
            AgentKey::Edge(name) => ("edge", name),
        };
        let env = self.state.agents.get(key).map(|agent| agent.record.env.clone());
        let text = format!("{kind} {name} {deed}");
        if !self.state.leads() {
            return; // every controller sees it; one says it
        }
        let node = Some(name.to_string());
        self.event(super::carry::NewEvent { env, node, ..super::carry::NewEvent::new(kind, text) });
    }

    /// One event of a rollout: the core decides, the changes go into the batch, the orders behind it. One that is yet
    /// to be taken over hears of everything at once then ([`Turn::around`]), and of nothing alone before.
    pub(super) fn step(&mut self, id: &RolloutId, what: What) {
        if self.state.taken.iter().any(|(taken, _)| taken == id) {
            return;
        }
        let ours = |active: &&Active| active.owner == Owner::Us;
        let Some(active) = self.state.rollouts.get(id).filter(ours) else { return };
        let step = rota_rollout::step(&active.rollout, &Event { at: self.at, what });
        self.take_step(id, step);
    }
}

/// Where an agent's record is kept.
pub(super) fn store_key(key: &AgentKey) -> String {
    match key {
        AgentKey::Node(name) => format!("{}{name}", keys::NODES),
        AgentKey::Edge(name) => format!("{}{name}", keys::EDGES),
    }
}

/// Where controllers and edges are.
pub(super) fn directory(
    state: &super::State,
    key: &AgentKey,
    env: &str,
) -> rota_proto::agent::ToAgent {
    message(to_agent::Message::Directory(state.directory_for(key, env)))
}

/// What the operators want of a node.
pub(super) fn standing(drained: bool) -> rota_proto::agent::ToAgent {
    message(to_agent::Message::Standing(Standing { drained }))
}

fn refuse(out: &ToSession, reason: String) {
    tracing::warn!(reason, "an agent is refused");
    let goodbye = to_agent::Message::Goodbye(rota_proto::agent::Goodbye { reason });
    if out.try_send(Box::new(message(goodbye))).is_err() {
        tracing::debug!("the refused agent is gone already");
    }
}

/// Is there nothing new to remember?
fn same(old: &AgentRecord, new: &AgentRecord) -> bool {
    AgentRecord { last_seen: new.last_seen, ..old.clone() } == *new
}

/// The record of an agent that said Hello, with what operators set kept.
pub(super) fn record(
    hello: &rota_proto::agent::Hello,
    peer: &str,
    old: Option<&AgentRecord>,
) -> AgentRecord {
    let inventory = hello.inventory.clone().unwrap_or_default();
    let (apps, bad) = wire::apps(&inventory);
    for problem in bad {
        tracing::warn!(problem, "an entry of an inventory is ignored");
    }
    let address = if hello.address.is_empty() { peer.to_owned() } else { hello.address.clone() };
    let traffic_address = match hello.traffic_address.strip_prefix(':') {
        Some(port) => format!("{address}:{port}"),
        None => hello.traffic_address.clone(),
    };
    AgentRecord {
        env: hello.env.clone(),
        roles: hello.roles.clone(),
        labels: hello.labels.clone().into_iter().collect(),
        labels_set: old.map(|old| old.labels_set.clone()).unwrap_or_default(),
        address,
        traffic_address,
        pools: hello
            .edges
            .iter()
            .map(|pool| EdgePoolRecord {
                pool: pool.pool.clone(),
                driver: pool.driver.clone(),
                listen: pool.listen.clone(),
            })
            .collect(),
        version: hello.agent_version.clone(),
        drained: old.is_some_and(|old| old.drained),
        apps,
        last_seen: rota_rollout::names::Timestamp(0),
        offline: false,
    }
}
