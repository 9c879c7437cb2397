//! Nodes that operators take out, remove and label; nodes that are new, made anew, or run something else.

use std::fs;
use std::process::Command;

use rota_tests::farm::{App, ENV, Farm, count};
use rota_tests::processes::Process;
use serde_json::Value;

use super::{all_run, begin, deploy, run};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// Starts the agent of a node that is not one of the farm's first ones, or has lost everything.
fn fresh_node(farm: &Farm, name: &str) -> Process {
    let token = ["token", "create", "--for", "agent", "--name", name, "-q"];
    let token = run(farm, &token, 0);
    let mut command = Command::new(&farm.programs.agent);
    command.args(["run", "--name", name, "--env", ENV, "--role", "web", "--controller"]);
    command.arg(farm.controller.told("grpc").unwrap());
    command.args(["--token", token.trim(), "--data"]).arg(farm.path(name));
    Process::start(command, &farm.path(&format!("{name}.log"))).unwrap()
}

fn serves(version: &'static str) -> impl Fn(&Value) -> bool {
    move |node| node["apps"][0]["release"] == version && node["apps"][0]["traffic"] == "in"
}

fn json(farm: &Farm, args: &[&str]) -> Value {
    serde_json::from_str(&run(farm, &[args, &["-o", "json", "-q"]].concat(), 0)).unwrap()
}

/// Puts the release before back, on the node itself.
fn back_on_the_node(farm: &Farm, name: &str) {
    let mut back = Command::new(&farm.programs.agent);
    let back = back.args(["rollback", "shop", "--data"]).arg(farm.path(name)).output().unwrap();
    assert!(back.status.success(), "{back:?}");
}

#[test]
fn drains_keep_what_the_strategy_promises() {
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let view = json(&farm, &["node", "drain", "web-01", "--wait", "-m", "kernel"]);
    assert!(view["out"] == true && view["apps"][0]["in_flight"] == 0, "{view}");
    let refused = run(&farm, &["node", "drain", "web-02"], 1);
    for told in ["shop: 1 of 3 nodes is out", "web-01 is drained", "allows 1", "--wait", "--force"]
    {
        assert!(refused.contains(told), "{told:?} is not in: {refused}");
    }
    let late = run(&farm, &["node", "drain", "web-02", "--wait", "--timeout", "500ms"], 3);
    assert!(late.contains("may not be drained yet") && late.contains("within 500ms"), "{late}");
    // Whoever restarts, it stays out.
    farm.nodes[0].kill().unwrap();
    farm.nodes[0] = farm.start_node(1).unwrap();
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    farm.wait("/api/v1/edges", |edges| edges[0]["state"] == "ready").unwrap();
    farm.wait("/api/v1/nodes/web-01", |node| {
        node["state"] == "drained" && node["apps"][0]["traffic"] == "out"
    })
    .unwrap();
    run(&farm, &["node", "drain", "web-02", "--force", "-m", "it burns", "--wait"], 0);
    let refused = run(&farm, &["node", "drain", "web-03", "-o", "json"], 1);
    assert!(refused.contains("the last one that serves"), "{refused}");
    let refused = run(&farm, &["node", "rm", "web-03", "--yes"], 1);
    assert!(refused.contains("cannot be removed now"), "{refused}");
    assert!(run(&farm, &["audit"], 0).contains("node drain --force"));
    for node in ["web-01", "web-02"] {
        run(&farm, &["node", "undrain", node, "--wait"], 0);
        let view = farm.wait(&format!("/api/v1/nodes/{node}"), Value::is_object).unwrap();
        assert!(serves("1.0.0")(&view), "{view}");
    }
    run(&farm, &["node", "rm", "web-03", "--yes"], 0);
}

#[test]
fn drains_and_rollouts_count_each_other() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    run(&farm, &["node", "drain", "web-03"], 0);
    // One is out, and one may be: the rollout waits, and goes on when it is back.
    begin(
        &farm,
        "1.1.0",
        App { strategy: "batch = 1\nmonitor = \"0s\"\nmax_unavailable = 1", ..FAST },
    );
    let view = farm.rollout(|view| view["hold"]["kind"] == "capacity").unwrap();
    assert!(view["hold"]["text"].as_str().unwrap().contains("web-03"), "{view}");
    run(&farm, &["node", "label", "web-02", "tier=front"], 0);
    run(&farm, &["node", "undrain", "web-03", "--wait"], 0);
    farm.rollout(|view| view["state"] == "completed").unwrap();
    all_run(&farm, "1.1.0", 3);
}

#[test]
fn nodes_that_are_new_or_made_anew_get_what_is_current() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let new = fresh_node(&farm, "web-03");
    farm.nodes.push(new);
    farm.wait("/api/v1/nodes/web-03", serves("1.0.0")).unwrap();
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(
        (&view["message"], &view["who"]),
        (&"catches up: web-03".into(), &"rota".into()),
        "{view}"
    );
    farm.nodes[1].kill().unwrap();
    fs::remove_dir_all(farm.path("web-02")).unwrap();
    farm.nodes[1] = fresh_node(&farm, "web-02");
    let anew =
        |view: &Value| view["message"] == "catches up: web-02" && view["state"] == "completed";
    farm.rollout(anew).unwrap();
    farm.wait("/api/v1/nodes/web-02", serves("1.0.0")).unwrap();
    assert_eq!(json(&farm, &["status"])["drift"], Value::Array(Vec::new()));
}

