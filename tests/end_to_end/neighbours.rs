//! Two versions beside each other: this one and the one before (`ROTA_BEFORE`), as controllers and as agents, forward
//! and back again; and what is newer than both.

use std::fs;
use std::sync::Arc;

use rota::store::etcd::EtcdStore;
use rota::store::{Op, Store, Txn, scan_all};
use rota_tests::farm::App;
use rota_tests::load::Load;
use rota_tests::processes::Programs;
use rota_tests::several::{Several, Size, until};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::{CLIENTS, text};

const SIZE: Size = Size { etcd: 3, controllers: 3, nodes: 4 };

/// So slow that a controller is exchanged while it goes on.
const APP: App<'static> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"3s\"" };

/// Of the store: everything that is not held by a lease, or is no record.
const RECORDS: [&str; 9] = [
    "/controllers/",
    "/edges/",
    "/envs/",
    "/events/",
    "/fleets/",
    "/nodes/",
    "/releases/",
    "/rollouts/",
    "/summaries/",
];

/// The store, as the test reads and writes it beside the controllers.
struct Records {
    runtime: Runtime,
    store: Arc<EtcdStore>,
}

impl Records {
    fn of(farm: &Several) -> Self {
        let runtime = Runtime::new().unwrap();
        let store = runtime.block_on(EtcdStore::open(farm.etcd.url().parse().unwrap())).unwrap();
        Self { runtime, store }
    }

    fn change(&self, ops: Vec<Op>) {
        self.runtime.block_on(self.store.commit(Txn { compares: Vec::new(), ops })).unwrap();
    }

    /// As a newer version would write it, which knows one thing more of everything.
    fn add_to_everything(&self) {
        let mut changed = 0;
        for prefix in RECORDS {
            let all = self.runtime.block_on(scan_all(self.store.as_ref(), prefix)).unwrap().0;
            for entry in all {
                let text = String::from_utf8(entry.value).unwrap();
                let more = format!(
                    "{},\"of_the_future\":{{\"a\":[1]}}}}",
                    text.strip_suffix('}').unwrap()
                );
                self.change(vec![Op::put(entry.key, more.into_bytes())]);
                changed += 1;
            }
        }
        assert!(changed > 20, "{changed}");
    }

    fn text_of(&self, key: &str) -> String {
        let entry = self.runtime.block_on(self.store.get(key)).unwrap();
        String::from_utf8(entry.unwrap_or_else(|| panic!("{key}")).value).unwrap()
    }
}

fn said(farm: &Several, at: usize, args: &[&str], code: i32) -> String {
    let output = farm.run(at, args).unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(code), "c{} {args:?}: {said}", at + 1);
    said
}

/// The newest rollout is over: it completed, and asked nobody twice.
fn completes(farm: &Several, at: usize, version: &str) {
    let over = |view: &Value| view["to"] == *version && !view["finished_at"].is_null();
    let view = farm.wait(at, "/api/v1/rollouts/shop/prod", over).unwrap();
    assert_eq!(view["state"], "completed", "{view}");
    for node in view["nodes"].as_array().unwrap() {
        assert_eq!((&node["attempt"], &node["state"]), (&1.into(), &"done".into()), "{view}");
    }
}

fn all_active(farm: &Several, seen_by: usize) {
    let active = |list: &Value| {
        let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
        all.len() == SIZE.controllers && all.iter().all(|it| it["state"] == "active")
    };
    farm.wait(seen_by, "/api/v1/controllers", active).unwrap();
}

/// The page that operators follow has what they were told.
fn is_on_the_page(said: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/upgrade.md");
    let page = words(&fs::read_to_string(path).unwrap());
    assert!(page.contains(&words(said)), "docs/upgrade.md has not: {said}");
}

/// The end of what a controller says that does not start.
fn last_words(farm: &mut Several, at: usize) -> String {
    let refused = farm.start_controller(at).unwrap_err().to_string();
    let error = "error: the controller cannot go on";
    let (_, said) = refused.split_once(error).unwrap_or_else(|| panic!("{refused}"));
    format!("{error}{said}")
}

