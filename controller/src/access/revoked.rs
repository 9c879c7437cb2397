//! The certificates that no longer count: `/revoked/SERIAL`, cached in memory, because every call
//! asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rota_identity::{Identity, Kind};
use rota_rollout::names::{NodeName, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::members::Certificate;
use super::record::{decode, encode};
use crate::store::{Change, Entry, Op, Store, StoreError, StoreRevision, Txn, scan_all};

const PREFIX: &str = "/revoked/";

/// How many records are read at once.
const PAGE: usize = 1000;

/// How long after a failure the store is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// One revoked certificate. It is remembered until it would have ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Revocation {
    identity: String,
    why: String,
    at: Timestamp,
    not_after: Timestamp,
}

/// Revoked certificates: whose each one was, by its serial.
pub type Serials = BTreeMap<String, String>;

/// The set, kept up with the store by a task of its own.
pub struct Revoked {
    serials: watch::Sender<Serials>,
    follower: JoinHandle<()>,
}

impl Revoked {
    /// Reads the set, then follows its changes until dropped.
    pub(super) async fn open(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let (all, revision) = read_all(&*store).await?;
        let (serials, _) = watch::channel(all);
        let follower = tokio::spawn(follow(store, serials.clone(), revision));
        Ok(Self { serials, follower })
    }

    /// Does this certificate no longer count?
    pub fn contains(&self, serial: &str) -> bool {
        self.serials.borrow().contains_key(serial)
    }

    /// For sessions, which outlive the check at their start: changes when the set does.
    pub fn watch(&self) -> watch::Receiver<Serials> {
        self.serials.subscribe()
    }

    /// What this controller itself has just committed counts here at once.
    pub(super) fn learn(&self, whose: &Identity, serials: impl IntoIterator<Item = String>) {
        let mut new = serials.into_iter().map(|serial| (serial, whose.uri())).peekable();
        if new.peek().is_some() {
            self.serials.send_modify(|all| all.extend(new));
        }
    }
}

impl Drop for Revoked {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// The change that revokes a certificate.
pub(super) fn op(
    certificate: &Certificate,
    identity: &Identity,
    why: &str,
    now: Timestamp,
) -> Result<Op, StoreError> {
    let record = Revocation {
        identity: identity.uri(),
        why: why.to_owned(),
        at: now,
        not_after: certificate.not_after,
    };
    Ok(Op::put(format!("{PREFIX}{}", certificate.serial), encode(&record)?))
}

/// Forgets what has ended by itself since; says how many. For a daily call.
pub async fn sweep(store: &dyn Store, now: Timestamp) -> Result<usize, StoreError> {
    let (mut after, mut gone) = (String::new(), 0);
    loop {
        let (entries, _) = store.scan(PREFIX, &after, PAGE).await?;
        let Some(last) = entries.last() else { return Ok(gone) };
        after.clone_from(&last.key);
        for entry in entries {
            if decode::<Revocation>(&entry)?.not_after < now {
                let ops = vec![Op::Delete(entry.key)];
                store.commit(Txn { compares: Vec::new(), ops }).await?;
                gone += 1;
            }
        }
    }
}

async fn read_all(store: &dyn Store) -> Result<(Serials, StoreRevision), StoreError> {
    let (mut all, mut after, mut since) = (Serials::new(), String::new(), None);
    loop {
        let (entries, revision) = store.scan(PREFIX, &after, PAGE).await?;
        // Watching from the first page's revision misses nothing that later pages did not show.
        let since = *since.get_or_insert(revision);
        let Some(last) = entries.last() else { return Ok((all, since)) };
        after.clone_from(&last.key);
        for entry in &entries {
            let whose = decode::<Revocation>(entry)?.identity;
            all.insert(serial_of(&entry.key).to_owned(), whose);
        }
    }
}

/// The edges of which certificates count no more; they may have newer ones.
pub async fn edges(store: &dyn Store) -> Result<BTreeSet<NodeName>, StoreError> {
    let edge = |entry: &Entry| {
        let identity: Identity = decode::<Revocation>(entry).ok()?.identity.parse().ok()?;
        (identity.kind() == Kind::Edge).then(|| identity.name().parse().ok()).flatten()
    };
    Ok(scan_all(store, PREFIX).await?.0.iter().filter_map(edge).collect())
}

fn serial_of(key: &str) -> &str {
    key.strip_prefix(PREFIX).unwrap_or(key)
}

/// Follows the store for ever. While it is away, what was known goes on counting.
async fn follow(store: Arc<dyn Store>, serials: watch::Sender<Serials>, mut since: StoreRevision) {
    loop {
        match store.watch(PREFIX, since).await {
            Ok(changes) => apply(changes, &serials).await,
            Err(error) => tracing::warn!(%error, "cannot watch what is revoked"),
        }
        // The watch ended, or the history it needed is gone: read everything again.
        since = loop {
            tokio::time::sleep(RETRY).await;
            match read_all(&*store).await {
                Ok((all, revision)) => {
                    serials.send_replace(all);
                    break revision;
                }
                Err(error) => tracing::warn!(%error, "cannot read what is revoked"),
            }
        };
    }
}

async fn apply(mut changes: mpsc::Receiver<Change>, serials: &watch::Sender<Serials>) {
    while let Some(change) = changes.recv().await {
        match change {
            Change::Put(entry) => {
                // A record that cannot be read counts all the same: nobody gets in by a damaged one.
                let whose = decode::<Revocation>(&entry).map(|record| record.identity);
                let serial = serial_of(&entry.key).to_owned();
                serials.send_modify(|all| {
                    all.insert(serial, whose.unwrap_or_default());
                });
            }
            Change::Deleted { key, .. } => serials.send_modify(|all| {
                all.remove(serial_of(&key));
            }),
            Change::Compacted { .. } => return,
        }
    }
}
