//! Everything is killed at every moment that matters, and everything ends as it should.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use rota_tests::farm::{App, Farm};
use rota_tests::load::Load;
use rota_tests::moments::{Deed, Moments, end};
use rota_tests::processes::Process;
use serde_json::Value;

use super::{CLIENTS, all_run, begin, deploy, text};

/// One node for each moment of an update at which its agent is killed; more than an update writes records.
const MOMENTS: usize = 18;

/// So often an update is tried to be hit in each of its steps.
const ROUNDS_MAX: usize = 5;

/// Waits for the n-th record that a node's agent writes, kills the agent there, and starts it again. Answers the step
/// that the journal then told of, and the new agent; nothing when the update was over before.
fn killed(
    farm: &Farm,
    node: usize,
    nth: usize,
    deed: Deed,
    over: &AtomicBool,
) -> Option<(String, Process)> {
    let folder = farm.path(&format!("web-{:02}/journal", node + 1));
    let file = if deed == Deed::Made { "app.shop.json.new" } else { "app.shop.json" };
    let moments = Moments::of(&folder, file, deed).unwrap();
    if !moments.wait(nth, over).unwrap() {
        return None;
    }
    end(farm.nodes[node].pid()).unwrap();
    let record = std::fs::read_to_string(folder.join("app.shop.json")).unwrap_or_default();
    let json = record.split_once('\n').map(|(_, json)| json).unwrap_or_default();
    let state: Value = serde_json::from_str(json).unwrap_or_default();
    let phase = &state["work"]["Update"]["phase"];
    let step = match (&phase["Forward"], &phase["Back"]["mend"]) {
        (Value::String(task), _) => task.clone(),
        (_, Value::String(mend)) => format!("back: {mend}"),
        _ => "at rest".to_owned(),
    };
    Some((step, farm.start_node(node + 1).unwrap()))
}

/// Rolls `version` out over many nodes; the agent of each is killed at another moment. Answers where they died.
fn roll_and_kill(farm: &mut Farm, version: &str, app: App<'_>, deed: Deed) -> BTreeSet<String> {
    let over = AtomicBool::new(false);
    let (farm_ref, over_ref) = (&*farm, &over);
    let dead = std::thread::scope(|scope| {
        let watch = |node| scope.spawn(move || killed(farm_ref, node, node + 1, deed, over_ref));
        let watching: Vec<_> = (0..MOMENTS).map(watch).collect();
        begin(farm_ref, version, app);
        farm_ref.rollout(|view| !view["finished_at"].is_null()).unwrap();
        over.store(true, Ordering::Relaxed);
        watching.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut steps = BTreeSet::new();
    for (node, (step, process)) in
        dead.into_iter().enumerate().filter_map(|(node, dead)| Some((node, dead?)))
    {
        farm.nodes[node] = process;
        steps.insert(step);
    }
    steps
}

/// The agents die before and after each record of a good update and of one that is restored.
fn agents_die_at_every_journaled_step(order: &str, expected: &[&str]) {
    let mut farm = Farm::start(MOMENTS).unwrap();
    let strategy = format!(
        "batch = 4\nmonitor = \"500ms\"\norder = \"{order}\"\n\
         on_failure = \"continue\"\nmax_unavailable = 8"
    );
    let good = App { strategy: &strategy, ..App::default() };
    deploy(&farm, "1.0.0", good, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let (mut steps, mut current) = (BTreeSet::new(), String::new());
    // On a busy machine a kill may come a step late: so more rounds, until each step had its death.
    for round in 1..=ROUNDS_MAX {
        for (number, deed) in [(1, Deed::Made), (2, Deed::Placed)] {
            current = format!("1.{round}.{number}");
            steps.append(&mut roll_and_kill(&mut farm, &current, good, deed));
            farm.rollout(|view| view["state"] == "completed").unwrap();
            all_run(&farm, &current, MOMENTS);
        }
        if expected.iter().all(|step| steps.contains(*step)) {
            break;
        }
    }
    let bad = App { args: &["--broken-page"], ..good };
    for (version, deed) in [("2.0.0", Deed::Made), ("2.1.0", Deed::Placed)] {
        steps.append(&mut roll_and_kill(&mut farm, version, bad, deed));
        farm.rollout(|view| view["state"] == "failed").unwrap();
        all_run(&farm, &current, MOMENTS);
    }
    let (served, failed) = load.stop();
    assert_eq!(failed, 0, "of {served}; agents died at {steps:?}");
    for step in expected {
        assert!(steps.contains(*step), "no agent died at {step:?}, but at {steps:?}");
    }
    println!("{order}: agents died at {steps:?}; {served} requests, none failed");
}

#[test]
fn agents_die_at_every_journaled_step_stop_first() {
    let steps = ["Fetch", "Drain", "Stop", "Swap", "Start", "Health", "Smoke", "Join", "Monitor"];
    agents_die_at_every_journaled_step("stop-first", &steps);
}

#[test]
fn agents_die_at_every_journaled_step_start_first() {
    let steps = ["Fetch", "Start", "Health", "Smoke", "Join", "Drain", "Stop", "Swap", "Monitor"];
    agents_die_at_every_journaled_step("start-first", &steps);
}

/// The moments of a rollout at which its controller is killed: so many writes of its store have begun.
const WRITES: [usize; 10] = [1, 4, 8, 13, 19, 26, 34, 43, 53, 64];

#[test]
fn the_controller_dies_at_ten_moments_of_a_rollout() {
    let mut farm = Farm::start(3).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"50ms\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let manifest = farm.write_app(app).unwrap();
    let mut died = 0;
    for (number, nth) in WRITES.into_iter().enumerate() {
        let version = format!("1.1.{number}");
        let manifest = manifest.to_str().unwrap();
        let push = ["release", "push", "-f", manifest, "--version", &version];
        super::run(&farm, &push, 0);
        let over = AtomicBool::new(false);
        let moments = Moments::of(&farm.path("controller"), "rota.db-wal", Deed::Written).unwrap();
        let pid = farm.controller.pid();
        let killed = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                let came = moments.wait(nth, &over).unwrap();
                if came {
                    end(pid).unwrap();
                }
                came
            });
            let start =
                ["rollout", "start", "shop", "--release", &version, "--env", "prod", "--detach"];
            let said = farm.run(&start).unwrap();
            // It may die before it answers: code 5, and the operator is told that he has to look.
            if said.status.code() == Some(0) {
                let over_or_dead = |view: &Value| view.is_null() || !view["finished_at"].is_null();
                farm.rollout(over_or_dead).unwrap();
            } else {
                assert_eq!(said.status.code(), Some(5), "{}", text(&said));
            }
            over.store(true, Ordering::Relaxed);
            killer.join().unwrap()
        });
        if killed {
            died += 1;
            farm.controller.kill().unwrap();
            farm.restart_controller().unwrap();
            let newest = farm.rollout(|view| view["id"].is_string()).unwrap();
            if newest["to"] != version.as_str() {
                let start = ["rollout", "start", "shop", "--release", &version, "--env", "prod"];
                super::run(&farm, &start, 0);
            }
        }
        let view = farm.rollout(|view| view["state"] == "completed").unwrap();
        assert_eq!(view["to"], version.as_str(), "killed at write {nth}");
        for node in view["nodes"].as_array().unwrap() {
            assert_eq!(node["attempt"], 1, "no node is asked twice: {node}");
        }
        all_run(&farm, &version, 3);
    }
    let (served, failed) = load.stop();
    assert_eq!(failed, 0, "of {served}");
    // Writes that the test did not hear of in time count as one, and a rollout of few writes is over before the last.
    assert!(died >= WRITES.len() - 2, "in the middle of it, but only {died} times");
    for node in &farm.nodes {
        let updates = node.log().matches(" begins, attempt ").count();
        assert_eq!(updates, 1 + WRITES.len(), "each release was begun once: {}", node.log());
    }
}

