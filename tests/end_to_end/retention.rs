//! What is kept of the past: the newest releases and rollouts, whatever is in use beside them, and every line of the
//! history.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rota_tests::farm::{App, Farm};
use rota_tests::processes::{Process, Programs};
use serde_json::Value;

use super::{all_run, run};

/// A second environment, without edges: what is in use there is kept, too.
const STRATEGY: &str = "batch = 1\nmonitor = \"0s\"\n[env.test.traffic]\nvia = \"none\"";

/// Nothing here takes longer, whatever the machine does beside it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Deploys a version with an artifact of its own.
fn deploy(farm: &Farm, version: &str, env: &str) {
    let manifest = farm.write_app(App { strategy: STRATEGY, ..App::default() }).unwrap();
    fs::write(farm.path("app/dist/release"), version).unwrap();
    let manifest = manifest.to_str().unwrap();
    run(farm, &["deploy", "-f", manifest, "--version", version, "--env", env, "-m", version], 0);
}

/// Starts an agent of the other environment.
fn start_tester(farm: &Farm) -> Process {
    let token = run(farm, &["token", "create", "--for", "agent"], 0);
    let token = token.lines().next().unwrap();
    let address = farm.controller.told("grpc").unwrap();
    let mut command = Command::new(&farm.programs.agent);
    command.args(["run", "--name", "test-01", "--env", "test", "--role", "web"]);
    command.args(["--controller", address, "--token", token, "--data"]);
    command.arg(farm.path("test-01"));
    let tester = Process::start(command, &farm.path("test-01.log")).unwrap();
    farm.wait("/api/v1/nodes", |list| list.as_array().is_some_and(|all| all.len() == 2)).unwrap();
    tester
}

/// The versions that there are, oldest first.
fn versions(list: &Value) -> Vec<&str> {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().rev().filter_map(|release| release["version"].as_str()).collect()
}

fn artifacts(farm: &Farm) -> usize {
    let inside = |path: &Path| fs::read_dir(path).map(|all| all.flatten().collect::<Vec<_>>());
    let folders = inside(&farm.path("controller/artifacts/sha256")).unwrap();
    folders.iter().map(|folder| inside(&folder.path()).unwrap().len()).sum()
}

#[test]
fn the_past_is_kept_small() {
    let keep = ["--keep-releases", "2", "--keep-rollouts", "3"];
    let mut farm = Farm::serving(Programs::build().unwrap(), 1, &keep).unwrap();
    let mut tester = start_tester(&farm);
    for version in ["1.0.0", "1.1.0"] {
        deploy(&farm, version, "test");
    }
    for minor in 0..8 {
        deploy(&farm, &format!("1.{minor}.0"), "prod");
    }
    let kept = ["1.0.0", "1.1.0", "1.6.0", "1.7.0"];
    let check = |farm: &Farm| {
        // The newest two, the second of which is prod's way back; and what runs in test, with its way back.
        farm.wait("/api/v1/releases/shop", |list| versions(list) == kept).unwrap();
        let begun = Instant::now();
        while artifacts(farm) != kept.len() {
            assert!(begun.elapsed() < PATIENCE, "{} artifacts are on the disk", artifacts(farm));
            std::thread::yield_now();
        }
        let only_a_line = |said: &str| said.contains("only its line in the history is kept");
        farm.wait("/api/v1/rollouts/shop/prod/5", |view| only_a_line(&view.to_string())).unwrap();
        for (revision, traces) in [(1, 0), (5, 0), (6, 1), (8, 1)] {
            let path = format!("/api/v1/rollouts/shop/prod/{revision}/traces");
            farm.wait(&path, |list| list.as_array().is_some_and(|all| all.len() == traces))
                .unwrap();
        }
        let list = farm.wait("/api/v1/rollouts?env=prod", Value::is_array).unwrap();
        assert_eq!(list.as_array().unwrap().len(), 3, "{list}");
        for id in ["shop/prod/1", "shop/prod/5"] {
            for verb in ["status", "inspect"] {
                let said = run(farm, &["rollout", verb, id], 1);
                assert!(only_a_line(&said), "{said}");
            }
        }
        run(farm, &["rollout", "inspect", "shop/prod/6"], 0);
        run(farm, &["rollout", "status", "shop/test/1"], 0);
        let lines = run(farm, &["rollout", "history", "shop", "--env", "prod", "-o", "json"], 0);
        let lines: Value = serde_json::from_str(&lines).unwrap();
        let lines = lines.as_array().unwrap();
        let of = |line: &Value| (line["revision"].clone(), line["message"].clone());
        let expected: Vec<(Value, Value)> =
            (1..=8).rev().map(|n| (n.into(), format!("1.{}.0", n - 1).into())).collect();
        assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected);
    };
    check(&farm);
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    check(&farm);
    let undo = ["rollout", "undo", "shop", "--env", "prod", "--yes", "-m", "back"];
    let said = run(&farm, &[&undo[..], &["--to-revision", "3"]].concat(), 1);
    for part in ["revision 3 of shop in prod ran 1.2.0", "was removed", "rota release ls shop"] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    let newest = farm.wait("/api/v1/rollouts/shop/prod", Value::is_object).unwrap();
    assert_eq!(newest["revision"], 8, "what was refused left nothing behind");
    run(&farm, &undo, 0);
    all_run(&farm, "1.6.0", 1);
    tester.kill().unwrap();
}

#[test]
fn nothing_kept_is_no_number() {
    let rota = Programs::build().unwrap().rota;
    for flag in ["--keep-releases", "--keep-rollouts"] {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let output = Command::new(&rota).args(["serve", flag, "0", "--data"]).arg(&data).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(flag) && said.contains("at least 1"), "{said}");
        assert!(!data.exists(), "it changed nothing");
    }
}
