//! What the other controllers have written, as the store's watch tells it: kept beside what this one decides itself.
//!
//! A record has one writer. What this controller writes it does not take back from the watch: there it would come
//! late, after it has gone on.

use std::collections::BTreeSet;

use rota_rollout::What;
use rota_rollout::names::{AppName, EnvName, NodeName, RolloutId, Version};
use rota_rollout::rollout::Change as CoreChange;

use super::admission::refusals::frozen;
use super::carry::NewEvent;
use super::cluster::{BusyRecord, Owner, is_tracked, keys as guards};
use super::load;
use super::neighbours;
use super::records::{
    AgentRecord, EnvRecord, EvidenceRecord, FleetRecord, HeadRecord, NodeRecord, OwnerRecord,
    ReleaseRecord, keys,
};
use super::state::{AgentKey, EVENTS_IN_MEMORY};
use super::{State, Turn};
use crate::members::{ControllerRecord, JoinError, MemberRecord, keys as members};
use crate::store::{Change, Entry, Record, StoreError, StoreRevision};
use crate::view::EventView;

impl Turn<'_> {
    /// Takes in what was written, in the store's order.
    pub(super) fn stored(&mut self, epoch: u64, changes: Vec<Change>) {
        if self.state.cluster.as_ref().is_none_or(|cluster| cluster.epoch != epoch) {
            return; // of a watch before everything was read anew
        }
        let quiet = |change: &Change| match change {
            Change::Put(entry) => {
                entry.key.starts_with(guards::BARRIER) || entry.key.starts_with(members::MEMBERS)
            }
            Change::Deleted { .. } | Change::Compacted { .. } => false,
        };
        self.batch.touched |= !changes.iter().all(quiet);
        for change in changes {
            let taken = match change {
                Change::Put(entry) => self.was_put(&entry),
                Change::Deleted { key, at } => {
                    self.was_deleted(&key, at);
                    Ok(())
                }
                Change::Compacted { .. } => {
                    let why = "the store's history was compacted before it was seen";
                    self.batch.next.reload = Some(why.to_owned());
                    Ok(())
                }
            };
            if let Err(error) = taken {
                return self.not_understood(error.to_string());
            }
        }
    }

    /// What was written is not known here, and so nothing is that was written after it: a seal, for example, would say
    /// that its freeze has been seen. Whatever cannot be understood when everything is read anew ends this controller's
    /// part in deciding.
    fn not_understood(&mut self, why: String) {
        if let Some(cluster) = &mut self.state.cluster {
            cluster.epoch += 1;
        }
        self.batch.next.reload = Some(why);
    }

    fn was_put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let key = entry.key.as_str();
        if is_tracked(key) && !self.is_newer(entry) {
            return Ok(());
        }
        self.take_in(entry)?;
        // Only now: what cannot be read here must not be written over either.
        self.note(entry);
        Ok(())
    }

    fn take_in(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let key = entry.key.as_str();
        if let Some(name) = key.strip_prefix(members::MEMBERS) {
            return self.member_is_in(name, entry);
        }
        if let Some(name) = key.strip_prefix(members::CONTROLLERS) {
            let record = ControllerRecord::decode(entry)?;
            if let Some(cluster) = &mut self.state.cluster {
                let known = cluster.known.insert(name.to_owned(), record.clone());
                if known.is_none_or(|known| known.advertise != record.advertise) {
                    self.tell_all();
                }
            }
        } else if key == members::LEAD {
            let name = String::from_utf8_lossy(&entry.value).into_owned();
            if let Some(cluster) = &mut self.state.cluster {
                cluster.lead = Some((name, entry.created));
            }
        } else if let Some(name) = key.strip_prefix(keys::NODES) {
            self.agent_was_put(AgentKey::Node(parsed(key, name)?), entry)?;
        } else if let Some(name) = key.strip_prefix(keys::EDGES) {
            self.agent_was_put(AgentKey::Edge(parsed(key, name)?), entry)?;
        } else if let Some(name) = key.strip_prefix(keys::REMOVED) {
            if !self.state.leads() {
                self.state.removed.insert(parsed(key, name)?, AgentRecord::decode(entry)?);
            }
        } else if let Some(env) = key.strip_prefix(keys::ENVS) {
            let record = EnvRecord::decode(entry)?;
            self.env_was_put(&parsed(key, env)?, Some(record));
        } else if key.starts_with(keys::RELEASES) {
            let release = ReleaseRecord::decode(entry)?;
            self.state.releases.insert((release.app.clone(), release.version.clone()), release);
        } else if let Some(rest) = key.strip_prefix(keys::FLEETS) {
            let fleet = FleetRecord::decode(entry)?;
            let (app, env) = two(key, rest)?;
            self.fleet_was_put(app, env, fleet);
        } else if let Some(rest) = key.strip_prefix(keys::ROLLOUTS) {
            return self.rollout_was_put(rest, entry);
        } else if let Some(node) = key.strip_prefix(guards::BUSY) {
            let id: RolloutId = parsed(key, &BusyRecord::decode(entry)?.rollout)?;
            self.busy_was_put(&parsed(key, node)?, id);
        } else if key.starts_with(keys::EVENTS) {
            if let Some(event) = load::event(entry) {
                self.happened_elsewhere(event);
            }
        } else if key.strip_prefix(guards::BARRIER) == Some(self.state.name.as_str()) {
            self.batch.next.barrier = String::from_utf8_lossy(&entry.value).parse().ok();
        }
        Ok(())
    }

    fn was_deleted(&mut self, key: &str, at: StoreRevision) {
        if is_tracked(key)
            && let Some(cluster) = &mut self.state.cluster
        {
            cluster.revs.remove(key);
        }
        if let Some(name) = key.strip_prefix(members::MEMBERS) {
            self.member_is_gone(name, at);
        } else if let Some(name) = key.strip_prefix(members::CONTROLLERS) {
            if let Some(cluster) = &mut self.state.cluster {
                cluster.known.remove(name);
            }
            self.tell_all();
        } else if key == members::LEAD {
            if let Some(cluster) = &mut self.state.cluster
                && cluster.lead.as_ref().is_some_and(|(_, since)| *since < at)
            {
                cluster.lead = None;
            }
        } else if let Some(name) = key.strip_prefix(keys::NODES) {
            self.agent_was_removed(name.parse().ok().map(AgentKey::Node));
        } else if let Some(name) = key.strip_prefix(keys::EDGES) {
            self.agent_was_removed(name.parse().ok().map(AgentKey::Edge));
        } else if let Some(name) = key.strip_prefix(keys::REMOVED) {
            if let Ok(name) = name.parse::<NodeName>()
                && !self.state.leads()
            {
                self.state.removed.remove(&name);
            }
        } else if let Some(env) = key.strip_prefix(keys::ENVS) {
            if let Ok(env) = env.parse() {
                self.env_was_put(&env, None);
            }
        } else if let Some(rest) = key.strip_prefix(keys::RELEASES) {
            let names = rest.split_once('/');
            let names =
                names.and_then(|(app, version)| Some((app.parse().ok()?, version.parse().ok()?)));
            if let Some(names) = names {
                let names: (AppName, Version) = names;
                self.state.releases.remove(&names);
            }
        } else if let Some(node) = key.strip_prefix(guards::BUSY)
            && let Ok(node) = node.parse::<NodeName>()
        {
            let id =
                self.state.cluster.as_ref().and_then(|cluster| cluster.busy.get(&node)).cloned();
            if id.is_some_and(|id| !self.state.is_ours(&id))
                && let Some(cluster) = &mut self.state.cluster
            {
                cluster.busy.remove(&node);
                self.observe(&node, None);
            }
        }
    }

    /// Was it written after what we know?
    fn is_newer(&self, entry: &Entry) -> bool {
        let cluster = self.state.cluster.as_ref();
        let known = cluster.and_then(|cluster| cluster.revs.get(&entry.key));
        known.is_none_or(|known| *known < entry.modified)
    }

    fn note(&mut self, entry: &Entry) {
        if is_tracked(&entry.key)
            && let Some(cluster) = &mut self.state.cluster
        {
            cluster.revs.insert(entry.key.clone(), entry.modified);
        }
    }

    fn member_is_in(&mut self, name: &str, entry: &Entry) -> Result<(), StoreError> {
        let record = MemberRecord::decode(entry)?;
        let own = name == self.state.name;
        let leads = self.state.leads();
        let Some(cluster) = &mut self.state.cluster else { return Ok(()) };
        if own && cluster.place.is_some_and(|place| place.fence < entry.created) {
            self.batch.next.reload =
                Some("another process took this controller's place".to_owned());
        }
        if !own && record.is_beyond() {
            let why = JoinError::too_far(name, &record).to_string();
            self.not_understood(why);
            return Ok(());
        }
        let (drains, beside) = (record.draining, neighbours::beside(&record));
        let known = cluster.members.insert(name.to_owned(), record);
        self.batch.touched |= known.as_ref().is_none_or(|known| known.draining != drains);
        if known.is_none() && leads {
            self.event(NewEvent::new("controller", format!("controller {name} is in{beside}")));
        }
        Ok(())
    }

    fn member_is_gone(&mut self, name: &str, at: StoreRevision) {
        let own = name == self.state.name;
        let leads = self.state.leads();
        let Some(cluster) = &mut self.state.cluster else { return };
        if own {
            if cluster.place.is_some_and(|place| place.fence < at) {
                cluster.place = None;
                self.batch.next.reload = Some("this controller's lease has ended".to_owned());
            }
            return;
        }
        let was = cluster.members.remove(name);
        if was.is_some() && leads {
            let drained = cluster.known.get(name).is_some_and(|known| known.drained);
            let text = match drained {
                true => format!("controller {name} was stopped"),
                false => format!("controller {name} is lost: others take over what it ran"),
            };
            self.event(NewEvent::new("controller", text));
        }
    }

    fn env_was_put(&mut self, env: &EnvName, record: Option<EnvRecord>) {
        if self.state.leads() {
            return;
        }
        match record {
            Some(record) => self.state.envs.insert(env.clone(), record),
            None => self.state.envs.remove(env),
        };
        self.state.calendar.remove(env);
        let here = self.state.own().filter(|id| id.env == *env);
        let ids: Vec<RolloutId> = here.cloned().collect();
        for id in ids {
            self.freeze_moved(&id);
        }
        self.windows_moved();
    }

    /// Tells a rollout whether its environment is frozen, if that is news.
    pub(super) fn freeze_moved(&mut self, id: &RolloutId) {
        let now = frozen(self.state, &id.env);
        let known = self.state.rollouts.get(id).map(|active| active.rollout.head.frozen.clone());
        if known.is_some_and(|known| known != now) {
            self.step(id, What::Frozen(now));
        }
    }

    /// Its open rollouts are the ones that are looked at; of others there is nothing to keep.
    fn fleet_was_put(&mut self, app: AppName, env: EnvName, fleet: FleetRecord) {
        let id = |revision| RolloutId { app: app.clone(), env: env.clone(), revision };
        let open: BTreeSet<RolloutId> = fleet.open.iter().copied().map(id).collect();
        let of_this = |id: &&RolloutId| id.app == app && id.env == env;
        let known: Vec<RolloutId> = self.state.rollouts.keys().filter(of_this).cloned().collect();
        for id in known.iter().filter(|id| !open.contains(id)) {
            if !self.state.is_ours(id) {
                self.state.rollouts.remove(id);
                self.state.live.remove(id);
            }
        }
        self.batch.next.views.extend(open.into_iter().filter(|id| !known.contains(id)));
        self.state.fleets.insert((app, env), fleet);
    }

    fn rollout_was_put(&mut self, rest: &str, entry: &Entry) -> Result<(), StoreError> {
        let bad = || load::strange(entry);
        let mut parts = rest.splitn(4, '/');
        let (app, env) = (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
        let revision: u64 = parts.next().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
        let what = parts.next().ok_or_else(bad)?;
        let id: RolloutId = parsed(&entry.key, &format!("{app}/{env}/{revision}"))?;
        let place = self.state.place();
        let name = self.state.name.clone();
        let Some(active) = self.state.rollouts.get_mut(&id) else { return Ok(()) };
        if active.owner == Owner::Us {
            return Ok(());
        }
        match what {
            "head" => active.rollout.apply([CoreChange::Head(HeadRecord::decode(entry)?.head)]),
            "evidence" => active.evidence = EvidenceRecord::decode(entry)?,
            "owner" => {
                let owner = OwnerRecord::decode(entry)?;
                active.term = owner.term;
                if owner.controller == name && owner.place != place {
                    self.batch.next.claims.insert(id); // it was handed over to us
                }
                active.owner = Owner::Other(owner.controller);
            }
            "spec" => {}
            other => {
                let Some(node) = other.strip_prefix("nodes/") else { return Err(bad()) };
                let node: NodeName = parsed(&entry.key, node)?;
                let record = Box::new(NodeRecord::decode(entry)?.node);
                let seen = |active: &super::Active| {
                    let phase = active.rollout.nodes().get(&node).map(|known| &known.phase);
                    phase.map(|phase| (phase.is_running(), phase.takes_out()))
                };
                let before = seen(active);
                active.rollout.apply([CoreChange::Node(node.clone(), record)]);
                if seen(active) != before {
                    self.observe(&node, Some(&id));
                }
            }
        }
        Ok(())
    }

    fn busy_was_put(&mut self, node: &NodeName, id: RolloutId) {
        let known = self.state.cluster.as_ref().and_then(|cluster| cluster.busy.get(node));
        // Of ours the phases tell, and others could only have it before.
        if self.state.is_ours(&id) || known.is_some_and(|known| self.state.is_ours(known)) {
            return;
        }
        if let Some(cluster) = &mut self.state.cluster {
            cluster.busy.insert(node.clone(), id.clone());
            self.observe(node, Some(&id));
        }
    }

    /// An event that another controller wrote down; our own are known.
    fn happened_elsewhere(&mut self, event: EventView) {
        let State { events, next_event, .. } = &mut *self.state;
        *next_event = (*next_event).max(super::number::after(event.seq));
        let place = events.partition_point(|known| known.seq < event.seq);
        if events.get(place).is_some_and(|known| known.seq == event.seq) {
            return;
        }
        events.insert(place, event);
        if events.len() > EVENTS_IN_MEMORY {
            events.pop_front();
        }
    }
}

fn parsed<T: std::str::FromStr<Err = rota_rollout::names::BadName>>(
    key: &str,
    text: &str,
) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt(format!("{key}: {error}")))
}

fn two(key: &str, rest: &str) -> Result<(AppName, EnvName), StoreError> {
    let (app, env) =
        rest.split_once('/').ok_or_else(|| StoreError::Corrupt(format!("{key}: no APP/ENV")))?;
    Ok((parsed(key, app)?, parsed(key, env)?))
}
