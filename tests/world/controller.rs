//! A controller process: event, step, commit, send; killed or paused between any two of these.

use std::collections::{BTreeMap, BTreeSet};

use rota_agent::update::{Direction as AgentDirection, UpdateOrder};
use rota_rollout::batches::Target;
use rota_rollout::names::{NodeName, Release, Timestamp};
use rota_rollout::newcomers::takes_in;
use rota_rollout::node::{Direction, Observed, Phase, Serving};
use rota_rollout::rehearsal::Rehearsal;
use rota_rollout::rollout::{Change, Kind};
use rota_rollout::strategy::{OnNodeFailure, StartOrder};
use rota_rollout::verbs::allow;
use rota_rollout::{Event, Order, Rollout, What};

use super::link::{Down, Up};
use super::members::Membership;
use super::several::{Outcome, Why};
use super::store::Inventory;
use super::{Ev, World};

/// A node that was not heard of for so long is offline.
const OFFLINE_AFTER_MS: u64 = 15_000;

/// After a start nodes have so long to come back before they count as offline.
const RETURN_GRACE_MS: u64 = 45_000;

/// How often a controller looks who went silent.
pub const TICK_MS: u64 = 2_500;

#[derive(Debug)]
pub struct Controller {
    /// Its name, as a number.
    pub name: usize,
    pub started: u64,
    pub rollouts: BTreeMap<u64, Active>,
    pub views: Vec<View>,
    pub state: Run,
    /// What only one of several needs.
    pub member: Membership,
}

/// A process can stand still for minutes (a suspended machine), and go on as if nothing had been.
#[derive(Debug)]
pub enum Run {
    Running,
    Paused { then: Option<Pending> },
}

/// What a paused process was about to do.
#[derive(Debug)]
pub enum Pending {
    Commit { revision: u64, changes: Vec<Change>, orders: Vec<Order> },
    Send { revision: u64, orders: Vec<Order> },
}

/// A rollout that this process believes to own.
#[derive(Debug)]
pub struct Active {
    pub rollout: Rollout,
    pub term: u64,
    pub wakes: BTreeSet<u64>,
}

/// What this process knows of a node.
#[derive(Debug, Clone)]
pub struct View {
    pub online: bool,
    pub heard: u64,
    pub session: Option<u64>,
    /// What it last said in a session with this process.
    pub inventory: Option<Inventory>,
}

impl World {
    /// Loads the state, claims what runs in a higher term, and gives every unanswered order again.
    pub fn start_controller(&mut self) {
        if self.live.is_some() {
            return;
        }
        let ctl = self.id();
        let now = self.now;
        let view = View { online: true, heard: now, session: None, inventory: None };
        let views = vec![view; self.nodes.len()];
        let mut rollouts = BTreeMap::new();
        let revisions: Vec<u64> = self.store.rollouts.keys().copied().collect();
        for revision in revisions {
            if let Some(kept) = self.store.claim(revision) {
                let wakes = BTreeSet::new();
                rollouts.insert(revision, Active { rollout: kept.rollout, term: kept.term, wakes });
            }
        }
        self.note(|| format!("controller {ctl} starts with {:?}", rollouts.keys()));
        self.live = Some(ctl);
        let mine: Vec<u64> = rollouts.keys().copied().collect();
        let state = Run::Running;
        let member = Membership::default();
        let controller = Controller { name: 0, started: now, rollouts, views, state, member };
        self.controllers.insert(ctl, controller);
        for revision in mine {
            let Some(active) = self.active(ctl, revision) else { return };
            let orders = rota_rollout::outstanding(&active.rollout);
            self.carry(ctl, revision, orders);
            // The freeze may have changed while nobody was there.
            let frozen = self.store.frozen[0].clone();
            if self.active(ctl, revision).is_some_and(|a| a.rollout.head.frozen != frozen) {
                self.step(ctl, revision, What::Frozen(frozen));
            }
            let closed = self.store.closed[0].clone();
            if self.active(ctl, revision).is_some_and(|a| a.rollout.head.closed != closed) {
                self.step(ctl, revision, What::Closed(closed));
            }
            let edges = self.store.edges_offline.clone();
            if self.active(ctl, revision).is_some_and(|a| a.rollout.head.edges_offline != edges) {
                self.step(ctl, revision, What::EdgesOffline(edges));
            }
        }
        self.after(TICK_MS, Ev::Tick { ctl });
    }

