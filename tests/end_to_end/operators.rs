//! What operators do with a rollout, and what nodes keep of it.

use std::fs;

use rota_tests::farm::{App, ENV, Farm};

use super::{all_run, begin, deploy, run, versions};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

#[test]
fn nodes_keep_a_few_releases_and_no_more() {
    let farm = Farm::start(1).unwrap();
    for number in 0..7 {
        // Another artifact each time, or the nodes would need no other folder's bytes.
        fs::create_dir_all(farm.path("app/dist")).unwrap();
        fs::write(farm.path("app/dist/number"), number.to_string()).unwrap();
        deploy(&farm, &format!("1.{number}.0"), FAST, 0);
    }
    let folder = farm.path("web-01/apps/shop/releases");
    let kept = || {
        let names = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.is_dir()).count()
    };
    // The word that the rollout is over comes after the operator's answer.
    while kept() > 4 {
        std::thread::yield_now();
    }
    assert!(kept() >= 2, "the current one and its predecessor stay");
    run(&farm, &["rollout", "undo", "shop", "--env", "prod"], 0);
}

#[test]
fn nodes_that_were_away_catch_up_when_they_are_back() {
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    run(&farm, &["node", "drain", "web-01"], 0);
    farm.nodes[2].kill().unwrap();
    farm.wait("/api/v1/nodes/web-03", |node| node["state"] == "offline").unwrap();
    // What is answered is durable, and so is everything before it.
    run(&farm, &["node", "label", "web-02", "seen=yes"], 0);
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    let node = farm.wait("/api/v1/nodes/web-03", serde_json::Value::is_object).unwrap();
    assert_eq!(node["state"], "offline", "a new start of the controller brings nobody back");
    farm.wait("/api/v1/edges", |edges| edges[0]["state"] == "ready").unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"\nmax_unavailable = 3", ..FAST };
    let said = deploy(&farm, "1.1.0", app, 0);
    assert!(said.contains("completed"), "{said}");
    assert_eq!(versions(&farm, "1.1.0"), 1);
    run(&farm, &["node", "undrain", "web-01"], 0);
    let caught_up = |node: &serde_json::Value| {
        node["apps"][0]["release"] == "1.1.0" && node["apps"][0]["traffic"] == "in"
    };
    farm.wait("/api/v1/nodes/web-01", caught_up).unwrap();
    farm.nodes[2] = farm.start_node(3).unwrap();
    farm.wait("/api/v1/nodes/web-03", caught_up).unwrap();
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["message"], "catches up: web-03", "{view}");
    assert_eq!(view["nodes"][1]["state"], "skipped", "nobody else was touched: {view}");
}

#[test]
fn the_job_of_a_release_runs_once_and_that_of_the_next_one_too() {
    let farm = Farm::start(2).unwrap();
    let told = farm.path("migrations");
    let manifest = farm.write_app(FAST).unwrap();
    let mut text = fs::read_to_string(&manifest).unwrap();
    text += "[once]\ncommand = [\"sh\", \"-c\", \"echo {version} >> ";
    text += &format!("{}\"]\n", told.display());
    fs::write(&manifest, text).unwrap();
    let manifest = manifest.to_str().unwrap();
    for version in ["1.0.0", "1.1.0"] {
        // The same bytes: it is another release all the same.
        run(&farm, &["deploy", "-f", manifest, "--version", version, "--env", ENV], 0);
    }
    run(&farm, &["rollout", "start", "shop", "--release", "1.0.0", "--env", ENV], 0);
    run(&farm, &["restart", "shop", "--env", ENV], 0);
    assert_eq!(fs::read_to_string(told).unwrap(), "1.0.0\n1.1.0\n");
}

/// A manifest that says something else somewhere is refused for this reason, and nothing is changed.
fn refused(farm: &Farm, change: (&str, &str), told: &str) {
    let manifest = farm.write_app(FAST).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains(change.0), "{text}");
    fs::write(&manifest, text.replace(change.0, change.1)).unwrap();
    let manifest = manifest.to_str().unwrap();
    let deploy = ["deploy", "-f", manifest, "--version", "2.0.0", "--env", ENV];
    let said = run(farm, &deploy, 1);
    assert!(said.contains(told), "{told:?} is not in: {said}");
    let plan = run(farm, &["plan", "-f", manifest, "--version", "2.0.0", "--env", ENV], 1);
    assert!(plan.contains(told), "{told:?} is not in the plan: {plan}");
    assert_eq!(farm.rollout(|_| true).unwrap()["revision"], 1);
}

