//! The operator's end of `operator.proto`: any controller of a context, calls with deadlines, and
//! what to make of it when a connection breaks.

use std::sync::Arc;
use std::time::Duration;

use rota_identity::DialError;
use rota_proto::operator::operator_client::OperatorClient;
use rota_proto::operator::{
    Change, Document, PushRequest, ReadRequest, StartRequest, UploadPart, UploadQuery, UploadReply,
};
use rustls::ClientConfig;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use crate::context;
use crate::errors::{self, Sort};
use crate::view::ErrorView;

/// Where one of several controllers says where all of them are: HOST:PORT, separated by commas.
pub const CONTROLLERS: &str = "rota-controllers";

/// For TCP and TLS with one controller: a person waits, and there may be two more to try.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// For an answer. Admitting a rollout over 10 000 nodes takes well under a second.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// For a push: its artifact may go from one controller to another meanwhile, some GiB over a slow link.
const PUSH_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The largest document: a rollout over 10 000 nodes is some 4 MiB, failed outputs come on top.
const DOCUMENT_BYTES_MAX: usize = 128 << 20;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Every controller was tried; each with its cause.
    #[error("no controller answered")]
    Unreachable {
        /// `HOST:PORT` and why it did not answer.
        tried: Vec<(String, String)>,
    },
    /// The connection broke after the request was sent: it may have been carried out.
    #[error("the connection to {address} broke before the answer came: {cause}")]
    Broken {
        /// Who was asked.
        address: String,
        /// Why there is no answer.
        cause: String,
    },
    /// A controller answered with an error.
    #[error("{}", .0.message)]
    Answered(ErrorView),
}

/// Calls any controller of a context, and stays with the one that answered.
#[derive(Debug, Clone)]
pub struct Client {
    addresses: Vec<String>,
    config: Arc<ClientConfig>,
    /// The address to try first; preferring none, a new client begins anywhere.
    next: usize,
    link: Option<Link>,
    learner: Option<Learner>,
}

/// What is done with the addresses that a controller says all of them have.
pub type Keep = dyn Fn(&[String]) + Send + Sync;

/// Keeps them.
#[derive(Clone)]
pub struct Learner(pub Arc<Keep>);

impl std::fmt::Debug for Learner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Learner(..)")
    }
}

/// One connection.
type Link = OperatorClient<Channel>;

/// What became of one attempt.
enum Attempt<T> {
    Done(T),
    Error(ErrorView),
    Broken(String),
}

impl Client {
    /// A client of these controllers; nothing is dialled yet.
    pub fn new(addresses: Vec<String>, config: Arc<ClientConfig>, first: usize) -> Self {
        let next = first.checked_rem(addresses.len()).unwrap_or(0);
        Self { addresses, config, next, link: None, learner: None }
    }

    /// Tells it when a controller says that there are others than these.
    pub fn learning(mut self, learner: Learner) -> Self {
        self.learner = Some(learner);
        self
    }

    /// One of several controllers says with its answers where all of them are.
    fn learn(&mut self, metadata: &MetadataMap) {
        let Some(said) = metadata.get(CONTROLLERS).and_then(|value| value.to_str().ok()) else {
            return;
        };
        let said: Vec<String> = said.split(',').map(str::to_owned).collect();
        let merged = context::merged(&self.addresses, &said);
        if merged == self.addresses {
            return;
        }
        if let Some(Learner(keep)) = &self.learner {
            keep(&said);
        }
        let now = self.address().to_owned();
        self.next = merged.iter().position(|address| *address == now).unwrap_or(0);
        self.addresses = merged;
    }

    /// The controller that is asked now.
    pub fn address(&self) -> &str {
        self.addresses.get(self.next).map_or("", String::as_str)
    }

    /// A document of the contract.
    pub async fn read(&mut self, path: &str) -> Result<String, ClientError> {
        let request = ReadRequest { path: path.to_owned(), after: 0 };
        let call = |mut link: Link| {
            let request = ask(request.clone());
            async move { link.read(request).await }
        };
        self.asking(call).await.map(json)
    }

    /// A document now, and again whenever it changed. `after`: the last event seen.
    pub async fn follow(
        &mut self,
        path: &str,
        after: u64,
    ) -> Result<Streaming<Document>, ClientError> {
        let request = ReadRequest { path: path.to_owned(), after };
        // No deadline for the stream itself: keep-alive finds a dead connection.
        let call = |mut link: Link| {
            let request = request.clone();
            async move { link.follow(request).await }
        };
        self.asking(call).await
    }

    /// What a rollout would do.
    pub async fn plan(&mut self, request: StartRequest) -> Result<String, ClientError> {
        let call = |mut link: Link| {
            let request = ask(request.clone());
            async move { link.plan(request).await }
        };
        self.asking(call).await.map(json)
    }

    /// How much of an artifact is there.
    pub async fn upload_state(&mut self, digest: &str) -> Result<UploadReply, ClientError> {
        let query = UploadQuery { digest: digest.to_owned() };
        let call = |mut link: Link| {
            let query = ask(query.clone());
            async move { link.upload_state(query).await }
        };
        self.asking(call).await
    }