    pub fn active(&self, ctl: u64, revision: u64) -> Option<&Active> {
        self.controllers.get(&ctl)?.rollouts.get(&revision)
    }

    pub fn is_running(&self, ctl: u64) -> bool {
        self.controllers.get(&ctl).is_some_and(|c| matches!(c.state, Run::Running))
    }

    pub fn kill_controller(&mut self, ctl: u64, why: &str) {
        self.note(|| format!("controller {ctl} dies: {why}"));
        let died = self.controllers.remove(&ctl);
        let name = died.filter(|_| self.several.is_some()).map(|died| died.name);
        self.hang_up(ctl);
        if let Some(name) = name {
            let down = self.rng.range(100, if self.faulty { 40_000 } else { 500 });
            return self.after(down, Ev::Start { name });
        }
        if self.live == Some(ctl) {
            self.live = None;
            let down = self.rng.range(100, 40_000);
            self.after(if self.faulty { down } else { 100 }, Ev::ControllerUp);
        }
    }

    /// The process stands still, with something left to do; another one takes over meanwhile.
    pub fn pause_controller(&mut self, ctl: u64, then: Option<Pending>) {
        self.deed("owner paused");
        self.note(|| format!("controller {ctl} stands still before {then:?}"));
        if let Some(controller) = self.controllers.get_mut(&ctl) {
            controller.state = Run::Paused { then };
        }
        if self.live == Some(ctl) {
            self.live = None;
            let lease = self.rng.range(1_000, 6_000);
            self.after(lease, Ev::ControllerUp);
        }
        let until = self.rng.range(500, 90_000);
        self.after(until, Ev::ControllerResumes { ctl });
    }

    /// The owner of yesterday wakes up and does what it was about to do.
    pub fn resume_controller(&mut self, ctl: u64) {
        if self.several.is_some() {
            return self.wake_member(ctl);
        }
        let Some(controller) = self.controllers.get_mut(&ctl) else { return };
        self.story.deeds.entry("owner of yesterday woke").and_modify(|n| *n += 1).or_insert(1);
        let state = std::mem::replace(&mut controller.state, Run::Running);
        self.note(|| format!("controller {ctl} goes on"));
        let Run::Paused { then } = state else { return };
        match then {
            Some(Pending::Commit { revision, changes, orders }) => {
                let Some(active) = self.active(ctl, revision) else { return };
                let term = active.term;
                if self.store.commit(revision, term, &changes) {
                    if self.store.rollouts.get(&revision).is_some_and(|kept| kept.term != term) {
                        self.violation(format!("a commit in term {term} was taken over"));
                    }
                    self.taken(ctl, revision, changes, orders);
                    if self.live.is_none() {
                        self.live = Some(ctl);
                    }
                } else {
                    return self.kill_controller(ctl, "its term is over");
                }
            }
            Some(Pending::Send { revision, orders }) => self.carry(ctl, revision, orders),
            None => {}
        }
        // Whatever it decides next, the store refuses. Only the live one goes on.
        if self.live.is_some_and(|live| live != ctl) {
            self.stale_tries(ctl);
        } else if self.owns_all(ctl) {
            self.live = Some(ctl);
            self.hang_up(ctl); // nobody waits for an answer that long
            self.after(0, Ev::Tick { ctl });
        } else {
            self.kill_controller(ctl, "its lease is over");
        }
    }

    /// Has nobody claimed anything while it stood still?
    fn owns_all(&self, ctl: u64) -> bool {
        let mut running = self.store.rollouts.iter().filter(|(_, kept)| !kept.rollout.is_ended());
        self.controllers.contains_key(&ctl)
            && running.all(|(revision, kept)| {
                self.active(ctl, *revision).is_some_and(|active| active.term == kept.term)
            })
    }

    /// A woken owner of yesterday takes another step of its own; the fence refuses it.
    fn stale_tries(&mut self, ctl: u64) {
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let at = self.clock();
        let mut tries = Vec::new();
        for (revision, active) in &controller.rollouts {
            let step = rota_rollout::step(&active.rollout, &Event { at, what: What::Tick });
            tries.push((*revision, active.term, step, rota_rollout::outstanding(&active.rollout)));
        }
        for (revision, term, step, again) in tries {
            let newest = self.store.rollouts.get(&revision).map(|kept| kept.term);
            let taken = self.store.commit(revision, term, &step.changes);
            if taken && newest != Some(term) {
                self.violation(format!("the store took a change in term {term} of {newest:?}"));
            }
            if self.rng.percent(50) {
                self.carry(ctl, revision, again); // it does not know yet that it is outvoted
            }
        }
        self.kill_controller(ctl, "its term is over");
    }

