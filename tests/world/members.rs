//! Who is a controller: a name, a member key on a lease, a whole copy of the store by watch; and what comes between.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use rota_rollout::What;
use rota_rollout::event::Around;
use rota_rollout::names::NodeName;

use super::controller::{Active, Controller, Pending, Run, TICK_MS, View};
use super::link::Down;
use super::several::{Outcome, Why};
use super::store::{Member, Store, Wish, reread};
use super::{Ev, World};

/// A member's key is gone so long after it was last kept alive.
const LEASE_MS: u64 = 5_000;

/// How often it is kept alive.
const BEAT_MS: u64 = 1_500;

/// How often a controller looks whether anything is to be claimed or handed over.
const LOOK_MS: u64 = 500;

/// In place of a node: the store.
pub const STORE: usize = usize::MAX;

/// What a process knows of itself as one of several.
#[derive(Debug, Clone, Default)]
pub struct Membership {
    /// The created revision of its member's key, as far as it knows.
    pub fence: Option<u64>,
    /// When its lease was last kept alive.
    beat: u64,
    /// What the watch has brought.
    pub copy: Rc<Store>,
    /// When the newest message of the watch arrives.
    watch_at: u64,
    /// The store did not answer: it decides nothing until it has read everything again.
    pub blind: bool,
    /// Since when it knows a line to have no owner.
    pub orphans: BTreeMap<usize, u64>,
}

impl World {
    pub fn begin_several(&mut self, controllers: usize) {
        for name in 1..=controllers {
            let cap = self.rng.pick(&[None, None, None, Some(1), Some(2), Some(4)]);
            self.store.wishes_for.insert(name, Wish { cap, ..Wish::default() });
            let later = if name > 1 && self.rng.percent(25) { 200_000 } else { 0 };
            let comes = self.rng.range(0, later);
            self.after(comes, Ev::Start { name });
        }
    }

    /// What this process knows of the store.
    pub fn seen(&self, ctl: u64) -> &Store {
        match self.controllers.get(&ctl) {
            Some(controller) if self.several.is_some() => &controller.member.copy,
            Some(_) | None => &self.store,
        }
    }

    pub fn member(&mut self, ctl: u64) -> Option<&mut Membership> {
        self.controllers.get_mut(&ctl).map(|controller| &mut controller.member)
    }

    pub fn name_of(&self, ctl: u64) -> usize {
        self.controllers.get(&ctl).map_or(0, |controller| controller.name)
    }

    pub fn process_of(&self, name: usize) -> Option<u64> {
        let mut all = self.controllers.iter();
        all.find(|(_, controller)| controller.name == name).map(|(ctl, _)| *ctl)
    }

    /// Does it run, own what it believes to own as far as it knows, and see the store?
    pub fn is_at_work(&self, ctl: u64) -> bool {
        self.is_running(ctl)
            && self
                .controllers
                .get(&ctl)
                .is_some_and(|it| it.member.fence.is_some() && !it.member.blind)
    }

    /// Is its member's key the one it made?
    pub fn is_member(&self, ctl: u64) -> bool {
        let Some(controller) = self.controllers.get(&ctl) else { return false };
        let kept = self.store.members.get(&controller.name).map(|member| member.created);
        controller.member.fence.is_some() && kept == controller.member.fence
    }

    pub fn members_alive(&self) -> usize {
        let alive = |ctl: &&u64| self.is_at_work(**ctl) && self.is_member(**ctl);
        self.controllers.keys().filter(alive).count()
    }

    pub fn store_answers(&self, ctl: u64) -> bool {
        self.now >= self.store_down && !self.cuts.contains(&(self.name_of(ctl), STORE))
    }

    pub fn start_member(&mut self, name: usize) {
        if self.process_of(name).is_some() {
            return;
        }
        let ctl = self.id();
        let now = self.now;
        let view = View { online: true, heard: now, session: None, inventory: None };
        let views = vec![view; self.nodes.len()];
        let (rollouts, state) = (BTreeMap::new(), Run::Running);
        let member = Membership::default();
        let controller = Controller { name, started: now, rollouts, views, state, member };
        self.controllers.insert(ctl, controller);
        self.note(|| format!("controller {ctl} starts as c{name}"));
        for ev in [Ev::Tick { ctl }, Ev::Beat { ctl }, Ev::Look { ctl }] {
            self.after(TICK_MS.min(LOOK_MS), ev);
        }
        self.read_newest(ctl);
        self.join(ctl);
    }

