//! Nodes, edges, pools, releases, controllers and events as people and programs see them.

use std::collections::BTreeMap;

use rota_proto::agent::PoolState;
use rota_rollout::names::{AppName, NodeName};
use serde_json::{Value, json};

use super::{Reader, asked};
use crate::access::rfc3339;
use crate::engine::records::ReleaseRecord;
use crate::engine::{Agent, State};
use crate::members::ControllerRecord;
use crate::view::{
    AppView, ControllerView, EdgeView, EventView, MemberView, NodeView, PoolView, ReleaseView,
};

/// Events that one answer has at the most.
pub const EVENTS_SHOWN_MAX: usize = 500;

/// Every node that the reader sees, and those that were removed.
pub fn nodes_and_removed(state: &State, query: &str, reader: Reader<'_>) -> Vec<NodeView> {
    let removed = state.revoked().filter(|(_, record)| reader.sees(&record.env));
    let removed = removed.map(|(name, record)| NodeView {
        name: name.to_string(),
        env: record.env.clone(),
        roles: record.roles.clone(),
        labels: record.all_labels(),
        state: "revoked".to_owned(),
        version: record.version.clone(),
        apps: Vec::new(),
        last_seen: Some(rfc3339(record.last_seen)),
    });
    let mut all = nodes(state, reader);
    all.extend(removed);
    all.retain(|node| asked(query, "env").is_none_or(|env| env == node.env));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// Every node that the reader sees.
pub fn nodes(state: &State, reader: Reader<'_>) -> Vec<NodeView> {
    let seen = state.nodes().filter(|(_, agent)| reader.sees(&agent.record.env));
    seen.map(|(name, agent)| view(state, name, agent)).collect()
}

/// One node, if the reader sees it.
pub fn node(state: &State, name: &NodeName, reader: Reader<'_>) -> Option<NodeView> {
    let agent = state.node(name).filter(|agent| reader.sees(&agent.record.env))?;
    Some(view(state, name, agent))
}

fn view(state: &State, name: &NodeName, agent: &Agent) -> NodeView {
    NodeView {
        name: name.to_string(),
        env: agent.record.env.clone(),
        roles: agent.record.roles.clone(),
        labels: agent.record.all_labels(),
        state: node_state(agent).to_owned(),
        version: agent.record.version.clone(),
        apps: apps(state, name, agent),
        last_seen: Some(last_seen(agent)),
    }
}

/// The state of a node, in the words of the public contract.
pub fn node_state(agent: &Agent) -> &'static str {
    match (agent.online, agent.record.drained) {
        (false, _) => "offline",
        (true, true) => "drained",
        (true, false) => "ready",
    }
}

fn last_seen(agent: &Agent) -> String {
    rfc3339(agent.heard().max(agent.record.last_seen))
}

fn apps(state: &State, name: &NodeName, agent: &Agent) -> Vec<AppView> {
    let view = |app: &crate::engine::records::AppRecord| {
        let release = app.release.as_ref().map(|r| r.version.to_string()).unwrap_or_default();
        // What it said last may be long past; the edges know.
        let gone = !agent.online
            && app.traffic == "in"
            && is_out_by_edges(state, &agent.record.env, name, &release);
        AppView {
            app: app.app.to_string(),
            release,
            health: app.health.clone(),
            traffic: if gone { "out".to_owned() } else { app.traffic.clone() },
        }
    };
    agent.record.apps.iter().map(view).collect()
}

/// Does an edge that is here list what runs on this node, and send it nothing?
fn is_out_by_edges(state: &State, env: &str, name: &NodeName, version: &str) -> bool {
    let edges = state.edges().filter(|(_, edge)| edge.online && edge.record.env == env);
    let mut members = edges.flat_map(|(_, edge)| &edge.pools).flat_map(|pool| &pool.members);
    members.any(|at| at.node == name.as_str() && at.version == version && at.state != "in")
}

/// Every edge that the reader sees.
pub fn edges(state: &State, reader: Reader<'_>) -> Vec<EdgeView> {
    let seen = state.edges().filter(|(_, agent)| reader.sees(&agent.record.env));
    seen.map(|(name, agent)| EdgeView {
        name: name.to_string(),
        env: agent.record.env.clone(),
        // A rollout waits for a silent one, and is refused while it is offline.
        state: match agent.session.is_none() || agent.pools.iter().any(|pool| pool.silent) {
            _ if !agent.online => "offline",
            true => "silent",
            false => "ready",
        }
        .to_owned(),
        pools: agent
            .record
            .pools
            .iter()
            .map(|pool| format!("{}={}@{}", pool.pool, pool.driver, pool.listen))
            .collect(),
        address: agent.record.traffic_address.clone(),
        version: agent.record.version.clone(),
        last_seen: Some(last_seen(agent)),
    })
    .collect()
}

