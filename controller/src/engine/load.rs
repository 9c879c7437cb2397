//! Reads the state back from the store, and claims what runs.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::names::{AppName, EnvName, NodeName, Revision, RolloutId, Timestamp};
use rota_rollout::node::Node;
use rota_rollout::rollout::Rollout;

use super::cluster::{BusyRecord, Cluster, Owner, keys as guards};
use super::pace::Clock;
use super::recent;
use super::records::{
    AgentRecord, EnvRecord, EvidenceRecord, FleetRecord, HeadRecord, NodeRecord, OwnerRecord,
    ReleaseRecord, SpecRecord, keys,
};
use super::state::{Active, Agent, AgentKey, State};
use crate::access::revoked;
use crate::backup::{RESTORED, RestoredRecord};
use crate::members::{ControllerRecord, MemberRecord, keys as members};
use crate::store::{
    Compare, Entry, Op, Outcome, Record, Store, StoreError, StoreRevision, Txn, scan_all,
};
use crate::view::{EventView, HistoryEntry};

/// A rollout that is over, as the store keeps it.
pub struct Ended {
    /// The core's state.
    pub rollout: Rollout,
    /// What was asked.
    pub record: SpecRecord,
    /// What was measured.
    pub evidence: EvidenceRecord,
    /// Its last owner.
    pub owner: OwnerRecord,
}

/// The same, from a store that has just shown that it also takes changes.
pub async fn writable_state(
    store: &dyn Store,
    name: &str,
    at: Timestamp,
) -> Result<State, StoreError> {
    let ops = vec![Op::put(keys::PROBE, at.0.to_string().into_bytes())];
    store.commit(Txn { compares: Vec::new(), ops }).await?;
    let mut state = State { name: name.to_owned(), ..State::default() };
    into(store, &mut state, at).await?;
    Ok(state)
}

/// Can all of it be read here? Nothing is claimed, and nobody is told.
pub async fn readable(store: &dyn Store, name: &str) -> Result<(), StoreError> {
    let cluster = Some(Cluster::default());
    let mut state = State { name: name.to_owned(), cluster, ..State::default() };
    into(store, &mut state, Timestamp(0)).await
}

/// Everything that is durable, into a state that has its name, and its place if there are several controllers; nobody
/// is connected yet.
pub async fn into(store: &dyn Store, state: &mut State, at: Timestamp) -> Result<(), StoreError> {
    // What guards a decision is read before what the decision is made of: then it is never newer.
    let mut revs = guards(store, state).await?;
    for entry in scan_all(store, keys::RELEASES).await?.0 {
        let release = ReleaseRecord::decode(&entry)?;
        state.releases.insert((release.app.clone(), release.version.clone()), release);
        revs.insert(entry.key, entry.modified);
    }
    for (prefix, edge) in [(keys::NODES, false), (keys::EDGES, true)] {
        for entry in scan_all(store, prefix).await?.0 {
            let record = AgentRecord::decode(&entry)?;
            let name: NodeName = parsed(&entry, &entry.key[prefix.len()..])?;
            let key = if edge { AgentKey::Edge(name) } else { AgentKey::Node(name) };
            // Who was here gets the time to come back; who was away already is still away.
            let (online, heard) = match record.offline {
                true => (false, record.last_seen),
                false => (true, at),
            };
            let agent = Agent::unheard(record, heard, online);
            state.agents.insert(key, agent);
        }
    }
    for entry in scan_all(store, keys::REMOVED).await?.0 {
        let name: NodeName = parsed(&entry, &entry.key[keys::REMOVED.len()..])?;
        state.removed.insert(name, AgentRecord::decode(&entry)?);
    }
    for entry in scan_all(store, keys::FLEETS).await?.0 {
        let (app, env) = two(&entry, keys::FLEETS)?;
        state.fleets.insert((app, env), FleetRecord::decode(&entry)?);
        revs.insert(entry.key, entry.modified);
    }
    for entry in scan_all(store, keys::ENVS).await?.0 {
        let env: EnvName = parsed(&entry, &entry.key[keys::ENVS.len()..])?;
        state.envs.insert(env, EnvRecord::decode(&entry)?);
    }
    if let Some(entry) = store.get(RESTORED).await? {
        state.lost = RestoredRecord::decode(&entry)?.upto;
    }
    recent::events(store, state).await?;
    together(store, state, revs).await?;
    for ((app, env), fleet) in state.fleets.clone() {
        for revision in fleet.open {
            let id = RolloutId { app: app.clone(), env: env.clone(), revision };
            open(store, state, id, at).await?;
        }
    }
    Ok(())
}

