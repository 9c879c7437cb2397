//! Who speaks: names in certificates, tokens, and the TLS configurations of both ends.
//!
//! Controller, agent and command line share this crate, so that there is one answer to "who is
//! that?". Read [`name`] (what is in a certificate), [`token`] (how somebody new proves that it was
//! invited), [`files`] (where an identity lives on disk), [`tls`] (whom each end accepts) and
//! [`dial`] (how a client calls a controller).

pub mod certificate;
pub mod dial;
pub mod dialer;
pub mod files;
pub mod keys;
pub mod name;
pub mod tls;
pub mod token;

pub use certificate::{Fingerprint, LEAF_LIFETIME, Leaf, renew_at};
pub use dial::{DialError, connect, reason};
pub use dialer::Dialer;
pub use files::{FileError, IdentityFiles, check_mode, write_private};
pub use keys::{KeyError, PrivateKey};
pub use name::{BadIdentity, Identity, Kind, TRUST_DOMAIN};
pub use tls::{
    ClientCertificates, Credentials, Expect, TlsError, client_config, pinned_client_config,
    server_config,
};
pub use token::{BadToken, Secret, Token};
