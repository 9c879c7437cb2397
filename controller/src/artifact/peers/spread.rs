//! A new artifact goes to another controller before a release is made of it: the loss of one disk loses nothing.

use rota_proto::controller::KeepRequest;
use rota_rollout::names::Digest;
use tokio::time::timeout;

use super::copy::{SILENCE, said};
use super::{Artifacts, Peer};

/// Where else an artifact is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spread {
    /// There is no other controller.
    Alone,
    /// Verified and durable at this one, too.
    On(String),
    /// Nowhere else; what the others said.
    Nowhere(Vec<String>),
}

impl Artifacts {
    /// Asks one other controller after the other to keep an artifact that is here, until one does; `first` before the
    /// others. Each may take as long as it needs, but not stand still.
    pub async fn spread(&self, digest: &Digest, first: Option<&str>) -> Spread {
        let mut peers = self.peers.others();
        peers.sort_by_key(|peer| first != Some(&peer.name));
        let lost = self.peers.lost();
        if peers.is_empty() && lost.is_empty() {
            return Spread::Alone;
        }
        let mut said: Vec<String> =
            lost.into_iter().map(|name| format!("controller {name}: lost")).collect();
        for peer in peers {
            match self.kept(&peer, digest).await {
                Ok(()) => return Spread::On(peer.name),
                Err(why) => {
                    let digest = digest.short();
                    tracing::warn!(peer = peer.name, digest, "it keeps no copy: {why}");
                    said.push(format!("controller {}: {why}", peer.name));
                }
            }
        }
        Spread::Nowhere(said)
    }

    async fn kept(&self, peer: &Peer, digest: &Digest) -> Result<(), String> {
        let mut client = self.dial(peer).await?;
        let slow = |_| format!("nothing came for {} s", SILENCE.as_secs());
        let request = KeepRequest { digest: digest.to_string() };
        let answer = timeout(SILENCE, client.keep(request)).await.map_err(slow)?;
        let mut told = answer.map_err(|status| said(&status))?.into_inner();
        let (mut have, mut since) = (0, tokio::time::Instant::now());
        loop {
            let next = timeout(SILENCE, told.message()).await.map_err(slow)?;
            let Some(kept) = next.map_err(|status| said(&status))? else {
                return Err("it ended early".to_owned());
            };
            if kept.whole {
                return Ok(());
            }
            if kept.have > have {
                (have, since) = (kept.have, tokio::time::Instant::now());
            } else if since.elapsed() > SILENCE {
                return Err(format!("its copy stands still at byte {have}"));
            }
        }
    }
}
