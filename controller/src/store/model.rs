//! What a store does, in fifty lines of memory: the adapters are compared with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Compare, Entry, LeaseId, Op, Outcome, StoreRevision, Txn};

/// A store without disk, time or readers.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) revision: StoreRevision,
    entries: BTreeMap<String, (Entry, Option<LeaseId>)>,
    history: Vec<(StoreRevision, Change)>,
    leases: BTreeSet<i64>,
}

impl Model {
    /// An empty one; adapters number their first revision as they like.
    pub(crate) fn starting_at(revision: StoreRevision) -> Self {
        Self { revision, ..Self::default() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).map(|(entry, _)| entry.clone())
    }

    pub(crate) fn scan(&self, prefix: &str, after: &str, limit: usize) -> Vec<Entry> {
        let entries = self.entries.values().map(|(entry, _)| entry);
        let found = entries.filter(|e| e.key.starts_with(prefix) && e.key.as_str() > after);
        found.take(limit).cloned().collect()
    }

    pub(crate) fn changes(&self, prefix: &str, since: StoreRevision) -> Vec<Change> {
        let key = |change: &Change| match change {
            Change::Put(entry) => entry.key.clone(),
            Change::Deleted { key, .. } => key.clone(),
            Change::Compacted { .. } => unreachable!("a model forgets nothing"),
        };
        let told = self.history.iter().filter(|(at, c)| *at > since && key(c).starts_with(prefix));
        told.map(|(_, change)| change.clone()).collect()
    }

    pub(crate) fn grant(&mut self, lease: LeaseId) {
        self.leases.insert(lease.0);
    }

    /// Does anything hang on this lease?
    pub(crate) fn holds(&self, lease: LeaseId) -> bool {
        self.entries.values().any(|(_, of)| *of == Some(lease))
    }

    pub(crate) fn end(&mut self, lease: LeaseId, next: StoreRevision) {
        self.leases.remove(&lease.0);
        let of_lease = |(key, (_, of)): (&String, &(_, Option<LeaseId>))| {
            (*of == Some(lease)).then(|| Op::Delete(key.clone()))
        };
        let ops = self.entries.iter().filter_map(of_lease).collect();
        self.commit(&Txn { compares: Vec::new(), ops }, next);
    }

    /// Carries it out at revision `next`, if it changes anything.
    pub(crate) fn commit(&mut self, txn: &Txn, next: StoreRevision) -> Outcome {
        let holds = |compare: &Compare| match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Created(key, at) => self.get(key).is_some_and(|e| e.created == *at),
            Compare::Modified(key, at) => self.get(key).is_some_and(|e| e.modified == *at),
        };
        let alive = |op: &Op| match op {
            Op::Put { lease: Some(lease), .. } => self.leases.contains(&lease.0),
            Op::Put { lease: None, .. } | Op::Delete(_) => true,
        };
        if !txn.compares.iter().all(holds) || !txn.ops.iter().all(alive) {
            return Outcome::Refused;
        }
        for op in &txn.ops {
            let change = match op {
                Op::Put { key, value, lease } => {
                    let created = self.get(key).map_or(next, |entry| entry.created);
                    let (key, value) = (key.clone(), value.clone());
                    let entry = Entry { key: key.clone(), value, created, modified: next };
                    self.entries.insert(key, (entry.clone(), *lease));
                    Change::Put(entry)
                }
                Op::Delete(key) if self.entries.remove(key).is_none() => continue,
                Op::Delete(key) => Change::Deleted { key: key.clone(), at: next },
            };
            self.revision = next;
            self.history.push((next, change));
        }
        Outcome::Done(self.revision)
    }
}
