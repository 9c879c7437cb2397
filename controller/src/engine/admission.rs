//! Admits rollouts: the release, the targets, the plan, and every reason why it would not be safe.

mod fence;
mod limits;
mod planned;
pub(super) mod refusals;
mod release;
mod start;

use rota_rollout::batches::{Plan, Target, plan};
use rota_rollout::names::{EnvName, NodeName, Release, Revision, RolloutId};
use rota_rollout::rollout::{Head, Kind, Rollout, Spec};
use rota_rollout::strategy::{Deadline, Offline, OnFailure, Strategy};
use rota_rollout::verbs::Verb;
use rota_rollout::{What, names::AppName};
use serde_json::json;

use super::batch::Answer;
use super::cluster::Owner;
use super::place::again;
use super::records::{
    AgentRecord, EvidenceRecord, FleetRecord, HeadRecord, NodeRecord, OwnerRecord, ReleaseRecord,
    SpecRecord, keys,
};
use super::run::RunAsked;
use super::state::Active;
use super::{State, Turn};
use crate::errors::Sort;
use crate::manifest::{self, Manifest, Resolved, Via};
use crate::view::ErrorView;
pub(super) use fence::Fences;
pub(super) use fence::declared;
use limits::limits;
use release::release_for;
pub use start::{Given, Start};

/// Everything that admission found out.
pub(super) struct Found {
    pub release: ReleaseRecord,
    pub resolved: Resolved,
    pub targets: Vec<Target>,
    pub plan: Plan,
    /// What the fences say, unless they are broken: then it is among the plan's notes.
    pub fences: Fences,
}

impl Turn<'_> {
    /// Admits and begins a rollout, or says why not. A refusal changes nothing.
    pub(super) fn start(&mut self, start: Start, who: &str) -> Answer {
        let found = find(self.state, &start)?;
        if let Some(running) = self.state.stays(&start) {
            let mut refused = in_the_way(&running.rollout);
            let all = [&[refused.hint][..], &found.plan.refusals].concat();
            refused.hint = all.join("; ");
            return Err(refused);
        }
        if let Some(first) = found.plan.refusals.first() {
            let rest: Vec<&str> = found.plan.refusals[1..].iter().map(String::as_str).collect();
            let hint = if rest.is_empty() {
                "`rota plan` shows it all".to_owned()
            } else {
                rest.join("; ")
            };
            return Err(Sort::Refused.error(first.clone(), hint));
        }
        if start.break_fence && start.message.trim().is_empty() {
            return Err(no_reason());
        }
        if self.state.open(&start.app, &start.env).any(|active| active.owner != Owner::Us) {
            return Err(again()); // its owner is being replaced, and so may we be
        }
        self.make_way(&start);
        let id = self.next_id(&start.app, &start.env);
        let key = (start.app.clone(), start.env.clone());
        let fleet = self.state.fleets.entry(key).or_insert_with(|| FleetRecord::new(id.revision));
        fleet.revision = id.revision;
        fleet.open.insert(id.revision);
        let from = fleet.currents.last().map(|current| current.release.clone());
        self.keep_fleet(&id.app, &id.env);
        self.rely_on(&keys::release(&id.app, &found.release.version));
        self.admit(&id, &start, found, Admitted { from, who: who.to_owned() });
        self.edges_moved();
        self.step(&id, What::Started);
        Ok(json!({ "id": id.to_string() }))
    }

    /// One rollout of an app in an environment at a time; the older ones give way when asked to. One that gave way
    /// before may still finish what is under way.
    fn make_way(&mut self, start: &Start) {
        let open = self.state.open(&start.app, &start.env);
        let can =
            open.filter(|active| rota_rollout::verbs::allow(&active.rollout, &Verb::Abort).is_ok());
        let ids: Vec<RolloutId> = can.map(|active| active.rollout.spec.id.clone()).collect();
        for id in ids {
            let who = "a newer rollout".to_owned();
            self.step(&id, What::Asked { verb: Verb::Abort, who });
        }
    }

    fn next_id(&self, app: &AppName, env: &EnvName) -> RolloutId {
        let fleet = self.state.fleets.get(&(app.clone(), env.clone()));
        let newest = fleet.map_or(Revision(0), |fleet| fleet.revision);
        let revision = newest.max(Revision(self.state.lost)).next();
        RolloutId { app: app.clone(), env: env.clone(), revision }
    }

    /// Writes every record of the new rollout into the batch.
    fn admit(&mut self, id: &RolloutId, start: &Start, found: Found, admitted: Admitted) {
        let Found { release, resolved, targets, plan, fences } = found;
        let message = start.message.clone();
        let mut spec = spec_of(id, start, &resolved, &release);
        spec.once &= !self.once_done(id, &release);
        spec.batches.clone_from(&plan.batches);
        spec.targets = plan.targets;
        spec.from = admitted.from;
        spec.fence = fences.way_back;
        (spec.who, spec.message, spec.started) = (admitted.who, message, self.at);
        let mut head = Head::new(plan.in_traffic);
        head.frozen = refusals::frozen(self.state, &id.env);
        head.closed = self.state.closed(&id.env).cloned();
        head.break_glass = start.break_glass.as_ref().map(|why| format!("{}: {why}", spec.who));
        let moves = start.kind != Kind::Run; // else nobody is taken out of traffic
        let pool = match &resolved.traffic.via {
            Via::Edge(pool) => moves.then(|| pool.clone()),
            Via::Endpoint { .. } | Via::Command(_) | Via::None => None,
        };
        // What was limited to some nodes, or moves none, is not widened.
        let grows = start.only.is_none() && matches!(start.kind, Kind::Deploy | Kind::Undo);
        let record = SpecRecord {
            spec: spec.clone(),
            release,
            pool,
            edges: resolved.traffic.edges,
            by_itself: start.by_itself,
            command: start.run.as_ref().map(RunAsked::record),
            takes_in: grows.then(|| resolved.target.clone()),
            first_event: self.state.next_event,
        };
        let nodes = plan.nodes(&targets);
        let place = self.state.place();
        let owner = OwnerRecord { controller: self.state.name.clone(), term: 1, place };
        let prefix = keys::rollout(id);
        let mut results = vec![
            self.batch.put(format!("{prefix}spec"), &record),
            self.batch.put(format!("{prefix}head"), &HeadRecord { head: head.clone() }),
            self.batch.put(format!("{prefix}owner"), &owner),
        ];
        for (name, node) in &nodes {
            let record = NodeRecord { node: node.clone() };
            results.push(self.batch.put(format!("{prefix}nodes/{name}"), &record));
        }
        for result in results {
            self.written(result);
        }
        let told = beginning(&record, start, &fences.refusals);
        let active = Active {
            rollout: Rollout::new(spec, head, nodes),
            record,
            evidence: EvidenceRecord::default(),
            owner: Owner::Us,
            term: 1,
            fence: 0,
            wakes: Default::default(),
            fetching_since: Default::default(),
            clock: Default::default(),
            last_words: None,
            known: Default::default(),
        };
        self.batch.admitted.push(id.clone());
        self.state.rollouts.insert(id.clone(), active);
        for text in told {
            self.event_of(id, None, text);
        }
        self.ask_to_count(id);
    }
}

