//! Names in certificates: `spiffe://rota/node/web-01` is the node web-01, and nobody else.

use std::fmt;
use std::str::FromStr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The trust domain of every identity.
pub const TRUST_DOMAIN: &str = "rota";

/// What somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An agent on a host of the fleet.
    Node,
    /// An agent on a load-balancer host.
    Edge,
    /// A controller.
    Controller,
    /// A person or a script.
    Operator,
}

impl Kind {
    /// All of them, in the order in which they are named to people.
    pub const ALL: [Self; 4] = [Self::Node, Self::Edge, Self::Controller, Self::Operator];

    /// As identities and enrolment requests write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Edge => "edge",
            Self::Controller => "controller",
            Self::Operator => "operator",
        }
    }

    /// As `rota token create --for` writes it: people join *agents*, which then are nodes.
    pub fn token_word(self) -> &'static str {
        match self {
            Self::Node => "agent",
            Self::Edge | Self::Controller | Self::Operator => self.as_str(),
        }
    }

    /// With its article, for messages: "an agent".
    pub fn with_article(self) -> &'static str {
        match self {
            Self::Node => "an agent",
            Self::Edge => "an edge",
            Self::Controller => "a controller",
            Self::Operator => "an operator",
        }
    }

    /// The kind that `rota token create --for WORD` means.
    pub fn from_token_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.token_word() == word)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = BadIdentity;
    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| BadIdentity::UnknownKind(text.to_owned()))
    }
}

/// Who a certificate says its holder is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    kind: Kind,
    name: String,
}

/// Why a certificate or a text names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIdentity {
    /// It is not DER, or not X.509.
    #[error("this is not an X.509 certificate")]
    NotACertificate,
    /// No URI among its alternative names.
    #[error(
        "the certificate names nobody: it has no URI such as spiffe://{TRUST_DOMAIN}/node/web-01"
    )]
    Nameless,
    /// More than one URI: which one would be believed?
    #[error("the certificate has {0} URIs where exactly one is expected")]
    Ambiguous(usize),
    /// Not a URI of ours.
    #[error("`{0}` is not an identity of this system: expected spiffe://{TRUST_DOMAIN}/KIND/NAME")]
    Foreign(String),
    /// `spiffe://rota/KIND/NAME` with a KIND that does not exist.
    #[error("`{0}` is not a kind of identity: use node, edge, controller or operator")]
    UnknownKind(String),
    /// The name would not be one in DNS either.
    #[error(
        "`{0}` is not a name: use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter \
         or digit"
    )]
    BadName(String),
}

impl Identity {
    /// An identity, if the name is a DNS label (RFC 1123, lower case).
    pub fn new(kind: Kind, name: &str) -> Result<Self, BadIdentity> {
        if is_label(name) {
            Ok(Self { kind, name: name.to_owned() })
        } else {
            Err(BadIdentity::BadName(clip(name)))
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What it is called among its kind.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URI that stands in its certificates.
    pub fn uri(&self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/{}/{}", self.kind, self.name)
    }

    /// The holder of a certificate: its one URI. That somebody trusted signed it was for the TLS
    /// handshake to check.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, BadIdentity> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|_| BadIdentity::NotACertificate)?;
        Self::from_x509(&parsed)
    }

    pub(crate) fn from_x509(certificate: &X509Certificate<'_>) -> Result<Self, BadIdentity> {
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| BadIdentity::NotACertificate)?
            .ok_or(BadIdentity::Nameless)?;
        let uris: Vec<&str> = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris[..] {
            [] => Err(BadIdentity::Nameless),
            [uri] => uri.parse(),
            _ => Err(BadIdentity::Ambiguous(uris.len())),
        }
    }
}

impl fmt::Display for Identity {
    /// `node web-01`, for messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl FromStr for Identity {
    type Err = BadIdentity;
    fn from_str(uri: &str) -> Result<Self, BadIdentity> {
        let foreign = || BadIdentity::Foreign(clip(uri));
        let path = uri.strip_prefix("spiffe://").ok_or_else(foreign)?;
        let mut parts = path.split('/');
        let (Some(TRUST_DOMAIN), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(foreign());
        };
        Self::new(kind.parse()?, name)
    }
}

/// The most of a foreign text that a message repeats, in characters: enough to recognise it, too
/// little to flood a log.
const QUOTED_MAX: usize = 80;

/// A foreign text, short enough for a message and without control characters.
pub(crate) fn clip(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '?' } else { c };
    let mut short: String = text.chars().take(QUOTED_MAX).map(printable).collect();
    if text.chars().nth(QUOTED_MAX).is_some() {
        short.push('…');
    }
    short
}

/// Is `text` a DNS label? The core has the same rule for its names; the wire imports none of our
/// crates.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        let long = format!("spiffe://rota/node/{}", "a".repeat(64));
        for (text, right) in [
            ("spiffe://rota/node/web-01", "node web-01"),
            ("spiffe://rota/edge/lb-01", "edge lb-01"),
            ("spiffe://rota/controller/c1", "controller c1"),
            ("spiffe://rota/operator/alice", "operator alice"),
            ("spiffe://rota/agent/web-01", "`agent` is not a kind"),
            ("spiffe://other/node/web-01", "is not an identity of this system"),
            ("spiffe://rota/node", "is not an identity of this system"),
            ("spiffe://rota/node/a/b", "is not an identity of this system"),
            ("https://rota/node/a", "is not an identity of this system"),
            ("spiffe://rota/node/", "`` is not a name"),
            ("spiffe://rota/node/Web", "`Web` is not a name"),
            ("spiffe://rota/node/..", "`..` is not a name"),
            (&long, "is not a name"),
        ] {
            let got = match text.parse::<Identity>() {
                Ok(identity) => {
                    assert_eq!(identity.uri(), text);
                    identity.to_string()
                }
                Err(error) => error.to_string(),
            };
            assert!(got.contains(right), "{text}: {got}");
        }
    }

    fn certificate(uris: &[&str], dns: &[&str]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        for uri in uris {
            let uri = (*uri).try_into().expect("ascii");
            params.subject_alt_names.push(rcgen::SanType::URI(uri));
        }
        for name in dns {
            let name = (*name).try_into().expect("ascii");
            params.subject_alt_names.push(rcgen::SanType::DnsName(name));
        }
        let key = rcgen::KeyPair::generate().expect("key");
        params.self_signed(&key).expect("certificate").der().clone()
    }

    #[test]
    fn certificates() {
        let (one, two) = ("spiffe://rota/node/web-01", "spiffe://rota/node/web-02");
        for (uris, dns, right) in [
            (&[one][..], &["x.example"][..], Ok("node web-01")),
            (&[][..], &["web-01"][..], Err(BadIdentity::Nameless)),
            (&[][..], &[][..], Err(BadIdentity::Nameless)),
            (&[one, two][..], &[][..], Err(BadIdentity::Ambiguous(2))),
            (&["http://a"][..], &[][..], Err(BadIdentity::Foreign("http://a".into()))),
        ] {
            let got = Identity::from_certificate(&certificate(uris, dns));
            let got = got.map(|identity| identity.to_string());
            assert_eq!(got, right.map(str::to_owned), "{uris:?} {dns:?}");
        }
        let garbage = CertificateDer::from(vec![0x30, 0x80, 1, 2, 3]);
        assert_eq!(Identity::from_certificate(&garbage), Err(BadIdentity::NotACertificate));
    }
}
