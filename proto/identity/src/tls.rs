//! Whom each end of a connection accepts: TLS 1.3, ring, names by URI. No resumption: a resumed
//! session would skip the check of a certificate that has ended or was revoked since.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::server::{
    NoServerSessionStorage, ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier,
};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    RootCertStore, ServerConfig, SignatureScheme, version,
};

use crate::certificate::Fingerprint;
use crate::files::IdentityFiles;
use crate::keys::PrivateKey;
use crate::name::{BadIdentity, Identity, Kind};

/// Why there is no TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A text that should have been certificates.
    #[error("the {what} cannot be read as PEM")]
    Pem {
        what: &'static str,
        #[source]
        cause: pem::Error,
    },
    /// A PEM text without certificates.
    #[error("there is no certificate in the {0}")]
    Empty(&'static str),
    /// A root that cannot be one.
    #[error("a certificate of the CA cannot be used as a trust root")]
    Root(#[source] Error),
    /// The key is not that of the certificate, or of a sort that we do not use.
    #[error("the certificate and the private key do not fit together")]
    KeyPair(#[source] Error),
    /// The verifier of clients could not be built.
    #[error("cannot check clients against the CA")]
    Clients(#[source] VerifierBuilderError),
    /// TLS 1.3 is missing from the provider.
    #[error("this build has no TLS 1.3")]
    Version(#[source] Error),
}

/// A certificate chain (leaf first) and its key: what one end shows of itself.
#[derive(Debug)]
pub struct Credentials {
    /// The leaf, then the CA, because a first connection is checked by the CA's fingerprint.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// From PEM texts.
    pub fn from_pem(cert: &str, key: &str) -> Result<Self, TlsError> {
        let chain = certificates("certificate", cert)?;
        let key = PrivateKey::der_from_pem(key)
            .map_err(|cause| TlsError::Pem { what: "private key", cause })?;
        Ok(Self { chain, key })
    }

    /// The leaf.
    pub fn leaf(&self) -> Result<&CertificateDer<'static>, TlsError> {
        self.chain.first().ok_or(TlsError::Empty("certificate"))
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl IdentityFiles {
    /// The chain and the key of this identity.
    pub fn credentials(&self) -> Result<Credentials, TlsError> {
        Credentials::from_pem(&self.cert, &self.key)
    }

    /// Whom this identity trusts.
    pub fn roots(&self) -> Result<RootCertStore, TlsError> {
        roots(&self.ca)
    }
}

/// The certificates in a PEM text; `what` it is, for the error.
pub fn certificates(
    what: &'static str,
    text: &str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|cause| TlsError::Pem { what, cause })?;
    if found.is_empty() { Err(TlsError::Empty(what)) } else { Ok(found) }
}

/// The trust roots in a PEM text.
pub fn roots(ca: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("CA", ca)? {
        roots.add(certificate).map_err(TlsError::Root)?;
    }
    Ok(roots)
}

/// What a server asks of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A good one or none: newcomers enrol on the same port. Each call must then look for it.
    Optional,
    /// A good one.
    Required,
}

/// Whom a client will talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Anyone of this kind.
    Kind(Kind),
    /// Only this one.
    Exactly(Identity),
}

impl Expect {
    fn accepts(&self, found: &Identity) -> bool {
        match self {
            Self::Kind(kind) => found.kind() == *kind,
            Self::Exactly(identity) => found == identity,
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => f.write_str(kind.with_article()),
            Self::Exactly(identity) => write!(f, "{identity}"),
        }
    }
}

/// The server's end.
pub fn server_config(
    own: &Credentials,
    roots: RootCertStore,
    clients: ClientCertificates,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = match clients {
        ClientCertificates::Optional => verifier.allow_unauthenticated(),
        ClientCertificates::Required => verifier,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::Version)?
        .with_client_cert_verifier(verifier.build().map_err(TlsError::Clients)?)
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .map_err(TlsError::KeyPair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The end of a client that has an identity.
pub fn client_config(
    own: &Credentials,
    roots: RootCertStore,
    expect: Expect,
) -> Result<Arc<ClientConfig>, TlsError> {
    build_client(Trust::Roots(roots), expect, Some(own))
}

/// The end of a client that only has a token: it accepts a controller whose chain holds the CA with
/// this fingerprint.
pub fn pinned_client_config(ca: Fingerprint) -> Result<Arc<ClientConfig>, TlsError> {
    build_client(Trust::Pinned(ca), Expect::Kind(Kind::Controller), None)
}

fn build_client(
    trust: Trust,
    expect: Expect,
    own: Option<&Credentials>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = ServerVerifier { trust, expect, provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(TlsError::Version)?
        .dangerous() // our verifier checks more than the usual one, not less
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(own.chain.clone(), own.key.clone_key())
            .map_err(TlsError::KeyPair)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Why a server was not accepted, where TLS's own words would not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It reads no certificate of ours.
    #[error("the server's certificate was not made for this system: {0}")]
    Nobody(BadIdentity),
    /// A good certificate of somebody else.
    #[error("the server is {found}, but {wanted} was expected: check the address")]
    SomebodyElse { found: Identity, wanted: String },
    /// No certificate in its chain is the CA of the token.
    #[error(
        "the server does not belong to the CA of the token: the address or the token is of another \
         installation (the token's CA has SHA-256 {0})"
    )]
    AnotherCa(Fingerprint),
    /// Signed by a CA that we do not know.
    #[error("the server's certificate was signed by an unknown CA: is this the right address?")]
    UnknownCa,
    /// By this host's clock the certificate begins in the future.
    #[error(
        "the server's certificate is not valid yet: this host's clock is {} behind (or more); set \
         it right",
        rough(.0)
    )]
    ClockBehind(Duration),
    /// By this host's clock it ended.
    #[error(
        "the server's certificate ended {} ago by this host's clock: the clock is ahead, or the \
         controller could not renew it",
        rough(.0)
    )]
    Ended(Duration),
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
    }
}

/// A length of time in its largest unit, as people say it.
pub(crate) fn rough(time: &Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

enum Trust {
    Roots(RootCertStore),
    Pinned(Fingerprint),
}

/// Checks servers by chain, time and URI; the host name in the address says nothing here.
struct ServerVerifier {
    trust: Trust,
    expect: Expect,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerVerifier({})", self.expect)
    }
}

impl ServerVerifier {
    /// The roots that count for this chain: ours, or the one in it that the token names.
    fn roots(&self, sent: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        match &self.trust {
            Trust::Roots(roots) => Ok(roots.clone()),
            Trust::Pinned(fingerprint) => {
                let found = sent.iter().find(|one| Fingerprint::of(one) == *fingerprint);
                let ca = found.ok_or(Rejected::AnotherCa(*fingerprint))?;
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone().into_owned())?;
                Ok(roots)
            }
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = self.roots(intermediates)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)
            .map_err(in_our_words)?;
        let found = Identity::from_certificate(leaf).map_err(Rejected::Nobody)?;
        if self.expect.accepts(&found) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Rejected::SomebodyElse { found, wanted: self.expect.to_string() }.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn in_our_words(error: Error) -> Error {
    let between = |later: UnixTime, earlier: UnixTime| {
        Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs()))
    };
    match error {
        Error::InvalidCertificate(CertificateError::NotValidYetContext { time, not_before }) => {
            Rejected::ClockBehind(between(not_before, time)).into()
        }
        Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
            Rejected::Ended(between(time, not_after)).into()
        }
        // Every built-in CA has the same name, so that another one's leaf shows as badly signed by
        // ours.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => Rejected::UnknownCa.into(),
        other => other,
    }
}
