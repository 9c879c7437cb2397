//! Artifacts between controllers, over real TLS on loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use rota_identity::{Expect, Identity, Kind, client_config, connect, tls};
use rota_proto::controller::copies_client::CopiesClient;
use rota_proto::controller::copies_server::CopiesServer;
use rota_rollout::names::Digest;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::transport::Server;

use super::*;
use crate::access::Ca;
use crate::access::memory::Memory;
use crate::access::own::OwnCertificate;
use crate::artifact::peers::{Peer, Peers, Spread};
use crate::artifact::store::ArtifactStore;
use crate::errors::view;
use crate::serve::listen::{bind, incoming};

/// Who is there; a test may change it. Whose address is `lost` is not.
struct Room(watch::Sender<Vec<Peer>>, watch::Sender<()>);

impl Peers for Room {
    fn others(&self) -> Vec<Peer> {
        self.0.borrow().iter().filter(|peer| peer.address != "lost").cloned().collect()
    }

    fn lost(&self) -> Vec<String> {
        let peers = self.0.borrow();
        peers.iter().filter(|peer| peer.address == "lost").map(|peer| peer.name.clone()).collect()
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.1.subscribe()
    }
}

impl Room {
    fn set(&self, peers: Vec<Peer>) {
        self.0.send_replace(peers);
        self.1.send_replace(());
    }
}

/// One authority and its controllers.
struct World {
    ca: Arc<Ca>,
    access: Arc<Access>,
    _dir: tempfile::TempDir,
}

struct Controller {
    peer: Peer,
    artifacts: Artifacts,
    room: Arc<Room>,
    serving: JoinHandle<()>,
    dir: tempfile::TempDir,
}

/// Does something else than it should with the first calls.
struct Faulty {
    bytes: Bytes,
    /// Sends so many bytes, then ends the call with an error.
    breaks_at: usize,
    /// Where it was asked to go on.
    offsets: Arc<Mutex<Vec<u64>>>,
}

#[tonic::async_trait]
impl Copies for Faulty {
    type FetchStream = Answers<Chunk>;
    type KeepStream = Answers<Kept>;

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let offset = request.get_ref().offset;
        self.offsets.lock().unwrap().push(offset);
        let size = self.bytes.len() as u64;
        let from = usize::try_from(offset).unwrap().min(self.bytes.len());
        let data = self.bytes.slice(from..self.breaks_at.max(from));
        let first = Ok(Chunk { data, size });
        let whole = self.breaks_at == self.bytes.len();
        let last = (!whole).then(|| Err(Status::unavailable("the cable was cut")));
        Ok(Response::new(Box::pin(tokio_stream::iter([first].into_iter().chain(last)))))
    }

    async fn keep(&self, _: Request<KeepRequest>) -> Result<Response<Self::KeepStream>, Status> {
        let full = Sort::Refused.error("the disk of c9 is full", "");
        Err(status(full))
    }
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let ca = Arc::new(Ca::create(dir.path(), SystemTime::now()).unwrap());
    let store = Arc::new(Memory::default());
    let access = Arc::new(Access::open(store, Arc::clone(&ca)).await.unwrap());
    World { ca, access, _dir: dir }
}

impl World {
    fn own(&self, name: &str) -> OwnCertificate {
        OwnCertificate::new(Arc::clone(&self.ca), name, SystemTime::now()).unwrap()
    }

    /// A controller that knows nobody yet.
    async fn controller(&self, name: &str) -> Controller {
        let dir = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(dir.path()).await.unwrap();
        let own = self.own(name);
        let room = Arc::new(Room(watch::Sender::new(Vec::new()), watch::Sender::new(())));
        let artifacts = Artifacts::new(store, room.clone(), own.dialer());
        let service = CopiesService::new(Arc::clone(&self.access), artifacts.clone());
        let (address, serving) = serve(&own, service);
        let peer = Peer { name: name.to_owned(), address: address.to_string() };
        Controller { peer, artifacts, room, serving, dir }
    }

    /// One that sends `bytes` whatever it is asked for, up to a place.
    fn faulty(&self, name: &str, bytes: &Bytes, breaks_at: usize) -> (Peer, Offsets) {
        let offsets = Offsets::default();
        let (bytes, told) = (bytes.clone(), Arc::clone(&offsets));
        let (address, _) = serve(&self.own(name), Faulty { bytes, breaks_at, offsets: told });
        (Peer { name: name.to_owned(), address: address.to_string() }, offsets)
    }
}

