//! Nobody without the right certificate, token and role learns or changes anything; and what was refused is audited.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use rota_identity::{
    Expect, Fingerprint, IdentityFiles, Kind, client_config, connect, pinned_client_config,
};
use rota_proto::agent::fleet_client::FleetClient;
use rota_proto::agent::{FetchRequest, FromAgent};
use rota_proto::operator::ReadRequest;
use rota_proto::operator::operator_client::OperatorClient;
use rota_proto::traffic::traffic_client::TrafficClient;
use rota_proto::traffic::{MemberIntent, Want};
use rota_tests::farm::{App, ENV, Farm};
use rota_tests::load::Load;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::{CLIENTS, deploy, run, text};

const APP: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

fn token(farm: &Farm, args: &[&str]) -> String {
    let args: Vec<&str> =
        ["token", "create", "-q"].into_iter().chain(args.iter().copied()).collect();
    run(farm, &args, 0).trim().to_owned()
}

/// An agent that nobody invited properly.
fn join(farm: &Farm, token: &str, name: &str) -> Output {
    let mut command = Command::new(&farm.programs.agent);
    command.args(["run", "--controller", farm.controller.told("grpc").unwrap(), "--env", ENV]);
    command.args(["--name", name, "--role", "web", "--token", token, "--data"]);
    command.arg(farm.path(name)).output().unwrap()
}

#[test]
fn tokens_are_single_use_bound_and_expire() {
    let farm = Farm::start(1).unwrap();
    let other = Farm::start(0).unwrap();
    let used = token(&farm, &["--for", "operator", "--role", "viewer"]);
    let home = farm.path("home");
    let login = || login(&farm, &used, &home);
    let first = login();
    assert!(first.status.success(), "{}", text(&first));
    let expired = token(&farm, &["--for", "agent", "--ttl", "1ms"]);
    let rows = [
        (expired, "expired"),
        (token(&farm, &["--for", "edge"]), "this is a token for an edge, but an agent is joining"),
        (token(&farm, &["--for", "agent", "--name", "web-09"]), "is for agent `web-09`"),
        (token(&other, &["--for", "agent"]), "does not belong to the CA of the token"),
        ("rota-agent-x".to_owned(), "`--token` cannot be used"),
    ];
    for (token, told) in rows {
        let said = join(&farm, &token, "stranger");
        let words = text(&said);
        assert!(!said.status.success(), "{token}: {words}");
        assert!(words.contains(told), "{told:?} is not in: {words}");
    }
    let again = login();
    assert_eq!(again.status.code(), Some(6), "{}", text(&again));
    assert!(text(&again).contains("used already"), "{}", text(&again));
    let nodes = run(&farm, &["node", "ls", "-o", "json"], 0);
    assert!(!nodes.contains("stranger"), "{nodes}");
    let audit = run(&farm, &["audit", "-o", "json"], 0);
    for told in ["expired", "is for agent `web-09`", "used already"] {
        assert!(audit.contains(told), "{told:?} was not audited: {audit}");
    }
    let tokens = run(&farm, &["token", "ls", "-o", "json"], 0);
    assert!(!tokens.contains(used.rsplit('-').next().unwrap()), "secrets are not kept: {tokens}");
}

fn login(farm: &Farm, token: &str, home: &Path) -> Output {
    let mut command = Command::new(&farm.programs.rota);
    command.args(["login", farm.controller.told("grpc").unwrap(), "--token", token]);
    command.env_remove("ROTA_CONTEXT").env_remove("XDG_CONFIG_HOME").env("HOME", home);
    command.output().unwrap()
}

#[test]
fn a_viewer_sees_and_changes_nothing() {
    let farm = Farm::start(1).unwrap();
    deploy(&farm, "1.0.0", APP, 0);
    let home = farm.path("home");
    let viewer = token(&farm, &["--for", "operator", "--role", "viewer", "--name", "vera"]);
    assert!(login(&farm, &viewer, &home).status.success());
    let as_viewer = |args: &[&str]| {
        let mut command = Command::new(&farm.programs.rota);
        command.env_remove("ROTA_CONTEXT").env_remove("XDG_CONFIG_HOME").env("HOME", &home);
        command.args(args).output().unwrap()
    };
    let seen = as_viewer(&["status"]);
    assert!(seen.status.success() && text(&seen).contains("1.0.0"), "{}", text(&seen));
    let manifest = farm.write_app(APP).unwrap();
    let manifest = manifest.to_str().unwrap();
    let planned = as_viewer(&["plan", "-f", manifest, "--version", "1.1.0", "--env", ENV]);
    assert!(planned.status.success(), "a plan changes nothing: {}", text(&planned));
    let rows: [&[&str]; 8] = [
        &["deploy", "-f", manifest, "--version", "1.1.0", "--env", ENV, "--yes"],
        &["release", "push", "-f", manifest, "--version", "1.1.0"],
        &["rollout", "undo", "shop", "--env", ENV, "--yes"],
        &["restart", "shop", "--env", ENV],
        &["node", "drain", "web-01"],
        &["node", "rm", "web-01", "--yes"],
        &["env", "freeze", ENV, "-m", "mine"],
        &["token", "create", "--for", "operator", "--role", "admin"],
    ];
    for args in rows {
        let said = as_viewer(args);
        assert_eq!(said.status.code(), Some(6), "{args:?}: {}", text(&said));
    }
    assert!(run(&farm, &["release", "ls", "-o", "json"], 0).matches("\"version\"").count() == 1);
    let audit = run(&farm, &["audit", "-o", "json"], 0);
    assert!(audit.matches("operator vera").count() >= rows.len(), "{audit}");
}

