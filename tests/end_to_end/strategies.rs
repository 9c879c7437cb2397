//! Every setting of `[strategy]`, as an operator would see it: real nodes, real load, nobody outside notices.

use rota_tests::farm::{App, ENV, Farm};
use rota_tests::load::Load;
use serde_json::Value;

use super::{CLIENTS, begin, deploy, run, versions};

/// How a rollout of six nodes by a strategy goes.
struct Row {
    strategy: &'static str,
    /// The sizes of its batches.
    sizes: &'static [usize],
    /// The fewest nodes in traffic, by its evidence.
    least: std::ops::RangeInclusive<u64>,
    /// It takes so long at least, in milliseconds.
    longer_than: i64,
}

const ROWS: &[Row] = &[
    row("batch = 2", &[2, 2, 2], 4..=4),
    row("batch = \"50%\"", &[3, 3], 3..=3),
    row("batch = \"1%\"", &[1, 1, 1, 1, 1, 1], 5..=5),
    row("batch = [1, \"50%\"]", &[1, 3, 2], 3..=3),
    row("batch = [1, 2, \"100%\"]", &[1, 2, 3], 3..=3),
    row("batch = \"50%\"\nmax_unavailable = 1", &[3, 3], 5..=5),
    row("batch = 3\nmax_unavailable = \"34%\"", &[3, 3], 4..=4),
    row("batch = 3\norder = \"start-first\"", &[3, 3], 6..=6),
    row("batch = 6\norder = \"start-first\"\nmax_unavailable = 1", &[6], 6..=6),
    row("mode = \"window\"\nbatch = 2", &[2, 2, 2], 4..=5),
    row("mode = \"window\"\nbatch = 3\nmax_unavailable = 1", &[3, 3], 5..=5),
    // Two zones of three nodes: a batch ends where a zone does.
    row("batch = 2\nspread_by = \"zone\"", &[2, 1, 2, 1], 4..=4),
    Row { longer_than: 600, ..row("batch = 2\ndelay = \"300ms\"", &[2, 2, 2], 4..=4) },
    Row { longer_than: 900, ..row("batch = 2\nmonitor = \"300ms\"", &[2, 2, 2], 4..=4) },
    row("batch = 1\n[env.prod.strategy]\nbatch = 3", &[3, 3], 3..=3),
    row("batch = 1\n[env.test.strategy]\nbatch = 3", &[1, 1, 1, 1, 1, 1], 5..=5),
];

const fn row(
    strategy: &'static str,
    sizes: &'static [usize],
    least: std::ops::RangeInclusive<u64>,
) -> Row {
    Row { strategy, sizes, least, longer_than: 0 }
}

fn app(strategy: &str) -> App<'_> {
    App { strategy, ..App::default() }
}

/// No monitor time, unless the strategy says so.
fn quick(strategy: &str) -> String {
    let monitor = if strategy.contains("monitor") { "" } else { "monitor = \"0s\"\n" };
    format!("{monitor}{strategy}")
}

fn plan(farm: &Farm, version: &str, app: App<'_>) -> Value {
    let manifest = farm.write_app(app).unwrap();
    let manifest = manifest.to_str().unwrap();
    let said = run(
        farm,
        &["plan", "-f", manifest, "--version", version, "--env", ENV, "-o", "json", "-q"],
        0,
    );
    serde_json::from_str(&said).unwrap()
}

