//! What is kept of the past: a limited number of releases, and of rollouts that are over. A year of deploys must grow
//! neither the store nor the memory of a controller.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::names::{AppName, Digest, EnvName, Release, Revision, RolloutId, Version};
use serde_json::json;

use super::batch::Answer;
use super::carry::NewEvent;
use super::records::{FleetRecord, keys};
use super::{Ask, Asked, Handle, State, Turn, load_ended};
use crate::store::{Op, Record, Store, StoreError, Txn, scan_all};
use crate::view::ErrorView;

/// Lines of the history that are kept of each app in each environment, about 300 bytes each: years of daily deploys.
pub const HISTORY_KEPT: u64 = 2_000;

/// Keys that are removed in one transaction; etcd takes 128 by default.
const OPS_MAX: usize = 100;

/// Events that are looked at at once. Of all that may be there, a hundred MiB, only the keys are held.
const EVENTS_PAGE: usize = 500;

/// Events kept in a store that several controllers share.
const EVENTS_KEPT: usize = 50_000;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// The newest so many releases of each app, beside those that something needs.
    pub releases: usize,
    /// The newest so many rollouts of each app in each environment in full; of older ones a line of the history.
    pub rollouts: u64,
}

impl Turn<'_> {
    /// Removes the releases beyond the newest so many of each app that nothing needs.
    pub(super) fn prune_releases(&mut self, keep: usize) -> Answer {
        let mut newest: BTreeMap<&AppName, Vec<(u64, &Version)>> = BTreeMap::new();
        for ((app, version), record) in &self.state.releases {
            newest.entry(app).or_default().push((record.created.0, version));
        }
        let mut old: Vec<(AppName, Version)> = Vec::new();
        for (app, mut releases) in newest {
            releases.sort_unstable_by(|one, other| other.cmp(one));
            let beyond = releases.into_iter().skip(keep);
            old.extend(beyond.map(|(_, version)| (app.clone(), version.clone())));
        }
        for key in old {
            let Some(record) = self.state.releases.get(&key) else { continue };
            if self.user_of(&key.0, &record.release()).is_some() {
                continue;
            }
            let (app, version) = &key;
            self.forget_release(app, version);
            let text = format!("release {app} {version} removed: the newest {keep} are kept");
            let app = Some(app.to_string());
            self.event(NewEvent { app, ..NewEvent::new("release", text) });
        }
        Ok(json!({}))
    }

    /// Of the rollouts up to this one only the history tells.
    pub(super) fn summed_up(&mut self, app: AppName, env: EnvName, upto: Revision) -> Answer {
        let key = (app, env);
        if let Some(fleet) = self.state.fleets.get_mut(&key)
            && fleet.summed_up < upto.0
        {
            fleet.summed_up = upto.0;
            self.keep_fleet(&key.0, &key.1);
        }
        Ok(json!({}))
    }
}

impl State {
    /// The artifacts that a release, or a rollout that runs, is made of.
    pub fn digests(&self) -> BTreeSet<Digest> {
        let releases = self.releases.values().map(|record| &record.digest);
        let running = self.rollouts.values().map(|active| &active.record.release.digest);
        releases.chain(running).cloned().collect()
    }

    /// Does a rollout that runs perhaps take a node back to this release?
    pub(super) fn may_return_to(&self, app: &AppName, release: &Release) -> Option<&RolloutId> {
        let back = self.rollouts.iter().find(|(id, active)| {
            let mut nodes = active.rollout.nodes().values();
            id.app == *app && nodes.any(|node| node.previous.as_ref() == Some(release))
        });
        back.map(|(id, _)| id)
    }
}

