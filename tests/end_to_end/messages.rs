//! Everything that is said, as one text: sessions with real processes, compared with `docs/messages/*.md` and written
//! anew with `ROTA_BLESS=1`. What differs from run to run is replaced by named rules (see `transcript.rs`).

use std::fs;
use std::path::Path;

use rota_tests::farm::{App, Farm};

use super::evidence::signal;
use super::operators::but_not_on;
use super::transcript::Session;

const SIMPLE: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// Fails its home page's smoke test.
const BROKEN: App<'_> = App { args: &["--broken-page"], ..SIMPLE };

const DEPLOY: &str = "rota deploy --env prod --version";

fn deploy(version: &str) -> String {
    format!("{DEPLOY} {version}")
}

#[test]
fn deploying() {
    let farm = Farm::start(3).unwrap();
    farm.write_app(SIMPLE).unwrap();
    let mut page = Session::new(&farm, "deploy", "From nothing to a second release.");
    page.part("Before anything is deployed");
    page.rota("rota check");
    page.rota("rota node ls");
    page.rota("rota edge ls");
    page.rota("rota pool ls");
    page.rota("rota status");
    page.rota("rota rollout ls");
    page.rota("rota release ls");
    page.rota("rota rollout history shop --env prod");
    page.part("The first release");
    page.rota("rota plan --version 1.0.0 --env prod");
    page.rota("rota deploy --version 1.0.0 --env prod -m \"the first one\"");
    page.part("The same once more: every node runs it already");
    page.rota(&deploy("1.0.0"));
    page.part("The next release, started and left alone");
    page.rota(&format!("{} -m \"faster search\" --detach", deploy("1.1.0")));
    farm.rollout(|view| view["state"] == "completed").unwrap();
    page.rota("rota rollout status shop/prod");
    page.rota("rota rollout status shop/prod -w");
    page.rota("rota rollout inspect shop/prod");
    page.rota("rota rollout history shop --env prod");
    page.rota("rota rollout ls");
    page.rota("rota release ls shop");
    page.rota("rota status");
    page.rota("rota node inspect web-01");
    page.part("Back, and a restart");
    page.rota("rota rollout undo shop --env prod -m \"errors since 1.1.0\"");
    page.rota("rota restart shop --env prod -m \"new certificates\"");
    page.rota("rota rollout history shop --env prod");
    page.part("What is left in the logs");
    page.rota("rota events --app shop --env prod");
    page.rota("rota audit");
    page.compare();
}

/// Waits until this node (from 0) has failed and the rollout is held.
fn held_by(farm: &Farm, node: usize) {
    let held = |view: &serde_json::Value| {
        view["state"] == "held" && view["nodes"][node]["state"] == "restored"
    };
    farm.rollout(held).unwrap();
}

#[test]
fn failing() {
    let farm = Farm::start(3).unwrap();
    let mut page = Session::new(&farm, "failures", "A release that fails its smoke test.");
    farm.write_app(SIMPLE).unwrap();
    page.quietly(&deploy("1.0.0"));
    page.part("It stops: on_failure = \"pause\"");
    farm.write_app(BROKEN).unwrap();
    page.rota(&format!("{} -m \"faster search\"", deploy("1.1.0")));
    page.rota("rota rollout status shop/prod");
    page.rota("rota status");
    page.part("Once more, then without the node, then not at all");
    page.rota("rota rollout retry shop/prod web-01");
    farm.rollout(|view| view["state"] == "held" && view["nodes"][0]["attempt"] == 2).unwrap();
    page.rota("rota rollout skip shop/prod web-01");
    held_by(&farm, 1);
    page.rota("rota rollout resume shop/prod");
    held_by(&farm, 2);
    page.rota("rota rollout abort shop/prod -m \"1.1.0 is broken\"");
    farm.rollout(|view| !view["finished_at"].is_null()).unwrap();
    page.rota("rota rollout status shop/prod -w");
    page.part("It turns round: on_failure = \"rollback\"");
    let back = App { strategy: "batch = 1\nmonitor = \"0s\"\non_failure = \"rollback\"", ..BROKEN };
    farm.write_app(back).unwrap();
    page.rota(&deploy("1.2.0"));
    page.rota("rota rollout inspect shop/prod");
    page.part("It goes on: on_failure = \"continue\"");
    let picky = but_not_on("web-02", "max_failures = 1\non_failure = \"continue\"");
    farm.write_app(App { strategy: &picky, ..SIMPLE }).unwrap();
    page.rota(&deploy("1.3.0"));
    page.rota("rota status");
    page.part("The node is left out for inspection: on_node_failure = \"leave\"");
    let leave = but_not_on("web-01", "on_node_failure = \"leave\"");
    farm.write_app(App { strategy: &leave, ..SIMPLE }).unwrap();
    page.rota(&deploy("1.4.0"));
    page.rota("rota status");
    page.rota("rota rollout rollback shop/prod --yes -m \"seen enough\"");
    farm.rollout(|view| view["state"] == "rolled_back").unwrap();
    page.rota("rota rollout status shop/prod");
    page.compare();
}

