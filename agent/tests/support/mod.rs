//! A certificate authority, agents as processes, and an app: what the tests of the shell stand on.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod fleet;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, IsCa,
    Issuer, KeyPair, SanType,
};
use rota_agent::own::Own;
use rota_identity::{Identity, IdentityFiles, Kind, PrivateKey};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// Nothing here takes longer, except on a machine that is busy with something else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {} s", PATIENCE.as_secs()),
    }
}

/// Signs identities as a controller would.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub certificate: rustls::pki_types::CertificateDer<'static>,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "test");
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, certificate: der }
    }

    /// A certificate for the key of this request: the leaf, then the CA.
    pub fn sign(&self, csr_pem: &str, identity: &Identity, valid: Duration) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.uri().try_into().unwrap())];
        let now = std::time::SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + valid).into();
        request.params = params;
        request.signed_by(&self.issuer).unwrap().pem() + &self.pem
    }

    pub fn issue(&self, kind: Kind, name: &str) -> IdentityFiles {
        let key = PrivateKey::generate().unwrap();
        let identity = Identity::new(kind, name).unwrap();
        let day = Duration::from_secs(86_400);
        let cert = self.sign(&key.request().unwrap(), &identity, day);
        IdentityFiles { key: key.to_pem(), cert, ca: self.pem.clone() }
    }

    pub fn own(&self, kind: Kind, name: &str) -> Arc<Own> {
        Arc::new(Own::new(&self.issue(kind, name)).unwrap())
    }
}

/// An agent as a process. It is killed when the test ends.
pub struct AgentProcess {
    pub child: Child,
    lines: mpsc::UnboundedReceiver<String>,
    seen: Vec<String>,
}

impl AgentProcess {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rota-agent"))
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::unbounded_channel();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = stderr.next_line().await {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line that holds this text.
    pub async fn line(&mut self, text: &str) -> String {
        let found = timeout(PATIENCE, async {
            while let Some(line) = self.lines.recv().await {
                self.seen.push(line.clone());
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        });
        match found.await {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the agent ended without {text:?}:\n{}", self.seen.join("\n")),
            Err(_) => panic!("the agent did not say {text:?}:\n{}", self.seen.join("\n")),
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal)
            .unwrap();
    }
}

/// `name=VALUE` in a log line.
pub fn value<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| {
        panic!("no {name}= in {line}");
    });
    rest.split_whitespace().next().unwrap()
}

/// A small app: `/` answers at once, `/slow` when the test lets it.
pub struct App {
    pub address: SocketAddr,
    /// Gets a permit for each `/slow` that began.
    pub begun: Arc<Semaphore>,
    /// Each permit lets one `/slow` end.
    pub may_end: Arc<Semaphore>,
}

impl App {
    pub async fn start(text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, may_end) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let app = Self { address, begun: Arc::clone(&begun), may_end: Arc::clone(&may_end) };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (begun, may_end) = (Arc::clone(&begun), Arc::clone(&may_end));
                tokio::spawn(async move { answer(stream, text, &begun, &may_end).await });
            }
        });
        app
    }
}

async fn answer(mut stream: TcpStream, text: &str, begun: &Semaphore, may_end: &Semaphore) {
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => request.push(byte),
                Err(_) => return,
            }
        }
        if request.starts_with(b"GET /slow ") {
            begun.add_permits(1);
            may_end.acquire().await.unwrap().forget();
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", text.len());
        if stream.write_all((head + text).as_bytes()).await.is_err() {
            return;
        }
        request.clear();
    }
}

/// One request on a connection of its own: the status line and the body.
pub async fn get(address: SocketAddr, path: &str) -> Result<String, std::io::Error> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default().to_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok(format!("{status} {body}"))
}

/// A port that was free a moment ago.
pub async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Ends a process that this test caused to start, by its id.
pub struct Ends(pub i32);

impl Drop for Ends {
    fn drop(&mut self) {
        let Some(pid) = rustix::process::Pid::from_raw(self.0) else { return };
        match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => eprintln!("process {} stays: {error}", self.0),
        }
    }
}

/// Puts an identity where the agent of this folder finds it.
pub fn settle(data: &Path, files: &IdentityFiles) {
    files.save(&data.join("identity")).unwrap();
}
