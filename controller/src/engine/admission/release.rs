//! Which release a rollout is to end on: the one that is named, the current one, or an earlier one.

use rota_rollout::names::{NodeName, Release};
use rota_rollout::rollout::Kind;

use super::Start;
use crate::engine::State;
use crate::engine::records::ReleaseRecord;
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
        Kind::Undo => undo_target(state, start)?.version,
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

/// The release that an undo goes to: a named revision's, or the newest current one that is not what was last tried.
fn undo_target(state: &State, start: &Start) -> Result<Release, ErrorView> {
    let (app, env) = (&start.app, &start.env);
    let fleet = state.fleets.get(&(app.clone(), env.clone()));
    let currents = fleet.map(|fleet| fleet.currents.as_slice()).unwrap_or_default();
    if let Some(revision) = start.to_revision {
        let found = currents.iter().find(|current| current.revision == revision);
        return found.map(|current| current.release.clone()).ok_or_else(|| {
            Sort::Refused.error(
                format!("revision {revision} of {app} never became current in {env}"),
                format!("`rota rollout history {app} --env {env}` shows which did"),
            )
        });
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
    found.map(|current| current.release.clone()).ok_or_else(|| {
        Sort::Refused.error(
            format!("{app} has no earlier release in {env} to go back to"),
            format!("`rota rollout history {app} --env {env}` shows what there was"),
        )
    })
}
