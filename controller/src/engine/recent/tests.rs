//! Whatever the log looks like, the newest events are found, and not the whole of it is read.

use std::sync::Arc;

use super::*;
use crate::store::sqlite::SqliteStore;
use crate::store::{Op, Txn};

/// The clock, in milliseconds.
const NOW: u64 = 1_800_000_000_000;

/// So many events, the last of them so long before now (or after it), so many numbers apart.
struct Burst(u64, i64, u64);

async fn log(bursts: &[Burst]) -> (tempfile::TempDir, Arc<SqliteStore>, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("rota.db")).unwrap();
    let mut keys = Vec::new();
    for Burst(count, before_ms, apart) in bursts {
        let last = NOW.checked_add_signed(-before_ms).unwrap() * number::PER_MS;
        keys.extend((0..*count).map(|n| keys::event(last - n * apart)));
    }
    keys.sort();
    for part in keys.chunks(1_000) {
        let ops = part.iter().map(|key| Op::put(key, b"{}".to_vec())).collect();
        store.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
    }
    (dir, store, keys)
}

#[tokio::test]
async fn the_newest_are_found() {
    const MAX: u64 = EVENTS_IN_MEMORY as u64;
    let (hour, week) = (3_600_000, 7 * 24 * 3_600_000);
    for bursts in [
        vec![],
        vec![Burst(10, 5, 1)],
        vec![Burst(MAX, hour, 3)],
        vec![Burst(MAX + 1, hour, 3)],
        // A rollout over a large fleet: just now, ahead of the clock, an hour ago, and twice.
        vec![Burst(30_000, 0, 16)],
        vec![Burst(30_000, -7_000, 16)],
        vec![Burst(30_000, hour, 16)],
        vec![Burst(20_000, week, 16), Burst(20_000, 20_000, 1)],
        // Not enough since then, and far too many before.
        vec![Burst(20_000, hour, 1), Burst(900, 10, 256)],
        vec![Burst(20_000, hour, 1), Burst(1_100, 10, 256)],
        // Evenly, for days.
        vec![Burst(10_000, 0, number::PER_MS * 60_000)],
    ] {
        let (_dir, store, all) = log(&bursts).await;
        for known in [0, all.len() / 2, all.len().saturating_sub(20)] {
            let known = match known {
                0 => 0,
                known => all[known - 1].rsplit('/').next().unwrap().parse().unwrap(),
            };
            let found = newest(&*store, known, NOW * number::PER_MS).await.unwrap();
            let expected: Vec<&String> =
                all.iter().filter(|key| **key > keys::event(found.begins)).collect();
            let keys: Vec<&String> = found.entries.iter().map(|entry| &entry.key).collect();
            assert_eq!(keys, expected);
            assert!(keys.len() <= EVENTS_IN_MEMORY && found.begins >= known);
            assert!(keys.len() >= ENOUGH || found.begins == known, "{} only", keys.len());
        }
    }
}
