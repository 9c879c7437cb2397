//! What Prometheus reads: counted where it happens, or looked up when asked.

use std::collections::BTreeMap;
use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::{Reader, fleet, rollouts};
use crate::engine::State;

/// Upper bounds of commit times in seconds: from a fast disk's flush to one that is in trouble.
const COMMIT_BUCKETS: [f64; 9] = [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0];

/// What is counted as it happens.
pub struct Metrics {
    commits: Mutex<Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { commits: Mutex::new(Histogram::new(COMMIT_BUCKETS)) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    env: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RolloutLabels {
    app: String,
    env: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MemberLabels {
    pool: String,
    state: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: String,
}

impl Metrics {
    /// One commit of the store took so long.
    pub fn commit_took(&self, seconds: f64) {
        if let Ok(commits) = self.commits.lock() {
            commits.observe(seconds);
        }
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self, state: &State) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        if let Ok(commits) = self.commits.lock() {
            let help = "Time of one commit of the store";
            registry.register("rota_store_commit_seconds", help, commits.clone());
        }
        nodes(&mut registry, state);
        moving(&mut registry, state);
        pools(&mut registry, state);
        let build = Family::<Build, Gauge>::default();
        let version = env!("CARGO_PKG_VERSION").to_owned();
        build.get_or_create(&Build { version }).set(1);
        registry.register("rota_build_info", "The version of this controller", build);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

fn nodes(registry: &mut Registry, state: &State) {
    let family = Family::<NodeLabels, Gauge>::default();
    for node in fleet::nodes(state, Reader::Local) {
        family.get_or_create(&NodeLabels { env: node.env, state: node.state }).inc();
    }
    registry.register("rota_nodes", "Nodes by environment and state", family);
    let sessions: Gauge = Gauge::default();
    let open = state.agents.values().filter(|agent| agent.session.is_some()).count();
    sessions.set(i64::try_from(open).unwrap_or(i64::MAX));
    registry.register("rota_session_count", "Agents connected to this controller", sessions);
}

fn moving(registry: &mut Registry, state: &State) {
    let family = Family::<RolloutLabels, Gauge>::default();
    let updates = Family::<UpdateLabels, Gauge>::default();
    for active in state.rollouts.values() {
        let view = rollouts::of_active(state, active);
        let (app, env) = (view.app.clone(), view.env.clone());
        family.get_or_create(&RolloutLabels { app, env, state: view.state }).inc();
        for node in view.nodes {
            let (app, env) = (view.app.clone(), view.env.clone());
            updates.get_or_create(&UpdateLabels { app, env, result: node.state }).inc();
        }
    }
    registry.register("rota_rollouts", "Rollouts that run, by state", family);
    let owned: Gauge = Gauge::default();
    owned.set(i64::try_from(state.rollouts.len()).unwrap_or(i64::MAX));
    registry.register("rota_rollout_owned", "Rollouts that this controller owns", owned);
    registry.register("rota_updates", "Updates of running rollouts by result", updates);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpdateLabels {
    app: String,
    env: String,
    result: String,
}

fn pools(registry: &mut Registry, state: &State) {
    let members = Family::<MemberLabels, Gauge>::default();
    let cut = Family::<PoolLabels, Gauge>::default();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for pool in fleet::pools(state, Reader::Local) {
        *sums.entry(pool.pool.clone()).or_default() += pool.cut;
        for member in pool.members {
            let labels = MemberLabels { pool: pool.pool.clone(), state: member.state };
            members.get_or_create(&labels).inc();
        }
    }
    for (pool, sum) in sums {
        cut.get_or_create(&PoolLabels { pool }).set(i64::try_from(sum).unwrap_or(i64::MAX));
    }
    registry.register("rota_pool_members", "Members of pools by state, over all edges", members);
    registry.register("rota_requests_cut_total", "In-flight requests that we ended", cut);
}