impl Turn<'_> {
    /// Has the once-per-release job of this release succeeded here already?
    fn once_done(&self, id: &RolloutId, release: &ReleaseRecord) -> bool {
        let fleet = self.state.fleets.get(&(id.app.clone(), id.env.clone()));
        fleet.is_some_and(|fleet| fleet.once_ran.contains(&release.release()))
    }
}

/// What the event log says of a rollout's beginning.
fn beginning(record: &SpecRecord, start: &Start, broken: &[impl std::fmt::Display]) -> Vec<String> {
    let spec = &record.spec;
    let mut text = match (&record.command, spec.kind) {
        (Some(command), _) => format!("run of `{}` started by {}", command.line(), spec.who),
        (None, Kind::Undo) => format!("return to {} started by {}", spec.to, spec.who),
        (None, Kind::Restart) => format!("restart of {} started by {}", spec.to, spec.who),
        (None, Kind::Deploy | Kind::Run) => {
            format!("rollout to {} started by {}", spec.to, spec.who)
        }
    };
    if let Some(why) = &start.break_glass {
        text.push_str(&format!("; the glass is broken: {why}"));
    }
    let broken =
        broken.iter().map(|why| format!("{} breaks the fence: {} ({why})", spec.who, spec.message));
    std::iter::once(text).chain(broken).collect()
}

/// Whoever breaks a fence says why.
pub(super) fn no_reason() -> ErrorView {
    Sort::Usage.error("to break a fence takes a reason", "`--break-fence -m WHY`")
}

/// What admission adds to what was asked.
struct Admitted {
    from: Option<Release>,
    who: String,
}

impl State {
    /// The rollout that stands in the way of a new one. One that nobody asked for is not in the way of one that
    /// somebody asks for.
    fn stays(&self, start: &Start) -> Option<&Active> {
        let gives_way = |active: &Active| start.supersede || active.record.by_itself;
        let open = self.rollouts.values().rev().filter(|active| {
            let id = &active.rollout.spec.id;
            id.app == start.app && id.env == start.env && !active.rollout.is_ended()
        });
        open.into_iter().find(|active| !gives_way(active))
    }
}

fn in_the_way(running: &Rollout) -> ErrorView {
    let id = &running.spec.id;
    let does = match running.spec.kind {
        Kind::Run => format!("rollout {id} runs a command here"),
        Kind::Deploy | Kind::Undo | Kind::Restart => {
            format!("rollout {id} to {} runs here", running.spec.to)
        }
    };
    Sort::Refused.error(
        format!("{does} ({})", running.state().replace('_', " ")),
        format!(
            "wait for it (`rota rollout status {id} -w`), end it (`rota rollout abort {id}`), \
             or replace it with --supersede"
        ),
    )
}

