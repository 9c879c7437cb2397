//! Environments as people and programs see them: their freezes and their windows.

use std::collections::BTreeMap;

use super::Reader;
use crate::access::{now, rfc3339};
use crate::calendar::{Standing, standing};
use crate::engine::State;
use crate::engine::records::{EnvRecord, WindowRecord};
use crate::engine::windows::instant;
use crate::view::{EnvView, FreezeView, WindowView};

/// Every environment that has nodes or edges, in which something was rolled out, or which is frozen or has windows.
pub fn envs(state: &State, reader: Reader<'_>) -> Vec<EnvView> {
    let mut envs: BTreeMap<String, usize> = BTreeMap::new();
    for (_, agent) in state.nodes() {
        *envs.entry(agent.record.env.clone()).or_default() += 1;
    }
    for env in remembered(state) {
        envs.entry(env.to_owned()).or_default();
    }
    let seen = envs.into_iter().filter(|(env, _)| reader.sees(env));
    seen.map(|(env, nodes)| view(state, env, nodes)).collect()
}

/// Environments of which something is known beside their nodes.
fn remembered(state: &State) -> impl Iterator<Item = &str> {
    let edges = state.edges().map(|(_, edge)| edge.record.env.as_str());
    let fleets = state.fleets.keys().map(|(_, env)| env.as_str());
    // An older version kept what nothing is said of any more.
    let said = state.envs.iter().filter(|(_, record)| !record.is_empty());
    edges.chain(fleets).chain(said.map(|(env, _)| env.as_str()))
}

/// Is there, or was there, an environment of this name? Then a list of it may be empty.
pub fn is_known(state: &State, env: &str) -> bool {
    state.nodes().any(|(_, agent)| agent.record.env == env)
        || remembered(state).any(|known| known == env)
        || state.revoked().any(|(_, record)| record.env == env)
}

fn view(state: &State, env: String, nodes: usize) -> EnvView {
    let known = env.parse().ok();
    let none = EnvRecord::default();
    let record = known.as_ref().and_then(|env| state.envs.get(env)).unwrap_or(&none);
    let today = known.as_ref().and_then(|env| state.calendar.get(env));
    let frozen = record.frozen.as_ref().map(|freeze| FreezeView {
        until: freeze.until.map(rfc3339),
        message: freeze.why.clone(),
        who: freeze.who.clone(),
        since: rfc3339(freeze.since),
    });
    EnvView {
        env,
        nodes,
        frozen,
        windows: record.windows.iter().enumerate().map(window).collect(),
        open: today.is_none_or(|today| today.closed.is_none()),
        changes_at: today.and_then(|today| today.until).map(rfc3339),
        changes: today.map(|today| today.text.clone()).unwrap_or_default(),
    }
}

fn window((place, record): (usize, &WindowRecord)) -> WindowView {
    let alone = record.text.parse().ok().map(|window| standing(&[window], instant(now())));
    let (open, changes) = match alone {
        Some(Standing::Open { until }) => (true, until),
        Some(Standing::Closed { opens, .. }) => (false, Some(opens)),
        None => (false, None),
    };
    WindowView {
        number: place + 1,
        window: record.text.clone(),
        open,
        changes_at: changes.map(|at| format!("{at:.3}")),
        message: record.why.clone(),
        who: record.who.clone(),
        since: rfc3339(record.since),
    }
}
