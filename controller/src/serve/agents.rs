//! The Fleet service: sessions with agents, artifacts for those who were ordered to have them, renewals.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rota_identity::Kind;
use rota_proto::agent::fleet_server::Fleet;
use rota_proto::agent::{
    Chunk, EnrolReply, FetchRequest, FromAgent, Refusal, RenewRequest, ToAgent, from_agent,
};
use rota_rollout::names::{Digest, NodeName};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::copies::unread;
use super::enrol;
use crate::access::audit::Deed;
use crate::access::{Access, Caller, now};
use crate::artifact::peers::Artifacts;
use crate::engine::{AgentKey, Handle, Heartbeat, Hello, Input, State, ToSession};
use crate::errors::{Sort, status};

/// Messages that wait for one agent. Orders are few, but one that is asked for everything again gets an acknowledgement
/// for each report, while ten thousand others are served as well. One that lets so many wait does not read any more.
const OUT_QUEUED_MAX: usize = 512;

/// Downloads that run at once. More would only share the same link, and each holds a descriptor and a buffer.
const DOWNLOADS_MAX: usize = 64;

/// The service.
pub struct FleetService {
    engine: Handle,
    access: Arc<Access>,
    artifacts: Artifacts,
    downloads: Arc<Semaphore>,
    sessions: AtomicU64,
}

impl FleetService {
    /// Serves agents on behalf of this engine.
    pub fn new(engine: Handle, access: Arc<Access>, artifacts: Artifacts) -> Self {
        let downloads = Arc::new(Semaphore::new(DOWNLOADS_MAX));
        Self { engine, access, artifacts, downloads, sessions: AtomicU64::new(1) }
    }
}

impl FleetService {
    /// Was a release with this artifact ordered for the caller? Another controller may have done so a moment ago; one
    /// that cannot know sends the caller to the next.
    async fn was_ordered(&self, caller: &Caller, digest: &Digest) -> Result<bool, Status> {
        if was_ordered(&self.engine.read(), caller, digest) {
            return Ok(true);
        }
        let caught_up = self.engine.catch_up().await;
        if was_ordered(&self.engine.read(), caller, digest) {
            return Ok(true);
        }
        match caught_up {
            true => Ok(false),
            false => {
                let message = "this controller does not hear now what the others order";
                Err(status(Sort::Unreachable.error(message, "ask another one")))
            }
        }
    }
}

