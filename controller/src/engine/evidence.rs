//! What the edges counted while rollouts ran, and the last word about a rollout that is over.
//!
//! Edges count since their proxies started; a rollout remembers what each had counted when it began, and takes the
//! difference. When it ends, the edges are asked to count once more: until they have, or for [`LAST_WORD_MAX`], the
//! rollout still shows as it was before its end. Then its evidence is closed: stored, told, and the same for ever.

use std::collections::BTreeSet;

use rota_proto::agent::{Count, EdgeState, PoolState, to_agent};
use rota_rollout::names::{NodeName, RolloutId, Span, Timestamp};

use super::State;
use super::cluster::Owner;
use super::records::{Counted, EvidenceRecord, keys};
use super::state::{Active, AgentKey};
use super::{Turn, message};
use crate::api::rollouts::{closed, summed_up};
use crate::view::evidence_line;

/// So long the end of a rollout waits for its edges' last word. They answer within milliseconds, on a busy host within
/// some hundreds, and are back within seconds after a controller restarted; one that does not answer is an older
/// version, or about to be found offline, and the evidence says that it was not heard.
const LAST_WORD_MAX: Span = Span::seconds(5);

/// How much a counter rose; a smaller number means that the edge's proxy started anew.
fn rise(before: u64, now: u64) -> u64 {
    if now >= before { now - before } else { now }
}

impl EvidenceRecord {
    /// Takes in what an edge has counted by now. The first word of an edge is where its counting begins.
    fn count(&mut self, edge: &NodeName, pool: &PoolState) -> bool {
        let now = Counted { requests: pool.requests, failed: pool.failed };
        let before = self.counted.insert(edge.clone(), now);
        if let Some(before) = before {
            self.requests += rise(before.requests, now.requests);
            self.failed += rise(before.failed, now.failed);
        }
        before != Some(now)
    }
}

