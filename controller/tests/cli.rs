//! The program `rota` as it is, against a controller that plays a script: words, streams, exits.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake;
#[path = "cli/fetch.rs"]
mod fetch;

use std::collections::BTreeMap;
use std::time::Duration;

use fake::{Fake, Ran, Script, rota};
use rota::errors::Sort;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

const MANIFEST: &str = "\
app = \"shop\"
[artifact]
path = \"dist\"
[run]
command = [\"./shop\"]
port = 9000
[traffic]
via = \"none\"
";

fn node(name: &str, state: &str, step: Option<&str>) -> Value {
    let failed = matches!(state, "failed" | "restored");
    json!({
        "name": name, "state": state, "step": step,
        "release": if state == "done" { "1.1.0" } else { "1.0.3" }, "attempt": 1,
        "error": failed.then_some("smoke test \"home page\" answered 500"),
        "output": failed.then_some("listening\npanic: oops\n"),
        "out_of_traffic_ms": if state == "done" { 812 } else { 0 },
        "in_flight_at_drain": 14, "in_flight": 14, "cut": 0
    })
}

fn view(state: &str, hold: Option<&str>, nodes: &[Value]) -> String {
    let hold = hold.map(|kind| {
        json!({ "kind": kind, "text": format!("it waits: {kind}"), "hint": "", "nodes": [],
            "since": "2026-11-24T03:45:00.000Z" })
    });
    json!({
        "id": "shop/prod/14", "app": "shop", "env": "prod", "revision": 14, "kind": "deploy",
        "from": "1.0.3", "to": "1.1.0", "message": "why", "who": "alice", "state": state,
        "hold": hold, "controller": "c1", "term": 1, "batches": [], "nodes": nodes,
        "evidence": { "least_in_traffic": 1, "targets": 2, "cut": 0, "failed_requests": 0,
            "requests": 120_931 },
        "started_at": "2026-11-24T03:45:00.000Z",
        "finished_at": "2026-11-24T03:45:12.480Z"
    })
    .to_string()
}

fn under_way() -> String {
    view(
        "rolling",
        None,
        &[node("web-01", "updating", Some("drain")), node("web-02", "pending", None)],
    )
}

fn completed() -> String {
    view("completed", None, &[node("web-01", "done", None), node("web-02", "done", None)])
}

fn stopped(state: &str, hold: Option<&str>) -> String {
    view(state, hold, &[node("web-01", "restored", None), node("web-02", "pending", None)])
}

const START: &str = "rollout start shop --release 1.1.0 --env prod -m why";

#[tokio::test]
async fn a_rollout_is_followed_to_its_end() {
    let fake = Fake::start(Script::rollout(vec![vec![under_way(), completed()]])).await;
    let ran = fake.run(START).await;
    assert_eq!(
        ran.stderr,
        "shop/prod/14  deploy of 1.1.0 (was 1.0.3): 2 nodes, rolling\n\
         web-01  drain  14 in flight\n\
         shop/prod/14  completed\n\
         web-01  done  out of traffic 812 ms\n\
         web-02  done  out of traffic 812 ms\n"
    );
    assert_eq!(
        ran.stdout,
        "shop/prod/14 completed: 2 of 2 nodes run 1.1.0 (was 1.0.3)\n  took 12.4 s; at least \
         1 of 2 in traffic; 120 931 requests, 0 failed, 0 cut\n  \
         out of traffic: web-01 812 ms, web-02 812 ms\n"
    );
    assert_eq!(ran.exit, 0);
    assert_eq!(
        fake.seen.lock().unwrap().calls,
        [
            "start kind 1 shop prod 1.1.0 why",
            "read events?app=shop&env=prod",
            "follow rollouts/shop/prod/14 after 0"
        ]
    );
}

/// Documents skip what passes quickly; events do not.
#[tokio::test]
async fn each_event_of_a_rollout_is_a_line() {
    let event = |seq: u64, rollout: &str, node: Option<&str>, text: &str| {
        json!({ "seq": seq, "at": "2026-11-24T03:45:00.000Z", "app": "shop", "env": "prod",
            "rollout": rollout, "node": node, "kind": "rollout", "text": text })
    };
    let (id, other) = ("shop/prod/14", "shop/prod/13");
    let first = [event(1, other, None, "completed"), event(2, id, None, "started by alice")];
    let then = [
        event(3, id, Some("web-01"), "drain: 14 in flight"),
        event(4, other, Some("web-01"), "of another"),
        event(5, id, Some("web-01"), "stop"),
    ];
    let last = event(6, id, None, "completed after 12.4s");
    let all: Vec<&Value> = first.iter().chain(&then).chain([&last]).collect();
    let opening = "shop/prod/14  deploy of 1.1.0 (was 1.0.3): 2 nodes, rolling\n";
    for (line, earlier) in [(START, true), ("rollout status shop/prod/14 -w", false)] {
        let reads =
            BTreeMap::from([("events?app=shop&env=prod".to_owned(), json!(all).to_string())]);
        // What was read at the beginning is not told again, and what is read at the end is not missed.
        let events = vec![json!(then).to_string(), event(7, id, None, "after all").to_string()];
        let pace = Duration::from_millis(300);
        let views = vec![vec![under_way(), completed()]];
        let fake = Fake::start(Script { reads, events, pace, ..Script::rollout(views) }).await;
        let ran = fake.run(line).await;
        let told = if earlier {
            "shop/prod/14  started by alice\nweb-01  drain: 14 in flight\nweb-01  stop\n\
             shop/prod/14  completed after 12.4s\nshop/prod/14  after all\n"
        } else {
            "web-01  drain  14 in flight\nshop/prod/14  after all\n"
        };
        assert_eq!(ran.stderr, format!("{opening}{told}"), "{line}");
    }
}

#[tokio::test]
async fn every_end_has_its_exit_code() {
    for (state, hold, exit) in [
        ("completed", None, 0),
        ("failed", None, 3),
        ("aborted", None, 3),
        ("partial", None, 3),
        ("paused", None, 3),
        ("held", Some("failures"), 3),
        ("held", Some("approval"), 3),
        ("held", Some("capacity"), 3),
        ("rolled_back", None, 4),
    ] {
        let fake = Fake::start(Script::rollout(vec![vec![stopped(state, hold)]])).await;
        let line = "rollout status shop/prod/14 -w --max-hold 100ms";
        let ran = fake.run(line).await;
        assert_eq!(ran.exit, exit, "{state} {hold:?}: {ran:?}");
        let machine = fake.run(&format!("-o json {line}")).await;
        assert_eq!(machine.exit, exit, "{state} {hold:?}: {machine:?}");
        let shown: Value = serde_json::from_str(&machine.stdout).unwrap();
        assert_eq!(shown["state"], state);
        if exit == 0 {
            assert_eq!(machine.stderr, "");
        } else {
            let error: Value = serde_json::from_str(&machine.stderr).unwrap();
            assert_eq!(error["error"]["kind"], state);
        }
    }
}

#[tokio::test]
async fn a_failure_says_what_happened_what_stands_and_what_to_do() {
    let held = stopped("held", Some("failures"));
    let fake = Fake::start(Script::rollout(vec![vec![held]])).await;
    let ran = fake.run("-q rollout status shop/prod/14 -w").await;
    assert_eq!(
        ran.stderr,
        "error: rollout shop/prod/14 is held: it waits: failures\n  \
         web-01: smoke test \"home page\" answered 500\n    | listening\n    | panic: oops\n  \
         web-01 is back on 1.0.3; web-02 was not touched\n  \
         took 12.4 s; at least 1 of 2 in traffic; 120 931 requests, 0 failed, 0 cut\n\
         hint: `rota rollout resume shop/prod/14` goes on, `rota rollout rollback shop/prod/14` \
         goes back\n"
    );
    assert_eq!(ran.stdout, "");
}

#[tokio::test]
async fn a_broken_stream_is_taken_up_again() {
    let fake =
        Fake::start(Script::rollout(vec![vec![under_way()], vec![], vec![completed()]])).await;
    let ran = fake.run(START).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    let lost = ran.stderr.lines().filter(|line| line.starts_with("connection lost")).count();
    assert_eq!(lost, 1, "{}", ran.stderr);
    let calls = fake.seen.lock().unwrap().calls.clone();
    assert_eq!(calls.iter().filter(|call| call.starts_with("start")).count(), 1, "{calls:?}");
}

#[tokio::test]
async fn the_latest_rollout_is_pinned_before_it_is_followed() {
    let reads = BTreeMap::from([("rollouts/shop/prod".to_owned(), under_way())]);
    let fake = Fake::start(Script { reads, ..Script::rollout(vec![vec![completed()]]) }).await;
    assert_eq!(fake.run("rollout status shop/prod -w").await.exit, 0);
    assert_eq!(
        fake.seen.lock().unwrap().calls,
        [
            "read rollouts/shop/prod",
            "read events?app=shop&env=prod",
            "follow rollouts/shop/prod/14 after 0"
        ]
    );
}

#[tokio::test]
async fn ctrl_c_detaches_and_says_so_to_programs_too() {
    let fake = Fake::start(Script::rollout(vec![vec![under_way()]])).await;
    for line in [START.to_owned(), format!("-o json {START}")] {
        let (said, exit) = press_ctrl_c(&fake, &line).await;
        let told = said.iter().skip_while(|line| !line.starts_with("detached"));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                "detached: rollout shop/prod/14 goes on without you",
                "hint: `rota rollout status shop/prod/14 -w` comes back to it"
            ]
        );
        assert_eq!(exit, Some(130));
    }
    assert_eq!(press_ctrl_c(&fake, &format!("-q {START}")).await, (Vec::new(), Some(130)));
}

