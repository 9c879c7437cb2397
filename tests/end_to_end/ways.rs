//! Who moves a node in and out of traffic beside one edge that always answers.

use std::process::Command;

use rota_tests::farm::{App, ENV, Farm, count};
use rota_tests::load::Load;
use rota_tests::processes::Process;

use super::{CLIENTS, deploy, run, versions};

/// A second edge of the pool, with a proxy of its own.
fn second_edge(farm: &Farm) -> Process {
    let token = run(farm, &["token", "create", "--for", "edge"], 0);
    let mut command = Command::new(&farm.programs.agent);
    command.args(["run", "--name", "lb-02", "--env", ENV, "--edge", "shop=proxy@127.0.0.1:0"]);
    command.args(["--traffic-listen", "127.0.0.1:0", "--token", token.trim(), "--controller"]);
    command.arg(farm.controller.told("grpc").unwrap()).arg("--data").arg(farm.path("lb-02"));
    let edge = Process::start(command, &farm.path("lb-02.log")).unwrap();
    farm.wait("/api/v1/edges", |list| count(list, "state", "ready") == 2).unwrap();
    edge
}

/// Two edges, one is killed: with `edges = "reachable"` the rollout goes on, loses nothing at the other one, and says
/// whom it did not ask.
#[test]
fn an_edge_that_is_down_holds_nothing_where_reachable_ones_are_enough() {
    let farm = Farm::start(2).unwrap();
    let mut second = second_edge(&farm);
    let app = App {
        strategy: "batch = 1\nmonitor = \"0s\"",
        traffic: "edges = \"reachable\"",
        ..App::default()
    };
    deploy(&farm, "1.0.0", app, 0);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["evidence"]["unasked_edges"].as_array().map(Vec::len), Some(0), "{view}");
    second.kill().unwrap();
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let said = deploy(&farm, "1.1.0", app, 0);
    assert!(said.contains("lb-02 was not reachable: not asked"), "{said}");
    assert_eq!(versions(&farm, "1.1.0"), 2);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["evidence"]["unasked_edges"][0], "lb-02", "{view}");
    let events = run(&farm, &["events", "--app", "shop", "--env", ENV], 0);
    assert!(events.contains("lb-02: not reachable, not asked"), "{events}");
}
