//! Artifacts with `url`: a small server that is right, wrong, elsewhere or not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::fake::{Fake, Ran, Script};
use super::{completed, sha256};

/// Where the files are, and how often one was asked for.
struct Server {
    address: String,
    asked: Arc<AtomicUsize>,
    /// With TLS: the certificate, for whoever is to trust it.
    pem: String,
}

/// An archive with one file.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o755);
    tar.append_data(&mut header, "shop", &b"shop"[..]).unwrap();
    tar.into_inner().unwrap()
}

fn answer(path: &str) -> Vec<u8> {
    let head = |status: &str, more: &str| format!("HTTP/1.1 {status}\r\n{more}\r\n").into_bytes();
    let whole = |body: Vec<u8>| {
        [head("200 OK", &format!("content-length: {}\r\n", body.len())), body].concat()
    };
    match path {
        "/good.tar?sig=secret" | "/a/good.tar" => whole(archive()),
        "/moved.tar" => head("302 Found", "location: /a/elsewhere.tar\r\n"),
        "/a/elsewhere.tar" => head("307 Temporary Redirect", "location: good.tar\r\n"),
        "/loop.tar" => head("301 Moved Permanently", "location: /loop.tar\r\n"),
        "/noise.tar" => whole(b"noise".to_vec()),
        "/big.tar" => head("200 OK", "content-length: 99999999999999\r\n"),
        "/short.tar" => head("200 OK", "content-length: 1000\r\n"),
        "/secret.tar" => head("403 Forbidden", "content-length: 0\r\n"),
        _ => head("404 Not Found", "content-length: 0\r\n"),
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => asked.push(byte),
            Err(_) => return,
        }
    }
    let asked = String::from_utf8(asked).unwrap();
    let path = asked.split(' ').nth(1).unwrap();
    stream.write_all(&answer(path)).await.unwrap();
    stream.shutdown().await.ok();
}

impl Server {
    async fn start(secure: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match secure {
                        false => serve(stream).await,
                        true => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, asked, pem: made.cert.pem() }
    }
}

fn manifest(url: &str, sha256: &str) -> String {
    super::MANIFEST.replace("path = \"dist\"", &format!("url = \"{url}\"\nsha256 = \"{sha256}\""))
}

async fn deploy(script: Script, url: &str, sha256: &str) -> (Ran, Vec<String>) {
    let fake = Fake::start(script).await;
    fake.write_app(&manifest(url, sha256));
    let ran = fake.run("deploy --version 1.1.0 --env prod").await;
    let calls = fake.seen.lock().unwrap().calls.clone();
    (ran, calls)
}

fn script() -> Script {
    Script::rollout(vec![vec![completed()]])
}

#[tokio::test]
async fn an_artifact_is_fetched_checked_and_uploaded() {
    let server = Server::start(false).await;
    for path in ["good.tar?sig=secret", "moved.tar"] {
        let url = format!("http://{}/{path}", server.address);
        let (ran, calls) = deploy(script(), &url, &sha256(&archive())).await;
        assert_eq!(ran.exit, 0, "{path}: {ran:?}");
        assert!(ran.stderr.starts_with("fetching the artifact\nuploading "), "{ran:?}");
        for call in ["upload from 0", "push 1.1.0 as tar"] {
            assert!(calls.iter().any(|made| made == call), "{calls:?}");
        }
    }
}

#[tokio::test]
async fn what_the_controller_has_is_not_fetched() {
    let server = Server::start(false).await;
    let url = format!("http://{}/good.tar", server.address);
    let script = Script { complete: true, ..script() };
    let (ran, calls) = deploy(script, &url, &sha256(&archive())).await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stderr.contains("already: nothing to fetch"), "{ran:?}");
    assert!(calls.iter().any(|call| call == "push 1.1.0 as tar"), "{calls:?}");
    assert_eq!(server.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_cannot_be_fetched_is_not_pushed() {
    let server = Server::start(false).await;
    let (good, noise, other) = (sha256(&archive()), sha256(b"noise"), "ab".repeat(32));
    let rows = [
        ("gone.tar", &good, 1, vec!["gone.tar does not exist: the server answered 404"]),
        ("secret.tar", &good, 1, vec!["secret.tar is not given out: the server answered 403"]),
        ("a/good.tar", &other, 1, vec!["is not what the manifest says", &good, &other]),
        ("noise.tar", &noise, 1, vec!["cannot be used: it cannot be read as tar"]),
        ("loop.tar", &good, 1, vec!["leads through more than 5 redirects"]),
        ("big.tar", &good, 1, vec!["is larger than 8 GiB"]),
        ("short.tar", &good, 1, vec!["broke off"]),
        ("good.zip", &good, 2, vec!["names no archive", ".tar.zst"]),
    ];
    for (path, sha256, exit, told) in rows {
        let url = format!("http://{}/{path}", server.address);
        let (ran, calls) = deploy(script(), &url, sha256).await;
        assert_eq!(ran.exit, exit, "{path}: {ran:?}");
        for told in told {
            assert!(ran.stderr.contains(told), "{path}: {told:?} is not in {}", ran.stderr);
        }
        assert!(!calls.iter().any(|call| call.starts_with("push")), "{path}: {calls:?}");
    }
    let (ran, _) = deploy(script(), "http://127.0.0.1:1/shop.tar", &good).await;
    assert_eq!(ran.exit, 1, "{ran:?}");
    assert!(
        ran.stderr.starts_with("fetching the artifact\nerror: cannot reach 127.0.0.1:1: "),
        "{ran:?}"
    );
}

#[tokio::test]
async fn only_servers_that_this_machine_trusts_are_asked() {
    let (server, other) = (Server::start(true).await, Server::start(true).await);
    let fake = Fake::start(script()).await;
    let roots = fake.home.path().join("roots.pem");
    std::fs::write(&roots, &server.pem).unwrap();
    for (address, exit) in [(&server.address, 0), (&other.address, 1)] {
        fake.write_app(&manifest(&format!("https://{address}/a/good.tar"), &sha256(&archive())));
        let mut command = fake.command("deploy --version 1.1.0 --env prod");
        let ran = Ran::of(command.env("SSL_CERT_FILE", &roots).output().await.unwrap());
        assert_eq!(ran.exit, exit, "{ran:?}");
        assert_eq!(ran.stderr.contains("certificate"), exit == 1, "{ran:?}");
    }
}
