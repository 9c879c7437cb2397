//! A running installation moves to etcd and back: the same data directory, the same agents, no request lost.

use std::fs;

use rota_tests::etcd::Etcd;
use rota_tests::farm::{App, Farm, count};
use rota_tests::load::Load;

use super::{CLIENTS, all_run, deploy, run};

/// Stops the controller, copies its state, and starts it on the other store.
fn move_to(farm: &mut Farm, from: &[&str], to: &str, serving: &[&str]) {
    farm.controller.terminate().unwrap();
    let copy: Vec<&str> = ["store", "copy", "--from"].iter().chain(from).copied().collect();
    run(farm, &[&copy[..], &["--to", to]].concat(), 0);
    farm.restart_controller_with(serving).unwrap();
    farm.wait("/api/v1/nodes", |list| count(list, "state", "ready") == 3).unwrap();
}

#[test]
fn a_running_installation_moves_to_etcd_and_back() {
    let Some(etcd) = Etcd::start(1) else { return };
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", App::default(), 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let data = farm.path("controller");
    let (url, dir) = (etcd.url(), data.display().to_string());
    move_to(&mut farm, &["sqlite", "--data", &dir], &url, &["--store", &url]);
    let history = run(&farm, &["rollout", "history", "shop", "--env", "prod", "-o", "json"], 0);
    assert!(history.contains("1.0.0"), "{history}");
    deploy(&farm, "1.1.0", App::default(), 0);
    all_run(&farm, "1.1.0", 3);
    // A copy is refused while a controller runs on its source.
    let other = format!("sqlite:{}", farm.path("other").display());
    let refused = run(&farm, &["store", "copy", "--from", &url, "--to", &other], 1);
    assert!(refused.contains("controllers run on") && refused.contains("c1"), "{refused}");
    // A backup is not.
    let backup = farm.path("backup");
    let backup = backup.to_str().unwrap();
    run(&farm, &["store", "backup", "--store", &url, "--data", &dir, backup], 0);

    // Where the old state lies, none begins.
    fs::rename(data.join("rota.db.moved"), farm.path("old.db")).unwrap();
    let back = format!("sqlite:{dir}");
    move_to(&mut farm, &[&url], &back, &[]);
    run(&farm, &["rollout", "undo", "shop", "--env", "prod", "--to-revision", "1"], 0);
    all_run(&farm, "1.0.0", 3);
    let history = run(&farm, &["rollout", "history", "shop", "--env", "prod", "-o", "json"], 0);
    assert!(history.contains("1.1.0"), "what was done on etcd came along: {history}");
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}