    /// Sends an artifact; only to the controller that said how much it has.
    pub async fn upload(
        &mut self,
        parts: tokio_stream::wrappers::ReceiverStream<UploadPart>,
    ) -> Result<UploadReply, ClientError> {
        let mut link = self.connected().await?;
        let answer = link.upload(parts).await;
        self.once(answer)
    }

    /// Makes a release; a repeat changes nothing, so any controller may be asked again.
    pub async fn push(&mut self, request: PushRequest) -> Result<String, ClientError> {
        let call = |mut link: Link| {
            let mut request = ask(request.clone());
            request.set_timeout(PUSH_TIMEOUT);
            async move { link.push_release(request).await }
        };
        self.asking(call).await.map(json)
    }

    /// Admits a rollout. Asked once: after a broken connection it may have been admitted.
    pub async fn start(&mut self, request: StartRequest) -> Result<String, ClientError> {
        let mut link = self.connected().await?;
        let answer = link.start(ask(request)).await;
        self.once(answer).map(json)
    }

    /// Any other change. Asked once, as above.
    pub async fn apply(&mut self, change: Change) -> Result<String, ClientError> {
        let mut link = self.connected().await?;
        let answer = link.apply(ask(change)).await;
        self.once(answer).map(json)
    }

    /// Asks one controller after the other until one answers: for calls that may be repeated.
    async fn asking<T, F>(&mut self, call: impl Fn(Link) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut tried = Vec::new();
        let mut answered = None;
        for _ in 0..self.addresses.len() {
            let address = self.address().to_owned();
            let cause = match self.link().await {
                Ok(link) => match sort(self.heard(call(link).await)) {
                    Attempt::Done(answer) => return Ok(answer),
                    // This controller has lost its store; another may have it.
                    Attempt::Error(error) if error.kind == "store" => {
                        let cause = error.message.clone();
                        answered = Some(error);
                        cause
                    }
                    Attempt::Error(error) => return Err(ClientError::Answered(error)),
                    Attempt::Broken(cause) => cause,
                },
                Err(cause) => cause,
            };
            tried.push((address, cause));
            self.turn_to_next();
        }
        Err(answered.map_or(ClientError::Unreachable { tried }, ClientError::Answered))
    }

    fn heard<T>(
        &mut self,
        answer: Result<tonic::Response<T>, Status>,
    ) -> Result<tonic::Response<T>, Status> {
        if let Ok(answer) = &answer {
            self.learn(answer.metadata());
        }
        answer
    }

    /// A connection to any controller, for calls that must not be repeated. A refused certificate
    /// shows only with the first call, so a new connection is tried with a read.
    async fn connected(&mut self) -> Result<Link, ClientError> {
        if self.link.is_none() {
            match self.read("controllers").await {
                Ok(_) | Err(ClientError::Answered(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.link().await.map_err(|cause| ClientError::Unreachable {
            tried: vec![(self.address().to_owned(), cause)],
        })
    }

    fn once<T>(&mut self, answer: Result<tonic::Response<T>, Status>) -> Result<T, ClientError> {
        match sort(answer) {
            Attempt::Done(answer) => Ok(answer),
            Attempt::Error(error) => Err(ClientError::Answered(error)),
            Attempt::Broken(cause) => {
                let address = self.address().to_owned();
                self.turn_to_next();
                Err(ClientError::Broken { address, cause })
            }
        }
    }

    async fn link(&mut self) -> Result<Link, String> {
        if let Some(link) = &self.link {
            return Ok(link.clone());
        }
        let dialled = timeout(CONNECT_TIMEOUT, self.dial()).await;
        let channel = match dialled {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(in_words(&error)),
            Err(_) => return Err(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
        };
        let link = OperatorClient::new(channel).max_decoding_message_size(DOCUMENT_BYTES_MAX);
        self.link = Some(link.clone());
        Ok(link)
    }

    async fn dial(&self) -> Result<Channel, DialError> {
        rota_identity::connect(self.address(), Arc::clone(&self.config)).await
    }

    /// Leaves this controller; the next call dials the next one.
    pub fn turn_to_next(&mut self) {
        self.link = None;
        self.next = (self.next + 1).checked_rem(self.addresses.len()).unwrap_or(0);
    }
}

/// A request with the deadline of a call.
fn ask<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

fn json(document: Document) -> String {
    document.json
}

/// Tells a controller's answer from a connection that broke.
fn sort<T>(answer: Result<tonic::Response<T>, Status>) -> Attempt<T> {
    match answer {
        Ok(answer) => Attempt::Done(answer.into_inner()),
        Err(status) => match answered(&status) {
            Some(error) => Attempt::Error(error),
            None => Attempt::Broken(broken(&status)),
        },
    }
}

/// What a controller answered; `None` when this is not an answer but a broken connection.
pub fn answered(status: &Status) -> Option<ErrorView> {
    let error = errors::view(status);
    (Sort::of(&error.kind) != Sort::Unreachable).then_some(error)
}

/// Why a call or a stream broke, in one sentence.
pub fn broken(status: &Status) -> String {
    match errors::view(status).message {
        message if message.is_empty() => format!("{:?}", status.code()),
        message => message,
    }
}

fn in_words(error: &DialError) -> String {
    rota_identity::reason(error).unwrap_or_else(|| crate::errors::chain(error))
}