/// In which batch of a rollout a node is.
fn batch_of(view: &Value, node: &str) -> Option<u64> {
    let batches = view["batches"].as_array()?;
    let has = |batch: &&Value| batch["nodes"].as_array().unwrap().contains(&node.into());
    batches.iter().find(has)?["index"].as_u64()
}

#[test]
fn nodes_that_come_while_a_rollout_runs_join_it() {
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let looked_at = "batch = 1\nmonitor = \"0s\"\napprove_after = [1, 2]";
    let looked_at = App { strategy: looked_at, ..FAST };
    let held_after = |batch: u64| {
        move |view: &Value| {
            let text = view["hold"]["text"].as_str().unwrap_or_default();
            text.starts_with(&format!("batch {batch} of 3 is done"))
        }
    };
    let pending = |name: &'static str| {
        move |view: &Value| {
            let node = view["nodes"].as_array().into_iter().flatten().find(|n| n["name"] == name);
            node.is_some_and(|node| node["state"] == "pending")
        }
    };
    begin(&farm, "1.1.0", looked_at);
    farm.rollout(held_after(1)).unwrap();
    let new = fresh_node(&farm, "web-04");
    farm.nodes.push(new);
    let view = farm.rollout(pending("web-04")).unwrap();
    assert_eq!((batch_of(&view, "web-04"), &view["revision"]), (Some(2), &2.into()), "{view}");
    assert_eq!((&view["state"], &view["evidence"]["targets"]), (&"held".into(), &4.into()));
    run(&farm, &["rollout", "promote", "shop/prod"], 0);
    farm.rollout(held_after(2)).unwrap();
    farm.wait("/api/v1/nodes/web-04", serves("1.1.0")).unwrap();
    // It goes back to what it would have had, which it never ran.
    run(&farm, &["rollout", "rollback", "shop/prod", "--yes"], 0);
    farm.rollout(|view| view["state"] == "rolled_back").unwrap();
    all_run(&farm, "1.0.0", 4);
    // One that lost everything gets it again, from the same rollout.
    begin(&farm, "1.2.0", looked_at);
    let of_four = |view: &Value| {
        view["hold"]["text"].as_str().unwrap_or_default().starts_with("batch 1 of 4 is done")
    };
    farm.rollout(of_four).unwrap();
    farm.nodes[0].kill().unwrap();
    fs::remove_dir_all(farm.path("web-01")).unwrap();
    farm.nodes[0] = fresh_node(&farm, "web-01");
    farm.rollout(pending("web-01")).unwrap();
    for batch in [1, 2] {
        farm.rollout(move |view| {
            let text = view["hold"]["text"].as_str().unwrap_or_default();
            text.starts_with(&format!("batch {batch} of 4 is done"))
        })
        .unwrap();
        run(&farm, &["rollout", "promote", "shop/prod"], 0);
    }
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!((&view["revision"], &view["on_release"]), (&3.into(), &4.into()), "{view}");
    all_run(&farm, "1.2.0", 4);
}

#[test]
fn drift_is_shown_and_mended_when_asked_or_by_itself() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    deploy(&farm, "1.1.0", FAST, 0);
    back_on_the_node(&farm, "web-02");
    let drifted = |status: &Value| status["drift"][0]["node"] == "web-02";
    let status = farm.wait("/api/v1/status", drifted).unwrap();
    let drift = &status["drift"][0];
    assert!(drift["runs"] == "1.0.0" && drift["should"] == "1.1.0", "{drift}");
    let screen = run(&farm, &["status"], 0);
    assert!(screen.contains("rota node converge web-02"), "{screen}");
    run(&farm, &["node", "converge", "web-09"], 1);
    run(&farm, &["node", "converge", "web-02", "-m", "as it was"], 0);
    all_run(&farm, "1.1.0", 3);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert!(view["message"] == "as it was" && view["nodes"][0]["state"] == "skipped", "{view}");
    let said = run(&farm, &["node", "converge"], 0);
    assert!(said.contains("nothing to do"), "{said}");
    // And by itself, where the release says so.
    let strategy = "batch = 1\nmonitor = \"0s\"\ncatch_up = true";
    deploy(&farm, "1.2.0", App { strategy, ..FAST }, 0);
    back_on_the_node(&farm, "web-01");
    let mended =
        |view: &Value| view["message"] == "catches up: web-01" && view["state"] == "completed";
    farm.rollout(mended).unwrap();
    all_run(&farm, "1.2.0", 3);
}

