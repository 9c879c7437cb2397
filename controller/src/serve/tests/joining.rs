//! Several controllers on one store: who gets in, with what, and what a crash on the way leaves.

use super::*;
use crate::access::controllers::RemoveError;
use crate::access::installation::{Door, EntryError};
use crate::access::join::Invited;
use crate::store::{Op, Store, Txn};

const CONTROLLER: Wish<'_> = Wish { kind: "controller", ..AGENT };

/// A data directory, a name and a store.
struct Newcomer {
    dir: tempfile::TempDir,
    store: Arc<Memory>,
    name: &'static str,
}

impl World {
    /// The first controller, which has founded the installation.
    async fn founded() -> Self {
        let world = world().await;
        world.first().enter().await.unwrap();
        world
    }

    fn first(&self) -> Host<'_> {
        Host { dir: self.dir.path(), store: self.store.clone(), name: "c1" }
    }

    fn newcomer(&self, name: &'static str) -> Newcomer {
        Newcomer { dir: tempfile::tempdir().unwrap(), store: self.store.clone(), name }
    }

    async fn key(&self, key: &str) -> Option<Vec<u8>> {
        self.store.get(key).await.unwrap().map(|entry| entry.value)
    }

    async fn put(&self, key: &str, value: Vec<u8>) {
        self.store.commit(Txn { compares: vec![], ops: vec![Op::put(key, value)] }).await.unwrap();
    }
}

struct Host<'a> {
    dir: &'a std::path::Path,
    store: Arc<Memory>,
    name: &'a str,
}

impl Host<'_> {
    async fn enter(&self) -> Result<Ca, EntryError> {
        let door = Door { store: &*self.store, dir: self.dir, name: self.name, invited: None };
        let inside = door.enter(SystemTime::now()).await?;
        door.settle(now()).await?;
        Ok(inside.ca)
    }
}

impl Newcomer {
    async fn join(&self, world: &World, token: &str) -> Result<Fingerprint, ErrorView> {
        self.join_at(&world.address.to_string(), token).await
    }

    async fn join_at(&self, address: &str, token: &str) -> Result<Fingerprint, ErrorView> {
        let invited = Some(Invited { address, token });
        let door = Door { store: &*self.store, dir: self.dir.path(), name: self.name, invited };
        let inside = door.enter(SystemTime::now()).await.map_err(ErrorView::from)?;
        assert!(!inside.founds);
        door.settle(now()).await.map_err(ErrorView::from)?;
        Ok(inside.ca.fingerprint())
    }

    async fn start(&self) -> Result<Fingerprint, ErrorView> {
        let host = Host { dir: self.dir.path(), store: self.store.clone(), name: self.name };
        host.enter().await.map(|ca| ca.fingerprint()).map_err(ErrorView::from)
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("identity").join(name)
    }
}

