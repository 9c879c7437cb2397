//! What goes on beside answering: edges hear who was removed, what has ended is forgotten, and the past is kept small.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rota_identity::{Identity, Kind};
use rota_rollout::names::Digest;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::access::{Access, now, revoked, share};
use crate::api::Api;
use crate::artifact::IMAGE;
use crate::artifact::peers::Artifacts;
use crate::artifact::store::{ArtifactError, ArtifactStore};
use crate::engine::keep::Keep;
use crate::engine::records::{ReleaseRecord, keys};
use crate::engine::{self, Handle, Input};
use crate::errors::{Sort, chain};
use crate::store::{Record, Store, scan_all};
use crate::view::ErrorView;

/// How often what has ended is forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 3600);

/// How often the log of events is cut.
const TRIM_EVERY: Duration = Duration::from_secs(3600);

/// How often it is looked whether something has become too much. Nothing waits for it.
const ROOM_EVERY: Duration = Duration::from_secs(2);

/// How often it is looked at most whether artifacts are missing: the state changes all the time while rollouts run.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// An artifact that belongs to no release is perhaps about to: its push follows its upload.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);

/// Keeps the past within its limits: releases and their artifacts, rollouts that are over.
pub(super) async fn make_room(api: Api, artifacts: ArtifactStore, keep: Keep) {
    let mut ticks = interval(ROOM_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = None;
    let mut used = BTreeSet::new();
    loop {
        ticks.tick().await;
        let now = past(&api.engine);
        if done == Some(now) {
            continue;
        }
        used.extend(api.engine.read().digests()); // those of releases that go in this very moment
        let made = engine::keep::make_room(&api.engine, &*api.store, keep).await;
        let made = made.map_err(|error| error.message);
        let swept = match made {
            Ok(()) => sweep(&api, &artifacts, &mut used).await.map_err(|error| error.message),
            Err(error) => Err(error),
        };
        match swept {
            Ok(()) => done = Some(past(&api.engine)),
            Err(error) => tracing::warn!(error, "cannot make room; it is tried again"),
        }
    }
}

/// What changes when there may be too much: releases, and rollouts that ended.
fn past(engine: &Handle) -> (usize, u64) {
    let state = engine.read();
    let ended = state.fleets.values().flat_map(|fleet| fleet.ended.values()).sum();
    (state.releases.len(), ended)
}

/// Removes the artifacts that no release has any more: at once those that one had before, for no push will come for
/// them. Nobody makes a release of one here meanwhile. What another controller makes of one at this very moment brings
/// it here again.
async fn sweep(
    api: &Api,
    artifacts: &ArtifactStore,
    used: &mut BTreeSet<Digest>,
) -> Result<(), ErrorView> {
    let _alone = artifacts.pushing.write().await;
    let before = std::mem::replace(used, api.engine.read().digests());
    let internal = |error: ArtifactError| Sort::Internal.error(chain(&error), "");
    let aged = artifacts.ages().await.map_err(internal)?.into_iter();
    let due: Vec<Digest> = aged
        .filter(|(digest, age)| {
            !used.contains(digest) && (*age > ORPHAN_AGE || before.contains(digest))
        })
        .map(|(digest, _)| digest)
        .collect();
    if due.is_empty() {
        return Ok(());
    }
    // What this controller knows may be of before it was cut off from the store. What is gone is gone: so ask.
    let known = released(&*api.store).await?;
    for digest in due.into_iter().filter(|digest| !known.contains(digest)) {
        artifacts.remove(&digest).await.map_err(internal)?;
        tracing::info!(digest = digest.short(), "removed an artifact that no release has");
    }
    Ok(())
}

/// The artifacts of all releases that the store has now.
async fn released(store: &dyn Store) -> Result<BTreeSet<Digest>, ErrorView> {
    let (releases, _) = scan_all(store, keys::RELEASES).await?;
    let digests = releases.iter().map(|entry| Ok(ReleaseRecord::decode(entry)?.digest));
    digests.collect()
}

/// Brings in what releases are made of and is not here, while there are other controllers.
pub(super) async fn bring_in(engine: Handle, artifacts: Artifacts) {
    let (wanted, wants) = watch::channel(BTreeSet::new());
    let bringing = tokio::spawn(artifacts.bring_in(wants));
    let mut changed = engine.changed();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !bringing.is_finished() {
        ticks.tick().await;
        let now = {
            let state = engine.read();
            let packed = state.releases.values().filter(|release| release.format != IMAGE);
            packed.map(|release| release.digest.clone()).collect()
        };
        wanted.send_if_modified(|before| {
            let changed = *before != now;
            *before = now;
            changed
        });
        if changed.changed().await.is_err() {
            return;
        }
    }
}

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

/// Keeps the log of events within its limit.
pub(super) async fn trim_hourly(engine: Handle, store: Arc<dyn Store>) {
    let mut hours = interval(TRIM_EVERY);
    loop {
        hours.tick().await;
        if let Err(error) = engine::keep::trim_events(&engine, &*store).await {
            tracing::warn!(%error, "cannot forget the oldest events; again in an hour");
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
        match share::sweep(&*access.store(), now()).await {
            Ok(0) => {}
            Ok(gone) => tracing::warn!(gone, "forgot the CA for controllers that did not take it"),
            Err(error) => tracing::warn!(%error, "cannot forget what nobody took; again tomorrow"),
        }
    }
}