/// The revisions of what guards decisions.
async fn guards(store: &dyn Store, state: &State) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut revs = BTreeMap::new();
    if state.cluster.is_some() {
        for prefix in [guards::GUARD, guards::OUT] {
            let entries = scan_all(store, prefix).await?.0;
            revs.extend(entries.into_iter().map(|entry| (entry.key, entry.modified)));
        }
    }
    Ok(revs)
}

/// What is known of the other controllers.
async fn together(
    store: &dyn Store,
    state: &mut State,
    revs: BTreeMap<String, u64>,
) -> Result<(), StoreError> {
    let Some(cluster) = &mut state.cluster else { return Ok(()) };
    cluster.revs = revs;
    cluster.revoked_edges = revoked::edges(store).await?;
    for entry in scan_all(store, guards::BUSY).await?.0 {
        let node: NodeName = parsed(&entry, &entry.key[guards::BUSY.len()..])?;
        let id = parsed(&entry, &BusyRecord::decode(&entry)?.rollout)?;
        cluster.busy.insert(node, id);
    }
    for entry in scan_all(store, members::MEMBERS).await?.0 {
        let name = entry.key[members::MEMBERS.len()..].to_owned();
        cluster.members.insert(name, MemberRecord::decode(&entry)?);
    }
    for entry in scan_all(store, members::CONTROLLERS).await?.0 {
        let name = entry.key[members::CONTROLLERS.len()..].to_owned();
        cluster.known.insert(name, ControllerRecord::decode(&entry)?);
    }
    let lead = store.get(members::LEAD).await?;
    cluster.lead =
        lead.map(|entry| (String::from_utf8_lossy(&entry.value).into_owned(), entry.created));
    Ok(())
}

/// A rollout that is not over: claimed, where this controller is the only one or it was its own; else looked at.
async fn open(
    store: &dyn Store,
    state: &mut State,
    id: RolloutId,
    at: Timestamp,
) -> Result<(), StoreError> {
    let place = state.cluster.as_ref().map(|_| state.place());
    let claimant = Claimant { name: &state.name, place, newest: 0 };
    if let Some(place) = place {
        let Some(mut active) = seen(store, &id).await? else { return Ok(()) };
        match &active.owner {
            Owner::Other(name) if *name != state.name => {
                state.rollouts.insert(id, active);
                return Ok(());
            }
            Owner::Other(_) | Owner::Us => {}
        }
        if active.fence == place {
            active.owner = Owner::Us;
            active.awaits_last_words(state, at);
            state.rollouts.insert(id, active);
            return Ok(());
        }
    }
    match claim(store, &id, &claimant).await? {
        Some((mut active, from)) => {
            active.awaits_last_words(state, at);
            if place.is_some() {
                state.taken.push((id.clone(), from));
            }
            state.rollouts.insert(id, active);
        }
        None => {
            if let Some(active) = seen(store, &id).await?.filter(|_| place.is_some()) {
                state.rollouts.insert(id, active);
            }
        }
    }
    Ok(())
}

fn parsed<T: std::str::FromStr<Err = rota_rollout::names::BadName>>(
    entry: &Entry,
    text: &str,
) -> Result<T, StoreError> {
    text.parse().map_err(|error| StoreError::Corrupt(format!("{}: {error}", entry.key)))
}

fn two(entry: &Entry, prefix: &str) -> Result<(AppName, EnvName), StoreError> {
    let (app, env) = entry.key[prefix.len()..]
        .split_once('/')
        .ok_or_else(|| StoreError::Corrupt(format!("{}: no APP/ENV", entry.key)))?;
    Ok((parsed(entry, app)?, parsed(entry, env)?))
}