/// A deployer starts rollouts, but no flag of his lifts an admin's freeze.
#[test]
fn glass_is_broken_by_admins() {
    let farm = Farm::start(1).unwrap();
    deploy(&farm, "1.0.0", APP, 0);
    let home = farm.path("home");
    let token = token(&farm, &["--for", "operator", "--role", "deployer", "--name", "dora"]);
    assert!(login(&farm, &token, &home).status.success());
    let as_deployer = |args: &[&str]| {
        let mut command = Command::new(&farm.programs.rota);
        command.env_remove("ROTA_CONTEXT").env_remove("XDG_CONFIG_HOME").env("HOME", &home);
        let output = command.args(args).output().unwrap();
        (output.status.code(), text(&output))
    };
    run(&farm, &["env", "freeze", ENV, "-m", "sale"], 0);
    let manifest = farm.write_app(APP).unwrap();
    let deploy = ["deploy", "-f", manifest.to_str().unwrap(), "--version", "1.1.0", "--env", ENV];
    let glass = ["--break-glass", "-m", "mine"];
    let restart = ["restart", "shop", "--env", ENV];
    for args in [&deploy[..], &restart] {
        let (code, said) = as_deployer(&[args, &glass].concat());
        assert_eq!(code, Some(6), "{args:?}: {said}");
        assert!(said.contains("to break the glass takes admin"), "{said}");
    }
    assert!(!run(&farm, &["release", "ls", "-o", "json"], 0).contains("1.1.0"));
    run(&farm, &["env", "unfreeze", ENV], 0);
    assert_eq!(as_deployer(&restart).0, Some(0));
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

pub async fn call(address: &str, own: &IdentityFiles, kind: Kind) -> Channel {
    let (own, roots) = (own.credentials().unwrap(), own.roots().unwrap());
    let config = client_config(&own, roots, Expect::Kind(kind)).unwrap();
    connect(address, config).await.unwrap()
}

#[test]
fn without_a_certificate_or_with_a_foreign_one_nothing_is_told() {
    let (farm, other) = (Farm::start(1).unwrap(), Farm::start(1).unwrap());
    let address = farm.controller.told("grpc").unwrap();
    runtime().block_on(async {
        let read = || Request::new(ReadRequest { path: "nodes".to_owned(), after: 0 });
        let ca = fs::read_to_string(farm.path("controller/identity/ca.pem")).unwrap();
        let pin = rota_identity::tls::certificates("ca.pem", &ca).unwrap();
        let pin = Fingerprint::of(pin.first().unwrap());
        let nobody = connect(address, pinned_client_config(pin).unwrap()).await.unwrap();
        let refused = OperatorClient::new(nobody).read(read()).await.unwrap_err();
        assert!(refused.message().contains("needs a certificate"), "{refused}");
        // A foreign certificate, whose holder even trusts our CA.
        let foreign = IdentityFiles::load(&other.path("web-01/identity")).unwrap().unwrap();
        let foreign = IdentityFiles { ca, ..foreign };
        let (own, roots) = (foreign.credentials().unwrap(), foreign.roots().unwrap());
        let config = client_config(&own, roots, Expect::Kind(Kind::Controller)).unwrap();
        let ended = match connect(address, Arc::clone(&config)).await {
            Ok(channel) => OperatorClient::new(channel).read(read()).await.is_err(),
            Err(_) => true,
        };
        assert!(ended, "a foreign certificate was let in");
        // A node's own certificate is good, but it is no operator.
        let node = IdentityFiles::load(&farm.path("web-01/identity")).unwrap().unwrap();
        let channel = call(address, &node, Kind::Controller).await;
        let refused = OperatorClient::new(channel).read(read()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    });
    let audit = run(&farm, &["audit", "-o", "json"], 0);
    assert!(audit.contains("needs a certificate") && audit.contains("node web-01"), "{audit}");
}

#[test]
fn a_node_gets_no_other_nodes_artifact_or_membership() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", APP, 0);
    let manifest = farm.write_app(APP).unwrap();
    fs::write(farm.path("app/dist/secret"), "of another release").unwrap();
    let manifest = manifest.to_str().unwrap();
    let pushed =
        run(&farm, &["release", "push", "-f", manifest, "--version", "2.0.0", "-o", "json"], 0);
    let start = pushed.find('{').unwrap();
    let pushed: serde_json::Value = serde_json::from_str(&pushed[start..]).unwrap();
    let digest = pushed["digest"].as_str().unwrap().to_owned();
    let node = IdentityFiles::load(&farm.path("web-01/identity")).unwrap().unwrap();
    let address = farm.controller.told("grpc").unwrap().to_owned();
    let edge = farm.edge.told("traffic").unwrap().to_owned();
    runtime().block_on(async {
        let channel = call(&address, &node, Kind::Controller).await;
        let mut fleet = FleetClient::new(channel);
        let fetched = fleet.fetch(FetchRequest { digest, offset: 0 }).await.unwrap_err();
        assert_eq!(fetched.code(), Code::PermissionDenied, "{fetched}");
        // A session that does not begin with Hello hears nothing.
        let silent = tokio_stream::iter([FromAgent { message: None }]);
        let mut orders = fleet.session(silent).await.unwrap().into_inner();
        assert!(orders.next().await.is_none_or(|order| order.is_err()), "it was told something");
        let channel = call(&edge, &node, Kind::Edge).await;
        let intent = MemberIntent {
            seq: 1,
            pool: "shop".to_owned(),
            node: "web-02".to_owned(),
            port: 1,
            want: Want::Out as i32,
            ..MemberIntent::default()
        };
        let intents = tokio_stream::iter([intent]).chain(tokio_stream::pending());
        let mut reports = TrafficClient::new(channel).session(intents).await.unwrap().into_inner();
        let report = reports.next().await.unwrap().unwrap();
        assert!(report.refused.contains("may not speak for the node web-02"), "{report:?}");
    });
    let pool = farm.read("/api/v1/pools/shop").unwrap();
    assert_eq!(pool.matches("\"in\"").count(), 2, "nobody was moved: {pool}");
    let audited = |audit: &serde_json::Value| {
        let all = audit.as_array().map(Vec::as_slice).unwrap_or_default();
        let has = |what: &str, target: &str| {
            all.iter().any(|line| {
                line["who"] == "node web-01" && line["what"] == what && line["target"] == target
            })
        };
        has("fetch", pushed["digest"].as_str().unwrap()) && has("traffic", "shop/web-02")
    };
    let audit = run(&farm, &["audit", "-o", "json"], 0);
    let mut audit: serde_json::Value = serde_json::from_str(&audit).unwrap();
    while !audited(&audit) {
        audit = serde_json::from_str(&run(&farm, &["audit", "-o", "json"], 0)).unwrap();
    }
}

#[test]
fn a_removed_node_is_out_for_good() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", APP, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    run(&farm, &["node", "rm", "web-02", "--yes"], 0);
    let members = |pool: &serde_json::Value| pool["members"].as_array().map_or(0, Vec::len);
    farm.wait("/api/v1/pools/shop", |pool| members(pool) == 1).unwrap();
    farm.wait("/api/v1/nodes", |nodes| nodes[1]["state"] == "revoked").unwrap();
    farm.nodes[1].kill().unwrap();
    farm.nodes[1] = farm.start_node(2).unwrap();
    farm.wait("/metrics", |_| farm.nodes[1].log().contains("revoked")).unwrap();
    let nodes = run(&farm, &["node", "ls"], 0);
    assert!(!nodes.contains("web-02"), "{nodes}");
    let pool = farm.wait("/api/v1/pools/shop", |pool| members(pool) > 0).unwrap();
    assert_eq!(members(&pool), 1, "it did not come back by the edge: {pool}");
    assert!(farm.edge.log().contains("a removed node"), "{}", farm.edge.log());
    assert_eq!(load.stop().1, 0, "nobody noticed");
}

