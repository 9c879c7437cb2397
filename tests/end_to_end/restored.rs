//! A controller that is built anew from an old backup, and agents that know better.

use std::fs;

use rota_tests::farm::{App, Farm, count};
use rota_tests::load::Load;
use serde_json::Value;

use super::{CLIENTS, all_run, begin, deploy, run, versions};

/// What the newest rollout says of itself.
fn status(farm: &Farm) -> Value {
    let status = run(farm, &["rollout", "status", "shop/prod", "-o", "json"], 0);
    serde_json::from_str(&status).unwrap()
}

fn term(farm: &Farm) -> u64 {
    status(farm)["term"].as_u64().unwrap()
}

fn back_up(farm: &Farm) {
    let (data, file) = (farm.path("controller"), farm.path("backup"));
    let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
    run(farm, &["store", "backup", "--data", data, file], 0);
}

/// The controller's host is lost with everything on it; a new one is made of the backup.
fn rebuild(farm: &mut Farm) {
    farm.controller.kill().unwrap();
    let data = farm.path("controller");
    fs::rename(&data, farm.path("lost")).unwrap();
    let (place, file) = (format!("sqlite:{}", data.display()), farm.path("backup"));
    let said = run(farm, &["store", "restore", file.to_str().unwrap(), "--to", &place], 0);
    assert!(said.contains("new rollouts are numbered from 1001 on"), "{said}");
    farm.restart_controller().unwrap();
}

#[test]
fn an_old_state_is_put_back_and_goes_on() {
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", App::default(), 0);
    back_up(&farm);
    // The backup does not know of these.
    deploy(&farm, "1.1.0", App::default(), 0);
    deploy(&farm, "1.2.0", App::default(), 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    rebuild(&mut farm);
    farm.wait("/api/v1/nodes", |list| count(list, "state", "ready") == 3).unwrap();
    let history = run(&farm, &["rollout", "history", "shop", "--env", "prod", "-o", "json"], 0);
    assert!(!history.contains("1.2.0"), "it is the old state: {history}");
    all_run(&farm, "1.2.0", 3);

    // Its number is not that of 1.1.0, which agents would take for done.
    deploy(&farm, "1.3.0", App::default(), 0);
    assert_eq!(status(&farm)["id"], "shop/prod/1001");
    assert_eq!(versions(&farm, "1.3.0"), 3);
    // The artifact of 1.0.0 was in the backup, too.
    run(&farm, &["rollout", "undo", "shop", "--env", "prod", "--to-revision", "1"], 0);
    all_run(&farm, "1.0.0", 3);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}

#[test]
fn a_rollout_that_was_open_goes_on_above_what_agents_know() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", App::default(), 0);
    begin(&farm, "1.1.0", App { strategy: "batch = 1\nmonitor = \"6s\"", ..App::default() });
    farm.rollout(|view| view["nodes"][0]["step"] == "monitor").unwrap();
    back_up(&farm);
    let before = term(&farm);
    // Each start claims it in a higher term, which the agents hear of.
    for _ in 0..3 {
        farm.controller.kill().unwrap();
        farm.restart_controller().unwrap();
        farm.wait("/api/v1/nodes", |list| count(list, "state", "ready") == 2).unwrap();
    }
    farm.rollout(|view| view["state"] == "completed").unwrap();
    let known = term(&farm);
    assert!(known >= before + 3, "{known} after {before}");
    rebuild(&mut farm);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert!(view["term"].as_u64() > Some(known), "{view} is not above {known}");
    all_run(&farm, "1.1.0", 2);
    deploy(&farm, "1.2.0", App::default(), 0);
    assert_eq!(versions(&farm, "1.2.0"), 2);
}
