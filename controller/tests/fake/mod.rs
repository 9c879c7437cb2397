//! A controller that plays a script over real TLS, so that the program `rota` is tried as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rota::access::ca::Ca;
use rota::context::Context;
use rota::errors;
use rota::serve::listen;
use rota::view::ErrorView;
use rota_identity::{ClientCertificates, Identity, Kind, Token, server_config, tls};
use rota_proto::agent::enrolment_server::{Enrolment, EnrolmentServer};
use rota_proto::agent::{EnrolReply, EnrolRequest};
use rota_proto::operator::operator_server::{Operator, OperatorServer};
use rota_proto::operator::upload_part::Part;
use rota_proto::operator::{
    Change, Document, PushRequest, ReadRequest, StartRequest, UploadPart, UploadQuery, UploadReply,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// What the fake answers.
#[derive(Debug, Clone, Default)]
pub struct Script {
    /// Documents by path; others are not found.
    pub reads: BTreeMap<String, String>,
    /// What each call of Follow in turn delivers; all but the last then break off.
    pub follows: Vec<Vec<String>>,
    /// What Follow delivers of `events?…`, beside the script of the rollout.
    pub events: Vec<String>,
    /// Between two documents of a followed stream, for people who watch.
    pub pace: Duration,
    /// The answer to Start, PushRelease and Apply.
    pub answer: String,
    /// Why a plan is refused; nothing: it is not.
    pub refusals: Vec<String>,
    /// An error in place of every answer.
    pub refusal: Option<ErrorView>,
    /// Every artifact is there already.
    pub complete: bool,
    /// The first upload breaks off after this many bytes.
    pub upload_breaks_after: Option<usize>,
}

impl Script {
    /// A rollout that shows these views, over as many streams.
    pub fn rollout(follows: Vec<Vec<String>>) -> Self {
        let answer = r#"{ "id": "shop/prod/14" }"#.to_owned();
        Self { follows, answer, ..Self::default() }
    }
}

/// What the fake was asked and given.
#[derive(Debug, Default)]
pub struct Seen {
    /// One line a call.
    pub calls: Vec<String>,
    /// The artifact.
    pub uploaded: Vec<u8>,
    uploads: usize,
    follows: usize,
}

/// A running fake, and a home with a context for it.
pub struct Fake {
    /// Where it listens.
    pub address: String,
    /// Files for it: the context, whatever a test writes.
    pub home: TempDir,
    /// What it was asked.
    pub seen: Arc<Mutex<Seen>>,
    /// A token for `rota login`.
    pub token: String,
}

impl Fake {
    /// Starts it on a free port.
    pub async fn start(script: Script) -> Self {
        let home = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let ca = Arc::new(Ca::create(&home.path().join("ca"), now).unwrap());
        let own = Identity::new(Kind::Controller, "c1").unwrap();
        let (issued, key) = ca.issue_with_key(&own, now).unwrap();
        let roots = tls::roots(ca.roots_pem()).unwrap();
        let own = issued.credentials(&key).unwrap();
        let config = server_config(&own, roots, ClientCertificates::Optional).unwrap();
        let listener = listen::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let config = Arc::new(ArcSwap::new(config));
        let incoming = listen::incoming(listener, config, Arc::default());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let token = Token::generate(Kind::Operator, ca.fingerprint()).unwrap().reveal();
        let service = Service { script, seen: Arc::clone(&seen), ca: Arc::clone(&ca) };
        let server = tonic::transport::Server::builder()
            .add_service(OperatorServer::new(service.clone()))
            .add_service(EnrolmentServer::new(service))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
        let fake = Self { address: address.clone(), home, seen, token };
        fake.write_context(&ca, vec![address]);
        fake
    }

    /// A context for these controllers.
    fn write_context(&self, ca: &Ca, controllers: Vec<String>) {
        let alice = Identity::new(Kind::Operator, "alice").unwrap();
        let (issued, key) = ca.issue_with_key(&alice, SystemTime::now()).unwrap();
        let context = Context {
            name: "test".to_owned(),
            controllers,
            ca: ca.roots_pem().to_owned(),
            cert: issued.certificate_pem,
            key: key.to_pem(),
        };
        context.save(&self.context()).unwrap();
    }

    /// Puts other addresses before its own into the context.
    pub fn others_first(&self, others: &[&str]) {
        let mut context = Context::load(&self.context()).unwrap();
        context.controllers.splice(..0, others.iter().map(|other| (*other).to_owned()));
        context.save(&self.context()).unwrap();
    }

    /// The file of the context.
    pub fn context(&self) -> PathBuf {
        self.home.path().join("context.toml")
    }

    /// A manifest with one file to deploy, and the file.
    pub fn write_app(&self, manifest: &str) -> PathBuf {
        let dist = self.home.path().join("dist");
        std::fs::create_dir_all(&dist).unwrap();
        // Not compressible, so that an upload has several pieces.
        let mut noise = Vec::new();
        let mut state = 1_u64;
        for _ in 0..131_072 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
            noise.extend(state.to_be_bytes());
        }
        std::fs::write(dist.join("shop"), noise).unwrap();
        let file = self.home.path().join("rota.toml");
        std::fs::write(&file, manifest).unwrap();
        file
    }

    /// `rota` with this context and these arguments.
    pub fn command(&self, line: &str) -> Command {
        let mut command = rota(self.home.path(), line);
        command.arg("--context").arg(self.context());
        command
    }

    /// Runs it to its end.
    pub async fn run(&self, line: &str) -> Ran {
        Ran::of(self.command(line).output().await.unwrap())
    }

    /// Starts it; both its streams are pipes.
    pub fn spawn(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// `rota` in a home of its own, with an environment of its own.
pub fn rota(home: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rota"));
    command.args(line.split_whitespace()).current_dir(home).kill_on_drop(true);
    for name in ["ROTA_CONTEXT", "ROTA_TOKEN", "XDG_CONFIG_HOME"] {
        command.env_remove(name);
    }
    command.env("HOME", home).stdin(Stdio::null());
    command
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        Self {
            exit: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

#[derive(Clone)]
struct Service {
    script: Script,
    seen: Arc<Mutex<Seen>>,
    ca: Arc<Ca>,
}

impl Service {
    fn note(&self, call: String) {
        self.seen.lock().unwrap().calls.push(call);
    }

    fn answer(&self) -> Result<Response<Document>, Status> {
        match &self.script.refusal {
            Some(error) => Err(errors::status(error.clone())),
            None => Ok(Response::new(Document { json: self.script.answer.clone() })),
        }
    }
}

fn not_found(what: &str) -> ErrorView {
    errors::Sort::NotFound.error(format!("there is no {what}"), "`rota status` shows what is there")
}

#[tonic::async_trait]
impl Operator for Service {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Document>, Status> {
        let path = request.into_inner().path;
        if let Some(error) = &self.script.refusal {
            return Err(errors::status(error.clone()));
        }
        if path != "controllers" {
            self.note(format!("read {path}"));
        }
        match self.script.reads.get(&path) {
            Some(json) => Ok(Response::new(Document { json: json.clone() })),
            None => Err(errors::status(not_found(&path))),
        }
    }

    async fn follow(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let ReadRequest { path, after } = request.into_inner();
        self.note(format!("follow {path} after {after}"));
        if path.starts_with("events?") && !self.script.events.is_empty() {
            let told = self.script.events.clone().into_iter().map(|json| Ok(Document { json }));
            let stream = tokio_stream::iter(told).chain(tokio_stream::pending());
            return Ok(Response::new(Box::pin(stream)));
        }
        let turn = {
            let mut seen = self.seen.lock().unwrap();
            seen.follows += 1;
            seen.follows - 1
        };
        let follows = &self.script.follows;
        let Some(documents) = follows.get(turn).or(follows.last()) else {
            return Err(errors::status(not_found(&path)));
        };
        let pace = self.script.pace;
        let shown = tokio_stream::iter(documents.clone()).then(move |json| async move {
            tokio::time::sleep(pace).await; // the pace of the story, for people who watch
            Ok(Document { json })
        });
        if turn + 1 < follows.len() {
            let end = tokio_stream::once(Err(Status::unavailable("c1 was stopped")));
            return Ok(Response::new(Box::pin(shown.chain(end))));
        }
        // Like a controller that has nothing new to say.
        Ok(Response::new(Box::pin(shown.chain(tokio_stream::pending()))))
    }

    async fn upload_state(
        &self,
        request: Request<UploadQuery>,
    ) -> Result<Response<UploadReply>, Status> {
        self.note(format!("upload state {}", request.into_inner().digest.len()));
        let have = self.seen.lock().unwrap().uploaded.len() as u64;
        Ok(Response::new(UploadReply { have, complete: self.script.complete }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<UploadPart>>,
    ) -> Result<Response<UploadReply>, Status> {
        let mut parts = request.into_inner();
        let turn = {
            let mut seen = self.seen.lock().unwrap();
            seen.uploads += 1;
            seen.uploads
        };
        let limit = self.script.upload_breaks_after.filter(|_| turn == 1);
        let mut size = 0;
        while let Some(part) = parts.message().await? {
            match part.part {
                Some(Part::Header(header)) => {
                    self.note(format!("upload from {}", header.offset));
                    size = header.size;
                }
                Some(Part::Data(data)) => {
                    assert!(data.len() <= 256 * 1024);
                    let mut seen = self.seen.lock().unwrap();
                    seen.uploaded.extend(&data);
                    if let Some(limit) = limit.filter(|limit| seen.uploaded.len() >= *limit) {
                        seen.uploaded.truncate(limit);
                        return Err(Status::unavailable("the cable was cut"));
                    }
                }
                None => return Err(Status::invalid_argument("an empty part")),
            }
        }
        let have = self.seen.lock().unwrap().uploaded.len() as u64;
        Ok(Response::new(UploadReply { have, complete: have == size }))
    }

    async fn push_release(
        &self,
        request: Request<PushRequest>,
    ) -> Result<Response<Document>, Status> {
        let request = request.into_inner();
        self.note(format!("push {} as {}", request.version, request.format));
        self.answer()
    }

    async fn plan(&self, request: Request<StartRequest>) -> Result<Response<Document>, Status> {
        let request = request.into_inner();
        self.note(format!("plan {} {} {}", request.app, request.env, request.release));
        if let Some(error) = &self.script.refusal {
            return Err(errors::status(error.clone()));
        }
        let plan = serde_json::json!({ "batches": [["web-01"]], "targets": 1, "skipped": [],
            "least_in_traffic": 0, "refusals": self.script.refusals, "notes": [], "from": null,
            "to": request.release });
        Ok(Response::new(Document { json: plan.to_string() }))
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<Document>, Status> {
        let StartRequest { app, env, release, kind, message, .. } = request.into_inner();
        self.note(format!("start kind {kind} {app} {env} {release} {message}"));
        self.answer()
    }

    async fn apply(&self, request: Request<Change>) -> Result<Response<Document>, Status> {
        self.note(format!("apply {:?}", request.into_inner().change.unwrap()));
        self.answer()
    }
}

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(&self, request: Request<EnrolRequest>) -> Result<Response<EnrolReply>, Status> {
        let request = request.into_inner();
        self.note(format!("enrol {} {}", request.kind, request.name));
        let identity = Identity::new(Kind::Operator, &request.name)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let issued = self.ca.issue(&request.csr_pem, &identity, SystemTime::now()).unwrap();
        Ok(Response::new(EnrolReply {
            certificate_pem: issued.certificate_pem,
            ca_pem: self.ca.roots_pem().to_owned(),
            trust_domain: "rota".to_owned(),
            name: request.name,
            environment: String::new(),
        }))
    }
}
