//! Numbers of rollouts are given once. A state that was put back does not know which ones were given after it was
//! taken, and agents do: a new rollout with such a number would be an old one for them, already done. So new rollouts
//! of a state that was put back go on at the next thousand.

use serde::{Deserialize, Serialize};

use crate::store::snapshot::Snapshot;
use crate::store::{Entry, Record, StoreError};

/// Where it stands.
pub const RESTORED: &str = "/restored";

/// Below it each app has, in each environment, the number of its newest rollout.
const FLEETS: &str = "/fleets/";

/// More rollouts than this, of one app in one environment, do not begin between a backup and its use.
const STEP: u64 = 1000;

/// Says that this state was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredRecord {
    /// Rollouts have had numbers up to this one.
    pub upto: u64,
    /// When the backup was made, as RFC 3339.
    pub made_at: String,
    /// When it was put back, likewise.
    pub at: String,
}

impl Record for RestoredRecord {}

#[derive(Deserialize)]
struct Numbered {
    revision: u64,
}

/// Makes a snapshot one that was put back, and says from where on new rollouts are numbered.
pub fn put_back(snapshot: &mut Snapshot, made_at: &str, at: &str) -> Result<u64, StoreError> {
    let mut newest = 0;
    for (key, value) in &snapshot.entries {
        if key.starts_with(FLEETS) {
            let fleet: Numbered = serde_json::from_slice(value)
                .map_err(|cause| StoreError::Corrupt(format!("{key}: {cause}")))?;
            newest = newest.max(fleet.revision);
        } else if key == RESTORED {
            newest = newest.max(read(value)?.upto);
        }
    }
    let upto = (newest / STEP + 1) * STEP;
    let record = RestoredRecord { upto, made_at: made_at.to_owned(), at: at.to_owned() };
    snapshot.entries.retain(|(key, _)| key != RESTORED);
    let place = snapshot.entries.partition_point(|(key, _)| key.as_str() < RESTORED);
    snapshot.entries.insert(place, (RESTORED.to_owned(), record.encode()?));
    Ok(upto)
}

fn read(value: &[u8]) -> Result<RestoredRecord, StoreError> {
    let (key, value) = (RESTORED.to_owned(), value.to_vec());
    RestoredRecord::decode(&Entry { key, value, created: 0, modified: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_rollouts_go_on_at_the_next_thousand() {
        let fleet = |name: &str, revision: u64| {
            (format!("/fleets/{name}/prod"), format!(r#"{{"v":1,"revision":{revision}}}"#).into())
        };
        let mut snapshot = Snapshot { revision: 7, entries: vec![], alive: vec![] };
        assert_eq!(put_back(&mut snapshot, "then", "now").unwrap(), 1000);
        snapshot.entries.insert(0, fleet("api", 3));
        snapshot.entries.push(fleet("shop", 999));
        assert_eq!(put_back(&mut snapshot, "then", "now").unwrap(), 2000, "above an earlier one");
        snapshot.entries.push(fleet("zoo", 2000));
        assert_eq!(put_back(&mut snapshot, "then", "later").unwrap(), 3000);
        let all: Vec<_> = snapshot.entries.iter().filter(|(key, _)| key == RESTORED).collect();
        assert_eq!(all.len(), 1);
        let right = RestoredRecord { upto: 3000, made_at: "then".into(), at: "later".into() };
        assert_eq!(read(&all[0].1).unwrap(), right);
        snapshot.entries.push(("/fleets/bad/prod".to_owned(), b"{}".to_vec()));
        assert!(put_back(&mut snapshot, "then", "now").is_err());
    }
}
