//! Several controllers on one store: who owns what, whose commits count, and what goes wrong between them.

use rota_rollout::claim::{self, Orphan};
use rota_rollout::names::{ControllerName, Timestamp};
use rota_rollout::node::Direction;
use rota_rollout::rollout::{Change, Kind};
use rota_rollout::{Order, What};
use std::rc::Rc;

use super::controller::Run;
use super::link::Down;
use super::members::STORE;
use super::store::{Inventory, Kept, Store};
use super::{Ev, World};

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused(Why),
    /// It may have happened.
    NoAnswer,
}

/// Which compare did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The member's key is not the one it made.
    Fenced,
    /// Something was written that it has not seen, and that it decided by.
    NotSeen,
}

/// When the faults are over, everything has its owner after so long.
const OWNED_AFTER_MS: u64 = 30_000;

fn controller_name(name: usize) -> ControllerName {
    format!("c{name}").parse().expect("a name")
}

fn number(name: &ControllerName) -> usize {
    name.as_str()[1..].parse().expect("a number")
}

/// The members as the rule of claims wants them.
fn members(store: &Store) -> Vec<claim::Member> {
    let member = |name: &usize| {
        let wish = store.wishes_for.get(name).copied().unwrap_or_default();
        let mine = |kept: &&Rc<Kept>| kept.owner == *name && !kept.rollout.is_ended();
        claim::Member {
            name: controller_name(*name),
            draining: wish.draining,
            owns: store.rollouts.values().filter(mine).count(),
            cap: wish.cap,
        }
    };
    store.members.keys().map(member).collect()
}

/// Does anything begin on a node?
fn starts(orders: &[Order]) -> bool {
    let begins = |order: &Order| {
        matches!(order, Order::Update { .. } | Order::Run { .. } | Order::Once { .. })
    };
    orders.iter().any(begins)
}

impl World {
    /// One transaction: the fence, and what an update is begun by.
    pub fn commit(
        &mut self,
        ctl: u64,
        revision: u64,
        changes: &[Change],
        orders: &[Order],
    ) -> Outcome {
        if !self.store_answers(ctl) {
            return Outcome::NoAnswer;
        }
        let lost = self.faulty && self.deadly > 0 && self.rng.myriad(self.deadly);
        if lost && self.rng.percent(50) {
            return Outcome::NoAnswer;
        }
        let refused = |why| if lost { Outcome::NoAnswer } else { Outcome::Refused(why) };
        if !self.is_member(ctl) {
            return refused(Why::Fenced);
        }
        if starts(orders) && !self.has_seen(ctl, revision, orders) {
            return refused(Why::NotSeen);
        }
        self.check_owner(ctl, revision);
        let line = self.line_of(revision);
        if let Some(kept) = self.store.rollouts.get_mut(&revision) {
            let kept = Rc::make_mut(kept);
            kept.rollout.apply(changes.iter().cloned());
            if kept.rollout.becomes_current() {
                let to = kept.rollout.spec.to.clone();
                self.store.current[line] = self.index_of(&to);
            }
        }
        self.published();
        if lost { Outcome::NoAnswer } else { Outcome::Done }
    }

    /// Does it know of every freeze, window and drain, and is no other rollout at the nodes that it starts?
    fn has_seen(&self, ctl: u64, revision: u64, orders: &[Order]) -> bool {
        let env = self.lines[self.line_of(revision)].env_number;
        self.seen(ctl).guard[env] == self.store.guard[env]
            && !orders.iter().any(|order| self.is_busy(revision, order).is_some())
    }

    /// Which other rollout is at the node that this order would start?
    fn is_busy(&self, revision: u64, order: &Order) -> Option<u64> {
        let (Order::Update { node, .. } | Order::Run { node, .. }) = order else { return None };
        let mut open = self.store.rollouts.iter().filter(|(_, kept)| !kept.rollout.is_ended());
        let there = |kept: &Kept| {
            kept.rollout.nodes().get(node).is_some_and(|there| there.phase.is_running())
        };
        let other = open.find(|(other, kept)| **other != revision && there(kept))?;
        Some(*other.0)
    }

