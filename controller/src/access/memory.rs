//! A store in memory, for the tests of this crate's access and services: no leases, no compaction.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::store::{
    Change, Compare, Entry, LeaseId, Op, Outcome, Store, StoreError, StoreRevision, Txn,
};

#[derive(Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
    /// Whoever writes to this keeps commits waiting.
    pub disk: tokio::sync::RwLock<Disk>,
}

/// What commits meet.
#[derive(Clone, Copy, Default, PartialEq)]
pub(crate) enum Disk {
    #[default]
    Writes,
    Full,
}

#[derive(Default)]
struct State {
    revision: StoreRevision,
    entries: BTreeMap<String, Entry>,
    history: Vec<(StoreRevision, Change)>,
    watchers: Vec<(String, mpsc::Sender<Change>)>,
}

impl State {
    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Created(key, at) => self.entries.get(key).is_some_and(|e| e.created == *at),
            Compare::Modified(key, at) => self.entries.get(key).is_some_and(|e| e.modified == *at),
        }
    }

    fn apply(&mut self, op: Op) {
        let at = self.revision;
        let change = match op {
            Op::Put { key, value, .. } => {
                let created = self.entries.get(&key).map_or(at, |old| old.created);
                let entry = Entry { key: key.clone(), value, created, modified: at };
                self.entries.insert(key, entry.clone());
                Change::Put(entry)
            }
            Op::Delete(key) if self.entries.remove(&key).is_some() => Change::Deleted { key, at },
            Op::Delete(_) => return,
        };
        self.history.push((at, change.clone()));
        let key = key_of(&change).to_owned();
        self.watchers.retain(|(prefix, to)| {
            !key.starts_with(prefix.as_str()) || to.try_send(change.clone()).is_ok()
        });
    }
}

fn key_of(change: &Change) -> &str {
    match change {
        Change::Put(entry) => &entry.key,
        Change::Deleted { key, .. } => key,
        Change::Compacted { .. } => "",
    }
}

#[tonic::async_trait]
impl Store for Memory {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        // Another task may run between a read and the commit that follows, as with a real store.
        tokio::task::yield_now().await;
        Ok(self.state.lock().unwrap().entries.get(key).cloned())
    }

    async fn scan(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Entry>, StoreRevision), StoreError> {
        let state = self.state.lock().unwrap();
        let found = state.entries.values();
        let found = found.filter(|e| e.key.starts_with(prefix) && e.key.as_str() > after);
        Ok((found.take(limit).cloned().collect(), state.revision))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        if *self.disk.read().await == Disk::Full {
            return Err(StoreError::Unavailable("the disk is full".to_owned()));
        }
        let mut state = self.state.lock().unwrap();
        if !txn.compares.iter().all(|compare| state.holds(compare)) {
            return Ok(Outcome::Refused);
        }
        state.revision += 1;
        txn.ops.into_iter().for_each(|op| state.apply(op));
        Ok(Outcome::Done(state.revision))
    }

    async fn watch(
        &self,
        prefix: &str,
        since: StoreRevision,
    ) -> Result<mpsc::Receiver<Change>, StoreError> {
        let mut state = self.state.lock().unwrap();
        let (to, changes) = mpsc::channel(1024);
        for (at, change) in &state.history {
            if *at > since && key_of(change).starts_with(prefix) {
                to.try_send(change.clone()).unwrap();
            }
        }
        state.watchers.push((prefix.to_owned(), to));
        Ok(changes)
    }

    async fn grant(&self, _: Duration) -> Result<LeaseId, StoreError> {
        Err(StoreError::Unavailable("no leases in memory".into()))
    }

    async fn keep_alive(&self, _: LeaseId) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn revoke(&self, _: LeaseId) -> Result<(), StoreError> {
        Ok(())
    }
}
