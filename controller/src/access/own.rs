//! The controller's own certificate: made at every start with a fresh key that never touches the
//! disk, and replaced at two thirds of its life under the connections that live.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rota_identity::{
    BadIdentity, ClientCertificates, Credentials, Dialer, Identity, Kind, Leaf, TlsError,
    server_config, tls,
};
use rustls::{RootCertStore, ServerConfig};

use super::ca::{Ca, CaError};
use super::members::{Certificate, MemberError};
use super::{Access, now};

/// How long after a failed renewal it is tried again. Ten days are left then.
const RETRY: Duration = Duration::from_secs(60);

/// The longest sleep before the clock is looked at again: a host that was suspended, or whose clock
/// was set, must not miss its renewal.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// Why the controller has no certificate of its own.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The name is no DNS label.
    #[error(transparent)]
    Name(#[from] BadIdentity),
    /// It was not signed.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// It cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The TLS configurations of a controller's port and of its calls to other controllers, renewed in place.
pub struct OwnCertificate {
    ca: Arc<Ca>,
    identity: Identity,
    config: Arc<ArcSwap<ServerConfig>>,
    dialer: Dialer,
    certificate: Certificate,
    renew_at: SystemTime,
}

impl OwnCertificate {
    /// The first one.
    pub fn new(ca: Arc<Ca>, name: &str, now: SystemTime) -> Result<Self, OwnError> {
        let identity = Identity::new(Kind::Controller, name)?;
        let fresh = issue(&ca, &identity, now)?;
        let config = Arc::new(ArcSwap::new(fresh.server));
        let dialer = Dialer::new(fresh.own, fresh.roots);
        let (certificate, renew_at) = (fresh.certificate, fresh.renew_at);
        Ok(Self { ca, identity, config, dialer, certificate, renew_at })
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Read it anew for every connection.
    pub fn config(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.config)
    }

    /// For calls to other controllers; it is renewed with the rest.
    pub fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }

    /// When it is due.
    pub fn renew_at(&self) -> SystemTime {
        self.renew_at
    }

    /// Replaces it; connections that live keep what they have.
    pub fn renew(&mut self, now: SystemTime) -> Result<(), OwnError> {
        let fresh = issue(&self.ca, &self.identity, now)?;
        self.config.store(fresh.server);
        self.dialer.renewed(fresh.own, fresh.roots);
        (self.certificate, self.renew_at) = (fresh.certificate, fresh.renew_at);
        Ok(())
    }

    /// Where several controllers share a store: it is known there, so that it can be revoked.
    pub async fn register(&self, access: &Access, starts: bool) -> Result<(), MemberError> {
        access.register(&self.identity, self.certificate.clone(), starts, now()).await
    }

    /// Renews it whenever it is due, for ever.
    pub async fn keep_renewed(mut self, registry: Option<Arc<Access>>) {
        loop {
            let now = SystemTime::now();
            if let Ok(left) = self.renew_at.duration_since(now)
                && !left.is_zero()
            {
                tokio::time::sleep(left.min(LOOK_AGAIN)).await;
                continue;
            }
            match self.renew(now) {
                Ok(()) => {
                    tracing::info!("renewed this controller's certificate");
                    if let Some(access) = &registry
                        && let Err(error) = self.register(access, false).await
                    {
                        // It is good all the same; a removal of this controller would not revoke it.
                        tracing::warn!(%error, "the new certificate is not written down");
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "cannot renew this controller's certificate");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// A certificate that was just made, and what is made of it.
struct Fresh {
    own: Credentials,
    roots: RootCertStore,
    server: Arc<ServerConfig>,
    certificate: Certificate,
    renew_at: SystemTime,
}

fn issue(ca: &Ca, identity: &Identity, now: SystemTime) -> Result<Fresh, OwnError> {
    let (issued, key) = ca.issue_with_key(identity, now)?;
    let own = issued.credentials(&key)?;
    let renew_at = Leaf::parse(own.leaf()?)?.renew_at();
    let roots = tls::roots(ca.roots_pem())?;
    let server = server_config(&own, roots.clone(), ClientCertificates::Optional)?;
    Ok(Fresh { own, roots, server, certificate: Certificate::of(&issued), renew_at })
}