/// An abort leaves a node on a release that forbids going back: nobody takes it back in silence.
#[test]
fn what_an_abort_left_on_a_newer_release_is_fenced() {
    let mut farm = Farm::start(2).unwrap();
    let caught_up = "batch = 1\nmonitor = \"0s\"\ncatch_up = true";
    deploy(&farm, "1.0.0", App { strategy: caught_up, ..FAST }, 0);
    let fence = "batch = 1\nmonitor = \"0s\"\napprove_after = [1]\n\
                 [compatibility]\nrollback_to = \">=2.0.0\"";
    let manifest = farm.write_app(App { strategy: fence, ..FAST }).unwrap();
    let two = ["deploy", "-f", manifest.to_str().unwrap(), "--version", "2.0.0", "--env", ENV];
    let broken = ["--break-fence", "-m", "a copy was made", "--detach"];
    run(&farm, &[&two[..], &broken].concat(), 0);
    farm.rollout(|view| view["hold"]["kind"] == "approval").unwrap();
    run(&farm, &["rollout", "abort", "shop/prod", "--yes"], 0);
    farm.rollout(|view| view["state"] == "aborted").unwrap();
    let forbids = "2.0.0 forbids going back to 1.0.0: its rollback_to = \">=2.0.0\"";
    let refused = run(&farm, &["node", "converge", "web-01"], 1);
    for told in [forbids, "it runs on web-01", "--break-fence"] {
        assert!(refused.contains(told), "{told:?} is not in: {refused}");
    }
    run(&farm, &["node", "converge", "web-01", "--break-fence"], 2);
    // What catches up by itself leaves it alone.
    let new = fresh_node(&farm, "web-03");
    farm.nodes.push(new);
    farm.wait("/api/v1/nodes/web-03", serves("1.0.0")).unwrap();
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["message"], "catches up: web-03", "{view}");
    let drifted = |status: &Value| status["drift"][0]["node"] == "web-01";
    farm.wait("/api/v1/status", drifted).unwrap();
    run(&farm, &["node", "converge", "web-01", "--break-fence", "-m", "it is back"], 0);
    all_run(&farm, "1.0.0", 3);
    assert!(run(&farm, &["audit"], 0).contains("node converge --break-fence"));
}

#[test]
fn a_catch_up_that_fails_is_shown_and_in_nobodys_way() {
    let mut farm = Farm::start(2).unwrap();
    let picky = "batch = 1\nmonitor = \"0s\"\n[[smoke]]\nname = \"picky\"\n\
                 command = [\"sh\", \"-c\", \"test {node} != web-03\"]";
    deploy(&farm, "1.0.0", App { strategy: picky, ..FAST }, 0);
    let new = fresh_node(&farm, "web-03");
    farm.nodes.push(new);
    let view =
        farm.rollout(|view| view["who"] == "rota" && !view["finished_at"].is_null()).unwrap();
    assert_eq!((&view["state"], &view["revision"]), (&"failed".into(), &2.into()), "{view}");
    let left = |status: &Value| status["drift"][0]["left_by"] == "shop/prod/2";
    farm.wait("/api/v1/status", left).unwrap();
    assert!(run(&farm, &["status"], 0).contains("left so by shop/prod/2"));
    run(&farm, &["node", "converge", "web-03"], 3);
    run(&farm, &["rollout", "abort", "shop/prod", "--yes"], 0);
    // It is not tried for ever: the next rollout is the operator's.
    deploy(&farm, "1.1.0", FAST, 0);
    assert_eq!(farm.rollout(|_| true).unwrap()["revision"], 4);
    all_run(&farm, "1.1.0", 3);
}

/// The event log tells what happened to nodes; that the controller was away is nothing that happened to them.
#[test]
fn a_controllers_restart_is_no_news_of_nodes() {
    let mut farm = Farm::start(2).unwrap();
    let lines = |farm: &Farm, what: &str| {
        let events = farm.read("/api/v1/events").unwrap();
        events.matches(what).count()
    };
    assert_eq!(lines(&farm, "joined the fleet"), 3);
    farm.controller.terminate().unwrap();
    farm.restart_controller().unwrap();
    farm.wait("/api/v1/nodes", |list| count(list, "state", "ready") == 2).unwrap();
    let sessions = |farm: &Farm| farm.read("/metrics").unwrap_or_default();
    while !sessions(&farm).contains("rota_session_count 3\n") {
        std::thread::yield_now();
    }
    assert_eq!(lines(&farm, "is here again"), 0);
    farm.nodes[0].kill().unwrap();
    farm.nodes[0] = farm.start_node(1).unwrap();
    farm.wait("/api/v1/events", |_| lines(&farm, "node web-01 is here again") == 1).unwrap();
    // Who was away before is here again, too.
    farm.nodes[1].kill().unwrap();
    farm.wait("/api/v1/events", |_| lines(&farm, "node web-02 went silent: offline") == 1).unwrap();
    farm.controller.terminate().unwrap();
    farm.restart_controller().unwrap();
    farm.nodes[1] = farm.start_node(2).unwrap();
    farm.wait("/api/v1/events", |_| lines(&farm, "node web-02 is here again") == 1).unwrap();
    assert_eq!(lines(&farm, "is here again"), 2);
}
