//! What the store knows of controllers.

use rota_rollout::names::Timestamp;
use serde::{Deserialize, Serialize};

use crate::store::Record;

/// A controller that is in; the record goes with its lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// HOST:PORT for agents, operators and the other controllers.
    pub advertise: String,
    /// Its version.
    pub version: String,
    /// Its data directory.
    pub instance: String,
    /// Its lease.
    pub lease: i64,
    /// Which of the numbers of events are its own.
    pub slot: u8,
    /// It takes nothing new.
    pub draining: bool,
    /// How many agents it hears; `None`: it has not said yet.
    pub hears: Option<usize>,
    /// It owns no more rollouts than this.
    pub rollouts_max: usize,
    /// When it came in.
    pub since: Timestamp,
    /// What it writes and understands: see [`SPEAKS`].
    pub speaks: u32,
}

/// Rises when controllers of the version before would not understand what is written or asked. Neighbours work
/// together; what is further apart does not come in. What a number brings is written and asked only when everybody who
/// is in has reached it: `docs/decisions/0035-what-neighbours-write.md`.
pub const SPEAKS: u32 = 1;

impl MemberRecord {
    /// May it write and ask what this version does not understand?
    pub fn is_beyond(&self) -> bool {
        self.speaks > SPEAKS + 1
    }
}

/// A controller that was in once, and may come back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerRecord {
    /// HOST:PORT, as it said last.
    pub advertise: String,
    /// Its version, as it said last.
    pub version: String,
    /// It was stopped after it had been drained.
    pub drained: bool,
}

impl Record for MemberRecord {}
impl Record for ControllerRecord {}

/// Where they lie.
pub mod keys {
    /// Everybody who is in.
    pub const MEMBERS: &str = "/members/";
    /// Everybody who was.
    pub const CONTROLLERS: &str = "/controllers/";
    /// Whose numbers of events are whose.
    pub const SLOTS: &str = "/slots/";
    /// Who writes what belongs to no rollout: the name of a member, with its lease.
    pub const LEAD: &str = "/lead";

    /// One who is in.
    pub fn member(name: &str) -> String {
        format!("{MEMBERS}{name}")
    }

    /// One who was.
    pub fn controller(name: &str) -> String {
        format!("{CONTROLLERS}{name}")
    }

    /// A slot.
    pub fn slot(slot: u8) -> String {
        format!("{SLOTS}{slot:02}")
    }
}
