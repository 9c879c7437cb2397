//! Tokens: how somebody new proves that it was invited, and knows that it reached the right
//! controller.
//!
//! `rota-agent-ID-SECRET-FINGERPRINT`: whom it is for, 8 bytes that name it, 32 random bytes, and
//! the SHA-256 of the CA's certificate; all hexadecimal in lower case, so that it survives shells,
//! URLs, mails and cloud-init. Being last, the fingerprint shows when a token was cut short in
//! copying.

use std::fmt;
use std::str::FromStr;

use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;

use crate::certificate::{Fingerprint, NotHex, hex, sha256, unhex};
use crate::keys::NoRandomness;
use crate::name::{Kind, clip};

/// The bytes of a token's id: enough that no two live tokens share one, short enough to type after
/// `rota token rm`.
const ID_BYTES: usize = 8;
/// The bytes of its secret: beyond guessing.
const SECRET_BYTES: usize = 32;

/// One invitation, as its bearer has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What its bearer may become.
    pub kind: Kind,
    /// What `rota token ls` shows: 16 hexadecimal digits, no secret.
    pub id: String,
    /// What its bearer knows.
    pub secret: Secret,
    /// The CA of the controllers that will accept it.
    pub ca: Fingerprint,
}

/// Random bytes that only the bearer of a token knows. Never printed except as part of the token
/// itself.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// What a controller stores. The secret has 256 random bits, so that one round of SHA-256 is
    /// enough.
    pub fn hash(&self) -> [u8; 32] {
        sha256(&self.0)
    }

    /// Is this the secret with that hash? Takes the same time whether or not it is.
    pub fn matches(&self, hash: &[u8; 32]) -> bool {
        self.hash().ct_eq(hash).into()
    }

    /// The bytes, for deriving keys from them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.hash())
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Token {
    /// A new one.
    pub fn generate(kind: Kind, ca: Fingerprint) -> Result<Self, NoRandomness> {
        let (mut id, mut secret) = ([0; ID_BYTES], [0; SECRET_BYTES]);
        let random = SystemRandom::new();
        random.fill(&mut id).map_err(|_| NoRandomness)?;
        random.fill(&mut secret).map_err(|_| NoRandomness)?;
        Ok(Self { kind, id: hex(&id), secret: Secret(secret), ca })
    }

    /// What its bearer pastes: the only place where the secret becomes text.
    pub fn reveal(&self) -> String {
        let Self { kind, id, secret, ca } = self;
        format!("rota-{}-{id}-{}-{ca}", kind.token_word(), hex(&secret.0))
    }

    /// The token in `text`, if it is one for a `kind`.
    pub fn parse_for(text: &str, kind: Kind) -> Result<Self, BadToken> {
        let token: Self = text.parse()?;
        if token.kind == kind {
            Ok(token)
        } else {
            Err(BadToken::WrongKind { is: token.kind, wanted: kind })
        }
    }
}

/// Why a text is not a token that can be used. Never repeats the text: it may be a secret with a
/// typing error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Empty, or only blanks.
    #[error("the token is empty: make one with `rota token create`")]
    Empty,
    /// Something else entirely.
    #[error("this is not a token of rota: a token begins with `rota-`, for example `rota-agent-…`")]
    NotAToken,
    /// `rota-KIND` with an unknown KIND.
    #[error("this is a token for `{0}`, which this version of rota does not know")]
    UnknownKind(String),
    /// The end is missing.
    #[error(
        "this token is cut short: it has {got} characters and should have {want}; copy it again"
    )]
    Short { got: usize, want: usize },
    /// There is more than a token.
    #[error(
        "this token is too long: it has {got} characters and should have {want}; copy it again"
    )]
    Long { got: usize, want: usize },
    /// A character that no token has.
    #[error("this token is damaged: its {part} is not hexadecimal; copy it again")]
    Damaged { part: &'static str },
    /// A good token, for something else.
    #[error(
        "this is a token for {}, but {} is joining: make the right one with `rota token create \
         --for {}`",
        .is.with_article(), .wanted.with_article(), .wanted.token_word()
    )]
    WrongKind { is: Kind, wanted: Kind },
}

