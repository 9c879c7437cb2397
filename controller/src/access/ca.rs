//! The certificate authority: its own, made at the first start, or one that the operator brings.
//!
//! Of a request only the public key is believed; the name, what the certificate is good for, its
//! number and its lifetime are ours.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fmt, fs, io};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rota_identity::certificate::{self, BACKDATED, serial_text};
use rota_identity::keys::NoRandomness;
use rota_identity::{
    Credentials, FileError, Fingerprint, Identity, KeyError, Kind, LEAF_LIFETIME, PrivateKey,
    TlsError, check_mode, tls, write_private,
};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long a built-in CA lives: longer than the hosts it names.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The most bytes of a certificate request. One with a P-256 key has about 400.
const REQUEST_MAX: usize = 8 * 1024;

/// Why there is no CA, or no certificate of it.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file of the CA.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of the CA cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// A CA that is not used cannot be removed.
    #[error("cannot remove {}, the CA of an installation that did not begin", .path.display())]
    Remove {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// One of the two files is gone.
    #[error(
        "{} exists, but its key {} is gone: restore it from a backup, or give this controller \
         another data directory",
        .cert.display(), .key.display()
    )]
    KeyGone { cert: PathBuf, key: PathBuf },
    /// There is one already.
    #[error("there is a CA in {} already", .0.display())]
    Exists(PathBuf),
    /// The certificate given is no CA's.
    #[error("{0} is not the certificate of a CA: {1}")]
    NotACa(String, &'static str),
    /// The key is of another certificate.
    #[error("the key {0} is not the one of the certificate {1}")]
    AnotherKey(String, String),
    /// The key cannot be read or made.
    #[error("cannot use the CA's key")]
    Key(#[from] KeyError),
    /// Its certificate is no PEM.
    #[error("cannot use the CA's certificate")]
    Certificate(#[from] TlsError),
    /// The library could not make a certificate.
    #[error("cannot sign a certificate")]
    Sign(#[source] rcgen::Error),
    /// The CA itself has ended.
    #[error("the CA's certificate has ended, or ends before a new one would begin")]
    Ended,
    /// A request that is too long, no request, or not signed by its own key.
    #[error("this is not a certificate request that can be signed: {0}")]
    Request(String),
    /// It could not be sealed for another controller.
    #[error("cannot seal the CA for another controller")]
    Seal,
    /// No randomness for a serial number or a key.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// The authority that names everybody.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    key_pem: String,
    not_after: SystemTime,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ca({})", self.fingerprint())
    }
}

/// A certificate that was just signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// Whom it names.
    pub identity: Identity,
    /// The leaf, then the CA.
    pub certificate_pem: String,
    /// Its number, as [`rota_identity::Leaf`] writes it.
    pub serial: String,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Ca {
    /// The CA that an earlier start left in `dir` (`DIR/identity`), if it did.
    pub fn open(dir: &Path) -> Result<Option<Self>, CaError> {
        let (cert, key) = files(dir);
        match (cert.exists(), key.exists()) {
            (true, true) => Self::load(&cert, &key).map(Some),
            (true, false) => Err(CaError::KeyGone { cert, key }),
            // The key is written first: alone, it has never signed anything.
            (false, _) => Ok(None),
        }
    }

    /// Makes a CA and keeps it in `dir`.
    pub fn create(dir: &Path, now: SystemTime) -> Result<Self, CaError> {
        if Self::open(dir)?.is_some() {
            return Err(CaError::Exists(dir.to_owned()));
        }
        let key = PrivateKey::generate()?.into_key_pair();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Rota CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(random_serial()?);
        set_validity(&mut params, now, now + CA_LIFETIME);
        let pem = params.self_signed(&key).map_err(CaError::Sign)?.pem();
        Self::from_pem(&pem, &key.serialize_pem())?.keep(dir)
    }

    /// A CA that the operator brings. It may be one that his own authority signed; for Rota it is
    /// the root.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, CaError> {
        check_mode(key)?;
        let (pem, key_pem) = (read(cert)?, read(key)?);
        let ca = Self::from_pem(&pem, &key_pem)?;
        let name = || cert.display().to_string();
        let (_, parsed) = X509Certificate::from_der(&ca.certificate)
            .map_err(|_| CaError::NotACa(name(), "it is not X.509"))?;
        if !parsed.is_ca() {
            return Err(CaError::NotACa(name(), "its basic constraints do not say so"));
        }
        if matches!(parsed.key_usage(), Ok(Some(usage)) if !usage.value.key_cert_sign()) {
            return Err(CaError::NotACa(name(), "its key may not sign certificates"));
        }
        if parsed.public_key().subject_public_key.data != ca.issuer.key().der_bytes() {
            return Err(CaError::AnotherKey(key.display().to_string(), name()));
        }
        Ok(ca)
    }

    /// From texts that were checked before.
    pub(super) fn from_pem(pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let certificate = tls::certificates("CA", pem)?.swap_remove(0);
        let key = PrivateKey::from_pem(key_pem)?.into_key_pair();
        let not_after = certificate::not_after(&certificate)
            .map_err(|_| CaError::NotACa("the text".into(), "it is not X.509"))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(CaError::Sign)?;
        let (pem, key_pem) = (pem.to_owned(), key_pem.to_owned());
        Ok(Self { issuer, certificate, pem, key_pem, not_after })
    }

    /// Keeps this CA in `dir`: the key first, so that a certificate there always has one.
    pub(super) fn keep(self, dir: &Path) -> Result<Self, CaError> {
        let (cert, key) = files(dir);
        fs::create_dir_all(dir).map_err(|cause| CaError::Read { path: dir.to_owned(), cause })?;
        write_private(&key, self.key_pem.as_bytes())?;
        write_private(&cert, self.pem.as_bytes())?;
        Ok(self)
    }

    /// Removes a CA that has never signed anything. The certificate first: a key alone is none.
    pub(super) fn discard(dir: &Path) -> Result<(), CaError> {
        let (cert, key) = files(dir);
        for path in [cert, key] {
            fs::remove_file(&path).map_err(|cause| CaError::Remove { path, cause })?;
        }
        Ok(())
    }

    /// What tokens carry.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// The trust roots of everybody, PEM.
    pub fn roots_pem(&self) -> &str {
        &self.pem
    }

    /// The private key, PEM; only for handing the CA to another controller.
    pub(super) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Signs a request for `identity`. The request must be signed with its own key; nothing else of
    /// it counts.
    pub fn issue(
        &self,
        request_pem: &str,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        if request_pem.len() > REQUEST_MAX {
            return Err(CaError::Request(format!("it is longer than {REQUEST_MAX} bytes")));
        }
        let request = CertificateSigningRequestParams::from_pem(request_pem)
            .map_err(|error| CaError::Request(error.to_string()))?;
        self.sign(&request.public_key, identity, now)
    }

    /// A new key and a certificate for it: for the controller itself, and for its first admin.
    pub fn issue_with_key(
        &self,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<(Issued, PrivateKey), CaError> {
        let key = PrivateKey::generate()?;
        let issued = self.issue(&key.request()?, identity, now)?;
        Ok((issued, key))
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let not_after = (now + LEAF_LIFETIME).min(self.not_after);
        if not_after <= now {
            return Err(CaError::Ended);
        }
        let uri = identity.uri().try_into().map_err(CaError::Sign)?;
        let serial = random_serial()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(identity.name());
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = usages(identity.kind());
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(serial.clone());
        set_validity(&mut params, now, not_after);
        let leaf = params.signed_by(key, &self.issuer).map_err(CaError::Sign)?;
        Ok(Issued {
            identity: identity.clone(),
            certificate_pem: format!("{}{}", leaf.pem(), self.pem),
            serial: serial_text(serial.as_ref()),
            not_after,
        })
    }
}

impl Issued {
    /// For TLS, with the key that was certified.
    pub fn credentials(&self, key: &PrivateKey) -> Result<Credentials, TlsError> {
        Credentials::from_pem(&self.certificate_pem, &key.to_pem())
    }
}

/// Where a CA is kept in `dir`.
fn files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("ca.pem"), dir.join("ca-key.pem"))
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|cause| CaError::Read { path: path.to_owned(), cause })
}

fn common_name(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

/// Controllers and edges answer calls, too; nodes and operators only call.
fn usages(kind: Kind) -> Vec<ExtendedKeyUsagePurpose> {
    match kind {
        Kind::Node | Kind::Operator => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Kind::Edge | Kind::Controller => {
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth]
        }
    }
}

fn set_validity(params: &mut CertificateParams, now: SystemTime, not_after: SystemTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + since(now).saturating_sub(BACKDATED);
    params.not_after = epoch + since(not_after);
}

/// 126 random bits in 16 bytes: positive, and no leading zeros that DER would drop.
fn random_serial() -> Result<SerialNumber, NoRandomness> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}
