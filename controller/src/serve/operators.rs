//! The Operator service: reads, uploads, and every change that an operator may ask for.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_proto::operator::operator_server::Operator;
use rota_proto::operator::{
    Change, Document, PushRequest, ReadRequest, StartRequest, UploadPart, UploadQuery, UploadReply,
};
use rota_rollout::names::RolloutId;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::changes;
use super::forward::{Call, Forward};
use super::told::Told;
use crate::access::{Access, Action, Caller};
use crate::api::{Api, Page, Reader, fleet};
use crate::artifact::peers::Artifacts;
use crate::client::CONTROLLERS;
use crate::engine::live;
use crate::errors::status;
use crate::view::ErrorView;

/// After each document a follower pauses this many times as long as the document took to make, not to become durable:
/// following a rollout of three nodes hears of its end at once, and following one of ten thousand does not slow it
/// down.
const FOLLOW_PAUSE_FACTOR: u32 = 20;

/// The shortest pause; and the longest, after which a person would ask what is going on.
const FOLLOW_PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(2));

/// Documents that wait for a slow follower; he gets the newest state anyway.
const FOLLOW_QUEUED_MAX: usize = 2;

/// The service.
pub struct OperatorService {
    /// What can be read, and the way to the engine.
    pub api: Api,
    /// Who may.
    pub access: Arc<Access>,
    /// The other controllers.
    pub forward: Forward,
    /// Uploads.
    pub artifacts: Artifacts,
}

pub(super) fn document(answer: Result<Value, ErrorView>) -> Result<Response<Document>, Status> {
    let value = answer.map_err(status)?;
    Ok(Response::new(Document { json: value.to_string() }))
}

#[tonic::async_trait]
impl Operator for OperatorService {
    type FollowStream = Pin<Box<dyn Stream<Item = Result<Document, Status>> + Send>>;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Document>, Status> {
        let caller = self.access.operator(&request).await?;
        let path = request.into_inner().path;
        self.access.permit(&caller, Action::Read, None, &path).await?;
        let page = self.api.read(&path, Reader::Operator(&caller)).await.map_err(status)?;
        let mut answer = Response::new(Document { json: page.json });
        let controllers = {
            let state = self.api.engine.read();
            state.cluster.is_some().then(|| state.controllers().join(","))
        };
        if let Some(controllers) = controllers.and_then(|text| text.parse().ok()) {
            answer.metadata_mut().insert(CONTROLLERS, controllers);
        }
        Ok(answer)
    }

    async fn follow(
        &self,
        request: Request<ReadRequest>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let caller = self.access.operator(&request).await?;
        let ReadRequest { path, after } = request.into_inner();
        self.access.permit(&caller, Action::Read, None, &path).await?;
        let (out, documents) = mpsc::channel(FOLLOW_QUEUED_MAX);
        let follower = Follower { api: self.api.clone(), caller, out };
        if path == "events" || path.starts_with("events?") {
            let query = path.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
            tokio::spawn(follower.events(query, after));
        } else if let Some(id) = path.strip_suffix("/output") {
            let id = changes::rollout_of(id.trim_start_matches("rollouts/")).map_err(status)?;
            tokio::spawn(follower.output(id));
        } else {
            tokio::spawn(follower.document(path));
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(documents))))
    }

    async fn upload_state(
        &self,
        request: Request<UploadQuery>,
    ) -> Result<Response<UploadReply>, Status> {
        let caller = self.access.operator(&request).await?;
        let asked = request.into_inner().digest;
        self.access.permit(&caller, Action::PushRelease, None, &asked).await?;
        let digest = changes::digest(&asked).map_err(status)?;
        self.artifacts.brought_if_known(&digest).await;
        let state = self.artifacts.here.state(&digest).await.map_err(changes::artifact)?;
        Ok(Response::new(UploadReply { have: state.have, complete: state.complete }))
    }

    async fn upload(
        &self,
        request: Request<Streaming<UploadPart>>,
    ) -> Result<Response<UploadReply>, Status> {
        let caller = self.access.operator(&request).await?;
        self.access.permit(&caller, Action::PushRelease, None, "upload").await?;
        changes::upload(&self.artifacts, request.into_inner()).await
    }

    async fn push_release(
        &self,
        request: Request<PushRequest>,
    ) -> Result<Response<Document>, Status> {
        let caller = self.access.operator(&request).await?;
        let push = request.into_inner();
        self.access.permit(&caller, Action::PushRelease, None, &push.version).await?;
        self.forward.placed(&caller, Call::Push(push), |call| self.here(&caller, call)).await
    }

    async fn plan(&self, request: Request<StartRequest>) -> Result<Response<Document>, Status> {
        let caller = self.access.operator(&request).await?;
        let asked = request.into_inner();
        self.access.permit(&caller, Action::Plan, Some(&asked.env), &asked.app).await?;
        self.api.engine.catch_up().await;
        changes::plan(self, &caller, asked).await
    }

    async fn start(&self, request: Request<StartRequest>) -> Result<Response<Document>, Status> {
        let caller = self.access.operator(&request).await?;
        let asked = request.into_inner();
        let target = format!("{}/{}", asked.app, asked.env);
        self.access.permit(&caller, Action::StartRollout, Some(&asked.env), &target).await?;
        self.forward.placed(&caller, Call::Start(asked), |call| self.here(&caller, call)).await
    }

    async fn apply(&self, request: Request<Change>) -> Result<Response<Document>, Status> {
        let caller = self.access.operator(&request).await?;
        let call = Call::Apply(request.into_inner());
        self.forward.placed(&caller, call, |call| self.here(&caller, call)).await
    }
}

