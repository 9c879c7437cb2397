//! What goes through: protocols, bodies, tunnels, headers, and members that die.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::net::SocketAddr;

use http_body_util::BodyExt;
use hyper::{Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rota_proxy::{Intent, Key, Observed, Want};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Proxy, Visitor, Zeros, get, post, read, read_text, soon, text, until};

mod support;

#[tokio::test]
async fn large_bodies_stream_in_both_directions() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let mut body = visitor.send(get("/zeros")).await.into_body();
    let mut size = 0;
    while let Some(frame) = soon("a piece", body.frame()).await {
        size += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(size, 50 << 20);
    let (status, counted) =
        read(visitor.send(post("/count", Zeros(50 << 20).boxed_unsync())).await).await;
    assert_eq!((status, counted), (200, (50 << 20).to_string()));
    proxy.until_stats("nothing in flight", |stats| stats.in_flight == 0).await;
    let connections = apps[0].connections();
    assert!(connections <= 3, "one kept connection, not {connections}");
}

#[tokio::test]
async fn connections_to_members_are_kept() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let before = apps[0].connections();
    for number in 0..200 {
        let request = match number % 4 {
            0 => get("/"),
            1 => post("/count", text("12345")),
            2 => Request::head("/").header("host", "h").body(text("")).unwrap(),
            _ => get("/headers"),
        };
        assert!(visitor.send(request).await.into_body().collect().await.is_ok());
    }
    let opened = apps[0].connections().saturating_sub(before);
    assert!(opened <= 5, "{opened} connections for 200 requests");
    assert_eq!(proxy.stats().await.idle, 1);
}

#[tokio::test]
async fn http_2_clients_are_served() {
    let (proxy, _apps) = Proxy::with(&["a"]).await;
    let io = TokioIo::new(TcpStream::connect(proxy.address).await.unwrap());
    let (sender, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(driver);
    let ask = |number: usize| {
        let mut sender = sender.clone();
        async move {
            let url = format!("http://shop.example/headers?{number}");
            let request = Request::get(url).body(text("")).unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            read(response).await
        }
    };
    let asked: Vec<_> = (0..50).map(|number| tokio::spawn(ask(number))).collect();
    for asked in asked {
        let (status, seen) = soon("an answer", asked).await.unwrap();
        assert_eq!(status, 200);
        assert!(seen.starts_with("HTTP/1.1") && seen.contains("shop.example"), "{seen}");
    }
    assert_eq!(proxy.stats().await.requests, 50);
}

#[tokio::test]
async fn members_learn_who_asked() {
    let (proxy, _apps) = Proxy::with(&["a"]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let (_, seen) = visitor.get("/headers").await;
    for expected in ["\"x-forwarded-for\": \"127.0.0.1\"", "\"host\": \"shop.example\""] {
        assert!(seen.contains(expected), "{expected} in {seen}");
    }
}

#[tokio::test]
async fn a_tunnel_is_in_flight_until_it_ends_or_is_cut() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    for cut in [false, true] {
        let mut tunnel = open_tunnel(proxy.address).await;
        assert_eq!(read_text(&mut tunnel, 6).await, "hello ");
        tunnel.write_all(b"and back").await.unwrap();
        assert_eq!(read_text(&mut tunnel, 8).await, "and back");

        let mut changes = proxy.client.subscribe().await.unwrap();
        let state = proxy.client.apply(apps[0].intent(Want::Out)).await.unwrap();
        assert_eq!((state.observed, state.in_flight), (Observed::Draining, 1));
        tunnel.write_all(b"still").await.unwrap();
        assert_eq!(read_text(&mut tunnel, 5).await, "still");
        if cut {
            let cut = Intent { cut, ..apps[0].intent(Want::Out) };
            proxy.client.apply(cut).await.unwrap();
            assert_eq!(soon("its end", tunnel.read(&mut [0])).await.unwrap(), 0);
        } else {
            tunnel.shutdown().await.unwrap();
        }
        let state = until(&mut changes, "a", Observed::Out).await;
        assert_eq!((state.in_flight, state.cut), (0, u64::from(cut)));
        assert_eq!(apps[0].established(), 0);
        proxy.bring_in(&apps[0]).await;
    }
    let stats = proxy.stats().await;
    assert_eq!((stats.requests, stats.cut, stats.failed), (2, 1, 0));
}

/// Says hello and reads up to the end of the answer's head.
async fn open_tunnel(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let hello = b"GET /chat HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(hello).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &read_text(&mut stream, 1).await;
    }
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: echo"), "{head}");
    stream
}

