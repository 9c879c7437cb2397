//! The first operator: `DIR/admin.toml`, a context that whoever installed the controller can use at
//! once.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rota_identity::{BadIdentity, FileError, Identity, Kind, Leaf, TlsError, write_private};
use rota_rollout::names::Timestamp;

use super::ca::CaError;
use super::members::{Certificate, Member, Operator, member_key, operator_key};
use super::record::{decode, encode, system_time};
use super::roles::Role;
use super::{Access, TRIES_MAX, contended, revoked};
use crate::context::{Context, ContextError, dialable};
use crate::store::{Compare, Op, Outcome, StoreError, Txn};

/// The name of the first operator.
pub const ADMIN: &str = "admin";

/// Why there is no `admin.toml`.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No certificate for it.
    #[error("cannot make the first admin's certificate")]
    Ca(#[from] CaError),
    /// The file.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// The certificate in the file.
    #[error("cannot read the certificate in admin.toml")]
    Tls(#[from] TlsError),
    /// Whom the certificate in the file names.
    #[error("cannot read the certificate in admin.toml")]
    Identity(#[from] BadIdentity),
    /// The mark.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says that the first admin was made, beside the authority that made it.
const MADE: &str = "identity/first-admin";

/// What it says.
const MADE_TEXT: &str = "\
admin.toml was made at the first start. Moved away or deleted, it is not made again,
unless this file is deleted too.
";

/// Was the first admin's context never made in this data directory?
pub fn is_due(dir: &Path) -> bool {
    !admin_file(dir).exists() && !dir.join(MADE).exists()
}

/// From now on it was.
pub fn was_made(dir: &Path) -> Result<(), AdminError> {
    let mark = dir.join(MADE);
    if !mark.exists() {
        write_private(&mark, MADE_TEXT.as_bytes())?;
    }
    Ok(())
}

/// Where it lies in a data directory.
pub fn admin_file(dir: &Path) -> PathBuf {
    dir.join("admin.toml")
}

impl Access {
    /// At the first start: makes the operator `admin` with the role admin, and `DIR/admin.toml` for
    /// the address.
    pub async fn bootstrap_admin(
        &self,
        dir: &Path,
        listens: SocketAddr,
        now: Timestamp,
    ) -> Result<PathBuf, AdminError> {
        let identity = Identity::new(Kind::Operator, ADMIN)?;
        let (issued, key) = self.ca.issue_with_key(&identity, system_time(now))?;
        let operator = Operator { role: Role::Admin, env: None };
        let operator = Op::put(operator_key(ADMIN), encode(&operator)?);
        self.hand_out(&identity, Certificate::of(&issued), operator, now).await?;
        let context = Context {
            name: ADMIN.to_owned(),
            controllers: vec![dialable(listens)],
            ca: self.ca.roots_pem().to_owned(),
            cert: issued.certificate_pem,
            key: key.to_pem(),
        };
        let path = admin_file(dir);
        context.save(&path)?;
        Ok(path)
    }

    /// At every later start: gives `DIR/admin.toml` a fresh certificate when its own
    /// is due, and the address of today. A file that was moved away (as it should be, to the
    /// admin's own machine) stays away.
    pub async fn refresh_admin(
        &self,
        dir: &Path,
        listens: SocketAddr,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, AdminError> {
        let path = admin_file(dir);
        if !path.exists() {
            return Ok(None);
        }
        let mut context = Context::load(&path)?;
        let leaf = Leaf::parse(context.credentials()?.leaf()?)?;
        let due = leaf.renew_at() <= system_time(now);
        let address = dialable(listens);
        if due && !self.revoked.contains(&leaf.serial) {
            return self.bootstrap_admin(dir, listens, now).await.map(Some);
        }
        if context.controllers.first() != Some(&address) {
            context.controllers = vec![address];
            context.save(&path)?;
        }
        Ok(Some(path))
    }

    /// Writes down a certificate that was made here for `identity`, together with `also`.
    async fn hand_out(
        &self,
        identity: &Identity,
        certificate: Certificate,
        also: Op,
        now: Timestamp,
    ) -> Result<(), AdminError> {
        let key = member_key(identity);
        for _ in 0..TRIES_MAX {
            let entry = self.store.get(&key).await?;
            let (member, compare) = match &entry {
                Some(entry) => (decode(entry)?, Compare::Modified(key.clone(), entry.modified)),
                None => {
                    let token = String::from("first start");
                    let fresh = Member { certificates: Vec::new(), enrolled: now, token };
                    (fresh, Compare::Absent(key.clone()))
                }
            };
            let (member, dropped) = Member::with(member, certificate.clone(), "", now);
            let mut ops = vec![Op::put(key.clone(), encode(&member)?), also.clone()];
            for old in &dropped {
                ops.push(revoked::op(old, identity, "replaced by newer ones", now)?);
            }
            if let Outcome::Done(_) =
                self.store.commit(Txn { compares: vec![compare], ops }).await?
            {
                self.revoked.learn(identity, dropped.into_iter().map(|one| one.serial));
                return Ok(());
            }
        }
        Err(contended(&key).into())
    }
}
