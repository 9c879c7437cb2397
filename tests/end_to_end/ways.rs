//! Who moves a node in and out of traffic beside one edge that always answers.

use std::process::Command;

use rota_tests::farm::{App, ENV, Farm, count};
use rota_tests::load::Load;
use rota_tests::processes::Process;

use super::{CLIENTS, deploy, run, versions};

/// A second edge of the pool, with a proxy of its own.
fn second_edge(farm: &Farm) -> Process {
    let said = run(farm, &["token", "create", "--for", "edge"], 0);
    let token = said.split_whitespace().next().unwrap();
    let mut command = Command::new(&farm.programs.agent);
    command.args(["run", "--name", "lb-02", "--env", ENV, "--edge", "shop=proxy@127.0.0.1:0"]);
    command.args(["--traffic-listen", "127.0.0.1:0", "--token", token, "--controller"]);
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

/// A script that moves nodes by files, as an operator's would by a load balancer's API: it notes each call, and says
/// for its first two questions that something is in flight.
fn balancer_script(farm: &Farm) -> std::path::PathBuf {
    let path = farm.path("lb.sh");
    let text = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
echo "$1 $2" >> lb.calls
case $1 in
    out) touch "out.$2"; echo 2 > "left.$2" ;;
    in) rm -f "out.$2" ;;
    in-flight) n=$(cat "left.$2"); [ "$n" = 0 ] || echo $((n - 1)) > "left.$2"; echo "$n" ;;
esac
[ ! -e "broken.$1" ] || { echo "the API says no"; exit 3; }
"#;
    std::fs::write(&path, text).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, executable).unwrap();
    path
}

#[test]
fn the_operators_own_scripts_move_nodes() {
    let farm = Farm::start(2).unwrap();
    let script = balancer_script(&farm);
    let script = script.to_str().unwrap();
    let line = |key: &str, verb: &str| format!("{key} = [{script:?}, {verb:?}, \"{{node}}\"]\n");
    let scripts = ["via = \"command\"\n".to_owned(), line("leave", "out"), line("join", "in")];
    let traffic = scripts.concat() + &line("in_flight", "in-flight");
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"", traffic: &traffic, ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let calls = || std::fs::read_to_string(farm.path("lb.calls")).unwrap();
    assert_eq!(calls(), "in web-01\nin web-02\n", "nobody leaves who is not there");
    deploy(&farm, "1.1.0", app, 0);
    let of = |node: &str| {
        let calls = calls();
        let mine = calls.lines().filter_map(|call| call.strip_suffix(node)?.strip_suffix(' '));
        mine.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of("web-01"), ["in", "out", "in-flight", "in-flight", "in-flight", "in"]);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["nodes"][0]["in_flight_at_drain"], 2, "{view}");
    assert_eq!(view["evidence"]["cut"], 0, "{view}");

    // A node that cannot leave is not stopped; it joins again, and the error has what the script said.
    std::fs::write(farm.path("broken.out"), "").unwrap();
    let said = deploy(&farm, "1.2.0", app, 3);
    assert!(said.contains("traffic.leave"), "{said}");
    let status = run(&farm, &["rollout", "status", "shop/prod"], 0);
    assert!(status.contains("the API says no"), "{status}");
    assert_eq!(versions(&farm, "1.1.0"), 2);
    assert_eq!(of("web-01").last().unwrap(), "in", "it is back");
}
