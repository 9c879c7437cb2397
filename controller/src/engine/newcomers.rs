//! Nodes that come while a rollout runs, and that it means: they join it, and need not wait for its end.

use rota_rollout::What;
use rota_rollout::batches::Target;
use rota_rollout::names::{NodeName, RolloutId};
use rota_rollout::newcomers::takes_in;

use super::admission::{is_meant, spread};
use super::cluster::Owner;
use super::state::Active;
use super::{State, Turn};

impl Turn<'_> {
    /// Tells every rollout who came since it was admitted, or has lost everything since.
    pub(super) fn take_newcomers(&mut self) {
        let state = &*self.state;
        let newcomers = |(id, active): (&RolloutId, &Active)| {
            let targets = state.newcomers(id, active);
            targets.into_iter().map(|target| (id.clone(), target)).collect::<Vec<_>>()
        };
        let own = state.rollouts.iter().filter(|(_, active)| active.owner == Owner::Us);
        let found: Vec<(RolloutId, Target)> = own.flat_map(newcomers).collect();
        for (id, target) in found {
            self.step(&id, What::Newcomer(target));
        }
    }
}

impl State {
    /// Those that nodes catching up would be brought with after its end: they have nothing of the app, or something
    /// else and the release says `catch_up`.
    fn newcomers(&self, id: &RolloutId, active: &Active) -> Vec<Target> {
        let Some(meant) = &active.record.takes_in else { return Vec::new() };
        let spec = &active.rollout.spec;
        let joins = |name: &NodeName| {
            let runs = self.runs(name, &id.app);
            let due = match &runs {
                None => true,
                Some(runs) => {
                    let fenced = || {
                        let (app, env) = (&id.app, &id.env);
                        self.is_fenced(app, env, runs, &spec.to)
                            || self.is_fenced(app, env, &spec.to, runs)
                    };
                    spec.strategy.catch_up && *runs != spec.to && !fenced()
                }
            };
            due && takes_in(&active.rollout, name) && self.may_move(name, &id.app)
        };
        let here = self.nodes().filter(|(_, agent)| is_meant(&agent.record, &id.env, meant));
        here.filter(|(name, _)| joins(name))
            .map(|(name, agent)| Target {
                name: name.clone(),
                observed: self.observed(name, &id.app, Some(id)),
                runs: self.runs(name, &id.app),
                spread: spread(&agent.record, &spec.strategy),
                left_alone: false,
            })
            .collect()
    }
}
