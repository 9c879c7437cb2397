//! Nodes that operators removed: their sessions end, and their members leave the pools as in any drain.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{info, warn};

use super::Edge;
use crate::order::Banned;
use crate::traffic::{Balancer, BalancerError, Change, Key, Member, Observed, Want};

/// How long the requests that a removed node still has may take. Then they are cut: nobody else waits for them.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(30);

impl Edge {
    /// These certificates count no more: sessions opened with them end. Who is gone from the fleet leaves the pools.
    pub fn ban(&self, banned: Vec<Banned>) {
        let serials = banned.iter().map(|it| it.serial.clone()).collect();
        self.banned.send_if_modified(|known| {
            let news = *known != serials;
            *known = serials;
            news
        });
        let gone: BTreeSet<String> =
            banned.into_iter().filter(|it| it.gone).map(|it| it.node).collect();
        for (pool, balancer) in self.pools.iter() {
            let view = Arc::clone(&balancer.view().borrow());
            for (key, member) in view.members.iter().filter(|(key, _)| gone.contains(&key.node)) {
                let (pool, balancer) = (pool.clone(), Arc::clone(balancer));
                let (key, member) = (key.clone(), member.clone());
                tokio::spawn(async move {
                    let node = key.node.clone();
                    match leave(&*balancer, key, member).await {
                        Ok(()) => info!(pool, node, "a removed node left the pool"),
                        Err(error) => warn!(pool, node, "a removed node stays: {error}"),
                    }
                });
            }
        }
    }
}

/// Out, until nothing is in flight, and then forgotten.
async fn leave(balancer: &dyn Balancer, key: Key, member: Member) -> Result<(), BalancerError> {
    let change = |want| Change {
        key: key.clone(),
        address: member.address,
        want,
        cut: false,
        health_path: None,
        version: member.version.clone(),
    };
    let mut view = balancer.view();
    balancer.apply(change(Want::Out)).await?;
    let out = view.wait_for(|view| {
        view.members.get(&key).is_none_or(|member| member.observed == Observed::Out)
    });
    if timeout(LEAVE_TIMEOUT, out).await.is_err() {
        warn!(node = key.node, "what a removed node still has in flight is cut");
    }
    balancer.apply(change(Want::Gone)).await.map(drop)
}
