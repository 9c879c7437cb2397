//! Why a rollout would not be safe, or could not be carried out, beside what its plan says.

use rota_rollout::names::{AppName, EnvName, NodeName};
use rota_rollout::strategy::StartOrder;

use super::Start;
use crate::engine::State;
use crate::manifest::{Manifest, Needed, Port, Resolved, Via};

/// Everything that speaks against it.
pub(super) fn unsafe_here(state: &State, start: &Start, resolved: &Resolved) -> Vec<String> {
    let mut refusals = Vec::new();
    refusals.extend(frozen_here(state, start));
    refusals.extend(port_of_polled(resolved));
    if let Via::Edge(pool) = &resolved.traffic.via {
        refusals.extend(pool_refusals(state, start, pool, resolved.traffic.edges));
    }
    if resolved.strategy.order == StartOrder::StartFirst && resolved.run.port != Port::Auto {
        refusals.push("order = \"start-first\" needs port = \"auto\"".to_owned());
    }
    refusals.extend(drained(state));
    refusals
}

/// A drained controller takes nothing new.
pub(in crate::engine) fn drained(state: &State) -> Option<String> {
    let name = &state.name;
    state.draining.then(|| {
        format!(
            "controller {name} is drained and takes nothing new (`rota controller undrain {name}`)"
        )
    })
}

/// Nothing new begins in a frozen environment.
pub(in crate::engine) fn frozen_here(state: &State, start: &Start) -> Option<String> {
    let (env, why) = (&start.env, frozen(state, &start.env)?);
    start.break_glass.is_none().then(|| {
        format!(
            "environment {env} is frozen: {why} (`rota env unfreeze {env}`; \
             or start it all the same: `--break-glass -m WHY`)"
        )
    })
}

/// Why an environment is frozen.
pub(in crate::engine) fn frozen(state: &State, env: &EnvName) -> Option<String> {
    let freeze = state.envs.get(env)?.frozen.as_ref()?;
    Some(format!("{} (by {})", freeze.why, freeze.who))
}

/// A load balancer that asks the node knows one port of it, and no other.
fn port_of_polled(resolved: &Resolved) -> Option<String> {
    let polled = matches!(resolved.traffic.via, Via::Endpoint { .. });
    (polled && resolved.run.port == Port::Auto).then(|| {
        "[traffic] via = \"endpoint\" needs a fixed `port`: a load balancer that polls does not \
         learn another one; so order = \"start-first\", which needs port = \"auto\", cannot be had \
         with it (use via = \"edge\")"
            .to_owned()
    })
}

fn pool_refusals(state: &State, start: &Start, pool: &str, needed: Needed) -> Vec<String> {
    let env = &start.env;
    let all = state.edges_of(env, pool).len();
    if all == 0 {
        return vec![format!(
            "no edge serves pool {pool} in {env}: start an agent there with \
             `--edge {pool}=proxy@ADDR` (`rota edge ls`)"
        )];
    }
    let offline = state.edges_offline(env, pool);
    let enough = needed == Needed::Reachable && offline.len() < all;
    let offline = (!offline.is_empty() && !enough).then(|| {
        let names = rota_rollout::gate::list(&offline);
        format!(
            "no drain could be proven: offline edges of pool {pool}: {names} (`rota edge ls`; \
             one that is gone for good: `rota node rm EDGE`)"
        )
    });
    let other = pool_of_another(state, start, pool).map(|other| {
        format!("pool {pool} in {env} is that of app {other}: give this app a pool of its own")
    });
    offline.into_iter().chain(other).collect()
}

/// The app whose current release has its members in this pool. A node is one member: two apps would replace each other.
fn pool_of_another<'a>(state: &'a State, start: &Start, pool: &str) -> Option<&'a AppName> {
    let others = state.fleets.iter().filter(|((app, env), _)| {
        *env == start.env && *app != start.app && runs_somewhere(state, app, env)
    });
    others.map(|((app, _), fleet)| (app, fleet)).find_map(|(app, fleet)| {
        let release = &fleet.currents.last()?.release;
        let record = state.releases.get(&(app.clone(), release.version.clone()))?;
        let manifest = Manifest::parse(&record.manifest, &record.manifest_name).ok()?;
        match manifest.resolve(&start.env).traffic.via {
            Via::Edge(its) if its == pool => Some(app),
            Via::Edge(_) | Via::Endpoint { .. } | Via::Command(_) | Via::None => None,
        }
    })
}

fn runs_somewhere(state: &State, app: &AppName, env: &EnvName) -> bool {
    let runs = |name: &NodeName| state.runs(name, app).is_some();
    state.nodes().any(|(name, agent)| agent.record.env == env.as_str() && runs(name))
}
