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

const QUICK: &str = "batch = 1\nmonitor = \"0s\"";

fn push(farm: &Farm, version: &str, fence: &str, strategy: &str) -> Vec<String> {
    let strategy = format!("{strategy}\n[compatibility]\n{fence}");
    let app = App { strategy: &strategy, ..App::default() };
    let manifest = farm.write_app(app).unwrap().display().to_string();
    ["-f", &manifest, "--version", version, "--env", ENV].map(str::to_owned).to_vec()
}

fn on(farm: &Farm, verb: &str, what: &[String], more: &[&str], code: i32) -> String {
    let args: Vec<&str> =
        [verb].into_iter().chain(what.iter().map(String::as_str)).chain(more.to_vec()).collect();
    run(farm, &args, code)
}

fn all_in(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

/// Every way back that a fence forbids: refused with the reason, or taken with one.
#[test]
fn a_fence_is_broken_only_with_a_reason() {
    let farm = Farm::start(2).unwrap();
    let rollout = |args: &[&str], code| run(&farm, &[&["rollout"], args].concat(), code);
    let undo = ["undo", "shop", "--env", ENV];
    let first = push(&farm, "1.0.0", "", QUICK);
    on(&farm, "deploy", &first, &[], 0);
    // A mixed window that the new release forbids, and its rehearsal.
    let two = push(&farm, "2.0.0", "rollback_to = \">=1.5.0\"", QUICK);
    let forbids = "2.0.0 forbids going back to 1.0.0: its rollback_to = \">=1.5.0\"";
    let said = on(&farm, "plan", &two, &[], 1);
    all_in(&said, &[forbids, "rota.toml:", "1.0.0 does not match", "it would run beside it"]);
    let said = on(&farm, "plan", &two, &["--break-fence"], 0);
    all_in(&said, &["the fence would be broken", forbids]);
    all_in(&on(&farm, "deploy", &two, &[], 1), &[forbids]);
    all_in(&on(&farm, "deploy", &two, &["--break-fence"], 2), &["--message"]);
    all_in(&on(&farm, "deploy", &two, &["--break-fence", "-m", " "], 2), &["takes a reason"]);
    let rehearsed = push(&farm, "2.0.0", "rollback_to = \">=1.5.0\"", REHEARSED);
    all_in(&on(&farm, "plan", &rehearsed, &[], 1), &["rehearse_rollback would take nodes back"]);
    // It does not roll back by itself, nor by an operator without a reason.
    let back = format!("{QUICK}\non_failure = \"rollback\"\napprove_after = [1]");
    let two = push(&farm, "2.0.0", "rollback_to = \">=1.5.0\"", &back);
    on(&farm, "deploy", &two, &["--break-fence", "-m", "a copy was made", "--detach"], 0);
    farm.rollout(|view| view["hold"]["kind"] == "approval").unwrap();
    all_in(&rollout(&["rollback", "shop/prod", "--yes"], 1), &["cannot go back", forbids, "hint:"]);
    rollout(&["promote", "shop/prod"], 0);
    rollout(&["status", "shop/prod", "-w"], 0);
    assert_eq!(versions(&farm, "2.0.0"), 2);
    // An undo, also past a release that was current in between; a deploy of an older one.
    all_in(&rollout(&undo, 1), &[forbids]);
    let three = push(&farm, "3.0.0", "", QUICK);
    on(&farm, "deploy", &three, &[], 0);
    let to_first = [&undo[..], &["--to-revision", "1"]].concat();
    all_in(&rollout(&to_first, 1), &[forbids]);
    all_in(&on(&farm, "deploy", &first, &[], 1), &[forbids]);
    rollout(&undo, 0);
    rollout(&[&to_first[..], &["--break-fence", "-m", "the copy is back"]].concat(), 0);
    assert_eq!(versions(&farm, "1.0.0"), 2);
    let said = run(&farm, &["audit"], 0);
    all_in(&said, &["rollout undo", "--break-fence", "a copy was made"]);
    assert_eq!(told(&farm, "breaks the fence: a copy was made"), 1);
}

/// A way back by a schema's number; and the failure that would go back by itself holds.
#[test]
fn a_schema_fences_and_a_failure_holds() {
    let farm = Farm::start(2).unwrap();
    let six = push(&farm, "1.0.0", "schema = 6", QUICK);
    on(&farm, "deploy", &six, &[], 0);
    let back = format!("{QUICK}\non_failure = \"rollback\"");
    let seven = push(&farm, "1.1.0", "schema = 7\nrollback_to = 7", &back);
    let manifest = farm.path("app/rota.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("contains = \"v{version}\"", "contains = \"no such thing\""))
        .unwrap();
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let forbids = "1.1.0 forbids going back to 1.0.0: its rollback_to = 7";
    all_in(&on(&farm, "deploy", &seven, &[], 1), &[forbids, "1.0.0 has schema 6"]);
    let said = on(&farm, "deploy", &seven, &["--break-fence", "-m", "nobody writes now"], 3);
    all_in(&said, &["there is no way back by itself", forbids, "--break-fence"]);
    let view = farm.rollout(|view| view["state"] == "held").unwrap();
    assert_eq!(view["hold"]["kind"], "fence", "{view}");
    let rollback = ["rollout", "rollback", "shop/prod", "--yes", "--break-fence", "-m", "looked"];
    run(&farm, &rollback, 0);
    farm.rollout(|view| view["state"] == "rolled_back").unwrap();
    assert_eq!(told(&farm, "breaks the fence: looked"), 1);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}
