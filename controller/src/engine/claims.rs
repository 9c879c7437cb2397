//! Who runs what, among several controllers: orphans are claimed, a drained controller hands over, somebody leads.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::claim::{Member, Nobody, Orphan, heir, takes};
use rota_rollout::names::{AppName, ControllerName, EnvName, RolloutId, Span, Timestamp};

use super::carry::NewEvent;
use super::cluster::{Cluster, Owner};
use super::records::{OwnerRecord, keys};
use super::state::AgentKey;
use super::{State, Turn, again};
use crate::members::{MemberRecord, keys as members};

/// How often this controller says how many agents it hears.
const HEARS_EVERY_MS: u64 = 2_000;

/// For so long it must be so that others hear more before something is handed over: a number that was told is as old.
const DEAF_FOR_MS: u64 = 2_000;

/// So long after a rollout was taken over nobody is found to be late: what agents have said in vain comes first.
const TAKEN_GRACE_MS: u64 = 2_000;

/// An agent that was heard within this time is heard: one heartbeat and a half, so that a controller that is cut off
/// from the agents knows it before it would take them for offline.
const HEARD_WITHIN_MS: u64 = 7_500;

impl State {
    /// The controllers that are in, as the rule of claims knows them.
    pub(super) fn claimants(&self) -> Vec<Member> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let owned = |name: &str| {
            let owned = self.rollouts.values().filter(|active| self.owner(&active.owner) == name);
            owned.count()
        };
        let most = cluster.members.values().filter_map(|member| member.hears).max().unwrap_or(0);
        let member = |(name, record): (&String, &MemberRecord)| {
            Some(Member {
                name: name.parse().ok()?,
                // One that hears few of the agents that others hear can order nothing.
                draining: record.draining || record.hears.is_some_and(|hears| hears * 2 < most),
                owns: owned(name),
                cap: Some(record.rollouts_max),
            })
        };
        cluster.members.iter().filter_map(member).collect()
    }

    /// Who should run a new rollout: whoever runs others of the app there, else the one with the fewest. `None`: this
    /// controller.
    pub fn host(&self, app: &AppName, env: &EnvName) -> Result<Option<String>, Nobody> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        let is_in = |name: &str| cluster.members.contains_key(name);
        let owner =
            self.open(app, env).map(|active| self.owner(&active.owner)).find(|it| is_in(it));
        let elsewhere = |name: &str| (name != self.name).then(|| name.to_owned());
        if let Some(owner) = owner {
            return Ok(elsewhere(owner));
        }
        let claimants = self.claimants();
        let own = claimants.iter().find(|member| member.name.as_str() == self.name);
        let first = heir(&claimants, 1)?;
        let fewest = claimants.iter().find(|member| member.name == *first).map_or(0, |it| it.owns);
        // Nobody is asked to do what could as well be done here.
        if own.is_some_and(|own| own.can_take(1) && own.owns <= fewest) {
            return Ok(None);
        }
        Ok(elsewhere(first.as_str()))
    }

    /// How many agents are heard here.
    fn hears(&self, at: Timestamp) -> usize {
        let heard = self
            .agents
            .values()
            .filter(|agent| agent.session.is_some() && at.since(agent.heard()).0 < HEARD_WITHIN_MS);
        heard.count()
    }

    /// Is another controller in that hears far more of the agents?
    fn is_deaf(&self) -> bool {
        let me = |member: &Member| member.name.as_str() == self.name;
        let claimants = self.claimants();
        let own = self.cluster.as_ref().and_then(|cluster| cluster.members.get(&self.name));
        own.is_some_and(|own| !own.draining)
            && claimants.iter().any(|member| me(member) && member.draining)
            && claimants.iter().any(|member| !me(member) && !member.draining)
    }
}

