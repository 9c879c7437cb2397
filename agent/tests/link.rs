//! The sessions with the controllers, against controllers that break off, ask for nonsense and
//! forget.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rota_agent::link::{self, Event, FetchError, SeenState, Setup, Sink};
use rota_agent::own::Own;
use rota_agent::report::{App, Health, Report, TrafficState, What};
use rota_agent::spec::Driver;
use rota_identity::{Fingerprint, IdentityFiles, Kind, Leaf, Token};
use rota_proto::agent::{Ack, Directory, Order, Settle, from_agent, order::Work, report, to_agent};
use support::fleet::{Controller, report as only_report};
use support::{AgentProcess, Ca, settle, soon};
use tokio::sync::mpsc::Receiver;

fn setup(data: &Path, seeds: &[String]) -> Setup {
    Setup {
        data: data.to_owned(),
        seeds: seeds.to_vec(),
        token: None,
        env: "test".to_owned(),
        roles: vec!["web".to_owned()],
        labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        address: None,
        traffic_address: String::new(),
        edges: Vec::new(),
        driver: Driver::Exec,
    }
}

async fn next(events: &mut Receiver<Event>) -> Event {
    soon("an event", events.recv()).await.unwrap()
}

/// The next event that is not about coming and going.
async fn news(events: &mut Receiver<Event>) -> Event {
    loop {
        match next(events).await {
            Event::Up(_) | Event::Down(_) | Event::Standing(_) => {}
            event @ (Event::Order { .. } | Event::Directory(_) | Event::Acked(_)) => return event,
        }
    }
}

fn prepared(seq: u64, rollout: &str) -> Report {
    let rollout = rollout.parse().unwrap();
    Report { seq, rollout, attempt: 1, at_ms: 1, what: What::Prepared }
}

fn settle_order(rollout: &str, keep: &[&str]) -> to_agent::Message {
    let keep = keep.iter().map(|digest| (*digest).to_owned()).collect();
    to_agent::Message::Order(Order {
        term: 3,
        rollout: rollout.to_owned(),
        attempt: 2,
        work: Some(Work::Settle(Settle { keep, releases: Vec::new() })),
    })
}

