//! Everything around a rollout, told to it at once: who takes one over must begin nothing by half of what he knows.

use rota_rollout::What;
use rota_rollout::event::Around;
use rota_rollout::names::{NodeName, RolloutId};

use super::Turn;
use super::admission::refusals::frozen;

impl Turn<'_> {
    /// Told in pieces, the first would start what the next forbids: the end of a freeze, for one, a node that another
    /// rollout is at. The store would refuse that, and it would be read and decided by the same piece again.
    pub(super) fn around(&mut self, id: &RolloutId) {
        self.look_at_the_calendar();
        let state = &*self.state;
        let Some(active) = state.rollouts.get(id) else { return };
        let known = |name: &NodeName| {
            (name.clone(), state.observed(name, &id.app, Some(id)), state.runs(name, &id.app))
        };
        let missing = |pool| state.edges_missing(&id.env, pool, active.record.edges);
        let before = || active.rollout.head.edges_offline.clone();
        let around = Around {
            frozen: frozen(state, &id.env),
            closed: state.closed(&id.env).cloned(),
            edges_offline: active.record.pool.as_deref().map_or_else(before, missing),
            nodes: active.rollout.nodes().keys().map(known).collect(),
        };
        self.step(id, What::Around(Box::new(around)));
    }
}
