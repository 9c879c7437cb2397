//! `rota plan` with a real fleet: what it learned, what is different, and that it says what a deploy then does.

use std::fs;

use rota_tests::farm::{App, ENV, Farm};
use serde_json::Value;

use super::{deploy, run};

const STRATEGY: &str = "batch = [1, 2]\nmonitor = \"100ms\"\napprove_after = [2]";

fn json(farm: &Farm, args: &[&str], code: i32) -> Value {
    let output = farm.run(&[args, &["-o", "json", "-q"]].concat()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", super::text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_it_learned_and_what_is_different() {
    let farm = Farm::start(3).unwrap();
    let app = App { strategy: STRATEGY, ..App::default() };
    let manifest = farm.write_app(app).unwrap();
    let file = manifest.to_str().unwrap();
    let first = ["plan", "-f", file, "--version", "1.0.0", "--env", ENV];
    let plan = json(&farm, &first, 0);
    assert_eq!(plan["eta"]["at_least"], true, "{plan}");
    assert_eq!(plan["eta"]["ms"], 200, "two batches are watched: {plan}");
    assert_eq!(plan["files"], Value::Null, "nothing is there to compare with: {plan}");
    deploy(&farm, "1.0.0", app, 0);

    let text = fs::read_to_string(&manifest).unwrap();
    let text = text
        .replace("batch = [1, 2]", "batch = 1")
        .replace("port = \"auto\"", "port = \"auto\"\nenv = { KEY = \"topsecret\" }");
    fs::write(&manifest, text).unwrap();
    fs::write(farm.path("app/dist/more"), "a new file").unwrap();
    let args = ["plan", "-f", file, "--version", "1.1.0", "--env", ENV];
    let plan = json(&farm, &args, 0);
    assert_eq!(plan["batches"].as_array().unwrap().len(), 3, "{plan}");
    let steps = plan["steps"].as_array().unwrap();
    assert!(steps.iter().all(|step| step["in_traffic"] == 2 && step["out"] == 1), "{plan}");
    assert_eq!(plan["approvals"], serde_json::json!([2]));
    assert_eq!((&plan["eta"]["rollouts"], &plan["eta"]["at_least"]), (&1.into(), &false.into()));
    let changes = plan["changes"].as_array().unwrap();
    let keys: Vec<&Value> = changes.iter().map(|change| &change["key"]).collect();
    assert_eq!(keys, ["run.env.KEY", "strategy.batch"], "{plan}");
    assert!(!plan.to_string().contains("topsecret"), "{plan}");
    assert_eq!(plan["files"]["changed"][0]["path"], "more", "{plan}");
    assert_eq!(plan["files"]["total"], 1, "{plan}");
    let said = run(&farm, &args, 0);
    for part in [
        "as the last rollout here went",
        "after batch 2 it waits for `rota rollout promote`",
        "strategy.batch  [1, 2] -> 1",
        "+ more",
    ] {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");

    // Pushed, not rolled out: planned by its name; and the way back to nowhere is refused.
    run(&farm, &["release", "push", "-f", file, "--version", "1.1.0"], 0);
    let pushed = json(&farm, &["plan", "shop", "--release", "1.1.0", "--env", ENV], 0);
    assert_eq!(pushed["batches"], plan["batches"]);
    assert_eq!(pushed["files"], plan["files"]);
    let said = run(&farm, &["plan", "shop", "--undo", "--env", ENV], 1);
    assert!(said.contains("no earlier release"), "{said}");
    let said = run(&farm, &["plan", "shop", "--env", ENV], 2);
    assert!(said.contains("--release V"), "{said}");
}

#[test]
fn every_refusal_of_the_plan_is_the_deploys() {
    let farm = Farm::start(2).unwrap();
    let strategy = "batch = 1\nmonitor = \"0s\"";
    deploy(&farm, "1.0.0", App { strategy, ..App::default() }, 0);
    run(&farm, &["env", "freeze", ENV, "-m", "sale"], 0);
    let strategy = format!("{strategy}\n[env.prod.target]\nroles = [\"nobody\"]");
    let manifest = farm.write_app(App { strategy: &strategy, ..App::default() }).unwrap();
    let args = ["-f", manifest.to_str().unwrap(), "--version", "1.1.0", "--env", ENV];
    let plan = json(&farm, &[&["plan"][..], &args].concat(), 1);
    let refusals = plan["refusals"].as_array().unwrap();
    assert!(refusals.len() >= 2, "{plan}");
    let said = run(&farm, &[&["deploy"][..], &args].concat(), 1);
    for refusal in refusals {
        assert!(said.contains(refusal.as_str().unwrap()), "{refusal} is not in: {said}");
    }
    let output = farm.run(&[&["plan"][..], &args, &["-o", "json"]].concat()).unwrap();
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "refused", "{error}");
    assert!(!error["error"]["hint"].as_str().unwrap().is_empty(), "{error}");
}