type Offsets = Arc<Mutex<Vec<u64>>>;

fn serve(own: &OwnCertificate, service: impl Copies) -> (SocketAddr, JoinHandle<()>) {
    let listener: TcpListener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let connections = incoming(listener, own.config(), Arc::default());
    let serving =
        Server::builder().add_service(CopiesServer::new(service)).serve_with_incoming(connections);
    (address, tokio::spawn(async move { serving.await.unwrap() }))
}

/// Bytes that differ everywhere, and their digest.
fn artifact(size: usize, salt: u8) -> (Bytes, Digest) {
    let bytes: Vec<u8> =
        (0..size).map(|at| (at / 251 % 256) as u8 ^ (at % 256) as u8 ^ salt).collect();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    (bytes.into(), digest.parse().unwrap())
}

async fn put(artifacts: &Artifacts, (bytes, digest): &(Bytes, Digest)) {
    let mut upload = artifacts.here.begin(digest, bytes.len() as u64, 0).await.unwrap();
    upload.write(bytes.clone()).await.unwrap();
    upload.finish().await.unwrap();
}

async fn is_here(artifacts: &Artifacts, digest: &Digest) -> bool {
    artifacts.here.state(digest).await.unwrap().complete
}

async fn read(artifacts: &Artifacts, digest: &Digest) -> Vec<u8> {
    let mut download = artifacts.here.read(digest, 0).await.unwrap();
    let mut all = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        all.extend_from_slice(&chunk);
    }
    all
}

#[tokio::test]
async fn what_another_controller_has_is_copied() {
    let world = world().await;
    let (one, two) = (world.controller("c1").await, world.controller("c2").await);
    let three = world.controller("c3").await;
    let wanted = artifact(3_000_000, 0);
    put(&one.artifacts, &wanted).await;
    two.room.set(vec![three.peer.clone(), one.peer.clone()]);
    two.artifacts.bring(&wanted.1, Pace::Hurried).await.unwrap();
    assert_eq!(read(&two.artifacts, &wanted.1).await, wanted.0, "c3 lacks it, c1 has it");
    assert!(two.artifacts.running(&wanted.1).is_none(), "it is over");
    // Before an upload: it is not sent again. What nobody has is not waited for.
    two.artifacts.brought_if_known(&artifact(11, 3).1).await;
    let other = artifact(2_000_000, 3);
    put(&one.artifacts, &other).await;
    two.artifacts.brought_if_known(&other.1).await;
    assert!(is_here(&two.artifacts, &other.1).await);
    let nowhere = artifact(10, 1).1;
    let error = two.artifacts.brought(&nowhere).await.unwrap_err();
    let right = format!("no controller that is alive has the artifact {}", nowhere.short());
    assert_eq!((&error.kind[..], &error.message), ("unreachable", &right));
    // Alone there is nobody to wait for: whoever reads it finds that it is not there.
    one.artifacts.brought(&nowhere).await.unwrap();
}

#[tokio::test]
async fn a_copy_goes_on_where_it_broke_off() {
    let world = world().await;
    let wanted = artifact(1_000_000, 0);
    let (whole, two) = (world.controller("c1").await, world.controller("c2").await);
    put(&whole.artifacts, &wanted).await;
    let (cut, offsets) = world.faulty("c9", &wanted.0, 400_000);
    // Only the one that breaks off: what came stays, and the next try goes on there.
    two.room.set(vec![cut.clone()]);
    let error = two.artifacts.bring(&wanted.1, Pace::Hurried).await.unwrap_err().to_string();
    assert!(error.contains("controller c9: the cable was cut"), "{error}");
    assert_eq!(*offsets.lock().unwrap(), [0, 400_000], "again while it brought something");
    assert_eq!(two.artifacts.here.state(&wanted.1).await.unwrap().have, 400_000);
    // Another one sends the rest.
    two.room.set(vec![cut, whole.peer.clone()]);
    two.artifacts.bring(&wanted.1, Pace::Hurried).await.unwrap();
    assert_eq!(read(&two.artifacts, &wanted.1).await, wanted.0);
}

