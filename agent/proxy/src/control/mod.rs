//! The control protocol: how the edge's agent tells the proxy what it wants, and hears what is.
//!
//! A Unix socket, one JSON object a line. The client sends [`Call`]s, each with a number; the proxy
//! answers each with a [`Said`] of that number, in any order. After `subscribe` it also says, by
//! itself, the state of every member, and again whenever one changes:
//!
//! ```text
//! > {"id":1,"ask":{"apply":{"key":{"node":"web-01"},"address":"10.0.0.1:9000","want":"out"}}}
//! < {"answer":{"id":1,"is":{"applied":{"key":{"node":"web-01","instance":""},…}}}}
//! > {"id":2,"ask":"subscribe"}
//! < {"answer":{"id":2,"is":"subscribed"}}
//! < {"member":{"key":{"node":"web-01","instance":""},"observed":"out","in_flight":0,…}}
//! ```
//!
//! A connection that breaks changes nothing: what was applied stays in force.

use std::io;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

use crate::member::{Intent, MemberState};

mod client;
mod server;

pub use client::{CallError, Client, Subscription};
pub(crate) use server::{bind, serve};

/// A call's line. An intent is a few hundred bytes; its longest fields add up to 2 KiB.
const CALL_LEN_MAX: usize = 16 * 1024;

/// An answer's line: a list of as many members as a pool may have, at their usual size.
const SAID_LEN_MAX: usize = 8 * 1024 * 1024;

/// What the client asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the client; the answer repeats it.
    pub id: u64,
    /// The question.
    pub ask: Ask,
}

/// The questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Put this in force. Answered when it is, and when a restart would remember it.
    Apply(Intent),
    /// Every member.
    List,
    /// The counters.
    Stats,
    /// Every member, and every change from now on.
    Subscribe,
    /// Finish what is in flight and end.
    Shutdown,
}

/// What the proxy says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The answer to the call of this number.
    Answer {
        /// The call's number.
        id: u64,
        /// The answer.
        is: Answer,
    },
    /// The call of this number was refused, and nothing changed. 0: the line was no call.
    Refused {
        /// The call's number.
        id: u64,
        /// Why, for people.
        why: String,
    },
    /// A member is like this now.
    Member(MemberState),
}

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is in force; the member is like this.
    Applied(MemberState),
    /// Every member, in the order of their keys.
    Members(Vec<MemberState>),
    /// The counters.
    Stats(Stats),
    /// Every member follows, and then changes.
    Subscribed,
    /// It stops.
    Stopping,
}

/// The counters of the pool, since the proxy started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Where clients are served; the port that was picked, if 0 was asked for.
    pub listen: SocketAddr,
    /// The process.
    pub pid: u32,
    /// Requests received.
    pub requests: u64,
    /// Of those: answered by the proxy with 5xx, broken off by a member, or cut.
    pub failed: u64,
    /// Exchanges that were ended by us before they were finished, tunnels included.
    pub cut: u64,
    /// Exchanges in flight now.
    pub in_flight: u64,
    /// Requests that wait for a member now.
    pub waiting: u64,
    /// Connections to members that wait for a request now.
    pub idle: u64,
}

/// Reads one line into `line`, which must be empty or hold what a cancelled call has read before.
/// False at the end of the stream.
async fn read_line<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    line: &mut Vec<u8>,
    len_max: usize,
) -> io::Result<bool> {
    let room = (len_max + 1).saturating_sub(line.len()) as u64;
    reader.take(room).read_until(b'\n', line).await?;
    match line.last() {
        Some(b'\n') => Ok(true),
        Some(_) if line.len() > len_max => {
            let text = format!("a line is longer than {len_max} bytes");
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
        Some(_) | None => Ok(false),
    }
}

fn to_line<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}