/// Presses Ctrl-C when the rollout is followed: all that was said, and the exit code.
async fn press_ctrl_c(fake: &Fake, line: &str) -> (Vec<String>, Option<i32>) {
    fake.seen.lock().unwrap().calls.clear();
    let mut child = fake.spawn(line);
    // It listens for the key before it asks for anything to follow.
    while !fake.seen.lock().unwrap().calls.iter().any(|call| call.starts_with("follow")) {
        tokio::task::yield_now().await;
    }
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        said.push(line);
    }
    (said, child.wait().await.unwrap().code())
}

#[tokio::test]
async fn an_empty_list_is_empty_and_that_is_said_aside() {
    let empty = |path: &str| (path.to_owned(), "[]".to_owned());
    let paths = ["nodes", "edges", "pools", "envs", "tokens", "releases", "audit", "rollouts"];
    let more = ["history/shop/prod", "rollouts?app=shop&env=prod", "controllers", "nodes?env=prod"];
    let reads = paths.into_iter().chain(more).map(empty).collect();
    let fake = Fake::start(Script { reads, ..Script::default() }).await;
    for line in [
        "node ls",
        "node ls --env prod",
        "edge ls",
        "pool ls",
        "env ls",
        "controller ls",
        "token ls",
        "release ls",
        "audit",
        "rollout ls",
        "rollout ls --app shop --env prod",
        "rollout history shop --env prod",
    ] {
        let ran = fake.run(line).await;
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""), "{line}: {ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{line}: {ran:?}");
        let ran = fake.run(&format!("{line} -o json")).await;
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("[]\n", ""), "{line}");
    }
}

