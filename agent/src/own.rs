//! This agent's own identity: what it shows to others, and whom it accepts. It may be renewed
//! while sessions live; each new connection uses the newest.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rota_identity::{
    BadIdentity, ClientCertificates, Credentials, Expect, Identity, IdentityFiles, Kind, Leaf,
    TlsError, client_config, server_config,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

/// The identity in use.
#[derive(Debug)]
pub struct Own {
    identity: Identity,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    leaf: Leaf,
    credentials: Credentials,
    roots: RootCertStore,
    /// For controllers; kept because every retry of every session needs it.
    controllers: Arc<ClientConfig>,
}

/// Why files are no identity that can be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// TLS does not take them.
    #[error("the identity of this agent cannot be used")]
    Tls(#[from] TlsError),
    /// The certificate names nobody.
    #[error("the certificate of this agent cannot be used")]
    Certificate(#[from] BadIdentity),
    /// A renewal for somebody else.
    #[error("a certificate for {found} came where one for {wanted} was asked for")]
    SomebodyElse { found: Identity, wanted: Identity },
}

impl Own {
    /// From what lies on disk or was just received.
    pub fn new(files: &IdentityFiles) -> Result<Self, OwnError> {
        let current = Current::new(files)?;
        let identity = current.leaf.identity.clone();
        Ok(Self { identity, current: ArcSwap::from_pointee(current) })
    }

    /// Who this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.identity.name()
    }

    /// The certificate in use.
    pub fn leaf(&self) -> Leaf {
        self.current.load().leaf.clone()
    }

    /// For calling controllers.
    pub fn to_controllers(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.current.load().controllers)
    }

    /// For calling the edge with this name, and no other.
    pub fn to_edge(&self, name: &str) -> Result<Arc<ClientConfig>, OwnError> {
        let edge = Identity::new(Kind::Edge, name)?;
        let current = self.current.load();
        let roots = current.roots.clone();
        Ok(client_config(&current.credentials, roots, Expect::Exactly(edge))?)
    }

    /// For being called by nodes.
    pub fn as_server(&self) -> Result<Arc<ServerConfig>, OwnError> {
        let current = self.current.load();
        let roots = current.roots.clone();
        Ok(server_config(&current.credentials, roots, ClientCertificates::Required)?)
    }

    /// From now on, new connections show this certificate. Sessions that live keep theirs.
    pub fn renewed(&self, files: &IdentityFiles) -> Result<(), OwnError> {
        let current = Current::new(files)?;
        if current.leaf.identity != self.identity {
            let wanted = self.identity.clone();
            return Err(OwnError::SomebodyElse { found: current.leaf.identity, wanted });
        }
        self.current.store(Arc::new(current));
        Ok(())
    }
}

impl Current {
    fn new(files: &IdentityFiles) -> Result<Self, OwnError> {
        let credentials = files.credentials()?;
        let roots = files.roots()?;
        let leaf = Leaf::parse(credentials.leaf()?)?;
        let expect = Expect::Kind(Kind::Controller);
        let controllers = client_config(&credentials, roots.clone(), expect)?;
        Ok(Self { leaf, credentials, roots, controllers })
    }
}
