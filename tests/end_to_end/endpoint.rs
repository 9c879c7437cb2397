//! Load balancers that Rota does not drive, and that ask the nodes: a fleet behind HAProxy, by its agent check and by
//! an HTTP check of the readiness page, each node on a host of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rota_tests::farm::{App, Farm};
use rota_tests::hosts::Hosts;
use rota_tests::load::{Client, Load};
use rota_tests::processes::Programs;

use super::balancers::{Balancer, at, free, there};
use super::{CLIENTS, begin, deploy, run, versions};

const NODES: usize = 3;

/// What is in flight when a node leaves.
const SLOW: &str = "/slow?ms=300";

/// How HAProxy asks.
struct Way {
    /// In the backend.
    option: &'static str,
    /// At each server.
    server: &'static str,
    /// In the manifest.
    traffic: &'static str,
}

const AGENT_CHECK: Way = Way {
    option: "",
    server: "agent-check agent-port 7403 agent-send \"shop\\n\" agent-inter 200ms",
    traffic: "via = \"endpoint\"\nsettle = 1",
};

const PAGE: Way = Way {
    option: "option httpchk GET /ready/shop",
    server: "check port 7403 inter 200ms fall 3 rise 2",
    traffic: "via = \"endpoint\"",
};

/// HAProxy before these hosts. It tries no request twice: what it loses is lost.
fn haproxy(hosts: &Hosts, way: &Way) -> Balancer {
    let (folder, address) = (tempfile::tempdir().unwrap(), free());
    let server = |number| {
        let address = hosts.address(number);
        format!("  server web-{number:02} {address}:9000 {} pool-max-conn 0\n", way.server)
    };
    let servers: String = (1..=NODES).map(server).collect();
    let config = format!(
        "defaults\n  mode http\n  retries 0\n  timeout connect 2s\n  timeout client 30s\n  \
         timeout server 30s\n  timeout check 5s\n\
         frontend shop\n  bind {address}\n  default_backend shop\nbackend shop\n  {}\n{servers}",
        way.option
    );
    let file = at(folder.path(), "haproxy.cfg");
    fs::write(&file, config).unwrap();
    Balancer::start("haproxy", &["-W", "-f", &file], folder, address)
}

/// Hosts to put nodes on; `None`: not on this machine, and that is said loudly.
fn hosts() -> Option<Hosts> {
    if !there("haproxy") {
        return None;
    }
    match Hosts::make(NODES) {
        Ok(hosts) => Some(hosts),
        Err(error) => {
            eprintln!("SKIPPED: no network namespaces here (they need root and iproute2): {error}");
            None
        }
    }
}

