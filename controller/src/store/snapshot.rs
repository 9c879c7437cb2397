//! Everything that a store holds for good, as of one revision: what is copied to another store and kept in backups.
//!
//! What hangs on a lease says who is alive; it is not part of a snapshot. An empty store is filled by several
//! transactions, so a mark stands in it meanwhile: one that was filled by half is refused by whoever opens it.

use std::fmt;

use super::{Compare, Op, Outcome, Store, StoreError, StoreRevision, Txn};

/// Stands in a store while it is filled.
pub(super) const FILLING: &str = "/filling";

/// Below it each live controller has a key.
const MEMBERS: &str = "/members/";

/// Changes of one transaction while a store is filled, and their bytes: what etcd takes at once.
const BATCH_OPS: usize = 2000;
const BATCH_BYTES: usize = 900_000;

/// A batch whose answer was lost is put again, this often: it is the same then.
const ATTEMPTS_MAX: usize = 5;

/// Everything as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The revision.
    pub revision: StoreRevision,
    /// Keys and values, in order.
    pub entries: Vec<(String, Vec<u8>)>,
    /// Controllers that were alive.
    pub alive: Vec<String>,
}

/// Why a store was not filled.
#[derive(Debug, Clone)]
pub enum Unfilled {
    /// It is not empty: a key that it holds.
    Holds(String),
    /// A value that the store does not take; nothing was changed.
    TooLarge {
        /// Where it is.
        key: String,
        /// What it has.
        bytes: usize,
    },
    /// The store.
    Store(StoreError),
}

impl fmt::Display for Unfilled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds(key) => write!(f, "it is not empty: it holds {key}"),
            Self::TooLarge { key, bytes } => {
                write!(f, "it does not take {key}, which has {bytes} bytes")
            }
            Self::Store(why) => why.fmt(f),
        }
    }
}

impl std::error::Error for Unfilled {}

impl From<StoreError> for Unfilled {
    fn from(why: StoreError) -> Self {
        Self::Store(why)
    }
}

impl Snapshot {
    /// A snapshot of these: key, value, and whether it hangs on a lease.
    pub(super) fn of(
        revision: StoreRevision,
        found: impl IntoIterator<Item = (String, Vec<u8>, bool)>,
    ) -> Self {
        let (mut entries, mut alive) = (Vec::new(), Vec::new());
        for (key, value, leased) in found {
            match (leased, key.strip_prefix(MEMBERS)) {
                (true, Some(name)) => alive.push(name.to_owned()),
                (true, None) => {}
                (false, _) => entries.push((key, value)),
            }
        }
        Self { revision, entries, alive }
    }

    /// Puts all of it into an empty store that takes values of at most `value_max` bytes.
    pub async fn fill(&self, store: &dyn Store, value_max: usize) -> Result<(), Unfilled> {
        if let Some(held) = first_key(store).await? {
            return Err(Unfilled::Holds(held));
        }
        let too_large = |(key, value): &&(String, Vec<u8>)| key.len() + value.len() > value_max;
        if let Some((key, value)) = self.entries.iter().find(too_large) {
            return Err(Unfilled::TooLarge { key: key.clone(), bytes: value.len() });
        }
        // Whoever else begins to fill it at this moment has another value.
        let mark = format!("{{\"v\":1,\"by\":\"{}-{}\"}}", std::process::id(), self.revision);
        let begin = Txn {
            compares: vec![Compare::Absent(FILLING.to_owned())],
            ops: vec![Op::put(FILLING, mark.clone().into_bytes())],
        };
        match store.commit(begin).await {
            Ok(Outcome::Done(_)) => {}
            Ok(Outcome::Refused) => return Err(Unfilled::Holds(FILLING.to_owned())),
            Err(StoreError::Unknown(_)) => {
                let found = store.get(FILLING).await?;
                if found.is_none_or(|entry| entry.value != mark.as_bytes()) {
                    return Err(Unfilled::Holds(FILLING.to_owned()));
                }
            }
            Err(why) => return Err(why.into()),
        }
        for ops in batches(&self.entries) {
            put(store, ops).await?;
        }
        put(store, vec![Op::Delete(FILLING.to_owned())]).await?;
        Ok(())
    }
}

/// A key of a store that is not empty.
pub async fn first_key(store: &dyn Store) -> Result<Option<String>, StoreError> {
    let (first, _) = store.scan("", "", 1).await?;
    Ok(first.into_iter().next().map(|entry| entry.key))
}

/// The error of a store that was filled by half; `how` it is emptied.
pub(super) fn half_filled(how: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "a copy or a restore into it was broken off, so it holds a part of a state only; {how}, \
         and begin that again"
    ))
}

fn batches(entries: &[(String, Vec<u8>)]) -> Vec<Vec<Op>> {
    let mut batches: Vec<Vec<Op>> = Vec::new();
    let mut bytes = usize::MAX;
    for (key, value) in entries {
        let size = key.len() + value.len();
        let full = batches.last().is_none_or(|batch| batch.len() >= BATCH_OPS);
        if full || bytes.saturating_add(size) > BATCH_BYTES {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.push(Op::put(key.clone(), value.clone()));
        }
    }
    batches
}

async fn put(store: &dyn Store, ops: Vec<Op>) -> Result<(), StoreError> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match store.commit(Txn { compares: Vec::new(), ops: ops.clone() }).await {
            Ok(_) => return Ok(()),
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) if attempts < ATTEMPTS_MAX => {
            }
            Err(why) => return Err(why),
        }
    }
}
