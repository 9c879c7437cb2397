//! What people on the node ask the agent, over DIR/agent.sock: one JSON object a line each way.
//!
//! It works with no controller: at 3 a.m. the network may be the problem.

mod client;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::link::{Link, Seen};
use crate::names::{LABEL_RULE, is_label};
use crate::own::Own;
use crate::report;
use crate::traffic::endpoint::{Endpoint, Poller};

pub use client::{LocalError, ask, print};

/// The longest question, in bytes.
const QUESTION_MAX: u64 = 4096;

/// How long somebody who connected may take to ask.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Questions that wait for the run loop; people ask one at a time.
const WAITING_MAX: usize = 8;

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Question {
    /// What this agent does.
    Status,
    /// The apps of this node.
    Apps,
    /// Put an app back to its previous proven release.
    Rollback(String),
    /// The release that an app runs.
    Release(String),
}

/// What the run loop is asked. It answers by the channel; dropping it says that it cannot.
#[derive(Debug)]
pub enum Request {
    /// The updates under way.
    Updates(oneshot::Sender<Vec<Update>>),
    /// The apps of this node.
    Apps(oneshot::Sender<Vec<report::App>>),
    /// Put this app back to its previous proven release; answered when it is done.
    Rollback { app: String, reply: oneshot::Sender<Result<Release, String>> },
    /// The release that this app runs.
    Release { app: String, reply: oneshot::Sender<Result<Release, String>> },
}

/// An update under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// APP/ENV/REVISION.
    pub rollout: String,
    /// Of this node in it.
    pub attempt: u32,
    /// Where it is.
    pub step: Option<String>,
    /// The version that it moves to.
    pub to: String,
}

/// A release on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The app.
    pub app: String,
    /// What its makers call it.
    pub release: String,
    /// SHA-256 of its artifact.
    pub digest: String,
}

/// The answer to [`Question::Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Who this is.
    pub name: String,
    /// `node` or `edge`.
    pub kind: &'static str,
    /// The environment.
    pub env: String,
    /// The agent's version.
    pub version: &'static str,
    /// Seconds until its certificate ends.
    pub certificate_seconds: u64,
    /// How the controllers are seen from here.
    pub controllers: Vec<Seen>,
    /// The updates under way.
    pub updates: Vec<Update>,
    /// Load balancers that ask this node for its apps' readiness.
    pub pollers: Vec<Poller>,
}

/// An app, in the words of `rota node ls -o json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct App {
    app: String,
    release: Option<String>,
    digest: Option<String>,
    health: report::Health,
    traffic: report::TrafficState,
    in_flight: u64,
    port: Option<u16>,
    pool: Option<String>,
    step: Option<String>,
}

impl From<report::App> for App {
    fn from(app: report::App) -> Self {
        let (release, digest) = app.release.unzip();
        Self {
            app: app.app,
            release,
            digest,
            health: app.health,
            traffic: app.traffic,
            in_flight: app.in_flight,
            port: app.port,
            pool: app.pool,
            step: app.step.map(|step| step.to_string()),
        }
    }
}

/// Where the socket is.
pub fn place(data: &Path) -> PathBuf {
    data.join("agent.sock")
}

/// What the server knows without the run loop.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who this is.
    pub own: std::sync::Arc<Own>,
    /// The environment.
    pub env: String,
    /// The sessions.
    pub link: Link,
    /// Who polls this node.
    pub endpoint: Option<Endpoint>,
}

/// Opens the socket, for this user only. The agent holds the lock of its folder, so whoever bound
/// it before is gone.
pub fn serve(data: &Path, facts: Facts) -> io::Result<mpsc::Receiver<Request>> {
    let path = place(data);
    let aside = path.with_extension("new");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&aside)?;
    fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
    fs::rename(&aside, &path)?;
    let (requests, queue) = mpsc::channel(WAITING_MAX);
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (facts, requests) = (facts.clone(), requests.clone());
                    tokio::spawn(async move {
                        if let Err(error) = converse(stream, &facts, &requests).await {
                            debug!("a question on {} got no answer: {error}", "agent.sock");
                        }
                    });
                }
                Err(error) => {
                    warn!("cannot accept on agent.sock: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(queue)
}

/// One question, one answer.
async fn converse(
    stream: UnixStream,
    facts: &Facts,
    requests: &mpsc::Sender<Request>,
) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = BufReader::new(reader.take(QUESTION_MAX));
    timeout(QUESTION_TIMEOUT, reader.read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(question) => answer(question, facts, requests).await,
        Err(error) => Err(format!("this is no question that this agent knows: {error}")),
    };
    let answer = match answer {
        Ok(answer) => serde_json::json!({ "ok": answer }),
        Err(message) => serde_json::json!({ "error": message }),
    };
    writer.write_all(format!("{answer}\n").as_bytes()).await
}

async fn answer(
    question: Question,
    facts: &Facts,
    requests: &mpsc::Sender<Request>,
) -> Result<serde_json::Value, String> {
    let value = match question {
        Question::Status => {
            let updates = tell(requests, Request::Updates).await?;
            serde_json::to_value(status(facts, updates))
        }
        Question::Apps => {
            let apps = tell(requests, Request::Apps).await?;
            serde_json::to_value(apps.into_iter().map(App::from).collect::<Vec<_>>())
        }
        Question::Rollback(app) => {
            let app = named(app)?;
            let request = |reply| Request::Rollback { app, reply };
            serde_json::to_value(tell(requests, request).await??)
        }
        Question::Release(app) => {
            let app = named(app)?;
            let request = |reply| Request::Release { app, reply };
            serde_json::to_value(tell(requests, request).await??)
        }
    };
    value.map_err(|error| format!("cannot write the answer: {error}"))
}

fn named(app: String) -> Result<String, String> {
    if is_label(&app) {
        Ok(app)
    } else {
        Err(format!("`{app}` is not an app's name: {LABEL_RULE}"))
    }
}

async fn tell<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    let stops = || "the agent stops".to_owned();
    requests.send(request(reply)).await.map_err(|_| stops())?;
    answer.await.map_err(|_| stops())
}

fn status(facts: &Facts, updates: Vec<Update>) -> Status {
    let identity = facts.own.identity();
    let left = facts.own.leaf().not_after.duration_since(std::time::SystemTime::now());
    Status {
        name: identity.name().to_owned(),
        kind: identity.kind().as_str(),
        env: facts.env.clone(),
        version: env!("CARGO_PKG_VERSION"),
        certificate_seconds: left.unwrap_or_default().as_secs(),
        controllers: facts.link.controllers(),
        updates,
        pollers: facts.endpoint.as_ref().map(Endpoint::pollers).unwrap_or_default(),
    }
}