#[tokio::test]
async fn tokens_that_cannot_be_used_are_left_out() {
    let token = |id: &str, uses: u32, ends: &str| {
        json!({ "id": id, "kind": "agent", "role": null, "name": null, "uses_left": uses,
            "expires_at": ends })
    };
    let (past, future) = ("2020-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
    let list = json!([token("good", 1, future), token("used", 0, future), token("late", 1, past)]);
    let reads = BTreeMap::from([("tokens".to_owned(), list.to_string())]);
    let fake = Fake::start(Script { reads, ..Script::default() }).await;
    for (line, shown) in [("token ls", 1), ("token ls --all", 3)] {
        assert_eq!(fake.run(line).await.stdout.lines().count(), 1 + shown, "{line}");
        let ran = fake.run(&format!("{line} -o json")).await;
        assert_eq!(ran.stdout.matches("\"id\"").count(), shown, "{line}");
    }
}

#[tokio::test]
async fn a_context_of_the_environment_is_found_and_not_shown_in_usage_lines() {
    let reads = BTreeMap::from([("nodes".to_owned(), "[]".to_owned())]);
    let fake = Fake::start(Script { reads, ..Script::default() }).await;
    let run = async |line: &str| {
        let mut command = rota(fake.home.path(), line);
        Ran::of(command.env("ROTA_CONTEXT", fake.context()).output().await.unwrap())
    };
    assert_eq!(run("node ls -o json").await.stdout, "[]\n");
    let ran = run("deploy").await;
    assert!(ran.stderr.contains("Usage:") && !ran.stderr.contains("--context"), "{ran:?}");
}

#[tokio::test]
async fn the_context_is_introduced_once() {
    let fake = Fake::start(Script::rollout(vec![vec![completed()]])).await;
    fake.write_app(MANIFEST);
    let ran = fake.run("-v deploy --version 1.1.0 --env prod").await;
    assert_eq!(ran.stderr.matches("context test:").count(), 1, "{ran:?}");
}

#[tokio::test]
async fn detached_from_the_start_prints_the_id() {
    let fake = Fake::start(Script::rollout(Vec::new())).await;
    let ran = fake.run(&format!("{START} --detach")).await;
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, "shop/prod/14\n"));
}