    /// Puts its member's key, as soon as that of an earlier life is gone.
    pub fn join(&mut self, ctl: u64) {
        let Some(controller) = self.controllers.get(&ctl) else { return };
        if controller.member.fence.is_some() {
            return;
        }
        let name = controller.name;
        let taken = self.store.members.contains_key(&name);
        if !self.is_running(ctl) || !self.store_answers(ctl) || taken {
            return self.after(500, Ev::Join { ctl });
        }
        let (created, until) = (self.store.revision + 1, self.now + LEASE_MS);
        self.store.members.insert(name, Member { created, until });
        let now = self.now;
        if let Some(member) = self.member(ctl) {
            (member.fence, member.beat, member.blind) = (Some(created), now, false);
        }
        self.note(|| format!("controller {ctl} is member c{name}, fence {created}"));
        self.at(until + 1, Ev::LeaseEnds { name });
        self.published();
        self.read_newest(ctl);
        self.greet_again(ctl);
        self.look_now(ctl);
    }

    /// Tells the nodes what is wanted of them, as the copy has it now.
    fn greet_again(&mut self, ctl: u64) {
        for node in 0..self.nodes.len() {
            let seen = self.seen(ctl);
            let (drained, seq) = (seen.drained[node], seen.wishes);
            self.send_down(ctl, node, Down::Standing { drained, seq });
        }
    }

    pub fn read_newest(&mut self, ctl: u64) {
        let copy = Rc::new(self.store.clone());
        if let Some(member) = self.member(ctl) {
            member.copy = copy;
        }
    }

    pub fn beat(&mut self, ctl: u64) {
        if !self.controllers.contains_key(&ctl) {
            return;
        }
        self.after(BEAT_MS, Ev::Beat { ctl });
        let now = self.now;
        let Some(member) = self.member(ctl) else { return };
        let (fence, beat, blind) = (member.fence, member.beat, member.blind);
        if !self.is_running(ctl) || fence.is_none() {
            return;
        }
        if !self.store_answers(ctl) {
            // By its own clock the lease is over: it decides nothing any more.
            if now > beat + LEASE_MS && !blind {
                self.go_blind(ctl);
            }
            return;
        }
        if !self.is_member(ctl) {
            return self.resign(ctl);
        }
        let name = self.name_of(ctl);
        if let Some(member) = self.member(ctl) {
            member.beat = now;
        }
        if let Some(kept) = self.store.members.get_mut(&name) {
            kept.until = now + LEASE_MS;
        }
        self.at(now + LEASE_MS + 1, Ev::LeaseEnds { name });
    }

    pub fn lease_ends(&mut self, name: usize) {
        let over = self.store.members.get(&name).is_some_and(|member| member.until < self.now);
        if over && self.now >= self.store_down {
            self.note(|| format!("the lease of c{name} ends"));
            self.member_goes(name);
        }
    }

    fn member_goes(&mut self, name: usize) {
        self.store.members.remove(&name);
        self.store.lead = self.store.lead.filter(|(lead, _)| *lead != name);
        self.published();
    }

    /// Its member's key is gone: it owns nothing, and joins anew.
    pub fn resign(&mut self, ctl: u64) {
        self.deed("fenced out");
        self.note(|| format!("controller {ctl} is fenced out"));
        let Some(controller) = self.controllers.get_mut(&ctl) else { return };
        controller.rollouts.clear();
        controller.member.fence = None;
        controller.member.orphans.clear();
        let again = self.rng.range(100, 1_000);
        self.after(again, Ev::Join { ctl });
    }

    /// The store did not answer: what it believed may be wrong by now.
    pub fn go_blind(&mut self, ctl: u64) {
        self.deed("store lost");
        self.note(|| format!("controller {ctl} does not see the store"));
        let Some(controller) = self.controllers.get_mut(&ctl) else { return };
        controller.rollouts.clear();
        controller.member.blind = true;
        let again = self.rng.range(100, 1_000);
        self.after(again, Ev::Recover { ctl });
    }