#[tokio::test]
async fn a_controller_that_dies_is_left_for_the_next() {
    let world = world().await;
    let wanted = artifact(40_000_000, 0);
    let (one, two) = (world.controller("c1").await, world.controller("c2").await);
    let three = world.controller("c3").await;
    for has_it in [&one, &three] {
        put(&has_it.artifacts, &wanted).await;
    }
    two.room.set(vec![one.peer.clone(), three.peer.clone()]);
    // Leisurely, it takes more than a second: time to die in the middle.
    let begun = two.artifacts.begin(&wanted.1, Pace::Leisurely, Some("c1")).await.unwrap();
    let copying = begun.unwrap();
    copying.told().wait_for(|told| told.have > 1_000_000).await.unwrap();
    one.serving.abort();
    let hurried = two.artifacts.running(&wanted.1).unwrap();
    let (first, second) = tokio::join!(copying.end(), hurried.end());
    first.unwrap();
    second.unwrap();
    assert_eq!(read(&two.artifacts, &wanted.1).await, wanted.0);
}

#[tokio::test]
async fn other_bytes_do_not_count() {
    let world = world().await;
    let wanted = artifact(500_000, 0);
    let (good, two) = (world.controller("c1").await, world.controller("c2").await);
    put(&good.artifacts, &wanted).await;
    let (liar, asked) = world.faulty("c9", &artifact(500_000, 7).0, 500_000);
    two.room.set(vec![liar.clone()]);
    let error = two.artifacts.bring(&wanted.1, Pace::Hurried).await.unwrap_err().to_string();
    assert!(error.contains("controller c9: what came has the digest"), "{error}");
    let state = two.artifacts.here.state(&wanted.1).await.unwrap();
    assert_eq!((state.have, state.complete), (0, false), "nothing of it stays");
    assert_eq!(asked.lock().unwrap().len(), 1, "it is not asked twice");
    two.room.set(vec![liar, good.peer.clone()]);
    two.artifacts.bring(&wanted.1, Pace::Hurried).await.unwrap();
    assert_eq!(read(&two.artifacts, &wanted.1).await, wanted.0);
}

