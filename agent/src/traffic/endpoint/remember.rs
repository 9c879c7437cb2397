//! Who polls is kept on disk, so that a restart of the agent in the middle of a drain forgets no load balancer that has
//! not come back yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::sleep_until;
use tracing::error;

use super::{App, Pollers, Shared};
use crate::journal::Journal;

/// The journal's record of who polls.
pub(super) const POLLERS: &str = "node.pollers";

/// Notices who polls no more, and keeps on disk who polls.
pub(super) async fn keep(shared: Arc<Shared>, journal: Journal) {
    let mut moved = shared.moved.subscribe();
    loop {
        moved.borrow_and_update();
        let next = {
            let now = shared.now();
            let mut apps = shared.apps();
            apps.by_name.values_mut().for_each(|entry| entry.polls.forget(now));
            apps.by_name.values().filter_map(|entry| entry.polls.next_to_go()).min()
        };
        let known = shared.known();
        if !are_alike(&known, &shared.pollers.borrow()) {
            shared.pollers.send_replace(known.clone());
            if let Err(error) = journal.put(POLLERS, &known).await {
                error!("who polls is not remembered: {error}");
            }
        }
        let next = next.map(|at| shared.after(at));
        tokio::select! {
            changed = moved.changed() => if changed.is_err() { return },
            () = async { match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            } } => {}
        }
    }
}

impl Shared {
    /// Who polls; whoever came once may have been somebody who looked.
    fn known(&self) -> Pollers {
        let apps = self.apps();
        let of = |entry: &App| {
            let regular = entry.polls.who().filter(|(_, gap)| *gap > 0);
            regular.map(|(name, gap)| (name.to_owned(), gap)).collect::<BTreeMap<_, _>>()
        };
        let each = apps.by_name.iter().map(|(app, entry)| (app.clone(), of(entry)));
        each.filter(|(_, pollers)| !pollers.is_empty()).collect()
    }
}

/// The same pollers, at about the same intervals: it is not worth a write that one came a little late.
fn are_alike(one: &Pollers, other: &Pollers) -> bool {
    let alike = |a: &BTreeMap<String, u64>, b: &BTreeMap<String, u64>| {
        a.len() == b.len()
            && a.iter().all(|(name, gap)| {
                b.get(name).is_some_and(|known| gap / 2 <= *known && known / 2 <= *gap)
            })
    };
    one.len() == other.len()
        && one
            .iter()
            .all(|(app, pollers)| other.get(app).is_some_and(|known| alike(pollers, known)))
}
