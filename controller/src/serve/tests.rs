//! Joining, calling and being thrown out, over real TLS on loopback.

mod joining;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use rota_identity::{
    Expect, Fingerprint, IdentityFiles, Kind, Leaf, PrivateKey, Token, client_config, connect,
    pinned_client_config,
};
use rota_proto::agent::enrolment_client::EnrolmentClient;
use rota_proto::agent::enrolment_server::EnrolmentServer;
use rota_proto::agent::fleet_client::FleetClient;
use rota_proto::agent::fleet_server::{Fleet, FleetServer};
use rota_proto::agent::{
    Chunk, EnrolReply, EnrolRequest, FetchRequest, FromAgent, RenewRequest, ToAgent,
};
use rota_proto::operator as op;
use rota_proto::operator::operator_client::OperatorClient;
use rota_proto::operator::operator_server::{Operator, OperatorServer};
use rota_rollout::names::Timestamp;
use tokio_stream::Stream;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

use super::enrol::{Enrol, renew};
use super::listen::{Counters, bind, incoming};
use crate::access::memory::Memory;
use crate::access::own::OwnCertificate;
use crate::access::tokens::Wish;
use crate::access::{Access, Action, Ca, Invitation, now, share};
use crate::context::Context;
use crate::errors::view;
use crate::view::ErrorView;

/// A controller on a free port, with services that do nothing but ask who calls.
struct World {
    dir: tempfile::TempDir,
    store: Arc<Memory>,
    access: Arc<Access>,
    counters: Arc<Counters>,
    address: SocketAddr,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Memory::default());
    let ca = Arc::new(Ca::create(&dir.path().join("identity"), SystemTime::now()).unwrap());
    let access = Arc::new(Access::open(store.clone(), Arc::clone(&ca)).await.unwrap());
    let own = OwnCertificate::new(ca, "c1", SystemTime::now()).unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let counters = Arc::new(Counters::default());
    let connections = incoming(listener, own.config(), Arc::clone(&counters));
    let serving = Server::builder()
        .add_service(EnrolmentServer::new(Enrol::new(Arc::clone(&access))))
        .add_service(FleetServer::new(Asks(Arc::clone(&access))))
        .add_service(OperatorServer::new(Asks(Arc::clone(&access))))
        .serve_with_incoming(connections);
    tokio::spawn(serving);
    World { dir, store, access, counters, address }
}

impl World {
    async fn token(&self, wish: Wish<'_>) -> String {
        self.token_made_at(wish, now()).await
    }

    async fn token_made_at(&self, wish: Wish<'_>, at: Timestamp) -> String {
        let invitation = Invitation::try_from(wish).unwrap();
        self.access.create_token(&invitation, "operator admin", at).await.unwrap().reveal()
    }

    /// As an agent or `rota login` does it: a key made here, a first connection checked by the
    /// token.
    async fn enrol(&self, token: &str, kind: &str, name: &str) -> Result<IdentityFiles, ErrorView> {
        let pin = token.parse::<Token>().map_or(self.access.fingerprint(), |token| token.ca);
        let key = PrivateKey::generate().unwrap();
        let request = EnrolRequest {
            token: token.to_owned(),
            csr_pem: key.request().unwrap(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let channel = self.stranger(pin).await;
        let reply = EnrolmentClient::new(channel).enrol(request).await;
        let reply = reply.map_err(|status| view(&status))?.into_inner();
        assert_eq!(reply.trust_domain, "rota");
        Ok(IdentityFiles { key: key.to_pem(), cert: reply.certificate_pem, ca: reply.ca_pem })
    }

    async fn join(&self, wish: Wish<'_>, kind: &str, name: &str) -> IdentityFiles {
        let token = self.token(wish).await;
        self.enrol(&token, kind, name).await.unwrap()
    }

    async fn stranger(&self, pin: Fingerprint) -> Channel {
        connect(&self.address.to_string(), pinned_client_config(pin).unwrap()).await.unwrap()
    }

    async fn channel(&self, own: &IdentityFiles) -> Channel {
        let (own, roots) = (own.credentials().unwrap(), own.roots().unwrap());
        let config = client_config(&own, roots, Expect::Kind(Kind::Controller)).unwrap();
        connect(&self.address.to_string(), config).await.unwrap()
    }

    async fn audited(&self) -> Vec<String> {
        let lines = self.access.audit().list(0, 100).await.unwrap();
        lines.iter().map(|l| format!("{}|{}|{}|{}", l.who, l.what, l.target, l.result)).collect()
    }
}

const AGENT: Wish<'_> = Wish { kind: "agent", role: "", name: "", env: "", ttl_ms: 0, uses: 0 };
const VIEWER: Wish<'_> = Wish { kind: "operator", role: "viewer", ..AGENT };
const DEPLOYER: Wish<'_> = Wish { kind: "operator", role: "deployer", ..AGENT };

/// Answers every call that is permitted with who called.
struct Asks(Arc<Access>);

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Fleet for Asks {
    type SessionStream = Replies<ToAgent>;
    type FetchStream = Replies<Chunk>;

    async fn session(
        &self,
        _: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        Err(Status::unimplemented("not tested here"))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let caller = self.0.agent(&request).await?;
        let data = format!("{} from {}", caller.identity, caller.peer.unwrap().ip()).into();
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(Chunk { data, size: 0 })))))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolReply>, Status> {
        renew(&self.0, &request, &request.get_ref().csr_pem).await.map(Response::new)
    }
}