impl Turn<'_> {
    /// Takes over what nobody runs, and leads if nobody does.
    pub(super) fn see_to_owners(&mut self) {
        if !self.is_in() {
            return;
        }
        self.drains_on();
        let draining = self.state.draining;
        let led = self.state.cluster.as_ref().is_some_and(|cluster| cluster.lead.is_some());
        self.batch.next.lead = !led && !draining && !self.state.is_deaf();
        self.find_orphans();
        self.find_unseen();
    }

    /// Hands over what cannot be run from here, because most of the agents are not heard here.
    pub(super) fn see_to_hearing(&mut self) {
        if !self.is_in() {
            return;
        }
        self.tell_hears();
        let since = self.state.deaf_since.filter(|_| self.state.is_deaf());
        self.state.deaf_since = since.or_else(|| self.state.is_deaf().then_some(self.at));
        if since.is_some_and(|since| self.at.since(since).0 >= DEAF_FOR_MS) {
            self.hand_over("hears few of the agents");
            self.stop_leading(); // whom it does not hear it would take for out already
        }
    }

    fn is_in(&self) -> bool {
        self.state.cluster.as_ref().is_some_and(|cluster| cluster.place.is_some())
    }

    /// What was lost with a turn or with a former place is written down again.
    fn drains_on(&mut self) {
        let cluster = self.state.cluster.as_ref();
        let own = cluster.and_then(|cluster| cluster.members.get(&self.state.name));
        let draining = self.state.draining;
        if own.is_some_and(|own| own.draining != draining) || (draining && self.state.leads()) {
            self.set_draining(draining);
        }
        // Nobody could take it when it was asked for, or it came here since.
        if draining && self.state.hands_over {
            self.hand_over("is drained");
        }
    }

    /// Rollouts that are not over and not known here: too large to be told of at once, or not read in time.
    fn find_unseen(&mut self) {
        let state = &*self.state;
        let open = state.fleets.iter().flat_map(|((app, env), fleet)| {
            fleet.open.iter().map(|revision| RolloutId {
                app: app.clone(),
                env: env.clone(),
                revision: *revision,
            })
        });
        let unseen: Vec<RolloutId> = open.filter(|id| !state.rollouts.contains_key(id)).collect();
        self.batch.next.views.extend(unseen);
    }

    fn tell_hears(&mut self) {
        if self.at.since(self.state.hears_told).0 < HEARS_EVERY_MS {
            return;
        }
        self.state.hears_told = self.at;
        let at = self.state.ears.awake_until(self.at);
        let (hears, name) = (self.state.hears(at), self.state.name.clone());
        let Some(cluster) = &mut self.state.cluster else { return };
        let Some(own) = cluster.members.get_mut(&name).filter(|own| own.hears != Some(hears))
        else {
            return;
        };
        own.hears = Some(hears);
        self.keep_member();
    }

    /// Writes down how this controller is in.
    fn keep_member(&mut self) {
        let Some(cluster) = &self.state.cluster else { return };
        let Some((own, place)) = cluster.members.get(&self.state.name).cloned().zip(cluster.place)
        else {
            return;
        };
        let key = members::member(&self.state.name);
        let written = self.batch.put_leased(key, &own, place.lease);
        self.written(written);
    }

    fn find_orphans(&mut self) {
        let (at, draining) = (self.at, self.state.draining);
        let Some(cluster) = &self.state.cluster else { return };
        let gone = |owner: &Owner| match owner {
            Owner::Us => false,
            // One that names us was handed over, or claimed and the answer was lost.
            Owner::Other(name) => !cluster.members.contains_key(name) || *name == self.state.name,
        };
        let all = self.state.rollouts.iter().filter(|(_, active)| gone(&active.owner));
        let orphans: BTreeMap<RolloutId, Timestamp> = all
            .map(|(id, _)| (id.clone(), cluster.orphans.get(id).copied().unwrap_or(at)))
            .collect();
        // Nobody else takes what names us, whether we want it or not; from here it can be handed on.
        let ours = |id: &&RolloutId| {
            let owner = self.state.rollouts.get(*id).map(|active| &active.owner);
            owner.is_some_and(|owner| self.state.owner(owner) == self.state.name)
        };
        let mut claims: BTreeSet<RolloutId> = orphans.keys().filter(ours).cloned().collect();
        if !draining {
            claims.extend(self.state.claims(&orphans, at));
        }
        self.batch.next.claims.extend(claims);
        if let Some(cluster) = &mut self.state.cluster {
            cluster.orphans = orphans;
        }
    }

    /// Every rollout of this controller goes to others, who claim it as soon as they see it. Those of one app in one
    /// environment stay together.
    pub(super) fn hand_over(&mut self, why: &str) -> usize {
        let mut own: BTreeMap<(AppName, EnvName), Vec<RolloutId>> = BTreeMap::new();
        for id in self.state.own() {
            own.entry((id.app.clone(), id.env.clone())).or_default().push(id.clone());
        }
        let mut given = 0;
        for ids in own.into_values() {
            let mut others = self.state.claimants();
            others.retain(|member| member.name.as_str() != self.state.name);
            let Ok(heir) = heir(&others, ids.len()).cloned() else { continue };
            for id in &ids {
                self.give(id, &heir, why);
            }
            given += ids.len();
        }
        given
    }

    fn give(&mut self, id: &RolloutId, heir: &ControllerName, why: &str) {
        let Some(active) = self.state.rollouts.get_mut(id) else { return };
        active.term += 1;
        active.owner = Owner::Other(heir.to_string());
        active.wakes.clear();
        active.last_words = None;
        let record = OwnerRecord { controller: heir.to_string(), term: active.term, place: 0 };
        let written = self.batch.put(format!("{}owner", keys::rollout(id)), &record);
        self.written(written);
        let text = format!("{} hands rollout {id} to {heir}: it {why}", self.state.name);
        self.event_of(id, None, text);
    }

    /// This controller takes nothing new from now on, or works again.
    pub(super) fn set_draining(&mut self, draining: bool) {
        self.state.draining = draining;
        let name = self.state.name.clone();
        let Some(cluster) = &mut self.state.cluster else { return };
        if let Some(own) = cluster.members.get_mut(&name) {
            own.draining = draining;
        }
        if let Some(known) = cluster.known.get_mut(&name) {
            known.drained = draining;
        }
        let known = cluster.known.get(&name).cloned();
        self.keep_member();
        if let Some(known) = known {
            let written = self.batch.put(members::controller(&name), &known);
            self.written(written);
        }
        if draining {
            self.stop_leading();
        }
    }

    /// Another one writes from now on what belongs to no rollout.
    fn stop_leading(&mut self) {
        if self.state.leads() {
            self.batch.delete(members::LEAD.to_owned());
            self.batch.next.follows = true;
        }
    }

    /// A rollout that was just claimed: what its former owner did not get to, or what has changed since, comes now.
    pub(super) fn take_over(&mut self, id: &RolloutId) {
        if !self.state.is_ours(id) {
            return;
        }
        if let Some(cluster) = &mut self.state.cluster {
            cluster.orphans.remove(id);
        }
        self.busy_with(id);
        self.resend_all(id);
        let soon = self.at.after(Span(TAKEN_GRACE_MS));
        let Some(active) = self.state.rollouts.get_mut(id) else { return };
        active.wakes = active.wakes.iter().map(|wake| soon.max(*wake)).chain([soon]).collect();
        if active.rollout.is_ended() {
            return self.ask_last_words(id);
        }
        for node in active.rollout.nodes().keys() {
            let key = AgentKey::Node(node.clone());
            // Once for all rollouts that are taken over in this turn.
            if self.batch.asked.insert(key.clone()) {
                self.batch.send(key, again());
            }
        }
        self.around(id);
    }

    /// Says that a rollout has another owner now.
    pub(super) fn claimed(&mut self, id: &RolloutId, from: &str) {
        let name = &self.state.name;
        if from != name && !from.is_empty() {
            let text = format!("{name} takes rollout {id} over from {from}");
            self.event(NewEvent {
                app: Some(id.app.to_string()),
                env: Some(id.env.to_string()),
                rollout: Some(id.to_string()),
                ..NewEvent::new("rollout", text)
            });
        }
    }
}