/// An event, if it can be read: the log is for people, and nothing is decided by it.
pub fn event(entry: &Entry) -> Option<EventView> {
    match EventView::decode(entry) {
        Ok(event) => Some(event),
        Err(error) => {
            tracing::warn!(%error, "an event is left out");
            None
        }
    }
}

/// A record of a rollout that this version does not know. Its other records may mean something else by it.
pub fn strange(entry: &Entry) -> StoreError {
    let key = &entry.key;
    StoreError::Corrupt(format!(
        "{key}: this program knows no such record of a rollout; a newer `rota serve` wrote it"
    ))
}

/// Who claims.
pub struct Claimant<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its place among several controllers; `None` with the embedded store.
    pub place: Option<StoreRevision>,
    /// The newest term that a node has accepted; the new one will be higher.
    pub newest: u64,
}

/// A rollout as its owner left it in the store; its `fence` is the place of its owner.
pub async fn seen(store: &dyn Store, id: &RolloutId) -> Result<Option<Active>, StoreError> {
    let Some(ended) = load_ended(store, id).await? else { return Ok(None) };
    let OwnerRecord { controller, term, place } = ended.owner.clone();
    Ok(Some(active(ended, Owner::Other(controller), term, place)))
}

fn active(ended: Ended, owner: Owner, term: u64, fence: StoreRevision) -> Active {
    Active {
        rollout: ended.rollout,
        record: ended.record,
        evidence: ended.evidence,
        owner,
        term,
        fence,
        wakes: BTreeSet::new(),
        fetching_since: BTreeMap::new(),
        clock: Clock::default(),
        last_words: None,
        known: BTreeMap::new(),
    }
}

/// Claims a rollout in a higher term. From then on every older owner is refused by the store. One that is over is
/// claimed too: its evidence may have to be closed. `None`: somebody else was faster. With the name of its last owner.
///
/// Among several controllers the last owner must be gone, or be this one, or have handed it over; and then the rollout
/// is read only after the claim, for until then its owner may have written.
pub async fn claim(
    store: &dyn Store,
    id: &RolloutId,
    claimant: &Claimant<'_>,
) -> Result<Option<(Active, String)>, StoreError> {
    let key = format!("{}owner", keys::rollout(id));
    let entry = store.get(&key).await?;
    let last = entry.as_ref().map(OwnerRecord::decode).transpose()?;
    let term = last.as_ref().map_or(0, |last| last.term).max(claimant.newest) + 1;
    let from = last.map(|last| last.controller).unwrap_or_default();
    let mut compares = vec![match &entry {
        Some(entry) => Compare::Modified(key.clone(), entry.modified),
        None => Compare::Absent(key.clone()),
    }];
    if let Some(place) = claimant.place {
        compares.push(Compare::Created(members::member(claimant.name), place));
        if from != claimant.name && !from.is_empty() {
            compares.push(Compare::Absent(members::member(&from)));
        }
    }
    let place = claimant.place.unwrap_or(0);
    let owner = OwnerRecord { controller: claimant.name.to_owned(), term, place };
    let ops = vec![Op::put(key, owner.encode()?)];
    let Outcome::Done(fence) = store.commit(Txn { compares, ops }).await? else {
        return Ok(None);
    };
    let Some(ended) = load_ended(store, id).await? else { return Ok(None) };
    Ok(Some((active(ended, Owner::Us, term, fence), from)))
}

/// A rollout as the store keeps it, running or over.
pub async fn load_ended(store: &dyn Store, id: &RolloutId) -> Result<Option<Ended>, StoreError> {
    let prefix = keys::rollout(id);
    let (entries, _) = scan_all(store, &prefix).await?;
    let (mut spec, mut head, mut owner, mut evidence) = (None, None, None, None);
    let mut nodes: BTreeMap<NodeName, Node> = BTreeMap::new();
    for entry in &entries {
        match &entry.key[prefix.len()..] {
            "spec" => spec = Some(SpecRecord::decode(entry)?),
            "head" => head = Some(HeadRecord::decode(entry)?.head),
            "owner" => owner = Some(OwnerRecord::decode(entry)?),
            "evidence" => evidence = Some(EvidenceRecord::decode(entry)?),
            other => {
                let name = other.strip_prefix("nodes/").ok_or_else(|| strange(entry))?;
                nodes.insert(parsed(entry, name)?, NodeRecord::decode(entry)?.node);
            }
        }
    }
    let (Some(record), Some(head)) = (spec, head) else { return Ok(None) };
    Ok(Some(Ended {
        rollout: Rollout::new(record.spec.clone(), head, nodes),
        record,
        evidence: evidence.unwrap_or_default(),
        owner: owner.unwrap_or(OwnerRecord { controller: String::new(), term: 0, place: 0 }),
    }))
}

