//! The way back: rehearsed before anything depends on it, and taken under load.

use std::fs;

use rota_tests::farm::{App, ENV, Farm};
use rota_tests::load::Load;

use super::{CLIENTS, deploy, run, versions};

const REHEARSED: &str = "batch = 1\nmonitor = \"200ms\"\nrehearse_rollback = true";

/// How often this is written in the event log.
fn told(farm: &Farm, text: &str) -> usize {
    let events = farm.wait("/api/v1/events", serde_json::Value::is_array).unwrap();
    let all = events.as_array().unwrap();
    all.iter().filter(|event| event["text"].as_str().unwrap_or_default().contains(text)).count()
}

#[test]
fn the_first_batch_shows_that_it_can_go_back() {
    for order in ["stop-first", "start-first"] {
        let farm = Farm::start(3).unwrap();
        let strategy = format!("{REHEARSED}\norder = \"{order}\"");
        let app = App { strategy: &strategy, ..App::default() };
        let manifest = farm.write_app(app).unwrap();
        let plan = ["plan", "-f", manifest.to_str().unwrap(), "--version", "1.0.0", "--env", ENV];
        let said = run(&farm, &plan, 0);
        assert!(said.contains("the rehearsal of the way back is skipped"), "{said}");
        deploy(&farm, "1.0.0", app, 0);
        assert_eq!(told(&farm, "rehearsal:"), 0, "there was nothing to go back to");
        let load = Load::start(farm.pool().unwrap(), CLIENTS);
        let said = run(
            &farm,
            &["plan", "-f", manifest.to_str().unwrap(), "--version", "1.1.0", "--env", ENV],
            0,
        );
        assert!(said.contains("batch 1 is rehearsed: forward, back, forward again"), "{said}");
        deploy(&farm, "1.1.0", app, 0);
        let (good, failed) = load.stop();
        assert_eq!(failed, 0, "of {good} with {order}");
        assert_eq!(versions(&farm, "1.1.0"), 3);
        assert_eq!(told(&farm, "rehearsal: batch 1 goes back"), 1);
        assert_eq!(told(&farm, "rehearsal: the way back works"), 1);
        let view = farm.rollout(|view| view["state"] == "completed").unwrap();
        assert_eq!(view["rehearsal"], "shown", "{view}");
        let attempts: Vec<u64> =
            (0..3).filter_map(|node| view["nodes"][node]["attempt"].as_u64()).collect();
        assert_eq!(attempts, [3, 1, 1], "{view}");
        let least = if order == "stop-first" { 2 } else { 3 };
        assert_eq!(view["evidence"]["least_in_traffic"], least, "{view}");
    }
}

#[test]
fn a_way_back_that_does_not_work_holds_the_rollout() {
    let farm = Farm::start(3).unwrap();
    let needed = farm.path("needed");
    fs::write(&needed, "WITHOUT_IT=1.0.0 does not start\n").unwrap();
    let run_with_it = format!("[env.prod.run]\nenv_file = {needed:?}");
    let old = format!("batch = 3\nmonitor = \"200ms\"\n{run_with_it}");
    deploy(&farm, "1.0.0", App { strategy: &old, ..App::default() }, 0);
    fs::remove_file(&needed).unwrap();
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let said = deploy(&farm, "1.1.0", App { strategy: REHEARSED, ..App::default() }, 3);
    for part in ["the way back was rehearsed and did not work on web-01", "retry", "resume"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let view = farm.rollout(|view| view["state"] == "held").unwrap();
    assert_eq!(view["hold"]["kind"], "rehearsal", "{view}");
    assert_eq!(versions(&farm, "1.1.0"), 1, "it put the new release back, the others wait");
    fs::write(&needed, "HERE=again\n").unwrap();
    run(&farm, &["rollout", "retry", "shop/prod"], 0);
    run(&farm, &["rollout", "status", "shop/prod", "-w"], 0);
    assert_eq!(versions(&farm, "1.1.0"), 3);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}
