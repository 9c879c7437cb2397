//! Our own end of calls to others of the installation: a certificate that is renewed in place, and whom it trusts.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::{ClientConfig, RootCertStore};

use crate::tls::{Credentials, Expect, TlsError, client_config};

/// Makes the TLS configuration of each call anew, so that a renewed certificate counts from the next one on.
#[derive(Clone)]
pub struct Dialer(Arc<RwLock<Own>>);

struct Own {
    credentials: Credentials,
    roots: RootCertStore,
}

impl Dialer {
    /// With this certificate.
    pub fn new(credentials: Credentials, roots: RootCertStore) -> Self {
        Self(Arc::new(RwLock::new(Own { credentials, roots })))
    }

    /// From now on with this one.
    pub fn renewed(&self, credentials: Credentials, roots: RootCertStore) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Own { credentials, roots };
    }

    /// For a connection to somebody whom we expect.
    pub fn config(&self, expect: Expect) -> Result<Arc<ClientConfig>, TlsError> {
        let own = self.0.read().unwrap_or_else(PoisonError::into_inner);
        client_config(&own.credentials, own.roots.clone(), expect)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialer(..)")
    }
}