    /// Whoever commits is the owner, and the only process that does in its term.
    fn check_owner(&mut self, ctl: u64, revision: u64) {
        let term = self.active(ctl, revision).map_or(0, |active| active.term);
        let name = self.name_of(ctl);
        let kept = self.store.rollouts.get(&revision).map(|kept| (kept.owner, kept.term));
        if kept != Some((name, term)) {
            self.violation(format!("c{name} commits in term {term}, the store has {kept:?}"));
        }
        let first = *self.committed.entry((revision, term)).or_insert(ctl);
        if first != ctl {
            self.violation(format!("{first} and {ctl} both commit for {revision} in term {term}"));
        }
    }

    /// What is wrong with orders, by what is durable, whoever owns what.
    pub fn wrong_across(&self, ctl: u64, revision: u64, orders: &[Order]) -> Vec<String> {
        let mut wrong = Vec::new();
        let Some(active) = self.active(ctl, revision) else { return wrong };
        let env = self.lines[self.line_of(revision)].env_number;
        let glass = active.rollout.head.break_glass.is_some();
        if starts(orders) && self.store.frozen[env].is_some() && !glass {
            wrong.push("an update starts while the environment is frozen".to_owned());
        }
        for order in orders {
            let (node, back) = match order {
                Order::Update { node, direction, .. } => (node, *direction == Direction::Back),
                Order::Run { node, .. } => (node, false),
                Order::Prepare { .. }
                | Order::Once { .. }
                | Order::Settle { .. }
                | Order::WakeAt(_) => continue,
            };
            if !back && self.store.closed[env].is_some() && !glass {
                wrong.push("an update starts while the windows are closed".to_owned());
            }
            if let Some(other) = self.is_busy(revision, order) {
                wrong.push(format!("{other} is updating {node} at the same time"));
            }
            let slot = self.node_named(revision, node);
            let drained = slot.is_some_and(|slot| self.store.drained[slot]);
            if drained && !back && active.rollout.spec.kind != Kind::Run {
                wrong.push(format!("an update starts on {node}, which an operator drained"));
            }
        }
        wrong
    }

    /// What other rollouts do with the app or the host of this node, as far as this process knows.
    pub fn others(
        &self,
        ctl: u64,
        node: usize,
        own: Option<u64>,
    ) -> Vec<(usize, rota_rollout::node::Node)> {
        let Some(controller) = self.controllers.get(&ctl) else { return Vec::new() };
        let name = &self.nodes[node].name;
        let mine = controller.rollouts.iter().map(|(revision, it)| (*revision, &it.rollout));
        let seen = self.seen(ctl).rollouts.iter().filter(|(revision, kept)| {
            self.several.is_some()
                && !kept.rollout.is_ended()
                && !controller.rollouts.contains_key(revision)
        });
        let seen = seen.map(|(revision, kept)| (*revision, &kept.rollout));
        let there = mine.chain(seen).filter(|(revision, _)| Some(*revision) != own);
        let found = there.filter_map(|(revision, rollout)| {
            Some((self.line_of(revision), rollout.nodes().get(name)?.clone()))
        });
        found.collect()
    }

    /// Leads, hands over, claims: whatever is due.
    pub fn look_now(&mut self, ctl: u64) {
        if !self.is_at_work(ctl) || !self.store_answers(ctl) {
            return;
        }
        let name = self.name_of(ctl);
        if self.seen(ctl).lead.is_none() && self.store.lead.is_none() && self.is_member(ctl) {
            self.store.lead = Some((name, self.store.revision + 1));
            self.published();
        }
        let wish = self.seen(ctl).wishes_for.get(&name).copied().unwrap_or_default();
        for line in 0..self.lines.len() {
            if wish.draining && wish.handover && self.running(ctl, line).is_some() {
                self.hand_over(ctl, line);
            }
        }
        for line in self.due(ctl) {
            self.claim(ctl, line);
        }
    }

