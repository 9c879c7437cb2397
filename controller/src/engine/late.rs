//! Nodes that were away when a release came get it when they are back, within the same limits: by a rollout that moves
//! only them.

use std::collections::BTreeSet;

use rota_rollout::gate::list;
use rota_rollout::names::{AppName, EnvName, NodeName, Release};
use rota_rollout::node::Serving;
use rota_rollout::rollout::Kind;

use super::records::keys;
use super::{Start, Turn};

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
                // Held in a closed window it would be in the way of every deploy: it begins when they open.
                !fleet.late.is_empty()
                    && self.state.running(app, env).is_none()
                    && self.state.closed(env).is_none()
            })
            .map(|(key, _)| key.clone())
            .collect();
        for (app, env) in waiting {
            let Some(current) = self.state.current(&app, &env).cloned() else { continue };
            self.forget_settled(&app, &env, &current);
            let returned = self.returned(&app, &env);
            if !returned.is_empty() {
                self.bring(app, env, current, returned);
            }
        }
    }

    /// Late nodes that are gone for good, or have the release already, are late no more.
    fn forget_settled(&mut self, app: &AppName, env: &EnvName, current: &Release) {
        let key = (app.clone(), env.clone());
        let Some(fleet) = self.state.fleets.get(&key) else { return };
        let is_late = |name: &&NodeName| {
            let has = self.state.runs(name, app).as_ref() == Some(current);
            let serves = self.state.observed(name, app, None).serving == Serving::In;
            self.state.node(name).is_some_and(|node| node.record.env == env.as_str())
                && !(has && serves)
        };
        let late: BTreeSet<NodeName> = fleet.late.iter().filter(is_late).cloned().collect();
        let Some(fleet) = self.state.fleets.get_mut(&key) else { return };
        if fleet.late != late {
            fleet.late = late;
            let written = self.batch.put(keys::fleet(app, env), fleet);
            self.written(written);
        }
    }

    /// The late nodes that are back.
    fn returned(&self, app: &AppName, env: &EnvName) -> BTreeSet<NodeName> {
        let fleet = self.state.fleets.get(&(app.clone(), env.clone()));
        let late = fleet.into_iter().flat_map(|fleet| &fleet.late);
        let back = |name: &&NodeName| {
            let observed = self.state.observed(name, app, None);
            let here = self.state.node(name).is_some_and(|node| node.session.is_some());
            here && observed.online && !observed.drained && !observed.busy
        };
        late.filter(back).cloned().collect()
    }

    fn bring(&mut self, app: AppName, env: EnvName, to: Release, nodes: BTreeSet<NodeName>) {
        let names: Vec<NodeName> = nodes.iter().cloned().collect();
        let start = Start {
            app: app.clone(),
            env: env.clone(),
            version: Some(to.version),
            manifest: None,
            kind: Kind::Deploy,
            to_revision: None,
            message: format!("catches up: {}", list(&names)),
            supersede: false,
            digest: None,
            only: Some(nodes.clone()),
            break_glass: None,
        };
        if let Err(refused) = self.start(start, BY_ITSELF) {
            tracing::debug!(%app, %env, why = refused.message, "late nodes cannot catch up yet");
            return;
        }
        // What becomes of them is this rollout's to say; a node that fails is not tried for ever.
        let Some(fleet) = self.state.fleets.get_mut(&(app.clone(), env.clone())) else { return };
        fleet.late.retain(|name| !nodes.contains(name));
        let written = self.batch.put(keys::fleet(&app, &env), fleet);
        self.written(written);
    }
}