#[test]
fn what_cannot_be_carried_out_is_refused_before_anything_is_drained() {
    let mut farm = Farm::start(1).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let via = |word| format!("[traffic]\nvia = \"{word}\"\npool = \"shop\"");
    refused(&farm, ("[traffic]\npool = \"shop\"", &via("endpoint")), "via = \"endpoint\"");
    refused(&farm, ("pool = \"shop\"", "pool = \"other\""), "no edge serves pool other");
    refused(&farm, ("\"web\"", "\"nobody\""), "no node matches the target");
    let manifest = farm.write_app(FAST).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("app = \"shop\"", "app = \"till\"")).unwrap();
    let till = ["deploy", "-f", manifest.to_str().unwrap(), "--version", "1.0.0", "--env", ENV];
    let said = run(&farm, &till, 1);
    assert!(said.contains("is that of app shop"), "{said}");
    farm.edge.terminate().unwrap();
    farm.wait("/api/v1/edges", |edges| edges[0]["state"] == "offline").unwrap();
    refused(&farm, ("batch = 1", "batch = 2"), "no drain could be proven");
}

#[test]
fn a_rollout_waits_for_an_edge_that_went_away() {
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    begin(
        &farm,
        "1.1.0",
        App { strategy: "batch = 1\nmonitor = \"0s\"\napprove_after = [1]", ..FAST },
    );
    farm.rollout(|view| view["hold"]["kind"] == "approval").unwrap();
    farm.edge.terminate().unwrap();
    let view = farm.rollout(|view| view["hold"]["kind"] == "offline").unwrap();
    assert!(view["hold"]["text"].as_str().unwrap().contains("lb-01"), "{view}");
    farm.edge = farm.start_edge().unwrap();
    farm.rollout(|view| view["hold"]["kind"] == "approval").unwrap();
    run(&farm, &["rollout", "promote", "shop/prod"], 0);
    farm.rollout(|view| view["state"] == "completed").unwrap();
}

#[test]
fn start_first_takes_no_capacity() {
    let farm = Farm::start(3).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"\norder = \"start-first\"", ..FAST };
    deploy(&farm, "1.0.0", app, 0);
    deploy(&farm, "1.1.0", app, 0);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["evidence"]["least_in_traffic"], 3, "{view}");
}