    /// The lines that it claims now.
    fn due(&mut self, ctl: u64) -> Vec<usize> {
        let name = self.name_of(ctl);
        let now = self.now;
        let copy = self.controllers[&ctl].member.copy.clone();
        let mut due = Vec::new();
        let mut orphans = Vec::new();
        for line in 0..self.lines.len() {
            let open: Vec<(u64, usize)> =
                copy.open(line).map(|(revision, kept)| (revision, kept.owner)).collect();
            let lost = |(revision, owner): &(u64, usize)| {
                *owner == name && self.active(ctl, *revision).is_none()
            };
            let gone = |(_, owner): &(u64, usize)| !copy.members.contains_key(owner);
            let orphaned = open.iter().any(gone);
            if open.iter().any(lost) {
                due.push(line); // its own, of an earlier life or handed over to it
            }
            let Some(member) = self.member(ctl) else { return due };
            if !orphaned {
                member.orphans.remove(&line);
                continue;
            }
            let since = *member.orphans.entry(line).or_insert(now);
            let (app, env) = (self.lines[line].app.clone(), self.lines[line].env.clone());
            let orphan = Orphan { app, env, rollouts: open.len(), since: Timestamp(since) };
            orphans.push((line, orphan));
        }
        let all: Vec<Orphan> = orphans.iter().map(|(_, orphan)| orphan.clone()).collect();
        let me = controller_name(name);
        let taken = claim::takes(&me, &members(&copy), &all, Timestamp(now));
        let line = |orphan: &Orphan| orphans.iter().find(|(_, it)| it == orphan).map(|it| it.0);
        due.extend(taken.into_iter().filter_map(line));
        due
    }

    /// One transaction: every owner as it was read, its member's key gone, mine not.
    fn claim(&mut self, ctl: u64, line: usize) {
        if !self.is_at_work(ctl) || !self.store_answers(ctl) {
            return;
        }
        let name = self.name_of(ctl);
        let copy = self.controllers[&ctl].member.copy.clone();
        let read: Vec<(u64, usize, u64)> =
            copy.open(line).map(|(revision, kept)| (revision, kept.owner, kept.term)).collect();
        let holds = read.iter().all(|(revision, owner, term)| {
            let kept = self.store.rollouts.get(revision);
            let same = kept.is_some_and(|kept| (kept.owner, kept.term) == (*owner, *term));
            same && (*owner == name || !self.store.members.contains_key(owner))
        });
        if !holds || !self.is_member(ctl) {
            return self.deed("claim refused");
        }
        if self.dies_here() {
            return self.kill_controller(ctl, "before a claim");
        }
        let revisions: Vec<u64> = read.iter().map(|(revision, ..)| *revision).collect();
        let place = self.controllers[&ctl].member.fence.unwrap_or_default();
        for revision in &revisions {
            if let Some(kept) = self.store.rollouts.get_mut(revision) {
                let kept = Rc::make_mut(kept);
                kept.term += 1;
                (kept.owner, kept.place) = (name, place);
            }
        }
        self.deed("line claimed");
        self.note(|| format!("controller {ctl} (c{name}) claims {revisions:?}"));
        self.published();
        let lost = self.faulty && self.deadly > 0 && self.rng.myriad(self.deadly);
        if lost {
            return self.go_blind(ctl);
        }
        if self.dies_here() {
            return self.kill_controller(ctl, "after a claim");
        }
        self.read_newest(ctl); // settled: nothing older than the claim is missing
        let open = |revision: &&u64| {
            self.store.rollouts.get(revision).is_some_and(|kept| !kept.rollout.is_ended())
        };
        let open: Vec<u64> = revisions.iter().filter(open).copied().collect();
        self.begin_owned(ctl, &open);
    }

    /// Names somebody else, under its own fence. That one claims it when it hears.
    fn hand_over(&mut self, ctl: u64, line: usize) {
        let name = self.name_of(ctl);
        let all = members(self.seen(ctl));
        let others: Vec<claim::Member> =
            all.into_iter().filter(|member| number(&member.name) != name).collect();
        let count = self.seen(ctl).open(line).count();
        let Ok(heir) = claim::heir(&others, count) else { return };
        let heir = number(heir);
        if !self.is_member(ctl) {
            return self.resign(ctl);
        }
        let open: Vec<u64> = self.store.open(line).map(|(revision, _)| revision).collect();
        for revision in &open {
            if let Some(kept) = self.store.rollouts.get_mut(revision) {
                let kept = Rc::make_mut(kept);
                kept.term += 1;
                (kept.owner, kept.place) = (heir, 0);
            }
            if let Some(controller) = self.controllers.get_mut(&ctl) {
                controller.rollouts.remove(revision);
            }
        }
        self.deed("handed over");
        self.note(|| format!("controller {ctl} (c{name}) hands {open:?} over to c{heir}"));
        self.published();
        self.read_newest(ctl);
    }

