//! From the core's step to records and orders: what becomes durable, and what leaves afterwards.

use std::collections::BTreeSet;

use rota_proto::agent::{self as proto, to_agent};
use rota_rollout::names::{EnvName, NodeName, Release, RolloutId, Span};
use rota_rollout::node::{Direction, Phase, Skip};
use rota_rollout::rollout::{Change, Kind, Once, Stage};
use rota_rollout::{Order, Rollout, Step, What};

use super::admission::declared;
use super::pace::PACES_KEPT;
use super::records::{
    CURRENTS_KEPT, Current, Declared, FleetRecord, HeadRecord, NodeRecord, ONCE_KEPT,
    ReleaseRecord, keys,
};
use super::state::AgentKey;
use super::{Turn, message};
use crate::manifest::Manifest;
use crate::store::Compare;

/// An event before it has a number.
pub(crate) struct NewEvent {
    pub kind: &'static str,
    pub app: Option<String>,
    pub env: Option<String>,
    pub rollout: Option<String>,
    pub node: Option<String>,
    pub text: String,
    pub in_traffic: Option<usize>,
    pub state: Option<&'static str>,
}

impl NewEvent {
    pub fn new(kind: &'static str, text: String) -> Self {
        let (app, env, rollout, node) = (None, None, None, None);
        Self { kind, app, env, rollout, node, text, in_traffic: None, state: None }
    }
}

/// A release as nodes are told of it.
#[derive(Debug, Clone)]
pub struct Known {
    /// In the wire's words.
    pub wire: proto::ReleaseSpec,
    /// The once-per-release job and its time limit.
    pub once: Option<(Vec<String>, Span)>,
}

/// Reads a release's manifest for an environment.
fn read(record: &ReleaseRecord, env: &EnvName) -> Result<Known, String> {
    let manifest = Manifest::parse(&record.manifest, &record.manifest_name)
        .map_err(|bad| format!("the manifest of {} cannot be read: {bad}", record.version))?;
    let resolved = manifest.resolve(env);
    let wire = crate::wire::release_spec(&resolved, env.as_str(), record);
    Ok(Known { wire, once: resolved.once.map(|once| (once.command, once.timeout)) })
}

/// The node that an order is for.
fn addressee(order: &Order) -> Option<&NodeName> {
    match order {
        Order::Prepare { node, .. }
        | Order::Update { node, .. }
        | Order::Run { node, .. }
        | Order::Once { node, .. }
        | Order::Settle { node } => Some(node),
        Order::WakeAt(_) => None,
    }
}

/// How a rollout ended.
struct Over {
    /// In the words of the public contract.
    state: &'static str,
    /// What is current from now on; `None`: what was.
    current: Option<Currently>,
    /// The release it moved to.
    to: Release,
    /// Targets that it could not bring there, or was told to leave.
    left: BTreeSet<NodeName>,
}

/// A release that becomes current, and who was away when it came.
struct Currently {
    release: Release,
    declared: Declared,
    late: BTreeSet<NodeName>,
}

/// The targets that were passed over because they were away.
fn late(rollout: &Rollout) -> BTreeSet<NodeName> {
    let away =
        |phase: &Phase| matches!(phase, Phase::Skipped { why: Skip::Offline | Skip::Drained });
    let nodes = rollout.nodes().iter().filter(|(_, node)| away(&node.phase));
    nodes.map(|(name, _)| name.clone()).collect()
}

/// The targets that failed, or that an operator skipped.
fn left(rollout: &Rollout) -> BTreeSet<NodeName> {
    let is_left = |phase: &Phase| {
        matches!(phase, Phase::Failed { .. } | Phase::Skipped { why: Skip::ByOperator })
    };
    let nodes = rollout.nodes().iter().filter(|(_, node)| is_left(&node.phase));
    nodes.map(|(name, _)| name.clone()).collect()
}

/// A node, and the rollout that knows of it.
type Moved = (NodeName, Option<RolloutId>);

