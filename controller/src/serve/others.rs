//! The other controllers, as those see them who copy artifacts from them.

use std::sync::Arc;

use tokio::sync::watch;

use crate::artifact::peers::{Peer, Peers};
use crate::engine::Handle;

/// The members that are in, as the engine knows them.
pub struct Others {
    engine: Handle,
    changed: watch::Sender<()>,
}

impl Others {
    /// Over this engine.
    pub fn new(engine: Handle) -> Arc<Self> {
        Arc::new(Self { engine, changed: watch::Sender::default() })
    }

    /// Tells when they change, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut moved = self.engine.changed();
        let mut known = Vec::new();
        loop {
            let now = self.others();
            if now != known {
                known = now;
                self.changed.send_replace(());
            }
            if moved.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Peers for Others {
    fn others(&self) -> Vec<Peer> {
        let state = self.engine.read();
        let members = state.cluster.iter().flat_map(|cluster| &cluster.members);
        let others = members.filter(|(name, _)| **name != state.name);
        others
            .map(|(name, member)| Peer { name: name.clone(), address: member.advertise.clone() })
            .collect()
    }

    fn lost(&self) -> Vec<String> {
        let state = self.engine.read();
        let Some(cluster) = &state.cluster else { return Vec::new() };
        let known = cluster.known.keys().filter(|name| **name != state.name);
        known.filter(|name| !cluster.members.contains_key(*name)).cloned().collect()
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
