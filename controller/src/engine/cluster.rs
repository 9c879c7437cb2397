//! Several controllers on one store: what this one knows of the others, and what its commits compare.
//!
//! Each record has one writer: a rollout's its owner, everything that belongs to no rollout the lead. What two of them
//! must not decide at once is guarded by keys that both sides compare: a drain or a freeze against the start of an
//! update (`/seal`), and two rollouts against each other on one node (`/busy`). With the embedded store there
//! is no cluster, and this controller is everything.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::names::{AppName, EnvName, NodeName, RolloutId, Timestamp};
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::{State, Turn, number};
use crate::members::{ControllerRecord, MemberRecord, Place, keys as members};
use crate::store::{Compare, Record, StoreRevision};

/// Which rollout's update a node is busy with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyRecord {
    /// The rollout.
    pub rollout: String,
}

/// When something was decided that others must not overlook; only its revision counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRecord {
    /// When.
    pub at: Timestamp,
    /// By which controller.
    pub by: String,
}

impl Record for BusyRecord {}
impl Record for MarkRecord {}

/// Keys of what guards decisions of different controllers against each other. Those whose revision counts sort behind
/// everything that they guard: a watch tells of one commit in the order of its keys, perhaps in two parts, and whoever
/// has seen the seal has seen the rest.
pub mod keys {
    use super::{AppName, EnvName, NodeName};

    /// Nodes whose update is under way.
    pub const BUSY: &str = "/busy/";
    /// Drains, freezes and windows.
    pub const GUARD: &str = "/seal/guard/";
    /// Updates that were started.
    pub const OUT: &str = "/seal/out/";
    /// Which changes a controller has seen.
    pub const BARRIER: &str = "/barrier/";

    /// A node's.
    pub fn busy(node: &NodeName) -> String {
        format!("{BUSY}{node}")
    }

    /// An environment's.
    pub fn guard(env: &EnvName) -> String {
        format!("{GUARD}{env}")
    }

    /// An app's in an environment.
    pub fn out(app: &AppName, env: &EnvName) -> String {
        format!("{OUT}{app}/{env}")
    }
}

/// Records of which every writer compares the revision that it knows.
const TRACKED: [&str; 4] =
    [super::records::keys::FLEETS, super::records::keys::RELEASES, keys::GUARD, keys::OUT];

/// Is this a record whose revision is kept?
pub fn is_tracked(key: &str) -> bool {
    TRACKED.iter().any(|prefix| key.starts_with(prefix))
}

/// The other controllers, and this one among them.
#[derive(Debug, Default)]
pub struct Cluster {
    /// This controller's place; `None` while it has none.
    pub place: Option<Place>,
    /// Counts how often everything was read anew: changes that were watched for an older reading are not taken.
    pub epoch: u64,
    /// Who is in, this controller included.
    pub members: BTreeMap<String, MemberRecord>,
    /// Who was ever in.
    pub known: BTreeMap<String, ControllerRecord>,
    /// Who writes what belongs to no rollout, and the revision at which he began.
    pub lead: Option<(String, StoreRevision)>,
    /// What shared records were last seen at.
    pub revs: BTreeMap<String, StoreRevision>,
    /// Nodes whose update is under way, and for which rollout.
    pub busy: BTreeMap<NodeName, RolloutId>,
    /// Edges of which certificates are revoked: one of these that the store does not know was removed.
    pub revoked_edges: BTreeSet<NodeName>,
    /// Rollouts whose owner is gone, and since when.
    pub orphans: BTreeMap<RolloutId, Timestamp>,
}

impl Cluster {
    /// A commit of this controller has written these, or removed them.
    pub fn wrote(&mut self, tracked: Vec<(String, bool)>, revision: StoreRevision) {
        for (key, removed) in tracked {
            match removed {
                true => self.revs.remove(&key),
                false => self.revs.insert(key, revision),
            };
        }
    }

    /// Holds as long as a record is as it was seen.
    pub fn unchanged(&self, key: &str) -> Compare {
        match self.revs.get(key) {
            Some(revision) => Compare::Modified(key.to_owned(), *revision),
            None => Compare::Absent(key.to_owned()),
        }
    }
}

/// Who runs a rollout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// This controller.
    Us,
    /// Another one, by its name.
    Other(String),
}