fn took_ms(view: &Value) -> i64 {
    let at = |field: &str| view[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    at("finished_at").as_millisecond() - at("started_at").as_millisecond()
}

#[test]
fn batches_windows_and_limits() {
    let farm = Farm::start(6).unwrap();
    for number in 1..=6 {
        let zone = if number <= 3 { "zone=a" } else { "zone=b" };
        run(&farm, &["node", "label", &format!("web-{number:02}"), zone], 0);
    }
    deploy(&farm, "0.1.0", app(&quick("batch = 6")), 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    for (number, row) in ROWS.iter().enumerate() {
        let (strategy, version) = (quick(row.strategy), format!("1.{number}.0"));
        let plan = plan(&farm, &version, app(&strategy));
        deploy(&farm, &version, app(&strategy), 0);
        let view = farm.rollout(|view| !view["finished_at"].is_null()).unwrap();
        let told = || format!("{}: {view}", row.strategy);
        let batches = view["batches"].as_array().unwrap();
        let nodes: Vec<&Value> = batches.iter().map(|batch| &batch["nodes"]).collect();
        let sizes: Vec<usize> = nodes.iter().map(|names| names.as_array().unwrap().len()).collect();
        assert_eq!(sizes, row.sizes, "{}", told());
        assert_eq!(plan["batches"], serde_json::json!(nodes), "the plan said otherwise: {plan}");
        let least = view["evidence"]["least_in_traffic"].as_u64().unwrap();
        assert!(row.least.contains(&least), "{}", told());
        let promised = plan["least_in_traffic"].as_u64().unwrap();
        assert!(least >= promised, "the plan promised {promised}: {}", told());
        assert!(took_ms(&view) >= row.longer_than, "{}", told());
        assert_eq!(view["evidence"]["cut"], 0, "{}", told());
        assert_eq!(versions(&farm, &version), 6, "{}", told());
    }
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}

/// Fails on these nodes only.
fn picky(nodes: &[&str], strategy: &str) -> String {
    let tests: Vec<String> = nodes.iter().map(|node| format!("test {{node}} != {node}")).collect();
    let smoke = format!("command = [\"sh\", \"-c\", \"{}\"]", tests.join(" && "));
    format!("monitor = \"0s\"\n{strategy}\n[[smoke]]\nname = \"picky\"\n{smoke}")
}

#[test]
fn failures_and_what_is_borne() {
    let farm = Farm::start(5).unwrap();
    deploy(&farm, "0.1.0", app(&quick("batch = 5")), 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    let bad: &[&str] = &["web-02", "web-04"];
    // strategy, exit code, state, nodes on the new release when it stopped
    for (number, (strategy, code, state, moved)) in [
        ("batch = 1", 3, "held", 1),
        ("batch = 1\nmax_failures = 1", 3, "held", 2),
        ("batch = 1\nmax_failures = 2", 3, "partial", 3),
        ("batch = 1\nmax_failures = \"40%\"", 3, "partial", 3),
        ("batch = 1\nmax_failures = \"20%\"", 3, "held", 2),
        ("batch = 1\non_failure = \"continue\"", 3, "partial", 3),
        ("batch = 1\non_failure = \"rollback\"", 4, "rolled_back", 0),
        ("batch = 1\nmax_failures = 1\non_failure = \"rollback\"", 4, "rolled_back", 0),
        ("mode = \"window\"\nbatch = 2\non_failure = \"rollback\"", 4, "rolled_back", 0),
        ("batch = 5\norder = \"start-first\"\non_failure = \"rollback\"", 4, "rolled_back", 0),
    ]
    .into_iter()
    .enumerate()
    {
        let version = format!("1.{number}.0");
        let said = deploy(&farm, &version, app(&picky(bad, strategy)), code);
        let view = farm.rollout(|view| view["state"] == state).unwrap();
        assert_eq!(versions(&farm, &version), moved, "{strategy}: {view}");
        if state != "rolled_back" {
            assert!(said.contains("picky"), "the cause is told: {said}");
        }
        if state == "held" {
            assert_eq!(view["hold"]["kind"], "failures", "{view}");
            run(&farm, &["rollout", "abort", "shop/prod", "--yes"], 0);
            farm.rollout(|view| view["state"] == "aborted").unwrap();
        }
        // The next row begins where this one did.
        deploy(&farm, &format!("0.2.{number}"), app(&quick("batch = 1")), 0);
    }
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}

#[test]
fn a_node_that_is_left_for_inspection_goes_on_when_it_is_retried() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", app(&quick("batch = 3")), 0);
    let sick = farm.path("sick");
    std::fs::write(&sick, "").unwrap();
    let smoke = format!("test {{node}} != web-01 || test ! -e {}", sick.display());
    let strategy = format!(
        "batch = 1\nmonitor = \"0s\"\non_node_failure = \"leave\"\n\
         [[smoke]]\nname = \"disk\"\ncommand = [\"sh\", \"-c\", \"{smoke}\"]"
    );
    let said = deploy(&farm, "1.1.0", app(&strategy), 3);
    assert!(said.contains("web-01") && said.contains("disk"), "{said}");
    let node = farm.wait("/api/v1/nodes/web-01", |node| node["apps"][0]["traffic"] == "out");
    assert_eq!(node.unwrap()["apps"][0]["release"], "1.1.0", "it is as it failed");
    std::fs::remove_file(&sick).unwrap();
    run(&farm, &["rollout", "retry", "shop/prod", "web-01"], 0);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["nodes"][0]["attempt"], 2, "{view}");
    assert_eq!(versions(&farm, "1.1.0"), 3);
}

#[test]
fn a_deadline_holds_and_an_approval_is_waited_for() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", app(&quick("batch = 3")), 0);
    // Each node is watched for longer than half of the deadline.
    deploy(&farm, "1.1.0", app("batch = 1\nmonitor = \"700ms\"\ndeadline = \"1s\""), 3);
    let view = farm.rollout(|view| view["hold"]["kind"] == "deadline").unwrap();
    assert!(versions(&farm, "1.1.0") < 3, "{view}");
    run(&farm, &["rollout", "resume", "shop/prod"], 0);
    farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(versions(&farm, "1.1.0"), 3);

    deploy(&farm, "1.2.0", app("batch = 1\nmonitor = \"0s\"\napprove_after = [1, 2]"), 3);
    for (done, batch) in [(1, "batch 1 of 3"), (2, "batch 2 of 3")] {
        let view = farm
            .rollout(|view| view["hold"]["text"].as_str().is_some_and(|it| it.contains(batch)))
            .unwrap();
        assert_eq!((&view["hold"]["kind"], versions(&farm, "1.2.0")), (&"approval".into(), done));
        run(&farm, &["rollout", "promote", "shop/prod", "-m", "graphs look fine"], 0);
    }
    farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(versions(&farm, "1.2.0"), 3);
    let audit = run(&farm, &["audit"], 0);
    assert!(audit.contains("graphs look fine"), "{audit}");
}