    /// One event for one rollout: decide, commit, then send.
    /// `true`: what came of it is durable.
    pub fn step(&mut self, ctl: u64, revision: u64, what: What) -> bool {
        let Some(active) = self.active(ctl, revision) else { return false };
        if active.rollout.is_ended() {
            return true;
        }
        self.note(|| format!("  {revision}: {what:?}"));
        let event = Event { at: self.clock(), what: what.clone() };
        let rota_rollout::Step { changes, orders, notes } =
            rota_rollout::step(&active.rollout, &event);
        for note in &notes {
            self.note(|| {
                let node = note.node.as_ref().map(NodeName::as_str).unwrap_or_default();
                format!("    {revision} {node}: {}", note.text)
            });
        }
        if self.dies_here() {
            match self.rng.index(3) {
                0 => {
                    self.pause_controller(ctl, Some(Pending::Commit { revision, changes, orders }));
                }
                _ => self.kill_controller(ctl, "before the commit"),
            }
            return false;
        }
        if self.several.is_some() && !changes.is_empty() {
            match self.commit(ctl, revision, &changes, &orders) {
                Outcome::Done => {}
                Outcome::Refused(Why::NotSeen) => {
                    return self.decide_anew(ctl, revision, what);
                }
                Outcome::Refused(Why::Fenced) => {
                    self.resign(ctl);
                    return false;
                }
                Outcome::NoAnswer => {
                    self.go_blind(ctl);
                    return false;
                }
            }
        }
        let term = self.active(ctl, revision).map_or(0, |active| active.term);
        if self.several.is_none()
            && !changes.is_empty()
            && !self.store.commit(revision, term, &changes)
        {
            self.kill_controller(ctl, "its term is over");
            return false;
        }
        self.taken(ctl, revision, changes, orders);
        true
    }

    /// A compare was refused: what it was decided by is not so any more. What came of the store's copy is made anew;
    /// what somebody said still holds.
    fn decide_anew(&mut self, ctl: u64, revision: u64, what: What) -> bool {
        self.deed("decided anew");
        self.catch_up(ctl);
        if !self.is_running(ctl) {
            return false; // it stands still meanwhile, or has ended: whoever said it says it again
        }
        match what {
            What::Observed { .. }
            | What::Around(_)
            | What::Newcomer(_)
            | What::Frozen(_)
            | What::Closed(_) => false,
            What::Asked { ref verb, .. } => {
                let active = self.active(ctl, revision);
                let allowed = active.is_some_and(|it| allow(&it.rollout, verb).is_ok());
                allowed && self.step(ctl, revision, what)
            }
            What::Started
            | What::Reported { .. }
            | What::OnceEnded { .. }
            | What::EdgesOffline(_)
            | What::Tick => self.step(ctl, revision, what),
        }
    }

    /// The changes are durable: take them over, send the orders.
    pub fn taken(&mut self, ctl: u64, revision: u64, changes: Vec<Change>, orders: Vec<Order>) {
        let Some(controller) = self.controllers.get_mut(&ctl) else { return };
        let Some(active) = controller.rollouts.get_mut(&revision) else { return };
        let running = |active: &Active| -> BTreeMap<NodeName, (bool, bool)> {
            let nodes = active.rollout.nodes().iter();
            let seen = |phase: &Phase| (phase.is_running(), phase.is_given_up());
            nodes.map(|(name, node)| (name.clone(), seen(&node.phase))).collect()
        };
        let before = running(active);
        let was_held = active.rollout.head.held.as_ref().map(|held| held.hold.clone());
        active.rollout.apply(changes);
        let after = running(active);
        self.check_step(ctl, revision, &orders, was_held);
        if self.dies_here() {
            return match self.rng.index(3) {
                0 => self.pause_controller(ctl, Some(Pending::Send { revision, orders })),
                _ => self.kill_controller(ctl, "after the commit"),
            };
        }
        self.carry(ctl, revision, orders);
        for (name, (runs, given_up)) in &after {
            if before.get(name).is_some_and(|(ran, _)| ran != runs) {
                let but = (!given_up).then_some(revision);
                for node in self.apps_on(name) {
                    self.observe(ctl, node, but);
                }
            }
        }
        self.end_rollout(ctl, revision);
    }