/// The length of the three hexadecimal parts and the dashes before them.
const HEX_LENGTH: usize = 3 + 2 * (ID_BYTES + SECRET_BYTES + 32);

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        if text.is_empty() {
            return Err(BadToken::Empty);
        }
        let rest = text.strip_prefix("rota-").ok_or(BadToken::NotAToken)?;
        let (word, rest) = rest.split_once('-').unwrap_or((rest, ""));
        let Some(kind) = Kind::from_token_word(word) else {
            let cut = rest.is_empty() && Kind::ALL.iter().any(|k| k.token_word().starts_with(word));
            return Err(if cut { BadToken::NotAToken } else { BadToken::UnknownKind(clip(word)) });
        };
        let (got, want) = (text.chars().count(), "rota-".len() + word.len() + HEX_LENGTH);
        if got < want {
            return Err(BadToken::Short { got, want });
        }
        if got > want {
            return Err(BadToken::Long { got, want });
        }
        let mut parts = rest.split('-');
        let mut part = |part: &'static str| parts.next().ok_or(BadToken::Damaged { part });
        let id: [u8; ID_BYTES] = damaged("id", unhex(part("id")?))?;
        let secret = damaged("secret", unhex(part("secret")?))?;
        let ca = damaged("fingerprint", unhex(part("fingerprint")?))?;
        Ok(Self { kind, id: hex(&id), secret: Secret(secret), ca: Fingerprint(ca) })
    }
}

fn damaged<T>(part: &'static str, result: Result<T, NotHex>) -> Result<T, BadToken> {
    result.map_err(|NotHex| BadToken::Damaged { part })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(kind: Kind) -> Token {
        Token {
            kind,
            id: "00112233445566ff".into(),
            secret: Secret([0xab; SECRET_BYTES]),
            ca: Fingerprint([0xcd; 32]),
        }
    }

    #[test]
    fn text_and_back() {
        for kind in Kind::ALL {
            let made = Token::generate(kind, Fingerprint([7; 32])).expect("random");
            assert_eq!(made.reveal().parse(), Ok(made.clone()));
            assert_eq!(format!("\n  {}  ", made.reveal()).parse(), Ok(made));
        }
        assert_ne!(
            Token::generate(Kind::Node, Fingerprint([7; 32])).expect("random").secret,
            Token::generate(Kind::Node, Fingerprint([7; 32])).expect("random").secret,
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = token(Kind::Node).reveal();
        let damage = |from: &str, to: &str| good.replacen(from, to, 1);
        for (text, right) in [
            ("", "the token is empty"),
            (" \n", "the token is empty"),
            ("hunter2", "not a token of rota"),
            ("rota", "not a token of rota"),
            ("rota-", "not a token of rota"),
            ("rota-age", "not a token of rota"),
            ("rota-robot-1234", "a token for `robot`"),
            ("rota-agent", "cut short: it has 10 characters and should have 157"),
            (&good[..good.len() - 1], "cut short: it has 156 characters and should have 157"),
            (&good[..40], "cut short"),
            (&format!("{good}0"), "too long: it has 158 characters"),
            (&format!("{good} --name x"), "too long"),
            (&damage("00112233", "0011223x"), "its id is not hexadecimal"),
            (&damage("abab", "ABAB"), "its secret is not hexadecimal"),
            (&damage("cdcd", "cd-d"), "its fingerprint is not hexadecimal"),
            (&damage("abab", "ab\u{e4}b"), "its secret is not hexadecimal"),
        ] {
            let error = text.parse::<Token>().expect_err(text).to_string();
            assert!(error.contains(right), "{text}: {error}");
            assert!(!error.contains("abab"), "the secret is in {error}");
        }
    }

    #[test]
    fn a_token_of_another_kind_names_both() {
        let text = token(Kind::Operator).reveal();
        let error = Token::parse_for(&text, Kind::Node).expect_err("another kind").to_string();
        assert_eq!(
            error,
            "this is a token for an operator, but an agent is joining: make the right one with \
             `rota token create --for agent`"
        );
        assert!(Token::parse_for(&text, Kind::Operator).is_ok());
    }

    #[test]
    fn secrets_are_not_printed_and_compare_by_hash() {
        let token = token(Kind::Edge);
        let text = format!("{token:?}");
        assert!(!text.contains("abab") && !text.contains("171"), "{text}");
        assert!(token.secret.matches(&token.secret.hash()));
        assert!(!token.secret.matches(&[0; 32]));
    }
}