#[test]
fn nodes_that_are_offline() {
    let mut farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", app(&quick("batch = 3")), 0);
    farm.nodes[1].kill().unwrap();
    farm.wait("/api/v1/nodes/web-02", |node| node["state"] == "offline").unwrap();

    let said = deploy(&farm, "1.1.0", app(&quick("batch = 1\nmax_unavailable = 1")), 1);
    assert!(said.contains("web-02") && said.contains("max_unavailable"), "{said}");

    deploy(&farm, "1.1.0", app(&quick("batch = 1\noffline = \"fail\"")), 3);
    let view = farm.rollout(|view| view["hold"]["kind"] == "failures").unwrap();
    assert_eq!((&view["nodes"][1]["state"], versions(&farm, "1.1.0")), (&"failed".into(), 0));
    run(&farm, &["rollout", "skip", "shop/prod", "web-02"], 0);
    farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(versions(&farm, "1.1.0"), 2, "the others went on without it");

    begin(&farm, "1.2.0", app(&quick("batch = 1\noffline = \"wait\"")));
    let view = farm.rollout(|view| view["hold"]["kind"] == "offline").unwrap();
    assert!(view["hold"]["text"].as_str().unwrap().contains("web-02"), "{view}");
    farm.nodes[1] = farm.start_node(2).unwrap();
    farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(versions(&farm, "1.2.0"), 3);
}
