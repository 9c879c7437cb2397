//! Which agents a controller works with.

use rota_proto::agent::{self as proto, to_agent};

use super::*;
use crate::access::memory::Memory;
use crate::engine::{Engine, Own};

/// What an agent that speaks so hears first.
async fn answer(engine: &Handle, session: u64, protocol: u32) -> String {
    let (out, mut heard) = mpsc::channel(8);
    let hello = proto::Hello { env: "prod".to_owned(), protocol, ..proto::Hello::default() };
    let key = AgentKey::Node("web-01".parse().unwrap());
    let (peer, beat) = ("127.0.0.1".to_owned(), Heartbeat::default());
    let hello = Hello { key, session, peer, hello, out, beat };
    assert!(engine.tell(Input::Hello(Box::new(hello))).await);
    match heard.recv().await.unwrap().message.unwrap() {
        to_agent::Message::Welcome(welcome) => format!("welcome to {}", welcome.controller),
        to_agent::Message::Goodbye(goodbye) => goodbye.reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn agents_of_neighbouring_versions_are_welcome() {
    let own = Own::alone("c1", "here:7400");
    let store = Arc::new(Memory::default());
    let (running, engine) = Engine::open(store, own, Box::new(|_| {})).await.unwrap();
    tokio::spawn(running.run());
    for (protocol, right) in [
        (0, "this controller speaks protocol 1, the agent 0: upgrade the older one"),
        (1, "welcome to c1"),
        (2, "welcome to c1"),
        (3, "this controller speaks protocol 1, the agent 3: upgrade the older one"),
    ] {
        assert_eq!(answer(&engine, u64::from(protocol), protocol).await, right);
    }
}
