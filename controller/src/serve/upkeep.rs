//! What goes on beside answering: edges hear who was removed, and what has ended is forgotten.

use std::sync::Arc;
use std::time::Duration;

use rota_identity::{Identity, Kind};
use tokio::time::interval;

use crate::access::{Access, now, revoked};
use crate::engine::{Handle, Input};

/// How often what has ended is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Tells the engine, and so the edges, which nodes' certificates count no more.
pub(super) async fn tell_banned(access: Arc<Access>, engine: Handle) {
    let mut revoked = access.revoked().watch();
    loop {
        let of_node = |(serial, whose): (&String, &String)| {
            let identity: Identity = whose.parse().ok()?;
            let node = identity.name().parse().ok()?;
            (identity.kind() == Kind::Node).then(|| (serial.clone(), node))
        };
        let banned = revoked.borrow_and_update().iter().filter_map(of_node).collect();
        if !engine.tell(Input::Banned(banned)).await || revoked.changed().await.is_err() {
            return;
        }
    }
}

/// Forgets revoked certificates that would have ended by themselves since.
pub(super) async fn sweep_daily(access: Arc<Access>) {
    let mut days = interval(SWEEP_EVERY);
    loop {
        days.tick().await;
        match revoked::sweep(&*access.store(), now()).await {
            Ok(0) => {}
            Ok(gone) => tracing::info!(gone, "forgot revoked certificates that have ended"),
            Err(error) => {
                tracing::warn!(%error, "cannot forget ended certificates; again tomorrow")
            }
        }
    }
}
