//! The agent's side of the control protocol.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};

use super::{Answer, Ask, Call, SAID_LEN_MAX, Said, Stats, read_line, to_line};
use crate::member::{Intent, MemberState};

/// Calls that wait to be written. Callers wait for their answers, so this is rarely more than one.
const CALLS_QUEUED_MAX: usize = 64;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No proxy answers there.
    #[error("cannot connect to the proxy's control socket {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The connection broke. Whether the call was carried out is not known; repeat it.
    #[error("the control connection to the proxy broke before it answered")]
    Broken,
    /// The connection broke while changes were awaited.
    #[error("the control connection to the proxy broke")]
    Lost(#[source] io::Error),
    /// The proxy refused; nothing changed.
    #[error("the proxy refused: {0}")]
    Refused(String),
    /// The proxy speaks another protocol.
    #[error("the proxy answered {0}, which does not belong to the call")]
    Unexpected(String),
}

/// A connection to a proxy's control socket. Calls may be made at the same time.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
    calls: mpsc::Sender<(Ask, oneshot::Sender<Said>)>,
}

type Pending = Arc<Mutex<BTreeMap<u64, oneshot::Sender<Said>>>>;

impl Client {
    /// Connects to the proxy at this control socket.
    pub async fn connect(path: impl AsRef<Path>) -> Result<Self, CallError> {
        let path = path.as_ref().to_owned();
        let stream = open(&path).await?;
        let (calls, queue) = mpsc::channel(CALLS_QUEUED_MAX);
        tokio::spawn(async move {
            if let Err(error) = converse(stream, queue).await {
                tracing::debug!(%error, "control connection ended");
            }
        });
        Ok(Self { path, calls })
    }

    /// Puts an intent in force. When this returns it is: no new request goes to a member that is
    /// wanted out.
    pub async fn apply(&self, intent: Intent) -> Result<MemberState, CallError> {
        match self.call(Ask::Apply(intent)).await? {
            Answer::Applied(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Every member, in the order of their keys.
    pub async fn list(&self) -> Result<Vec<MemberState>, CallError> {
        match self.call(Ask::List).await? {
            Answer::Members(members) => Ok(members),
            other => Err(unexpected(&other)),
        }
    }

    /// The counters, and where clients are served.
    pub async fn stats(&self) -> Result<Stats, CallError> {
        match self.call(Ask::Stats).await? {
            Answer::Stats(stats) => Ok(stats),
            other => Err(unexpected(&other)),
        }
    }

    /// Asks the proxy to finish what is in flight and end. Returns when it began to.
    pub async fn shutdown(&self) -> Result<(), CallError> {
        match self.call(Ask::Shutdown).await? {
            Answer::Stopping => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Every member now, and then every change, on a connection of its own.
    pub async fn subscribe(&self) -> Result<Subscription, CallError> {
        let stream = open(&self.path).await?;
        let (reader, mut writer) = stream.into_split();
        let call = to_line(&Call { id: 1, ask: Ask::Subscribe }).map_err(CallError::Lost)?;
        writer.write_all(&call).await.map_err(CallError::Lost)?;
        let reader = BufReader::new(reader);
        let mut subscription = Subscription { reader, _writer: writer, line: Vec::new() };
        match subscription.hear().await? {
            Some(Said::Answer { is: Answer::Subscribed, .. }) => Ok(subscription),
            Some(Said::Refused { why, .. }) => Err(CallError::Refused(why)),
            Some(other) => Err(unexpected(&other)),
            None => Err(CallError::Broken),
        }
    }

    async fn call(&self, ask: Ask) -> Result<Answer, CallError> {
        let (reply, answer) = oneshot::channel();
        self.calls.send((ask, reply)).await.map_err(|_closed| CallError::Broken)?;
        match answer.await.map_err(|_closed| CallError::Broken)? {
            Said::Answer { is, .. } => Ok(is),
            Said::Refused { why, .. } => Err(CallError::Refused(why)),
            other @ Said::Member(_) => Err(unexpected(&other)),
        }
    }
}

/// The changes of a pool's members.
#[derive(Debug)]
pub struct Subscription {
    reader: BufReader<OwnedReadHalf>,
    /// Kept, because the proxy ends a session whose client closed.
    _writer: tokio::net::unix::OwnedWriteHalf,
    /// What was read of a line by a call of `next` that was dropped.
    line: Vec<u8>,
}

impl Subscription {
    /// The next member that is new or changed; `None` when the proxy ended. A gone member comes
    /// once more, as absent. May be dropped and called again without losing a change.
    pub async fn next(&mut self) -> Result<Option<MemberState>, CallError> {
        match self.hear().await? {
            Some(Said::Member(state)) => Ok(Some(state)),
            Some(other) => Err(unexpected(&other)),
            None => Ok(None),
        }
    }

    async fn hear(&mut self) -> Result<Option<Said>, CallError> {
        let more = read_line(&mut self.reader, &mut self.line, SAID_LEN_MAX).await;
        if !more.map_err(CallError::Lost)? {
            return Ok(None);
        }
        let said = serde_json::from_slice(&self.line);
        self.line.clear();
        said.map(Some).map_err(|error| CallError::Unexpected(error.to_string()))
    }
}

async fn open(path: &Path) -> Result<UnixStream, CallError> {
    let stream = UnixStream::connect(path).await;
    stream.map_err(|cause| CallError::Connect { path: path.to_owned(), cause })
}

fn unexpected(answer: &dyn std::fmt::Debug) -> CallError {
    CallError::Unexpected(format!("{answer:?}"))
}

/// Writes calls and hands their answers back, until either side is gone.
async fn converse(
    stream: UnixStream,
    mut queue: mpsc::Receiver<(Ask, oneshot::Sender<Said>)>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let pending = Pending::default();
    let hearing = hear(reader, pending.clone());
    let writing = async {
        let mut id = 0;
        while let Some((ask, reply)) = queue.recv().await {
            id += 1;
            pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, reply);
            writer.write_all(&to_line(&Call { id, ask })?).await?;
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = hearing => ended,
        ended = writing => ended,
    };
    // Whoever still waits for an answer learns now that there will be none.
    pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
    ended
}

async fn hear(reader: OwnedReadHalf, pending: Pending) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while read_line(&mut reader, &mut line, SAID_LEN_MAX).await? {
        let said: Said = serde_json::from_slice(&line)?;
        line.clear();
        let (Said::Answer { id, .. } | Said::Refused { id, .. }) = &said else { continue };
        let reply = pending.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
        if let Some(reply) = reply
            && reply.send(said).is_err()
        {
            tracing::debug!("a call was given up before its answer came");
        }
    }
    Ok(())
}
