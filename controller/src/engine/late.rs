//! Nodes that were away when a release came, are new, or were made anew get it by themselves, within the same limits:
//! by a rollout that moves only them. With `catch_up = true` so do those that run something else than they should.

use std::collections::BTreeSet;

use rota_rollout::gate::list;
use rota_rollout::names::{AppName, EnvName, NodeName, Release};
use rota_rollout::node::Serving;
use rota_rollout::rollout::Kind;

use super::{Start, State, Turn};

/// How often nodes are looked for that run nothing or something else: it reads manifests and all nodes.
const LOOK_EVERY_MS: u64 = 2_000;

/// Who starts rollouts that nobody asked for.
const BY_ITSELF: &str = "rota";

impl Turn<'_> {
    /// Starts what is due. What is refused (a freeze, an edge that is away) is tried again with the next tick.
    pub(super) fn catch_up(&mut self) {
        let waiting: Vec<(AppName, EnvName)> = self
            .state
            .fleets
            .iter()
            .filter(|((app, env), fleet)| {
                // Held in a closed window it would be in the way: it begins when they open.
                !fleet.currents.is_empty()
                    && self.state.running(app, env).is_none()
                    && self.state.closed(env).is_none()
                    && self.state.envs.get(env).is_none_or(|record| record.frozen.is_none())
            })
            .map(|(key, _)| key.clone())
            .collect();
        let look = self.at.since(self.state.strays_seen).0 >= LOOK_EVERY_MS;
        if look {
            self.state.strays_seen = self.at;
            self.take_newcomers();
        }
        if !self.state.leads() {
            return;
        }
        for (app, env) in waiting {
            let Some(current) = self.state.current(&app, &env).cloned() else { continue };
            self.forget_settled(&app, &env, &current);
            let mut nodes = self.returned(&app, &env);
            if look {
                nodes.extend(self.strays(&app, &env));
            }
            nodes.retain(|name| {
                let runs = self.state.runs(name, &app);
                runs.is_none_or(|runs| !self.state.is_fenced(&app, &env, &runs, &current))
            });
            if !nodes.is_empty() {
                self.bring(app, env, current, nodes);
            }
        }
    }

    /// Late nodes that are gone for good, or have the release already, are late no more; and those that have it are not
    /// left any more.
    fn forget_settled(&mut self, app: &AppName, env: &EnvName, current: &Release) {
        let key = (app.clone(), env.clone());
        let Some(fleet) = self.state.fleets.get(&key) else { return };
        let is_open = |name: &NodeName| {
            let has = self.state.runs(name, app).as_ref() == Some(current);
            let serves = self.state.observed(name, app, None).serving == Serving::In;
            self.state.node(name).is_some_and(|node| node.record.env == env.as_str())
                && !(has && serves)
        };
        let late: BTreeSet<NodeName> =
            fleet.late.iter().filter(|name| is_open(name)).cloned().collect();
        let mut left = fleet.left.clone();
        left.retain(|name, _| is_open(name));
        let Some(fleet) = self.state.fleets.get_mut(&key) else { return };
        if fleet.late != late || fleet.left != left {
            (fleet.late, fleet.left) = (late, left);
            self.keep_fleet(app, env);
        }
    }

    /// The late nodes that are back.
    fn returned(&self, app: &AppName, env: &EnvName) -> BTreeSet<NodeName> {
        let fleet = self.state.fleets.get(&(app.clone(), env.clone()));
        let late = fleet.into_iter().flat_map(|fleet| &fleet.late);
        late.filter(|name| self.state.may_move(name, app)).cloned().collect()
    }

    /// Those that have nothing yet, and with `catch_up` those that run something else. Who failed or was skipped in a
    /// rollout is not tried for ever.
    fn strays(&self, app: &AppName, env: &EnvName) -> BTreeSet<NodeName> {
        let key = (app.clone(), env.clone());
        let Some(fleet) = self.state.fleets.get(&key) else { return BTreeSet::new() };
        let drift = self.state.drift(app, env, fleet);
        let mends = || {
            self.state.current_manifest(app, env).is_some_and(|manifest| manifest.strategy.catch_up)
        };
        let mends = !drift.is_empty() && mends();
        let due = drift.into_iter().filter(|stray| {
            stray.left.is_none()
                && stray.should.is_some()
                && (stray.runs.is_none() || mends)
                && self.state.may_move(&stray.node, app)
        });
        due.map(|stray| stray.node).collect()
    }

    fn bring(&mut self, app: AppName, env: EnvName, to: Release, nodes: BTreeSet<NodeName>) {
        let names: Vec<NodeName> = nodes.iter().cloned().collect();
        let start = Start {
            version: Some(to.version),
            message: format!("catches up: {}", list(&names)),
            only: Some(nodes.clone()),
            by_itself: true,
            ..Start::new(app.clone(), env.clone(), Kind::Deploy)
        };
        if let Err(refused) = self.start(start, BY_ITSELF) {
            tracing::debug!(%app, %env, why = refused.message, "late nodes cannot catch up yet");
            return;
        }
        // What becomes of them is this rollout's to say.
        let Some(fleet) = self.state.fleets.get_mut(&(app.clone(), env.clone())) else { return };
        fleet.late.retain(|name| !nodes.contains(name));
        self.keep_fleet(&app, &env);
    }
}

impl State {
    /// Is it here, and does nothing else move it or keep it out?
    pub(super) fn may_move(&self, name: &NodeName, app: &AppName) -> bool {
        let observed = self.observed(name, app, None);
        let here = self.node(name).is_some_and(|node| node.session.is_some());
        here && observed.online && !observed.drained && !observed.busy
    }
}
