//! Members leave and come back; nobody notices.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rota_proxy::{Intent, Observed, Want};
use tokio::task::LocalSet;

use crate::support::{App, Proxy, Visitor, get, post, read, soon, text, until};

mod support;

/// One client that asks until it is told to stop; counts what was answered.
async fn visit(address: std::net::SocketAddr, answered: Rc<Cell<u64>>, stop: Rc<Cell<bool>>) {
    let mut visitor = Visitor::connect(address).await;
    for number in 0.. {
        let request = if number % 3 == 0 { post("/count", text("12345")) } else { get("/") };
        let (status, text) = read(visitor.send(request).await).await;
        assert_eq!(status, 200, "request {number}: {text}");
        answered.set(answered.get() + 1);
        if stop.get() {
            return;
        }
    }
}

#[tokio::test]
async fn each_member_in_turn_is_replaced_under_load_without_a_failure() {
    let (proxy, mut apps) = Proxy::with(&["a", "b", "c"]).await;
    let (answered, stop) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
    let clients = LocalSet::new();
    for _ in 0..16 {
        clients.spawn_local(visit(proxy.address, answered.clone(), stop.clone()));
    }
    let rolling = async {
        for round in 0..12 {
            let app = apps.remove(0);
            let before = answered.get();
            let state = proxy.take_out(&app).await;
            assert_eq!((state.in_flight, state.cut), (0, 0), "round {round}");
            assert_eq!(app.established(), 0, "round {round}: connections at a member that is out");
            let seen = app.requests();
            let name = app.doings.name.clone();
            let more = async {
                while answered.get() < before + 50 {
                    tokio::task::yield_now().await;
                }
            };
            soon("others serve", more).await;
            assert_eq!(app.requests(), seen, "round {round}: requests at a member that is out");
            let app = App::start_at(&name, app.kill().await);
            proxy.bring_in(&app).await;
            let served = async {
                while app.requests() < 20 {
                    tokio::task::yield_now().await;
                }
            };
            soon("it serves again", served).await;
            apps.push(app);
        }
        stop.set(true);
    };
    clients.run_until(rolling).await;
    soon("clients end", clients).await;
    let stats = proxy.stats().await;
    assert_eq!((stats.failed, stats.cut, stats.in_flight), (0, 0, 0));
    assert_eq!(stats.requests, answered.get());
    assert!(stats.requests > 1000, "only {} requests", stats.requests);
    proxy.stop().await;
}

#[tokio::test]
async fn a_slow_request_keeps_its_member_draining_until_it_ends() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let app = &apps[0];
    let mut visitor = Visitor::connect(proxy.address).await;
    let slow = tokio::spawn(async move { read(visitor.send(get("/slow")).await).await });
    soon("the request is there", app.doings.arrived.notified()).await;

    let mut changes = proxy.client.subscribe().await.unwrap();
    let state = proxy.client.apply(app.intent(Want::Out)).await.unwrap();
    assert_eq!((state.observed, state.in_flight), (Observed::Draining, 1));
    until(&mut changes, "a", Observed::Draining).await;
    assert_eq!(app.established(), 1);

    app.let_slow_answer();
    let state = until(&mut changes, "a", Observed::Out).await;
    assert_eq!((state.in_flight, state.cut), (0, 0));
    assert_eq!(app.established(), 0);
    assert_eq!(slow.await.unwrap(), (200, "slowly, a".to_owned()));
}

#[tokio::test]
async fn a_body_that_is_not_delivered_yet_is_in_flight() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let response = visitor.send(get("/half")).await;
    let state = proxy.client.apply(apps[0].intent(Want::Out)).await.unwrap();
    assert_eq!((state.observed, state.in_flight), (Observed::Draining, 1));
    let mut changes = proxy.client.subscribe().await.unwrap();
    apps[0].let_slow_answer();
    until(&mut changes, "a", Observed::Out).await;
    assert_eq!(read(response).await, (200, "half".to_owned()));
}

#[tokio::test]
async fn a_client_that_breaks_off_is_not_in_flight() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let driver = visitor.driver.abort_handle();
    let slow = tokio::spawn(async move { visitor.try_send(get("/slow")).await.is_err() });
    soon("the request is there", apps[0].doings.arrived.notified()).await;
    assert_eq!(proxy.state(&apps[0]).await.in_flight, 1);
    driver.abort();
    assert!(slow.await.unwrap());
    let stats = proxy.until_stats("nothing in flight", |stats| stats.in_flight == 0).await;
    assert_eq!(stats.failed, 0, "a client's own doing is no failure");
    assert_eq!(proxy.take_out(&apps[0]).await.observed, Observed::Out);
}