/// A manifest of the farm's app whose target no node has.
fn nowhere(farm: &Farm, manifest: &str) -> String {
    let text = std::fs::read_to_string(manifest).unwrap();
    let path = farm.path("app/nowhere.toml");
    std::fs::write(&path, text.replace("roles = [\"web\"]", "roles = [\"db\"]")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_refused_deploy_changes_nothing() {
    let farm = Farm::start(2).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    // Waits for an approval from now on.
    let held = App { strategy: "batch = 1\nmonitor = \"0s\"\napprove_after = [1]", ..app };
    deploy(&farm, "1.1.0", held, 3);
    let manifest = farm.write_app(app).unwrap().to_str().unwrap().to_owned();
    std::fs::write(farm.path("app/dist/more"), "makes it another artifact").unwrap();
    let nowhere = nowhere(&farm, &manifest);
    let releases = run(&farm, &["release", "ls", "-o", "json"], 0);
    let refused = |manifest: &str, more: &[&str], told: &str| {
        let args = ["deploy", "-f", manifest, "--version", "2.0.0", "--env", ENV];
        let said = run(&farm, &[&args, more].concat(), 1);
        assert!(said.contains(told) && said.contains("nothing was pushed"), "{said}");
        assert_eq!(run(&farm, &["release", "ls", "-o", "json"], 0), releases, "{told}");
    };
    refused(&manifest, &[], "rollout shop/prod/2 to 1.1.0");
    refused(&nowhere, &["--supersede"], "no node matches the target");
    run(&farm, &["env", "freeze", ENV, "-m", "sale"], 0);
    refused(&manifest, &["--supersede"], "environment prod is frozen: sale");
    assert_eq!(farm.rollout(|_| true).unwrap()["id"], "shop/prod/2", "and it was not replaced");
}

#[test]
fn a_once_job_that_hangs_says_so_and_what_it_printed() {
    let farm = Farm::start(1).unwrap();
    let strategy = "[once]\ncommand = [\"sh\", \"-c\", \"echo no such table; exec sleep 60\"]\n\
                    timeout = \"2s\"";
    let said = deploy(&farm, "1.0.0", App { strategy, ..App::default() }, 3);
    let status = run(&farm, &["rollout", "status", "shop/prod"], 0);
    for told in ["did not end within 2s", "| no such table"] {
        assert!(said.contains(told), "{told:?} is not in: {said}");
        assert!(status.contains(told), "{told:?} is not in: {status}");
    }
    assert!(!said.contains("124"), "{said}");
}

#[test]
fn a_once_job_that_cannot_begin_has_failed() {
    let farm = Farm::start(1).unwrap();
    let strategy = "[once]\ncommand = [\"./nope\"]";
    let said = deploy(&farm, "1.0.0", App { strategy, ..App::default() }, 3);
    assert!(said.contains("once-per-release job") && said.contains("./nope"), "{said}");
}

/// Fails on this node only.
pub fn but_not_on(node: &str, strategy: &str) -> String {
    let smoke = format!("command = [\"sh\", \"-c\", \"test {{node}} != {node}\"]");
    format!("batch = 1\nmonitor = \"0s\"\n{strategy}\n[[smoke]]\nname = \"picky\"\n{smoke}")
}

fn json(farm: &Farm, args: &[&str]) -> serde_json::Value {
    let text = run(farm, &[args, &["-o", "json"]].concat(), 0);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_stands_after_a_partial_rollout_and_a_rollback() {
    let farm = Farm::start(3).unwrap();
    let simple = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", simple, 0);
    let strategy = but_not_on("web-02", "max_failures = 1\non_failure = \"continue\"");
    let said = deploy(&farm, "1.1.0", App { strategy: &strategy, ..simple }, 3);
    assert!(
        said.contains("rota rollout undo shop --env prod") && !said.contains("retry"),
        "{said}"
    );
    let status = json(&farm, &["status"]);
    let fleet = &status["fleets"][0];
    assert_eq!((&fleet["release"], &fleet["revision"]), (&"1.1.0".into(), &2.into()), "{fleet}");
    assert_eq!((&fleet["in_traffic"], &fleet["targets"]), (&3.into(), &3.into()), "{fleet}");
    assert_eq!(fleet["on_another"], 1, "{fleet}");
    let drift = "shop: runs 1.0.0, current is 1.1.0, left so by shop/prod/2";
    assert_eq!(
        (&status["care"][0]["name"], &status["care"][0]["text"]),
        (&"web-02".into(), &drift.into())
    );
    // One that was left out goes back with the others.
    let strategy = but_not_on("web-01", "on_node_failure = \"leave\"\non_failure = \"rollback\"");
    let said = deploy(&farm, "1.2.0", App { strategy: &strategy, ..simple }, 4);
    assert!(said.contains("web-01 is back on 1.1.0"), "{said}");
    let view = json(&farm, &["rollout", "status", "shop/prod"]);
    assert_eq!(
        (&view["nodes"][0]["state"], &view["on_release"]),
        (&"rolled_back".into(), &0.into()),
        "{view}"
    );
    assert_eq!(
        json(&farm, &["status"])["fleets"][0]["revision"],
        2,
        "what was rolled back is not current"
    );
    run(&farm, &["rollout", "undo", "shop", "--env", ENV], 3);
    let nodes = json(&farm, &["node", "ls"]);
    assert_eq!(nodes[0]["apps"][0]["traffic"], "in", "{nodes}");
    let list = json(&farm, &["rollout", "ls", "--app", "shop"]);
    let ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["shop/prod/4", "shop/prod/3", "shop/prod/2", "shop/prod/1"]);
}

#[test]
fn words_about_pauses_freezes_and_what_nobody_knows() {
    let farm = Farm::start(2).unwrap();
    let simple = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", simple, 0);
    let watched = "batch = 1\nmonitor = \"1h\"\nspread_by = \"zone\"";
    let manifest = farm.write_app(App { strategy: watched, ..simple }).unwrap();
    let manifest = manifest.to_str().unwrap();
    let plan = run(&farm, &["plan", "-f", manifest, "--version", "1.1.0", "--env", ENV], 0);
    assert!(plan.contains("no target has the label zone"), "{plan}");
    run(&farm, &["deploy", "-f", manifest, "--version", "1.1.0", "--env", ENV, "--detach"], 0);
    farm.rollout(|view| view["nodes"][0]["step"] == "monitor").unwrap();
    run(&farm, &["rollout", "pause", "shop/prod", "-m", "looking at errors"], 0);
    let paused = "paused by admin: looking at errors";
    assert!(run(&farm, &["rollout", "status", "shop/prod"], 0).contains(paused));
    assert!(run(&farm, &["status"], 0).contains(paused));
    let said = run(&farm, &["rollout", "rollback", "shop/prod"], 0);
    assert!(said.contains("it is rolling back"), "{said}");
    let said = run(&farm, &["env", "freeze", "nowhere", "-m", "sale"], 0);
    assert!(said.contains("no node is in it"), "{said}");
    run(&farm, &["release", "ls", "nope"], 1);
    run(&farm, &["rollout", "history", "nope", "--env", ENV], 1);
    let tokens = run(&farm, &["token", "ls"], 0);
    assert!(tokens.contains("no token can be used now"), "{tokens}");
    assert!(!run(&farm, &["audit", "-o", "json"], 0).contains("edge \""));
}

#[test]
fn the_only_controller_is_drained_when_it_is_meant() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let refused = run(&farm, &["controller", "drain", "c1"], 1);
    assert!(refused.contains("the only one") && refused.contains("--force"), "{refused}");
    assert_eq!(farm.read("/readyz").unwrap(), "ready\n");
    begin(&farm, "1.1.0", App { strategy: "batch = 1\nmonitor = \"500ms\"", ..FAST });
    // It finishes what it runs, and says when it is idle.
    run(&farm, &["controller", "drain", "c1", "--force", "--wait"], 0);
    assert_eq!(farm.rollout(|_| true).unwrap()["state"], "completed");
    assert_eq!(farm.read("/readyz").unwrap(), "draining\n");
    let manifest = farm.write_app(FAST).unwrap();
    let deploy = ["deploy", "-f", manifest.to_str().unwrap(), "--version", "1.2.0", "--env", ENV];
    let refused = run(&farm, &deploy, 1);
    assert!(refused.contains("is drained and takes nothing new"), "{refused}");
    run(&farm, &["controller", "undrain", "c1"], 0);
    run(&farm, &deploy, 0);
}

#[test]
fn the_way_back_is_kept_and_found() {
    let farm = Farm::start(1).unwrap();
    for version in ["1.0.0", "1.1.0"] {
        deploy(&farm, version, FAST, 0); // the same bytes, and yet two releases
    }
    run(&farm, &["restart", "shop", "--env", ENV], 0);
    let refused = run(&farm, &["release", "rm", "shop", "1.0.0", "--yes"], 1);
    assert!(refused.contains("the way back"), "{refused}");
    let mut back = std::process::Command::new(&farm.programs.agent);
    let back = back.args(["rollback", "shop", "--data"]).arg(farm.path("web-01")).output().unwrap();
    assert!(String::from_utf8_lossy(&back.stdout).contains("1.0.0"), "{back:?}");
    all_run(&farm, "1.0.0", 1);
    run(&farm, &["rollout", "start", "shop", "--release", "1.1.0", "--env", ENV], 0);
    run(&farm, &["rollout", "undo", "shop", "--env", ENV], 0);
    all_run(&farm, "1.0.0", 1);
}
