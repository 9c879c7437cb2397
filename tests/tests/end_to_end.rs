//! The whole, with real processes on loopback: controller, edge with its proxy, nodes, apps, load.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by its panic")]

use std::process::Output;

use rota_tests::farm::{ENV, Farm};
use rota_tests::load::Load;

/// Clients in every test under load.
const CLIENTS: usize = 8;

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Deploys and asserts the exit code; gives back everything that was said.
fn deploy(farm: &Farm, version: &str, broken: bool, strategy: &str, code: i32) -> String {
    let manifest = farm.write_app(broken, strategy).unwrap();
    let manifest = manifest.to_str().unwrap();
    let args = ["deploy", "-f", manifest, "--version", version, "--env", ENV, "-m", "test"];
    let output = farm.run(&args).unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "deploy {version}: {said}");
    said
}

fn versions(farm: &Farm, version: &str) -> usize {
    let nodes = farm.run(&["node", "ls", "-o", "json"]).unwrap();
    text(&nodes).matches(&format!("\"{version}\"")).count()
}

/// Rolls forward and back under load, in both orders, and loses no request.
fn rolls_without_losing_a_request(order: &str) {
    let farm = Farm::start(3).unwrap();
    let strategy = format!("batch = 1\nmonitor = \"200ms\"\norder = \"{order}\"");
    deploy(&farm, "1.0.0", false, &strategy, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    for version in ["1.1.0", "1.2.0"] {
        deploy(&farm, version, false, &strategy, 0);
        assert_eq!(versions(&farm, version), 3);
    }
    let undone = farm.run(&["rollout", "undo", "shop", "--env", ENV]).unwrap();
    assert_eq!(undone.status.code(), Some(0), "{}", text(&undone));
    assert_eq!(versions(&farm, "1.1.0"), 3);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
    assert!(good > 100, "there was load: {good}");
}

#[test]
fn stop_first_loses_no_request() {
    rolls_without_losing_a_request("stop-first");
}

#[test]
fn start_first_loses_no_request() {
    rolls_without_losing_a_request("start-first");
}

#[test]
fn a_failed_smoke_test_is_restored_and_told() {
    let farm = Farm::start(3).unwrap();
    let strategy = "batch = 1\nmonitor = \"200ms\"";
    deploy(&farm, "1.0.0", false, strategy, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let said = deploy(&farm, "1.1.0", true, strategy, 3);
    for part in ["home page", "answered 500", "held", "this release answers 500", "retry"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert_eq!(versions(&farm, "1.0.0"), 3, "the failed node is back, the others were not touched");
    let back = farm.run(&["rollout", "rollback", "shop/prod"]).unwrap();
    assert_eq!(back.status.code(), Some(0), "{}", text(&back));
    let state = "\"rolled_back\"";
    farm.wait(|view| view.contains(state), &["rollout", "status", "shop/prod"]).unwrap();
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}

#[test]
fn killed_agents_and_controllers_finish_what_they_began() {
    let mut farm = Farm::start(3).unwrap();
    let strategy = "batch = 1\nmonitor = \"300ms\"";
    deploy(&farm, "1.0.0", false, strategy, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let manifest = farm.write_app(false, strategy).unwrap();
    let manifest = manifest.to_str().unwrap().to_owned();
    let args = ["deploy", "-f", &manifest, "--version", "1.1.0", "--env", ENV, "--detach"];
    let begun = farm.run(&args).unwrap();
    assert_eq!(begun.status.code(), Some(0), "{}", text(&begun));
    let status = ["rollout", "status", "shop/prod"];
    farm.wait(|view| view.contains("\"updating\""), &status).unwrap();
    farm.nodes[0].kill().unwrap();
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    farm.nodes[0] = farm.start_node(1).unwrap();
    farm.wait(|view| view.contains("\"completed\""), &status).unwrap();
    assert_eq!(versions(&farm, "1.1.0"), 3);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}
