//! Several controllers: one dies, stands still, is cut off or is taken out of service, and no rollout notices.

use std::time::Duration;

use rota_identity::{IdentityFiles, Kind};
use rota_proto::agent::FetchRequest;
use rota_proto::agent::fleet_client::FleetClient;
use rota_tests::farm::App;
use rota_tests::load::Load;
use rota_tests::relay::Relay;
use rota_tests::several::{Several, Size, until};
use rota_tests::takeover::{Harm, suffer};
use serde_json::Value;
use tonic::Code;

use super::security::{call, runtime};
use super::{CLIENTS, text};

/// One edge, and as few of the rest as show it.
const SIZE: Size = Size { etcd: 3, controllers: 3, nodes: 4 };

/// Longer than a lease.
const AWAY: Duration = Duration::from_secs(8);

const APP: App<'static> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"300ms\"" };

/// So slow that it is still open when it is paused and followed from elsewhere.
const SLOW: App<'static> = App { strategy: "batch = 1\nmonitor = \"1s\"", ..APP };

/// Begins with 1.0.0 everywhere, under load; `None` where there is no etcd.
fn served() -> Option<(Several, Load)> {
    let farm = Several::start(SIZE).unwrap()?;
    farm.begin(0, "1.0.0", APP).unwrap();
    let over = |view: &Value| view["state"] == "completed";
    farm.wait(0, "/api/v1/rollouts/shop/prod", over).unwrap();
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    Some((farm, load))
}

/// Every node began each version once.
fn each_begun_once(farm: &Several, versions: usize) {
    for node in &farm.nodes {
        let begun = node.log().matches(" begins, attempt ").count();
        assert_eq!(begun, versions, "{}", node.log());
    }
}

#[test]
fn whatever_happens_to_its_owner_a_rollout_completes_and_nobody_is_cut_off() {
    let Some((mut farm, load)) = served() else { return };
    let harms = [
        (Harm::Kill, 2),
        (Harm::Kill, 15),
        (Harm::Kill, 31),
        (Harm::Pause(AWAY), 12),
        (Harm::NoStore(AWAY), 12),
        (Harm::NoAgents(AWAY), 12),
        (Harm::Alone(AWAY), 12),
        (Harm::Leader, 12),
        (Harm::NoQuorum(AWAY), 12),
    ];
    for (number, harm) in harms.into_iter().enumerate() {
        let row = suffer(&mut farm, &format!("1.1.{number}"), APP, harm).unwrap();
        println!("{row}");
        if harm.0 == Harm::Kill {
            assert!(row.claimed.is_some(), "somebody took it over: {row}");
        }
    }
    let (served, failed) = load.stop();
    assert_eq!(failed, 0, "of {served}");
    each_begun_once(&farm, 1 + harms.len());
}

fn states(list: &Value) -> String {
    let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let state = |it: &Value| it["state"].as_str().unwrap_or_default().to_owned();
    all.iter().map(state).collect::<Vec<_>>().join(" ")
}

/// As `docs/upgrade.md` has it: one after the other is drained, stopped, started, and takes part again, while rollouts
/// go on.
#[test]
fn controllers_are_rolled_one_by_one_while_rollouts_go_on() {
    let Some((mut farm, load)) = served() else { return };
    for at in 0..SIZE.controllers {
        let version = format!("1.1.{at}");
        let name = farm.controllers[at].name.clone();
        let other = (at + 1) % SIZE.controllers;
        farm.begin(other, &version, APP).unwrap();
        let drained = farm.run(other, &["controller", "drain", &name, "--handover", "--wait"]);
        let drained = drained.unwrap();
        assert_eq!(drained.status.code(), Some(0), "{}", text(&drained));
        let ready = farm.status(at, "/readyz").unwrap();
        assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
        farm.terminate(at).unwrap();
        farm.wait(other, "/api/v1/controllers", |list| states(list).contains("drained")).unwrap();
        farm.start_controller(at).unwrap();
        farm.wait(other, "/api/v1/controllers", |list| states(list) == "active active active")
            .unwrap();
        let over = |view: &Value| view["to"] == *version && !view["finished_at"].is_null();
        let view = farm.wait(other, "/api/v1/rollouts/shop/prod", over).unwrap();
        assert_eq!(view["state"], "completed", "{view}");
        for at in 0..SIZE.controllers {
            farm.all_here(at, SIZE.nodes).unwrap();
        }
    }
    let (served, failed) = load.stop();
    assert_eq!(failed, 0, "of {served}");
    each_begun_once(&farm, 1 + SIZE.controllers);
}

