//! What is still open in each batch. Counted with every change, like the tally: a step for one of ten thousand nodes
//! must not look at the other nodes of its batch to learn that nothing else may start.

use std::collections::BTreeMap;

use crate::node::{Node, Phase};

/// The nodes of one batch with which this rollout has not finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Open {
    /// All of them.
    pub unsettled: usize,
    /// Of these, prepared and not begun.
    pub ready: usize,
    /// Of these, under way.
    pub running: usize,
    /// Of these, online.
    pub online: usize,
}

impl Open {
    fn count(&mut self, node: &Node, sign: isize) {
        if node.phase.is_settled() {
            return;
        }
        let add = |field: &mut usize, yes: bool| {
            *field = field.wrapping_add_signed(if yes { sign } else { 0 });
        };
        add(&mut self.unsettled, true);
        add(&mut self.ready, node.phase == Phase::Ready);
        add(&mut self.running, node.phase.is_running());
        add(&mut self.online, node.observed.online);
    }

    /// The counts of `batch` after one node changed.
    pub(crate) fn moved(mut self, batch: usize, before: Option<&Node>, after: &Node) -> Self {
        if let Some(before) = before.filter(|node| node.batch == batch) {
            self.count(before, -1);
        }
        if after.batch == batch {
            self.count(after, 1);
        }
        self
    }
}

/// By number of the batch; one without open nodes has no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batches(BTreeMap<usize, Open>);

impl Batches {
    /// What is open in this batch.
    pub fn of(&self, batch: usize) -> Open {
        self.0.get(&batch).copied().unwrap_or_default()
    }

    /// Takes over that one node changed; it may have changed its batch too.
    pub(crate) fn take(&mut self, before: Option<&Node>, after: &Node) {
        let old = before.map(|node| node.batch).filter(|old| *old != after.batch);
        for batch in old.into_iter().chain([after.batch]) {
            let open = self.of(batch).moved(batch, before, after);
            if open == Open::default() {
                self.0.remove(&batch);
            } else {
                self.0.insert(batch, open);
            }
        }
    }
}
