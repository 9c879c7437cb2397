//! What another controller says of agents: as much as they do not say here themselves.

use super::Turn;
use super::agents::standing;
use super::records::AgentRecord;
use super::state::{Agent, AgentKey};
use crate::store::{Entry, Record, StoreError};

impl Turn<'_> {
    /// What another controller says of an agent. What an agent says here itself counts more; what operators want of it
    /// is only told this way.
    pub(super) fn agent_was_put(&mut self, key: AgentKey, entry: &Entry) -> Result<(), StoreError> {
        if self.state.leads() {
            return Ok(()); // it wrote that itself: of a large fleet by the thousands in a second
        }
        let record = AgentRecord::decode(entry)?;
        let env = record.env.clone();
        let served = |record: &AgentRecord| (record.pools.clone(), record.traffic_address.clone());
        let (mut wish, mut edges) = (None, matches!(key, AgentKey::Edge(_)));
        match self.state.agents.get_mut(&key) {
            Some(agent) if agent.session.is_some() => {
                wish = (agent.record.drained != record.drained).then_some(record.drained);
                agent.record.drained = record.drained;
                agent.record.labels_set = record.labels_set;
                edges = false;
            }
            Some(agent) => {
                edges &= served(&agent.record) != served(&record);
                // When it was heard here stays: after a restart it still has the time to come back.
                agent.online = !record.offline;
                agent.record = record;
            }
            None => {
                let (heard, online) = (self.at, !record.offline);
                let agent = Agent::unheard(record, heard, online);
                self.state.agents.insert(key.clone(), agent);
            }
        }
        if let Some(drained) = wish {
            self.batch.send(key.clone(), standing(drained));
        }
        if edges {
            self.tell_directory(&env);
        }
        match &key {
            AgentKey::Node(name) => self.observe(name, None),
            AgentKey::Edge(_) => self.edges_moved(),
        }
        Ok(())
    }

    pub(super) fn agent_was_removed(&mut self, key: Option<AgentKey>) {
        let Some(key) = key.filter(|_| !self.state.leads()) else { return };
        let Some(agent) = self.state.agents.remove(&key) else { return };
        if let Some(session) = agent.session {
            super::nodes::dismiss(&session);
        }
        match &key {
            AgentKey::Node(name) => {
                self.observe(name, None);
                self.tell_edges();
            }
            AgentKey::Edge(_) => {
                self.tell_directory(&agent.record.env);
                self.edges_moved();
            }
        }
    }
}
