//! What operators want of nodes: out of traffic and back, other labels, gone. Within what each app's strategy promises.

use std::collections::BTreeMap;

use rota_proto::agent::{Goodbye, to_agent};
use rota_rollout::gate::list;
use rota_rollout::names::{AppName, EnvName, NodeName};
use rota_rollout::node::Serving;
use rota_rollout::strategy::Strategy;

use super::agents::{standing, store_key};
use super::batch::Answer;
use super::carry::NewEvent;
use super::cluster::keys as guards;
use super::state::{AgentKey, Session};
use super::verbs::applied;
use super::{State, Turn, message};
use crate::errors::Sort;
use crate::view::ErrorView;

/// Why an operator drains a node, and whether he insists.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// Why; may be empty.
    pub why: String,
    /// Although an app would have less than its strategy promises.
    pub force: bool,
}

impl State {
    /// Why a node cannot be taken out of traffic now: each app that would have less than its current release promises,
    /// and before these that it is not known what serves.
    pub fn against_draining(&self, name: &NodeName) -> Vec<String> {
        let Some(agent) = self.node(name) else { return Vec::new() };
        let Ok(env) = agent.record.env.parse::<EnvName>() else { return Vec::new() };
        let apps = agent.record.apps.iter().map(|entry| &entry.app);
        let too_few = apps.filter_map(|app| self.too_few(name, app, &env));
        self.deaf_lead().into_iter().chain(too_few).collect()
    }

    /// Whom the lead does not hear it takes for out, so a drain would cost nothing; and the one that hears more does
    /// not lead while it is drained.
    fn deaf_lead(&self) -> Option<String> {
        let cluster = self.cluster.as_ref()?;
        let (lead, _) = cluster.lead.as_ref()?;
        let here = match *lead == self.name {
            true => self.agents.values().filter(|agent| agent.session.is_some()).count(),
            false => cluster.members.get(lead)?.hears?,
        };
        let others = cluster.members.iter().filter(|(name, _)| *name != lead);
        let hears = others.filter_map(|(name, member)| Some((name, member.hears?)));
        let (other, there) = hears.max_by_key(|(_, hears)| *hears)?;
        (there > here * 2).then(|| {
            format!(
                "controller {lead}, which leads, hears {here} of the agents and controller {other} \
                 {there} (`rota controller undrain {other}`, if it is drained, lets that one lead)"
            )
        })
    }

    fn too_few(&self, name: &NodeName, app: &AppName, env: &EnvName) -> Option<String> {
        let serves = |name: &NodeName| {
            let observed = self.observed(name, app, None);
            observed.online && observed.serving == Serving::In && !self.leaves(name, app, env)
        };
        if !serves(name) {
            return None; // it is out already: to drain it costs nothing
        }
        let has = |name: &NodeName| self.observed(name, app, None).serving != Serving::Absent;
        let here = self.nodes().filter(|(_, agent)| agent.record.env == env.as_str());
        let all: Vec<&NodeName> = here.map(|(node, _)| node).filter(|node| has(node)).collect();
        let goes_on = |node: &NodeName| node != name && self.goes_on(node, app, env);
        let out = all.iter().filter(|node| !serves(node) || goes_on(node));
        let out: Vec<NodeName> = out.map(|node| (*node).clone()).collect();
        // A fleet of one is as much as its strategy lets be out, as a rollout of it shows each time.
        if !out.is_empty() && out.len() + 1 == all.len() {
            let out = self.why(&out);
            return Some(format!("{app}: it is the last one that serves ({out} out)"));
        }
        let limit = self.promise(app, env)?.widest_limit(all.len());
        (out.len() >= limit).then(|| {
            let many = if out.len() == 1 { "is" } else { "are" };
            format!(
                "{app}: {} of {} nodes {many} out of traffic already ({}) and its strategy \
                 allows {limit}",
                out.len(),
                all.len(),
                self.why(&out)
            )
        })
    }

    /// Is the running rollout of the app about to take it out of traffic?
    fn leaves(&self, name: &NodeName, app: &AppName, env: &EnvName) -> bool {
        let mut nodes = self.open(app, env).filter_map(|active| active.rollout.nodes().get(name));
        nodes.any(|node| node.is_out() && node.phase.is_running())
    }

    /// Does it go on with an update that nobody waits for? It may be on its way out, or is not heard and may be.
    fn goes_on(&self, name: &NodeName, app: &AppName, env: &EnvName) -> bool {
        let nodes = self.open(app, env).filter_map(|active| active.rollout.nodes().get(name));
        let moving = self.node(name).is_some_and(|agent| agent.moving.contains(app));
        let (awaited, out) = nodes.fold((false, false), |(awaited, out), node| {
            (awaited || node.phase.is_running(), out || (node.observed.unsure && node.is_out()))
        });
        out || (moving && !awaited)
    }

    /// Names, and why each is out.
    fn why(&self, out: &[NodeName]) -> String {
        let [one] = out else { return list(out) };
        let why = match self.node(one) {
            Some(agent) if !agent.online => " is offline",
            Some(agent) if agent.record.drained => " is drained",
            Some(agent) if !agent.moving.is_empty() => " is being updated",
            Some(_) | None => "",
        };
        format!("{one}{why}")
    }

    /// What the current release of an app says of its capacity; what runs where nothing is current says nothing.
    fn promise(&self, app: &AppName, env: &EnvName) -> Option<Strategy> {
        let resolved = self.current_manifest(app, env)?;
        Some(resolved.strategy)
    }
}