/// An operator who knew one controller has learned the others by the time that one is gone.
#[test]
fn the_command_line_learns_the_controllers() {
    let Some(mut farm) = Several::start(Size { nodes: 1, ..SIZE }).unwrap() else { return };
    let context = farm.path("learned.toml");
    std::fs::copy(farm.path("c1/admin.toml"), &context).unwrap();
    let ask = |farm: &Several| {
        let mut command = farm.rota(0);
        text(&command.env("ROTA_CONTEXT", &context).args(["node", "ls"]).output().unwrap())
    };
    assert!(ask(&farm).contains("web-01"));
    farm.kill(0).unwrap();
    for _ in 0..5 {
        let said = ask(&farm);
        assert!(said.contains("web-01"), "{said}");
    }
}

/// Whoever is asked: the answer is the same, and what one was told the others know.
#[test]
fn any_controller_answers_and_decides() {
    let Some((farm, load)) = served() else { return };
    let said = |at: usize, args: &[&str], code: i32| {
        let output = farm.run(at, args).unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "c{} {args:?}: {said}", at + 1);
        said
    };
    for at in 0..SIZE.controllers {
        let next = (at + 1) % SIZE.controllers;
        let why = format!("sale {at}");
        said(at, &["env", "freeze", "prod", "-m", &why], 0);
        let refused =
            said(next, &["rollout", "start", "shop", "--release", "1.0.0", "--env", "prod"], 1);
        assert!(refused.contains(&why), "{refused}");
        said(next, &["env", "unfreeze", "prod"], 0);
        said(at, &["node", "drain", "web-01", "--wait", "-m", "work"], 0);
        assert!(said(next, &["node", "ls"], 0).contains("drained"));
        said(next, &["node", "undrain", "web-01", "--wait"], 0);
        said(at, &["node", "label", "web-02", &format!("zone=z{at}")], 0);
        let inspected = said(next, &["node", "inspect", "web-02", "-o", "json"], 0);
        assert!(inspected.contains(&format!("z{at}")), "{inspected}");
        // A rollout that somebody else runs is paused, resumed and followed from here.
        let version = format!("1.2.{at}");
        farm.begin(at, &version, SLOW).unwrap();
        said(next, &["rollout", "pause", "shop/prod", "-m", "look"], 0);
        assert!(said(at, &["rollout", "status", "shop/prod"], 0).contains("paused"));
        said(at, &["rollout", "resume", "shop/prod"], 0);
        said(next, &["rollout", "status", "shop/prod", "-w"], 0);
        let history = said(at, &["rollout", "history", "shop", "--env", "prod", "-o", "json"], 0);
        assert_eq!(
            history,
            said(next, &["rollout", "history", "shop", "--env", "prod", "-o", "json"], 0)
        );
    }
    // What gives way frees its node in the same turn in which the other begins there.
    farm.begin(0, "1.3.0", SLOW).unwrap();
    let back = ["rollout", "start", "shop", "--release", "1.0.0", "--env", "prod", "--supersede"];
    said(1, &back, 0);
    let is_back = |view: &Value| view["to"] == "1.0.0" && view["state"] == "completed";
    farm.wait(2, "/api/v1/rollouts/shop/prod", is_back).unwrap();
    let last =
        said(0, &["controller", "drain", "c1"], 0) + &said(0, &["controller", "drain", "c2"], 0);
    assert!(last.contains("takes nothing new"), "{last}");
    let refused = said(1, &["controller", "drain", "c3"], 1);
    assert!(refused.contains("--force"), "{refused}");
    for name in ["c1", "c2"] {
        said(2, &["controller", "undrain", name], 0);
    }
    // Nobody ordered this for the node, as far as a controller can know.
    farm.controllers[2].to_store.iter().for_each(Relay::cut);
    assert!(until(|| farm.status(2, "/readyz").filter(|head| head.contains("503"))).is_some());
    for (at, code) in [(0, Code::PermissionDenied), (2, Code::Unavailable)] {
        let address = farm.controllers[at].from_others.address.to_string();
        let node = IdentityFiles::load(&farm.path("web-01/identity")).unwrap().unwrap();
        let refused = runtime().block_on(async {
            let digest = "0".repeat(64);
            let mut fleet = FleetClient::new(call(&address, &node, Kind::Controller).await);
            fleet.fetch(FetchRequest { digest, offset: 0 }).await.unwrap_err()
        });
        assert_eq!(refused.code(), code, "{refused}");
    }
    let (served, failed) = load.stop();
    assert_eq!(failed, 0, "of {served}");
}