impl State {
    /// Does this controller write what belongs to no rollout?
    pub fn leads(&self) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        cluster.lead.as_ref().is_some_and(|(name, _)| *name == self.name)
    }

    /// Is this rollout ours to run?
    pub fn is_ours(&self, id: &RolloutId) -> bool {
        self.rollouts.get(id).is_some_and(|active| active.owner == Owner::Us)
    }

    /// The number of this controller's place; 0 with the embedded store.
    pub fn place(&self) -> u64 {
        self.cluster.as_ref().and_then(|cluster| cluster.place).map_or(0, |place| place.fence)
    }

    /// The rollouts that this controller runs.
    pub fn own(&self) -> impl Iterator<Item = &RolloutId> {
        let own = self.rollouts.iter().filter(|(_, active)| active.owner == Owner::Us);
        own.map(|(id, _)| id)
    }

    /// The number of the next event.
    pub fn next_seq(&self, at: Timestamp) -> u64 {
        let place = self.cluster.as_ref().and_then(|cluster| cluster.place);
        place.map_or(self.next_event, |place| number::of_slot(self.next_event, place.slot, at))
    }

    /// The name of a rollout's owner.
    pub fn owner<'a>(&'a self, owner: &'a Owner) -> &'a str {
        match owner {
            Owner::Us => &self.name,
            Owner::Other(name) => name,
        }
    }

    /// Where agents and operators reach the controllers: those that are in, then those that may come back.
    pub fn controllers(&self) -> Vec<String> {
        let Some(cluster) = &self.cluster else { return vec![self.advertise.clone()] };
        let here = cluster.members.values().map(|member| &member.advertise);
        let away = cluster.known.iter().filter(|(name, _)| !cluster.members.contains_key(*name));
        let mut all: Vec<String> =
            here.chain(away.map(|(_, known)| &known.advertise)).cloned().collect();
        let mut seen = BTreeSet::new();
        all.retain(|address| seen.insert(address.clone()));
        all
    }
}

impl Turn<'_> {
    /// Writes a record that others may write too: refused if it is another one than we have seen.
    pub(super) fn put_shared(&mut self, key: String, record: &impl Record) {
        if let Some(cluster) = &self.state.cluster {
            self.batch.require(cluster.unchanged(&key));
        }
        let written = self.batch.put(key, record);
        self.written(written);
    }

    /// Writes what is known of an app in an environment.
    pub(super) fn keep_fleet(&mut self, app: &AppName, env: &EnvName) {
        let Some(fleet) = self.state.fleets.get(&(app.clone(), env.clone())).cloned() else {
            return;
        };
        self.put_shared(super::records::keys::fleet(app, env), &fleet);
    }

    /// The commit counts only while a shared record is as we have seen it.
    pub(super) fn rely_on(&mut self, key: &str) {
        if let Some(cluster) = &self.state.cluster {
            self.batch.require(cluster.unchanged(key));
        }
    }

    /// From here on updates must not start in ignorance of this.
    pub(super) fn guard(&mut self, env: &EnvName) {
        if self.state.cluster.is_some() {
            let mark = self.mark();
            self.put_shared(keys::guard(env), &mark);
        }
    }

    /// Nodes of a rollout were busy with it, and are. A phase and what says so to others are written in one commit, so
    /// the phase is believed, and not what was last heard of the other.
    pub(super) fn busy_moved(&mut self, id: &RolloutId, moved: &[(NodeName, bool, bool)]) {
        let Some(cluster) = &mut self.state.cluster else { return };
        for (node, was, is) in moved {
            let key = keys::busy(node);
            match (was, is) {
                (false, true) => {
                    // What this very turn frees is ours still: nobody else may have it.
                    if !self.batch.deletes(&key) {
                        self.batch.require(Compare::Absent(key.clone()));
                    }
                    let record = BusyRecord { rollout: id.to_string() };
                    if let Err(error) = self.batch.put(key, &record) {
                        tracing::error!(%error, "a record could not be written");
                    }
                    cluster.busy.insert(node.clone(), id.clone());
                }
                (true, false) => {
                    self.batch.delete(key);
                    cluster.busy.remove(node);
                }
                (true, true) | (false, false) => {}
            }
        }
    }

    /// What is known of a rollout's nodes may be older than the rollout.
    pub(super) fn busy_with(&mut self, id: &RolloutId) {
        let State { cluster: Some(cluster), rollouts, .. } = &mut *self.state else { return };
        let Some(active) = rollouts.get(id) else { return };
        for (name, node) in active.rollout.nodes() {
            if node.phase.is_running() {
                cluster.busy.insert(name.clone(), id.clone());
            } else if cluster.busy.get(name) == Some(id) {
                cluster.busy.remove(name);
            }
        }
    }

    /// Something begins that must not begin in ignorance of a freeze or a drain, and that a drain must not overlook.
    pub(super) fn starts(&mut self, id: &RolloutId) {
        if self.state.cluster.is_some() {
            self.rely_on(&keys::guard(&id.env));
            let mark = self.mark();
            self.put_shared(keys::out(&id.app, &id.env), &mark);
        }
    }

    fn mark(&self) -> MarkRecord {
        MarkRecord { at: self.at, by: self.state.name.clone() }
    }
}

impl Batch {
    /// Every commit counts only while this controller has its place, and what the lead writes only while it leads.
    pub(super) fn fence(&mut self, state: &State) {
        let Some(cluster) = &state.cluster else { return };
        // Without a place nothing is written: a revision of 0 never holds.
        let fence = cluster.place.map_or(0, |place| place.fence);
        self.require(Compare::Created(members::member(&state.name), fence));
        if let Some((_, since)) = cluster.lead.as_ref().filter(|_| state.leads()) {
            self.require(Compare::Created(members::LEAD.to_owned(), *since));
        }
    }
}
