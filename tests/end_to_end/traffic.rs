//! Nobody outside notices a rollout: short, slow and large requests, and what can only be cut.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;

use rota_tests::farm::{App, ENV, Farm, count};
use rota_tests::load::{Client, Load, connect, read_head};

use super::{CLIENTS, begin, deploy, run, versions};

/// Rolls forward and back under load, in both orders, and loses no request.
fn rolls_without_losing_a_request(order: &str) {
    let farm = Farm::start(3).unwrap();
    let strategy = format!("batch = 1\nmonitor = \"200ms\"\norder = \"{order}\"");
    let app = App { strategy: &strategy, ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    for version in ["1.1.0", "1.2.0"] {
        deploy(&farm, version, app, 0);
        assert_eq!(versions(&farm, version), 3);
    }
    run(&farm, &["rollout", "undo", "shop", "--env", ENV], 0);
    assert_eq!(versions(&farm, "1.1.0"), 3);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
    assert!(good > 100, "there was load: {good}");
    for node in &farm.nodes {
        assert!(!node.log().contains("WARN"), "{}", node.log());
    }
}

#[test]
fn stop_first_loses_no_request() {
    rolls_without_losing_a_request("stop-first");
}

#[test]
fn start_first_loses_no_request() {
    rolls_without_losing_a_request("start-first");
}

/// Requests of 2 s and downloads of 50 MiB are under way on every node when it drains: all are finished.
fn slow_and_large_requests_are_finished(order: &str) {
    let farm = Farm::start(3).unwrap();
    let strategy = format!("batch = 1\nmonitor = \"0s\"\norder = \"{order}\"");
    let app = App { strategy: &strategy, traffic: "drain_timeout = \"20s\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let slow =
        |number: usize| Client { path: "/slow?ms=2000", keep_alive: number.is_multiple_of(2) };
    let large = |number: usize| Client {
        path: "/big?mib=50&ms=1500",
        keep_alive: number.is_multiple_of(2),
    };
    let edge = farm.pool().unwrap();
    let clients = (0..9).map(slow).chain((0..3).map(large));
    let (unhurried, short) = (Load::of(edge, clients), Load::start(edge, CLIENTS));
    deploy(&farm, "1.1.0", app, 0);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["evidence"]["cut"], 0, "{view}");
    assert_eq!(view["evidence"]["failed_requests"], 0, "{view}");
    for node in view["nodes"].as_array().unwrap() {
        assert!(node["in_flight_at_drain"].as_u64().unwrap() > 0, "nothing to wait for: {node}");
    }
    let ((good, failed), (more, bad)) = (unhurried.stop(), short.stop());
    assert_eq!((failed, bad), (0, 0), "of {good} slow or large ones, of {more} short ones");
    assert!(good >= 12, "{good} slow or large ones");
}

#[test]
fn slow_and_large_requests_are_finished_stop_first() {
    slow_and_large_requests_are_finished("stop-first");
}

#[test]
fn slow_and_large_requests_are_finished_start_first() {
    slow_and_large_requests_are_finished("start-first");
}

/// A WebSocket through the edge; whoever holds it waits for nothing.
fn websocket(farm: &Farm) -> BufReader<TcpStream> {
    let mut socket = connect(farm.pool().unwrap()).unwrap();
    let head = "GET /chat HTTP/1.1\r\nhost: shop\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.get_mut().write_all(head.as_bytes()).unwrap();
    assert_eq!(read_head(&mut socket).unwrap().0, 101);
    socket
}

/// Does what is said come back?
fn echoes(socket: &mut BufReader<TcpStream>) -> bool {
    let mut back = [0; 5];
    let said = socket.get_mut().write_all(b"hello");
    said.is_ok() && socket.read_exact(&mut back).is_ok() && back == *b"hello"
}

#[test]
fn what_outlives_the_drain_timeout_is_cut_and_counted() {
    let farm = Farm::start(3).unwrap();
    let app = App {
        strategy: "batch = 1\nmonitor = \"0s\"",
        traffic: "drain_timeout = \"500ms\"",
        ..App::default()
    };
    // The operator's newest word counts, not the 30 s that the first release would wait.
    deploy(&farm, "1.0.0", App { traffic: "", ..app }, 0);
    let mut sockets: Vec<_> = (0..6).map(|_| websocket(&farm)).collect();
    assert!(sockets.iter_mut().all(echoes), "all are open");
    let load = Load::start(farm.pool().unwrap(), CLIENTS);
    deploy(&farm, "1.1.0", app, 0);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["evidence"]["cut"], 6, "{view}");
    assert!(!sockets.iter_mut().any(echoes), "all are cut");
    assert_eq!(load.stop().1, 0, "short requests are not hurt");
    farm.wait("/api/v1/pools/shop", |pool| pool["cut"] == 6).unwrap();
    let metrics = farm.read("/metrics").unwrap();
    assert!(metrics.contains("rota_requests_cut_total{pool=\"shop\"} 6"), "{metrics}");
}

#[test]
fn a_drain_that_may_not_cut_fails_and_the_node_rejoins() {
    let farm = Farm::start(2).unwrap();
    let app = App {
        strategy: "batch = 1\nmonitor = \"0s\"",
        traffic: "drain_timeout = \"2s\"\non_drain_timeout = \"fail\"",
        ..App::default()
    };
    deploy(&farm, "1.0.0", app, 0);
    let mut sockets: Vec<_> = (0..4).map(|_| websocket(&farm)).collect();
    let said = deploy(&farm, "1.1.0", app, 3);
    assert!(said.contains("drain") && said.contains("in flight"), "{said}");
    assert!(sockets.iter_mut().all(echoes), "nobody was cut");
    assert_eq!(versions(&farm, "1.0.0"), 2);
    farm.wait("/api/v1/pools/shop", |pool| count(&pool["members"], "state", "in") == 2).unwrap();
}

#[test]
fn nothing_is_stopped_without_the_edges_word() {
    let mut farm = Farm::start(2).unwrap();
    let simple = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", simple, 0);
    let slow = |_| Client { path: "/slow?ms=700", keep_alive: true };
    let load = Load::of(farm.pool().unwrap(), (0..6).map(slow));
    let flag = farm.path("killed").display().to_string();
    let strategy = format!(
        "batch = 1\nmonitor = \"0s\"\n[hooks]\nbefore_drain = [\"sh\", \"-c\", \
         \"until [ -e {flag} ]; do sleep 0.05; done\"]"
    );
    let traffic = "drain_timeout = \"300ms\"";
    let app = App { strategy: &strategy, traffic, ..simple };
    begin(&farm, "1.1.0", app);
    farm.rollout(|view| view["nodes"][0]["step"] == "drain").unwrap();
    // The agent of the edge dies while the hook runs; its proxy goes on sending requests to the node.
    farm.edge.kill().unwrap();
    std::fs::write(flag, "").unwrap();
    farm.rollout(|view| view["nodes"][0]["restoring"] == true).unwrap();
    farm.edge = farm.start_edge().unwrap();
    let view = farm.rollout(|view| view["nodes"][0]["state"] == "restored").unwrap();
    assert_eq!(view["evidence"]["cut"], 0, "{view}");
    assert_eq!(load.stop().1, 0, "nobody noticed");
    assert_eq!(versions(&farm, "1.0.0"), 2);
}
