//! Everything at a glance: what runs where, what moves, and what somebody should look at.

use rota_rollout::names::{AppName, EnvName};

use super::envs::envs;
use super::fleet::{controllers, edges, nodes};
use super::{Reader, rollouts};
use crate::engine::records::FleetRecord;
use crate::engine::{Active, State};
use crate::view::{AppView, CareView, FleetView, NodeView, StatusView};

/// The whole screen.
pub fn status(state: &State, reader: Reader<'_>) -> StatusView {
    let all = nodes(state, reader);
    let seen = state.fleets.iter().filter(|((_, env), _)| reader.sees(env.as_str()));
    let fleets = seen.map(|(key, record)| fleet(state, &all, key, record)).collect();
    let mine = |active: &&Active| reader.sees(active.rollout.spec.id.env.as_str());
    let running = state.rollouts.values().filter(mine);
    StatusView {
        fleets,
        rollouts: running.map(|active| rollouts::of_active(state, active)).collect(),
        care: care(state, &all, reader),
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
        in_traffic: there.iter().filter(|entry| serves(entry) && right(entry)).count(),
    }
}

fn serves(app: &AppView) -> bool {
    app.health == "healthy" && app.traffic == "in"
}

/// A node that serves another release than the current one, while no rollout is about to change that.
fn drift(state: &State, node: &NodeView, app: &AppView) -> Option<(String, String)> {
    let (name, env) = (app.app.parse().ok()?, node.env.parse().ok()?);
    let current = state.current(&name, &env)?.version.as_str();
    if app.release == current || state.running(&name, &env).is_some() {
        return None;
    }
    let text = format!("{name}: runs {}, current is {current}", app.release);
    Some((text, format!("rota rollout start {name} --release {current} --env {env}")))
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
                if let Some((text, hint)) = drift(state, node, app) {
                    add(&node.name, &node.env, text, hint);
                }
                continue;
            }
            let updating = state.rollouts.values().any(|active| {
                let own =
                    active.rollout.nodes().iter().find(|(name, _)| name.as_str() == node.name);
                own.is_some_and(|(_, node)| node.phase.is_running())
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
