//! The words of a pool: who a member is, what is wanted of it, and what it is seen to do.
//!
//! These are plain data, the same in the control protocol, in the state file and in the pool.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Members of one pool. A choice looks at each of them, which at this number still takes
/// microseconds; far above what one edge process can serve.
pub const MEMBERS_MAX: usize = 4096;

/// A name in a member's key: the longest DNS name.
pub const NAME_LEN_MAX: usize = 253;

/// A health check's path. Paths are short; this bounds the state file and the control lines.
pub const HEALTH_PATH_LEN_MAX: usize = 1024;

/// Which member of the pool: a node, and an instance on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The node's name.
    pub node: String,
    /// Empty for the node's only instance; start-first has a second one beside it.
    #[serde(default)]
    pub instance: String,
}

impl Key {
    /// The key of an instance on a node.
    pub fn new(node: &str, instance: &str) -> Self {
        Self { node: node.to_owned(), instance: instance.to_owned() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.instance.is_empty() {
            write!(f, "{}", self.node)
        } else {
            write!(f, "{}/{}", self.node, self.instance)
        }
    }
}

/// What the member should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// Serve, once its health check passed.
    In,
    /// Take no new requests; finish those in flight.
    Out,
    /// Be forgotten; what is still in flight is cut and counted.
    Gone,
}

/// What the member is seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Observed {
    /// It takes new requests.
    In,
    /// It is wanted in, but its health check has not passed yet, or not any more.
    Joining,
    /// It takes no new requests; some are in flight, or a connection to it is not closed yet.
    Draining,
    /// It takes no new requests, none is in flight, and no connection to it is open.
    Out,
    /// It is not a member.
    Absent,
}

/// What somebody wants of one member. It says what should be, so a repeat changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// Which member.
    pub key: Key,
    /// Where its app listens. Another address than before makes it join anew.
    pub address: SocketAddr,
    /// What it should do.
    pub want: Want,
    /// With [`Want::Out`]: end what is in flight now, and count it.
    #[serde(default)]
    pub cut: bool,
    /// The path of the active health check, which passes with 2xx; empty: a TCP connect.
    #[serde(default)]
    pub health_path: String,
    /// What runs there, for people.
    #[serde(default)]
    pub version: String,
}

impl Intent {
    /// Can it be put in force?
    pub fn check(&self) -> Result<(), Refused> {
        let Key { node, instance } = &self.key;
        if node.is_empty() || node.len() > NAME_LEN_MAX || instance.len() > NAME_LEN_MAX {
            return Err(Refused::Name);
        }
        let path = &self.health_path;
        let visible = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
        let is_path = path.is_empty() || (path.starts_with('/') && visible);
        if !is_path || path.len() > HEALTH_PATH_LEN_MAX {
            return Err(Refused::HealthPath(path.clone()));
        }
        if self.address.port() == 0 || self.address.ip().is_unspecified() {
            return Err(Refused::Address(self.address));
        }
        if self.cut && self.want == Want::In {
            return Err(Refused::CutWithIn);
        }
        Ok(())
    }
}

/// Why an intent was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A member must have a node's name.
    #[error("a member needs the name of its node, of 1 to {NAME_LEN_MAX} bytes")]
    Name,
    /// The path does not begin with a slash, is too long, or has characters that no path has.
    #[error(
        "health path {0:?} is not `/` and visible ASCII, or is longer than {HEALTH_PATH_LEN_MAX}"
    )]
    HealthPath(String),
    /// Nobody can be asked at this address.
    #[error("address {0} cannot be connected to")]
    Address(SocketAddr),
    /// Cutting a member that should serve makes no sense.
    #[error("cut goes with want out, not with want in")]
    CutWithIn,
    /// No room.
    #[error("the pool has {MEMBERS_MAX} members, which is the limit")]
    Full,
}

/// One member as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberState {
    /// Which member.
    pub key: Key,
    /// Where its app listens.
    pub address: SocketAddr,
    /// What was last wanted.
    pub want: Want,
    /// What it does.
    pub observed: Observed,
    /// Requests and upgraded connections that were assigned to it and have not ended.
    pub in_flight: u64,
    /// Of those, how many were ended by us since it last joined.
    pub cut: u64,
    /// The path of its health check; empty: a TCP connect.
    pub health_path: String,
    /// What runs there, for people.
    pub version: String,
    /// Why the last health check or connection failed; empty when it did not.
    pub failure: String,
}
