//! One-off commands on the nodes: what they print, how they fail, and that nobody runs them twice.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use rota_tests::farm::{App, ENV, Farm};
use serde_json::Value;

use super::{deploy, run, text};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// Runs a command on the nodes and asserts the exit code; the JSON, and what was said aside.
fn ran(farm: &Farm, options: &[&str], script: &str, code: i32) -> (Value, String) {
    let mut args = vec!["run", "shop", "--env", ENV, "-o", "json"];
    args.extend(options);
    args.extend(["--", "sh", "-c", script]);
    let output = farm.run(&args).unwrap();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), said)
}

/// Begins one and comes back at once.
fn begin(farm: &Farm, script: &str) {
    let args = ["run", "shop", "--env", ENV, "--detach", "--batch", "1", "--", "sh", "-c", script];
    run(farm, &args, 0);
}

/// Follows one, on two nodes at once; what it prints.
fn follow(farm: &Farm, script: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut command = farm.rota();
    command.args(["run", "shop", "--env", ENV, "--batch", "2", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let printed = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, printed)
}

/// So many lines, as they come, in the order of the nodes.
fn next(printed: &mut Lines<BufReader<ChildStdout>>, count: usize) -> Vec<String> {
    let mut lines: Vec<String> = printed.take(count).map(Result::unwrap).collect();
    lines.sort();
    lines
}

fn lines(farm: &Farm, file: &str) -> usize {
    fs::read_to_string(farm.path(file)).unwrap_or_default().lines().count()
}

/// A script that says in a file that it begins, and ends when another file is there.
fn waits(farm: &Farm) -> String {
    let (begun, go) = (farm.path("begun"), farm.path("go"));
    format!(
        "echo $ROTA_NODE >> {}; until [ -e {} ]; do sleep 0.02; done; echo went on",
        begun.display(),
        go.display()
    )
}

#[test]
fn it_runs_beside_the_app_on_every_node_and_moves_nothing() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let args = ["run", "shop", "--env", ENV, "--", "sh", "-c", "echo {version} on $ROTA_NODE; pwd"];
    let printed = run(&farm, &args, 0);
    for part in ["web-01 | 1.0.0 on web-01", "web-03 | 1.0.0 on web-03", "releases/1.0.0-"] {
        assert!(printed.contains(part), "{part:?} is not in: {printed}");
    }
    assert!(printed.contains("completed: 3 of 3 nodes ran the command on 1.0.0"), "{printed}");
    let (nodes, _) = ran(&farm, &["--on", "web-02"], "echo only here >&2", 0);
    assert_eq!(nodes.as_array().unwrap().len(), 1, "{nodes}");
    assert_eq!(nodes[0]["node"], "web-02");
    assert_eq!((&nodes[0]["exit_code"], &nodes[0]["output"]), (&0.into(), &"only here\n".into()));
    assert!(nodes[0]["took_ms"].is_u64(), "{nodes}");
    let view = farm.rollout(|view| !view["finished_at"].is_null()).unwrap();
    assert_eq!((&view["kind"], &view["state"]), (&"run".into(), &"completed".into()), "{view}");
    assert_eq!(view["nodes"][0]["out_of_traffic_ms"], 0, "{view}");
    let history = run(&farm, &["rollout", "history", "shop", "--env", ENV], 0);
    assert!(history.contains("run: sh -c 'echo only here >&2'"), "{history}");
    let audit = run(&farm, &["audit"], 0);
    assert!(audit.contains("shop/prod sh -c 'echo only here >&2'"), "{audit}");
    deploy(&farm, "1.1.0", FAST, 0);
    run(&farm, &["rollout", "undo", "shop", "--env", ENV, "--to-revision", "1"], 0);
    let refused = run(&farm, &["rollout", "undo", "shop", "--env", ENV, "--to-revision", "2"], 1);
    assert!(refused.contains("never became current"), "{refused}");
}

#[test]
fn one_that_fails_goes_no_further() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let script = "echo on $ROTA_NODE; [ $ROTA_NODE != web-01 ] || exit 7";
    let (nodes, said) = ran(&farm, &["--batch", "1"], script, 3);
    assert_eq!((&nodes[0]["state"], &nodes[0]["exit_code"]), (&"failed".into(), &7.into()));
    assert_eq!(nodes[0]["output"], "on web-01\n");
    assert_eq!((&nodes[1]["state"], &nodes[1]["exit_code"]), (&"pending".into(), &Value::Null));
    assert!(said.contains("exit code 7") && said.contains("not reached"), "{said}");
    let (nodes, _) = ran(&farm, &["--batch", "1", "--max-failures", "1"], script, 3);
    assert_eq!((&nodes[1]["state"], &nodes[2]["state"]), (&"done".into(), &"done".into()));
    let (nodes, _) = ran(&farm, &["--timeout", "2s"], "echo begins; sleep 60", 3);
    assert_eq!((&nodes[0]["exit_code"], &nodes[0]["output"]), (&Value::Null, &"begins\n".into()));
    assert!(nodes[0]["error"].as_str().unwrap().contains("did not end within 2s"), "{nodes}");
    deploy(&farm, "1.1.0", FAST, 0); // a run that failed is in nobody's way
}