#[tonic::async_trait]
impl Operator for Asks {
    type FollowStream = Replies<op::Document>;

    async fn read(
        &self,
        request: Request<op::ReadRequest>,
    ) -> Result<Response<op::Document>, Status> {
        let caller = self.0.operator(&request).await?;
        self.0.permit(&caller, Action::Read, None, &request.get_ref().path).await?;
        let json = format!("{} as {}", caller.identity, caller.role.unwrap());
        Ok(Response::new(op::Document { json }))
    }

    async fn start(
        &self,
        request: Request<op::StartRequest>,
    ) -> Result<Response<op::Document>, Status> {
        let caller = self.0.operator(&request).await?;
        let asked = request.get_ref();
        let target = format!("{}/{}", asked.app, asked.env);
        self.0.permit(&caller, Action::StartRollout, Some(&asked.env), &target).await?;
        Ok(Response::new(op::Document { json: "started".into() }))
    }

    async fn follow(
        &self,
        _: Request<op::ReadRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        Err(Status::unimplemented("not tested here"))
    }

    async fn upload_state(
        &self,
        _: Request<op::UploadQuery>,
    ) -> Result<Response<op::UploadReply>, Status> {
        Err(Status::unimplemented("not tested here"))
    }

    async fn upload(
        &self,
        _: Request<Streaming<op::UploadPart>>,
    ) -> Result<Response<op::UploadReply>, Status> {
        Err(Status::unimplemented("not tested here"))
    }

    async fn push_release(
        &self,
        _: Request<op::PushRequest>,
    ) -> Result<Response<op::Document>, Status> {
        Err(Status::unimplemented("not tested here"))
    }

    async fn plan(&self, _: Request<op::StartRequest>) -> Result<Response<op::Document>, Status> {
        Err(Status::unimplemented("not tested here"))
    }

    async fn apply(&self, _: Request<op::Change>) -> Result<Response<op::Document>, Status> {
        Err(Status::unimplemented("not tested here"))
    }
}

async fn read(channel: Channel) -> Result<String, ErrorView> {
    let request = op::ReadRequest { path: "nodes".into(), after: 0 };
    let reply = OperatorClient::new(channel).read(request).await;
    reply.map(|reply| reply.into_inner().json).map_err(|status| view(&status))
}

async fn start(channel: Channel, env: &str) -> Result<String, ErrorView> {
    let request = op::StartRequest { app: "shop".into(), env: env.into(), ..Default::default() };
    let reply = OperatorClient::new(channel).start(request).await;
    reply.map(|reply| reply.into_inner().json).map_err(|status| view(&status))
}

async fn fetch(channel: Channel) -> Result<String, ErrorView> {
    let request = FetchRequest { digest: String::new(), offset: 0 };
    let mut chunks = FleetClient::new(channel)
        .fetch(request)
        .await
        .map_err(|status| view(&status))?
        .into_inner();
    let chunk = chunks.message().await.map_err(|status| view(&status))?.unwrap();
    Ok(String::from_utf8(chunk.data.to_vec()).unwrap())
}

fn refused<T: std::fmt::Debug>(result: Result<T, ErrorView>, kind: &str, text: &str) {
    let error = result.unwrap_err();
    assert!(error.kind == kind && error.message.contains(text), "{error:?} is not {kind}: {text}");
}

