//! What a rollout says of itself at its end: the same for everybody, for ever, and true.

use std::fs;

use rota_tests::farm::{App, ENV, Farm};
use rota_tests::load::{Client, Load};
use serde_json::Value;

use super::{CLIENTS, begin, deploy, run};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// The event that says what was measured in the newest rollout.
fn told(farm: &Farm, id: &str) -> String {
    let line = |events: &Value| {
        let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |event: &&Value| event["rollout"] == id;
        let mut texts = events.iter().filter(of).filter_map(|event| event["text"].as_str());
        texts.rfind(|text| text.starts_with("took ")).map(str::to_owned)
    };
    line(&farm.wait("/api/v1/events", |events| line(events).is_some()).unwrap()).unwrap()
}

/// Requests that the clients saw answered while a deploy ran, and those that its evidence says.
fn counted(farm: &Farm, load: &Load, version: &str) -> (u64, Value) {
    let before = load.so_far().0;
    deploy(farm, version, FAST, 0);
    let seen = load.so_far().0 - before;
    (seen, farm.rollout(|view| view["state"] == "completed").unwrap())
}

#[test]
fn the_last_word_is_whole_and_the_same_for_everybody() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let (seen, view) = counted(&farm, &load, "1.1.0");
    assert_eq!(load.stop().1, 0);
    let requests = view["evidence"]["requests"].as_u64().unwrap();
    // The command line takes longer than the rollout, by its own start and the upload.
    assert!(requests > 0 && requests <= seen + CLIENTS as u64, "{requests} of {seen}: {view}");
    let line = view["evidence"]["text"].as_str().unwrap();
    assert_eq!(told(&farm, "shop/prod/2"), line);
    for part in ["took ", "at least 1 of 2 in traffic", " requests, 0 failed, 0 cut", "web-02 "] {
        assert!(line.contains(part), "{part:?} is not in: {line}");
    }
    assert_eq!(view["duration_ms"], view["evidence"]["duration_ms"], "{view}");
    assert!(view["duration_ms"].as_u64().unwrap() > 0, "{view}");
    for node in view["nodes"].as_array().unwrap() {
        let out = node["out_of_traffic_ms"].as_u64().unwrap();
        assert!(out > 0 && out <= view["duration_ms"].as_u64().unwrap(), "{node}");
    }
    let printed = run(&farm, &["rollout", "status", "shop/prod/2", "-w", "-q"], 0);
    let joined = printed.split_whitespace().collect::<Vec<_>>().join(" ");
    let (first, _) = line.split_once("; out of traffic").unwrap();
    assert!(joined.contains(first), "{first:?} is not in: {joined}");
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    let again = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(again, view, "a restart forgets nothing");
}

#[test]
fn what_was_served_while_no_controller_looked_is_counted_too() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"\napprove_after = [1]", ..FAST };
    begin(&farm, "1.1.0", app);
    // The first word of an edge is where its counting begins: what was served before nobody can know.
    let counts = |view: &Value| view["evidence"]["requests"].as_u64().is_some_and(|it| it > 0);
    farm.rollout(|view| view["hold"]["kind"] == "approval" && counts(view)).unwrap();
    let before = load.so_far().0;
    farm.controller.kill().unwrap();
    while load.so_far().0 < before + 500 {
        std::thread::yield_now();
    }
    farm.restart_controller().unwrap();
    farm.rollout(|view| view["hold"]["kind"] == "approval").unwrap();
    run(&farm, &["rollout", "promote", "shop/prod"], 0);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert!(view["evidence"]["requests"].as_u64().unwrap() >= 500, "{view}");
    assert_eq!(load.stop().1, 0);
}

/// Sends a process a signal.
pub(super) fn signal(name: &str, pid: u32) {
    let sent = std::process::Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.unwrap().success(), "{name} {pid}");
}

/// The controller dies when all is done and the edge has not said its last word: the next one hears it.
#[test]
fn a_controller_that_dies_before_the_last_word_says_it_afterwards() {
    let mut farm = Farm::start(1).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    begin(&farm, "1.1.0", App { strategy: "batch = 1\nmonitor = \"5s\"", ..FAST });
    let monitored = |view: &Value| view["nodes"][0]["step"] == "monitor";
    farm.rollout(monitored).unwrap();
    signal("-STOP", farm.edge.pid());
    let view = farm.rollout(|view| view["nodes"][0]["state"] == "done").unwrap();
    assert_eq!((&view["state"], &view["finished_at"]), (&"rolling".into(), &Value::Null), "{view}");
    farm.controller.kill().unwrap();
    signal("-CONT", farm.edge.pid());
    farm.restart_controller().unwrap();
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["evidence"]["unheard_edges"], Value::Array(Vec::new()), "{view}");
    assert_eq!(told(&farm, "shop/prod/2"), view["evidence"]["text"].as_str().unwrap());
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    let events = farm.wait("/api/v1/events", Value::is_array).unwrap();
    let lines = events.as_array().unwrap().iter().filter(|event| {
        let text = event["text"].as_str().unwrap_or_default();
        event["rollout"] == "shop/prod/2" && text.starts_with("took ")
    });
    assert_eq!(lines.count(), 1, "{events}");
}

