//! Which release a rollout is to end on: the one that is named, the current one, or an earlier one.

use rota_rollout::names::{NodeName, Release, Revision};
use rota_rollout::rollout::Kind;

use super::Start;
use crate::engine::State;
use crate::engine::records::{CURRENTS_KEPT, Current, ReleaseRecord};
use crate::errors::Sort;
use crate::view::ErrorView;

/// The release to end on.
pub(super) fn release_for(state: &State, start: &Start) -> Result<ReleaseRecord, ErrorView> {
    let (app, env) = (&start.app, &start.env);
    let wanted = match start.kind {
        // Nodes are brought to what is current.
        Kind::Deploy if start.only.is_some() && start.version.is_none() => {
            state.current(app, env).map(|current| current.version.clone()).ok_or_else(|| {
                Sort::Refused.error(
                    format!("nothing of {app} is current in {env}"),
                    format!("`rota deploy` brings a release to {env} first"),
                )
            })?
        }
        Kind::Deploy => start
            .version
            .clone()
            .ok_or_else(|| Sort::Usage.error("no release is named", "`--release V`"))?,
        Kind::Restart => state.current(app, env).map(|r| r.version.clone()).ok_or_else(|| {
            Sort::Refused.error(
                format!("nothing of {app} is current in {env}: there is nothing to restart"),
                format!("`rota deploy` brings a release to {env} first"),
            )
        })?,
        Kind::Run => state.current(app, env).map(|r| r.version.clone()).ok_or_else(|| {
            Sort::Refused.error(
                format!("nothing of {app} is current in {env}: no node runs it"),
                format!("`rota deploy` brings a release to {env} first"),
            )
        })?,
        Kind::Undo => {
            let (revision, release) = undo_target(state, start)?;
            return kept(state, start, revision, &release);
        }
    };
    let found = state.releases.get(&(app.clone(), wanted.clone())).cloned();
    match (found, &start.manifest, &start.digest) {
        (Some(found), _, _) => Ok(found),
        // A plan before the push: the release as it would be.
        (None, Some(given), Some(digest)) => Ok(ReleaseRecord {
            app: app.clone(),
            version: wanted,
            digest: digest.clone(),
            size: 0,
            format: "tar".to_owned(),
            manifest: given.text.clone(),
            manifest_name: given.name.clone(),
            created: rota_rollout::Timestamp(0),
            who: String::new(),
        }),
        (None, _, _) => Err(Sort::NotFound.error(
            format!("there is no release {wanted} of {app}"),
            format!("`rota release ls {app}` lists them; `rota release push` makes one"),
        )),
    }
}

/// The release of an earlier revision, which may be gone by now.
fn kept(
    state: &State,
    start: &Start,
    revision: Revision,
    release: &Release,
) -> Result<ReleaseRecord, ErrorView> {
    let Start { app, env, .. } = start;
    let key = (app.clone(), release.version.clone());
    let version = &release.version;
    let gone = match state.releases.get(&key) {
        Some(record) if record.digest == release.digest => return Ok(record.clone()),
        Some(_) => "was removed, and that version is another release now",
        None => "was removed",
    };
    Err(Sort::Refused.error(
        format!("revision {revision} of {app} in {env} ran {version}, and that release {gone}"),
        format!(
            "deploy {version} again from its sources, or go back to a release of \
             `rota release ls {app}`: `rota rollout start {app} --release V --env {env}`"
        ),
    ))
}

/// The revision that an undo goes to: the named one, or the newest current one that is not what was last tried.
fn undo_target(state: &State, start: &Start) -> Result<(Revision, Release), ErrorView> {
    let (app, env) = (&start.app, &start.env);
    let fleet = state.fleets.get(&(app.clone(), env.clone()));
    let currents = fleet.map(|fleet| fleet.currents.as_slice()).unwrap_or_default();
    let target = |current: &Current| (current.revision, current.release.clone());
    if let Some(revision) = start.to_revision {
        let found = currents.iter().find(|current| current.revision == revision);
        return found.map(target).ok_or_else(|| never_current(state, start, revision));
    }
    let last = currents.last();
    // After a rollout that left some nodes elsewhere, the way back is to what is current.
    let all_on_current = last.is_none_or(|last| {
        let elsewhere =
            |name: &NodeName| state.runs(name, app).is_some_and(|runs| runs != last.release);
        !state.nodes().any(|(name, node)| node.record.env == env.as_str() && elsewhere(name))
    });
    let found = if all_on_current {
        currents.iter().rev().find(|c| Some(&c.release) != last.map(|last| &last.release))
    } else {
        last
    };
    found.map(target).ok_or_else(|| {
        Sort::Refused.error(
            format!("{app} has no earlier release in {env} to go back to"),
            format!("`rota rollout history {app} --env {env}` shows what there was"),
        )
    })
}

/// Why one cannot go back to this revision.
fn never_current(state: &State, start: &Start, revision: Revision) -> ErrorView {
    let Start { app, env, .. } = start;
    let fleet = state.fleets.get(&(app.clone(), env.clone()));
    let history = format!("`rota rollout history {app} --env {env}` shows which did");
    let Some(fleet) = fleet.filter(|fleet| revision <= fleet.revision) else {
        let hint = format!("`rota rollout history {app} --env {env}` lists them");
        return Sort::Refused.error(format!("{app} has no revision {revision} in {env}"), hint);
    };
    let running = state.running(app, env).map(|active| active.rollout.spec.id.revision);
    if running == Some(revision) {
        let hint = format!("`rota rollout rollback {app}/{env}/{revision}` takes its nodes back");
        return Sort::Refused.error(format!("rollout {app}/{env}/{revision} still runs"), hint);
    }
    let oldest = fleet.currents.first().map(|current| current.revision);
    if fleet.currents.len() >= CURRENTS_KEPT && oldest.is_some_and(|oldest| revision < oldest) {
        let message = format!(
            "revision {revision} of {app} is older than the {CURRENTS_KEPT} that {env} remembers"
        );
        let hint = format!("`rota rollout start {app} --release V --env {env}` rolls any release");
        return Sort::Refused.error(message, hint);
    }
    Sort::Refused
        .error(format!("revision {revision} of {app} never became current in {env}"), history)
}
