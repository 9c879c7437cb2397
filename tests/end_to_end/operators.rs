//! What operators do with a rollout, and what nodes keep of it.

use rota_tests::farm::{App, ENV, Farm};

use super::{deploy, run};

#[test]
fn nodes_keep_a_few_releases_and_no_more() {
    let farm = Farm::start(1).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    for number in 0..7 {
        // Another artifact each time, or the nodes would need no other folder's bytes.
        std::fs::create_dir_all(farm.path("app/dist")).unwrap();
        std::fs::write(farm.path("app/dist/number"), number.to_string()).unwrap();
        deploy(&farm, &format!("1.{number}.0"), app, 0);
    }
    let folder = farm.path("web-01/apps/shop/releases");
    let kept = || {
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.is_dir()).count()
    };
    // The word that the rollout is over comes after the operator's answer.
    while kept() > 4 {
        std::thread::yield_now();
    }
    assert!(kept() >= 2, "the current one and its predecessor stay");
    run(&farm, &["rollout", "undo", "shop", "--env", "prod"], 0);
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
                    timeout = \"400ms\"";
    let said = deploy(&farm, "1.0.0", App { strategy, ..App::default() }, 3);
    let status = run(&farm, &["rollout", "status", "shop/prod"], 0);
    for told in ["did not end within 400ms", "| no such table"] {
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
fn but_not_on(node: &str, strategy: &str) -> String {
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
    assert_eq!((&fleet["in_traffic"], &fleet["targets"]), (&2.into(), &3.into()), "{fleet}");
    let drift = "shop: runs 1.0.0, current is 1.1.0";
    assert_eq!(
        (&status["care"][0]["name"], &status["care"][0]["text"]),
        (&"web-02".into(), &drift.into())
    );
    // One that is left out for inspection, and the way back.
    let strategy = but_not_on("web-01", "on_node_failure = \"leave\"\non_failure = \"rollback\"");
    let said = deploy(&farm, "1.2.0", App { strategy: &strategy, ..simple }, 4);
    assert!(said.contains("web-01 failed and was left out of traffic for inspection"), "{said}");
    let view = json(&farm, &["rollout", "status", "shop/prod"]);
    assert_eq!(
        (&view["nodes"][0]["left"], &view["on_release"]),
        (&"out".into(), &0.into()),
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
