//! Everything at a glance: what runs where, what moves, and what somebody should look at.

use rota_rollout::names::{AppName, EnvName, NodeName, Release};

use super::envs::envs;
use super::fleet::{controllers, edges, nodes};
use super::{Reader, asked, rollouts};
use crate::engine::drift::Drift;
use crate::engine::records::FleetRecord;
use crate::engine::{Active, State};
use crate::view::{AppView, CareView, DriftView, FleetView, NodeView, StatusView};

/// The whole screen, or what `app=` and `env=` of the query leave of it; the controllers are everyone's.
pub fn status(state: &State, query: &str, reader: Reader<'_>) -> StatusView {
    let mut status = whole(state, reader);
    if let Some(env) = asked(query, "env") {
        status.fleets.retain(|fleet| fleet.env == env);
        status.rollouts.retain(|rollout| rollout.env == env);
        status.care.retain(|care| care.env == env);
        status.drift.retain(|drift| drift.env == env);
        status.envs.retain(|view| view.env == env);
    }
    if let Some(app) = asked(query, "app") {
        status.fleets.retain(|fleet| fleet.app == app);
        status.rollouts.retain(|rollout| rollout.app == app);
        status.drift.retain(|drift| drift.app == app);
    }
    status
}

fn whole(state: &State, reader: Reader<'_>) -> StatusView {
    let all = nodes(state, reader);
    let seen = state.fleets.iter().filter(|((_, env), _)| reader.sees(env.as_str()));
    let fleets = seen.map(|(key, record)| fleet(state, &all, key, record)).collect();
    let mine = |active: &&Active| reader.sees(active.rollout.spec.id.env.as_str());
    let running = state.rollouts.values().filter(mine);
    let drift = drift(state, reader);
    let mut care = care(state, &all, reader);
    care.extend(drift.iter().map(of_drift));
    StatusView {
        drift,
        fleets,
        rollouts: running.map(|active| rollouts::of_active(state, active)).collect(),
        care,
        envs: envs(state, reader),
        controllers: controllers(state),
    }
}

/// One app in one environment.
fn fleet(
    state: &State,
    all: &[NodeView],
    (app, env): &(AppName, EnvName),
    record: &FleetRecord,
) -> FleetView {
    let here = all.iter().filter(|node| node.env == env.as_str());
    let there: Vec<&AppView> = here
        .flat_map(|node| &node.apps)
        .filter(|entry| entry.app == app.as_str() && !entry.release.is_empty())
        .collect();
    let current = record.currents.last();
    let right = |entry: &AppView| match current {
        Some(current) => {
            let to = state.running(app, env).map(|active| &active.rollout.spec.to);
            [Some(&current.release), to]
                .into_iter()
                .flatten()
                .any(|release| release.version.as_str() == entry.release)
        }
        None => true, // nothing is wrong to run before anything is current
    };
    FleetView {
        app: app.to_string(),
        env: env.to_string(),
        release: current.map(|current| current.release.version.to_string()),
        revision: current.map(|current| current.revision.0),
        targets: there.len(),
        in_traffic: there.iter().filter(|entry| serves(entry)).count(),
        on_another: there.iter().filter(|entry| serves(entry) && !right(entry)).count(),
    }
}

fn serves(app: &AppView) -> bool {
    app.health == "healthy" && app.traffic == "in"
}

/// Every node that runs something else than it should, of every app.
fn drift(state: &State, reader: Reader<'_>) -> Vec<DriftView> {
    let seen = state.fleets.iter().filter(|((_, env), _)| reader.sees(env.as_str()));
    let of = |((app, env), fleet): (&(AppName, EnvName), &FleetRecord)| {
        let all = state.drift(app, env, fleet);
        all.into_iter().map(|drift| drift_view(app, env, drift)).collect::<Vec<_>>()
    };
    seen.flat_map(of).collect()
}

fn drift_view(app: &AppName, env: &EnvName, drift: Drift) -> DriftView {
    let version = |release: Release| release.version.to_string();
    DriftView {
        node: drift.node.to_string(),
        env: env.to_string(),
        app: app.to_string(),
        runs: drift.runs.map(version),
        should: drift.should.map(version),
        left_by: drift.left.map(|revision| format!("{app}/{env}/{revision}")),
    }
}

/// A node that is not what it should be, as one that needs care.
fn of_drift(drift: &DriftView) -> CareView {
    let DriftView { node, app, .. } = drift;
    let runs = drift.runs.as_deref().unwrap_or("nothing");
    let left = drift.left_by.as_ref();
    let left = left.map_or(String::new(), |id| format!(", left so by {id}"));
    let (text, hint) = match &drift.should {
        Some(should) => (
            format!("{app}: runs {runs}, current is {should}{left}"),
            format!("rota node converge {node}"),
        ),
        None => (
            format!("{app}: runs {runs}, and is no target of it any more"),
            format!("rota node label {node} KEY=VALUE"),
        ),
    };
    CareView { name: node.clone(), env: drift.env.clone(), text, hint }
}

/// Nodes and edges that somebody should look at, and what to do.
fn care(state: &State, nodes: &[NodeView], reader: Reader<'_>) -> Vec<CareView> {
    let mut care = Vec::new();
    let mut add = |name: &str, env: &str, text: String, hint: String| {
        care.push(CareView { name: name.to_owned(), env: env.to_owned(), text, hint });
    };
    for node in nodes {
        let inspect = format!("rota node inspect {}", node.name);
        match node.state.as_str() {
            "offline" => {
                let since = node.last_seen.clone().unwrap_or_default();
                add(&node.name, &node.env, format!("offline since {since}"), inspect);
                continue;
            }
            "drained" => {
                let hint = format!("rota node undrain {}", node.name);
                add(&node.name, &node.env, "drained by an operator".to_owned(), hint);
                continue;
            }
            _ => {}
        }
        for app in node.apps.iter().filter(|app| !app.release.is_empty()) {
            if serves(app) {
                continue;
            }
            let name = node.name.parse::<NodeName>();
            let updating = name.is_ok_and(|name| {
                state.rollouts.values().any(|active| {
                    active.rollout.nodes().get(&name).is_some_and(|own| own.phase.is_running())
                })
            });
            if !updating {
                let text = format!(
                    "{} {} is {}, traffic {}",
                    app.app, app.release, app.health, app.traffic
                );
                add(&node.name, &node.env, text, inspect.clone());
            }
        }
    }
    for edge in edges(state, reader).into_iter().filter(|edge| edge.state == "offline") {
        let since = edge.last_seen.unwrap_or_default();
        add(
            &edge.name,
            &edge.env,
            format!("edge offline since {since}"),
            "rota edge ls".to_owned(),
        );
    }
    care
}
