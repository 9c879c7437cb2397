//! What operators do with a rollout, and what nodes keep of it.

use std::fs;

use rota_tests::farm::{App, ENV, Farm};

use super::{begin, deploy, run, versions};

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
    refused(&farm, ("[run]", "[run]\ndriver = \"systemd\""), "driver = \"systemd\"");
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
