//! In and out of traffic with real parts: an edge's agent and its proxy as processes, mutual TLS,
//! an app that serves.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rota_agent::order::Edge;
use rota_agent::own::Own;
use rota_agent::traffic::client::{Edges, Member};
use rota_agent::traffic::drain::{EDGE_GRACE, Kernel, Leaving, Mover, Needs, TrafficError};
use rota_agent::traffic::{Desired, Observed, Want};
use rota_identity::Kind;
use rota_proto::agent::from_agent;
use rota_proto::traffic as proto;
use rota_proto::traffic::traffic_client::TrafficClient;
use rustix::process::Signal;
use support::fleet::Controller;
use support::{AgentProcess, App, Ca, Ends, PATIENCE, get, settle, soon, value};

/// An edge's agent, its proxy, and where both are reached.
struct Host {
    agent: AgentProcess,
    traffic: SocketAddr,
    proxy: SocketAddr,
    proxy_pid: Ends,
}

impl Host {
    /// With no controller in reach.
    async fn start(data: &Path, traffic: &str) -> Self {
        Self::of("127.0.0.1:1", data, traffic).await
    }

    async fn of(controller: &str, data: &Path, traffic: &str) -> Self {
        let mut agent = AgentProcess::start(&[
            "run",
            "--data",
            data.to_str().unwrap(),
            "--controller",
            controller,
            "--name",
            "lb-01",
            "--env",
            "test",
            "--edge",
            "shop=proxy@127.0.0.1:0",
            "--traffic-listen",
            traffic,
        ]);
        let edge = agent.line("edge ready").await;
        let proxy_pid = Ends(value(&edge, "pid").parse().unwrap());
        let ready = agent.line("ready: agent lb-01").await;
        Self {
            agent,
            traffic: value(&ready, "traffic").parse().unwrap(),
            proxy: value(&ready, "shop").parse().unwrap(),
            proxy_pid,
        }
    }
}

fn edges(own: Arc<Own>, traffic: SocketAddr) -> Edges {
    let edges = Edges::start(own);
    let (name, pool) = ("lb-01".to_owned(), "shop".to_owned());
    edges.know(&[Edge { name, pool, address: traffic.to_string() }]);
    edges
}

fn member() -> Member {
    Member { pool: "shop".to_owned(), instance: String::new() }
}

fn desired(app: &App) -> Desired {
    Desired {
        host: None,
        port: app.address.port(),
        want: Want::In,
        cut: false,
        health_path: Some("/".to_owned()),
        version: "1.0.0".to_owned(),
    }
}

#[tokio::test]
async fn join_serve_drain_and_cut() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    settle(folder.path(), &ca.issue(Kind::Edge, "lb-01"));
    let host = Host::start(folder.path(), "127.0.0.1:0").await;
    let app = App::start("hello").await;
    let edges = edges(ca.own(Kind::Node, "web-01"), host.traffic);
    let mover = Mover { edges: &edges, connections: &Kernel, needs: Needs::All };

    mover.join(&member(), &desired(&app), PATIENCE).await.unwrap();
    assert_eq!(get(host.proxy, "/").await.unwrap(), "HTTP/1.1 200 OK hello");

    // A request in flight is waited for.
    let slow = tokio::spawn(get(host.proxy, "/slow"));
    soon("the slow request", app.begun.acquire()).await.unwrap().forget();
    let leaving = Leaving::Edges { member: member(), app: desired(&app) };
    let drained = {
        let (edges, leaving) = (edges.clone(), leaving.clone());
        tokio::spawn(async move {
            let mover = Mover { edges: &edges, connections: &Kernel, needs: Needs::All };
            mover.drain(&leaving, PATIENCE).await
        })
    };
    let mut seen = edges.watch();
    let draining = seen.wait_for(|seen| {
        let state = seen.get("lb-01").and_then(|edge| edge.members.get(&member()));
        state.is_some_and(|state| state.observed == Observed::Draining && state.in_flight == 1)
    });
    drop(soon("draining", draining).await.unwrap());
    assert!(!drained.is_finished(), "one request is still in flight");
    app.may_end.add_permits(1);
    assert_eq!(slow.await.unwrap().unwrap(), "HTTP/1.1 200 OK hello");
    let drained = drained.await.unwrap().unwrap();
    assert_eq!((drained.in_flight_at_start, drained.cut), (1, 0));

    // Who comes meanwhile waits at the edge until somebody is in traffic again.
    let waits = tokio::spawn(get(host.proxy, "/"));
    mover.join(&member(), &desired(&app), PATIENCE).await.unwrap();
    assert_eq!(waits.await.unwrap().unwrap(), "HTTP/1.1 200 OK hello");

    // A request that does not end is cut at the deadline, and counted.
    let slow = tokio::spawn(get(host.proxy, "/slow"));
    soon("the slow request", app.begun.acquire()).await.unwrap().forget();
    match mover.drain(&leaving, Duration::from_secs(2)).await.unwrap_err() {
        TrafficError::NotDrained { in_flight, waiting, .. } => {
            assert_eq!(in_flight, 1);
            assert_eq!(waiting.to_string(), "edge lb-01: draining, 1 in flight");
        }
        other => panic!("{other}"),
    }
    assert_eq!(mover.cut(&member(), &desired(&app), PATIENCE).await.unwrap(), 1);
    let cut = slow.await.unwrap();
    assert!(cut.as_ref().map_or(true, |answer| !answer.contains("hello")), "{cut:?}");

    mover.leave(&member(), &desired(&app), PATIENCE).await.unwrap();
    assert_eq!(edges.wanted(&member()), None);
}

