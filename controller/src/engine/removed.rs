//! Nodes that were removed are remembered while a certificate of theirs could still be shown.

use std::collections::BTreeSet;

use rota_rollout::names::NodeName;

use super::Turn;
use super::records::{AgentRecord, keys};

impl Turn<'_> {
    /// Keeps what a removed node was; and forgets those of which no certificate is left that could be shown.
    pub(super) fn remember_removed(&mut self, name: &NodeName, record: AgentRecord) {
        let banned: BTreeSet<&NodeName> = self.state.banned.iter().map(|(_, node)| node).collect();
        let over = |other: &&NodeName| !banned.contains(other);
        let over: Vec<NodeName> = self.state.removed.keys().filter(over).cloned().collect();
        over.iter().for_each(|other| self.forget_removed(other));
        let record = AgentRecord { apps: Vec::new(), last_seen: self.at, ..record };
        let written = self.batch.put(format!("{}{name}", keys::REMOVED), &record);
        self.written(written);
        self.state.removed.insert(name.clone(), record);
    }

    /// It has joined again, or could not show anything any more.
    pub(super) fn forget_removed(&mut self, name: &NodeName) {
        if self.state.removed.remove(name).is_some() {
            self.batch.delete(format!("{}{name}", keys::REMOVED));
        }
    }
}
