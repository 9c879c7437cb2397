//! The fence: which way back the releases that were here, are here, or come here forbid.
//!
//! A movement to an older release goes back. It is forbidden when a release that is left by it, or that was current
//! since, says so. And a release that is to come forbids the older ones that would run beside it, because from it there
//! is no way back to them.

use std::collections::BTreeMap;

use rota_rollout::batches::{Plan, Target};
use rota_rollout::gate::list;
use rota_rollout::names::{AppName, EnvName, NodeName, Release};
use rota_rollout::rollout::Kind;

use super::Start;
use crate::engine::State;
use crate::engine::records::{Current, Declared, ReleaseRecord};
use crate::manifest::Manifest;

/// What fences say about a start.
#[derive(Default)]
pub(crate) struct Fences {
    /// Why it would be refused.
    pub refusals: Vec<String>,
    /// Why its nodes could not go back once they have the new release.
    pub way_back: Option<String>,
}

/// One release and what it says of itself.
struct Side {
    release: Release,
    declared: Declared,
}

/// What a release says of the way back from it, in this environment.
pub(crate) fn declared(record: &ReleaseRecord, env: &EnvName) -> Declared {
    let Ok(manifest) = Manifest::parse(&record.manifest, &record.manifest_name) else {
        return Declared::default(); // it was checked when it was pushed
    };
    let line = Manifest::fence_line(&record.manifest, env);
    let at = line.map(|line| format!("{}:{line}", record.manifest_name));
    Declared { compatibility: manifest.resolve(env).compatibility, at: at.unwrap_or_default() }
}

/// What the fences say. A restart goes nowhere.
pub(super) fn look(state: &State, start: &Start, to: &ReleaseRecord, plan: &Found<'_>) -> Fences {
    if matches!(start.kind, Kind::Restart | Kind::Run) {
        return Fences::default();
    }
    let looks = Looks { state, app: &start.app, env: &start.env };
    let new = Side { release: to.release(), declared: declared(to, &start.env) };
    let running = looks.running(plan, &new);
    if start.only.is_some() {
        return looks.of_some(&running, &new);
    }
    let mut fences = Fences::default();
    for old in looks.left_behind(&new, &running) {
        fences.refusals.extend(looks.forbidden(&old, &new));
    }
    for (nodes, old) in &running {
        let Some(why) = looks.forbidden(&new, old) else { continue };
        fences.refusals.push(format!("{why}; it would run beside it: {}", list(nodes)));
        fences.way_back.get_or_insert(why);
    }
    if let (Some(why), true) = (&fences.way_back, plan.rehearses) {
        let text = format!("rehearse_rollback would take nodes back, and {why}");
        fences.refusals.push(text);
    }
    fences
}

/// What admission found out before.
pub(super) struct Found<'a> {
    pub targets: &'a [Target],
    pub plan: &'a Plan,
    pub rehearses: bool,
}

impl State {
    /// Would it be a way back that is forbidden to bring a node from what it runs to what is current? Then it is not
    /// done by itself.
    pub(crate) fn is_fenced(
        &self,
        app: &AppName,
        env: &EnvName,
        runs: &Release,
        to: &Release,
    ) -> bool {
        let looks = Looks { state: self, app, env };
        let (old, new) = (looks.side(runs, None), looks.side(to, None));
        looks.left_now(&old, &new).is_some()
    }
}

struct Looks<'a> {
    state: &'a State,
    app: &'a AppName,
    env: &'a EnvName,
}

impl Looks<'_> {
    /// Some nodes are brought to what is current. That ends a mixture, so nothing is said against running beside it.
    fn of_some(&self, running: &[(Vec<NodeName>, Side)], new: &Side) -> Fences {
        let left = running.iter().filter_map(|(nodes, old)| {
            let why = self.left_now(old, new)?;
            Some(format!("{why}; it runs on {}", list(nodes)))
        });
        let way_back = running.iter().find_map(|(_, old)| self.forbidden(new, old));
        Fences { refusals: left.collect(), way_back }
    }

    /// Why one cannot leave it for what is current. What was current itself was left before, and its fence was asked
    /// then.
    fn left_now(&self, old: &Side, new: &Side) -> Option<String> {
        let mut were = self.currents().iter().map(|current| &current.release);
        if were.any(|release| *release == old.release) {
            return None;
        }
        self.forbidden(old, new)
    }

    fn currents(&self) -> &[Current] {
        let fleet = self.state.fleets.get(&(self.app.clone(), self.env.clone()));
        fleet.map(|fleet| fleet.currents.as_slice()).unwrap_or_default()
    }

    /// The other releases that run on nodes which are to be moved, and where.
    fn running(&self, found: &Found<'_>, new: &Side) -> Vec<(Vec<NodeName>, Side)> {
        let mut running: BTreeMap<&Release, Vec<NodeName>> = BTreeMap::new();
        let moved =
            |target: &&Target| found.plan.batches.iter().flatten().any(|n| *n == target.name);
        for target in found.targets.iter().filter(moved) {
            if let Some(runs) = target.runs.as_ref().filter(|runs| **runs != new.release) {
                running.entry(runs).or_default().push(target.name.clone());
            }
        }
        running.into_iter().map(|(release, nodes)| (nodes, self.side(release, None))).collect()
    }

    /// The releases whose fences count: what runs, and what was current since the new release was, unless that was gone
    /// back past already.
    fn left_behind(&self, new: &Side, running: &[(Vec<NodeName>, Side)]) -> Vec<Side> {
        let mut counts: Vec<Side> = Vec::new();
        for Current { release, declared, .. } in self.currents() {
            let current = self.side(release, declared.as_ref());
            counts.retain(|old| old.release != *release && !self.is_back(old, &current));
            if *release == new.release {
                counts.clear();
            }
            counts.push(current);
        }
        for (_, side) in running {
            if counts.iter().all(|counted| counted.release != side.release) {
                counts.push(self.side(&side.release, Some(&side.declared)));
            }
        }
        counts.retain(|old| old.release != new.release);
        counts.reverse();
        counts
    }

    fn side(&self, release: &Release, known: Option<&Declared>) -> Side {
        let record = self.record(release);
        let read = || record.map(|record| declared(record, self.env));
        let declared = known.cloned().or_else(read).unwrap_or_default();
        Side { release: release.clone(), declared }
    }

    fn record(&self, release: &Release) -> Option<&ReleaseRecord> {
        let key = (self.app.clone(), release.version.clone());
        self.state.releases.get(&key).filter(|record| record.digest == release.digest)
    }

    /// Is going from the one to the other going back? What neither says, the time of the push does.
    fn is_back(&self, from: &Side, to: &Side) -> bool {
        let (ours, its) = (&from.declared.compatibility, &to.declared.compatibility);
        let older = ours.is_older(&from.release.version, &to.release.version, its);
        let pushed = |side: &Side| self.record(&side.release).map(|record| record.created);
        let earlier = || pushed(to).zip(pushed(from)).is_some_and(|(to, from)| to < from);
        older.unwrap_or_else(earlier)
    }

    /// Why one cannot go back from the one to the other.
    fn forbidden(&self, from: &Side, to: &Side) -> Option<String> {
        if !self.is_back(from, to) {
            return None;
        }
        let (ours, its) = (&from.declared.compatibility, &to.declared.compatibility);
        let why = ours.forbids(&to.release.version, its)?;
        let fence = ours.rollback_to.as_ref()?;
        let (from, to, at) = (&from.release.version, &to.release.version, &from.declared.at);
        Some(format!("{from} forbids going back to {to}: its {fence} ({at}), and {why}"))
    }
}
