//! A year of deploys, and what is left of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rota_rollout::names::{NodeName, Span, Timestamp};
use rota_rollout::node::{Node, Observed, Phase, Serving};
use rota_rollout::rollout::{Head, Kind, Limits, Outcome, Rollout, Spec, Stage};
use rota_rollout::strategy::Strategy;

use super::*;
use crate::engine::history;
use crate::engine::records::{
    Current, EvidenceRecord, HeadRecord, NodeRecord, OwnerRecord, ReleaseRecord, SpecRecord,
};
use crate::engine::{Engine, Own};
use crate::store::sqlite::SqliteStore;

const KEEP: Keep = Keep { releases: 3, rollouts: 5 };

fn id(revision: u64) -> RolloutId {
    let (app, env) = ("shop".parse().unwrap(), "prod".parse().unwrap());
    RolloutId { app, env, revision: Revision(revision) }
}

fn release(number: u64) -> ReleaseRecord {
    ReleaseRecord {
        app: "shop".parse().unwrap(),
        version: format!("1.{number}.0").parse().unwrap(),
        digest: format!("{number:064}").parse().unwrap(),
        size: 1,
        format: "tar".to_owned(),
        manifest: "app = \"shop\"\nartifact.path = \"d\"\nrun.command = [\"x\"]\n".to_owned(),
        manifest_name: "rota.toml".to_owned(),
        created: Timestamp(number * 1_000),
        who: "ann".to_owned(),
    }
}

fn ended(revision: u64) -> Rollout {
    let observed =
        Observed { online: true, serving: Serving::In, busy: false, drained: false, unsure: false };
    let spec = Spec {
        id: id(revision),
        kind: Kind::Deploy,
        to: release(revision).release(),
        from: None,
        strategy: Strategy::default(),
        batches: Vec::new(),
        targets: 2,
        limits: Limits {
            prepare: Span::ZERO,
            update: Span::ZERO,
            monitor: Span::ZERO,
            once: Span::ZERO,
        },
        once: false,
        fence: None,
        started: Timestamp(revision * 1_000),
        who: "ann".to_owned(),
        message: format!("the {revision}th"),
    };
    let at = Timestamp(revision * 1_000 + 500);
    let stage = Stage::Ended { outcome: Outcome::Completed, at };
    let head = Head { stage, ..Head::new(2) };
    let node = |name: &str| {
        let node = Node::waiting(1, observed, Some(release(revision).release()));
        (name.parse::<NodeName>().unwrap(), Node { phase: Phase::Done, ..node })
    };
    Rollout::new(spec, head, BTreeMap::from(["n1", "n2"].map(node)))
}

/// The store after so many deploys.
async fn after(deploys: u64, dir: &std::path::Path) -> Arc<dyn Store> {
    let store: Arc<dyn Store> = SqliteStore::open(&dir.join("rota.db")).unwrap();
    let mut fleet = FleetRecord::new(Revision(deploys));
    let mut ops = Vec::new();
    for revision in 1..=deploys {
        let (id, rollout, release) = (id(revision), ended(revision), release(revision));
        let prefix = keys::rollout(&id);
        let owner = OwnerRecord { controller: "c1".to_owned(), term: 1, place: 0 };
        let spec = SpecRecord {
            spec: rollout.spec.clone(),
            release: release.clone(),
            pool: None,
            edges: Default::default(),
            by_itself: false,
            command: None,
            takes_in: None,
            first_event: 0,
        };
        let head = HeadRecord { head: rollout.head.clone() };
        ops.push(Op::put(format!("{prefix}spec"), spec.encode().unwrap()));
        ops.push(Op::put(format!("{prefix}head"), head.encode().unwrap()));
        ops.push(Op::put(format!("{prefix}owner"), owner.encode().unwrap()));
        let evidence = EvidenceRecord::default().encode().unwrap();
        ops.push(Op::put(format!("{prefix}evidence"), evidence));
        for (name, node) in rollout.nodes() {
            let record = NodeRecord { node: node.clone() };
            ops.push(Op::put(format!("{prefix}nodes/{name}"), record.encode().unwrap()));
        }
        ops.push(Op::put(keys::release(&id.app, &release.version), release.encode().unwrap()));
        let release = release.release();
        fleet.currents.push(Current { revision: id.revision, release, declared: None });
        *fleet.ended.entry("completed".to_owned()).or_default() += 1;
    }
    let key = keys::fleet(&id(1).app, &id(1).env);
    ops.push(Op::put(key, fleet.encode().unwrap()));
    store.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
    store
}

