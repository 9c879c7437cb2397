//! Reads the state back from the store, and claims what runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rota_rollout::names::{AppName, EnvName, NodeName, Revision, RolloutId, Timestamp};
use rota_rollout::node::Node;
use rota_rollout::rollout::Rollout;

use super::pace::Clock;
use super::records::{
    AgentRecord, EnvRecord, EvidenceRecord, FleetRecord, HeadRecord, NodeRecord, OwnerRecord,
    ReleaseRecord, SpecRecord, keys,
};
use super::state::{Active, Agent, AgentKey, EVENTS_IN_MEMORY, State};
use crate::store::{Compare, Entry, Op, Outcome, Record, Store, StoreError, Txn, scan_all};
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
    state(store, name, at).await
}

/// Everything that is durable; nobody is connected yet.
pub async fn state(store: &dyn Store, name: &str, at: Timestamp) -> Result<State, StoreError> {
    let mut state = State::default();
    for entry in scan_all(store, keys::RELEASES).await?.0 {
        let release = ReleaseRecord::decode(&entry)?;
        state.releases.insert((release.app.clone(), release.version.clone()), release);
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
            let agent = Agent { record, session: None, heard, online, pools: Vec::new() };
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
    }
    for entry in scan_all(store, keys::ENVS).await?.0 {
        let env: EnvName = parsed(&entry, &entry.key[keys::ENVS.len()..])?;
        state.envs.insert(env, EnvRecord::decode(&entry)?);
    }
    events(store, &mut state).await?;
    for ((app, env), fleet) in state.fleets.clone() {
        for revision in fleet.open {
            let id = RolloutId { app: app.clone(), env: env.clone(), revision };
            if let Some(mut active) = claim(store, &id, name, 0).await? {
                active.awaits_last_words(&state, at);
                state.rollouts.insert(id, active);
            }
        }
    }
    Ok(state)
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

/// The newest events, and the number of the next.
async fn events(store: &dyn Store, state: &mut State) -> Result<(), StoreError> {
    let mut newest = VecDeque::new();
    for entry in scan_all(store, keys::EVENTS).await?.0 {
        newest.push_back(EventView::decode(&entry)?);
        if newest.len() > EVENTS_IN_MEMORY {
            newest.pop_front();
        }
    }
    state.next_event = newest.back().map_or(1, |event: &EventView| event.seq + 1);
    state.events = newest;
    Ok(())
}

/// Claims a rollout in a higher term. From then on every older owner is refused by the store. One that is over is
/// claimed too: its evidence may have to be closed.
/// `newest`: the newest term that a node has accepted; ours will be higher.
pub async fn claim(
    store: &dyn Store,
    id: &RolloutId,
    name: &str,
    newest: u64,
) -> Result<Option<Active>, StoreError> {
    let Some(ended) = load_ended(store, id).await? else { return Ok(None) };
    let key = format!("{}owner", keys::rollout(id));
    let entry = store.get(&key).await?;
    let (term, compare) = match &entry {
        Some(entry) => (
            OwnerRecord::decode(entry)?.term.max(newest) + 1,
            Compare::Modified(key.clone(), entry.modified),
        ),
        None => (newest + 1, Compare::Absent(key.clone())),
    };
    let owner = OwnerRecord { controller: name.to_owned(), term };
    let ops = vec![Op::put(key, owner.encode()?)];
    match store.commit(Txn { compares: vec![compare], ops }).await? {
        Outcome::Done(fence) => Ok(Some(Active {
            rollout: ended.rollout,
            record: ended.record,
            evidence: ended.evidence,
            term,
            fence,
            wakes: BTreeSet::new(),
            fetching_since: BTreeMap::new(),
            clock: Clock::default(),
            last_words: None,
            known: BTreeMap::new(),
        })),
        Outcome::Refused => Ok(None), // somebody else was faster
    }
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
                let name = other.strip_prefix("nodes/").unwrap_or(other);
                nodes.insert(parsed(entry, name)?, NodeRecord::decode(entry)?.node);
            }
        }
    }
    let (Some(record), Some(head)) = (spec, head) else { return Ok(None) };
    Ok(Some(Ended {
        rollout: Rollout::new(record.spec.clone(), head, nodes),
        record,
        evidence: evidence.unwrap_or_default(),
        owner: owner.unwrap_or(OwnerRecord { controller: String::new(), term: 0 }),
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
    let (draining, banned) = (state.draining, std::mem::take(&mut state.banned));
    let turn = state.turn;
    *state = State { name, advertise, draining, banned, turn, ..fresh };
    for (key, old) in sessions {
        if let Some(agent) = state.agents.get_mut(&key) {
            agent.session = old.session;
            agent.heard = old.heard;
            agent.online = old.online;
            agent.pools = old.pools;
        }
    }
}