#[tokio::test]
async fn a_token_gives_a_certificate_and_that_gives_access() {
    let world = world().await;
    let node = world.join(AGENT, "node", "web-01").await;
    assert_eq!(fetch(world.channel(&node).await).await.unwrap(), "node web-01 from 127.0.0.1");
    let operator = world.join(DEPLOYER, "operator", "alice").await;
    let channel = world.channel(&operator).await;
    assert_eq!(read(channel.clone()).await.unwrap(), "operator alice as deployer");
    assert_eq!(start(channel, "prod").await.unwrap(), "started");
    let edge = world.join(Wish { kind: "edge", ..AGENT }, "edge", "lb-01").await;
    assert_eq!(fetch(world.channel(&edge).await).await.unwrap(), "edge lb-01 from 127.0.0.1");
    assert_eq!(
        world.audited().await,
        [
            "node web-01|enrol|node web-01|done",
            "operator alice|enrol|operator alice|done",
            "edge lb-01|enrol|edge lb-01|done",
        ]
    );
}

#[tokio::test]
async fn tokens_that_let_nobody_in() {
    let world = world().await;
    let good = world.token(AGENT).await;
    let bound = world.token(Wish { name: "web-07", ..AGENT }).await;
    let old = world.token_made_at(AGENT, Timestamp(now().0 - 2 * 3600 * 1000)).await;
    let operator = world.token(VIEWER).await;
    let mut wrong_secret = good.clone();
    wrong_secret.replace_range(30..31, if &good[30..31] == "0" { "1" } else { "0" });
    let unknown = Token::generate(Kind::Node, world.access.fingerprint()).unwrap().reveal();
    let cut = &good[..good.len() - 10];
    let web = |token: &str| (token.to_owned(), "node", "web-01");
    for ((token, kind, name), sort, text) in [
        (web(&old), "not_permitted", "this token expired 1h ago"),
        (web(&operator), "not_permitted", "a token for an operator, but an agent is joining"),
        ((good.clone(), "edge", "lb"), "not_permitted", "a token for an agent, but an edge is"),
        (web(&bound), "not_permitted", "for agent `web-07`, not for `web-01`"),
        (web(cut), "not_permitted", "cut short: it has 147 characters and should have 157"),
        (web(&wrong_secret), "not_permitted", "this token is not known here"),
        (web(&unknown), "not_permitted", "this token is not known here"),
        (web(""), "not_permitted", "the token is empty"),
        ((good.clone(), "node", ""), "usage", "one must be given"),
        ((good.clone(), "node", "Web 1"), "usage", "`Web 1` is not a name"),
        ((good.clone(), "robot", "x"), "usage", "`robot` is not a kind"),
    ] {
        refused(world.enrol(&token, kind, name).await, sort, text);
    }
    let refusals = world.audited().await;
    assert_eq!(refusals.len(), 11, "each is recorded: {refusals:?}");
    let secret = &good[28..92];
    assert!(refusals.iter().all(|line| !line.contains(secret)), "{refusals:?}");
    // None of these used it up.
    world.enrol(&good, "node", "web-01").await.unwrap();
    refused(world.enrol(&good, "node", "web-02").await, "not_permitted", "has been used already");
}

#[tokio::test]
async fn of_two_who_come_with_one_token_one_gets_in() {
    let world = world().await;
    for round in 0..8 {
        let token = world.token(AGENT).await;
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let both = tokio::join!(world.enrol(&token, "node", &a), world.enrol(&token, "node", &b));
        let lost = match both {
            (Ok(_), lost) | (lost, Ok(_)) => lost,
            (Err(a), Err(b)) => panic!("nobody got in: {a:?} {b:?}"),
        };
        refused(lost, "not_permitted", "this token has been used already");
    }
}

#[tokio::test]
async fn two_controllers_do_not_spend_a_token_twice() {
    let world = world().await;
    let ca = Arc::clone(world.access.ca());
    let other = Access::open(world.store.clone(), ca).await.unwrap();
    for round in 0..8 {
        let token = world.token(AGENT).await;
        let request = PrivateKey::generate().unwrap().request().unwrap();
        let names = [format!("a{round}"), format!("b{round}")];
        let [a, b] = names.each_ref().map(|name| crate::access::Ask {
            token: &token,
            kind: "node",
            name,
            request_pem: &request,
        });
        let (a, b) = tokio::join!(world.access.enrol(&a, now()), other.enrol(&b, now()));
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    }
}

#[tokio::test]
async fn a_rack_joins_with_one_token() {
    let world = world().await;
    let token = world.token(Wish { uses: 20, ..AGENT }).await;
    let (world, token) = (Arc::new(world), Arc::new(token));
    let mut joining = tokio::task::JoinSet::new();
    for n in 0..21 {
        let (world, token) = (Arc::clone(&world), Arc::clone(&token));
        joining
            .spawn(async move { world.enrol(&token, "node", &format!("web-{n}")).await.is_ok() });
    }
    let let_in = joining.join_all().await.into_iter().filter(|joined| *joined).count();
    assert_eq!(let_in, 20);
}

