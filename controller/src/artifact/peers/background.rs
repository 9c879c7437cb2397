//! Every controller brings in what it lacks, one artifact after the other, when nobody waits for it.

use std::collections::BTreeSet;
use std::time::Duration;

use rota_rollout::names::Digest;
use tokio::sync::watch;

use super::{Artifacts, NotBrought, Pace};

/// After a round that left something out. The longest is short enough for a controller that comes back without a word.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

impl Artifacts {
    /// Brings in what is wanted and not here, at once when that changes or another controller comes; until whoever
    /// wants it is gone.
    pub async fn bring_in(self, mut wanted: watch::Receiver<BTreeSet<Digest>>) {
        let mut peers = self.peers.changed();
        let mut pause = AGAIN_AFTER.0;
        loop {
            peers.mark_unchanged();
            let all = wanted.borrow_and_update().clone();
            let left = self.round(all, &mut wanted).await;
            let again = async {
                match left {
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                changed = wanted.changed() => match changed {
                    Ok(()) => pause = AGAIN_AFTER.0,
                    Err(_) => return,
                },
                // Whose list never changes is pending for ever.
                Ok(()) = peers.changed() => pause = AGAIN_AFTER.0,
                () = again => pause = (pause * 2).min(AGAIN_AFTER.1),
            }
        }
    }

    /// Goes through what is wanted once; says how much of it is still not here.
    async fn round(
        &self,
        all: BTreeSet<Digest>,
        wanted: &mut watch::Receiver<BTreeSet<Digest>>,
    ) -> usize {
        let mut left = 0;
        for digest in all {
            // A release that was removed meanwhile is not worth its bytes.
            if !wanted.borrow().contains(&digest) {
                continue;
            }
            match self.bring(&digest, Pace::Leisurely).await {
                Ok(()) => {}
                Err(error @ NotBrought::Here { .. }) => {
                    tracing::warn!("{error}; it is tried again");
                    left += 1;
                }
                Err(error @ (NotBrought::Nowhere(_) | NotBrought::Unreachable { .. })) => {
                    tracing::debug!("{error}; it is tried again");
                    left += 1;
                }
            }
        }
        left
    }
}