#[tokio::test]
async fn the_next_controller_is_asked_when_one_is_gone() {
    let reads = BTreeMap::from([("nodes".to_owned(), "[]".to_owned())]);
    let fake = Fake::start(Script { reads, ..Script::default() }).await;
    fake.others_first(&["127.0.0.1:1", "127.0.0.1:2"]);
    for _ in 0..3 {
        let ran = fake.run("node ls -o json").await;
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "[]\n"), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn nobody_answers() {
    let fake = Fake::start(Script::default()).await;
    let mut context = rota::context::Context::load(&fake.context()).unwrap();
    context.controllers = vec!["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
    context.save(&fake.context()).unwrap();
    for line in ["status", START, "node drain web-01", "events -f", "rollout status a/b -w"] {
        let ran = fake.run(line).await;
        assert_eq!(ran.exit, 5, "{line}: {ran:?}");
        assert!(ran.stderr.starts_with("error: no controller could be reached\n"), "{ran:?}");
        for address in ["127.0.0.1:1: ", "127.0.0.1:2: "] {
            assert!(ran.stderr.contains(address), "{line}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn refusals_have_their_exit_codes_and_their_form() {
    for (sort, exit) in [
        (Sort::Refused, 1),
        (Sort::NotFound, 1),
        (Sort::Store, 1),
        (Sort::Internal, 1),
        (Sort::Usage, 2),
        (Sort::Manifest, 2),
        (Sort::NotPermitted, 6),
    ] {
        let refusal = Some(sort.error("no such luck", "try again"));
        let fake = Fake::start(Script { refusal, ..Script::default() }).await;
        for line in ["status", "node drain web-01", START] {
            let ran = fake.run(line).await;
            assert_eq!(ran.exit, exit, "{line}: {ran:?}");
            assert_eq!(ran.stderr, "error: no such luck\nhint: try again\n", "{line}");
            let ran = fake.run(&format!("{line} -o json")).await;
            let error: Value = serde_json::from_str(&ran.stderr).unwrap();
            let kind = sort.as_str();
            let right = json!({ "kind": kind, "message": "no such luck", "hint": "try again" });
            assert_eq!((ran.exit, &error["error"]), (exit, &right), "{line}");
        }
    }
}

#[tokio::test]
async fn mistakes_of_the_command_line() {
    let home = tempfile::tempdir().unwrap();
    for (line, word) in [
        ("deploy", "--version"),
        ("status", "no context"),
        ("status --context nowhere.toml", "nowhere.toml"),
        ("check", "rota.toml"),
        ("login h:1 --token nonsense", "--token"),
        ("login h:1 --token t --context a.toml", "--context a.toml: `rota login` takes a name"),
        ("plan --env prod --version 1.0.0 --undo", "--undo"),
        ("serve --data d --token rota-controller-x", "needs --join HOST:PORT"),
        ("node drain web-01 -m \u{202e}x", "U+202E"),
        ("plan --env prod --version 1.0.0 --release 9.9.9", "--release"),
        ("plan --env prod --version 1.0.0 --undo --to-revision 1", "cannot be used with"),
        ("plan shop --env prod --release 1.0.0 --undo", "--undo"),
        ("token create --for agent --role admin", "--role"),
    ] {
        let ran = Ran::of(rota(home.path(), line).output().await.unwrap());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{line}: {ran:?}");
        assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(word), "{line}: {ran:?}");
        let ran = Ran::of(rota(home.path(), &format!("{line} -o json")).output().await.unwrap());
        let error: Value = serde_json::from_str(&ran.stderr).unwrap();
        assert_eq!((ran.exit, error["error"]["kind"].as_str()), (2, Some("usage")), "{line}");
        assert!(error["error"]["message"].as_str().unwrap().contains(word), "{line}: {error}");
    }
}

#[tokio::test]
async fn check_shows_every_problem() {
    let fake = Fake::start(Script::default()).await;
    fake.write_app(&format!("{MANIFEST}[strategy]\nbatch = 0\nmonitr = \"5s\"\n"));
    let ran = fake.run("check").await;
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert_eq!(ran.stderr.matches("error: ").count(), 2, "{}", ran.stderr);
    let ran = fake.run("deploy --version 1.1.0 --env prod -o json").await;
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!((ran.exit, error["error"]["kind"].as_str()), (2, Some("manifest")));
    assert_eq!(error["error"]["details"].as_array().unwrap().len(), 2);
    fake.write_app(&MANIFEST.replace("dist", "dits"));
    let ran = fake.run("check").await;
    assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""), "{ran:?}");
    assert!(ran.stderr.starts_with("error: rota.toml: ") && ran.stderr.contains("dits"), "{ran:?}");
    fake.write_app(MANIFEST);
    let ran = fake.run("check").await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.starts_with("shop\n  artifact    dist\n"), "{}", ran.stdout);
    assert_eq!(fake.seen.lock().unwrap().calls, Vec::<String>::new());
}

#[tokio::test]
async fn deploy_uploads_pushes_starts_and_follows() {
    let script =
        Script { upload_breaks_after: Some(300_000), ..Script::rollout(vec![vec![completed()]]) };
    let fake = Fake::start(script).await;
    fake.write_app(MANIFEST);
    let ran = fake.run("deploy --version 1.1.0 --env prod -m faster").await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    let calls = fake.seen.lock().unwrap().calls.clone();
    assert_eq!(
        calls,
        [
            "upload state 64",
            "plan shop prod 1.1.0",
            "read releases/shop/1.1.0",
            "upload state 64",
            "upload from 0",
            "upload state 64",
            "upload from 300000",
            "push 1.1.0 as tar.zst",
            "start kind 1 shop prod 1.1.0 faster",
            "read events?app=shop&env=prod",
            "follow rollouts/shop/prod/14 after 0"
        ]
    );
}

#[tokio::test]
async fn a_deploy_that_would_be_refused_uploads_and_pushes_nothing() {
    let refusals = ["no node matches the target", "prod is frozen: sale"].map(str::to_owned);
    let fake = Fake::start(Script { refusals: refusals.to_vec(), ..Script::default() }).await;
    fake.write_app(MANIFEST);
    let ran = fake.run("deploy --version 1.1.0 --env prod").await;
    assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""), "{ran:?}");
    assert_eq!(
        ran.stderr,
        "error: no node matches the target\n  prod is frozen: sale\n  \
         nothing was pushed or changed\nhint: `rota plan` shows all that a deploy would do\n"
    );
    let calls = fake.seen.lock().unwrap().calls.clone();
    assert_eq!(calls, ["upload state 64", "plan shop prod 1.1.0"]);
}