/// Every pool that the reader sees, summed over its edges.
pub fn pools(state: &State, reader: Reader<'_>) -> Vec<PoolView> {
    let mut pools: BTreeMap<(String, String), PoolView> = BTreeMap::new();
    for (name, edge) in state.edges().filter(|(_, agent)| reader.sees(&agent.record.env)) {
        for served in &edge.record.pools {
            let key = (edge.record.env.clone(), served.pool.clone());
            let pool = pools.entry(key).or_insert_with(|| PoolView {
                pool: served.pool.clone(),
                env: edge.record.env.clone(),
                edges: Vec::new(),
                members: Vec::new(),
                requests: 0,
                failed: 0,
                cut: 0,
            });
            pool.edges.push(name.to_string());
            if let Some(now) = edge.pools.iter().find(|now| now.pool == served.pool) {
                add(pool, name.as_str(), now);
            }
        }
    }
    pools.into_values().collect()
}

fn add(pool: &mut PoolView, edge: &str, now: &PoolState) {
    pool.requests += now.requests;
    pool.failed += now.failed;
    pool.cut += now.cut;
    pool.members.extend(now.members.iter().map(|member| MemberView {
        node: member.node.clone(),
        edge: edge.to_owned(),
        address: member.address.clone(),
        state: member.state.clone(),
        in_flight: member.in_flight,
        version: member.version.clone(),
    }));
}

/// All releases, or those of one app.
pub fn releases(state: &State, app: Option<&AppName>) -> Vec<ReleaseView> {
    let wanted = state.releases.values().filter(|r| app.is_none_or(|app| r.app == *app));
    let mut views: Vec<(_, ReleaseView)> =
        wanted.map(|release| (release.created, release_view(state, release))).collect();
    views.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
    views.into_iter().map(|(_, view)| view).collect()
}

/// One release.
pub fn release_view(state: &State, release: &ReleaseRecord) -> ReleaseView {
    let id = release.release();
    let current_in = state.fleets.iter().filter(|((app, _), fleet)| {
        *app == release.app && fleet.currents.last().is_some_and(|current| current.release == id)
    });
    ReleaseView {
        app: release.app.to_string(),
        version: release.version.to_string(),
        digest: release.digest.to_string(),
        size: release.size,
        created_at: rfc3339(release.created),
        who: release.who.clone(),
        current_in: current_in.map(|((_, env), _)| env.to_string()).collect(),
    }
}

/// One release with its manifest.
pub fn release_details(state: &State, release: &ReleaseRecord) -> Value {
    let mut view = json!(release_view(state, release));
    view["manifest"] = json!(release.manifest);
    view["format"] = json!(release.format);
    view
}

/// The controllers: with an embedded store, this one; else all that are in, and those that may come back.
pub fn controllers(state: &State) -> Vec<ControllerView> {
    let standing = |draining, rollouts: &[String]| match (draining, rollouts.is_empty()) {
        (false, _) => "active",
        (true, false) => "draining",
        (true, true) => "drained",
    };
    let Some(cluster) = &state.cluster else {
        let rollouts: Vec<String> = state.rollouts.keys().map(ToString::to_string).collect();
        return vec![ControllerView {
            name: state.name.clone(),
            state: standing(state.draining, &rollouts).to_owned(),
            rollouts,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: state.advertise.clone(),
        }];
    };
    let owned = |name: &str| -> Vec<String> {
        let own = state.rollouts.iter();
        let own = own.filter(|(_, active)| state.owner(&active.owner) == name);
        own.map(|(id, _)| id.to_string()).collect()
    };
    let view = |(name, known): (&String, &ControllerRecord)| {
        let rollouts = owned(name);
        let (is, version, address) = match cluster.members.get(name) {
            Some(member) => {
                let is = standing(member.draining, &rollouts);
                (is, &member.version, &member.advertise)
            }
            // It was drained, and then stopped: nobody has lost anything.
            None if known.drained && rollouts.is_empty() => {
                ("drained", &known.version, &known.advertise)
            }
            None => ("lost", &known.version, &known.advertise),
        };
        ControllerView {
            name: name.clone(),
            state: is.to_owned(),
            rollouts,
            version: version.clone(),
            address: address.clone(),
        }
    };
    cluster.known.iter().map(view).collect()
}

/// The newest events that match `app=` and `env=` of the query.
pub fn events(state: &State, query: &str, reader: Reader<'_>) -> Vec<EventView> {
    events_after(state, query, 0, reader)
}

/// Events after this number that match the query, oldest first.
pub fn events_after(state: &State, query: &str, after: u64, reader: Reader<'_>) -> Vec<EventView> {
    let (app, env) = (asked(query, "app"), asked(query, "env"));
    let fits = |event: &&EventView| {
        event.seq > after
            && app.is_none_or(|app| event.app.as_deref() == Some(app))
            && env.is_none_or(|env| event.env.as_deref() == Some(env))
            && event.env.as_deref().is_none_or(|env| reader.sees(env))
    };
    if after > 0 {
        // A follower comes for the rest at once.
        return state.events.iter().filter(fits).take(EVENTS_SHOWN_MAX).cloned().collect();
    }
    let mut found: Vec<EventView> =
        state.events.iter().rev().filter(fits).take(EVENTS_SHOWN_MAX).cloned().collect();
    found.reverse();
    found
}