#[tokio::test]
async fn names_are_held() {
    let world = world().await;
    let first = world.join(AGENT, "node", "web-01").await;
    let any = world.token(AGENT).await;
    refused(
        world.enrol(&any, "node", "web-01").await,
        "not_permitted",
        "node web-01 is registered already; if this host was installed anew, join with a token \
         that is bound to the name: `rota token create --for agent --name web-01`",
    );
    assert!(fetch(world.channel(&first).await).await.is_ok(), "the holder is not disturbed");
    // An edge of the same name is somebody else.
    world.join(Wish { kind: "edge", ..AGENT }, "edge", "web-01").await;
    let second = world.join(Wish { name: "web-01", ..AGENT }, "node", "").await;
    assert!(fetch(world.channel(&second).await).await.is_ok());
    refused(fetch(world.channel(&first).await).await, "not_permitted", "was revoked");
}

#[tokio::test]
async fn who_may_call_what() {
    let world = world().await;
    let node = world.join(AGENT, "node", "web-01").await;
    let viewer = world.join(VIEWER, "operator", "bob").await;
    let prod = world.join(Wish { env: "prod", ..DEPLOYER }, "operator", "carol").await;
    let stranger = world.stranger(world.access.fingerprint()).await;
    let denied = "not_permitted";
    refused(read(stranger.clone()).await, denied, "needs a certificate, and none was shown");
    refused(fetch(stranger).await, denied, "needs a certificate, and none was shown");
    refused(read(world.channel(&node).await).await, denied, "node web-01 is no operator");
    refused(fetch(world.channel(&viewer).await).await, denied, "operator bob is no agent");
    let viewer = world.channel(&viewer).await;
    assert!(read(viewer.clone()).await.is_ok());
    refused(start(viewer, "prod").await, denied, "to start a rollout takes deployer");
    let prod = world.channel(&prod).await;
    assert!(start(prod.clone(), "prod").await.is_ok());
    refused(start(prod, "test").await, denied, "deployer in prod only, not in test");
    let lines = world.audited().await;
    let last = "operator carol|start a rollout|shop/test|refused: operator carol is deployer in \
                prod only, not in test";
    assert_eq!(lines.last().map(String::as_str), Some(last));
    assert!(lines.iter().any(|line| line.starts_with("-|call||refused: this call needs")));
}

