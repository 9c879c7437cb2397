//! Who is in: this controller's place among the others, held by a lease.
//!
//! A member is a key with a lease, `/members/NAME`. The revision at which it was made is the controller's **fence**:
//! every commit of its engine compares it, so that a process that was away for longer than its lease, and wakes up,
//! can write nothing any more. What is known of a controller beyond its lease lies in `/controllers/NAME`.

pub mod record;

use std::sync::Arc;
use std::time::Duration;

use rota_rollout::names::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use crate::store::{Compare, LeaseId, Op, Outcome, Record, Store, StoreError, StoreRevision, Txn};
pub use record::{ControllerRecord, MemberRecord, SPEAKS, keys};

/// A controller that says nothing for so long is lost, and others take over what it runs.
pub const LEASE: Duration = Duration::from_secs(5);

/// How often the lease is renewed: two renewals may be lost.
const KEPT_EVERY: Duration = Duration::from_millis(1_500);

/// So many controllers can be in at once: their events are numbered apart.
pub const MEMBERS_MAX: u8 = 16;

/// How often a place is tried that others compete for, or whose former holder's lease has to end first.
const TRIES_MAX: usize = 24;

/// Between two tries.
const RETRY: Duration = Duration::from_millis(500);

/// Why a controller has no place.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Another process has the name.
    #[error(
        "another controller named {name} is running at {address}: give this one another `--name`"
    )]
    Taken { name: String, address: String },
    /// There are too many.
    #[error("{MEMBERS_MAX} controllers are in already: stop one before another begins")]
    Full,
    /// It would not be understood.
    #[error(
        "this is rota {ours}, and controller {name} is in with {theirs}: the two do not work \
         together. Upgrade the controllers through a version between them, one by one"
    )]
    TooFar { name: String, theirs: String, ours: &'static str },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl JoinError {
    /// This controller and another one are too far apart.
    pub fn too_far(name: &str, there: &MemberRecord) -> Self {
        let (name, theirs) = (name.to_owned(), there.version.clone());
        Self::TooFar { name, theirs, ours: env!("CARGO_PKG_VERSION") }
    }
}

/// A place, while its lease lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// What holds it.
    pub lease: LeaseId,
    /// When the member's key was made: compared by every commit.
    pub fence: StoreRevision,
    /// Which of the numbers of events are ours.
    pub slot: u8,
}

/// What a controller needs to be in.
#[derive(Clone)]
pub struct Membership {
    /// The shared store.
    pub store: Arc<dyn Store>,
    /// This controller's name.
    pub name: String,
    /// How others reach it.
    pub advertise: String,
    /// Names the data directory: the same name from another one is somebody else.
    pub instance: String,
    /// It owns no more rollouts than this.
    pub rollouts_max: usize,
}

impl Membership {
    /// Takes a place. A former process of this data directory gives way at once (whoever holds the directory's lock
    /// is the only one); one of another is refused while it lives.
    pub async fn join(&self, at: Timestamp) -> Result<Place, JoinError> {
        let key = keys::member(&self.name);
        for _ in 0..TRIES_MAX {
            if let Some(entry) = self.store.get(&key).await? {
                let there = MemberRecord::decode(&entry)?;
                if there.instance == self.instance {
                    self.store.revoke(LeaseId(there.lease)).await?;
                } else {
                    // It may have died a moment ago.
                    sleep(RETRY).await;
                }
                continue;
            }
            self.understood(false).await?;
            let slot = self.free_slot().await?.ok_or(JoinError::Full)?;
            let lease = self.store.grant(LEASE).await?;
            let txn = self.arrival(lease, slot, at)?;
            match self.store.commit(txn).await {
                Ok(Outcome::Done(fence)) => {
                    if let Err(error) = self.understood(true).await {
                        self.give_up(lease).await;
                        return Err(error);
                    }
                    return Ok(Place { lease, fence, slot });
                }
                // Somebody was faster, with the name or with the slot.
                Ok(Outcome::Refused) => self.store.revoke(lease).await?,
                Err(error) => {
                    self.give_up(lease).await;
                    return Err(error.into());
                }
            }
        }
        let entry = self.store.get(&key).await?;
        let there = entry.as_ref().map(MemberRecord::decode).transpose()?;
        let address = there.map_or_else(|| "another place".to_owned(), |there| there.advertise);
        Err(JoinError::Taken { name: self.name.clone(), address })
    }

