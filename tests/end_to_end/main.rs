//! The whole, with real processes on loopback: controller, edge with its proxy, nodes, apps, load.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by its panic")]

mod balancers;
mod calendar;
mod coming_from;
mod completions;
mod crashes;
mod endpoint;
mod evidence;
mod failures;
mod joining;
mod leftovers;
mod messages;
mod moved;
mod neighbours;
mod nodes;
mod once;
mod operators;
mod plan;
mod restored;
mod retention;
mod run;
mod security;
mod several;
mod slips;
mod steering;
mod strategies;
mod traffic;
mod transcript;
mod way_back;
mod ways;

use std::process::Output;

use rota_tests::farm::{App, ENV, Farm};
use serde_json::Value;

/// Clients in every test under load.
const CLIENTS: usize = 8;

/// Everything that a command said.
fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Runs a command and asserts its exit code; gives back everything that it said.
fn run(farm: &Farm, args: &[&str], code: i32) -> String {
    let output = farm.run(args).unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    said
}

/// Deploys and asserts the exit code; gives back everything that was said.
fn deploy(farm: &Farm, version: &str, app: App<'_>, code: i32) -> String {
    let manifest = farm.write_app(app).unwrap();
    let manifest = manifest.to_str().unwrap();
    let args = ["deploy", "-f", manifest, "--version", version, "--env", ENV, "-m", "test"];
    run(farm, &args, code)
}

/// Begins a rollout and does not wait for it.
fn begin(farm: &Farm, version: &str, app: App<'_>) {
    let manifest = farm.write_app(app).unwrap();
    let manifest = manifest.to_str().unwrap();
    run(farm, &["deploy", "-f", manifest, "--version", version, "--env", ENV, "--detach"], 0);
}

/// How many nodes run this version.
fn versions(farm: &Farm, version: &str) -> usize {
    running(&farm.wait("/api/v1/nodes", Value::is_array).unwrap(), version)
}

/// Waits until so many nodes say that they run this version: an agent that was killed says it when it is back.
fn all_run(farm: &Farm, version: &str, nodes: usize) {
    farm.wait("/api/v1/nodes", |list| running(list, version) == nodes).unwrap();
}

fn running(nodes: &Value, version: &str) -> usize {
    let all = nodes.as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|node| node["apps"][0]["release"] == version).count()
}