#[tokio::test]
async fn whoever_wants_it_waits_for_one_copy() {
    let world = world().await;
    let wanted = artifact(400_000, 0);
    let two = world.controller("c2").await;
    let (one, offsets) = world.faulty("c1", &wanted.0, 400_000);
    two.room.set(vec![one]);
    let bring = || two.artifacts.bring(&wanted.1, Pace::Hurried);
    let (a, b, c) = tokio::join!(bring(), bring(), bring());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(offsets.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn only_the_controller_that_is_meant_is_believed() {
    let world = world().await;
    let wanted = artifact(1000, 0);
    let (one, two) = (world.controller("c1").await, world.controller("c2").await);
    put(&one.artifacts, &wanted).await;
    // The address is c1's, the name is not: a copy there would be taken for one at c3.
    let wrong = Peer { name: "c3".to_owned(), address: one.peer.address.clone() };
    two.room.set(vec![wrong]);
    let error = two.artifacts.bring(&wanted.1, Pace::Hurried).await.unwrap_err().to_string();
    assert!(
        error.contains("the server is controller c1, but controller c3 was expected"),
        "{error}"
    );
}

#[tokio::test]
async fn a_new_artifact_goes_to_one_other_controller() {
    let world = world().await;
    let wanted = artifact(2_000_000, 0);
    let (one, two) = (world.controller("c1").await, world.controller("c2").await);
    put(&one.artifacts, &wanted).await;
    assert_eq!(one.artifacts.spread(&wanted.1, None).await, Spread::Alone);
    one.room.set(vec![Peer { name: "c7".to_owned(), address: "lost".to_owned() }]);
    let lost = Spread::Nowhere(vec!["controller c7: lost".to_owned()]);
    assert_eq!(one.artifacts.spread(&wanted.1, None).await, lost);
    let (full, _) = world.faulty("c9", &wanted.0, 0);
    let gone = Peer { name: "c8".to_owned(), address: "127.0.0.1:1".to_owned() };
    one.room.set(vec![full.clone(), gone.clone()]);
    let Spread::Nowhere(said) = one.artifacts.spread(&wanted.1, None).await else {
        panic!("kept?")
    };
    assert_eq!(said[0], "controller c9: the disk of c9 is full");
    assert!(said[1].starts_with("controller c8: cannot reach 127.0.0.1:1"), "{said:?}");
    // It brings the artifact from the caller.
    two.room.set(vec![gone.clone(), one.peer.clone()]);
    one.room.set(vec![full, gone, two.peer.clone()]);
    assert_eq!(one.artifacts.spread(&wanted.1, None).await, Spread::On("c2".to_owned()));
    assert_eq!(read(&two.artifacts, &wanted.1).await, wanted.0);
    assert_eq!(one.artifacts.spread(&wanted.1, None).await, Spread::On("c2".to_owned()), "again");
    let three = world.controller("c3").await;
    three.room.set(vec![one.peer.clone()]);
    one.room.set(vec![two.peer.clone(), three.peer.clone()]);
    let first = one.artifacts.spread(&wanted.1, Some("c3")).await;
    assert_eq!(first, Spread::On("c3".to_owned()));
}

#[tokio::test]
async fn what_is_wanted_comes_when_somebody_has_it() {
    let world = world().await;
    let (one, two) = (world.controller("c1").await, world.controller("c2").await);
    let wanted: Vec<_> = (0..3).map(|salt| artifact(300_000, salt)).collect();
    for artifact in &wanted {
        put(&one.artifacts, artifact).await;
    }
    let digests = |count: usize| -> BTreeSet<Digest> {
        wanted.iter().take(count).map(|(_, digest)| digest.clone()).collect()
    };
    let (want, wants) = watch::channel(digests(2));
    let bringing = tokio::spawn(two.artifacts.clone().bring_in(wants));
    // Nobody is there yet.
    two.room.set(vec![one.peer.clone()]);
    want.send_replace(digests(3));
    for (bytes, digest) in &wanted {
        while !is_here(&two.artifacts, digest).await {
            tokio::task::yield_now().await;
        }
        assert_eq!(read(&two.artifacts, digest).await, *bytes);
    }
    drop(want);
    bringing.await.unwrap();
}

#[tokio::test]
async fn agents_and_operators_have_no_part_in_it() {
    let world = world().await;
    let one = world.controller("c1").await;
    let calls = AtomicUsize::new(0);
    for (kind, name) in [(Kind::Node, "web-01"), (Kind::Edge, "lb"), (Kind::Operator, "eve")] {
        let identity = Identity::new(kind, name).unwrap();
        let (issued, key) = world.ca.issue_with_key(&identity, SystemTime::now()).unwrap();
        let own = issued.credentials(&key).unwrap();
        let roots = tls::roots(world.ca.roots_pem()).unwrap();
        let config = client_config(&own, roots, Expect::Kind(Kind::Controller)).unwrap();
        let channel = connect(&one.peer.address, config).await.unwrap();
        let mut client = CopiesClient::new(channel);
        let digest = artifact(10, 0).1.to_string();
        let fetched = client.fetch(FetchRequest { digest: digest.clone(), offset: 0 }).await;
        let kept = client.keep(KeepRequest { digest }).await;
        for error in [view(&fetched.unwrap_err()), view(&kept.unwrap_err())] {
            let right = format!("{kind} {name} is no controller: this service is for controllers");
            assert_eq!((&error.kind[..], error.message), ("not_permitted", right));
            calls.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(world.access.audit().list(0, 100).await.unwrap().len(), calls.into_inner());
}

#[tokio::test]
async fn a_large_artifact_is_never_in_memory() {
    const SIZE: usize = 160 << 20;
    let world = world().await;
    let (one, two) = (world.controller("c1").await, world.controller("c2").await);
    let wanted = artifact(SIZE, 0);
    put(&one.artifacts, &wanted).await;
    let digest = wanted.1.clone();
    drop(wanted);
    let before = resident();
    let begun = {
        two.room.set(vec![one.peer.clone()]);
        two.artifacts.begin(&digest, Pace::Hurried, None).await.unwrap()
    };
    let copying = begun.unwrap();
    let mut told = copying.told();
    let mut most = 0;
    while told.changed().await.is_ok() {
        most = most.max(resident().saturating_sub(before));
    }
    copying.end().await.unwrap();
    assert!(most < SIZE / 3, "{most} bytes more than before");
    assert!(two.dir.path().join("artifacts").is_dir());
}

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
