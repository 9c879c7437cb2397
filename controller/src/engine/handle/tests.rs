//! What readers see, on a disk that is slow or full.

use std::sync::Arc;

use rota_rollout::names::{EnvName, Timestamp};

use crate::access::memory::{Disk, Memory};
use crate::engine::{Ask, Asked, Engine, Handle, Own};

async fn opened() -> (Arc<Memory>, Handle) {
    let store = Arc::new(Memory::default());
    let (engine, handle) =
        Engine::open(store.clone(), Own::alone("c1", "here:7400"), Box::new(|_| {})).await.unwrap();
    tokio::spawn(engine.run());
    (store, handle)
}

fn freeze() -> Asked {
    let env: EnvName = "prod".parse().unwrap();
    let ask = Ask::Freeze { env, why: "sale".to_owned(), until: None::<Timestamp> };
    Asked { who: "ann".to_owned(), ask, forwarded: false }
}

fn is_frozen(handle: &Handle) -> bool {
    handle.read().envs.values().any(|env| env.frozen.is_some())
}

fn is_down(handle: &Handle) -> bool {
    handle.read().store_down.is_some()
}

/// As readers look.
async fn durably<T>(handle: &Handle, look: impl Fn(&Handle) -> T) -> T {
    loop {
        let mark = handle.mark();
        let seen = look(handle);
        if handle.is_durable(mark).await {
            return seen;
        }
    }
}

/// Until the engine has made the turn in memory, which is where readers look.
async fn until_seen(handle: &Handle) {
    while !is_frozen(handle) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_not_durable_is_not_shown() {
    let (store, handle) = opened().await;
    let busy = store.disk.write().await;
    let asking = tokio::spawn({
        let handle = handle.clone();
        async move { handle.ask(freeze()).await }
    });
    until_seen(&handle).await;
    let reading = tokio::spawn({
        let handle = handle.clone();
        async move { durably(&handle, is_frozen).await }
    });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!reading.is_finished(), "it was shown before it was durable");
    drop(busy);
    assert!(reading.await.unwrap());
    assert!(asking.await.unwrap().is_ok());
}

#[tokio::test]
async fn what_the_store_did_not_take_is_never_shown() {
    let (store, handle) = opened().await;
    let mut busy = store.disk.write().await;
    let asking = tokio::spawn({
        let handle = handle.clone();
        async move { handle.ask(freeze()).await }
    });
    until_seen(&handle).await;
    let reading = tokio::spawn({
        let handle = handle.clone();
        async move { durably(&handle, |handle| (is_frozen(handle), is_down(handle))).await }
    });
    *busy = Disk::Full;
    drop(busy);
    let (frozen, down) = reading.await.unwrap();
    assert!(!frozen || down, "a change that did not happen was shown as if it had");
    assert!(asking.await.unwrap().is_err());
    *store.disk.write().await = Disk::Writes;
    while is_down(&handle) {
        tokio::task::yield_now().await;
    }
    assert!(!durably(&handle, is_frozen).await);
}