#[test]
fn agents_and_controllers_killed_together_finish_what_they_began() {
    let mut farm = Farm::start(3).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"300ms\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    begin(&farm, "1.1.0", app);
    farm.rollout(|view| view["nodes"][0]["state"] == "updating").unwrap();
    farm.nodes[0].kill().unwrap();
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    farm.nodes[0] = farm.start_node(1).unwrap();
    farm.rollout(|view| view["state"] == "completed").unwrap();
    all_run(&farm, "1.1.0", 3);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}

/// The process ids of all running sample apps of this farm.
fn apps(farm: &Farm) -> BTreeSet<String> {
    let here = farm.path("").to_str().unwrap().to_owned();
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let exe = std::fs::read_link(entry.path().join("exe")).ok()?;
        let is_app = exe.ends_with("sample-app") && exe.starts_with(&here);
        is_app.then(|| entry.file_name().into_string().ok())?
    });
    all.collect()
}

#[test]
fn apps_and_the_proxy_outlive_their_agents() {
    let mut farm = Farm::start(3).unwrap();
    let app = App { strategy: "batch = 3\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let before = apps(&farm);
    assert_eq!(before.len(), 3);
    farm.edge.kill().unwrap();
    for node in &mut farm.nodes {
        node.kill().unwrap();
    }
    let (served, _) = load.so_far();
    while load.so_far().0 < served + 200 {
        std::thread::yield_now();
    }
    assert_eq!(apps(&farm), before, "with no agent at all");
    farm.edge = farm.start_edge().unwrap();
    for number in 1..=3 {
        farm.nodes[number - 1] = farm.start_node(number).unwrap();
    }
    farm.wait("/api/v1/nodes", |nodes| {
        let all = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
        all.len() == 3 && all.iter().all(|node| node["apps"][0]["traffic"] == "in")
    })
    .unwrap();
    assert_eq!(apps(&farm), before, "they were found again, not started again");
    deploy(&farm, "1.1.0", app, 0);
    assert!(apps(&farm).is_disjoint(&before), "and they can be updated");
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}
