//! What must not be forgotten: keys, revisions, transactions with compares, watches and leases, shaped like etcd.
//!
//! Every change of the state goes through [`Store::commit`]: all of it or none, durable before it returns.

#[cfg(test)]
pub(crate) mod conformance;
pub mod etcd;
mod limits;
#[cfg(test)]
pub(crate) mod model;
mod record;
pub mod snapshot;
pub mod sqlite;

use std::fmt;

pub use record::{Record, scan_all};

/// A point in the store's history. Every commit that changes something raises it: by one in a store that is ours
/// alone, by one or more where others write too.
pub type StoreRevision = u64;

/// One key and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// A path such as `/rollouts/shop/prod/0000000014/head`.
    pub key: String,
    /// A versioned serde record.
    pub value: Vec<u8>,
    /// When this key was made (again, after a deletion).
    pub created: StoreRevision,
    /// When it was last put.
    pub modified: StoreRevision,
}

/// What must hold for a transaction to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compare {
    /// There is no such key.
    Absent(String),
    /// The key was made at this revision and not deleted since: a fence. 0 is no revision: it never holds.
    Created(String, StoreRevision),
    /// The key was last put at this revision.
    Modified(String, StoreRevision),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Sets a key; with a lease it goes when the lease ends. A lease that has ended refuses the transaction, and a put
    /// without a lease takes the key off the one it had.
    Put { key: String, value: Vec<u8>, lease: Option<LeaseId> },
    /// Removes a key; a missing one is no error.
    Delete(String),
}

impl Op {
    /// Sets a key for good.
    pub fn put(key: impl Into<String>, value: Vec<u8>) -> Self {
        Self::Put { key: key.into(), value, lease: None }
    }
}

/// Changes that happen together, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All of these must hold.
    pub compares: Vec<Compare>,
    /// Then all of these happen, in order. A key may appear once.
    pub ops: Vec<Op>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Durable, at this revision; when there was nothing to change (a missing key deleted), at the one before.
    Done(StoreRevision),
    /// A compare did not hold, or a lease of a put has ended; nothing changed.
    Refused,
}

/// One lease; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LeaseId(pub i64);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A key was put.
    Put(Entry),
    /// A key was deleted, or its lease ended.
    Deleted { key: String, at: StoreRevision },
    /// The history since the asked revision is gone: read everything again, then watch from `now`. The last one.
    Compacted { now: StoreRevision },
}

/// Why the store did not answer. Nothing that was refused here has happened, except after [`StoreError::Unknown`].
#[derive(Debug, Clone)]
pub enum StoreError {
    /// It cannot be reached or cannot write (a full disk, for example).
    Unavailable(String),
    /// The answer was lost: the commit may have happened.
    Unknown(String),
    /// A record that cannot be read, and its key.
    Corrupt(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(why) => write!(f, "the store is not available: {why}"),
            Self::Unknown(why) => write!(f, "the store did not say whether it committed: {why}"),
            Self::Corrupt(what) => {
                write!(f, "the store holds a record that cannot be read: {what}")
            }
        }
    }
}

impl std::error::Error for StoreError {}

/// Does the store answer?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It did the last time that it was asked.
    Here,
    /// It does not, and why. Watches and leases stand still until it does again.
    Away(String),
}

/// The state of Rota.
#[tonic::async_trait]
pub trait Store: Send + Sync + 'static {
    /// One key, as of now.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// The keys that begin with `prefix` and are greater than `after` (empty: from the first), in order, at most
    /// `limit`, and the revision at which they were read.
    async fn scan(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Entry>, StoreRevision), StoreError>;

    /// Carries out a transaction. Durable when it returns `Done`; every key that it put has that revision then.
    ///
    /// Etcd takes 1.25 MiB at once. What is larger is decided by one transaction, with the operations whose keys are
    /// compared or leased; the others are carried out behind it, at later revisions, before `Done` is told. Whoever
    /// reads meanwhile sees a part of them. After [`StoreError::Unknown`], or where the writer died, [`Store::settle`]
    /// carries out the rest.
    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// Every change under `prefix` after `since`, in order; the channel closes when the store is lost for good or
    /// dropped. Where it may come back (etcd), the watch waits and goes on from where it was, without a gap; that it
    /// waits is told by [`Store::reach`].
    async fn watch(
        &self,
        prefix: &str,
        since: StoreRevision,
    ) -> Result<tokio::sync::mpsc::Receiver<Change>, StoreError>;

    /// A new lease that ends `ttl` after it was last kept alive.
    async fn grant(&self, ttl: std::time::Duration) -> Result<LeaseId, StoreError>;

    /// Keeps a lease alive; `false`: it has ended already.
    async fn keep_alive(&self, lease: LeaseId) -> Result<bool, StoreError>;

    /// Ends a lease and removes its keys now. A missing lease is no error.
    async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Carries out what was decided and is not there yet because its writer died: to be called by whoever takes over,
    /// before it reads.
    async fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether the store answers, and when that changes. One that never changes is closed.
    fn reach(&self) -> tokio::sync::watch::Receiver<Reach> {
        tokio::sync::watch::channel(Reach::Here).1
    }
}