#[tokio::test]
async fn a_controller_joins_and_comes_back() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::founded().await;
    let (c2, ca) = (world.newcomer("c2"), world.access.fingerprint());
    let token = world.token(Wish { name: "c2", ..CONTROLLER }).await;
    assert_eq!(c2.join(&world, &token).await.unwrap(), ca);
    assert_eq!(world.key("/ca/c2").await, None, "nothing of the CA stays in the store");
    let mode = std::fs::metadata(c2.file("ca-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // With the same flags, and without.
    assert_eq!(c2.join(&world, &token).await.unwrap(), ca);
    assert_eq!(c2.start().await.unwrap(), ca);
    assert!(world.audited().await.contains(&"controller c2|enrol|controller c2|done".to_owned()));
    // It lets others in, too.
    let second = Ca::open(&c2.dir.path().join("identity")).unwrap().unwrap();
    let access = Access::open(world.store.clone(), Arc::new(second)).await.unwrap();
    let token = access.create_token(&Invitation::try_from(AGENT).unwrap(), "x", now()).await;
    world.enrol(&token.unwrap().reveal(), "node", "web-01").await.unwrap();
}

#[tokio::test]
async fn joining_can_break_off_anywhere() {
    let world = World::founded().await;
    let (c2, ca) = (world.newcomer("c2"), world.access.fingerprint());
    let token = world.token(CONTROLLER).await;
    // Let in, but the answer was lost: the token is spent, and opens what was sealed for it.
    world.enrol(&token, "controller", "c2").await.unwrap();
    let sealed = world.key("/ca/c2").await.unwrap();
    // Meanwhile without a token it is nobody.
    assert!(c2.start().await.unwrap_err().message.contains("has not joined"));
    assert_eq!(c2.join(&world, &token).await.unwrap(), ca);
    // The CA was kept, and neither removed from the store nor the directory named.
    world.put("/ca/c2", sealed).await;
    std::fs::remove_file(c2.file("controller.json")).unwrap();
    assert_eq!(c2.start().await.unwrap(), ca);
    assert_eq!(world.key("/ca/c2").await, None);
    // The key alone was kept: it has never signed anything.
    let c3 = world.newcomer("c3");
    let token = world.token(CONTROLLER).await;
    world.enrol(&token, "controller", "c3").await.unwrap();
    std::fs::create_dir_all(c3.dir.path().join("identity")).unwrap();
    std::fs::copy(c2.file("ca-key.pem"), c3.file("ca-key.pem")).unwrap();
    assert_eq!(c3.join(&world, &token).await.unwrap(), ca);
}

#[tokio::test]
async fn who_does_not_get_in() {
    let (world, foreign) = (World::founded().await, World::founded().await);
    let spent = world.token(CONTROLLER).await;
    world.newcomer("c7").join(&world, &spent).await.unwrap();
    let agent = world.token(AGENT).await;
    let bound = world.token(Wish { name: "c9", ..CONTROLLER }).await;
    let good = world.token(CONTROLLER).await;
    let others = foreign.token(CONTROLLER).await;
    let unknown = Token::generate(Kind::Controller, world.access.fingerprint()).unwrap().reveal();
    let old = world.token_made_at(CONTROLLER, Timestamp(now().0 - 2 * 3600 * 1000)).await;
    world.put("/members/c5", b"{}".to_vec()).await;
    for (name, token, kind, text) in [
        ("c2", &agent[..], "usage", "--token: this is a token for an agent, but a controller is"),
        ("c2", "hunter2", "usage", "--token: this is not a token of rota"),
        ("c2", &spent, "refused", "does not let c2 in: this token has been used already"),
        ("c2", &old, "refused", "this token expired 1h ago"),
        ("c2", &bound, "refused", "this token is for controller `c9`, not for `c2`"),
        ("c2", &others, "refused", "the token is of another installation than the store: its CA"),
        ("c2", &unknown, "refused", "or this is not the store of the controller at 127.0.0.1:"),
        ("c5", &good, "refused", "another controller named c5 is running"),
        ("c7", &good, "refused", "controller c7 is registered already"),
    ] {
        let newcomer = world.newcomer(name);
        refused(newcomer.join(&world, token).await, kind, text);
        assert!(!newcomer.file("ca-key.pem").exists());
    }
    // None of that used a token up. A controller of another installation is noticed by the token's fingerprint.
    let lost = world.newcomer("c2");
    let other_store = Newcomer { store: foreign.store.clone(), ..world.newcomer("c2") };
    refused(other_store.join(&world, &good).await, "refused", "of another installation than the");
    let empty = Newcomer { store: Arc::default(), ..world.newcomer("c2") };
    refused(empty.join(&world, &good).await, "refused", "the store is empty: it is not the one of");
    assert_eq!(lost.join(&world, &good).await.unwrap(), world.access.fingerprint());
    // And what has joined one is of no use to another.
    let moved = Newcomer { store: foreign.store.clone(), ..lost };
    refused(moved.start().await, "refused", "the store belongs to another installation than");
}

#[tokio::test]
async fn of_two_first_starts_one_founds() {
    let store = Arc::new(Memory::default());
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let host = |dir, name| Host { dir, store: store.clone(), name };
    let (first, second) = (host(a.path(), "c1"), host(b.path(), "c2"));
    let (one, two) = tokio::join!(first.enter(), second.enter());
    let (ca, lost, dir) = match (one, two) {
        (Ok(ca), Err(error)) => (ca, error, b.path()),
        (Err(error), Ok(ca)) => (ca, error, a.path()),
        (one, two) => panic!("{one:?} {two:?}"),
    };
    let late = matches!(lost, EntryError::Raced | EntryError::NotInvited(_));
    assert!(late, "{lost}");
    assert!(Ca::open(&dir.join("identity")).unwrap().is_none(), "its CA is gone");
    assert!(store.get("/installation").await.unwrap().is_some());
    let again = Host { dir: a.path(), store: store.clone(), name: "c1" }.enter().await;
    assert!(again.is_err() || again.unwrap().fingerprint() == ca.fingerprint());
}

#[tokio::test]
async fn a_lost_controller_is_forgotten() {
    let world = World::founded().await;
    let c2 = world.newcomer("c2");
    let token = world.token(CONTROLLER).await;
    c2.join(&world, &token).await.unwrap();
    let own = OwnCertificate::new(Arc::clone(world.access.ca()), "c2", SystemTime::now()).unwrap();
    own.register(&world.access, true).await.unwrap();
    let config = own.dialer().config(Expect::Kind(Kind::Controller)).unwrap();
    let channel = connect(&world.address.to_string(), config).await.unwrap();
    refused(fetch(channel.clone()).await, "not_permitted", "controller c2 is no agent");
    refused(read(channel.clone()).await, "not_permitted", "controller c2 is no operator");
    world.put("/members/c2", b"{}".to_vec()).await;
    world.put("/controllers/c2", b"{}".to_vec()).await;
    let alive = world.access.remove_controller("c2", "x", now()).await.unwrap_err();
    assert!(matches!(alive, RemoveError::Alive(_)));
    let gone = vec![Op::Delete("/members/c2".to_owned())];
    world.store.commit(Txn { compares: vec![], ops: gone }).await.unwrap();
    let removed = world.access.until_removed(own.identity());
    let remove = world.access.remove_controller("c2", "burnt down", now());
    let ((), done) = tokio::join!(removed, remove);
    done.unwrap();
    assert!(own.register(&world.access, false).await.is_err(), "it cannot come back that way");
    assert_eq!(world.key("/controllers/c2").await, None);
    refused(fetch(channel).await, "not_permitted", "the certificate of controller c2 was revoked");
    let missing = world.access.remove_controller("c2", "x", now()).await.unwrap_err();
    assert!(matches!(missing, RemoveError::Missing(_)));
    // It does not come back by itself; invited again it does.
    refused(c2.start().await, "refused", "controller c2 was removed from this installation");
    let token = world.token(Wish { name: "c2", ..CONTROLLER }).await;
    c2.join(&world, &token).await.unwrap();
    c2.start().await.unwrap();
}
