//! What one turn of the engine comes to: changes that become durable together, and what may be said only afterwards.

use std::collections::{BTreeMap, BTreeSet};

use rota_proto::agent::ToAgent;
use rota_rollout::names::RolloutId;
use serde_json::Value;
use tokio::sync::oneshot;

use super::cluster::is_tracked;
use super::meter::Measure;
use super::state::AgentKey;
use crate::store::{Compare, LeaseId, Op, Record, StoreError, Txn};
use crate::view::{ErrorView, EventView};

/// The answer to an operator.
pub type Answer = Result<Value, ErrorView>;

/// One turn.
#[derive(Default)]
pub struct Batch {
    compares: BTreeMap<String, Compare>,
    ops: BTreeMap<String, Op>,
    /// What agents hear once it is durable.
    pub sends: Vec<(AgentKey, ToAgent)>,
    /// Agents that are asked for what they have said and not heard acknowledged.
    pub asked: BTreeSet<AgentKey>,
    /// What operators hear once it is durable.
    pub answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// Rollouts of which a node has accepted a newer term than ours, and that term.
    pub reclaims: BTreeMap<RolloutId, u64>,
    /// Rollouts that this turn's commit admits: its revision becomes their fence.
    pub admitted: Vec<RolloutId>,
    /// Events, for the log.
    pub events: Vec<EventView>,
    /// What is counted once it is durable.
    pub measures: Vec<Measure>,
    /// Something changed that people may look at.
    pub touched: bool,
    /// What the engine does when the turn is over.
    pub next: Next,
}

/// What a turn found to be done that cannot be done within it.
#[derive(Debug, Default)]
pub struct Next {
    /// Everything is read anew, and why.
    pub reload: Option<String>,
    /// Rollouts of others to be read.
    pub views: BTreeSet<RolloutId>,
    /// Rollouts to be claimed: their owner is gone, or has handed them over.
    pub claims: BTreeSet<RolloutId>,
    /// Nobody writes what belongs to no rollout: try to.
    pub lead: bool,
    /// This controller writes nothing of that kind any more.
    pub follows: bool,
    /// Our own barrier was seen.
    pub barrier: Option<u64>,
}

impl Batch {
    /// Writes a record; a later one under the same key wins.
    pub fn put(&mut self, key: String, record: &impl Record) -> Result<(), StoreError> {
        let value = record.encode()?;
        self.ops.insert(key.clone(), Op::put(key, value));
        self.touched = true;
        Ok(())
    }

    /// Writes a record that goes with a lease.
    pub fn put_leased(
        &mut self,
        key: String,
        record: &impl Record,
        lease: LeaseId,
    ) -> Result<(), StoreError> {
        let value = record.encode()?;
        self.ops.insert(key.clone(), Op::Put { key, value, lease: Some(lease) });
        self.touched = true;
        Ok(())
    }

    /// Removes a record.
    pub fn delete(&mut self, key: String) {
        self.ops.insert(key.clone(), Op::Delete(key));
        self.touched = true;
    }

    /// Is this record to be removed?
    pub fn deletes(&self, key: &str) -> bool {
        matches!(self.ops.get(key), Some(Op::Delete(_)))
    }

    /// The commit only counts while this holds.
    pub fn require(&mut self, compare: Compare) {
        let (Compare::Absent(key) | Compare::Created(key, _) | Compare::Modified(key, _)) =
            &compare;
        // The first one counts: what was decided before relied on that.
        self.compares.entry(key.clone()).or_insert(compare);
    }

    /// Tells an agent, once the batch is durable.
    pub fn send(&mut self, to: AgentKey, message: ToAgent) {
        self.sends.push((to, message));
    }

    /// The shared records that it writes, and whether it removes them.
    pub fn tracked(&self) -> Vec<(String, bool)> {
        let tracked = self.ops.iter().filter(|(key, _)| is_tracked(key));
        tracked.map(|(key, op)| (key.clone(), matches!(op, Op::Delete(_)))).collect()
    }

    /// Is nothing to be written?
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Is something to be said that only who is in may say? Then it is asked of the store, though nothing is written.
    pub fn speaks(&self) -> bool {
        !self.sends.is_empty()
    }

    /// The transaction.
    pub fn txn(&mut self) -> Txn {
        let ops = std::mem::take(&mut self.ops).into_values().collect();
        let compares = std::mem::take(&mut self.compares).into_values().collect();
        Txn { compares, ops }
    }
}
