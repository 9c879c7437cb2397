//! Real handshakes over loopback: whom each end of a connection accepts, and what it says when it
//! does not.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rota_identity::{
    ClientCertificates, Credentials, Expect, Fingerprint, Identity, Kind, client_config, connect,
    pinned_client_config, reason, server_config, tls,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).expect("CA").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn roots(&self) -> RootCertStore {
        tls::roots(&self.pem).expect("roots")
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&tls::certificates("CA", &self.pem).expect("pem")[0])
    }

    /// A certificate for `uri`, valid from `from` to `to` days from now.
    fn give(&self, uri: &str, from: i32, to: i32) -> Credentials {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let today = rcgen::date_time_ymd(1970, 1, 1) + now;
        let day = |n: i32| {
            if n < 0 { today - DAY * n.unsigned_abs() } else { today + DAY * n.unsigned_abs() }
        };
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ascii"))];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (day(from), day(to));
        let leaf = params.signed_by(&key, &self.issuer).expect("leaf");
        let chain = format!("{}{}", leaf.pem(), self.pem);
        Credentials::from_pem(&chain, &key.serialize_pem()).expect("credentials")
    }
}

/// What the client gets of the server's greeting, or the one sentence that says why not.
async fn greet(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Result<(), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let serving = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        let mut tls = TlsAcceptor::from(server).accept(tcp).await?;
        tls.write_all(b"hello").await?;
        tls.shutdown().await
    });
    let calling = async {
        let tcp = TcpStream::connect(address).await?;
        let name = rustls::pki_types::ServerName::from(address.ip());
        let mut tls = TlsConnector::from(client).connect(name, tcp).await?;
        let mut greeting = Vec::new();
        tls.read_to_end(&mut greeting).await?;
        assert_eq!(greeting, b"hello");
        std::io::Result::Ok(())
    };
    let result = calling.await.map_err(|error| reason(&error).unwrap_or(error.to_string()));
    // How the server ended is seen from the client; here it only must not panic.
    drop(serving.await.expect("no panic"));
    result
}

fn check(what: &str, got: Result<(), String>, right: Result<(), &str>) {
    match (&got, right) {
        (Ok(()), Ok(())) => {}
        (Err(got), Err(right)) if got.contains(right) => {}
        _ => panic!("{what}: {got:?} instead of {right:?}"),
    }
}

const C1: &str = "spiffe://rota/controller/c1";
const C2: &str = "spiffe://rota/controller/c2";
const WEB: &str = "spiffe://rota/node/web-01";

#[tokio::test]
async fn what_a_client_accepts() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let own = ours.give(WEB, -1, 30);
    let any = || Expect::Kind(Kind::Controller);
    let c1 = || Expect::Exactly(C1.parse::<Identity>().expect("identity"));
    let other = "spiffe://b/controller/c1";
    for (what, shown, expect, right) in [
        ("any", ours.give(C1, -1, 30), any(), Ok(())),
        ("this one", ours.give(C1, -1, 30), c1(), Ok(())),
        ("another", ours.give(C2, -1, 30), c1(), Err("is controller c2, but controller c1 was")),
        ("a node", ours.give(WEB, -1, 30), any(), Err("is node web-01, but a controller was")),
        ("a domain", ours.give(other, -1, 30), any(), Err("was not made for this system")),
        ("a foreign CA", theirs.give(C1, -1, 30), any(), Err("signed by an unknown CA")),
        ("from the future", ours.give(C1, 3, 30), any(), Err("clock is 3 days behind")),
        ("from the past", ours.give(C1, -30, -3), any(), Err("ended 3 days ago")),
    ] {
        let server = server_config(&shown, ours.roots(), ClientCertificates::Optional);
        let client = client_config(&own, ours.roots(), expect).expect("client");
        check(what, greet(server.expect("server"), client).await, right);
    }
}