impl Turn<'_> {
    /// Takes a node out of traffic. Decided here, in one turn with what rollouts start: both count each other.
    pub(super) fn drain_node(&mut self, name: &NodeName, asked: &Drain, who: &str) -> Answer {
        let Some(agent) = self.state.node(name) else { return Err(no_node(self.state, name)) };
        if agent.record.drained {
            return applied(format!("node {name} is drained already"));
        }
        let against = self.state.against_draining(name);
        if !asked.force && !against.is_empty() {
            return Err(Sort::Refused.error(
                format!("node {name} cannot be drained now: {}", against.join("; ")),
                format!(
                    "`rota node drain {name} --wait` waits until it may; \
                     `--force -m WHY` does it all the same"
                ),
            ));
        }
        let forced = if against.is_empty() { "" } else { " by force" };
        let why = if asked.why.is_empty() { String::new() } else { format!(": {}", asked.why) };
        self.wish(name, true, &format!("node {name} drained{forced} by {who}{why}"));
        applied(format!(
            "node {name} leaves traffic and stays out until `rota node undrain {name}`"
        ))
    }

    pub(super) fn undrain_node(&mut self, name: &NodeName, who: &str) -> Answer {
        let Some(agent) = self.state.node(name) else { return Err(no_node(self.state, name)) };
        if !agent.record.drained {
            return applied(format!("node {name} is undrained already"));
        }
        self.wish(name, false, &format!("node {name} undrained by {who}"));
        applied(format!("node {name} returns to traffic"))
    }

    fn wish(&mut self, name: &NodeName, drained: bool, text: &str) {
        let key = AgentKey::Node(name.clone());
        let Some(agent) = self.state.agents.get_mut(&key) else { return };
        agent.record.drained = drained;
        let (env, apps) = (agent.record.env.clone(), agent.record.apps.clone());
        let written = self.batch.put(store_key(&key), &agent.record);
        self.written(written);
        if drained && let Ok(env) = env.parse() {
            self.guard(&env);
            apps.iter().for_each(|entry| self.rely_on(&guards::out(&entry.app, &env)));
        }
        let env = Some(env);
        self.batch.send(key, standing(drained));
        let node = Some(name.to_string());
        self.event(NewEvent { env, node, ..NewEvent::new("node", text.to_owned()) });
        self.observe(name, None);
    }

    /// Other labels. Rollouts that run keep the targets that they have, and may get more.
    pub(super) fn label_node(
        &mut self,
        name: &NodeName,
        labels: BTreeMap<String, String>,
    ) -> Answer {
        let key = AgentKey::Node(name.clone());
        let Some(agent) = self.state.agents.get_mut(&key) else {
            return Err(no_node(self.state, name));
        };
        let before = agent.record.all_labels();
        agent.record.labels_set.extend(labels);
        let all = agent.record.all_labels();
        let already = if all == before { " already" } else { "" };
        let written = self.batch.put(store_key(&key), &agent.record);
        self.written(written);
        let all: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        applied(format!("node {name} has the labels {}{already}", all.join(" ")))
    }

    /// May a node be removed without a fleet that notices? Asked before its certificate is revoked.
    pub(super) fn may_remove(&self, key: &AgentKey) -> Answer {
        let AgentKey::Node(name) = key else { return applied(String::new()) };
        let Some(agent) = self.state.node(name) else { return Err(no_node(self.state, name)) };
        let force = format!("`rota node rm {name} --force` does it all the same");
        for (id, active) in &self.state.rollouts {
            let node = active.rollout.nodes().get(name);
            if node.is_some_and(|node| node.phase.is_running()) {
                return Err(Sort::Refused.error(
                    format!("node {name} is being updated by rollout {id}"),
                    format!("wait for it: `rota rollout status {id} -w`; {force}"),
                ));
            }
        }
        let against = self.state.against_draining(name);
        // Where few are heard, one that seems to be offline may serve.
        if (agent.online || self.state.deaf_lead().is_some()) && !against.is_empty() {
            return Err(Sort::Refused.error(
                format!("node {name} cannot be removed now: {}", against.join("; ")),
                format!("`rota node drain {name} --wait` first; {force}"),
            ));
        }
        applied(String::new())
    }

    pub(super) fn forget_agent(&mut self, key: &AgentKey) -> Answer {
        let Some(agent) = self.state.agents.remove(key) else {
            let (AgentKey::Node(name) | AgentKey::Edge(name)) = key;
            return Err(no_node(self.state, name));
        };
        if let Some(session) = &agent.session {
            dismiss(session);
        }
        self.batch.delete(store_key(key));
        match key {
            AgentKey::Node(name) => {
                self.remember_removed(name, agent.record);
                self.observe(name, None);
                self.tell_edges();
                applied(format!("node {name} is removed and its certificates are revoked"))
            }
            AgentKey::Edge(name) => {
                self.tell_directory(&agent.record.env);
                self.edges_moved();
                applied(format!("edge {name} is removed and its certificates are revoked"))
            }
        }
    }
}

/// Ends the session of an agent that was removed.
pub(super) fn dismiss(session: &Session) {
    let goodbye = Goodbye { reason: "this agent was removed and revoked".to_owned() };
    let goodbye = message(to_agent::Message::Goodbye(goodbye));
    if session.out.try_send(Box::new(goodbye)).is_err() {
        tracing::debug!("the removed agent is gone already");
    }
}

fn no_node(state: &State, name: &NodeName) -> ErrorView {
    if state.agents.contains_key(&AgentKey::Edge(name.clone())) {
        let message = format!("{name} is an edge: it serves no app that could leave traffic");
        return Sort::Refused
            .error(message, "`rota edge ls` shows the edges; `rota node ls` nodes");
    }
    Sort::NotFound.error(format!("there is no node {name}"), "`rota node ls` lists them")
}

#[cfg(test)]
mod tests;