#[test]
fn failing_before_the_first_node() {
    let farm = Farm::start(2).unwrap();
    let mut page = Session::new(&farm, "once", "The once-per-release job fails, or hangs.");
    let strategy = "[once]\ncommand = [\"sh\", \"-c\", \"echo no such table; exit 4\"]";
    farm.write_app(App { strategy, ..App::default() }).unwrap();
    page.rota(&deploy("1.0.0"));
    page.rota("rota rollout status shop/prod");
    page.rota("rota rollout resume shop/prod");
    page.rota("rota rollout promote shop/prod");
    page.rota("rota rollout retry shop/prod");
    farm.rollout(|view| view["state"] == "held").unwrap();
    page.rota("rota rollout abort shop/prod");
    page.rota("rota rollout rollback shop/prod");
    page.rota("rota rollout retry shop/prod");
    page.compare();
}

#[test]
fn steering() {
    let farm = Farm::start(3).unwrap();
    let mut page = Session::new(&farm, "steer", "Rollouts that wait, and what is asked of them.");
    farm.write_app(SIMPLE).unwrap();
    page.quietly(&deploy("1.0.0"));
    page.part("Approvals");
    let approve = App { strategy: "batch = 1\nmonitor = \"0s\"\napprove_after = [1]", ..SIMPLE };
    farm.write_app(approve).unwrap();
    page.rota(&deploy("1.1.0"));
    page.rota("rota rollout promote shop/prod -m \"looks well\"");
    farm.rollout(|view| view["state"] == "completed").unwrap();
    page.part("Pause and go on");
    page.quietly(&format!("{} --detach", deploy("1.2.0")));
    farm.rollout(|view| view["hold"]["kind"] == "approval").unwrap();
    page.rota("rota rollout pause shop/prod -m \"looking at errors\"");
    page.rota("rota rollout status shop/prod -w");
    page.rota("rota status");
    page.rota("rota rollout resume shop/prod");
    page.part("Another one while it runs");
    farm.write_app(SIMPLE).unwrap();
    page.rota(&deploy("1.3.0"));
    page.rota("rota plan --version 1.3.0 --env prod");
    page.rota("rota rollout undo shop --env prod");
    page.rota("rota restart shop --env prod");
    page.part("Back while it runs");
    // Nobody carries it out until it was asked for twice.
    signal("-STOP", farm.nodes[0].pid());
    page.rota("rota rollout rollback shop/prod --yes");
    page.rota("rota rollout rollback shop/prod --yes");
    signal("-CONT", farm.nodes[0].pid());
    farm.rollout(|view| view["state"] == "rolled_back").unwrap();
    page.rota("rota rollout status shop/prod -w");
    page.rota("rota rollout rollback shop/prod --yes");
    page.part("A freeze");
    page.rota("rota env freeze prod -m \"sale\"");
    page.rota("rota env ls");
    page.rota(&deploy("1.3.0"));
    page.rota("rota env unfreeze prod");
    page.rota("rota env unfreeze prod");
    page.part("A node for maintenance");
    page.rota("rota node drain web-03 -m \"new disk\"");
    page.rota("rota node drain web-03");
    farm.wait("/api/v1/nodes/web-03", |node| node["apps"][0]["traffic"] == "out").unwrap();
    page.rota("rota status");
    page.rota("rota node undrain web-03");
    farm.wait("/api/v1/nodes/web-03", |node| node["apps"][0]["traffic"] == "in").unwrap();
    page.rota("rota node label web-03 zone=b");
    page.rota("rota node inspect web-03");
    page.part("The controller itself");
    page.rota("rota controller ls");
    page.rota("rota controller drain c1");
    page.rota("rota controller drain c1 --handover");
    page.rota("rota controller drain c1 --force --wait");
    page.rota(&deploy("1.3.0"));
    page.rota("rota controller undrain c1");
    page.compare();
}

const UNKNOWN: [&str; 16] = [
    "rota rollout status shop/prod",
    "rota rollout pause shop/prod",
    "rota rollout retry shop/prod/9",
    "rota rollout undo shop --env prod",
    "rota restart shop --env prod",
    "rota rollout start shop --release 9.9.9 --env prod",
    "rota rollout history nope --env prod",
    "rota release inspect shop 9.9.9",
    "rota release rm shop 9.9.9 --yes",
    "rota node inspect web-99",
    "rota node drain web-99",
    "rota pool inspect nope",
    "rota controller drain c9",
    "rota token rm 0123456789abcdef",
    "rota env unfreeze prod",
    "rota deploy --version 1.0.0 --env test",
];