#[tokio::test]
async fn what_a_newcomer_accepts() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let c1 = ours.give(C1, -1, 30);
    let alone = Credentials { chain: c1.chain[..1].to_vec(), key: c1.key.clone_key() };
    // The right CA is public: an impostor can send it along with a leaf that it did not sign.
    let mut forged = theirs.give(C1, -1, 30);
    forged.chain[1] = c1.chain[1].clone();
    let foreign = theirs.give(C1, -1, 30);
    let (pin, pin_of_theirs) = (ours.fingerprint(), theirs.fingerprint());
    let another = Err("does not belong to the CA of the token");
    for (what, shown, pin, right) in [
        ("the token's CA", &c1, pin, Ok(())),
        ("another CA", &foreign, pin, another),
        ("no CA in the chain", &alone, pin, another),
        ("a forged leaf", &forged, pin, Err("signed by an unknown CA")),
        ("a node", &ours.give(WEB, -1, 30), pin, Err("is node web-01, but a controller was")),
        ("the pin of another CA", &c1, pin_of_theirs, another),
    ] {
        let server = server_config(shown, ours.roots(), ClientCertificates::Optional);
        let client = pinned_client_config(pin).expect("client");
        check(what, greet(server.expect("server"), client).await, right);
    }
}

#[tokio::test]
async fn what_a_server_accepts() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let c1 = ours.give(C1, -1, 30);
    let controller = || Expect::Kind(Kind::Controller);
    let with = |own: Credentials| client_config(&own, ours.roots(), controller()).expect("client");
    let nobody = || pinned_client_config(ours.fingerprint()).expect("client");
    let node = || with(ours.give(WEB, -1, 30));
    let foreign = || with(theirs.give(WEB, -1, 30));
    let (optional, required) = (ClientCertificates::Optional, ClientCertificates::Required);
    for (what, clients, client, right) in [
        ("a node", required, node(), Ok(())),
        ("a node, optionally", optional, node(), Ok(())),
        ("nobody, optionally", optional, nobody(), Ok(())),
        ("nobody", required, nobody(), Err("asks for a certificate and we have none")),
        ("a foreign node", required, foreign(), Err("its CA is not the server's")),
        ("a foreign node, optionally", optional, foreign(), Err("its CA is not the server's")),
        ("an ended node", optional, with(ours.give(WEB, -9, -1)), Err("it has ended")),
    ] {
        let server = server_config(&c1, ours.roots(), clients).expect("server");
        check(what, greet(server, client).await, right);
    }
}

#[test]
fn both_ends_speak_http_2_and_resume_nothing() {
    let ca = Ca::new();
    let own = ca.give(C1, -1, 30);
    let server = server_config(&own, ca.roots(), ClientCertificates::Optional).expect("server");
    assert_eq!((&server.alpn_protocols[..], server.send_tls13_tickets), (&[b"h2".to_vec()][..], 0));
    let client = client_config(&own, ca.roots(), Expect::Kind(Kind::Controller)).expect("client");
    assert_eq!(client.alpn_protocols, [b"h2"]);
}

#[tokio::test]
async fn connections_that_fail_say_why() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let config = pinned_client_config(ours.fingerprint()).expect("client");
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = closed.local_addr().expect("address").to_string();
    drop(closed);
    let error = connect(&address, Arc::clone(&config)).await.expect_err("nobody listens");
    let why = reason(&error).expect("why");
    assert!(why.contains(&format!("cannot reach {address}: Connection refused")), "{why}");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let shown = theirs.give(C1, -1, 30);
    let server = server_config(&shown, theirs.roots(), ClientCertificates::Optional);
    let acceptor = TlsAcceptor::from(server.expect("server"));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            drop(acceptor.accept(tcp).await);
        }
    });
    let error = connect(&address, config).await.expect_err("a foreign controller");
    let why = reason(&error).expect("why");
    assert!(why.contains("does not belong to the CA of the token"), "{why}");
}
