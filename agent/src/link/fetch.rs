//! Brings an artifact here: from any controller, in pieces, going on where a break left it.

use std::time::Duration;

use bytes::Bytes;
use rota_proto::agent::FetchRequest;
use rota_proto::agent::fleet_client::FleetClient;
use tokio::time::timeout;
use tonic::{Code, Status};
use tracing::{debug, warn};

use super::Shared;
use crate::backoff::{Backoff, chance};
use crate::dial::{NoConnection, dial};
use crate::release::Partial;

/// How long a controller may send nothing. It reads from its own disk; more means a dead link.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(30);

/// The largest chunk, in bytes: 256 KiB of data, and its frame.
const CHUNK_MAX: usize = 512 * 1024;

/// Rounds over all controllers in which not one byte came. With the waits between them, longest
/// 30 s, this is some two minutes; then the update fails and says why.
const ROUNDS_MAX: u32 = 10;

/// Why a sink took no more.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Where the bytes go.
#[tonic::async_trait]
pub trait Sink: Send {
    /// How many bytes are here already: where to go on.
    fn have(&self) -> u64;
    /// Takes the next bytes. An error ends the fetch: the disk is full, or the size is wrong.
    async fn write(&mut self, data: Bytes) -> Result<(), Cause>;
}

#[tonic::async_trait]
impl Sink for Partial {
    fn have(&self) -> u64 {
        Partial::have(self)
    }

    async fn write(&mut self, data: Bytes) -> Result<(), Cause> {
        Ok(self.append(data).await?)
    }
}

/// Why the artifact is not here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// This host.
    #[error("cannot write the artifact")]
    Write(#[source] Cause),
    /// All controllers, for long.
    #[error("no controller could send the artifact {digest}; the last: {last}")]
    Unreachable { digest: String, last: String },
    /// A controller answers for all of them: they share one store.
    #[error("{controller} does not send the artifact {digest}: {message}")]
    Refused { controller: String, digest: String, message: String },
    /// Two controllers, two sizes.
    #[error("the artifact {digest} has {now} bytes now and had {before} before")]
    Changed { digest: String, before: u64, now: u64 },
}

/// Why one controller did not send all of it.
enum Broken {
    /// Another may.
    Next(String),
    /// None will.
    Final(FetchError),
}

/// Returns the size of the whole artifact once `sink` has all of it. The caller has the deadline,
/// and checks the digest.
pub(super) async fn fetch(
    shared: &Shared,
    digest: &str,
    sink: &mut dyn Sink,
) -> Result<u64, FetchError> {
    let mut backoff = Backoff::default();
    let mut fruitless = 0;
    let mut last = "no controller is known".to_owned();
    let mut size = None;
    while fruitless < ROUNDS_MAX {
        let before = sink.have();
        for address in shuffled(shared.addresses()) {
            match from_one(shared, &address, digest, &mut size, sink).await {
                Ok(size) => return Ok(size),
                Err(Broken::Final(error)) => return Err(error),
                Err(Broken::Next(why)) => {
                    let have = sink.have();
                    warn!(address, digest, have, "the artifact stopped coming: {why}");
                    last = format!("{address}: {why}");
                }
            }
        }
        if sink.have() > before {
            (fruitless, backoff) = (0, Backoff::default());
        } else {
            fruitless += 1;
        }
        tokio::time::sleep(backoff.after_failure(chance())).await;
    }
    Err(FetchError::Unreachable { digest: digest.to_owned(), last })
}

/// A random order, so that a fleet does not ask one controller for everything.
fn shuffled(mut addresses: Vec<String>) -> Vec<String> {
    let mut ordered = Vec::with_capacity(addresses.len());
    while !addresses.is_empty() {
        let left = addresses.len() as u64;
        let pick = usize::try_from(chance() % left).unwrap_or(0);
        ordered.push(addresses.swap_remove(pick));
    }
    ordered
}

async fn from_one(
    shared: &Shared,
    address: &str,
    digest: &str,
    known_size: &mut Option<u64>,
    sink: &mut dyn Sink,
) -> Result<u64, Broken> {
    let next = |why: NoConnection| Broken::Next(why.to_string());
    // A connection of its own: bulk data must not stand in the way of orders and heartbeats.
    let dialled = dial(address, shared.own.to_controllers()).await.map_err(next)?;
    let controller = dialled.peer.to_string();
    let refused = |status: Status| refusal(&controller, digest, &status);
    let mut client = FleetClient::new(dialled.channel).max_decoding_message_size(CHUNK_MAX);
    let asked = sink.have();
    let request = FetchRequest { digest: digest.to_owned(), offset: asked };
    let slow = |_| Broken::Next(format!("nothing came for {} s", CHUNK_TIMEOUT.as_secs()));
    let answer = timeout(CHUNK_TIMEOUT, client.fetch(request)).await.map_err(slow)?;
    let mut chunks = answer.map_err(refused)?.into_inner();
    loop {
        let chunk = timeout(CHUNK_TIMEOUT, chunks.message()).await.map_err(slow)?;
        let Some(chunk) = chunk.map_err(refused)? else {
            let have = sink.have();
            // All of it was here already: then nothing is sent, and the digest shows whether that is so.
            let whole = known_size.map_or(have > 0 && have == asked, |size| size == have);
            let early = || Broken::Next("it ended early".to_owned());
            return whole.then_some(have).ok_or_else(early);
        };
        let before = *known_size.get_or_insert(chunk.size);
        if before != chunk.size {
            let (digest, now) = (digest.to_owned(), chunk.size);
            return Err(Broken::Final(FetchError::Changed { digest, before, now }));
        }
        let data = chunk.data;
        if sink.have() + data.len() as u64 > before {
            return Err(Broken::Next(format!("it sent more than the {before} bytes it told")));
        }
        debug!(have = sink.have(), size = before, "artifact {digest}");
        sink.write(data).await.map_err(|cause| Broken::Final(FetchError::Write(cause)))?;
        if sink.have() == before {
            return Ok(before);
        }
    }
}

fn refusal(controller: &str, digest: &str, status: &Status) -> Broken {
    match status.code() {
        // A release that was removed, or was never ordered for this node.
        Code::NotFound | Code::PermissionDenied | Code::InvalidArgument => {
            let (controller, digest) = (controller.to_owned(), digest.to_owned());
            let message = status.message().to_owned();
            Broken::Final(FetchError::Refused { controller, digest, message })
        }
        _ => Broken::Next(status.message().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_keeps_everyone() {
        let addresses: Vec<String> = (0..20).map(|n| format!("c{n}:7400")).collect();
        let mut shuffled = shuffled(addresses.clone());
        shuffled.sort();
        let mut sorted = addresses;
        sorted.sort();
        assert_eq!(shuffled, sorted);
    }
}