impl Turn<'_> {
    /// Takes a step over: changes into the batch, fenced; then events; then orders.
    pub(super) fn take_step(&mut self, id: &RolloutId, step: Step) {
        let Step { changes, orders, notes } = step;
        let moved = self.apply(id, changes);
        for note in notes {
            self.event_of(id, note.node.as_ref(), note.text);
        }
        self.carry(id, orders);
        for (node, but) in moved {
            self.observe(&node, but.as_ref());
        }
    }

    /// Writes changed records and applies them. Answers the nodes that became busy or free for other rollouts; of whom
    /// it gave up, it wants to know itself how they stand.
    fn apply(&mut self, id: &RolloutId, changes: Vec<Change>) -> Vec<Moved> {
        if changes.is_empty() {
            return Vec::new();
        }
        self.fenced(id);
        let Some(active) = self.state.rollouts.get_mut(id) else { return Vec::new() };
        let prefix = keys::rollout(id);
        let mut moved = Vec::new();
        let mut busy = Vec::new();
        let mut starts = false;
        let (mut phases, mut results) = (Vec::new(), Vec::new());
        for change in &changes {
            results.push(match change {
                Change::Head(head) => {
                    let once = |stage: &Stage| matches!(stage, Stage::Once(Once::Running { .. }));
                    starts |= once(&head.stage) && !once(&active.rollout.head.stage);
                    let record = HeadRecord { head: head.clone() };
                    self.batch.put(format!("{prefix}head"), &record)
                }
                Change::Node(name, node) => {
                    let before = active.rollout.nodes().get(name);
                    let ran = before.is_some_and(|before| before.phase.is_running());
                    if let Some(before) = before {
                        let seen = |phase: &Phase| (phase.is_running(), phase.takes_out());
                        let (was, is) = (seen(&before.phase), seen(&node.phase));
                        if was != is {
                            let but = (!node.phase.is_given_up()).then(|| id.clone());
                            moved.push((name.clone(), but));
                        }
                        starts |= (is.0 && !was.0) || (is.1 && !was.1);
                        phases.push((name.clone(), before.phase.clone(), node.phase.clone()));
                    }
                    busy.push((name.clone(), ran, node.phase.is_running()));
                    let record = NodeRecord { node: node.as_ref().clone() };
                    self.batch.put(format!("{prefix}nodes/{name}"), &record)
                }
            });
        }
        active.rollout.apply(changes);
        let over = active.rollout.is_ended().then(|| Over {
            state: active.rollout.state(),
            current: active.rollout.becomes_current().then(|| Currently {
                release: active.rollout.spec.to.clone(),
                declared: declared(&active.record.release, &id.env),
                late: late(&active.rollout),
            }),
            to: active.rollout.spec.to.clone(),
            left: left(&active.rollout),
        });
        for result in results {
            self.written(result);
        }
        self.busy_moved(id, &busy);
        if starts {
            self.starts(id);
        }
        for (name, was, is) in phases {
            self.measure(id, &name, &was, &is);
        }
        if let Some(over) = over {
            self.remember_end(id, over);
            self.ask_last_words(id);
        }
        moved
    }

    /// A rollout's records are written only by its owner. With the embedded store that is who claimed it last; among
    /// several it is whoever has the place in which it was claimed, and that is compared by every commit.
    fn fenced(&mut self, id: &RolloutId) {
        let Some(active) = self.state.rollouts.get(id) else { return };
        if self.state.cluster.is_some() {
            return;
        }
        let owner = format!("{}owner", keys::rollout(id));
        self.batch.require(match active.fence {
            0 => Compare::Absent(owner), // admitted in this very turn
            fence => Compare::Modified(owner, fence),
        });
    }

    /// A rollout is over: counted, and perhaps its release is the environment's current one from now on. In the same
    /// commit in which it ends.
    fn remember_end(&mut self, id: &RolloutId, over: Over) {
        let active = self.state.rollouts.get_mut(id);
        let learned = active.and_then(|active| active.clock.learned(&active.rollout));
        let key = (id.app.clone(), id.env.clone());
        let fleet = self.state.fleets.entry(key).or_insert_with(|| FleetRecord::new(id.revision));
        fleet.paces.extend(learned);
        let excess = fleet.paces.len().saturating_sub(PACES_KEPT);
        fleet.paces.drain(..excess);
        *fleet.ended.entry(over.state.to_owned()).or_default() += 1;
        let was = fleet.currents.last().map(|current| current.release.clone());
        if over.current.is_some() && was.as_ref() != Some(&over.to) {
            fleet.left.clear();
        }
        if over.current.is_some() || was.as_ref() == Some(&over.to) {
            fleet.left.extend(over.left.into_iter().map(|name| (name, id.revision)));
        }
        if let Some(Currently { release, declared, late }) = over.current {
            let same = was.as_ref() == Some(&release);
            if same {
                fleet.late.extend(late);
            } else {
                fleet.late = late;
            }
            let declared = Some(declared);
            fleet.currents.push(Current { revision: id.revision, release, declared });
            let excess = fleet.currents.len().saturating_sub(CURRENTS_KEPT);
            fleet.currents.drain(..excess);
        }
        self.keep_fleet(&id.app, &id.env);
    }

    /// Remembers that the once-per-release job needs never run again for this release.
    pub(super) fn once_succeeded(&mut self, id: &RolloutId) {
        let Some(active) = self.state.rollouts.get(id) else { return };
        let release = active.rollout.spec.to.clone();
        let Some(fleet) = self.state.fleets.get_mut(&(id.app.clone(), id.env.clone())) else {
            return;
        };
        if !fleet.once_ran.contains(&release) {
            fleet.once_ran.push(release);
            let excess = fleet.once_ran.len().saturating_sub(ONCE_KEPT);
            fleet.once_ran.drain(..excess);
            self.keep_fleet(&id.app, &id.env);
        }
    }

    /// Sends orders (after the commit) and notes wake-ups.
    pub(super) fn carry(&mut self, id: &RolloutId, orders: Vec<Order>) {
        for order in orders {
            if let Order::WakeAt(at) = order {
                if let Some(active) = self.state.rollouts.get_mut(id) {
                    active.wakes.insert(at);
                }
                continue;
            }
            let Some(node) = addressee(&order).cloned() else { continue };
            match self.work(id, &order) {
                Ok((attempt, work)) => {
                    let Some(active) = self.state.rollouts.get(id) else { continue };
                    let order = proto::Order {
                        term: active.term,
                        rollout: id.to_string(),
                        attempt,
                        work: Some(work),
                    };
                    let order = message(to_agent::Message::Order(order));
                    self.batch.send(AgentKey::Node(node), order);
                }
                Err(why) => tracing::error!(rollout = %id, %node, why, "an order cannot be given"),
            }
        }
    }

    /// An order in the wire's words.
    fn work(&mut self, id: &RolloutId, order: &Order) -> Result<(u32, proto::order::Work), String> {
        use proto::order::Work;
        let active = self.state.rollouts.get(id).ok_or("the rollout is gone")?;
        let target = active.record.release.release();
        match order {
            Order::Prepare { attempt, .. } => {
                let Known { wire, .. } = self.known(id, &target)?;
                Ok((attempt.0, Work::Prepare(proto::Prepare { release: Some(wire) })))
            }
            Order::Update { attempt, direction, to, .. } => {
                Ok((attempt.0, Work::Update(self.update(id, to, *direction)?)))
            }
            Order::Run { attempt, .. } => {
                let command = active.record.command.as_ref().ok_or("there is no command")?;
                let timeout_ms = command.timeout.0;
                let run = proto::RunCommand { command: command.argv.clone(), timeout_ms };
                Ok((attempt.0, Work::Run(run)))
            }
            Order::Once { attempt, .. } => {
                let Known { wire, once } = self.known(id, &target)?;
                let (command, timeout) = once.ok_or("the manifest has no [once]")?;
                let timeout_ms = timeout.0;
                let once = proto::Once { release: Some(wire), command, timeout_ms };
                Ok((attempt.0, Work::Once(once)))
            }
            Order::Settle { .. } => Ok((0, Work::Settle(self.keep(id)))),
            Order::WakeAt(_) => Err("a wake-up is for nobody".to_owned()),
        }
    }

    fn update(
        &mut self,
        id: &RolloutId,
        to: &Release,
        direction: Direction,
    ) -> Result<proto::Update, String> {
        use rota_rollout::strategy::{OnNodeFailure, StartOrder};
        let Known { wire, .. } = self.known(id, to)?;
        let active = self.state.rollouts.get(id).ok_or("the rollout is gone")?;
        let spec = &active.rollout.spec;
        let pool = wire.traffic.as_ref().map(|plan| plan.pool.clone()).unwrap_or_default();
        Ok(proto::Update {
            release: Some(wire),
            direction: crate::wire::direction(direction, spec.kind == Kind::Restart) as i32,
            start_first: spec.strategy.order == StartOrder::StartFirst,
            leave_on_failure: spec.strategy.on_node_failure == OnNodeFailure::Leave,
            monitor_ms: spec.strategy.monitor.0,
            edges: self.state.edges_of(&id.env, &pool),
        })
    }

    /// A release in the wire's words for the rollout's environment; its manifest is read once per rollout.
    fn known(&mut self, id: &RolloutId, release: &Release) -> Result<Known, String> {
        let active = self.state.rollouts.get(id).ok_or("the rollout is gone")?;
        if let Some(known) = active.known.get(&release.version) {
            return Ok(known.clone());
        }
        let record = if active.record.release.release() == *release {
            active.record.release.clone()
        } else {
            let key = (id.app.clone(), release.version.clone());
            let found = self.state.releases.get(&key);
            let same = found.filter(|record| record.digest == release.digest).cloned();
            same.ok_or_else(|| format!("release {release} of {} was removed", id.app))?
        };
        let known = read(&record, &id.env)?;
        if let Some(active) = self.state.rollouts.get_mut(id) {
            active.known.insert(release.version.clone(), known.clone());
        }
        Ok(known)
    }

    /// Releases that nodes keep beside the current one and its predecessor.
    fn keep(&self, id: &RolloutId) -> proto::Settle {
        let key = (id.app.clone(), id.env.clone());
        let currents = self.state.fleets.get(&key).map(|fleet| fleet.currents.as_slice());
        let newest = currents.unwrap_or_default().iter().rev().take(3);
        let name = |release: &Release| format!("{}-{}", release.version, release.digest.short());
        proto::Settle {
            keep: newest.clone().map(|current| current.release.digest.to_string()).collect(),
            releases: newest.map(|current| name(&current.release)).collect(),
        }
    }

    /// A node has accepted a newer term than ours: an old state was restored here. We claim a newer one still.
    pub(super) fn outvoted(&mut self, id: &RolloutId, newest: u64) {
        let Some(active) = self.state.rollouts.get(id) else { return };
        if newest > active.term {
            tracing::warn!(rollout = %id, newest, ours = active.term, "a node knows a newer term");
            let known = self.batch.reclaims.entry(id.clone()).or_default();
            *known = newest.max(*known);
        }
    }

    /// Everything of a rollout that is ordered and not answered, once more.
    pub(super) fn resend_all(&mut self, id: &RolloutId) {
        let Some(active) = self.state.rollouts.get(id) else { return };
        let orders = rota_rollout::outstanding(&active.rollout);
        self.carry(id, orders);
    }

    /// Wakes the rollouts whose time has come.
    pub(super) fn wake_rollouts(&mut self) {
        let at = self.at;
        let due: Vec<RolloutId> = self
            .state
            .rollouts
            .iter_mut()
            .filter_map(|(id, active)| {
                let later = active.wakes.split_off(&rota_rollout::Timestamp(at.0 + 1));
                let due = !std::mem::replace(&mut active.wakes, later).is_empty();
                due.then(|| id.clone())
            })
            .collect();
        for id in due {
            self.step(&id, What::Tick);
        }
    }
}