#[tokio::test]
async fn without_edges_only_the_kernel_is_asked() {
    let app = App::start("hello").await;
    let edges = Edges::start(Ca::new().own(Kind::Node, "web-01"));
    let mover = Mover { edges: &edges, connections: &Kernel, needs: Needs::All };
    let leaving = Leaving::Kernel { port: app.address.port() };
    let drained = mover.drain(&leaving, Duration::ZERO).await.unwrap();
    assert_eq!(drained.in_flight_at_start, 0);

    let client = tokio::net::TcpStream::connect(app.address).await.unwrap();
    let error = mover.drain(&leaving, Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(error.to_string(), "not drained within 20 ms: 1 open connections to the app");
    let both = async {
        let (drained, ()) = tokio::join!(mover.drain(&leaving, PATIENCE), async {
            tokio::task::yield_now().await;
            drop(client);
        });
        drained
    };
    assert_eq!(soon("the end of the connection", both).await.unwrap().in_flight_at_start, 1);

    let member = member();
    let error = mover.join(&member, &desired(&app), PATIENCE).await.unwrap_err();
    assert_eq!(error.to_string(), "no edge serves the pool shop");
}

#[tokio::test]
async fn an_edge_that_is_not_there_is_named() {
    let app = App::start("hello").await;
    let port = support::free_port().await;
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let edges = edges(Ca::new().own(Kind::Node, "web-01"), nowhere);
    let mover = Mover { edges: &edges, connections: &Kernel, needs: Needs::All };
    let mut seen = edges.watch();
    let failed = seen.wait_for(|seen| seen.values().any(|edge| edge.error.is_some()));
    drop(soon("the first try", failed).await.unwrap());
    let error = mover.join(&member(), &desired(&app), Duration::from_millis(10)).await;
    let error = error.unwrap_err().to_string();
    let words = "not in traffic within 10 ms: edge lb-01: no session (cannot reach 127.0.0.1:";
    assert!(error.starts_with(words), "{error}");
}

/// With `edges = "reachable"` one edge is enough once the other was away for a while; alone in being away, it is not.
#[tokio::test]
async fn an_edge_that_is_away_is_not_asked_where_that_is_allowed() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    settle(folder.path(), &ca.issue(Kind::Edge, "lb-01"));
    let host = Host::start(folder.path(), "127.0.0.1:0").await;
    let app = App::start("hello").await;
    let edges = Edges::start(ca.own(Kind::Node, "web-01"));
    let port = support::free_port().await;
    let edge =
        |name: &str, address: String| Edge { name: name.into(), pool: "shop".into(), address };
    let (there, away) =
        (edge("lb-01", host.traffic.to_string()), edge("lb-02", format!("127.0.0.1:{port}")));
    edges.know(&[there, away.clone()]);
    let begun = std::time::Instant::now();
    let not_asked = std::sync::Mutex::default();
    let mover = Mover {
        edges: &edges,
        connections: &Kernel,
        needs: Needs::Reachable { not_asked: &not_asked },
    };
    let named = || not_asked.lock().unwrap().iter().cloned().collect::<Vec<String>>();

    let all = Mover { needs: Needs::All, ..mover };
    let error = all.join(&member(), &desired(&app), EDGE_GRACE * 6 / 5).await.unwrap_err();
    assert!(error.to_string().contains("edge lb-02: no session"), "{error}");
    mover.join(&member(), &desired(&app), PATIENCE).await.unwrap();
    assert!(begun.elapsed() >= EDGE_GRACE, "its agent may just be starting again");
    assert_eq!(named(), ["lb-02"]);

    // It was away for long enough already: nobody waits again.
    let leaving = Leaving::Edges { member: member(), app: desired(&app) };
    let drained = mover.drain(&leaving, PATIENCE).await.unwrap();
    assert!(drained.took < EDGE_GRACE, "{drained:?}");

    // Of the edges that there are, one must confirm.
    edges.know(&[away]);
    let error = mover.join(&member(), &desired(&app), Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("edge lb-02: no session"), "{error}");
}