/// Without line breaks and columns.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// As `docs/upgrade.md` has it, exchanges a controller for one of these programs while a rollout goes on.
fn exchange(farm: &mut Several, at: usize, version: &str, programs: &Programs) {
    let name = farm.controllers[at].name.clone();
    let other = (at + 1) % SIZE.controllers;
    farm.begin(at, version, APP).unwrap();
    assert_eq!(farm.owner(other).unwrap(), at, "nobody was nearer");
    let told = said(farm, other, &["controller", "drain", &name, "--handover", "--wait"], 0);
    is_on_the_page(&told.replace(&name, "c1"));
    let ready = farm.status(at, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    farm.terminate(at).unwrap();
    let held = std::mem::replace(&mut farm.programs, programs.clone());
    farm.start_controller(at).unwrap();
    farm.programs = held;
    let going_on = farm.read(other, "/api/v1/rollouts/shop/prod").unwrap();
    let view: Value = serde_json::from_str(&going_on).unwrap();
    assert!(
        view["to"] == *version && view["finished_at"].is_null(),
        "it went on meanwhile: {view}"
    );
    all_active(farm, other);
    completes(farm, other, version);
    for at in 0..SIZE.controllers {
        farm.all_here(at, SIZE.nodes).unwrap();
    }
}

/// What operators ask all day, with a command line of one version at controllers of both.
fn is_understood(farm: &mut Several, programs: &Programs) {
    let held = std::mem::replace(&mut farm.programs, programs.clone());
    for at in 0..SIZE.controllers {
        for args in [
            &["status"][..],
            &["controller", "ls"],
            &["node", "ls"],
            &["node", "inspect", "web-01"],
            &["rollout", "status", "shop/prod"],
            &["rollout", "inspect", "shop/prod"],
            &["rollout", "history", "shop", "--env", "prod"],
            &["events"],
            &["audit"],
            &["env", "freeze", "prod", "-m", "sale"],
            &["env", "unfreeze", "prod"],
            &["node", "label", "web-02", "zone=a"],
            &["node", "drain", "web-02", "--wait", "-m", "work"],
            &["node", "undrain", "web-02", "--wait"],
        ] {
            said(farm, at, args, 0);
        }
    }
    farm.programs = held;
}

#[test]
fn from_the_version_before_to_this_one_and_a_step_back() {
    let Some(before) = Programs::before().unwrap() else { return };
    let now = Programs::build().unwrap();
    let Some(mut farm) = Several::start_of(before.clone(), SIZE).unwrap() else { return };
    farm.begin(0, "1.0.0", APP).unwrap();
    completes(&farm, 0, "1.0.0");
    let (records, load) = (Records::of(&farm), Load::start(farm.pool().unwrap(), CLIENTS));
    // Controllers first, one by one. After the first one the two versions share everything.
    exchange(&mut farm, 0, "1.1.0", &now);
    records.add_to_everything();
    is_understood(&mut farm, &before);
    is_understood(&mut farm, &now);
    exchange(&mut farm, 1, "1.1.1", &now);
    let fleet = records.text_of("/fleets/shop/prod");
    assert!(!fleet.contains("of_the_future"), "who does not know it drops it: {fleet}");
    exchange(&mut farm, 2, "1.1.2", &now);
    // One is stepped back: beside new ones, and over what they wrote.
    records.add_to_everything();
    exchange(&mut farm, 2, "1.2.0", &before);
    // Agents: a node's, told what to do by a controller of the version before, behind an edge of that; then the edge's.
    farm.programs = now.clone();
    farm.begin(2, "1.3.0", APP).unwrap();
    assert_eq!(farm.owner(0).unwrap(), 2);
    farm.restart_node(0).unwrap();
    completes(&farm, 0, "1.3.0");
    farm.begin(0, "1.3.1", APP).unwrap();
    farm.restart_edge().unwrap();
    completes(&farm, 2, "1.3.1");
    for owner in 0..SIZE.controllers {
        farm.all_here(owner, SIZE.nodes).unwrap();
    }
    exchange(&mut farm, 2, "1.4.0", &now);
    farm.begin(0, "1.4.1", APP).unwrap();
    for node in 1..SIZE.nodes {
        farm.restart_node(node).unwrap();
    }
    completes(&farm, 0, "1.4.1");
    let versions = 9;
    let (served, failed) = load.stop();
    assert_eq!(failed, 0, "of {served}");
    for node in &farm.nodes {
        let begun = node.log().matches(" begins, attempt 1").count();
        assert_eq!(begun, versions, "{}", node.log());
    }
}

/// Nobody goes on with half of what was decided: neither those that run, nor one that starts.
#[test]
fn what_cannot_be_read_stops_controllers_and_nobody_else() {
    let size = Size { etcd: 1, controllers: 2, nodes: 2 };
    let Some(mut farm) = Several::start(size).unwrap() else { return };
    farm.begin(0, "1.0.0", APP).unwrap();
    completes(&farm, 0, "1.0.0");
    let (records, load) = (Records::of(&farm), Load::start(farm.pool().unwrap(), CLIENTS));
    farm.begin(0, "1.1.0", APP).unwrap();
    let newer = br#"{"v":2,"frozen":{"of":"the future"},"windows":[]}"#.to_vec();
    records.change(vec![Op::put("/envs/prod", newer)]);
    let named =
        "/envs/prod: it has version 2 and this program knows 1; a newer `rota serve` wrote it";
    for at in 0..size.controllers {
        let stopped = || farm.status(at, "/readyz").filter(|it| it.contains(named));
        let ready = until(stopped).expect("it says which record it cannot read");
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        let refused = said(&farm, at, &["env", "unfreeze", "prod"], 1);
        assert!(refused.contains(named), "{refused}");
        farm.wait(at, "/api/v1/controllers", |list| list[at]["state"] == "lost").unwrap();
        let view =
            farm.wait(at, "/api/v1/rollouts/shop/prod", |it| it["hold"].is_object()).unwrap();
        assert!(view["hold"]["text"].as_str().unwrap().contains(named), "{view}");
    }
    farm.kill(1).unwrap();
    is_on_the_page(&last_words(&mut farm, 1));
    records.change(vec![Op::Delete("/envs/prod".to_owned())]);
    farm.wait(0, "/api/v1/rollouts/shop/prod", |it| it["hold"].is_null()).unwrap();
    completes(&farm, 0, "1.1.0");
    farm.start_controller(1).unwrap();
    farm.all_here(1, size.nodes).unwrap();
    let (served, failed) = load.stop();
    assert_eq!(failed, 0, "of {served}");
}

#[test]
fn versions_that_do_not_work_together_say_so() {
    let size = Size { etcd: 1, controllers: 2, nodes: 1 };
    let Some(mut farm) = Several::start(size).unwrap() else { return };
    farm.begin(0, "1.0.0", APP).unwrap();
    completes(&farm, 0, "1.0.0");
    said(&farm, 0, &["controller", "drain", "c1"], 0);
    let last = said(&farm, 0, &["controller", "drain", "c2"], 1);
    is_on_the_page(&last.replace("c2", "c3"));
    said(&farm, 0, &["controller", "undrain", "c1"], 0);
    let records = Records::of(&farm);
    let as_in = |speaks: u32| {
        let mut member: Value = serde_json::from_str(&records.text_of("/members/c1")).unwrap();
        (member["speaks"], member["version"]) = (speaks.into(), "9.0.0".into());
        let mut known: Value = serde_json::from_str(&records.text_of("/controllers/c1")).unwrap();
        known["version"] = "9.0.0".into();
        let put = |key: &str, value: Value| Op::put(key, value.to_string().into_bytes());
        vec![put("/controllers/c9", known), put("/members/c9", member)]
    };
    // A neighbour is one of them.
    records.change(as_in(rota::members::SPEAKS + 1));
    let is_there = |list: &Value| rota_tests::farm::count(list, "version", "9.0.0") == 1;
    farm.wait(1, "/api/v1/controllers", is_there).unwrap();
    farm.kill(1).unwrap();
    farm.start_controller(1).unwrap();
    assert!(farm.status(1, "/readyz").unwrap().starts_with("HTTP/1.1 200"));
    // Two steps are too many: whoever runs stops deciding, and nobody starts.
    records.change(as_in(rota::members::SPEAKS + 2));
    for at in 0..size.controllers {
        let named = "controller c9 is in with 9.0.0: the two do not work together";
        let stopped = || farm.status(at, "/readyz").filter(|it| it.contains(named));
        until(stopped).expect("it stops deciding");
    }
    farm.kill(1).unwrap();
    let said_of = |said: &str| {
        let said =
            said.replace(concat!("this is rota ", env!("CARGO_PKG_VERSION")), "this is rota 3.0.0");
        said.replace("c9 is in with 9.0.0", "c2 is in with 1.4.0")
    };
    is_on_the_page(&said_of(&last_words(&mut farm, 1)));
    records.change(vec![Op::Delete("/members/c9".to_owned())]);
    let works = || farm.status(0, "/readyz").filter(|it| it.starts_with("HTTP/1.1 200"));
    until(works).expect("it works again");
    farm.start_controller(1).unwrap();
    farm.all_here(1, size.nodes).unwrap();
}