/// Removes all events but the newest. With the embedded store every new one takes the place of an old one;
/// among several controllers the lead does this from time to time.
pub async fn trim_events(engine: &Handle, store: &dyn Store) -> Result<(), StoreError> {
    let shared = engine.read().cluster.is_some();
    if !shared || !engine.read().leads() {
        return Ok(());
    }
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let (page, _) = store.scan(keys::EVENTS, &after, EVENTS_PAGE).await?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.key);
        all.extend(page.into_iter().map(|entry| entry.key));
    }
    let old = all.len().saturating_sub(EVENTS_KEPT);
    for some in all[..old].chunks(OPS_MAX) {
        let ops = some.iter().cloned().map(Op::Delete).collect();
        store.commit(Txn { compares: Vec::new(), ops }).await?;
    }
    Ok(())
}

/// Makes room, if that is this controller's to do: releases first, then rollouts that are over long since.
pub async fn make_room(engine: &Handle, store: &dyn Store, keep: Keep) -> Result<(), ErrorView> {
    if !engine.read().leads() {
        return Ok(());
    }
    let ask = |ask: Ask| engine.ask(Asked { who: "rota".to_owned(), ask, forwarded: false });
    ask(Ask::PruneReleases(keep.releases)).await?;
    let due: Vec<(AppName, EnvName, Vec<Revision>)> = {
        let state = engine.read();
        let fleets = state.fleets.iter();
        let not_here = |app: &AppName, env: &EnvName, revision: &Revision| {
            let id = RolloutId { app: app.clone(), env: env.clone(), revision: *revision };
            !state.rollouts.contains_key(&id) // its edges may not have said their last word
        };
        let due = fleets.map(|((app, env), fleet)| {
            let due = due(fleet, keep).into_iter();
            (app.clone(), env.clone(), due.take_while(|it| not_here(app, env, it)).collect())
        });
        due.collect()
    };
    for (app, env, revisions) in due {
        let Some(last) = revisions.last().copied() else { continue };
        for revision in revisions {
            let id = RolloutId { app: app.clone(), env: env.clone(), revision };
            sum_up(store, &id).await?;
        }
        ask(Ask::SummedUp { app, env, upto: last }).await?;
    }
    Ok(())
}

/// The rollouts of which a line is enough, oldest first; never one that is not over, nor one after it.
fn due(fleet: &FleetRecord, keep: Keep) -> Vec<Revision> {
    let beyond = fleet.revision.0.saturating_sub(keep.rollouts);
    let upto = fleet.open.first().map_or(beyond, |open| beyond.min(open.0.saturating_sub(1)));
    (fleet.summed_up + 1..=upto).map(Revision).collect()
}

/// Writes the line, then removes the rollout. Broken off in between it is done again, to the same end.
async fn sum_up(store: &dyn Store, id: &RolloutId) -> Result<(), StoreError> {
    let Some(ended) = load_ended(store, id).await? else { return Ok(()) };
    let line = crate::api::rollouts::history_entry(&ended.rollout, &ended.record);
    let mut ops = vec![Op::put(keys::history(id), line.encode()?)];
    if let Some(oldest) = id.revision.0.checked_sub(HISTORY_KEPT).filter(|oldest| *oldest > 0) {
        let oldest = RolloutId { revision: Revision(oldest), ..id.clone() };
        ops.push(Op::Delete(keys::history(&oldest)));
    }
    store.commit(Txn { compares: Vec::new(), ops }).await?;
    // Its nodes first: while its head is there it can be read, and is found again after a crash.
    let prefix = keys::rollout(id);
    let all = scan_all(store, &prefix).await?.0.into_iter().map(|entry| entry.key);
    let (nodes, rest): (Vec<String>, Vec<String>) =
        all.partition(|key| key[prefix.len()..].starts_with("nodes/"));
    let traces = scan_all(store, &keys::traces(id)).await?.0.into_iter().map(|entry| entry.key);
    let nodes: Vec<String> = traces.chain([keys::summary(id)]).chain(nodes).collect();
    for keys in nodes.chunks(OPS_MAX).chain([rest.as_slice()]) {
        let ops = keys.iter().cloned().map(Op::Delete).collect();
        store.commit(Txn { compares: Vec::new(), ops }).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