async fn count(store: &dyn Store, prefix: &str) -> usize {
    scan_all(store, prefix).await.unwrap().0.len()
}

/// Opens the store as a controller does, makes room, and stops.
async fn controller(store: &Arc<dyn Store>) {
    let measure = Box::new(|_| ());
    let opened = Engine::open(Arc::clone(store), Own::alone("c1", "c1:7400"), measure).await;
    let (engine, handle) = opened.unwrap();
    let running = tokio::spawn(engine.run());
    make_room(&handle, &**store, KEEP).await.unwrap();
    drop(handle);
    running.await.unwrap();
}

#[tokio::test]
async fn a_year_leaves_its_history_and_little_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = after(40, dir.path()).await;
    let (app, env) = (id(1).app, id(1).env);
    let before = history(&*store, &app, &env).await.unwrap();
    assert_eq!(before.len(), 40);
    assert_eq!(count(&*store, keys::ROLLOUTS).await, 40 * 6);
    for _ in 0..2 {
        // The second time a controller that was started again has nothing to do.
        controller(&store).await;
        assert_eq!(count(&*store, keys::ROLLOUTS).await, 5 * 6);
        assert_eq!(count(&*store, keys::RELEASES).await, 3);
        assert_eq!(history(&*store, &app, &env).await.unwrap(), before);
    }
    assert!(load_ended(&*store, &id(35)).await.unwrap().is_none());
    assert!(load_ended(&*store, &id(36)).await.unwrap().is_some());
}

#[tokio::test]
async fn broken_off_in_between_it_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = after(8, dir.path()).await;
    let (app, env) = (id(1).app, id(1).env);
    let before = history(&*store, &app, &env).await.unwrap();
    sum_up(&*store, &id(1)).await.unwrap(); // and then the controller died, before it wrote that down
    let ops = vec![Op::Delete(format!("{}nodes/n1", keys::rollout(&id(2))))];
    store.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
    controller(&store).await;
    assert_eq!(count(&*store, keys::ROLLOUTS).await, 5 * 6);
    assert_eq!(history(&*store, &app, &env).await.unwrap(), before);
}

/// What is current somewhere, and the way back from it, stay however old they are.
#[tokio::test]
async fn what_is_needed_stays() {
    let dir = tempfile::tempdir().unwrap();
    let store = after(10, dir.path()).await;
    let key = keys::fleet(&id(1).app, &id(1).env);
    let mut fleet = FleetRecord::decode(&store.get(&key).await.unwrap().unwrap()).unwrap();
    fleet.currents.truncate(2);
    let ops = vec![Op::put(key, fleet.encode().unwrap())];
    store.commit(Txn { compares: Vec::new(), ops }).await.unwrap();
    controller(&store).await;
    let kept = scan_all(&*store, keys::RELEASES).await.unwrap().0;
    let kept: Vec<&str> = kept.iter().map(|entry| entry.key.rsplit('/').next().unwrap()).collect();
    assert_eq!(kept, ["1.1.0", "1.10.0", "1.2.0", "1.8.0", "1.9.0"]);
}

#[test]
fn which_rollouts_are_due() {
    for (revision, summed_up, open, expected) in [
        (3, 0, None, vec![]),
        (7, 0, None, vec![1, 2]),
        (7, 1, None, vec![2]),
        (7, 2, None, vec![]),
        (9, 0, Some(3), vec![1, 2]),
        (9, 0, Some(9), vec![1, 2, 3, 4]),
        (9, 0, Some(1), vec![]),
    ] {
        let mut fleet = FleetRecord::new(Revision(revision));
        fleet.summed_up = summed_up;
        fleet.open.extend(open.map(Revision));
        let due: Vec<u64> = due(&fleet, KEEP).into_iter().map(|it| it.0).collect();
        assert_eq!(due, expected, "{revision} {summed_up} {open:?}");
    }
}