#[tokio::test]
async fn members_outlive_the_edges_agent_and_a_killed_proxy() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    settle(folder.path(), &ca.issue(Kind::Edge, "lb-01"));
    let mut host = Host::start(folder.path(), "127.0.0.1:0").await;
    let app = App::start("hello").await;
    let edges = edges(ca.own(Kind::Node, "web-01"), host.traffic);
    let mover = Mover { edges: &edges, connections: &Kernel, needs: Needs::All };
    mover.join(&member(), &desired(&app), PATIENCE).await.unwrap();

    // The agent is killed: the proxy serves on, and the next agent finds it with its member.
    host.agent.child.kill().await.unwrap();
    assert_eq!(get(host.proxy, "/").await.unwrap(), "HTTP/1.1 200 OK hello");
    let mut again = Host::start(folder.path(), &host.traffic.to_string()).await;
    assert_eq!(again.proxy, host.proxy);
    assert_eq!(again.proxy_pid.0, host.proxy_pid.0, "the same process");
    let mut seen = edges.watch();
    let back = seen.wait_for(|seen| {
        let edge = seen.get("lb-01").filter(|edge| edge.remote.is_some());
        let state = edge.and_then(|edge| edge.members.get(&member()));
        state.is_some_and(|state| state.observed == Observed::In)
    });
    drop(soon("the node's session", back).await.unwrap());

    // The proxy is killed: it comes back at the same address, with its member.
    let killed = rustix::process::Pid::from_raw(host.proxy_pid.0).unwrap();
    rustix::process::kill_process(killed, Signal::KILL).unwrap();
    let edge = again.agent.line("edge ready").await;
    again.proxy_pid = Ends(value(&edge, "pid").parse().unwrap());
    assert_eq!(value(&edge, "listen"), host.proxy.to_string());
    mover.join(&member(), &desired(&app), PATIENCE).await.unwrap();
    let served = async {
        // Wanted in already; what is awaited is that its health check passed again.
        loop {
            let answer = get(host.proxy, "/").await;
            if answer.is_ok_and(|answer| answer == "HTTP/1.1 200 OK hello") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    soon("the member", served).await;

    // SIGTERM ends the agent, and nothing else.
    again.agent.signal(Signal::TERM);
    let status = soon("the end", again.agent.child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(get(host.proxy, "/").await.unwrap(), "HTTP/1.1 200 OK hello");
}

#[tokio::test]
async fn controllers_hear_how_the_pools_are() {
    let (ca, folder) = (Arc::new(Ca::new()), tempfile::tempdir().unwrap());
    settle(folder.path(), &ca.issue(Kind::Edge, "lb-01"));
    let mut controller = Controller::start(&ca, "c1").await;
    let host = Host::of(&controller.address.to_string(), folder.path(), "127.0.0.1:0").await;
    let mut session = controller.session().await;
    assert_eq!(session.hello.traffic_address, host.traffic.to_string());
    let pool = &session.hello.edges[0];
    let listen = host.proxy.to_string();
    assert_eq!(
        (pool.pool.as_str(), pool.driver.as_str(), &pool.listen),
        ("shop", "proxy", &listen)
    );

    let app = App::start("hello").await;
    let edges = edges(ca.own(Kind::Node, "web-01"), host.traffic);
    let mover = Mover { edges: &edges, connections: &Kernel, needs: Needs::All };
    mover.join(&member(), &desired(&app), PATIENCE).await.unwrap();
    get(host.proxy, "/").await.unwrap();
    let heard = session.heard("the member and its request", |message| match message {
        from_agent::Message::Edge(state) => {
            let pool = state.pools.into_iter().next()?;
            (pool.requests == 1).then_some(pool)
        }
        _ => None,
    });
    let pool = heard.await;
    let member = &pool.members[0];
    assert_eq!((member.node.as_str(), member.state.as_str()), ("web-01", "in"));
    assert_eq!((&member.address, member.version.as_str()), (&app.address.to_string(), "1.0.0"));
    assert_eq!((pool.failed, pool.cut), (0, 0));
}

#[tokio::test]
async fn nobody_moves_what_is_not_his() {
    let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
    settle(folder.path(), &ca.issue(Kind::Edge, "lb-01"));
    let mut host = Host::start(folder.path(), "127.0.0.1:0").await;
    let intent = proto::MemberIntent {
        seq: 7,
        pool: "shop".to_owned(),
        node: "web-01".to_owned(),
        port: 9000,
        want: proto::Want::In.into(),
        ..proto::MemberIntent::default()
    };
    let own = ca.own(Kind::Node, "web-02");
    for (wrong, words) in [
        (intent.clone(), "node web-02 may not speak for the node web-01"),
        (
            proto::MemberIntent { node: "web-02".into(), pool: "other".into(), ..intent.clone() },
            "this edge does not serve the pool other; it serves shop",
        ),
        (
            proto::MemberIntent { node: "web-02".into(), want: 0, ..intent.clone() },
            "its field `want` is 0: use IN, OUT or GONE",
        ),
        (
            proto::MemberIntent { node: "web-02".into(), port: 70_000, ..intent.clone() },
            "its field `port` is 70000: use 1 to 65535",
        ),
    ] {
        let report = say(&own, host.traffic, wrong).await.unwrap();
        assert_eq!(report.seq, 7);
        assert!(report.refused.contains(words), "{}", report.refused);
    }
    host.agent.line("web-02 may not speak for the node web-01").await;

    // Certificates of other kinds, and of other CAs.
    let operator = ca.own(Kind::Operator, "alice");
    let refused = say(&operator, host.traffic, intent.clone()).await.unwrap_err();
    assert!(refused.contains("operator alice is no node"), "{refused}");
    let stranger = Ca::new().own(Kind::Node, "web-01");
    assert!(say(&stranger, host.traffic, intent).await.is_err());
}

/// One intent, and the answer to it.
async fn say(
    own: &Own,
    edge: SocketAddr,
    intent: proto::MemberIntent,
) -> Result<proto::MemberReport, String> {
    let config = own.to_edge("lb-01").unwrap();
    let dialled = rota_agent::dial::dial(&edge.to_string(), config).await;
    let dialled = dialled.map_err(|error| error.to_string())?;
    let (to_wire, intents) = tokio::sync::mpsc::channel(1);
    to_wire.send(intent).await.unwrap();
    let outbound = tokio_stream::wrappers::ReceiverStream::new(intents);
    let mut client = TrafficClient::new(dialled.channel);
    let session = client.session(outbound).await.map_err(|status| status.message().to_owned())?;
    let report = soon("an answer", session.into_inner().message_owned()).await;
    report.map_err(|status| status.message().to_owned())
}

/// The first message of a stream.
trait First<T> {
    async fn message_owned(self) -> Result<T, tonic::Status>;
}

impl<T> First<T> for tonic::Streaming<T> {
    async fn message_owned(mut self) -> Result<T, tonic::Status> {
        let first = self.message().await?;
        first.ok_or_else(|| tonic::Status::aborted("the stream ended"))
    }
}