impl State {
    /// The orphans that this controller claims now. Rollouts of one app in one environment stay together.
    fn claims(
        &self,
        orphans: &BTreeMap<RolloutId, Timestamp>,
        at: Timestamp,
    ) -> BTreeSet<RolloutId> {
        let Ok(me) = self.name.parse::<ControllerName>() else { return BTreeSet::new() };
        let mut fleets: BTreeMap<(AppName, EnvName), Orphan> = BTreeMap::new();
        let elsewhere = |app: &AppName, env: &EnvName| {
            self.open(app, env).any(|active| self.runs_elsewhere(&active.owner))
        };
        for (id, since) in orphans {
            let (app, env) = (id.app.clone(), id.env.clone());
            if elsewhere(&app, &env) {
                continue; // whoever has one of them takes the others
            }
            let orphan = fleets.entry((app.clone(), env.clone()));
            let orphan = orphan.or_insert(Orphan { app, env, rollouts: 0, since: *since });
            orphan.rollouts += 1;
        }
        let owned_here = |orphan: &&Orphan| {
            self.open(&orphan.app, &orphan.env).any(|active| active.owner == Owner::Us)
        };
        let all: Vec<Orphan> = fleets.into_values().collect();
        let mut taken: Vec<&Orphan> = all.iter().filter(owned_here).collect();
        taken.extend(takes(&me, &self.claimants(), &all, at));
        let is_taken = |id: &&RolloutId| {
            taken.iter().any(|orphan| orphan.app == id.app && orphan.env == id.env)
        };
        orphans.keys().filter(is_taken).cloned().collect()
    }
}

impl State {
    fn runs_elsewhere(&self, owner: &Owner) -> bool {
        let Owner::Other(name) = owner else { return false };
        let members = self.cluster.as_ref().map(|cluster| &cluster.members);
        members.is_some_and(|members| members.contains_key(name)) && *name != self.name
    }
}

/// The members that are in, and take something new, beside this one.
pub(super) fn others_active(cluster: &Cluster, name: &str) -> bool {
    cluster.members.iter().any(|(other, member)| other != name && !member.draining)
}
