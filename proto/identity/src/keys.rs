//! Private keys, and the requests by which their holders ask for certificates.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random numbers")]
pub struct NoRandomness;

/// Why there is no key or no request for it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It could not be made.
    #[error("cannot make a private key")]
    Generate(#[source] rcgen::Error),
    /// A text that is not a key we can use.
    #[error("this is not a private key in PEM (PKCS#8, ECDSA P-256)")]
    Parse(#[source] rcgen::Error),
    /// The request could not be made.
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
}

/// An ECDSA P-256 key that never leaves the host where it was made.
pub struct PrivateKey(KeyPair);

impl PrivateKey {
    /// A new one.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate().map(Self).map_err(KeyError::Generate)
    }

    /// One that was made earlier.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        KeyPair::from_pem(pem).map(Self).map_err(KeyError::Parse)
    }

    /// For its file, and for nothing else.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// What is sent to the CA: it proves that we hold the key, and says nothing else. The CA
    /// decides on the name.
    pub fn request(&self) -> Result<String, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.0).map_err(KeyError::Request)?;
        request.pem().map_err(KeyError::Request)
    }

    /// For signing as a CA.
    pub fn into_key_pair(self) -> KeyPair {
        self.0
    }

    /// For TLS.
    pub(crate) fn der_from_pem(
        pem: &str,
    ) -> Result<PrivateKeyDer<'static>, rustls::pki_types::pem::Error> {
        PrivateKeyDer::from_pem_slice(pem.as_bytes())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}