#[tokio::test]
async fn certificates_of_another_ca_do_not_get_past_the_handshake() {
    let (world, other) = (world().await, world().await);
    let mut foreign = other.join(AGENT, "node", "web-01").await;
    // So that only the server's check is left.
    foreign.ca = world.access.ca().roots_pem().to_owned();
    let (own, roots) = (foreign.credentials().unwrap(), foreign.roots().unwrap());
    let config = client_config(&own, roots, Expect::Kind(Kind::Controller)).unwrap();
    // With TLS 1.3 the client may learn it from the connection or only from its first call.
    match connect(&world.address.to_string(), config).await {
        Err(error) => drop(error),
        Ok(channel) => refused(fetch(channel).await, "unreachable", ""),
    }
    assert!(world.counters.refused.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn renewals() {
    let world = world().await;
    let node = world.join(AGENT, "node", "web-01").await;
    let channel = world.channel(&node).await;
    let key = PrivateKey::generate().unwrap();
    let request = RenewRequest { csr_pem: key.request().unwrap() };
    let reply = FleetClient::new(channel.clone()).renew(request.clone()).await.unwrap();
    let reply = reply.into_inner();
    let fresh = IdentityFiles { key: key.to_pem(), cert: reply.certificate_pem, ca: reply.ca_pem };
    let leaf =
        |files: &IdentityFiles| Leaf::parse(files.credentials().unwrap().leaf().unwrap()).unwrap();
    let (old, new) = (leaf(&node), leaf(&fresh));
    assert_eq!(new.identity, old.identity);
    assert_ne!(new.serial, old.serial);
    for files in [&node, &fresh] {
        assert!(fetch(world.channel(files).await).await.is_ok(), "the older one stays valid");
    }
    let garbage = RenewRequest { csr_pem: "hello".into() };
    let error = FleetClient::new(channel.clone()).renew(garbage).await.unwrap_err();
    refused(Err::<(), _>(view(&error)), "usage", "not a certificate request");
    // Thrown out: both certificates, and no renewal brings it back.
    let count = world.access.revoke(&new.identity, "node rm", &[], now()).await.unwrap();
    assert_eq!(count, 2);
    for files in [&node, &fresh] {
        refused(fetch(world.channel(files).await).await, "not_permitted", "was revoked");
    }
    let error = FleetClient::new(channel).renew(request).await.unwrap_err();
    refused(Err::<(), _>(view(&error)), "not_permitted", "was revoked");
    // The name is free again.
    world.join(AGENT, "node", "web-01").await;
}

#[tokio::test]
async fn what_one_controller_revokes_another_hears() {
    let world = world().await;
    let ca = Arc::clone(world.access.ca());
    let other = Access::open(world.store.clone(), ca).await.unwrap();
    let node = world.join(AGENT, "node", "web-01").await;
    let leaf = Leaf::parse(node.credentials().unwrap().leaf().unwrap()).unwrap();
    let mut heard = other.revoked().watch();
    assert!(!other.revoked().contains(&leaf.serial));
    world.access.revoke(&leaf.identity, "stolen", &[], now()).await.unwrap();
    heard.wait_for(|serials| serials.contains_key(&leaf.serial)).await.unwrap();
    // And whoever starts later reads it.
    let ca = Arc::clone(world.access.ca());
    let third = Access::open(world.store.clone(), ca).await.unwrap();
    assert!(third.revoked().contains(&leaf.serial));
}

#[tokio::test]
async fn removed_operators_lose_their_role_at_once() {
    let world = world().await;
    let alice = world.join(DEPLOYER, "operator", "alice").await;
    let channel = world.channel(&alice).await;
    assert!(read(channel.clone()).await.is_ok());
    let identity = "spiffe://rota/operator/alice".parse().unwrap();
    world.access.revoke(&identity, "left", &[], now()).await.unwrap();
    refused(read(channel).await, "not_permitted", "the certificate of operator alice was revoked");
}

#[tokio::test]
async fn the_first_admin_has_a_context() {
    let world = world().await;
    let (dir, listens) = (world.dir.path(), SocketAddr::from(([0, 0, 0, 0], world.address.port())));
    let path = world.access.bootstrap_admin(dir, listens, now()).await.unwrap();
    let context = Context::load(&path).unwrap();
    assert_eq!(context.controllers, [world.address.to_string()], "0.0.0.0 is not one to call");
    let config = context.client_config().unwrap();
    let channel = connect(&context.controllers[0], config).await.unwrap();
    assert_eq!(read(channel).await.unwrap(), "operator admin as admin");
    // Nothing is due: the certificate stays, the address follows.
    let moved = SocketAddr::from(([127, 0, 0, 1], 7999));
    world.access.refresh_admin(dir, moved, now()).await.unwrap();
    let same = Context::load(&path).unwrap();
    assert_eq!((same.cert == context.cert, &same.controllers[0][..]), (true, "127.0.0.1:7999"));
    // After three weeks it is.
    let later = Timestamp(now().0 + 21 * 24 * 3600 * 1000);
    world.access.refresh_admin(dir, listens, later).await.unwrap();
    assert_ne!(Context::load(&path).unwrap().cert, context.cert);
    // Moved away: it stays away.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(world.access.refresh_admin(dir, listens, later).await.unwrap(), None);
}

#[tokio::test]
async fn a_second_controller_gets_the_ca() {
    let world = world().await;
    let text = world.token(Wish { kind: "controller", name: "c2", ..AGENT }).await;
    world.enrol(&text, "controller", "").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("identity");
    let token: Token = text.parse().unwrap();
    let other = Token::generate(Kind::Controller, token.ca).unwrap();
    let error = share::take(&*world.store, &other, "c2", &place).await.unwrap_err();
    assert!(error.to_string().contains("was not sealed for this token"), "{error}");
    let ca = share::take(&*world.store, &token, "c2", &place).await.unwrap();
    assert_eq!(ca.fingerprint(), world.access.fingerprint());
    let kept = Ca::open(&place).unwrap().unwrap();
    assert_eq!(kept.fingerprint(), world.access.fingerprint());
    let error = share::take(&*world.store, &token, "c2", &place).await.unwrap_err();
    assert!(error.to_string().contains("it was taken already"), "{error}");
}

#[tokio::test]
async fn the_controllers_own_certificate_is_replaced_under_living_connections() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Arc::new(Ca::create(dir.path(), SystemTime::now()).unwrap());
    let mut own = OwnCertificate::new(ca, "c1", SystemTime::now()).unwrap();
    let (config, due) = (own.config(), own.renew_at());
    let before = config.load_full();
    own.renew(due).unwrap();
    assert!(!Arc::ptr_eq(&before, &config.load_full()), "the same place holds another one");
    assert!(own.renew_at() > due);
}
