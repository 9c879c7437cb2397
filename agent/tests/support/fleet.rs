//! A controller that does what the test says: it records what agents say, and sends what it must.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rota_identity::{ClientCertificates, Identity, Kind, server_config};
use rota_proto::agent::enrolment_server::{Enrolment, EnrolmentServer};
use rota_proto::agent::fleet_server::{Fleet, FleetServer};
use rota_proto::agent::{
    Chunk, Directory, EnrolReply, EnrolRequest, FetchRequest, FromAgent, Hello, RenewRequest,
    ToAgent, Welcome, from_agent, to_agent,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Ca, soon};

/// What a session's agent said, and how to answer it. Dropping `to_agent` ends the session.
pub struct Session {
    pub hello: Hello,
    pub said: mpsc::UnboundedReceiver<from_agent::Message>,
    pub to_agent: mpsc::Sender<Result<ToAgent, Status>>,
}

impl Session {
    pub async fn send(&self, message: to_agent::Message) {
        self.to_agent.send(Ok(ToAgent { message: Some(message) })).await.unwrap();
    }

    /// The next message that `pick` likes; the others (heartbeats) are skipped.
    pub async fn heard<T>(
        &mut self,
        what: &str,
        pick: impl Fn(from_agent::Message) -> Option<T>,
    ) -> T {
        soon(what, async {
            loop {
                let message = self.said.recv().await.expect("the agent's session ended");
                if let Some(found) = pick(message) {
                    return found;
                }
            }
        })
        .await
    }
}

/// Only the reports.
pub fn report(message: from_agent::Message) -> Option<rota_proto::agent::Report> {
    match message {
        from_agent::Message::Report(report) => Some(report),
        _ => None,
    }
}

/// The controller.
pub struct Controller {
    pub address: SocketAddr,
    /// Sessions that were welcomed, in their order.
    pub sessions: mpsc::UnboundedReceiver<Session>,
    state: Arc<State>,
}

struct State {
    ca: Arc<Ca>,
    heartbeat_ms: u64,
    directory: Mutex<Option<Directory>>,
    sessions: mpsc::UnboundedSender<Session>,
    /// For each call of Fetch: how many bytes to send before it breaks off.
    artifact: Mutex<(Vec<u8>, VecDeque<usize>)>,
    fetched_from: Mutex<Vec<u64>>,
    /// How long certificates that are given out live.
    lifetime: Mutex<Duration>,
}

#[derive(Clone)]
struct Service(Arc<State>);

impl Controller {
    pub async fn start(ca: &Arc<Ca>, name: &str) -> Self {
        let files = ca.issue(Kind::Controller, name);
        let (own, roots) = (files.credentials().unwrap(), files.roots().unwrap());
        let config = server_config(&own, roots, ClientCertificates::Optional).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connected, incoming) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (config, connected) = (Arc::clone(&config), connected.clone());
                tokio::spawn(async move {
                    if let Ok(tls) = TlsAcceptor::from(config).accept(tcp).await {
                        connected.send(Ok::<_, std::io::Error>(tls)).await.unwrap();
                    }
                });
            }
        });
        let (sender, sessions) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            ca: Arc::clone(ca),
            heartbeat_ms: 100,
            directory: Mutex::new(None),
            sessions: sender,
            artifact: Mutex::new((Vec::new(), VecDeque::new())),
            fetched_from: Mutex::new(Vec::new()),
            lifetime: Mutex::new(Duration::from_secs(86_400)),
        });
        let service = Service(Arc::clone(&state));
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(FleetServer::new(service.clone()))
                .add_service(EnrolmentServer::new(service))
                .serve_with_incoming(ReceiverStream::new(incoming))
                .await
                .unwrap();
        });
        Self { address, sessions, state }
    }

    pub async fn session(&mut self) -> Session {
        soon("a session", self.sessions.recv()).await.unwrap()
    }

    pub fn directory(&self, directory: Directory) {
        *self.state.directory.lock().unwrap() = Some(directory);
    }

    pub fn artifact(&self, bytes: Vec<u8>, breaks: &[usize]) {
        *self.state.artifact.lock().unwrap() = (bytes, breaks.iter().copied().collect());
    }

    pub fn fetched_from(&self) -> Vec<u64> {
        self.state.fetched_from.lock().unwrap().clone()
    }

    pub fn lifetime(&self, lifetime: Duration) {
        *self.state.lifetime.lock().unwrap() = lifetime;
    }
}

