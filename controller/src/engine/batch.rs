//! What one turn of the engine comes to: changes that become durable together, and what may be said only afterwards.

use std::collections::BTreeMap;

use rota_proto::agent::ToAgent;
use rota_rollout::names::RolloutId;
use serde_json::Value;
use tokio::sync::oneshot;

use super::meter::Measure;
use super::state::AgentKey;
use crate::store::{Compare, Op, Record, StoreError, Txn};
use crate::view::{ErrorView, EventView};

/// The answer to an operator.
pub type Answer = Result<Value, ErrorView>;

/// One turn.
#[derive(Default)]
pub struct Batch {
    compares: Vec<Compare>,
    ops: BTreeMap<String, Op>,
    /// What agents hear once it is durable.
    pub sends: Vec<(AgentKey, ToAgent)>,
    /// What operators hear once it is durable.
    pub answers: Vec<(oneshot::Sender<Answer>, Answer)>,
    /// Sessions that end now.
    pub closes: Vec<AgentKey>,
    /// Rollouts of which a node has accepted a newer term than ours, and that term.
    pub reclaims: Vec<(RolloutId, u64)>,
    /// Rollouts that this turn's commit admits: its revision becomes their fence.
    pub admitted: Vec<RolloutId>,
    /// Events, for the log.
    pub events: Vec<EventView>,
    /// What is counted once it is durable.
    pub measures: Vec<Measure>,
    /// Something changed that people may look at.
    pub touched: bool,
}

impl Batch {
    /// Writes a record; a later one under the same key wins.
    pub fn put(&mut self, key: String, record: &impl Record) -> Result<(), StoreError> {
        let value = record.encode()?;
        self.ops.insert(key.clone(), Op::put(key, value));
        self.touched = true;
        Ok(())
    }

    /// Removes a record.
    pub fn delete(&mut self, key: String) {
        self.ops.insert(key.clone(), Op::Delete(key));
        self.touched = true;
    }

    /// The commit only counts while this holds.
    pub fn require(&mut self, compare: Compare) {
        if !self.compares.contains(&compare) {
            self.compares.push(compare);
        }
    }

    /// Tells an agent, once the batch is durable.
    pub fn send(&mut self, to: AgentKey, message: ToAgent) {
        self.sends.push((to, message));
    }

    /// The transaction; `None`: nothing is to be written.
    pub fn txn(&mut self) -> Option<Txn> {
        if self.ops.is_empty() {
            return None;
        }
        let ops = std::mem::take(&mut self.ops).into_values().collect();
        Some(Txn { compares: std::mem::take(&mut self.compares), ops })
    }
}