impl Turn<'_> {
    /// An edge says how its pools stand: what it counted goes to the rollouts that run there.
    pub(super) fn edge_state(&mut self, key: &AgentKey, edge: EdgeState) {
        let AgentKey::Edge(name) = key else { return };
        let Some(agent) = self.state.agents.get_mut(key) else { return };
        let env = agent.record.env.clone();
        agent.pools.clone_from(&edge.pools);
        self.batch.touched = true;
        let mut written = Vec::new();
        let mut complete = Vec::new();
        for (id, active) in &mut self.state.rollouts {
            if active.owner != Owner::Us {
                continue;
            }
            let served = |pool: &&PoolState| Some(&pool.pool) == active.record.pool.as_ref();
            let Some(pool) = edge.pools.iter().find(served).filter(|_| id.env.as_str() == env)
            else {
                continue;
            };
            if active.evidence.count(name, pool) {
                let key = format!("{}evidence", keys::rollout(id));
                written.push(self.batch.put(key, &active.evidence));
            }
            if let Some(awaited) = &mut active.last_words
                && edge.counted >= awaited.number
                && awaited.edges.remove(name)
                && awaited.edges.is_empty()
            {
                complete.push(id.clone());
            }
        }
        for result in written {
            self.written(result);
        }
        for id in complete {
            self.close_evidence(&id);
        }
        self.edges_moved();
    }

    /// The edges of a rollout's pool are asked what they have counted by now: those that are not known to be away. One
    /// that is not connected yet, after a restart of this controller, is asked when it is ([`Turn::ask_again`]).
    pub(super) fn ask_to_count(&mut self, id: &RolloutId) -> BTreeSet<NodeName> {
        let Some(active) = self.state.rollouts.get(id) else { return BTreeSet::new() };
        let edges = self.state.counting(active);
        for edge in &edges {
            self.ask_edge(edge, self.at.0);
        }
        edges
    }

    fn ask_edge(&mut self, edge: &NodeName, number: u64) {
        let count = to_agent::Message::Count(Count { number });
        self.batch.send(AgentKey::Edge(edge.clone()), message(count));
    }

    /// A rollout has just ended: its edges say their last word.
    pub(super) fn ask_last_words(&mut self, id: &RolloutId) {
        let (number, until) = (self.at.0, self.at.after(LAST_WORD_MAX));
        let edges = self.ask_to_count(id);
        let Some(active) = self.state.rollouts.get_mut(id) else { return };
        let nobody = edges.is_empty();
        active.wakes.insert(until);
        active.last_words = Some(LastWords { number, edges, until });
        if nobody {
            self.close_evidence(id);
        }
    }

    /// An edge has a new session: what it was asked in an older one, or would have been, it is asked now.
    pub(super) fn ask_again(&mut self, edge: &NodeName) {
        let awaited = self.state.rollouts.values().filter_map(|active| active.last_words.as_ref());
        let asked = awaited.filter(|it| it.edges.contains(edge)).map(|it| it.number);
        if let Some(newest) = asked.max() {
            self.ask_edge(edge, newest);
        }
    }

    /// Nobody waits for ever for an edge that says nothing.
    pub(super) fn close_overdue(&mut self) {
        let at = self.at;
        let over = |it: &LastWords| it.until <= at || it.edges.is_empty();
        let late = |active: &Active| {
            active.owner == Owner::Us && active.last_words.as_ref().is_some_and(over)
        };
        let rollouts = self.state.rollouts.iter().filter(|(_, active)| late(active));
        let ids: Vec<RolloutId> = rollouts.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.close_evidence(&id);
        }
    }

    /// The last word: stored, and told in the line that everybody will read.
    fn close_evidence(&mut self, id: &RolloutId) {
        let next = self.state.next_seq(self.at);
        let Some(active) = self.state.rollouts.get_mut(id) else { return };
        let unheard = active.last_words.take().map(|awaited| awaited.edges);
        active.evidence.unheard = unheard.unwrap_or_default();
        active.evidence.counted.clear();
        active.evidence.last_event = next;
        let written = self.batch.put(format!("{}evidence", keys::rollout(id)), &active.evidence);
        let view = closed(&self.state.name, active);
        let line = evidence_line(&view, self.at);
        let kept = self.batch.put(keys::summary(id), &summed_up(view));
        self.written(written);
        self.written(kept);
        if let Some(fleet) = self.state.fleets.get_mut(&(id.app.clone(), id.env.clone())) {
            fleet.open.remove(&id.revision);
            self.keep_fleet(&id.app, &id.env);
        }
        self.event_of(id, None, line);
    }
}

impl State {
    /// The edges that count what a rollout's pool serves, and are not known to be away.
    fn counting(&self, active: &Active) -> BTreeSet<NodeName> {
        let (env, pool) = (&active.rollout.spec.id.env, active.record.pool.as_deref());
        let here = self.edges().filter(|(_, edge)| {
            let serves = edge.record.pools.iter().any(|it| Some(it.pool.as_str()) == pool);
            edge.record.env == env.as_str() && serves && edge.online
        });
        here.map(|(name, _)| name.clone()).collect()
    }
}

impl Active {
    /// Its end may be stored and its evidence not closed, because the controller that saw it end is gone: then its
    /// edges are asked when they are back.
    pub(super) fn awaits_last_words(&mut self, state: &State, at: Timestamp) {
        let (edges, until) = (state.counting(self), at.after(LAST_WORD_MAX));
        let words = LastWords { number: at.0, edges, until };
        self.last_words = self.rollout.is_ended().then_some(words);
    }
}

/// The edges whose last word a rollout that is over waits for.
#[derive(Debug)]
pub struct LastWords {
    /// The number of the question.
    pub number: u64,
    /// Who has not answered.
    pub edges: BTreeSet<NodeName>,
    /// Then nobody waits any more.
    pub until: Timestamp,
}