    /// Reads everything again, and goes on with what it still owns.
    pub fn recover(&mut self, ctl: u64) {
        let Some(controller) = self.controllers.get(&ctl) else { return };
        if !controller.member.blind || controller.member.fence.is_none() {
            return;
        }
        if !self.is_running(ctl) || !self.store_answers(ctl) {
            return self.after(500, Ev::Recover { ctl });
        }
        if !self.is_member(ctl) {
            if let Some(member) = self.member(ctl) {
                member.blind = false;
            }
            return self.resign(ctl);
        }
        self.read_newest(ctl);
        let now = self.now;
        if let Some(member) = self.member(ctl) {
            (member.blind, member.beat) = (false, now);
        }
        self.note(|| format!("controller {ctl} sees the store again"));
        self.greet_again(ctl);
        let fence = self.controllers.get(&ctl).and_then(|it| it.member.fence);
        let name = self.name_of(ctl);
        let open = self.store.rollouts.iter().filter(|(_, kept)| {
            (kept.owner, Some(kept.place)) == (name, fence) && !kept.rollout.is_ended()
        });
        let mine: Vec<u64> = open.map(|(revision, _)| *revision).collect();
        self.begin_owned(ctl, &mine);
        self.look_now(ctl);
    }

    /// It owns these, as the store has them now: orders again, and asks for what it may have missed.
    pub fn begin_owned(&mut self, ctl: u64, revisions: &[u64]) {
        for revision in revisions {
            let Some(kept) = self.store.rollouts.get(revision) else { continue };
            let rollout = &kept.rollout;
            let nodes = rollout.nodes().iter().map(|(name, node)| (name.clone(), reread(node)));
            let head = reread(&rollout.head);
            let read = rota_rollout::Rollout::new(reread(&rollout.spec), head, nodes.collect());
            let active = Active { rollout: read, term: kept.term, wakes: BTreeSet::new() };
            let Some(controller) = self.controllers.get_mut(&ctl) else { return };
            controller.rollouts.insert(*revision, active);
        }
        for revision in revisions {
            let Some(active) = self.active(ctl, *revision) else { return };
            let orders = rota_rollout::outstanding(&active.rollout);
            self.carry(ctl, *revision, orders);
        }
        self.reconcile(ctl);
        let lines: BTreeSet<usize> = revisions.iter().map(|it| self.line_of(*it)).collect();
        for node in 0..self.nodes.len() {
            if lines.contains(&self.nodes[node].line) && self.is_at_work(ctl) {
                self.send_down(ctl, node, Down::Again);
            }
        }
    }

    /// Something was written: every watch brings it, in order, at some time.
    pub fn published(&mut self) {
        self.store.revision += 1;
        let copy = Rc::new(self.store.clone());
        let all: Vec<u64> = self.controllers.keys().copied().collect();
        for ctl in all {
            let slow = self.faulty && self.rng.percent(3);
            let lag = self.rng.range(1, if slow { 3_000 } else { 30 });
            let now = self.now;
            let Some(member) = self.member(ctl) else { continue };
            member.watch_at = member.watch_at.max(now + lag);
            let at = member.watch_at;
            self.at(at, Ev::Watched { ctl, copy: copy.clone() });
        }
    }

    pub fn watched(&mut self, ctl: u64, copy: Rc<Store>) {
        let newer = copy.revision > self.seen(ctl).revision;
        if self.is_running(ctl) && self.store_answers(ctl) && newer {
            self.absorb(ctl, copy);
        }
    }

    /// Reads what is so now, however late the watch is.
    pub fn catch_up(&mut self, ctl: u64) {
        let copy = Rc::new(self.store.clone());
        self.absorb(ctl, copy);
    }

    fn absorb(&mut self, ctl: u64, copy: Rc<Store>) {
        let name = self.name_of(ctl);
        let Some(member) = self.member(ctl) else { return };
        let old = std::mem::replace(&mut member.copy, copy);
        let fence = member.fence;
        if !self.is_at_work(ctl) {
            return;
        }
        let seen = self.seen(ctl);
        if seen.members.get(&name).map(|member| member.created) != fence {
            return self.resign(ctl);
        }
        for node in 0..self.nodes.len() {
            let seen = self.seen(ctl);
            let (drained, seq) = (seen.drained[node], seen.wishes);
            if old.drained[node] != drained {
                self.send_down(ctl, node, Down::Standing { drained, seq });
            }
        }
        self.reconcile(ctl);
        self.look_now(ctl);
    }

