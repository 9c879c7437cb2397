//! What a release says of the way back from it: the fence.

use std::fmt;

use rota_rollout::names::Version;
use semver::VersionReq;
use serde::{Deserialize, Serialize};

/// `[compatibility]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    /// The number of the data's form that this release writes.
    pub schema: Option<u32>,
    /// Which releases may come after this one that are older.
    pub rollback_to: Option<Fence>,
}

/// Which older releases one may go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fence {
    /// Those whose version matches.
    Version(VersionReq),
    /// Those that declare at least this schema.
    Schema(u32),
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(wanted) => write!(f, "rollback_to = \"{wanted}\""),
            Self::Schema(least) => write!(f, "rollback_to = {least}"),
        }
    }
}

impl Compatibility {
    /// What is wrong with going back to this older release; `None`: nothing.
    pub fn forbids(&self, version: &Version, its: &Self) -> Option<String> {
        match self.rollback_to.as_ref()? {
            Fence::Version(wanted) => match semantic(version) {
                Some(version) if wanted.matches(&version) => None,
                Some(_) => Some(format!("{version} does not match")),
                None => Some(format!("{version} is no semantic version")),
            },
            Fence::Schema(least) => match its.schema {
                Some(schema) if schema >= *least => None,
                Some(schema) => Some(format!("{version} has schema {schema}")),
                None => Some(format!("{version} declares no schema")),
            },
        }
    }

    /// Is the second release older than the first? By its schema, else by the semantic version; `None`: neither says.
    pub fn is_older(&self, version: &Version, other: &Version, its: &Self) -> Option<bool> {
        if let (Some(mine), Some(theirs)) = (self.schema, its.schema)
            && theirs < mine
        {
            return Some(true);
        }
        Some(semantic(other)? < semantic(version)?)
    }
}

/// Reads `1.2.3`, and `v1.2.3` too.
pub fn semantic(version: &Version) -> Option<semver::Version> {
    let text = version.as_str();
    semver::Version::parse(text.strip_prefix('v').unwrap_or(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_fence_lets_through() {
        let schema = |schema, fence| Compatibility { schema, rollback_to: fence };
        let version = |text: &str| Some(Fence::Version(text.parse().unwrap()));
        for (fence, to, its, why) in [
            (version(">=1.0.0"), "1.0.0", None, None),
            (version(">=1.0.0"), "v1.9.3", None, None),
            (version(">=1.0.0"), "0.9.0", None, Some("0.9.0 does not match")),
            (version("1.4"), "1.3.9", None, Some("1.3.9 does not match")),
            (version(">=1.0.0"), "build-7", None, Some("build-7 is no semantic version")),
            (Some(Fence::Schema(6)), "0.1.0", Some(6), None),
            (Some(Fence::Schema(6)), "0.1.0", Some(5), Some("0.1.0 has schema 5")),
            (Some(Fence::Schema(6)), "0.1.0", None, Some("0.1.0 declares no schema")),
            (None, "0.1.0", None, None),
        ] {
            let found = schema(Some(7), fence).forbids(&to.parse().unwrap(), &schema(its, None));
            assert_eq!(found.as_deref(), why, "{to}");
        }
    }

    #[test]
    fn which_of_two_is_older() {
        for (mine, schema, other, its, older) in [
            ("2.0.0", None, "1.9.0", None, Some(true)),
            ("2.0.0", None, "2.0.1", None, Some(false)),
            ("2.0.0", None, "2.0.0-rc.1", None, Some(true)),
            ("2.0.0", Some(7), "2.1.0", Some(6), Some(true)),
            ("2.0.0", Some(7), "2.1.0", Some(8), Some(false)),
            ("build-8", Some(7), "build-7", Some(6), Some(true)),
            ("build-8", None, "build-7", None, None),
        ] {
            let of = |schema| Compatibility { schema, rollback_to: None };
            let (mine, other): (Version, Version) = (mine.parse().unwrap(), other.parse().unwrap());
            assert_eq!(of(schema).is_older(&mine, &other, &of(its)), older, "{mine} {other}");
        }
    }
}
