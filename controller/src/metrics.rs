//! What Prometheus reads: counted where it happens, or looked up when asked.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::{Reader, fleet};
use crate::engine::{Measure, State};

/// Upper bounds of commit times in seconds: from a fast disk's flush to one that is in trouble.
const COMMIT_BUCKETS: [f64; 9] = [0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0];

/// Upper bounds of step times in seconds: from a step with nothing to do to a long drain or monitor time.
const STEP_BUCKETS: [f64; 12] =
    [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// What is counted as it happens.
pub struct Metrics {
    commits: Histogram,
    steps: Family<StepLabels, Histogram>,
    updates: Family<UpdateLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            commits: Histogram::new(COMMIT_BUCKETS),
            steps: Family::new_with_constructor(|| Histogram::new(STEP_BUCKETS)),
            updates: Family::default(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    app: String,
    env: String,
    step: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpdateLabels {
    app: String,
    env: String,
    result: String,
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
    /// Counts one measurement.
    pub fn count(&self, measure: Measure) {
        match measure {
            Measure::Commit(took) => self.commits.observe(took.as_secs_f64()),
            Measure::Step { id, step, took } => {
                let (app, env) = (id.app.to_string(), id.env.to_string());
                let labels = StepLabels { app, env, step: step.to_string() };
                let took = Duration::from_millis(took.0);
                self.steps.get_or_create(&labels).observe(took.as_secs_f64());
            }
            Measure::Update { id, result } => {
                let (app, env) = (id.app.to_string(), id.env.to_string());
                let labels = UpdateLabels { app, env, result: result.to_owned() };
                self.updates.get_or_create(&labels).inc();
            }
        }
    }

    /// Everything, in the OpenMetrics text format.
    pub fn text(&self, state: &State) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::default();
        let help = "Seconds of one commit of the store";
        registry.register("rota_store_commit_seconds", help, self.commits.clone());
        let help = "Seconds that a node spent in a step of an update, as the node measured it";
        registry.register("rota_update_seconds", help, self.steps.clone());
        let help = "Updates that ended, by result, since this controller started";
        registry.register("rota_updates", help, self.updates.clone());
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
    for node in fleet::nodes_and_removed(state, "", Reader::Local) {
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
    for (id, active) in &state.rollouts {
        let (app, env) = (id.app.to_string(), id.env.to_string());
        let state = active.rollout.state().to_owned();
        family.get_or_create(&RolloutLabels { app, env, state }).inc();
    }
    for ((app, env), fleet) in &state.fleets {
        for (state, count) in &fleet.ended {
            let (app, env) = (app.to_string(), env.to_string());
            let labels = RolloutLabels { app, env, state: state.clone() };
            family.get_or_create(&labels).inc_by(i64::try_from(*count).unwrap_or(i64::MAX));
        }
    }
    registry.register("rota_rollouts", "Rollouts by state, the ended ones included", family);
    let owned: Gauge = Gauge::default();
    owned.set(i64::try_from(state.own().count()).unwrap_or(i64::MAX));
    registry.register("rota_rollout_owned", "Rollouts that this controller owns", owned);
}

fn pools(registry: &mut Registry, state: &State) {
    let members = Family::<MemberLabels, Gauge>::default();
    let cut = Family::<PoolLabels, Counter>::default();
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for pool in fleet::pools(state, Reader::Local) {
        *sums.entry(pool.pool.clone()).or_default() += pool.cut;
        for member in pool.members {
            let labels = MemberLabels { pool: pool.pool.clone(), state: member.state };
            members.get_or_create(&labels).inc();
        }
    }
    for (pool, sum) in sums {
        cut.get_or_create(&PoolLabels { pool }).inc_by(sum);
    }
    registry.register("rota_pool_members", "Members of pools by state, over all edges", members);
    registry.register("rota_requests_cut", "In-flight requests that we ended", cut);
}
