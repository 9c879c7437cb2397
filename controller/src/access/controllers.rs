//! The controllers' own certificates, where several share a store: known there, so that one can be thrown out.

use rota_identity::{Identity, Kind};
use rota_rollout::names::Timestamp;

use super::members::{Certificate, Member, MemberError, member_key};
use super::record::{decode, encode};
use super::{Access, TRIES_MAX, contended, revoked, share};
use crate::errors::Sort;
use crate::members::keys;
use crate::store::{Compare, Op, Outcome, Txn};
use crate::view::ErrorView;

/// Why a controller was not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// It would go on.
    #[error("controller {0} is running")]
    Alive(String),
    /// Nobody knows it.
    #[error("there is no controller {0}")]
    Missing(String),
    /// Anything else.
    #[error(transparent)]
    Member(#[from] MemberError),
}

impl From<RemoveError> for ErrorView {
    fn from(error: RemoveError) -> Self {
        match error {
            RemoveError::Alive(ref name) => Sort::Refused.error(
                error.to_string(),
                format!("`rota controller drain {name} --handover --wait`, then stop it"),
            ),
            RemoveError::Missing(_) => {
                Sort::NotFound.error(error.to_string(), "`rota controller ls` lists them")
            }
            RemoveError::Member(error) => error.into(),
        }
    }
}

impl Access {
    /// Writes down a certificate that this controller made for itself. At its start it has no other: the keys of
    /// former ones were in the memory of a process that has ended.
    pub(super) async fn register(
        &self,
        identity: &Identity,
        certificate: Certificate,
        starts: bool,
        now: Timestamp,
    ) -> Result<(), MemberError> {
        let key = member_key(identity);
        for _ in 0..TRIES_MAX {
            let entry = self.store.get(&key).await?;
            // It was removed a moment ago.
            let entry = entry.ok_or_else(|| MemberError::Missing(identity.clone()))?;
            let member: Member = decode(&entry)?;
            let in_use = certificate.serial.clone();
            let (mut member, mut dropped) = member.with(certificate.clone(), &in_use, now);
            if starts {
                member.certificates = vec![certificate.clone()];
                dropped.clear();
            }
            let mut ops = vec![Op::put(key.clone(), encode(&member)?)];
            for old in &dropped {
                ops.push(revoked::op(old, identity, "replaced by newer ones", now)?);
            }
            let compares = vec![Compare::Modified(key.clone(), entry.modified)];
            if let Outcome::Done(_) = self.store.commit(Txn { compares, ops }).await? {
                return Ok(());
            }
        }
        Err(contended(&key).into())
    }

    /// Ends when this controller is removed: it was thought lost, and is not.
    pub async fn until_removed(&self, identity: &Identity) {
        let (key, mut revoked) = (member_key(identity), self.revoked.watch());
        while revoked.changed().await.is_ok() {
            // A store that does not answer tells nothing; that it is away is told elsewhere.
            if let Ok(None) = self.store.get(&key).await {
                return;
            }
        }
        std::future::pending().await
    }

    /// Forgets a controller that is lost, and revokes its certificates. What it keeps in its data directory it still
    /// has, the CA's key among it.
    pub async fn remove_controller(
        &self,
        name: &str,
        why: &str,
        now: Timestamp,
    ) -> Result<(), RemoveError> {
        let identity = Identity::new(Kind::Controller, name)
            .map_err(|_| RemoveError::Missing(name.to_owned()))?;
        let key = member_key(&identity);
        for _ in 0..TRIES_MAX {
            let get = async |key: &str| self.store.get(key).await.map_err(MemberError::from);
            if get(&keys::member(name)).await?.is_some() {
                return Err(RemoveError::Alive(name.to_owned()));
            }
            let (entry, known) = (get(&key).await?, get(&keys::controller(name)).await?);
            if entry.is_none() && known.is_none() {
                return Err(RemoveError::Missing(name.to_owned()));
            }
            let mut compares = vec![Compare::Absent(keys::member(name))];
            let mut ops = vec![
                Op::Delete(key.clone()),
                Op::Delete(keys::controller(name)),
                Op::Delete(share::store_key(name)),
            ];
            let mut gone = Vec::new();
            match &entry {
                None => compares.push(Compare::Absent(key.clone())),
                Some(entry) => {
                    compares.push(Compare::Modified(key.clone(), entry.modified));
                    gone = decode::<Member>(entry).map_err(MemberError::from)?.certificates;
                }
            }
            for one in &gone {
                ops.push(revoked::op(one, &identity, why, now).map_err(MemberError::from)?);
            }
            let done = self.store.commit(Txn { compares, ops }).await;
            if let Outcome::Done(_) = done.map_err(MemberError::from)? {
                self.revoked.learn(&identity, gone.into_iter().map(|one| one.serial));
                return Ok(());
            }
        }
        Err(MemberError::from(contended(&key)).into())
    }
}