    fn end_rollout(&mut self, ctl: u64, revision: u64) {
        let Some(active) = self.active(ctl, revision) else { return };
        if !active.rollout.is_ended() {
            return;
        }
        let current = active.rollout.becomes_current();
        let mut nodes = active.rollout.nodes().values();
        if current && nodes.any(|node| node.phase == Phase::RolledBack) {
            self.violation(format!("rollout {revision} went back and becomes the current one"));
            return;
        }
        let state = active.rollout.state();
        let to = self.index_of(&active.rollout.spec.to);
        let rehearsal = active.rollout.head.rehearsal;
        self.note(|| format!("rollout {revision} ended: {state}"));
        *self.story.outcomes.entry(state).or_default() += 1;
        if let Rehearsal::Shown { .. } = rehearsal {
            self.deed("way back rehearsed");
        }
        if current {
            let line = self.line_of(revision);
            self.store.current[line] = to;
        }
        if let Some(controller) = self.controllers.get_mut(&ctl) {
            controller.rollouts.remove(&revision);
        }
    }

    /// Sends orders; may die in the middle.
    pub fn carry(&mut self, ctl: u64, revision: u64, orders: Vec<Order>) {
        for order in orders {
            if self.dies_here() {
                return self.kill_controller(ctl, "amid its orders");
            }
            if let Order::WakeAt(Timestamp(at)) = order {
                if let Some(active) =
                    self.controllers.get_mut(&ctl).and_then(|c| c.rollouts.get_mut(&revision))
                {
                    active.wakes.insert(at);
                }
                self.at(at.saturating_sub(super::EPOCH_MS), Ev::Wake { ctl });
                continue;
            }
            let Some((node, down)) = self.worded(ctl, revision, &order) else { continue };
            self.send_down(ctl, node, down.clone());
            if self.faulty && self.rng.percent(2) {
                self.send_down(ctl, node, down);
            }
        }
    }

    /// An order in the words of the wire.
    fn worded(&self, ctl: u64, revision: u64, order: &Order) -> Option<(usize, Down)> {
        let active = self.active(ctl, revision)?;
        let (spec, term) = (&active.rollout.spec, active.term);
        Some(match order {
            Order::Prepare { node, attempt } => {
                let to = self.index_of(&spec.to)?;
                (
                    self.node_named(revision, node)?,
                    Down::Prepare { revision, term, attempt: attempt.0, to },
                )
            }
            Order::Update { node, attempt, direction, to } => {
                let direction = match (direction, spec.kind) {
                    (Direction::Forward, Kind::Restart) => AgentDirection::Restart,
                    (Direction::Forward, _) => AgentDirection::Forward,
                    (Direction::Back, _) => AgentDirection::Back,
                };
                let order = UpdateOrder {
                    rollout: self.title(revision),
                    term,
                    attempt: attempt.0,
                    spec: self.made[self.index_of(to)?].spec.clone(),
                    direction,
                    start_first: spec.strategy.order == StartOrder::StartFirst,
                    leave_on_failure: spec.strategy.on_node_failure == OnNodeFailure::Leave,
                    monitor_ms: spec.strategy.monitor.0,
                };
                (self.node_named(revision, node)?, Down::Update(Box::new(order)))
            }
            Order::Run { node, attempt } => {
                (self.node_named(revision, node)?, Down::Run { revision, term, attempt: attempt.0 })
            }
            Order::Once { node, attempt } => (
                self.node_named(revision, node)?,
                Down::Once { revision, term, attempt: attempt.0 },
            ),
            Order::Settle { node } => {
                (self.node_named(revision, node)?, Down::Settle { revision, term })
            }
            Order::WakeAt(_) => return None,
        })
    }

    pub fn index_of(&self, release: &Release) -> Option<usize> {
        self.made.iter().position(|made| made.release == *release)
    }

    pub fn line_of(&self, revision: u64) -> usize {
        self.store.rollouts.get(&revision).map_or(0, |kept| kept.line)
    }

    /// Its name, in full.
    pub fn title(&self, revision: u64) -> String {
        let line = &self.lines[self.line_of(revision)];
        format!("{}/{}/{revision}", line.app, line.env)
    }