fn caller<T>(request: &Request<T>) -> Result<Identity, Status> {
    let certificates = request.peer_certs();
    let leaf = certificates.as_ref().and_then(|certificates| certificates.first());
    let leaf = leaf.ok_or_else(|| Status::unauthenticated("no certificate"))?;
    Identity::from_certificate(leaf).map_err(|error| Status::unauthenticated(error.to_string()))
}

impl State {
    fn reply(&self, csr: &str, identity: &Identity) -> EnrolReply {
        let lifetime = *self.lifetime.lock().unwrap();
        EnrolReply {
            certificate_pem: self.ca.sign(csr, identity, lifetime),
            ca_pem: self.ca.pem.clone(),
            trust_domain: "rota".to_owned(),
            name: identity.name().to_owned(),
            environment: String::new(),
        }
    }
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        if request.name == "nobody" {
            return Err(Status::unauthenticated("this token was used already"));
        }
        let kind: Kind = request.kind.parse().unwrap();
        let identity = Identity::new(kind, &request.name).unwrap();
        Ok(Response::new(self.0.reply(&request.csr_pem, &identity)))
    }
}

#[tonic::async_trait]
impl Fleet for Service {
    type SessionStream = ReceiverStream<Result<ToAgent, Status>>;
    type FetchStream = ReceiverStream<Result<Chunk, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        caller(&request)?;
        let state = Arc::clone(&self.0);
        let (to_agent, outbound) = mpsc::channel(64);
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            let first = inbound.message().await.unwrap().unwrap().message;
            let Some(from_agent::Message::Hello(hello)) = first else { panic!("no hello") };
            let directory = state.directory.lock().unwrap().clone();
            let welcome = Welcome {
                controller: "as in the certificate".to_owned(),
                heartbeat_ms: state.heartbeat_ms,
                directory,
                standing: None,
                spread_ms: 1,
                now_ms: 0,
            };
            let message = Some(to_agent::Message::Welcome(welcome));
            to_agent.send(Ok(ToAgent { message })).await.unwrap();
            let (heard, said) = mpsc::unbounded_channel();
            state.sessions.send(Session { hello, said, to_agent }).unwrap();
            while let Ok(Some(message)) = inbound.message().await {
                if heard.send(message.message.unwrap()).is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        caller(&request)?;
        let offset = request.into_inner().offset;
        self.0.fetched_from.lock().unwrap().push(offset);
        let (bytes, budget) = {
            let mut artifact = self.0.artifact.lock().unwrap();
            let budget = artifact.1.pop_front().unwrap_or(usize::MAX);
            (artifact.0.clone(), budget)
        };
        if bytes.is_empty() {
            return Err(Status::not_found("no release has this artifact"));
        }
        let (chunks, outbound) = mpsc::channel(4);
        tokio::spawn(async move {
            let size = bytes.len() as u64;
            let rest = &bytes[usize::try_from(offset).unwrap()..];
            for data in rest[..rest.len().min(budget)].chunks(1000) {
                let chunk = Chunk { data: Bytes::copy_from_slice(data), size };
                if chunks.send(Ok(chunk)).await.is_err() {
                    return;
                }
            }
            if rest.len() > budget {
                let broken = Err(Status::unavailable("the controller stops"));
                if chunks.send(broken).await.is_err() {}
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolReply>, Status> {
        let identity = caller(&request)?;
        Ok(Response::new(self.0.reply(&request.into_inner().csr_pem, &identity)))
    }
}