#[tokio::test]
async fn a_member_that_dies_with_idle_connections_costs_no_get() {
    let (proxy, mut apps) = Proxy::with(&["a", "b"]).await;
    let mut visitors = Vec::new();
    for _ in 0..8 {
        visitors.push(Visitor::connect(proxy.address).await);
    }
    // All at once, so that both members have several idle connections.
    let mut filling = tokio::task::JoinSet::new();
    for mut visitor in visitors.drain(..) {
        filling.spawn(async move {
            assert_eq!(visitor.get("/slow").await.0, 200);
            visitor
        });
    }
    proxy.until_stats("all are in flight", |stats| stats.in_flight == 8).await;
    apps.iter().for_each(|app| (0..8).for_each(|_| app.let_slow_answer()));
    let mut visitors = filling.join_all().await;
    assert_eq!(proxy.stats().await.idle, 8);
    apps.remove(0).kill().await;
    for round in 0..20 {
        for visitor in &mut visitors {
            assert_eq!(visitor.get("/").await, (200, "b".to_owned()), "round {round}");
        }
    }
    assert_eq!(proxy.stats().await.failed, 0);
}

#[tokio::test]
async fn refused_connections_are_tried_elsewhere_with_any_method() {
    let (proxy, mut apps) = Proxy::with(&["a", "b"]).await;
    apps.remove(0).kill().await;
    let mut visitor = Visitor::connect(proxy.address).await;
    for _ in 0..20 {
        let (status, counted) = read(visitor.send(post("/count", text("12345"))).await).await;
        assert_eq!((status, counted.as_str()), (200, "5"));
    }
    assert_eq!(proxy.stats().await.failed, 0);
}

/// A member that passes TCP checks, and after `answers` answers closes instead of answering.
async fn faulty(answers: usize) -> (SocketAddr, Intent) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                for _ in 0..answers {
                    if stream.read(&mut buffer).await.unwrap_or(0) == 0 {
                        return;
                    }
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nfaulty";
                    stream.write_all(answer).await.unwrap();
                }
                drop(stream.read(&mut buffer).await);
            });
        }
    });
    let intent = Intent {
        key: Key::new("faulty", ""),
        address,
        want: Want::In,
        cut: false,
        health_path: String::new(),
        version: String::new(),
    };
    (address, intent)
}

#[tokio::test]
async fn what_may_have_been_processed_is_repeated_only_if_that_is_safe() {
    let rows = [
        // Answers on each connection before it breaks, method, what the client gets then.
        (1, "GET", 200),
        (1, "POST", 502),
        (0, "GET", 502),
        (0, "POST", 502),
    ];
    for (answers, method, expected) in rows {
        let proxy = Proxy::start().await;
        let (_, intent) = faulty(answers).await;
        let mut changes = proxy.client.subscribe().await.unwrap();
        proxy.client.apply(intent).await.unwrap();
        until(&mut changes, "faulty", Observed::In).await;
        let mut visitor = Visitor::connect(proxy.address).await;
        for _ in 0..answers {
            assert_eq!(visitor.get("/").await, (200, "faulty".to_owned()));
        }
        let request = Request::builder().method(method).uri("/").header("host", "h");
        let answer = read(visitor.send(request.body(text("")).unwrap()).await).await;
        assert_eq!(answer.0, expected, "{answers} {method}: {}", answer.1);
        assert_eq!(proxy.stats().await.failed, u64::from(expected == 502), "{answers} {method}");
    }
}

#[tokio::test]
async fn a_response_that_a_member_breaks_off_is_broken_for_the_client_too() {
    let (proxy, mut apps) = Proxy::with(&["a"]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let response = visitor.send(get("/half")).await;
    assert_eq!(response.status(), StatusCode::OK);
    apps.remove(0).kill().await;
    assert!(soon("its end", response.into_body().collect()).await.is_err());
    let stats = proxy.until_stats("it is counted", |stats| stats.failed == 1).await;
    assert_eq!((stats.in_flight, stats.cut), (0, 0));
}