#[tokio::test]
async fn a_cut_ends_what_is_in_flight_and_counts_it() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let app = &apps[0];
    let mut slow = Vec::new();
    for _ in 0..3 {
        let mut visitor = Visitor::connect(proxy.address).await;
        slow.push(tokio::spawn(async move { read(visitor.send(get("/slow")).await).await }));
        soon("the request is there", app.doings.arrived.notified()).await;
    }
    let mut half = Visitor::connect(proxy.address).await;
    let half = half.send(get("/half")).await;
    assert_eq!(proxy.client.apply(app.intent(Want::Out)).await.unwrap().in_flight, 4);

    let mut changes = proxy.client.subscribe().await.unwrap();
    let cut = Intent { cut: true, ..app.intent(Want::Out) };
    assert_eq!(proxy.client.apply(cut).await.unwrap().cut, 4);
    let state = until(&mut changes, "a", Observed::Out).await;
    assert_eq!((state.in_flight, state.cut), (0, 4));
    assert_eq!(app.established(), 0);
    for slow in slow {
        let (status, text) = slow.await.unwrap();
        assert_eq!(status, 502);
        assert!(text.contains("taken out of traffic"), "{text}");
    }
    let broken = http_body_util::BodyExt::collect(half.into_body()).await;
    assert!(broken.is_err(), "a cut body must not look whole");
    let stats = proxy.stats().await;
    assert_eq!((stats.cut, stats.failed), (4, 4));

    proxy.bring_in(app).await;
    assert_eq!(proxy.state(app).await.cut, 0, "counted since it last joined");
    assert_eq!(proxy.stats().await.cut, 4);
}

#[tokio::test]
async fn gone_members_are_forgotten() {
    let (proxy, apps) = Proxy::with(&["a", "b"]).await;
    let mut changes = proxy.client.subscribe().await.unwrap();
    let state = proxy.client.apply(apps[0].intent(Want::Gone)).await.unwrap();
    assert_eq!(state.observed, Observed::Absent);
    until(&mut changes, "a", Observed::Absent).await;
    let names: Vec<_> =
        proxy.client.list().await.unwrap().into_iter().map(|state| state.key.node).collect();
    assert_eq!(names, ["b"]);
    let mut visitor = Visitor::connect(proxy.address).await;
    assert_eq!(visitor.get("/").await, (200, "b".to_owned()));
}

#[tokio::test]
async fn a_sick_member_leaves_and_comes_back_by_itself() {
    let (proxy, apps) = Proxy::with(&["a", "b"]).await;
    let mut changes = proxy.client.subscribe().await.unwrap();
    apps[0].doings.sick.store(true, Ordering::SeqCst);
    let state = until(&mut changes, "a", Observed::Joining).await;
    assert_eq!(state.failure, "health check: status 503");
    let mut visitor = Visitor::connect(proxy.address).await;
    for _ in 0..10 {
        assert_eq!(visitor.get("/").await, (200, "b".to_owned()));
    }
    apps[0].doings.sick.store(false, Ordering::SeqCst);
    let state = until(&mut changes, "a", Observed::In).await;
    assert_eq!(state.failure, "");
}

#[tokio::test]
async fn a_request_waits_for_a_member_that_joins() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    proxy.take_out(&apps[0]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let waiting = tokio::spawn(async move { visitor.get("/").await });
    proxy.until_stats("it waits", |stats| stats.waiting == 1).await;
    proxy.bring_in(&apps[0]).await;
    assert_eq!(waiting.await.unwrap(), (200, "a".to_owned()));
    assert_eq!(proxy.stats().await.waiting, 0);
}

#[tokio::test]
async fn a_request_without_a_member_is_answered_after_the_wait() {
    let proxy = Proxy::start().await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let waiting = tokio::spawn(async move { visitor.get("/").await });
    proxy.until_stats("it waits", |stats| stats.waiting == 1).await;
    let began = Instant::now();
    let (status, text) = waiting.await.unwrap();
    assert_eq!(status, 503);
    assert_eq!(text, "503: no member of the pool was in traffic within 5 s\n");
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(proxy.stats().await.failed, 1);
}