    /// Tells the rollouts that it owns what has changed around them.
    pub fn reconcile(&mut self, ctl: u64) {
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let revisions: Vec<u64> = controller.rollouts.keys().copied().collect();
        for revision in revisions {
            let Some(active) = self.active(ctl, revision) else { continue };
            let env = self.lines[self.line_of(revision)].env_number;
            let around = |name: &NodeName| {
                let node = self.node_named(revision, name)?;
                let observed = self.observed(ctl, node, Some(revision))?;
                Some((name.clone(), observed, self.runs(ctl, node)))
            };
            let (head, seen) = (&active.rollout.head, self.seen(ctl));
            let around = Around {
                frozen: seen.frozen[env].clone(),
                closed: seen.closed[env].clone(),
                edges_offline: self.store.edges_offline.clone(),
                nodes: active.rollout.nodes().keys().filter_map(around).collect(),
            };
            let known = |(name, observed, runs): &(NodeName, _, _)| {
                let node = &active.rollout.nodes()[name];
                node.observed == *observed && node.runs == *runs
            };
            let same = head.frozen == around.frozen
                && head.closed == around.closed
                && head.edges_offline == around.edges_offline;
            if !same || !around.nodes.iter().all(known) {
                self.step(ctl, revision, What::Around(Box::new(around)));
            }
        }
    }

    pub fn look(&mut self, ctl: u64) {
        if !self.controllers.contains_key(&ctl) {
            return;
        }
        self.after(LOOK_MS, Ev::Look { ctl });
        self.look_now(ctl);
        self.check_owners();
    }

    /// A process that stood still goes on with what it was about to do, and learns only later what has become of it.
    pub fn wake_member(&mut self, ctl: u64) {
        let Some(controller) = self.controllers.get_mut(&ctl) else { return };
        let Run::Paused { then } = std::mem::replace(&mut controller.state, Run::Running) else {
            return;
        };
        self.note(|| format!("controller {ctl} goes on"));
        if !self.is_member(ctl) {
            self.deed("owner of yesterday woke");
        }
        match then {
            Some(Pending::Commit { revision, changes, orders })
                if self.active(ctl, revision).is_some() =>
            {
                match self.commit(ctl, revision, &changes, &orders) {
                    Outcome::Done => self.taken(ctl, revision, changes, orders),
                    Outcome::Refused(Why::Fenced) => self.resign(ctl),
                    Outcome::Refused(Why::NotSeen) => self.catch_up(ctl),
                    Outcome::NoAnswer => self.go_blind(ctl),
                }
            }
            Some(Pending::Send { revision, orders }) => self.carry(ctl, revision, orders),
            Some(Pending::Commit { .. }) | None => {}
        }
        self.hang_up(ctl); // nobody waits for an answer that long
        if let Some(controller) = self.controllers.get_mut(&ctl) {
            // What nodes said before it stood still is older than what others have written down since.
            controller.views.iter_mut().for_each(|view| view.inventory = None);
        }
        let copy = Rc::new(self.store.clone());
        let learns = self.rng.range(1, 400);
        self.after(learns, Ev::Watched { ctl, copy });
        self.after(0, Ev::Wake { ctl });
    }

    /// It goes in order: its key goes with it.
    pub fn leave_in_order(&mut self, ctl: u64) {
        self.deed("controller left");
        let name = self.name_of(ctl);
        if self.is_member(ctl) && self.store_answers(ctl) {
            self.member_goes(name);
        }
        self.kill_controller(ctl, "it leaves");
    }

    pub fn store_back(&mut self, name: usize) {
        self.cuts.remove(&(name, STORE));
        if let Some(ctl) = self.process_of(name) {
            let copy = Rc::new(self.store.clone());
            self.after(1, Ev::Watched { ctl, copy });
        }
    }

    /// The store has its quorum again: leases begin anew.
    pub fn quorum(&mut self) {
        let until = self.now + LEASE_MS;
        self.store_down = self.store_down.min(self.now);
        let names: Vec<usize> = self.store.members.keys().copied().collect();
        for name in names {
            if let Some(member) = self.store.members.get_mut(&name) {
                member.until = until;
            }
            self.at(until + 1, Ev::LeaseEnds { name });
        }
        self.published();
    }

    pub fn nodes_back(&mut self, name: usize) {
        self.cuts.retain(|(cut, node)| *cut != name || *node == STORE);
        if let Some(ctl) = self.process_of(name) {
            self.hang_up(ctl); // whatever was in them is lost
        }
    }
}
