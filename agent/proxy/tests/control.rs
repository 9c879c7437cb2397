//! The control socket and the state file.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use rota_proxy::{Error, Intent, Key, Observed, Want};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::support::{App, Proxy, Visitor, get, read, soon, until};

mod support;

#[tokio::test]
async fn a_restarted_proxy_comes_back_with_its_members() {
    let (proxy, apps) = Proxy::with(&["a", "b"]).await;
    proxy.take_out(&apps[1]).await;
    let folder = proxy.stop().await;

    let proxy = Proxy::start_in(folder).await;
    let mut changes = proxy.client.subscribe().await.unwrap();
    until(&mut changes, "a", Observed::In).await;
    let state = proxy.state(&apps[1]).await;
    assert_eq!((state.want, state.observed), (Want::Out, Observed::Out));
    assert_eq!((state.health_path.as_str(), state.version.as_str()), ("/healthz", "1.0.0"));
    let mut visitor = Visitor::connect(proxy.address).await;
    for _ in 0..10 {
        assert_eq!(visitor.get("/").await, (200, "a".to_owned()));
    }
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let mut visitor = Visitor::connect(proxy.address).await;
    let slow = tokio::spawn(async move { read(visitor.send(get("/slow")).await).await });
    soon("the request is there", apps[0].doings.arrived.notified()).await;
    proxy.client.shutdown().await.unwrap();
    apps[0].let_slow_answer();
    assert_eq!(slow.await.unwrap(), (200, "slowly, a".to_owned()));
    proxy.ended().await;
}

#[tokio::test]
async fn a_second_proxy_is_refused_and_a_dead_socket_is_replaced() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let config = Proxy::config(&folder);
    drop(UnixListener::bind(&config.control).unwrap());
    assert!(config.control.exists(), "the socket of a process that died");

    let proxy = Proxy::start_in(folder.clone()).await;
    let mode = std::fs::metadata(&config.control).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let refused = rota_proxy::run(config.clone()).await.unwrap_err();
    assert!(matches!(refused, Error::Running { .. }), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("control.sock is running already"), "{text}");
    assert!(proxy.client.stats().await.is_ok(), "the first one goes on");
    proxy.stop().await;
    Proxy::start_in(folder).await.stop().await;
}

#[tokio::test]
async fn an_unusable_state_file_is_named() {
    let rows = [
        ("{", "it is not a state file of this proxy"),
        ("{\"v\":1,\"members\":[{\"key\":{}}]}", "it is not a state file of this proxy"),
        ("{\"v\":9,\"members\":[]}", "it has form 9, and this program knows form 1"),
    ];
    for (text, expected) in rows {
        let folder = tempfile::tempdir().unwrap();
        let config = Proxy::config(&folder);
        std::fs::write(&config.state, text).unwrap();
        let error = rota_proxy::run(config.clone()).await.unwrap_err();
        assert!(error.to_string().contains("state.json"), "{error}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert_eq!(cause, expected);
        assert_eq!(std::fs::read_to_string(&config.state).unwrap(), text, "it is left as it is");
    }
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let config = rota_proxy::Config { listen, ..Proxy::config(&folder) };
    let error = rota_proxy::run(config).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen for clients on {listen}"));
}

#[tokio::test]
async fn a_broken_control_connection_changes_nothing() {
    let (proxy, apps) = Proxy::with(&["a"]).await;
    let rows: [&[u8]; 4] = [
        b"",
        b"nonsense\n",
        b"{\"id\":1,\"ask\":{\"apply\":{\"key\":{\"node\":\"a\"},\"want\":\"out\"}}}\n",
        b"{\"id\":1,\"ask\":{\"apply\":{\"key\":{\"node\":\"a\"},\"want\":\"o",
    ];
    for row in rows {
        let path = Proxy::config(&proxy.folder).control;
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(row).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answers = BufReader::new(stream).lines();
        let answer = soon("an end", answers.next_line()).await.unwrap();
        let refused = answer.is_some_and(|line| line.starts_with("{\"refused\":{\"id\":0,"));
        assert_eq!(refused, row.ends_with(b"\n"));
        assert_eq!(proxy.state(&apps[0]).await.observed, Observed::In);
    }
}

#[tokio::test]
async fn refused_intents_say_why() {
    let proxy = Proxy::start().await;
    let app = App::start("a");
    let intent = Intent { key: Key::new("", ""), ..app.intent(Want::In) };
    let refused = proxy.client.apply(intent).await.unwrap_err();
    let expected = "the proxy refused: a member needs the name of its node, of 1 to 253 bytes";
    assert_eq!(refused.to_string(), expected);
}

#[tokio::test]
async fn calls_at_the_same_time_get_their_own_answers() {
    let proxy = Proxy::start().await;
    let apps: Vec<_> = (0..40).map(|number| App::start(&format!("n{number}"))).collect();
    let calls: Vec<_> = apps
        .iter()
        .map(|app| {
            let (client, intent) = (proxy.client.clone(), app.intent(Want::In));
            tokio::spawn(async move { client.apply(intent).await.unwrap().key.node })
        })
        .collect();
    for (number, call) in calls.into_iter().enumerate() {
        assert_eq!(soon("an answer", call).await.unwrap(), format!("n{number}"));
    }
    assert_eq!(proxy.client.list().await.unwrap().len(), 40);
}

#[tokio::test]
async fn subscribers_hear_the_end() {
    let proxy = Proxy::start().await;
    let client = proxy.client.clone();
    let mut changes = client.subscribe().await.unwrap();
    proxy.stop().await;
    assert!(soon("the end", changes.next()).await.unwrap().is_none());
    assert!(client.stats().await.is_err());
}