#[test]
fn a_node_that_was_left_for_inspection_is_out_until_it_is_back() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let strategy = "batch = 1\nmonitor = \"0s\"\non_node_failure = \"leave\"";
    let app = App { args: &["--broken-page"], strategy, ..FAST };
    deploy(&farm, "1.1.0", app, 3);
    let first = farm.rollout(|view| view["nodes"][0]["left"] == "out").unwrap();
    let before = first["nodes"][0]["out_of_traffic_ms"].as_u64().unwrap();
    run(&farm, &["rollout", "status", "shop/prod", "-w", "--max-hold", "2s"], 3);
    run(&farm, &["rollout", "rollback", "shop/prod", "--yes"], 0);
    let view = farm.rollout(|view| view["state"] == "rolled_back").unwrap();
    assert_eq!(view["nodes"][0]["release"], "1.0.0", "{view}");
    farm.wait("/api/v1/nodes", |nodes| nodes[0]["apps"][0]["traffic"] == "in").unwrap();
    let out = view["nodes"][0]["out_of_traffic_ms"].as_u64().unwrap();
    assert!(out > before, "{before} at its failure, {out} at the end: {view}");
}

/// Scripts around the app, one that is slow to stop, and load with slow requests: all of it is told.
#[test]
fn inspect_shows_steps_curves_and_outputs() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    let slow = Client { path: "/slow?ms=300", keep_alive: true };
    let load = Load::of(farm.pool().unwrap(), [slow; 4]);
    let manifest = farm.write_app(FAST).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    let hooks = "[hooks]\nbefore_drain = [[\"sh\", \"-c\", \"echo '<b>'leaving as $ROTA_NODE\"]]\n\
                 [once]\ncommand = [\"sh\", \"-c\", \"echo migrated to {version}\"]\n";
    fs::write(&manifest, text + hooks).unwrap();
    let manifest = manifest.to_str().unwrap();
    let args = ["deploy", "-f", manifest, "--version", "1.1.0", "--env", ENV, "-m", "<i>why</i>"];
    run(&farm, &args, 0);
    assert_eq!(load.stop().1, 0);
    let shown = run(&farm, &["rollout", "inspect", "shop/prod/2"], 0);
    for part in ["web-01 attempt 1", "steps  ", "drain ", "in flight  ", "<b>leaving as web-02"] {
        assert!(shown.contains(part), "{part:?} is not in: {shown}");
    }
    assert!(
        shown.contains("once-per-release job") && shown.contains("migrated to 1.1.0"),
        "{shown}"
    );
    let json = farm.run(&["rollout", "inspect", "shop/prod/2", "-o", "json"]).unwrap();
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let traces = json["traces"].as_array().unwrap();
    let update = traces.iter().find(|trace| trace["node"] == "web-01" && trace["once"] == false);
    let update = update.unwrap();
    let points = update["in_flight"].as_array().unwrap();
    assert!(points.iter().any(|point| point["in_flight"].as_u64() > Some(0)), "{update}");
    assert_eq!(points.last().unwrap()["in_flight"], 0, "{update}");
    assert!(update["steps"].as_array().unwrap().len() > 5, "{update}");
    assert!(!json["events"].as_array().unwrap().is_empty(), "{json}");
    let page = run(&farm, &["rollout", "inspect", "shop/prod/2", "--format", "html"], 0);
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"), "{page}");
    assert!(page.contains("&lt;b&gt;leaving as web-02") && page.contains("&lt;i&gt;why"), "{page}");
    if let Some(file) = std::env::var_os("ROTA_PAGE") {
        fs::write(file, page).unwrap();
    }
    let metrics = farm.read("/metrics").unwrap();
    assert!(
        metrics.contains("rota_update_seconds_count{app=\"shop\",env=\"prod\",step=\"drain\"} 2")
    );
}

#[test]
fn what_nobody_ordered_is_in_the_event_log() {
    let farm = Farm::start(1).unwrap();
    let manifest = farm.write_app(FAST).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    let deaf = "[run]\ncommand = [\"sh\", \"-c\", \"trap '' TERM; ./sample-app --port {port} & \
                while kill -0 $!; do wait; done\"]\nstop_timeout = \"200ms\"";
    let begin = text.find("[run]\ncommand").unwrap();
    let end = text[begin..].find("port = ").unwrap() + begin;
    fs::write(&manifest, format!("{}{deaf}\n{}", &text[..begin], &text[end..])).unwrap();
    let manifest = manifest.to_str().unwrap();
    for version in ["1.0.0", "1.1.0"] {
        run(&farm, &["deploy", "-f", manifest, "--version", version, "--env", ENV], 0);
    }
    let told = |part: &str| {
        farm.wait("/api/v1/events", |events| {
            let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
            events.iter().any(|event| event["text"].as_str().is_some_and(|it| it.contains(part)))
        })
        .unwrap();
    };
    told("did not end within its stop_timeout and was killed");
    let agent = |args: &[&str]| {
        let data = farm.path("web-01");
        let mut command = std::process::Command::new(&farm.programs.agent);
        command.args(args).arg("--data").arg(data).output().unwrap()
    };
    let back = agent(&["rollback", "shop"]);
    assert!(back.status.success(), "{back:?}");
    told("shop back to 1.0.0: asked for on the node");
}