#[tokio::test]
async fn a_release_that_is_there_is_not_uploaded_again() {
    for (digest, exit, upload) in [(None, 0, false), (Some("ab".repeat(32)), 1, false)] {
        // The digest of the app, from the first push.
        let first = Fake::start(Script::rollout(Vec::new())).await;
        first.write_app(MANIFEST);
        assert_eq!(first.run("release push --version 1.1.0").await.exit, 1, "no such document");
        let bytes = first.seen.lock().unwrap().uploaded.clone();
        let digest = digest.unwrap_or_else(|| sha256(&bytes));
        let release = json!({ "app": "shop", "version": "1.1.0", "digest": digest, "size": 1,
            "created_at": "2026-11-24T03:45:00.000Z", "who": "bob", "current_in": [] });
        let reads = BTreeMap::from([("releases/shop/1.1.0".to_owned(), release.to_string())]);
        let script = Script::rollout(vec![vec![completed()]]);
        let fake = Fake::start(Script { reads, complete: true, ..script }).await;
        fake.write_app(MANIFEST);
        let ran = fake.run("deploy --version 1.1.0 --env prod").await;
        assert_eq!(ran.exit, exit, "{ran:?}");
        let calls = fake.seen.lock().unwrap().calls.clone();
        assert_eq!(calls.iter().any(|call| call.starts_with("upload from")), upload, "{calls:?}");
        if exit == 1 {
            let message = "error: release shop 1.1.0 exists with another content\n";
            assert!(ran.stderr.starts_with(message), "{}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn a_push_tells_what_its_operator_should_know() {
    let answer = json!({ "app": "shop", "version": "1.1.0", "digest": "ab".repeat(32), "size": 1,
        "created_at": "2026-11-24T03:45:00.000Z", "who": "bob", "current_in": [],
        "warning": "its artifact is on one controller only: controller c2: its disk is full" });
    let script = Script { answer: answer.to_string(), ..Script::rollout(Vec::new()) };
    let fake = Fake::start(script).await;
    fake.write_app(MANIFEST);
    let ran = fake.run("release push --version 1.1.0").await;
    assert_eq!((ran.exit, &ran.stdout[..]), (0, "shop 1.1.0\n"), "{ran:?}");
    let warning = "warning: release shop 1.1.0: its artifact is on one controller only: \
                   controller c2: its disk is full\n";
    assert!(ran.stderr.ends_with(warning), "{ran:?}");
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_plan_changes_nothing_and_says_what_would_refuse() {
    for (refusals, exit) in [(vec![], 0), (vec!["prod is frozen: sale".to_owned()], 1)] {
        let fake = Fake::start(Script { refusals, ..Script::default() }).await;
        fake.write_app(MANIFEST);
        let ran = fake.run("plan --version 1.1.0 --env prod").await;
        assert_eq!(ran.exit, exit, "{ran:?}");
        assert!(ran.stdout.starts_with("1.1.0: 1 target in 1 batch\n"), "{}", ran.stdout);
        assert_eq!(fake.seen.lock().unwrap().calls, ["plan shop prod 1.1.0"]);
        let ran = fake.run("plan --version 1.1.0 --env prod -o json").await;
        let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((ran.exit, shown["targets"].as_u64()), (exit, Some(1)));
    }
}

#[tokio::test]
async fn only_the_token_goes_to_stdout() {
    let answer =
        r#"{ "token": "rota_a1_x", "id": "3f9a1c", "expires_at": "2026-11-24T04:45:00Z" }"#;
    let fake = Fake::start(Script { answer: answer.to_owned(), ..Script::default() }).await;
    let ran = fake.run("token create --for agent --uses 3").await;
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, "rota_a1_x\n"));
    assert!(!ran.stderr.contains("rota_a1_x"), "{}", ran.stderr);
    assert!(ran.stderr.contains("for an agent, 3 uses, until 2026-11-24 04:45:00Z"), "{ran:?}");
}

#[tokio::test]
async fn login_makes_a_context_that_works() {
    let reads = BTreeMap::from([("nodes".to_owned(), "[]".to_owned())]);
    let fake = Fake::start(Script { reads, ..Script::default() }).await;
    let home = tempfile::tempdir().unwrap();
    let login = format!("login {} --name alice --context test", fake.address);
    let mut command = rota(home.path(), &login);
    let ran = Ran::of(command.env("ROTA_TOKEN", &fake.token).output().await.unwrap());
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""), "{ran:?}");
    for line in ["node ls -o json", "node ls -o json --context test"] {
        let ran = Ran::of(rota(home.path(), line).output().await.unwrap());
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "[]\n"), "{ran:?}");
    }
    let file = home.path().join(".config/rota/context.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

/// ROTA_CONTEXT says which context is used, not what a new one is called.
#[tokio::test]
async fn login_heeds_no_file_that_the_environment_names() {
    let reads = BTreeMap::from([("nodes".to_owned(), "[]".to_owned())]);
    let fake = Fake::start(Script { reads, ..Script::default() }).await;
    for (context, called, told) in [
        ("admin.toml", "default", "but ROTA_CONTEXT names admin.toml, which goes before it"),
        ("staging", "staging", ""),
        ("", "default", ""),
    ] {
        let home = tempfile::tempdir().unwrap();
        let mut command = rota(home.path(), &format!("login {} --name alice", fake.address));
        command.env("ROTA_CONTEXT", context).env("ROTA_TOKEN", &fake.token);
        let ran = Ran::of(command.output().await.unwrap());
        let right = format!("; context {called} is in ");
        assert!(ran.exit == 0 && ran.stderr.contains(&right), "{context}: {ran:?}");
        assert!(ran.stderr.contains(told), "{context}: {ran:?}");
        assert_eq!(ran.stderr.contains("ROTA_CONTEXT"), !told.is_empty(), "{context}: {ran:?}");
        let line = format!("node ls -o json --context {called}");
        let ran = Ran::of(rota(home.path(), &line).output().await.unwrap());
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "[]\n"), "{ran:?}");
    }
}

