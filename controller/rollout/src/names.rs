//! What things are called. Every name is checked once, here; afterwards its type vouches for it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    /// What kind of name it should have been.
    pub what: &'static str,
    /// The text as given.
    pub text: String,
    /// What would be right.
    pub rule: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not {}: {}", self.text, self.what, self.rule)
    }
}

impl std::error::Error for BadName {}

/// The rule of every DNS label (RFC 1123), in words.
pub const LABEL_RULE: &str =
    "use 1 to 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit";

/// Is `text` a DNS label (RFC 1123, lower case)?
pub fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_version(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || b".-_+".contains(&c);
    (1..=64).contains(&text.len())
        && text.bytes().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:path, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The text of the name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                if $check(&text) {
                    Ok(Self(text))
                } else {
                    Err(BadName { what: $what, text, rule: $rule })
                }
            }
        }

        impl FromStr for $type {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// An app: a DNS label.
    AppName, "an app's name", is_label, LABEL_RULE
);
name!(
    /// An environment: a DNS label.
    EnvName, "an environment's name", is_label, LABEL_RULE
);
name!(
    /// A node: a DNS label.
    NodeName, "a node's name", is_label, LABEL_RULE
);
name!(
    /// A controller: a DNS label.
    ControllerName, "a controller's name", is_label, LABEL_RULE
);
name!(
    /// A version of an app, as its makers call it.
    Version,
    "a version",
    is_version,
    "use 1 to 64 letters, digits, `.`, `-`, `_` and `+`, beginning with a letter or digit"
);
name!(
    /// SHA-256 of an artifact, as `sha256sum` prints it.
    Digest, "a SHA-256 digest", is_digest, "use 64 hexadecimal digits in lower case"
);

impl Digest {
    /// The first 12 digits, enough for people and for folder names.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $type:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $type(pub $int);

        impl $type {
            /// The number after this one.
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// Numbers the rollouts of one app in one environment, from 1.
    Revision, u64
);
number!(
    /// Numbers the owners of a rollout; a higher one fences all lower ones.
    Term, u64
);
number!(
    /// The n-th time a node is asked to do this rollout's update; 0 before the first.
    Attempt, u32
);

/// Milliseconds since the Unix epoch, by the controller's clock. It comes in with events.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// This time and `span` later.
    pub fn after(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long ago `earlier` was; zero when it is later than this.
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

/// A length of time in milliseconds.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }
}

impl fmt::Display for Span {
    /// As the manifest writes it: `200ms`, `10s`, `5m`, `1h`; mixed where it must be (`1m30s`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes) = (self.0 / 3_600_000, self.0 / 60_000 % 60);
        let (seconds, millis) = (self.0 / 1000 % 60, self.0 % 1000);
        if self.0 < 1000 && self.0 > 0 {
            return write!(f, "{millis}ms");
        }
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        match (seconds, millis) {
            (0, 0) if hours + minutes > 0 => Ok(()),
            (_, 0) => write!(f, "{seconds}s"),
            _ => write!(f, "{seconds}.{:03}s", millis).map(|()| ()),
        }
    }
}

/// One release, as nodes and people name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Release {
    /// What its makers call it.
    pub version: Version,
    /// What it is, to the bit.
    pub digest: Digest,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.version.as_str())
    }
}

/// `APP/ENV/REVISION`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RolloutId {
    /// What is rolled out.
    pub app: AppName,
    /// Where.
    pub env: EnvName,
    /// The how-manieth movement there.
    pub revision: Revision,
}

impl fmt::Display for RolloutId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.app, self.env, self.revision)
    }
}

impl FromStr for RolloutId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            what: "a rollout",
            text: text.to_owned(),
            rule: "write APP/ENV/REVISION, for example `shop/prod/14`",
        };
        let mut parts = text.split('/');
        let (Some(app), Some(env), Some(revision), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let revision = revision.parse().map(Revision).map_err(|_| bad())?;
        Ok(Self { app: app.parse()?, env: env.parse()?, revision })
    }
}

impl TryFrom<String> for RolloutId {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<RolloutId> for String {
    fn from(id: RolloutId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let long = "a".repeat(64);
        for (text, right) in [
            ("a", true),
            ("web-01", true),
            ("0", true),
            (&long[..63], true),
            (&long[..], false),
            ("", false),
            ("-a", false),
            ("a-", false),
            ("Web", false),
            ("a.b", false),
            ("a_b", false),
            ("ä", false),
            ("..", false),
        ] {
            assert_eq!(is_label(text), right, "{text:?}");
        }
    }

    #[test]
    fn versions() {
        for (text, right) in [
            ("1.0.3", true),
            ("v2", true),
            ("2026-11-24_rc.1+build", true),
            ("", false),
            (".", false),
            ("..", false),
            ("../etc", false),
            ("1 0", false),
            ("-1", false),
        ] {
            assert_eq!(Version::from_str(text).is_ok(), right, "{text:?}");
        }
    }

    #[test]
    fn spans_print_as_the_manifest_writes_them() {
        for (ms, text) in [
            (0, "0s"),
            (200, "200ms"),
            (10_000, "10s"),
            (300_000, "5m"),
            (3_600_000, "1h"),
            (90_000, "1m30s"),
            (1_500, "1.500s"),
        ] {
            assert_eq!(Span(ms).to_string(), text);
        }
    }

    #[test]
    fn rollout_ids() {
        assert_eq!(
            "shop/prod/14".parse::<RolloutId>().map(|id| id.to_string()).as_deref(),
            Ok("shop/prod/14")
        );
        for text in ["shop/prod", "shop/prod/x", "shop/prod/1/2", "Shop/prod/1", "/prod/1"] {
            assert!(text.parse::<RolloutId>().is_err(), "{text}");
        }
    }
}