#[tokio::test]
async fn reports_are_repeated_until_they_are_acknowledged() {
    let (ca, folder) = (Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    let mut controller = Controller::start(&ca, "c1").await;
    let seeds = [controller.address.to_string()];
    let own = ca.own(Kind::Node, "web-01");
    let (link, mut events) = link::start(setup(folder.path(), &seeds), own);
    link.report(prepared(1, "shop/prod/1"));
    // A node that has not looked yet what runs there says nothing: it would be believed to run nothing.
    let early = tokio::time::timeout(Duration::from_millis(300), controller.session()).await;
    assert!(early.is_err(), "a session before the inventory is known");
    link.inventory(Vec::new());

    let mut session = controller.session().await;
    assert_eq!(session.hello.env, "test");
    assert_eq!(session.hello.labels["zone"], "a");
    assert_eq!(next(&mut events).await, Event::Up("c1".to_owned()));
    assert_eq!(session.heard("report 1", only_report).await.seq, 1);
    link.report(prepared(2, "shop/prod/1"));
    assert_eq!(session.heard("report 2", only_report).await.seq, 2);
    drop(session);
    assert!(matches!(next(&mut events).await, Event::Standing(_)));
    assert_eq!(next(&mut events).await, Event::Down("c1".to_owned()));

    // A new session hears both again, in their order.
    let mut session = controller.session().await;
    assert_eq!(session.heard("report 1", only_report).await.seq, 1);
    assert_eq!(session.heard("report 2", only_report).await.seq, 2);
    session.send(to_agent::Message::Ack(Ack { seq: 1 })).await;
    assert_eq!(news(&mut events).await, Event::Acked(1));
    drop(session);

    let mut session = controller.session().await;
    assert_eq!(session.heard("report 2", only_report).await.seq, 2, "1 was acknowledged");
    session.send(to_agent::Message::Ack(Ack { seq: 2 })).await;
    assert_eq!(news(&mut events).await, Event::Acked(2));
    link.stop();
}

#[tokio::test]
async fn orders_come_through_and_bad_ones_are_answered() {
    let (ca, folder) = (Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    let mut controller = Controller::start(&ca, "c1").await;
    let seeds = [controller.address.to_string()];
    let own = ca.own(Kind::Node, "web-01");
    let (link, mut events) = link::start(setup(folder.path(), &seeds), own);
    link.inventory(Vec::new());
    let mut session = controller.session().await;

    session.send(settle_order("shop/prod/14", &["x"])).await;
    let answer = session.heard("the answer", only_report).await;
    assert_eq!((answer.seq, answer.rollout.as_str(), answer.attempt), (0, "shop/prod/14", 2));
    let Some(report::What::Failed(failed)) = answer.what else { panic!("not a failure") };
    assert!(failed.cause.contains("`settle.keep`"), "{}", failed.cause);
    session.send(settle_order("shop", &[])).await;
    let answer = session.heard("the answer", only_report).await;
    assert_eq!(answer.rollout, "shop");

    session.send(settle_order("shop/prod/14", &[&"ab".repeat(32)])).await;
    let Event::Order { controller: from, order } = news(&mut events).await else {
        panic!("not an order");
    };
    assert_eq!((from.as_str(), order.term, order.attempt), ("c1", 3, 2));
    assert_eq!(order.rollout.to_string(), "shop/prod/14");

    // What changes is said, and heartbeats come at the interval that was told.
    let app = App {
        app: "shop".to_owned(),
        release: Some(("1.0.0".to_owned(), "ab".repeat(32))),
        health: Health::Healthy,
        traffic: TrafficState::In,
        in_flight: 0,
        port: Some(9000),
        pool: Some("shop".to_owned()),
        step: None,
    };
    link.inventory(vec![app]);
    let inventory = session.heard("the inventory", |message| match message {
        from_agent::Message::Inventory(inventory) => Some(inventory),
        _ => None,
    });
    let inventory = inventory.await;
    assert_eq!((inventory.apps[0].version.as_str(), inventory.apps[0].port), ("1.0.0", 9000));
    let beat = |message| matches!(message, from_agent::Message::Heartbeat(_)).then_some(());
    session.heard("a heartbeat", beat).await;
    session.heard("another heartbeat", beat).await;
    link.stop();
}

#[tokio::test]
async fn one_session_with_every_controller_however_many_addresses_it_has() {
    let (ca, folder) = (Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    let mut one = Controller::start(&ca, "c1").await;
    let mut two = Controller::start(&ca, "c2").await;
    let by_name = format!("localhost:{}", one.address.port());
    let controllers = vec![one.address.to_string(), two.address.to_string()];
    one.directory(Directory { controllers: controllers.clone(), ..Directory::default() });
    let seeds = [by_name.clone()];
    let own = ca.own(Kind::Node, "web-01");
    let (link, mut events) = link::start(setup(folder.path(), &seeds), own);
    link.inventory(Vec::new());
    let first = one.session().await;
    let _second = two.session().await;
    assert!(matches!(news(&mut events).await, Event::Directory(_)));
    let parked = async {
        while !link.controllers().iter().any(|seen| seen.state == SeenState::Same) {
            tokio::task::yield_now().await;
        }
    };
    soon("the other address is parked", parked).await;
    assert!(one.sessions.try_recv().is_err(), "a second Hello would end the first session");
    let kept = std::fs::read_to_string(folder.path().join("controllers.json")).unwrap();
    for address in controllers {
        assert!(kept.contains(&address), "{kept}");
    }

    // When it ends, either address may take over.
    drop(first);
    let _again = one.session().await;
    link.stop();
}

struct Memory(Vec<u8>);

#[tonic::async_trait]
impl Sink for Memory {
    fn have(&self) -> u64 {
        self.0.len() as u64
    }
    async fn write(&mut self, data: Bytes) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.0.extend_from_slice(&data);
        Ok(())
    }
}

#[tokio::test]
async fn an_artifact_comes_in_pieces_from_where_it_broke_off() {
    let (ca, folder) = (Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    let controller = Controller::start(&ca, "c1").await;
    let seeds = [controller.address.to_string()];
    let own = ca.own(Kind::Node, "web-01");
    let (link, _events) = link::start(setup(folder.path(), &seeds), own);
    link.inventory(Vec::new());
    let bytes: Vec<u8> = (0..10_000_u32).flat_map(u32::to_le_bytes).collect();
    controller.artifact(bytes.clone(), &[0, 3500, 12_000]);
    let mut sink = Memory(Vec::new());
    let size = soon("the artifact", link.fetch(&"ab".repeat(32), &mut sink)).await.unwrap();
    assert_eq!((size, sink.0 == bytes), (40_000, true));
    let offsets = controller.fetched_from();
    assert_eq!((offsets[0], offsets[1], offsets.len()), (0, 0, 4));
    assert!(offsets.is_sorted() && offsets[3] > offsets[2], "{offsets:?}");
    // What is here to its last byte is whole, though the controller has nothing to send, not even the size.
    let whole = soon("its end", link.fetch(&"ab".repeat(32), &mut sink)).await.unwrap();
    assert_eq!((whole, controller.fetched_from()[4]), (40_000, 40_000));

    controller.artifact(Vec::new(), &[]);
    let mut sink = Memory(Vec::new());
    let error = soon("an answer", link.fetch(&"ab".repeat(32), &mut sink)).await.unwrap_err();
    assert!(matches!(error, FetchError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("no release has this artifact"), "{error}");
    link.stop();
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_without_dropping_the_session() {
    let (ca, folder) = (Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    let mut controller = Controller::start(&ca, "c1").await;
    let seeds = [controller.address.to_string()];
    // Two thirds of its life are over: it was valid for a minute before, and is for 20 s more.
    let key = rota_identity::PrivateKey::generate().unwrap();
    let identity = rota_identity::Identity::new(Kind::Node, "web-01").unwrap();
    let cert = ca.sign(&key.request().unwrap(), &identity, Duration::from_secs(20));
    let files = IdentityFiles { key: key.to_pem(), cert, ca: ca.pem.clone() };
    settle(folder.path(), &files);
    let own = Arc::new(Own::new(&files).unwrap());
    let before = own.leaf();
    let (link, _events) = link::start(setup(folder.path(), &seeds), Arc::clone(&own));
    link.inventory(Vec::new());
    let mut session = controller.session().await;
    let renewed = async {
        while own.leaf().serial == before.serial {
            tokio::task::yield_now().await;
        }
    };
    soon("a renewal", renewed).await;
    let kept = IdentityFiles::load(&folder.path().join("identity")).unwrap().unwrap();
    let kept = Leaf::parse(kept.credentials().unwrap().leaf().unwrap()).unwrap();
    assert_eq!(kept.serial, own.leaf().serial);
    let beat = |message| matches!(message, from_agent::Message::Heartbeat(_)).then_some(());
    session.heard("the old session's heartbeat", beat).await;
    link.stop();
}

#[tokio::test]
async fn joining_and_what_it_refuses() {
    let (ca, folder) = (Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    let mut controller = Controller::start(&ca, "c1").await;
    let address = controller.address.to_string();
    let data = folder.path().join("data");
    let run = |name: &str, token: Option<&str>| {
        let mut arguments = vec![
            "run",
            "--data",
            data.to_str().unwrap(),
            "--controller",
            &address,
            "--name",
            name,
            "--env",
            "test",
            "--role",
            "web",
        ];
        if let Some(token) = token {
            arguments.extend(["--token", token]);
        }
        AgentProcess::start(&arguments)
    };
    let token =
        |kind, ca: &Ca| Token::generate(kind, Fingerprint::of(&ca.certificate)).unwrap().reveal();
    let good = token(Kind::Node, &ca);
    let stranger = token(Kind::Node, &Ca::new());
    let of_an_edge = token(Kind::Edge, &ca);

    for (name, token, code, words) in [
        ("web-01", None, 2, "no token was given: make one with `rota token create --for agent"),
        ("web-01", Some("hunter2"), 2, "this is not a token of rota"),
        ("web-01", Some(of_an_edge.as_str()), 2, "this is a token for an edge, but an agent is"),
        ("web-01", Some(stranger.as_str()), 1, "does not belong to the CA of the token"),
        ("nobody", Some(good.as_str()), 1, "refused this agent: this token was used already"),
    ] {
        let mut agent = run(name, token);
        let line = agent.line("error: ").await;
        assert!(line.contains(words), "{line}");
        let status = soon("the end", agent.child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(code), "{words}");
    }

    let mut agent = run("web-01", Some(&good));
    agent.line("joined as node web-01").await;
    agent.line("ready: agent web-01").await;
    controller.session().await;
    // The folder is in use.
    let mut second = run("web-01", None);
    second.line("another agent runs with the folder").await;
    let question = tokio::process::Command::new(env!("CARGO_BIN_EXE_rota-agent"))
        .args(["status", "--data", data.to_str().unwrap(), "-o", "json"])
        .output();
    let answer = soon("the status", question).await.unwrap();
    let status: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!((status["name"].as_str(), status["kind"].as_str()), (Some("web-01"), Some("node")));
    assert_eq!(status["controllers"][0]["address"], address.as_str());
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(soon("the end", agent.child.wait()).await.unwrap().code(), Some(0));

    // Later starts need no token, and keep the name.
    let mut agent = run("web-01", None);
    agent.line("ready: agent web-01").await;
    agent.child.kill().await.unwrap();
    let mut agent = run("web-02", None);
    let line = agent.line("error: ").await;
    assert!(
        line.contains("the identity of node web-01, but this agent was told to be node web-02")
    );
}