#[test]
fn wrong_ones_are_refused_and_nothing_is_run() {
    let mut farm = Farm::start(2).unwrap();
    let told = |args: &[&str], code, part: &str| {
        let said = run(&farm, args, code);
        assert!(said.contains(part), "{part:?} is not in: {said}");
    };
    told(&["run", "shop", "--env", ENV, "--", "true"], 1, "nothing of shop is current in prod");
    deploy(&farm, "1.0.0", FAST, 0);
    told(&["run", "shop", "--env", ENV], 2, "CMD");
    told(&["run", "shop", "--env", ENV, "--batch", "0", "--", "true"], 2, "--batch 0");
    told(&["run", "shop", "--env", ENV, "--on", "web-9", "--", "true"], 1, "no node web-9");
    let token = ["token", "create", "--for", "operator", "--role", "viewer", "-q"];
    let token = String::from_utf8(farm.run(&token).unwrap().stdout).unwrap();
    let address = farm.controller.told("grpc").unwrap();
    let as_vera = |args: &[&str]| {
        let mut command = farm.rota();
        command.env("XDG_CONFIG_HOME", farm.path("vera")).env("ROTA_CONTEXT", "vera");
        command.args(args).output().unwrap()
    };
    let login = as_vera(&["login", address, "--token", token.trim(), "--context", "vera"]);
    assert!(login.status.success(), "{}", text(&login));
    let refused = as_vera(&["run", "shop", "--env", ENV, "--", "true"]);
    assert_eq!(refused.status.code(), Some(6), "{}", text(&refused));
    assert!(text(&refused).contains("deployer"), "{}", text(&refused));
    run(&farm, &["env", "freeze", ENV, "-m", "a holiday"], 0);
    told(&["run", "shop", "--env", ENV, "--", "true"], 1, "a holiday");
    run(&farm, &["env", "unfreeze", ENV], 0);
    farm.nodes[1].kill().unwrap();
    farm.wait("/api/v1/nodes/web-02", |node| node["state"] == "offline").unwrap();
    let (nodes, _) = ran(&farm, &[], "true", 0);
    assert_eq!((&nodes[1]["state"], &nodes[1]["error"]), (&"skipped".into(), &"offline".into()));
}

#[test]
fn an_agent_that_is_killed_amid_a_command_says_that_nobody_knows() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let (mut child, mut printed) = follow(&farm, &format!("echo here; {}", waits(&farm)));
    assert_eq!(next(&mut printed, 2), ["web-01 | here", "web-02 | here"]);
    farm.nodes[0].kill().unwrap();
    fs::write(farm.path("go"), "").unwrap();
    farm.nodes[0] = farm.start_node(1).unwrap();
    let view = farm.rollout(|view| !view["finished_at"].is_null()).unwrap();
    assert_eq!(view["state"], "partial", "{view}");
    let error = view["nodes"][0]["error"].as_str().unwrap();
    assert!(error.contains("whether it took effect is not known"), "{error}");
    assert_eq!(lines(&farm, "begun"), 2, "it is not tried again by itself");
    let rest: Vec<String> = printed.map(Result::unwrap).collect();
    assert_eq!(rest, ["web-02 | went on"], "each line once");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let traces = farm.wait("/api/v1/rollouts/shop/prod/2/traces", Value::is_array).unwrap();
    assert_eq!(traces[0]["outputs"][0]["output"], "here\n", "what was heard is kept: {traces}");
}

/// Lines come as they are printed, also over the loss of the controller, and each of them once.
#[test]
fn what_it_prints_is_shown_while_it_runs() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let (more, go) = (farm.path("more"), farm.path("go"));
    let until =
        |file: &std::path::Path| format!("until [ -e {} ]; do sleep 0.02; done", file.display());
    let script = format!("echo begins; {}; echo goes on; {}; echo ends", until(&more), until(&go));
    let (mut child, mut printed) = follow(&farm, &script);
    assert_eq!(next(&mut printed, 2), ["web-01 | begins", "web-02 | begins"]);
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    fs::write(&more, "").unwrap();
    assert_eq!(next(&mut printed, 2), ["web-01 | goes on", "web-02 | goes on"]);
    fs::write(&go, "").unwrap();
    assert_eq!(next(&mut printed, 2), ["web-01 | ends", "web-02 | ends"]);
    let last = next(&mut printed, 9).join("\n");
    assert!(last.contains("completed: 2 of 2 nodes ran the command"), "{last}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_controller_that_is_killed_amid_a_command_hears_of_its_end() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    begin(&farm, &waits(&farm));
    while lines(&farm, "begun") == 0 {
        std::thread::yield_now();
    }
    farm.controller.kill().unwrap();
    fs::write(farm.path("go"), "").unwrap();
    farm.restart_controller().unwrap();
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["nodes"][0]["attempt"], 1, "{view}");
    assert_eq!(lines(&farm, "begun"), 2, "once on each node");
    let traces = farm.wait("/api/v1/rollouts/shop/prod/2/traces", Value::is_array).unwrap();
    assert_eq!(traces[0]["outputs"][0]["output"], "went on\n", "{traces}");
}
