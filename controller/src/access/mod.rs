//! Who may join, who somebody is, what he may do, and what was done.
//!
//! [`ca`] signs names, [`tokens`] invites, [`enrol`] lets in, [`members`] knows the certificates of
//! everybody inside and throws out, [`callers`] says who is calling, [`roles`] what he may do,
//! [`audit`] writes it down. Where several controllers share a store, [`installation`] says whose
//! it is, [`join`] is how another one comes in, [`share`] how it gets the CA, and [`controllers`]
//! knows the certificates of each. All state is in the store; what is cached here is the set of revoked
//! certificates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rota_identity::Fingerprint;
use rota_rollout::names::Timestamp;
use tokio::sync::Mutex;

use crate::store::{Store, StoreError};

pub mod admin;
pub mod audit;
pub mod ca;
pub mod callers;
pub mod controllers;
pub mod enrol;
pub mod installation;
pub mod join;
pub mod members;
pub mod own;
pub mod record;
pub mod revoked;
pub mod roles;
pub mod share;
pub mod tokens;

#[cfg(test)]
pub(crate) mod memory;
#[cfg(test)]
mod tests;

pub use audit::Audit;
pub use ca::{Ca, CaError, Issued};
pub use enrol::{Ask, EnrolError};
pub use record::{rfc3339, system_time, timestamp};
pub use revoked::Revoked;
pub use roles::{Action, Caller, Denied, Role, allow};
pub use tokens::{Invitation, TokenError};

/// Everything about identity and permission that the controller's services share.
pub struct Access {
    store: Arc<dyn Store>,
    ca: Arc<Ca>,
    revoked: Revoked,
    audit: Audit,
    /// Changes of tokens and members go one at a time through this controller, so that a whole rack
    /// that joins with one token does not fight over its record. Between controllers the store's
    /// compares decide.
    turn: Mutex<()>,
}

impl Access {
    /// Reads what is revoked and goes on watching it.
    pub async fn open(store: Arc<dyn Store>, ca: Arc<Ca>) -> Result<Self, StoreError> {
        let revoked = Revoked::open(Arc::clone(&store)).await?;
        let audit = Audit::new(Arc::clone(&store));
        Ok(Self { store, ca, revoked, audit, turn: Mutex::new(()) })
    }

    /// The state that everything here is kept in.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.store)
    }

    /// The authority.
    pub fn ca(&self) -> &Arc<Ca> {
        &self.ca
    }

    /// The certificates that no longer count.
    pub fn revoked(&self) -> &Revoked {
        &self.revoked
    }

    /// What was done, by whom.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What tokens of this installation carry.
    pub fn fingerprint(&self) -> Fingerprint {
        self.ca.fingerprint()
    }
}

/// The time now, for the shells around the functions here, which all take it as an argument.
pub fn now() -> Timestamp {
    timestamp(SystemTime::now())
}

/// A peer's address for the audit log.
pub fn peer_text(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string())
}

/// How often a transaction that another controller's change refused is tried with what is there
/// now. Only controllers compete (see [`Access::turn`]), and each try lets at least one of them
/// through.
const TRIES_MAX: usize = 16;

/// A record changed under our hands [`TRIES_MAX`] times.
fn contended(key: &str) -> StoreError {
    StoreError::Unavailable(format!("{key} is being changed by others all the time; try again"))
}
