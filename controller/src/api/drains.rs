//! How far a node is out of traffic, and whether it may be taken out now.

use rota_rollout::names::{AppName, NodeName};

use super::Reader;
use super::fleet::node_state;
use crate::engine::State;
use crate::manifest::Via;
use crate::view::{DrainView, DrainedAppView};

/// One node; `None`: there is none, or the reader does not see it.
pub fn drain(state: &State, name: &NodeName, reader: Reader<'_>) -> Option<DrainView> {
    let agent = state.node(name).filter(|agent| reader.sees(&agent.record.env))?;
    let here = agent.record.apps.iter().filter(|app| app.release.is_some());
    let apps: Vec<DrainedAppView> = here
        .map(|app| DrainedAppView {
            app: app.app.to_string(),
            health: app.health.clone(),
            traffic: app.traffic.clone(),
            in_flight: in_flight(state, name, &app.app),
        })
        .collect();
    Some(DrainView {
        node: name.to_string(),
        state: node_state(agent).to_owned(),
        drained: agent.record.drained,
        refusals: state.against_draining(name),
        out: agent.online && apps.iter().all(|app| app.traffic == "out" && app.in_flight == 0),
        serves: agent.online
            && apps.iter().all(|app| app.traffic == "in" && app.health == "healthy"),
        apps,
    })
}

/// What the edges of the app's pool say.
fn in_flight(state: &State, node: &NodeName, app: &AppName) -> u64 {
    let Some(agent) = state.node(node) else { return 0 };
    let Ok(env) = agent.record.env.parse() else { return 0 };
    let manifest = state.current_manifest(app, &env);
    let Some(Via::Edge(pool)) = manifest.map(|manifest| manifest.traffic.via) else { return 0 };
    let edges = state.edges().filter(|(_, edge)| edge.record.env == agent.record.env);
    let pools = edges.flat_map(|(_, edge)| &edge.pools).filter(|there| there.pool == pool);
    let members = pools.flat_map(|there| &there.members);
    members.filter(|member| member.node == node.as_str()).map(|member| member.in_flight).sum()
}