/// What a stream of answers looks like to tonic.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Fleet for FleetService {
    type SessionStream = Answers<ToAgent>;
    type FetchStream = Answers<Chunk>;

    async fn session(
        &self,
        request: Request<Streaming<FromAgent>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = self.access.agent(&request).await?;
        let key = key_of(&caller)?;
        let peer = caller.peer.map(|peer| peer.ip().to_string()).unwrap_or_default();
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        let (out, answers) = mpsc::channel(OUT_QUEUED_MAX);
        let session = Session {
            engine: self.engine.clone(),
            access: Arc::clone(&self.access),
            key,
            number,
            peer,
            serial: caller.serial,
        };
        tokio::spawn(session.run(request.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers).map(|boxed| Ok(*boxed)))))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let caller = self.access.agent(&request).await?;
        let asked = request.into_inner();
        let digest: Digest = asked
            .digest
            .parse()
            .map_err(|bad: rota_rollout::BadName| status(Sort::Usage.error(bad.to_string(), "")))?;
        if !self.was_ordered(&caller, &digest).await? {
            let why = format!("no release with the artifact {} was ordered for it", digest.short());
            let target = digest.to_string();
            self.access.write_down(&caller, "fetch", &target, Err(&why)).await;
            let message = format!("{}: {why}", caller.identity);
            return Err(status(Sort::NotPermitted.error(message, "")));
        }
        self.artifacts.brought(&digest).await.map_err(status)?;
        let gone = |_| status(Sort::Unreachable.error("this controller is stopping", ""));
        let turn = Arc::clone(&self.downloads).acquire_owned().await.map_err(gone)?;
        let download = self.artifacts.here.read(&digest, asked.offset).await.map_err(unread)?;
        let size = download.size();
        let chunks = download.into_stream().map(move |chunk| {
            let _held_until_the_end = &turn;
            match chunk {
                Ok(data) => Ok(Chunk { data, size }),
                Err(error) => Err(status(Sort::Internal.error(error.to_string(), ""))),
            }
        });
        Ok(Response::new(Box::pin(chunks)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<EnrolReply>, Status> {
        let csr = request.get_ref().csr_pem.clone();
        Ok(Response::new(enrol::renew(&self.access, &request, &csr).await?))
    }
}

fn key_of(caller: &Caller) -> Result<AgentKey, Status> {
    let name: NodeName = caller
        .identity
        .name()
        .parse()
        .map_err(|bad: rota_rollout::BadName| status(Sort::Usage.error(bad.to_string(), "")))?;
    Ok(match caller.identity.kind() {
        Kind::Edge => AgentKey::Edge(name),
        Kind::Node | Kind::Controller | Kind::Operator => AgentKey::Node(name),
    })
}

/// Was a release with this artifact ordered for the caller, to move to or to go back to?
fn was_ordered(state: &State, caller: &Caller, digest: &Digest) -> bool {
    let Ok(name) = caller.identity.name().parse::<NodeName>() else { return false };
    if caller.identity.kind() != Kind::Node {
        return false;
    }
    let is = |release: Option<&rota_rollout::Release>| release.is_some_and(|r| r.digest == *digest);
    let ordered = state.rollouts.values().any(|active| {
        let node = active.rollout.nodes().get(&name);
        node.is_some_and(|node| {
            active.rollout.spec.to.digest == *digest || is(node.previous.as_ref())
        })
    });
    let runs = state
        .node(&name)
        .is_some_and(|agent| agent.record.apps.iter().any(|app| is(app.release.as_ref())));
    ordered || runs
}

/// One session, from Hello to the end.
struct Session {
    engine: Handle,
    access: Arc<Access>,
    key: AgentKey,
    number: u64,
    peer: String,
    serial: String,
}

impl Session {
    /// An edge refused a node: into the audit log. Only edges have anything to refuse.
    async fn audit(&self, refusal: &Refusal) {
        let AgentKey::Edge(edge) = &self.key else {
            return tracing::warn!(key = ?self.key, "a node reports a refusal: ignored");
        };
        let deed = Deed {
            who: &refusal.who,
            peer: &refusal.peer,
            what: "traffic",
            target: &refusal.target,
            message: &format!("at edge {edge}"),
            result: Err(&refusal.why),
        };
        if let Err(error) = self.access.audit().record(&deed, now()).await {
            tracing::error!(%error, who = refusal.who, "cannot write to the audit log");
        }
    }

    async fn run(self, mut messages: Streaming<FromAgent>, out: ToSession) {
        let mut revoked = self.access.revoked().watch();
        let first = messages.next().await;
        let Some(Ok(FromAgent { message: Some(from_agent::Message::Hello(hello)) })) = first else {
            tracing::warn!(key = ?self.key, "a session did not begin with Hello");
            return;
        };
        let beat = Heartbeat::default();
        let hello = Hello {
            key: self.key.clone(),
            session: self.number,
            peer: self.peer.clone(),
            hello,
            out: out.clone(),
            beat: beat.clone(),
        };
        // Only the engine may keep the session open: when it lets go, the agent sees the end.
        let closed = out.downgrade();
        drop(out);
        if !self.engine.tell(Input::Hello(Box::new(hello))).await {
            return;
        }
        let mut is_revoked = false;
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(Ok(FromAgent {
                        message: Some(from_agent::Message::Refusal(refusal)),
                    })) => self.audit(&refusal).await,
                    Some(Ok(FromAgent { message: Some(from_agent::Message::Heartbeat(_)) })) => {
                        beat.came(now());
                    }
                    Some(Ok(message)) => {
                        let said = Input::Said {
                            key: self.key.clone(),
                            session: self.number,
                            message,
                        };
                        if !self.engine.tell(said).await {
                            return;
                        }
                    }
                    Some(Err(error)) => {
                        tracing::debug!(key = ?self.key, %error, "a session broke");
                        break;
                    }
                    None => break,
                },
                changed = revoked.changed() => {
                    if changed.is_err() || revoked.borrow().contains_key(&self.serial) {
                        tracing::warn!(key = ?self.key, "a session ends: revoked");
                        is_revoked = true;
                        break;
                    }
                }
            }
            if closed.upgrade().is_none() {
                break;
            }
        }
        let gone = Input::Gone { key: self.key, session: self.number, revoked: is_revoked };
        if !self.engine.tell(gone).await {
            tracing::debug!("the engine has ended");
        }
    }
}

#[cfg(test)]
mod tests;