    /// After the faults: is there an owner for everything that is open, and nothing with who hands over?
    pub fn check_owners(&mut self) {
        if self.faulty || self.now < self.quiet_since + OWNED_AFTER_MS {
            return;
        }
        let mut wrong = Vec::new();
        let able = members(&self.store);
        for (revision, kept) in &self.store.rollouts {
            if kept.rollout.is_ended() {
                continue;
            }
            let runs = self.process_of(kept.owner).and_then(|ctl| self.active(ctl, *revision));
            if runs.is_none_or(|active| active.term != kept.term) {
                wrong.push(format!("nobody runs rollout {revision} of c{}", kept.owner));
            }
            let wish = self.store.wishes_for.get(&kept.owner).copied().unwrap_or_default();
            if wish.draining && wish.handover && claim::heir(&able, 1).is_ok() {
                wrong.push(format!("c{} is drained and still owns {revision}", kept.owner));
            }
        }
        for wrong in wrong {
            self.violation(wrong);
        }
    }

    /// What a node says counts for the owner. Who is not the owner acknowledges nothing that another one owns.
    pub fn hear_report(
        &mut self,
        ctl: u64,
        node: usize,
        (seq, revision): (u64, u64),
        what: Option<What>,
    ) {
        if !self.is_at_work(ctl) {
            return;
        }
        let durable = if self.active(ctl, revision).is_some() {
            what.is_none_or(|what| self.step(ctl, revision, what))
        } else {
            let seen = self.seen(ctl).rollouts.get(&revision);
            seen.is_some_and(|kept| kept.rollout.is_ended())
        };
        if durable && self.is_running(ctl) {
            self.send_down(ctl, node, Down::AckOne { seq });
        }
    }

    /// Who writes down what belongs to no rollout.
    pub fn lead(&self) -> Option<u64> {
        let ctl = self.process_of(self.store.lead?.0)?;
        let able = self.is_at_work(ctl) && self.is_member(ctl) && self.store_answers(ctl);
        able.then_some(ctl)
    }

    pub fn note_inventory(&mut self, ctl: u64, node: usize, inventory: Inventory) {
        if self.several.is_none() {
            self.store.inventories[node] = inventory;
        } else if self.lead() == Some(ctl) && self.store.inventories[node] != inventory {
            self.store.inventories[node] = inventory;
            self.published();
        }
    }

    /// Any controller answers operators: it is the owner that acts, or who is to be.
    pub fn desk_of_several(&mut self) -> Option<(u64, usize, Option<u64>)> {
        let line = self.rng.index(self.lines.len());
        let open = self.store.open(line).last().map(|(revision, _)| revision);
        let all = self.controllers.keys().copied().filter(|ctl| self.is_at_work(*ctl));
        let Some(revision) = open else {
            let able: Vec<u64> = all.collect();
            let ctl = *able.get(self.rng.index(able.len()))?;
            return Some((ctl, line, None));
        };
        // One of yesterday may still believe that it is the owner.
        let owners: Vec<u64> = all.filter(|ctl| self.active(*ctl, revision).is_some()).collect();
        let ctl = *owners.get(self.rng.index(owners.len()))?;
        Some((ctl, line, Some(revision)))
    }

    /// A new rollout: of who owns the others of its line, else of who may take more.
    pub fn may_admit(&mut self, ctl: u64, line: usize) -> bool {
        if self.several.is_none() {
            return true;
        }
        if !self.store_answers(ctl) || !self.is_member(ctl) {
            return false;
        }
        self.catch_up(ctl);
        let me = controller_name(self.name_of(ctl));
        let open: Vec<u64> = self.store.open(line).map(|(revision, _)| revision).collect();
        let mine = open.iter().all(|revision| self.active(ctl, *revision).is_some());
        let all = members(&self.store);
        let able = all.iter().any(|member| member.name == me && member.can_take(1));
        self.is_at_work(ctl) && mine && (able || !open.is_empty())
    }

