//! Everybody inside: which certificates each name holds (`/identities/KIND/NAME`), their renewal,
//! and the way out.

use rota_identity::{Identity, Kind};
use rota_rollout::names::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::{decode, encode, system_time, timestamp};
use super::roles::{Caller, Role};
use super::{Access, CaError, Issued, TRIES_MAX, contended, revoked};
use crate::errors::Sort;
use crate::store::{Compare, Op, Outcome, StoreError, Txn};
use crate::view::ErrorView;

/// The most valid certificates of one name. An agent that renews every 20 days holds two; more come
/// from renewals that it could not save, and of these the oldest are revoked.
pub const CERTIFICATES_MAX: usize = 8;

/// One certificate that was given out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certificate {
    pub serial: String,
    pub not_after: Timestamp,
}

impl Certificate {
    pub fn of(issued: &Issued) -> Self {
        Self { serial: issued.serial.clone(), not_after: timestamp(issued.not_after) }
    }
}

/// Somebody inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// The valid ones, oldest first.
    pub certificates: Vec<Certificate>,
    pub enrolled: Timestamp,
    /// The id of the token that let it in.
    pub token: String,
}

/// What an operator may do: `/operators/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Operator {
    pub role: Role,
    pub env: Option<String>,
}

pub(super) fn member_key(identity: &Identity) -> String {
    format!("/identities/{}/{}", identity.kind(), identity.name())
}

pub(super) fn operator_key(name: &str) -> String {
    format!("/operators/{name}")
}

impl Member {
    /// With one more certificate, and those that must be revoked to stay within
    /// [`CERTIFICATES_MAX`]: never the one that is in use.
    pub(super) fn with(
        mut self,
        new: Certificate,
        in_use: &str,
        now: Timestamp,
    ) -> (Self, Vec<Certificate>) {
        self.certificates.retain(|one| one.not_after > now);
        let mut dropped = Vec::new();
        while self.certificates.len() >= CERTIFICATES_MAX {
            let Some(oldest) = self.certificates.iter().position(|one| one.serial != in_use) else {
                break;
            };
            dropped.push(self.certificates.remove(oldest));
        }
        self.certificates.push(new);
        (self, dropped)
    }
}

/// Why there is no new certificate, or nobody was revoked.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Removed meanwhile, or never here.
    #[error("{0} is not registered here")]
    Missing(Identity),
    /// Its certificate was revoked.
    #[error("the certificate of {0} was revoked")]
    Revoked(Identity),
    /// The request cannot be signed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MemberError> for ErrorView {
    fn from(error: MemberError) -> Self {
        match error {
            MemberError::Store(error) => error.into(),
            MemberError::Missing(_) => Sort::NotFound.error(error.to_string(), ""),
            MemberError::Revoked(_) => Sort::NotPermitted
                .error(error.to_string(), "join again with a new token: `rota token create`"),
            MemberError::Ca(CaError::Request(_)) => Sort::Usage.error(error.to_string(), ""),
            MemberError::Ca(_) => Sort::Internal.error(error.to_string(), ""),
        }
    }
}

impl Access {
    /// A new certificate for the same identity. The older ones stay valid until they end.
    pub async fn renew(
        &self,
        caller: &Caller,
        request_pem: &str,
        now: Timestamp,
    ) -> Result<Issued, MemberError> {
        let identity = &caller.identity;
        if self.revoked.contains(&caller.serial) {
            return Err(MemberError::Revoked(identity.clone()));
        }
        let issued = self.ca.issue(request_pem, identity, system_time(now))?;
        let key = member_key(identity);
        for _ in 0..TRIES_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| MemberError::Missing(identity.clone()))?;
            let member: Member = decode(&entry)?;
            if !member.certificates.iter().any(|one| one.serial == caller.serial) {
                // The name has another holder by now; the cache of what is revoked is about to hear
                // of it.
                return Err(MemberError::Revoked(identity.clone()));
            }
            let (member, dropped) = member.with(Certificate::of(&issued), &caller.serial, now);
            let mut ops = vec![Op::put(key.clone(), encode(&member)?)];
            for certificate in &dropped {
                let why = format!("{identity} holds more than {CERTIFICATES_MAX} certificates");
                ops.push(revoked::op(certificate, identity, &why, now)?);
            }
            let compares = vec![Compare::Modified(key.clone(), entry.modified)];
            if let Outcome::Done(_) = self.store.commit(Txn { compares, ops }).await? {
                self.revoked.learn(identity, dropped.into_iter().map(|one| one.serial));
                return Ok(issued);
            }
        }
        Err(contended(&key).into())
    }

    /// Revokes every certificate of somebody and frees its name; `also` happens in the same
    /// transaction (the node's own record goes, for example). Says how many certificates that were.
    pub async fn revoke(
        &self,
        identity: &Identity,
        why: &str,
        also: &[Op],
        now: Timestamp,
    ) -> Result<usize, MemberError> {
        let key = member_key(identity);
        for _ in 0..TRIES_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| MemberError::Missing(identity.clone()))?;
            let certificates = decode::<Member>(&entry)?.certificates;
            let mut ops = vec![Op::Delete(key.clone())];
            if identity.kind() == Kind::Operator {
                ops.push(Op::Delete(operator_key(identity.name())));
            }
            for certificate in &certificates {
                ops.push(revoked::op(certificate, identity, why, now)?);
            }
            ops.extend_from_slice(also);
            let compares = vec![Compare::Modified(key.clone(), entry.modified)];
            if let Outcome::Done(_) = self.store.commit(Txn { compares, ops }).await? {
                let count = certificates.len();
                self.revoked.learn(identity, certificates.into_iter().map(|one| one.serial));
                return Ok(count);
            }
        }
        Err(contended(&key).into())
    }

    /// What an operator may do, as of now.
    pub(super) async fn operator_record(&self, name: &str) -> Result<Option<Operator>, StoreError> {
        let entry = self.store.get(&operator_key(name)).await?;
        entry.as_ref().map(decode).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_one_name_are_bounded() {
        let one =
            |serial: &str, end| Certificate { serial: serial.into(), not_after: Timestamp(end) };
        let serials = |list: &[Certificate]| {
            list.iter().map(|one| one.serial.as_str()).collect::<Vec<_>>().join(" ")
        };
        for (held, in_use, right, dropped) in [
            ("a", "a", "a new", ""),
            ("a b c", "c", "a b c new", ""),
            ("a b c d e f g h", "a", "a c d e f g h new", "b"),
            ("a b c d e f g h", "h", "b c d e f g h new", "a"),
            ("old a", "a", "a new", ""),
        ] {
            let end = |serial| if serial == "old" { 10 } else { 100 };
            let certificates = held.split(' ').map(|serial| one(serial, end(serial))).collect();
            let member = Member { certificates, enrolled: Timestamp(0), token: String::new() };
            let (member, gone) = member.with(one("new", 200), in_use, Timestamp(50));
            assert_eq!(serials(&member.certificates), right);
            assert_eq!(serials(&gone), dropped);
        }
    }
}
