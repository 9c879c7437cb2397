//! Places are taken one at a time, held by a lease, and given back.

use super::*;
use crate::store::sqlite::SqliteStore;

fn member(store: &Arc<SqliteStore>, name: &str, instance: &str) -> Membership {
    Membership {
        store: store.clone(),
        name: name.to_owned(),
        advertise: format!("{name}.example.net:7400"),
        instance: instance.to_owned(),
        rollouts_max: 100,
    }
}

#[tokio::test]
async fn only_neighbours_work_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("rota.db")).unwrap();
    let (c1, c2) = (member(&store, "c1", "one"), member(&store, "c2", "two"));
    let place = c1.join(Timestamp(1)).await.unwrap();
    for (speaks, right) in [(SPEAKS - 1, true), (SPEAKS + 1, true), (SPEAKS + 2, false)] {
        let entry = store.get(&keys::member("c1")).await.unwrap().unwrap();
        let there = MemberRecord::decode(&entry).unwrap();
        let other = MemberRecord { speaks, version: "9.0.0".to_owned(), ..there };
        let (key, value) = (keys::member("c1"), other.encode().unwrap());
        let ops = vec![Op::Put { key, value, lease: Some(place.lease) }];
        store.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
        match c2.join(Timestamp(2)).await {
            Ok(place) => {
                assert!(right, "{speaks}");
                c2.give_up(place.lease).await;
            }
            Err(error) => {
                let text = error.to_string();
                assert!(!right && text.contains("controller c1 is in with 9.0.0"), "{text}");
            }
        }
    }
}

#[tokio::test]
async fn a_place_is_taken_kept_and_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&dir.path().join("rota.db")).unwrap();
    let (c1, c2) = (member(&store, "c1", "one"), member(&store, "c2", "two"));
    let first = c1.join(Timestamp(1)).await.unwrap();
    let second = c2.join(Timestamp(1)).await.unwrap();
    assert_eq!((first.slot, second.slot), (0, 1));
    // The same directory again: the former process gives way, and its fence holds no more.
    let again = c1.join(Timestamp(2)).await.unwrap();
    assert!(again.fence > first.fence && again.slot == 0);
    let old = Compare::Created(keys::member("c1"), first.fence);
    let txn = Txn { compares: vec![old], ops: vec![Op::put("/x", b"{}".to_vec())] };
    assert_eq!(store.commit(txn).await.unwrap(), Outcome::Refused);
    // Its lease is gone: whoever keeps it hears of that.
    assert_eq!(c1.keep(first.lease).await, "its lease has ended");
    c1.give_up(again.lease).await;
    assert!(store.get(&keys::member("c1")).await.unwrap().is_none());
    assert!(store.get(&keys::controller("c1")).await.unwrap().is_some());
}