#[tokio::test]
async fn events_go_on_where_they_were() {
    let event = |seq: u64| {
        json!({ "seq": seq, "at": "2026-11-24T03:45:00.000Z", "app": "shop", "env": "prod",
            "rollout": null, "node": "web-01", "kind": "node", "text": format!("event {seq}") })
    };
    let reads = BTreeMap::from([("events?app=shop".to_owned(), json!([event(6)]).to_string())]);
    let follows = vec![vec![event(7).to_string()], vec![json!([event(8), event(9)]).to_string()]];
    let fake = Fake::start(Script { reads, follows, ..Script::default() }).await;
    let mut child = fake.spawn("events -f --app shop");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for seq in 6..=9 {
        let line = lines.next_line().await.unwrap().unwrap();
        assert_eq!(line, format!("2026-11-24 03:45:00Z  shop/prod  web-01  event {seq}"));
    }
    let calls = fake.seen.lock().unwrap().calls.clone();
    assert_eq!(calls[1..], ["follow events?app=shop after 6", "follow events?app=shop after 7"]);
}

#[tokio::test]
async fn what_needs_no_controller() {
    let home = tempfile::tempdir().unwrap();
    for (line, word) in [
        ("--version", "rota 0."),
        ("--help", "Exit codes:"),
        ("deploy --help", "Examples:"),
        ("completions bash", "_rota"),
        ("completions zsh", "#compdef rota"),
        ("completions fish", "complete --command rota"),
        ("man", ".TH \"ROTA\" \"1\""),
    ] {
        let ran = Ran::of(rota(home.path(), line).output().await.unwrap());
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{line}");
        assert!(ran.stdout.contains(word), "{line}: {}", ran.stdout);
    }
    let ran = Ran::of(rota(home.path(), "man --dir man").output().await.unwrap());
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(home.path().join("man/rota-rollout-status.1").exists());
}

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_certificate_is_renewed_by_the_way_when_two_thirds_of_its_life_are_over() {
    let reads = [("controllers".to_owned(), "[]".to_owned())];
    let fake = Fake::start(Script { reads: reads.into(), ..Script::default() }).await;
    for (days, renews) in [(19, false), (21, true), (0, false)] {
        if days > 0 {
            fake.made_ago(DAY * days);
        }
        fake.seen.lock().unwrap().calls.clear();
        let before = std::fs::read_to_string(fake.context()).unwrap();
        let ran = fake.run("controller ls").await;
        assert_eq!(ran.exit, 0, "{ran:?}");
        let renewed = fake.seen.lock().unwrap().calls.iter().any(|call| call == "renew");
        assert_eq!(renewed, renews, "made {days} days ago");
        let changed = before != std::fs::read_to_string(fake.context()).unwrap();
        assert_eq!(changed, renews, "made {days} days ago");
    }
}

