//! What is gone is not counted as if it were there: removed nodes, dead hosts, members that nobody is any more. And a
//! removed node is let in again by a new token, with all that it had.

use std::path::Path;
use std::process::Command;

use rota_tests::farm::{App, ENV, Farm};
use rota_tests::processes::Process;

use super::{deploy, run};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

fn start(farm: &Farm, token: &str) -> Process {
    let mut command = Command::new(&farm.programs.agent);
    command.args(["run", "--name", "web-02", "--env", ENV, "--role", "web", "--token", token]);
    command.args(["--controller", farm.controller.told("grpc").unwrap(), "--data"]);
    command.arg(farm.path("web-02"));
    Process::start(command, &farm.path("web-02.log")).unwrap()
}

#[test]
fn a_removed_node_is_revoked_until_it_joins_again() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    run(&farm, &["node", "rm", "web-02", "--yes", "--force"], 0);
    let is_revoked = |nodes: &serde_json::Value| nodes[1]["state"] == "revoked";
    let nodes = farm.wait("/api/v1/nodes", is_revoked).unwrap();
    assert_eq!(nodes[1]["apps"].as_array().unwrap().len(), 0, "{nodes}");
    assert!(run(&farm, &["node", "ls", "-o", "json"], 0).contains("revoked"));
    assert!(!run(&farm, &["node", "ls"], 0).contains("web-02"));
    assert!(run(&farm, &["node", "ls", "--all"], 0).contains("revoked"));
    let metrics = farm.read("/metrics").unwrap();
    assert!(metrics.contains("state=\"revoked\"} 1"), "{metrics}");
    let status: serde_json::Value =
        serde_json::from_str(&run(&farm, &["status", "-o", "json"], 0)).unwrap();
    assert_eq!(status["fleets"][0]["targets"], 1, "{status}");
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    farm.wait("/api/v1/nodes", is_revoked).unwrap();
    farm.nodes[1].kill().unwrap();
    let token = run(&farm, &["token", "create", "--for", "agent", "--name", "web-02", "-q"], 0);
    farm.nodes[1] = start(&farm, token.trim());
    let serves = |nodes: &serde_json::Value| {
        nodes[1]["state"] == "ready" && nodes[1]["apps"][0]["traffic"] == "in"
    };
    farm.wait("/api/v1/nodes", serves).unwrap();
    deploy(&farm, "1.1.0", FAST, 0);
}

/// Ends every process that works in this folder.
fn end_all(folder: &Path) {
    let script = "for p in /proc/[0-9]*; do case $(readlink $p/cwd) in \"$0\"/*) \
                  kill -KILL ${p#/proc/};; esac; done";
    Command::new("sh").args(["-c", script]).arg(folder).status().unwrap();
}

#[test]
fn a_dead_host_is_not_in_traffic() {
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    farm.nodes[1].kill().unwrap();
    end_all(&farm.path("web-02"));
    let status = farm.wait("/api/v1/status", |status| status["fleets"][0]["in_traffic"] == 2);
    assert_eq!(status.unwrap()["fleets"][0]["targets"], 3);
    let nodes = farm.wait("/api/v1/nodes", |nodes| nodes[1]["state"] == "offline").unwrap();
    assert_eq!(nodes[1]["apps"][0]["traffic"], "out", "{nodes}");
}

#[test]
fn no_member_stays_that_nobody_is() {
    let farm = Farm::start(2).unwrap();
    let beside = "batch = 1\nmonitor = \"0s\"\norder = \"start-first\"";
    let orders = [FAST.strategy, beside, FAST.strategy, FAST.strategy, beside, beside];
    for (minor, strategy) in orders.into_iter().enumerate() {
        deploy(&farm, &format!("1.{minor}.0"), App { strategy, ..FAST }, 0);
        let pools = farm.wait("/api/v1/pools", |pools| {
            let members = pools[0]["members"].as_array().map(Vec::as_slice).unwrap_or_default();
            members.len() == 2 && members.iter().all(|member| member["state"] == "in")
        });
        assert!(pools.is_ok(), "{minor}: {pools:?}");
    }
}
