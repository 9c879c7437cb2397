//! What the edges counted while rollouts ran.

use rota_proto::agent::{EdgeState, PoolState};
use rota_rollout::names::RolloutId;

use super::Turn;
use super::records::keys;
use super::state::AgentKey;

/// How much a counter rose; a smaller number means that the edge's proxy started anew.
fn rise(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}

impl Turn<'_> {
    /// An edge says how its pools stand: the difference goes to the rollouts that run there.
    pub(super) fn edge_state(&mut self, key: &AgentKey, edge: EdgeState) {
        let Some(agent) = self.state.agents.get_mut(key) else { return };
        let env = agent.record.env.clone();
        let before = std::mem::replace(&mut agent.pools, edge.pools.clone());
        self.batch.touched = true;
        for pool in &edge.pools {
            let old = before.iter().find(|old| old.pool == pool.pool);
            let Some(old) = old else { continue }; // the first word of a session: nothing to compare with
            self.count(&env, old, pool);
        }
    }

    fn count(&mut self, env: &str, old: &PoolState, new: &PoolState) {
        let (requests, failed) = (rise(old.requests, new.requests), rise(old.failed, new.failed));
        if requests == 0 && failed == 0 {
            return;
        }
        let served = |id: &RolloutId, pool: &Option<String>| {
            id.env.as_str() == env && pool.as_deref() == Some(new.pool.as_str())
        };
        let mut written = Vec::new();
        for (id, active) in &mut self.state.rollouts {
            if served(id, &active.record.pool) && !active.rollout.is_ended() {
                active.evidence.requests += requests;
                active.evidence.failed += failed;
                let key = format!("{}evidence", keys::rollout(id));
                written.push(self.batch.put(key, &active.evidence));
            }
        }
        for result in written {
            self.written(result);
        }
    }
}
