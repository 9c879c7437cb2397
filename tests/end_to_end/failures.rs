//! Bad releases: the node restores itself, the rollout does what its strategy says, the operator sees the cause.

use std::fs;
use std::path::Path;
use std::process::Command;

use rota_tests::farm::{App, ENV, Farm, count};
use rota_tests::load::Load;
use rota_tests::processes::Process;

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
    bad_release(&["--never-healthy"], "deadline = \"3s\"", &told);
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

/// The data folder's disk of one node, in MiB: room for the first release and the agent's reserve of 64, no more.
const SMALL_DISK_MIB: u32 = 80;

/// Runs what follows with a small disk of its own at a folder; the processes in there end with it.
fn on_a_small_disk(folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
    let mount = format!("mount -t tmpfs -o mode=700,size={SMALL_DISK_MIB}m none \"$0\"");
    command.arg(format!("{mount} && exec \"$@\"")).arg(folder);
    command
}

#[test]
fn one_that_is_too_big_for_a_disk() {
    let mut farm = Farm::start(1).unwrap();
    let folder = farm.path("web-02");
    fs::create_dir(&folder).unwrap();
    let tried = on_a_small_disk(&folder).arg("true").output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        eprintln!("SKIPPED: a release too big for the disk: no disk can be made here: {tried:?}");
        return;
    }
    let token = run(&farm, &["token", "create", "-q", "--for", "agent"], 0);
    let mut command = on_a_small_disk(&folder);
    command.arg(&farm.programs.agent).args(["run", "--name", "web-02", "--env", ENV]);
    command.args(["--role", "web", "--controller", farm.controller.told("grpc").unwrap()]);
    command.args(["--token", token.trim(), "--data"]).arg(&folder);
    let agent = Process::start(command, &farm.path("web-02.log")).unwrap();
    farm.nodes.push(agent);
    farm.wait("/api/v1/nodes", |nodes| count(nodes, "state", "ready") == 2).unwrap();
    let app = App { strategy: STRATEGY, ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    farm.write_app(app).unwrap();
    let mut noise = 1_u64;
    let mut bytes = vec![0; 16 << 20]; // bytes that no compression makes smaller
    for byte in &mut bytes {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (noise >> 56) as u8;
    }
    fs::write(farm.path("app/dist/noise"), bytes).unwrap();
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let said = deploy(&farm, "2.0.0", app, 3);
    assert!(said.contains("web-02") && said.contains("MiB are needed"), "{said}");
    let view = farm.rollout(|_| true).unwrap();
    assert_eq!(view["evidence"]["least_in_traffic"], 2, "nothing was drained for it: {view}");
    assert_eq!(view["nodes"][1]["left"], "untouched", "{view}");
    assert_eq!(versions(&farm, "1.0.0"), 2);
    assert_eq!(load.stop().1, 0);
}