    fn arrival(&self, lease: LeaseId, slot: u8, at: Timestamp) -> Result<Txn, StoreError> {
        let member = MemberRecord {
            advertise: self.advertise.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.clone(),
            lease: lease.0,
            slot,
            draining: false,
            hears: None,
            rollouts_max: self.rollouts_max,
            since: at,
            speaks: SPEAKS,
        };
        let known = ControllerRecord {
            advertise: self.advertise.clone(),
            version: member.version.clone(),
            drained: false,
        };
        let (key, slot_key) = (keys::member(&self.name), keys::slot(slot));
        let leased = |key: &String, value| Op::Put { key: key.clone(), value, lease: Some(lease) };
        Ok(Txn {
            compares: vec![Compare::Absent(key.clone()), Compare::Absent(slot_key.clone())],
            ops: vec![
                leased(&key, member.encode()?),
                leased(&slot_key, self.name.clone().into_bytes()),
                Op::put(keys::controller(&self.name), known.encode()?),
            ],
        })
    }

    /// Does everybody else who is in understand this version, and it them? Whoever is in himself minds only those that
    /// he cannot understand: of two that came in at the same moment, the older one leaves.
    pub async fn understood(&self, is_in: bool) -> Result<(), JoinError> {
        let (there, _) = self.store.scan(keys::MEMBERS, "", usize::from(MEMBERS_MAX)).await?;
        let own = keys::member(&self.name);
        for entry in there.iter().filter(|entry| entry.key != own) {
            let member = MemberRecord::decode(entry)?;
            if member.is_beyond() || (!is_in && member.speaks + 1 < SPEAKS) {
                return Err(JoinError::too_far(&entry.key[keys::MEMBERS.len()..], &member));
            }
        }
        Ok(())
    }

    async fn free_slot(&self) -> Result<Option<u8>, StoreError> {
        let (taken, _) = self.store.scan(keys::SLOTS, "", usize::from(MEMBERS_MAX)).await?;
        let is_free = |slot: &u8| taken.iter().all(|entry| entry.key != keys::slot(*slot));
        Ok((0..MEMBERS_MAX).find(is_free))
    }

    /// Is this still our place? Its lease lives, the key is the one that was made then, and everybody is understood.
    pub async fn holds(&self, place: &Place) -> Result<bool, JoinError> {
        self.understood(true).await?;
        let there = self.store.get(&keys::member(&self.name)).await?;
        Ok(there.is_some_and(|entry| entry.created == place.fence)
            && self.store.keep_alive(place.lease).await?)
    }

    /// Ends a lease, if the store can be reached; else it ends by itself.
    pub async fn give_up(&self, lease: LeaseId) {
        if let Err(error) = self.store.revoke(lease).await {
            tracing::debug!(%error, "a lease ends by itself");
        }
    }

    /// Renews a lease until it has ended, and says why. By this host's own clock too: where nothing is heard of the
    /// store, the lease is over when it would be.
    pub async fn keep(&self, lease: LeaseId) -> String {
        let mut renewed = Instant::now();
        loop {
            sleep(KEPT_EVERY).await;
            let asked = Instant::now();
            let left = (renewed + LEASE).saturating_duration_since(asked);
            let why = match timeout(left, self.store.keep_alive(lease)).await {
                Ok(Ok(true)) => {
                    renewed = asked;
                    continue;
                }
                Ok(Ok(false)) => return "its lease has ended".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            if renewed.elapsed() >= LEASE {
                return format!("its lease could not be renewed in time: {why}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