    /// The apps on a host.
    fn apps_on(&self, name: &NodeName) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| self.nodes[*node].name == *name).collect()
    }

    /// The node of this name in the rollout's line.
    pub fn node_named(&self, revision: u64, name: &NodeName) -> Option<usize> {
        let line = self.line_of(revision);
        self.nodes.iter().position(|node| node.line == line && node.name == *name)
    }

    pub fn tick(&mut self, ctl: u64) {
        if !self.is_running(ctl) {
            if self.several.is_some() && self.controllers.contains_key(&ctl) {
                self.after(TICK_MS, Ev::Tick { ctl });
            }
            return;
        }
        let now = self.now;
        for node in 0..self.nodes.len() {
            let reachable = self.is_reachable(ctl, node);
            let Some(controller) = self.controllers.get_mut(&ctl) else { return };
            let in_grace = now <= controller.started + RETURN_GRACE_MS;
            let started = controller.started;
            let view = &mut controller.views[node];
            if reachable && view.session.is_some() {
                view.heard = now; // heartbeats
            }
            let silent = now - view.heard > OFFLINE_AFTER_MS;
            let excused = view.session.is_none() && in_grace && view.heard <= started;
            if view.online && silent && !excused {
                view.online = false;
                view.session = None;
                self.note(|| format!("controller {ctl}: n{node} is offline"));
                self.observe(ctl, node, None);
            }
        }
        self.take_newcomers(ctl);
        self.after(TICK_MS, Ev::Tick { ctl });
    }

    /// Tells every rollout who came since it was admitted, or has lost everything since.
    fn take_newcomers(&mut self, ctl: u64) {
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let mut found = Vec::new();
        for (revision, active) in &controller.rollouts {
            let line = self.line_of(*revision);
            let nodes = self.nodes.iter().enumerate();
            for (index, node) in nodes.filter(|(_, node)| node.line == line) {
                let here = node.enrolled && controller.views[index].session.is_some();
                let Some(observed) = self.observed(ctl, index, Some(*revision)) else { continue };
                let free = observed.online && !observed.drained && !observed.busy;
                let bare = self.runs(ctl, index).is_none();
                if here && free && bare && takes_in(&active.rollout, &node.name) {
                    let zoned = active.rollout.spec.strategy.spread_by.is_some();
                    found.push((
                        *revision,
                        Target {
                            name: node.name.clone(),
                            observed,
                            runs: None,
                            spread: zoned.then(|| node.zone.clone()),
                            left_alone: false,
                        },
                    ));
                }
            }
        }
        for (revision, target) in found {
            if self.active(ctl, revision).is_some() {
                self.deed("newcomer taken in");
                self.step(ctl, revision, What::Newcomer(target));
            }
        }
    }

    pub fn wake(&mut self, ctl: u64) {
        if !self.is_running(ctl) {
            return;
        }
        let clock = self.clock().0;
        let Some(controller) = self.controllers.get_mut(&ctl) else { return };
        let mut due = Vec::new();
        for (revision, active) in &mut controller.rollouts {
            let later = active.wakes.split_off(&(clock + 1));
            if !std::mem::replace(&mut active.wakes, later).is_empty() {
                due.push(*revision);
            }
        }
        for revision in due {
            self.step(ctl, revision, What::Tick);
        }
    }

    /// What a message of an agent means.
    pub fn hear_agent(&mut self, ctl: u64, node: usize, session: u64, up: Up) {
        if !self.is_running(ctl) {
            return;
        }
        let now = self.now;
        let chance = self.rng.percent(50);
        let open = self.nodes[node].sessions.get(&ctl).is_some_and(|open| open.id == session);
        let Some(controller) = self.controllers.get_mut(&ctl) else { return };
        let view = &mut controller.views[node];
        let hello = open && matches!(up, Up::Hello(_));
        let mine = view.session == Some(session) || hello;
        let queued = chance && matches!(up, Up::Report { .. });
        if !(mine || queued) {
            return; // of a session that is over; a report may still lie in the queue
        }
        if mine {
            view.heard = now;
        }
        match up {
            Up::Hello(inventory) => {
                view.session = Some(session);
                view.online = true;
                view.inventory = Some(inventory);
                self.note_inventory(ctl, node, inventory);
                let seen = self.seen(ctl);
                let (drained, seq) = (seen.drained[node], seen.wishes);
                self.send_down(ctl, node, Down::Standing { drained, seq });
                self.observe(ctl, node, None);
                self.resend(ctl, node);
            }
            Up::Inventory(inventory) => {
                if self.inventory_seen(ctl, node) != inventory {
                    if let Some(controller) = self.controllers.get_mut(&ctl) {
                        controller.views[node].inventory = Some(inventory);
                    }
                    self.note_inventory(ctl, node, inventory);
                    self.observe(ctl, node, None);
                }
            }
            Up::Report { seq, revision, what } => {
                let name = self.nodes[node].name.clone();
                if self.several.is_some() {
                    return self.hear_report(ctl, node, (seq, revision), what.event(name));
                }
                if let Some(what) = what.event(name) {
                    self.step(ctl, revision, what);
                }
                if self.is_running(ctl) {
                    self.send_down(ctl, node, Down::Ack { seq });
                }
            }
        }
    }

    fn resend(&mut self, ctl: u64, node: usize) {
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let (line, name) = (self.nodes[node].line, &self.nodes[node].name);
        let again: Vec<(u64, Vec<Order>)> = controller
            .rollouts
            .iter()
            .filter(|(revision, _)| self.line_of(**revision) == line)
            .map(|(revision, active)| {
                let orders = rota_rollout::outstanding(&active.rollout);
                (*revision, orders.into_iter().filter(|o| addressee(o) == Some(name)).collect())
            })
            .collect();
        for (revision, orders) in again {
            self.carry(ctl, revision, orders);
        }
    }

    /// Tells every rollout but one what is known of a node now.
    pub fn observe(&mut self, ctl: u64, node: usize, but: Option<u64>) {
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let line = self.nodes[node].line;
        let revisions: Vec<u64> = controller.rollouts.keys().copied().collect();
        let mine = |revision: &u64| Some(*revision) != but && self.line_of(*revision) == line;
        let revisions: Vec<u64> = revisions.into_iter().filter(mine).collect();
        for revision in revisions {
            let name = self.nodes[node].name.clone();
            let Some(observed) = self.observed(ctl, node, Some(revision)) else { return };
            let runs = self.runs(ctl, node);
            self.step(ctl, revision, What::Observed { node: name, observed, runs });
        }
    }

    /// What this process believes of the node: what it said here, else what is kept.
    pub fn inventory_seen(&self, ctl: u64, node: usize) -> Inventory {
        let kept = self.seen(ctl).inventories[node];
        let said = self.controllers.get(&ctl).and_then(|it| it.views[node].inventory);
        said.filter(|_| self.several.is_some()).unwrap_or(kept)
    }

    pub fn runs(&self, ctl: u64, node: usize) -> Option<Release> {
        self.inventory_seen(ctl, node).link.map(|index| self.made[index].release.clone())
    }

    /// `None`: this rollout waits for it. `Some(true)`: not any more, for an operator skipped it or its time was over.
    fn is_waited_for(&self, ctl: u64, node: usize, own: Option<u64>) -> Option<bool> {
        let active = own.and_then(|own| self.active(ctl, own));
        let known = active.and_then(|active| active.rollout.nodes().get(&self.nodes[node].name));
        let Some(phase) = known.map(|known| &known.phase) else { return Some(false) };
        (!phase.is_running()).then_some(phase.is_given_up())
    }

    /// As the engine sees it.
    pub fn observed(&self, ctl: u64, node: usize, own: Option<u64>) -> Option<Observed> {
        let controller = self.controllers.get(&ctl)?;
        let others = self.others(ctl, node, own);
        let same_app = || others.iter().filter(|(line, _)| *line == self.nodes[node].line);
        let Inventory { link, healthy, traffic_in, moving } = self.inventory_seen(ctl, node);
        let serving = match link {
            // Another rollout of this app is taking it out, whatever is seen yet.
            Some(_) if same_app().any(|(_, node)| node.is_out()) => Serving::Out,
            None => Serving::Absent,
            Some(_) if healthy && traffic_in => Serving::In,
            Some(_) => Serving::Out,
        };
        Some(Observed {
            online: controller.views[node].online,
            serving,
            busy: others.iter().any(|(_, node)| node.phase.is_running()),
            drained: self.seen(ctl).drained[node],
            unsure: self.is_waited_for(ctl, node, own).is_some_and(|matters| {
                let heard = controller.views[node].session.is_some();
                (matters || serving == Serving::Out) && (moving || !heard)
            }),
        })
    }
}

pub fn addressee(order: &Order) -> Option<&NodeName> {
    match order {
        Order::Prepare { node, .. }
        | Order::Update { node, .. }
        | Order::Run { node, .. }
        | Order::Once { node, .. }
        | Order::Settle { node } => Some(node),
        Order::WakeAt(_) => None,
    }
}