/// All rollouts of an app in an environment, newest first.
pub async fn history(
    store: &dyn Store,
    app: &AppName,
    env: &EnvName,
) -> Result<Vec<HistoryEntry>, StoreError> {
    let Some(fleet) = store.get(&keys::fleet(app, env)).await? else { return Ok(Vec::new()) };
    let fleet = FleetRecord::decode(&fleet)?;
    let mut history = Vec::new();
    for revision in (fleet.summed_up + 1..=fleet.revision.0).rev().map(Revision) {
        let prefix = keys::rollout(&RolloutId { app: app.clone(), env: env.clone(), revision });
        let spec = store.get(&format!("{prefix}spec")).await?;
        let Some((spec, head)) = spec.zip(store.get(&format!("{prefix}head")).await?) else {
            continue;
        };
        let (record, head) = (SpecRecord::decode(&spec)?, HeadRecord::decode(&head)?.head);
        let rollout = Rollout::new(record.spec.clone(), head, BTreeMap::new());
        history.push(crate::api::rollouts::history_entry(&rollout, &record));
    }
    for entry in scan_all(store, &keys::history_of(app, env)).await?.0.iter().rev() {
        let line = HistoryEntry::decode(entry)?;
        if line.revision <= fleet.summed_up {
            history.push(line);
        }
    }
    Ok(history)
}

/// Puts freshly read state in place of one that may have run ahead of the store. Sessions live on.
pub fn replace(state: &mut State, fresh: State) {
    let sessions = std::mem::take(&mut state.agents);
    let (name, advertise) = (std::mem::take(&mut state.name), std::mem::take(&mut state.advertise));
    let (draining, hands_over) = (state.draining, state.hands_over);
    let banned = std::mem::take(&mut state.banned);
    let (turn, hears_told, ears) = (state.turn, state.hears_told, state.ears.clone());
    let epoch = state.cluster.as_ref().map_or(0, |cluster| cluster.epoch);
    let fresh = State { draining, hands_over, banned, ..fresh };
    *state = State { name, advertise, turn, hears_told, ears, ..fresh };
    if let Some(cluster) = &mut state.cluster {
        cluster.epoch = epoch;
    }
    for (key, old) in sessions {
        let gone = match &key {
            AgentKey::Node(name) => {
                let mut banned = state.banned.iter().map(|(_, banned)| banned);
                state.removed.contains_key(name) || banned.any(|banned| banned == name)
            }
            AgentKey::Edge(name) => {
                let cluster = state.cluster.as_ref();
                cluster.is_some_and(|cluster| cluster.revoked_edges.contains(name))
            }
        };
        let known = state.agents.contains_key(&key);
        if state.cluster.is_some() && old.session.is_some() && !known && !gone {
            // It said Hello while nobody led, who would have written it down.
            state.unsaved.push(key.clone());
            state.agents.insert(key, old);
            continue;
        }
        if let Some(agent) = state.agents.get_mut(&key) {
            if state.cluster.is_some() && old.session.is_some() {
                // What it says of itself here is newer than what was written down.
                if agent.record.drained != old.record.drained {
                    state.wished.push(key.clone());
                }
                let (drained, labels_set) = (agent.record.drained, agent.record.labels_set.clone());
                let heard = AgentRecord { drained, labels_set, ..old.record };
                if heard != (AgentRecord { last_seen: heard.last_seen, ..agent.record.clone() }) {
                    state.unsaved.push(key);
                }
                agent.record = heard;
            }
            agent.session = old.session;
            agent.heard = old.heard;
            agent.online = old.online;
            agent.pools = old.pools;
            agent.moving = old.moving;
        }
    }
}