/// What a node answers to this.
fn ask(address: &str, question: &str) -> String {
    let mut stream = TcpStream::connect((address, 7403)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(question.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn rolls_behind(way: &Way) {
    let Some(hosts) = hosts() else { return };
    let balancer = haproxy(&hosts, way);
    let first = hosts.address(1);
    let farm = Farm::on_hosts(Programs::build().unwrap(), NODES, hosts).unwrap();
    let (strategy, traffic) = ("batch = 1\nmonitor = \"100ms\"", way.traffic);
    let app = App { strategy, traffic, args: &["--anywhere"], ..App::default() };
    assert_eq!(ask(&first, "shop\n"), "drain\n", "there is no such app yet");
    deploy(&farm, "1.0.0", app, 0);
    assert_eq!(ask(&first, "shop\n"), "up ready\n");
    assert!(ask(&first, "GET /ready/shop HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200 OK\r\n"));
    let slow = |number: usize| Client { path: SLOW, keep_alive: number.is_multiple_of(2) };
    let slow = Load::of(balancer.address, (0..CLIENTS).map(slow));
    let load = Load::start(balancer.address, CLIENTS);
    deploy(&farm, "1.1.0", app, 0);
    assert_eq!(versions(&farm, "1.1.0"), NODES);
    run(&farm, &["rollout", "undo", "shop", "--env", "prod"], 0);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
    assert!(good > 100, "there was load: {good}");
    let (good, failed) = slow.stop();
    assert_eq!(failed, 0, "of {good} slow ones");
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["evidence"]["cut"], 0, "{view}");
}

#[test]
fn an_agent_check_loses_no_request() {
    rolls_behind(&AGENT_CHECK);
}

#[test]
fn a_check_of_the_page_loses_no_request() {
    rolls_behind(&PAGE);
}

/// The agent is killed when its node has just been drained: the next one says the same from its first answer on, and
/// nobody is sent to a node that is not there.
#[test]
fn an_agent_that_starts_again_never_says_a_wrong_word() {
    let Some(hosts) = hosts() else { return };
    let balancer = haproxy(&hosts, &AGENT_CHECK);
    let first = hosts.address(1);
    let mut farm = Farm::on_hosts(Programs::build().unwrap(), NODES, hosts).unwrap();
    let app = App {
        strategy: "batch = 1\nmonitor = \"0s\"",
        traffic: AGENT_CHECK.traffic,
        args: &["--anywhere"],
        ..App::default()
    };
    deploy(&farm, "1.0.0", app, 0);
    let load = Load::start(balancer.address, CLIENTS);
    begin(&farm, "1.1.0", app);
    farm.rollout(|view| view["nodes"][0]["step"] == "drain").unwrap();
    farm.nodes[0].kill().unwrap();
    farm.nodes[0] = farm.start_node(1).unwrap();
    farm.rollout(|view| view["state"] == "completed").unwrap();

    // At rest: whoever asks while it starts waits for the right answer.
    farm.nodes[0].kill().unwrap();
    let asked = std::thread::spawn(move || {
        let begun = Instant::now();
        loop {
            match TcpStream::connect((first.as_str(), 7403)) {
                Ok(_) => return ask(&first, "shop\n"),
                Err(_) => assert!(begun.elapsed() < Duration::from_secs(60)),
            }
            std::thread::yield_now();
        }
    });
    farm.nodes[0] = farm.start_node(1).unwrap();
    assert_eq!(asked.join().unwrap(), "up ready\n");
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
}

/// Without anybody who asks no drain is proven: the update fails, says why, and the node stays where it was.
#[test]
fn nobody_who_asks_is_no_drain() {
    let Some(hosts) = hosts() else { return };
    let mut balancer = haproxy(&hosts, &AGENT_CHECK);
    let farm = Farm::on_hosts(Programs::build().unwrap(), NODES, hosts).unwrap();
    let app = App {
        strategy: "batch = 1\nmonitor = \"0s\"",
        traffic: AGENT_CHECK.traffic,
        args: &["--anywhere"],
        ..App::default()
    };
    deploy(&farm, "1.0.0", app, 0);
    balancer.process.kill().unwrap();
    balancer.process.wait().unwrap();
    farm.wait("/api/v1/nodes", |list| list[0]["apps"][0]["traffic"] == "out").unwrap();
    let said = deploy(&farm, "1.1.0", app, 3);
    assert!(said.contains("nobody polls /ready/shop at 0.0.0.0:7403"), "{said}");
    assert_eq!(versions(&farm, "1.0.0"), NODES);
    let mut again = Command::new("haproxy");
    again.args(["-W", "-f", &balancer.path("haproxy.cfg")]);
    balancer.process = again.spawn().unwrap();
    farm.wait("/api/v1/nodes", |list| list[0]["apps"][0]["traffic"] == "in").unwrap();

    // Two instances would need two ports.
    let manifest = farm.write_app(App { strategy: "order = \"start-first\"", ..app }).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("port = 9000", "port = \"auto\"")).unwrap();
    let manifest = manifest.to_str().unwrap();
    let args = ["plan", "-f", manifest, "--version", "1.2.0", "--env", "prod"];
    let said = run(&farm, &args, 1);
    assert!(said.contains("via = \"endpoint\" needs a fixed `port`"), "{said}");
}