const OVER: [&str; 7] = [
    "rota rollout pause shop/prod/1",
    "rota rollout rollback shop/prod/1",
    "rota rollout retry shop/prod/1",
    "rota rollout undo shop --env prod",
    "rota rollout undo shop --env prod --to-revision 7",
    "rota release rm shop 1.0.0 --yes",
    "rota rollout skip shop/prod/1 web-01",
];

const SLIPS: [&str; 6] = [
    "rota rollout pause shop",
    "rota rollout frobnicate",
    "rota deploy --version 1.0.0",
    "rota deploy --version 1.0.0 --env Prod",
    "rota node label web-01 zone",
    "rota -o json rollout pause shop",
];

const VIEWERS: [&str; 7] = [
    "rota rollout pause shop/prod",
    "rota deploy --version 1.1.0 --env prod",
    "rota node drain web-01",
    "rota env freeze prod -m sale",
    "rota token ls",
    "rota audit",
    "rota -o json node rm web-01 --yes",
];

#[test]
fn refusing() {
    let farm = Farm::start(1).unwrap();
    let mut page = Session::new(&farm, "refused", "What cannot be done, why, and what can.");
    let manifest = farm.write_app(SIMPLE).unwrap();
    page.part("What nobody ever heard of");
    page.all(&UNKNOWN);
    page.part("What is over, current or needed");
    page.quietly(&deploy("1.0.0"));
    page.all(&OVER);
    page.part("A version that exists with other bytes");
    fs::write(farm.path("app/dist/more"), "other bytes").unwrap();
    page.rota(&deploy("1.0.0"));
    page.part("A slip on the command line");
    page.all(&SLIPS);
    page.part("A slip in the manifest");
    let good = fs::read_to_string(&manifest).unwrap();
    for (right, wrong) in [
        ("batch = 1", "batch = 0"),
        ("[strategy]\n", "[strategy]\nbatches = 2\n"),
        ("monitor = \"0s\"", "monitor = \"5\""),
        ("\"web\"", "\"nobody\""),
        ("pool = \"shop\"", "pool = \"other\""),
    ] {
        assert!(good.contains(right), "{good}");
        fs::write(&manifest, good.replace(right, wrong)).unwrap();
        page.rota("rota plan --version 2.0.0 --env prod");
    }
    fs::remove_file(&manifest).unwrap();
    page.rota("rota check");
    page.part("A viewer");
    fs::write(&manifest, good).unwrap();
    page.viewer();
    page.all(&VIEWERS);
    page.part("No controller, no context");
    page.context(Path::new("nowhere.toml"));
    page.rota("rota status");
    let admin = farm.path("controller/admin.toml");
    page.context(&admin);
    let pid = farm.controller.pid().to_string();
    std::process::Command::new("kill").args(["-KILL", &pid]).status().unwrap();
    let address = farm.controller.told("grpc").unwrap();
    while std::net::TcpStream::connect(address).is_ok() {
        std::thread::yield_now(); // the kernel takes its time to close what it listened at
    }
    page.rota("rota status");
    page.rota("rota rollout pause shop/prod");
    page.rota("rota -o json status");
    page.compare();
}

/// Whatever prints data prints it as JSON when asked, and nothing else.
#[test]
fn everything_is_json_when_asked() {
    let farm = Farm::start(1).unwrap();
    farm.write_app(SIMPLE).unwrap();
    let json = |line: &str| {
        let words: Vec<&str> = line.split(' ').chain(["-o", "json"]).collect();
        let mut rota = farm.rota();
        let told = rota.args(&words).current_dir(farm.path("app")).output().unwrap();
        assert!(told.status.success(), "{line}: {told:?}");
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        let whole = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        assert!(whole, "{line} prints no document: {text}");
        assert!(told.stderr.is_empty(), "{line}: {told:?}");
    };
    let deploys = ["check", "plan --version 1.0.0 --env prod", "deploy --version 1.0.0 --env prod"];
    let more = [
        "release push --version 1.1.0",
        "rollout start shop --release 1.1.0 --env prod",
        "restart shop --env prod --detach",
    ];
    for line in deploys.into_iter().chain(more) {
        json(line);
    }
    farm.rollout(|view| view["revision"] == 3 && view["state"] == "completed").unwrap();
    for line in [
        "status",
        "rollout ls",
        "rollout status shop/prod",
        "rollout inspect shop/prod/1",
        "rollout history shop --env prod",
        "release ls",
        "release inspect shop 1.0.0",
        "node ls",
        "node inspect web-01",
        "node drain web-01 --force -m disk",
        "node undrain web-01",
        "node label web-01 zone=a",
        "edge ls",
        "pool ls",
        "pool inspect shop",
        "env ls",
        "env freeze prod -m sale",
        "env unfreeze prod",
        "controller ls",
        "token create --for agent",
        "token ls",
        "events",
        "audit",
    ] {
        json(line);
    }
}