#[test]
fn keys_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let farm = Farm::start(1).unwrap();
    let files =
        ["controller/admin.toml", "controller/identity/ca-key.pem", "web-01/identity/key.pem"];
    for file in files {
        let mode = fs::metadata(farm.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

/// Made once, not anew whenever it is missing: whoever moved it away keeps it there.
#[test]
fn an_admins_key_that_was_moved_away_stays_away() {
    let mut farm = Farm::start(0).unwrap();
    let (file, kept) = (farm.path("controller/admin.toml"), farm.path("mine.toml"));
    fs::rename(&file, &kept).unwrap();
    let address = farm.controller.told("grpc").unwrap().to_owned();
    farm.controller.terminate().unwrap();
    farm.restart_controller().unwrap();
    assert_eq!(farm.controller.told("grpc").unwrap(), address);
    assert!(!file.exists(), "an admin's key lies on the host again");
    let ls = farm.rota().env("ROTA_CONTEXT", &kept).args(["controller", "ls"]).output().unwrap();
    assert!(ls.status.success(), "{ls:?}");
    // Who has lost it, and every other operator, has the host.
    fs::remove_file(farm.path("controller/identity/first-admin")).unwrap();
    farm.controller.terminate().unwrap();
    farm.restart_controller().unwrap();
    run(&farm, &["controller", "ls"], 0);
}
