//! Bad releases: the node restores itself, the rollout does what its strategy says, the operator sees the cause.

use std::fs;

use rota_tests::farm::{App, ENV, Farm};
use rota_tests::load::Load;

use super::{CLIENTS, begin, deploy, run, versions};

const STRATEGY: &str = "batch = 1\nmonitor = \"200ms\"";

/// One release that is no good: it is held, or taken back, with its cause on the screen, and nobody outside notices.
fn bad_release(args: &[&str], health: &str, told: &[&str]) {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", App { strategy: STRATEGY, ..App::default() }, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let app = App { args, health, strategy: STRATEGY, ..App::default() };
    let said = deploy(&farm, "1.1.0", app, 3);
    for part in told.iter().chain(&["held", "retry"]) {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert_eq!(versions(&farm, "1.0.0"), 3, "the failed node is back, the others were not touched");
    run(&farm, &["rollout", "rollback", "shop/prod"], 0);
    let view = farm.rollout(|view| view["state"] == "rolled_back").unwrap();
    assert_eq!(view["nodes"][0]["state"], "restored", "{view}");
    let strategy = format!("{STRATEGY}\non_failure = \"rollback\"");
    let said = deploy(&farm, "1.2.0", App { strategy: &strategy, ..app }, 4);
    assert!(said.contains("rolled back"), "{said}");
    assert_eq!(versions(&farm, "1.0.0"), 3);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}

#[test]
fn one_that_fails_its_smoke_test() {
    let told = ["smoke", "home page", "answered 500", "this release answers 500"];
    bad_release(&["--broken-page"], "", &told);
}

#[test]
fn one_that_never_gets_healthy() {
    let told = ["health", "503", "waits for a queue that nobody made"];
    bad_release(&["--never-healthy"], "deadline = \"1s\"", &told);
}

#[test]
fn one_that_exits_at_once() {
    bad_release(&["--exit-at-once"], "", &["exited with code 3", "finds no database and gives up"]);
}

#[test]
fn one_whose_artifact_is_corrupt_on_the_way() {
    let farm = Farm::start(2).unwrap();
    let app = App { strategy: STRATEGY, ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let manifest = farm.write_app(app).unwrap();
    fs::write(farm.path("app/dist/more"), "makes it another artifact").unwrap();
    let manifest = manifest.to_str().unwrap();
    run(&farm, &["release", "push", "-f", manifest, "--version", "1.1.0"], 0);
    let blobs = farm.path("controller/artifacts");
    let newest =
        walk(&blobs).into_iter().max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    let newest = newest.unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let said = run(&farm, &["rollout", "start", "shop", "--release", "1.1.0", "--env", ENV], 3);
    assert!(said.contains("fetch") && said.contains("digest"), "{said}");
    assert_eq!(versions(&farm, "1.0.0"), 2, "nothing was drained for it");
    let view = farm.rollout(|_| true).unwrap();
    assert_eq!(view["evidence"]["least_in_traffic"], 2, "{view}");
    assert_eq!(load.stop().1, 0);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn failures_within_the_limit_end_partial() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", App { strategy: STRATEGY, ..App::default() }, 0);
    let strategy = format!("{STRATEGY}\non_failure = \"continue\"");
    let app = App { args: &["--broken-page"], strategy: &strategy, ..App::default() };
    begin(&farm, "1.1.0", app);
    let view = farm.rollout(|view| !view["finished_at"].is_null()).unwrap();
    assert_eq!(view["state"], "failed", "no node runs it: {view}");
    assert_eq!(versions(&farm, "1.0.0"), 3);
}