/// Release, manifest, targets and plan.
fn find(state: &State, start: &Start) -> Result<Found, ErrorView> {
    let release = release_for(state, start)?;
    let own = Manifest::parse(&release.manifest, &release.manifest_name).map_err(|problems| {
        Sort::Internal.error(format!("the manifest of {}: {problems}", release.version), "")
    })?;
    let mut resolved = own.resolve(&start.env);
    if let Some(given) = &start.manifest {
        let given = given.manifest.resolve(&start.env);
        (resolved.strategy, resolved.target) = (given.strategy, given.target);
    }
    if start.only.is_some() || start.kind == Kind::Undo {
        resolved.strategy.approve_after.clear(); // the release was approved when it came
    }
    if let Some(run) = &start.run {
        return run.find(state, start, release, resolved);
    }
    if start.only.is_some() || start.kind != Kind::Deploy {
        resolved.strategy.rehearse_rollback = false; // nobody goes back to what he leaves in a hurry
    }
    if start.by_itself {
        // It ends whatever happens: nobody waits for it, and it must not be in anybody's way.
        resolved.strategy.on_failure = OnFailure::Continue;
        resolved.strategy.offline = Offline::Skip;
        resolved.strategy.deadline = Deadline::None;
    }
    let targets = targets(state, start, &resolved);
    let restart = start.kind == Kind::Restart;
    let mut plan = plan(&targets, &resolved.strategy, &release.release(), restart);
    plan.refusals.extend(refusals::unsafe_here(state, start, &resolved));
    plan.refusals.extend(strangers(start, &targets));
    plan.notes.extend(nothing_spread(&targets, &resolved));
    let known = fence::Found {
        targets: &targets,
        plan: &plan,
        rehearses: resolved.strategy.rehearse_rollback,
    };
    let fences = fence::look(state, start, &release, &known);
    if start.break_fence {
        let broken = fences.refusals.iter().map(|why| format!("the fence would be broken: {why}"));
        plan.notes.extend(broken);
    } else {
        let told = |why: &String| format!("{why} (go all the same: `--break-fence -m WHY`)");
        plan.refusals.extend(fences.refusals.iter().map(told));
    }
    Ok(Found { release, resolved, targets, plan, fences })
}

/// Does a `[target]` mean this node?
pub(super) fn is_meant(record: &AgentRecord, env: &EnvName, wanted: &manifest::Target) -> bool {
    let labels = record.all_labels();
    record.env == env.as_str()
        && (wanted.roles.is_empty() || record.roles.iter().any(|r| wanted.roles.contains(r)))
        && wanted.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// The nodes that the manifest's `[target]` means.
fn targets(state: &State, start: &Start, resolved: &Resolved) -> Vec<Target> {
    state
        .nodes()
        .filter(|(_, agent)| is_meant(&agent.record, &start.env, &resolved.target))
        .map(|(name, agent)| Target {
            name: name.clone(),
            observed: state.observed(name, &start.app, None),
            runs: state.runs(name, &start.app),
            spread: spread(&agent.record, &resolved.strategy),
            left_alone: start.only.as_ref().is_some_and(|only| !only.contains(name)),
        })
        .collect()
}

/// Its value of the label that the strategy spreads by.
pub(super) fn spread(record: &AgentRecord, strategy: &Strategy) -> Option<String> {
    record.all_labels().get(strategy.spread_by.as_ref()?).cloned()
}

/// Nodes that are named, and are no targets.
fn strangers(start: &Start, targets: &[Target]) -> Option<String> {
    let is_target = |name: &NodeName| targets.iter().any(|target| target.name == *name);
    let only = start.only.iter().flatten();
    let strangers: Vec<NodeName> = only.filter(|name| !is_target(name)).cloned().collect();
    (!strangers.is_empty()).then(|| {
        let (app, env) = (&start.app, &start.env);
        format!("no targets of {app} in {env}: {}", rota_rollout::gate::list(&strangers))
    })
}

/// Is a label to spread by that nobody has? A slip of the pen, as like as not.
fn nothing_spread(targets: &[Target], resolved: &Resolved) -> Option<String> {
    let label = resolved.strategy.spread_by.as_ref()?;
    let nobody = !targets.is_empty() && targets.iter().all(|target| target.spread.is_none());
    nobody.then(|| format!("spread_by: no target has the label {label}, so nothing is spread"))
}

fn spec_of(id: &RolloutId, start: &Start, resolved: &Resolved, release: &ReleaseRecord) -> Spec {
    Spec {
        id: id.clone(),
        kind: start.kind,
        to: release.release(),
        from: None,
        strategy: resolved.strategy.clone(),
        batches: Vec::new(),
        targets: 0,
        limits: start.run.as_ref().map_or_else(|| limits(resolved, release), RunAsked::limits),
        once: resolved.once.is_some() && start.kind == Kind::Deploy,
        fence: None,
        started: rota_rollout::Timestamp(0),
        who: String::new(),
        message: String::new(),
    }
}

#[cfg(test)]
mod tests;