impl OperatorService {
    /// As far as this controller decides it.
    async fn here(&self, caller: &Caller, call: Call) -> Result<Response<Document>, Status> {
        match call {
            Call::Push(push) => changes::push(self, caller, push).await,
            Call::Start(asked) => changes::start(self, caller, asked).await,
            Call::Apply(change) => changes::apply(self, caller, change).await,
        }
    }
}

/// Somebody who watches a document or the events.
struct Follower {
    api: Api,
    caller: Caller,
    out: mpsc::Sender<Result<Document, Status>>,
}

impl Follower {
    /// The document now, and again whenever it is another one; ends when a rollout is over.
    async fn document(self, path: String) {
        let mut changed = self.api.engine.changed();
        let mut last = String::new();
        self.api.engine.catch_up().await;
        loop {
            changed.mark_unchanged();
            let page = match self.api.again(&path, Reader::Operator(&self.caller)).await {
                Ok(page) => page,
                Err(error) => return self.send(Err(status(error))).await,
            };
            let Page { json, last: over, took } = page;
            if json != last {
                last.clone_from(&json);
                self.send(Ok(Document { json })).await;
            }
            if over || !self.wait(&mut changed, took).await {
                return;
            }
        }
    }

    /// Every event after this one (0: only new ones), each document a list. One that another controller wrote down may
    /// come a little after newer ones.
    async fn events(self, query: String, after: u64) {
        let mut changed = self.api.engine.changed();
        let mut told = Told::new(&self.api.engine.read(), after);
        loop {
            changed.mark_unchanged();
            let began = Instant::now();
            let mark = self.api.engine.mark();
            let (events, more) = {
                let state = self.api.engine.read();
                let reader = Reader::Operator(&self.caller);
                let mut events = fleet::events_after(&state, &query, told.since, reader);
                let more = events.len() == fleet::EVENTS_SHOWN_MAX;
                events.retain(|event| told.is_news(event.seq));
                (events, more)
            };
            let took = began.elapsed();
            if !self.api.engine.is_durable(mark).await {
                continue;
            }
            if !events.is_empty() {
                match serde_json::to_string(&events) {
                    Ok(json) => self.send(Ok(Document { json })).await,
                    Err(error) => return tracing::error!(%error, "events cannot be written"),
                }
            }
            let some = !events.is_empty();
            told.tell(events.iter().map(|event| event.seq));
            if more && some && !self.out.is_closed() {
                continue;
            }
            if !self.wait(&mut changed, took).await {
                return;
            }
        }
    }

    /// What commands print while they run; ends when the follower does.
    async fn output(self, id: RolloutId) {
        let mut changed = self.api.engine.changed();
        let mut told = live::Told::new();
        while self.caller.sees(id.env.as_str()) {
            changed.mark_unchanged();
            let began = Instant::now();
            let news = live::news(&self.api.engine.read(), &id, &mut told);
            match news.as_deref().map(serde_json::to_string) {
                None => break, // it is over
                Some(Ok(json)) if json != "[]" => self.send(Ok(Document { json })).await,
                Some(Ok(_)) => {}
                Some(Err(error)) => return tracing::error!(%error, "output cannot be written"),
            }
            if !self.wait(&mut changed, began.elapsed()).await {
                return;
            }
        }
        self.out.closed().await;
    }

    async fn send(&self, document: Result<Document, Status>) {
        if self.out.send(document).await.is_err() {
            tracing::debug!("a follower is gone");
        }
    }

    /// Until something changed, after a pause; `false`: the follower is gone, or the engine.
    async fn wait(&self, changed: &mut tokio::sync::watch::Receiver<u64>, took: Duration) -> bool {
        let (shortest, longest) = FOLLOW_PAUSE;
        tokio::time::sleep((took * FOLLOW_PAUSE_FACTOR).clamp(shortest, longest)).await;
        tokio::select! {
            changed = changed.changed() => changed.is_ok() && !self.out.is_closed(),
            () = self.out.closed() => false,
        }
    }
}
