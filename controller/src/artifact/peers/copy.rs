//! One copy: from one controller after the other, until the artifact is whole here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rota_identity::{Expect, Identity, Kind};
use rota_proto::controller::FetchRequest;
use rota_proto::controller::copies_client::CopiesClient;
use rota_rollout::names::Digest;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{Artifacts, NotBrought, Peer, Told, here};
use crate::artifact::store::{ArtifactError, Upload};
use crate::errors::chain;

/// For TCP and TLS with one controller. They are in one network, and there may be another one to ask.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a controller may send nothing. It reads from its own disk; more means a dead link.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// The largest chunk, in bytes: 256 KiB of data, and its frame.
const CHUNK_MAX: usize = 512 * 1024;

/// What a copy takes of the link when nobody waits for it: a quarter of a gigabit, 100 MiB in three seconds.
const LEISURELY_BYTES_PER_S: u32 = 32 << 20;

/// One copy that runs.
pub(super) struct Copy {
    pub artifacts: Artifacts,
    pub digest: Digest,
    /// The name of whom to ask before the others.
    pub first: Option<String>,
    /// Set when somebody waits for it.
    pub hurry: Arc<AtomicBool>,
    pub tell: watch::Sender<Told>,
}

/// Why one controller did not send all of it.
enum Broken {
    /// It lacks it.
    Missing,
    /// It sent other bytes.
    Wrong(String),
    /// Another one may do better.
    Next(String),
    /// This controller's disk: no other one will help.
    Here(NotBrought),
}

impl Copy {
    /// To its end, whatever that is; everybody who waits hears of it.
    pub async fn run(self) {
        let turn = self.artifacts.turns.acquire().await;
        let ended = match &turn {
            Ok(_) => self.by_all().await,
            // Nobody closes it; a copy that cannot begin has ended all the same.
            Err(closed) => Err(self.unreachable(closed.to_string())),
        };
        drop(turn);
        match &ended {
            Ok(()) => tracing::info!(digest = self.digest.short(), "copied an artifact"),
            Err(error) => tracing::debug!("{error}"),
        }
        self.tell.send_modify(|told| told.ended = Some(ended));
    }

    fn unreachable(&self, last: String) -> NotBrought {
        NotBrought::Unreachable { digest: self.digest.clone(), last }
    }

    async fn have(&self) -> Result<u64, NotBrought> {
        let state = self.artifacts.here.state(&self.digest).await;
        state.map(|state| state.have).map_err(|error| here(&self.digest, &error))
    }

    /// Round after round over the other controllers, while each round brings something.
    async fn by_all(&self) -> Result<(), NotBrought> {
        let mut wrong = BTreeSet::new();
        loop {
            let before = self.have().await?;
            let mut last = None;
            for peer in self.in_order() {
                if wrong.contains(&peer.name) {
                    continue;
                }
                let why = match self.by_one(&peer).await {
                    Ok(()) => return Ok(()),
                    Err(Broken::Here(error)) => return Err(error),
                    Err(Broken::Missing) => continue,
                    Err(Broken::Next(why)) => why,
                    Err(Broken::Wrong(why)) => {
                        wrong.insert(peer.name.clone());
                        why
                    }
                };
                let (peer, digest) = (&peer.name, self.digest.short());
                tracing::warn!(peer, digest, "an artifact stopped coming: {why}");
                last = Some(format!("controller {peer}: {why}"));
            }
            if self.have().await? > before {
                continue;
            }
            return Err(match last {
                Some(last) => self.unreachable(last),
                None => NotBrought::Nowhere(self.digest.clone()),
            });
        }
    }

    /// The one that is to be asked first, then the others from a place that differs by artifact: several controllers
    /// that lack many do not all ask one.
    fn in_order(&self) -> Vec<Peer> {
        let mut peers = self.artifacts.peers.others();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        if !peers.is_empty() {
            let start = self.digest.as_str().bytes().map(usize::from).sum::<usize>() % peers.len();
            peers.rotate_left(start);
        }
        peers.sort_by_key(|peer| self.first.as_ref() != Some(&peer.name));
        peers
    }

