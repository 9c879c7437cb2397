//! Drift: nodes that run something else than they should, now that no rollout is about to change that.

use rota_rollout::names::{AppName, EnvName, NodeName, Release, Revision};

use super::State;
use super::admission::is_meant;
use super::records::FleetRecord;
use crate::manifest::{Manifest, Resolved};

/// One app on one node that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The node.
    pub node: NodeName,
    /// What runs there; `None`: nothing, it is new or was made anew.
    pub runs: Option<Release>,
    /// What should; `None`: nothing, it is no target any more.
    pub should: Option<Release>,
    /// It failed in this rollout or was skipped by an operator, and is not moved by itself any more.
    pub left: Option<Revision>,
}

impl State {
    /// The manifest of what is current for an app in an environment, as it is there.
    pub fn current_manifest(&self, app: &AppName, env: &EnvName) -> Option<Resolved> {
        let current = self.current(app, env)?;
        let record = self.releases.get(&(app.clone(), current.version.clone()))?;
        let manifest = Manifest::parse(&record.manifest, &record.manifest_name).ok()?;
        Some(manifest.resolve(env))
    }

    /// Every node that is here and runs another release than it should, or none, or one although it is no target.
    pub fn drift(&self, app: &AppName, env: &EnvName, fleet: &FleetRecord) -> Vec<Drift> {
        let (Some(current), None) = (fleet.currents.last(), self.running(app, env)) else {
            return Vec::new();
        };
        let manifest = self.current_manifest(app, env);
        let here = self.nodes().filter(|(_, agent)| {
            agent.record.env == env.as_str() && agent.online && !agent.record.drained
        });
        here.filter_map(|(name, agent)| {
            let runs = self.runs(name, app);
            let meant = manifest.as_ref().is_none_or(|m| is_meant(&agent.record, env, &m.target));
            let should = meant.then(|| current.release.clone());
            (runs != should).then(|| Drift {
                node: name.clone(),
                runs,
                should,
                left: fleet.left.get(name).copied(),
            })
        })
        .collect()
    }
}
