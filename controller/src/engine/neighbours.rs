//! What may be written and asked while controllers of two versions work together: only what all of them understand.
//!
//! Whatever a number of [`SPEAKS`] brings asks here first. See `docs/decisions/0035-what-neighbours-write.md`.

use super::State;
use crate::errors::Sort;
use crate::members::{MemberRecord, SPEAKS};
use crate::view::ErrorView;

impl State {
    /// The number that everybody who is in has reached.
    pub fn all_speak(&self) -> u32 {
        self.others().map(|(_, other)| other.speaks).fold(SPEAKS, u32::min)
    }

    /// Refuses what is asked of this controller, if that needs a number that others have not reached.
    pub fn needs(&self, speaks: u32, what: &str) -> Result<(), ErrorView> {
        let behind = self.others().filter(|(_, other)| other.speaks < speaks);
        let behind: Vec<String> =
            behind.map(|(name, other)| format!("{name} ({})", other.version)).collect();
        if behind.is_empty() {
            return Ok(());
        }
        let message =
            format!("{what} is not understood by every controller: {}", behind.join(", "));
        Err(Sort::Refused.error(message, "upgrade these first: docs/upgrade.md"))
    }

    fn others(&self) -> impl Iterator<Item = (&String, &MemberRecord)> {
        let members = self.cluster.iter().flat_map(|cluster| &cluster.members);
        members.filter(|(name, _)| **name != self.name)
    }
}

/// What people should know of one that comes in with another number.
pub(super) fn beside(member: &MemberRecord) -> String {
    match member.speaks == SPEAKS {
        true => String::new(),
        false => format!(
            " with {}: what one of the two versions does not know waits until all are upgraded",
            member.version
        ),
    }
}

#[cfg(test)]
mod tests {
    use rota_rollout::names::Timestamp;

    use super::*;
    use crate::engine::cluster::Cluster;

    fn state(others: &[(&str, u32)]) -> State {
        let member = |speaks| MemberRecord {
            advertise: String::new(),
            version: format!("0.{speaks}.0"),
            instance: String::new(),
            lease: 1,
            slot: 0,
            draining: false,
            hears: None,
            rollouts_max: 100,
            since: Timestamp(0),
            speaks,
        };
        let named = |&(name, speaks): &(&str, u32)| (name.to_owned(), member(speaks));
        let members = others.iter().map(named).collect();
        let cluster = Some(Cluster { members, ..Cluster::default() });
        State { name: "c1".to_owned(), cluster, ..State::default() }
    }

    #[test]
    fn what_is_new_waits_for_the_last_one() {
        let new = SPEAKS + 1;
        for (others, all, behind) in [
            (&[][..], SPEAKS, ""),
            // Its own record may be one of a moment ago.
            (&[("c1", 0)], SPEAKS, ""),
            (&[("c2", SPEAKS)], SPEAKS, "c2 (0.1.0)"),
            (&[("c2", SPEAKS - 1), ("c3", new)], SPEAKS - 1, "c2 (0.0.0)"),
            (&[("c2", SPEAKS), ("c3", SPEAKS)], SPEAKS, "c2 (0.1.0), c3 (0.1.0)"),
            // What is newer than this version is nothing that it could write.
            (&[("c2", new), ("c3", new)], SPEAKS, ""),
        ] {
            let state = state(others);
            assert_eq!(state.all_speak(), all, "{others:?}");
            let told = state.needs(new, "a song").err().map_or(String::new(), |it| it.message);
            let right = match behind {
                "" => String::new(),
                names => format!("a song is not understood by every controller: {names}"),
            };
            assert_eq!(told, right, "{others:?}");
        }
        assert!(State::default().needs(new, "a song").is_ok(), "alone");
    }
}