    async fn by_one(&self, peer: &Peer) -> Result<(), Broken> {
        let offset = self.have().await.map_err(Broken::Here)?;
        let mut client = self.artifacts.dial(peer).await.map_err(Broken::Next)?;
        let request = FetchRequest { digest: self.digest.to_string(), offset };
        let slow = |_| Broken::Next(format!("nothing came for {} s", SILENCE.as_secs()));
        let answer = timeout(SILENCE, client.fetch(request)).await.map_err(slow)?;
        let mut chunks = answer.map_err(refusal)?.into_inner();
        let mut next = timeout(SILENCE, chunks.message()).await.map_err(slow)?.map_err(refusal)?;
        // Where all bytes are here already, none come.
        let size = next.as_ref().map_or(offset, |chunk| chunk.size);
        let begun = self.artifacts.here.begin(&self.digest, size, offset).await;
        let mut upload = match begun {
            Err(ArtifactError::Complete { .. }) => return Ok(()),
            begun => begun.map_err(|error| self.broken(&error))?,
        };
        let mut due = Instant::now();
        while let Some(chunk) = next {
            let bytes = u32::try_from(chunk.data.len()).unwrap_or(u32::MAX);
            upload.write(chunk.data).await.map_err(|error| self.broken(&error))?;
            self.tell.send_modify(|told| (told.have, told.moves) = (upload.have(), true));
            if !self.hurry.load(Ordering::Relaxed) {
                let pause = Duration::from_secs(1) * bytes / LEISURELY_BYTES_PER_S;
                due = due.max(Instant::now()) + pause;
                sleep_until(due).await;
            }
            next = timeout(SILENCE, chunks.message()).await.map_err(slow)?.map_err(refusal)?;
        }
        self.finish(upload, size).await
    }

    async fn finish(&self, upload: Upload, size: u64) -> Result<(), Broken> {
        let have = upload.have();
        if have < size {
            return Err(Broken::Next(format!("it ended at byte {have} of {size}")));
        }
        upload.finish().await.map_err(|error| self.broken(&error))
    }

    fn broken(&self, error: &ArtifactError) -> Broken {
        match error {
            ArtifactError::WrongDigest { found, .. } => {
                Broken::Wrong(format!("what came has the digest {found}; it is removed"))
            }
            ArtifactError::TooMuch { .. }
            | ArtifactError::Size { .. }
            | ArtifactError::Offset { .. }
            | ArtifactError::TooLittle { .. }
            | ArtifactError::BeyondEnd { .. } => Broken::Next(chain(error)),
            ArtifactError::Missing { .. }
            | ArtifactError::Complete { .. }
            | ArtifactError::Busy { .. }
            | ArtifactError::NoSpace { .. }
            | ArtifactError::Broken { .. }
            | ArtifactError::Io { .. } => Broken::Here(here(&self.digest, error)),
        }
    }
}

impl Drop for Copy {
    /// However it ended: the next one begins anew.
    fn drop(&mut self) {
        self.artifacts.running.lock().remove(&self.digest);
    }
}

fn refusal(status: Status) -> Broken {
    match status.code() {
        Code::NotFound => Broken::Missing,
        _ => Broken::Next(said(&status)),
    }
}

/// What another controller said, or why it said nothing.
pub(super) fn said(status: &Status) -> String {
    crate::errors::view(status).message
}

impl Artifacts {
    /// A connection to another controller, and to no other than this one. In words, why there is none.
    pub(super) async fn dial(&self, peer: &Peer) -> Result<CopiesClient<Channel>, String> {
        let who = Identity::new(Kind::Controller, &peer.name).map_err(|bad| bad.to_string())?;
        let config = self.dialer.config(Expect::Exactly(who)).map_err(|bad| bad.to_string())?;
        let dialled = timeout(DIAL_TIMEOUT, rota_identity::connect(&peer.address, config)).await;
        match dialled {
            Ok(Ok(channel)) => Ok(CopiesClient::new(channel).max_decoding_message_size(CHUNK_MAX)),
            Ok(Err(error)) => {
                Err(rota_identity::reason(&error).unwrap_or_else(|| error.to_string()))
            }
            Err(_) => {
                Err(format!("{} did not answer within {} s", peer.address, DIAL_TIMEOUT.as_secs()))
            }
        }
    }
}