    pub fn drain_host(&mut self, node: usize, drained: bool) {
        if self.lead().is_none() {
            return;
        }
        self.deed("node drained or undrained");
        let name = self.nodes[node].name.clone();
        self.note(|| format!("    {name}: drained {drained}"));
        for slot in 0..self.nodes.len() {
            if self.nodes[slot].name == name {
                self.store.drained[slot] = drained;
            }
        }
        self.store.wishes += 1;
        let env = self.lines[self.nodes[node].line].env_number;
        self.store.guard[env] += 1;
        self.published();
    }

    pub fn edge_seen_by_all(&mut self, silent: bool) {
        self.deed("edge gone or back");
        let edge = || "lb-1".parse().expect("an edge");
        self.store.edges_offline = silent.then(edge).into_iter().collect();
        let all: Vec<u64> = self.controllers.keys().copied().collect();
        for ctl in all {
            if self.is_at_work(ctl) {
                self.reconcile(ctl);
            }
        }
    }

    pub fn fault_of_several(&mut self) {
        let names: Vec<usize> = self.controllers.values().map(|it| it.name).collect();
        let Some(&name) = names.get(self.rng.index(names.len())) else { return };
        let Some(ctl) = self.process_of(name) else { return };
        let long = self.rng.pick(&[3_000, 8_000, 40_000]);
        let lasts = self.rng.range(200, long);
        match self.rng.range(0, 9) {
            0 | 1 => {
                self.deed("controller killed");
                self.kill_controller(ctl, "for no reason");
            }
            2 | 3 if self.is_running(ctl) => self.pause_controller(ctl, None),
            4 => self.cut_from(name, &[STORE], lasts),
            5 => {
                let nodes: Vec<usize> =
                    (0..self.nodes.len()).filter(|_| self.rng.percent(50)).collect();
                self.cut_from(name, &nodes, lasts);
            }
            6 => {
                let nodes: Vec<usize> = (0..self.nodes.len()).chain([STORE]).collect();
                self.cut_from(name, &nodes, lasts);
            }
            7 if self.now >= self.store_down => {
                self.deed("quorum lost");
                self.note(|| format!("the store answers nobody for {lasts} ms"));
                self.store_down = self.now + lasts.min(30_000);
                self.at(self.store_down, Ev::Quorum);
            }
            8 => self.drain_controller(name),
            9 => self.leave_in_order(ctl),
            _ => {}
        }
    }

    fn cut_from(&mut self, name: usize, nodes: &[usize], lasts: u64) {
        self.deed("controller cut off");
        self.note(|| format!("c{name} is cut off from {nodes:?} for {lasts} ms"));
        self.cuts.extend(nodes.iter().map(|node| (name, *node)));
        self.after(lasts, Ev::StoreBack { name });
        self.after(lasts, Ev::NodesBack { name });
    }

    fn drain_controller(&mut self, name: usize) {
        let mut others = members(&self.store).into_iter();
        let refused = !others.any(|it| it.name != controller_name(name) && !it.draining);
        if refused || self.lead().is_none() {
            return; // the last one
        }
        self.deed("controller drained");
        let handover = self.rng.percent(50);
        self.note(|| format!("c{name} is drained, handover {handover}"));
        let wish = self.store.wishes_for.entry(name).or_default();
        (wish.draining, wish.handover) = (true, handover);
        self.published();
        let until = self.rng.range(5_000, 200_000);
        self.after(until, Ev::Undrain { name });
    }

    pub fn undrain(&mut self, name: usize) {
        if self.lead().is_none() {
            return self.after(1_000, Ev::Undrain { name });
        }
        if let Some(wish) = self.store.wishes_for.get_mut(&name) {
            (wish.draining, wish.handover) = (false, false);
        }
        self.published();
    }

    pub fn quiet_of_several(&mut self) {
        self.cuts.clear();
        self.quorum();
        self.store.wishes_for.values_mut().for_each(|wish| wish.cap = None);
        let all: Vec<(u64, usize)> =
            self.controllers.iter().map(|(ctl, controller)| (*ctl, controller.name)).collect();
        for name in self.store.wishes_for.keys().copied().collect::<Vec<_>>() {
            self.after(100, Ev::Start { name });
        }
        for (ctl, name) in all {
            self.hang_up(ctl);
            if let Some(Run::Paused { .. }) = self.controllers.get(&ctl).map(|it| &it.state) {
                self.after(100, Ev::ControllerResumes { ctl });
            }
            self.store_back(name);
        }
    }
}