/// Not a test: the live screen for people, in a terminal.
/// `cargo test -p rota --test cli -- --ignored --nocapture`, with SHOW=small|large|held|failed.
#[tokio::test]
#[ignore = "for people who look at a terminal"]
async fn show_the_live_screen() {
    let show = std::env::var("SHOW").unwrap_or_default();
    let (count, at_once) = if show == "large" { (300, 30) } else { (8, 2) };
    let steps = ["drain", "stop", "swap", "start", "health", "smoke", "join", "monitor"];
    let name = |n: usize| format!("web-{:02}", n + 1);
    let mut views = Vec::new();
    for first in (0..count).step_by(at_once) {
        for step in steps {
            let nodes: Vec<Value> = (0..count)
                .map(|n| match n {
                    n if n < first && n % 37 == 5 => node(&name(n), "restored", None),
                    n if n < first => node(&name(n), "done", None),
                    n if n < first + at_once => node(&name(n), "updating", Some(step)),
                    n => node(&name(n), "pending", None),
                })
                .collect();
            views.push(view("rolling", None, &nodes));
        }
        if first > 0 && matches!(show.as_str(), "held" | "failed") {
            let kind = if show == "held" { "capacity" } else { "failures" };
            views.push(stopped("held", Some(kind)));
            break;
        }
    }
    if !matches!(show.as_str(), "held" | "failed") {
        let nodes: Vec<Value> = (0..count).map(|n| node(&name(n), "done", None)).collect();
        views.push(view("completed", None, &nodes));
    }
    let half = views.split_off(views.len() / 2);
    let pace = Duration::from_millis(300);
    let fake = Fake::start(Script { pace, ..Script::rollout(vec![views, half]) }).await;
    let mut command = fake.command(&format!("{START} --max-hold 5s"));
    println!("{:?}", command.status().await.unwrap());
}
