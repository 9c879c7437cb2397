//! The readiness of this node's apps, for load balancers that poll (`via = "endpoint"`): an HTTP page for each app, and
//! HAProxy's agent check on the same port.
//!
//! What is answered is what the journal says, and is said before the job that waits for it begins. After a start
//! nothing is answered until that is known: who polls meanwhile waits, and a wrong answer is never given. Who polled
//! before is remembered on disk, for a load balancer that has not come back yet was told something, too.

mod polls;
mod question;
mod remember;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::warn;

use polls::Polls;
pub use polls::Reach;
use question::{Answer, Question};

use crate::journal::{Journal, JournalError};
use crate::update::Ready;

/// From the connect to the answer. Load balancers wait for a second or two.
const CONVERSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 256;

/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// So long somebody must begin to poll, and those whose interval is not known yet to act on what they are told.
const REACH_LEAST: Duration = Duration::from_secs(30);

/// So long nobody waits, however seldom is polled. The controller counts with it.
const REACH_MOST: Duration = Duration::from_secs(600);

/// Where load balancers poll. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    listen: SocketAddr,
    begun: Instant,
    apps: Mutex<Apps>,
    /// Somebody polled, or was answered, or something turned.
    moved: watch::Sender<()>,
    /// Who polls is not the same any more.
    pollers: watch::Sender<Pollers>,
}

#[derive(Debug, Default)]
struct Apps {
    /// Nobody else than those named here has an app.
    complete: bool,
    by_name: BTreeMap<String, App>,
    /// What was last asked that nobody understands.
    strange: String,
}

#[derive(Debug, Default)]
struct App {
    /// `None`: not known yet.
    ready: Option<Ready>,
    polls: Polls,
}

/// Who polls which app, and at what interval in milliseconds.
pub type Pollers = BTreeMap<String, BTreeMap<String, u64>>;

/// Where the news of an app's readiness is now.
struct Now {
    reach: Reach,
    /// Nobody was told anything else meanwhile.
    as_before: bool,
    /// How long it is waited for in all.
    patience: Duration,
    /// When who polls will change, if nobody comes.
    next_to_go: Option<Instant>,
}

/// Why a load balancer does not know.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Nobody listens.
    #[error(
        "this agent has no readiness endpoint: start it with `--endpoint-listen 0.0.0.0:7403` \
         (or `endpoint_listen` in agent.toml)"
    )]
    Closed,
    /// Nobody polls.
    #[error(
        "nobody polls /ready/{app} at {listen}, so no load balancer knows: let its health check or \
         agent check ask there, or write `via = \"none\"`"
    )]
    Nobody { app: String, listen: SocketAddr },
    /// Not all know.
    #[error(
        "within {} s not every load balancer acted on {answers} answers: {}",
        .after.as_secs(), list(.late)
    )]
    Late { after: Duration, answers: u32, late: Vec<(String, u32)> },
}

fn list(late: &[(String, u32)]) -> String {
    let each = late.iter().map(|(name, seen)| format!("{name} on {seen}"));
    each.collect::<Vec<_>>().join(", ")
}

/// One poller, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poller {
    /// Of which app.
    pub app: String,
    /// From where, and how it asks.
    pub from: String,
    /// Its interval; 0: it came once.
    pub every_ms: u64,
    /// What it is told.
    pub told: String,
}

impl Endpoint {
    /// Takes the port; answers when [`Endpoint::serve`] is called.
    pub fn bind(address: SocketAddr) -> io::Result<(Self, TcpListener)> {
        let listener = super::edge::listen(address)?;
        let shared = Arc::new(Shared {
            listen: listener.local_addr()?,
            begun: Instant::now(),
            apps: Mutex::default(),
            moved: watch::Sender::default(),
            pollers: watch::Sender::default(),
        });
        Ok((Self { shared }, listener))
    }

    /// Where it listens.
    pub fn listen(&self) -> SocketAddr {
        self.shared.listen
    }

    /// Answers from now on, each app as soon as it is known.
    pub async fn serve(&self, listener: TcpListener, journal: Journal) -> Result<(), JournalError> {
        let known: Pollers = journal.get(remember::POLLERS).await?.unwrap_or_default();
        let now = self.shared.now();
        for (app, pollers) in &known {
            let mut apps = self.shared.apps();
            let entry = apps.by_name.entry(app.clone()).or_default();
            pollers.iter().for_each(|(name, gap)| entry.polls.know(name, *gap, now));
        }
        self.shared.pollers.send_replace(known);
        tokio::spawn(accept(Arc::clone(&self.shared), listener));
        tokio::spawn(remember::keep(Arc::clone(&self.shared), journal));
        Ok(())
    }

    /// What is answered for an app from now on.
    pub fn set(&self, app: &str, ready: Ready) {
        let mut apps = self.shared.apps();
        let entry = match apps.by_name.get_mut(app) {
            Some(entry) => entry,
            None => apps.by_name.entry(app.to_owned()).or_default(),
        };
        if entry.ready != Some(ready) {
            entry.ready = Some(ready);
            entry.polls.turn(ready == Ready::In);
            self.shared.moved.send_replace(());
        }
    }

    /// Every app of this node was set once: whoever is not known is not here.
    pub fn complete(&self) {
        self.shared.apps().complete = true;
        self.shared.moved.send_replace(());
    }

    /// How far the news of an app's readiness got.
    pub fn reach(&self, app: &str, answers: u32) -> Reach {
        let now = self.shared.now();
        let mut apps = self.shared.apps();
        apps.by_name.get_mut(app).map_or(Reach::Nobody, |entry| entry.polls.reach(answers, now))
    }

    /// Waits until everyone who polls has acted on so many answers. That nobody polls is an error, unless the app is
    /// in traffic as it was before.
    pub async fn reached(&self, app: &str, answers: u32) -> Result<(), EndpointError> {
        let (begun, mut moved) = (Instant::now(), self.shared.moved.subscribe());
        loop {
            moved.borrow_and_update();
            let Now { reach, as_before, patience, next_to_go } = self.now(app, answers);
            if reach == Reach::All || (reach == Reach::Nobody && as_before) {
                return Ok(());
            }
            if begun.elapsed() >= patience {
                return Err(match reach {
                    Reach::Some(late) => EndpointError::Late { after: patience, answers, late },
                    Reach::Nobody | Reach::All => {
                        EndpointError::Nobody { app: app.to_owned(), listen: self.listen() }
                    }
                });
            }
            let until = next_to_go.map_or(begun + patience, |at| at.min(begun + patience));
            tokio::select! {
                changed = moved.changed() => if changed.is_err() {
                    return Err(EndpointError::Closed);
                },
                () = sleep_until(until) => {}
            }
        }
    }

    fn now(&self, app: &str, answers: u32) -> Now {
        let (now, mut apps) = (self.shared.now(), self.shared.apps());
        let polls = &mut apps.by_name.entry(app.to_owned()).or_default().polls;
        let reach = polls.reach(answers, now);
        let needs = Duration::from_millis(polls.needs(answers));
        let patience = match (&reach, polls.is_missed()) {
            (Reach::Nobody, true) => REACH_MOST, // they are away, and the app is well
            (Reach::Nobody | Reach::Some(_) | Reach::All, _) => {
                needs.clamp(REACH_LEAST, REACH_MOST)
            }
        };
        let next_to_go = polls.next_to_go().map(|at| self.shared.after(at));
        Now { reach, as_before: polls.is_as_before(), patience, next_to_go }
    }

    /// Tells whenever who polls has changed.
    pub fn changes(&self) -> watch::Receiver<Pollers> {
        self.shared.pollers.subscribe()
    }

    /// Who polls, for people.
    pub fn pollers(&self) -> Vec<Poller> {
        let apps = self.shared.apps();
        let of = |(app, entry): (&String, &App)| {
            let told = Answer::of(entry.ready).word().to_owned();
            let poller = |(name, gap): (&str, u64)| Poller {
                app: app.clone(),
                from: name.to_owned(),
                every_ms: gap,
                told: told.clone(),
            };
            entry.polls.who().map(poller).collect::<Vec<_>>()
        };
        apps.by_name.iter().flat_map(of).collect()
    }
}

impl Shared {
    /// Nothing in here can be left half changed.
    fn apps(&self) -> MutexGuard<'_, Apps> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Just after this time has come.
    fn after(&self, at: u64) -> Instant {
        self.begun + Duration::from_millis(at + 1)
    }

    /// What to answer now, once it is known; and the turn that it belongs to, where the app is here.
    async fn answer(&self, app: &str, name: &str) -> (Answer, Option<u64>) {
        let mut moved = self.moved.subscribe();
        loop {
            moved.borrow_and_update();
            if let Some(answer) = self.answer_now(app, name) {
                return answer;
            }
            if moved.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn answer_now(&self, app: &str, name: &str) -> Option<(Answer, Option<u64>)> {
        let (now, mut apps) = (self.now(), self.apps());
        let complete = apps.complete;
        let ready = apps.by_name.get(app).and_then(|entry| entry.ready);
        if ready.is_none() {
            return complete.then_some((Answer::NotHere, None));
        }
        let entry = apps.by_name.get_mut(app)?;
        match entry.polls.comes(name, now) {
            Ok(turn) => Some((Answer::of(ready), Some(turn))),
            Err(polls::TooMany) => Some((Answer::TooMany, None)),
        }
    }

    /// One question, one answer.
    async fn converse(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let ip = peer.ip().to_canonical();
        let question = question::read(&mut stream).await?;
        let Question::Ready { app, style, text } = question else {
            self.complain(&format!("{ip}: {question}"));
            return stream.write_all(question.refusal().as_bytes()).await;
        };
        let name = format!("{ip} ({text})");
        let (answer, turn) = self.answer(&app, &name).await;
        stream.write_all(style.write(answer).as_bytes()).await?;
        stream.shutdown().await?;
        if let Some(turn) = turn {
            if let Some(entry) = self.apps().by_name.get_mut(&app) {
                entry.polls.told(&name, turn);
            }
            self.moved.send_replace(());
        }
        Ok(())
    }

    /// Once, for load balancers repeat themselves.
    fn complain(&self, what: &str) {
        let mut apps = self.apps();
        if apps.strange != what {
            what.clone_into(&mut apps.strange);
            warn!("the readiness endpoint was asked for nothing that it has: {what}");
        }
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    // Who breaks off was not told, and comes again.
                    let ended = timeout(CONVERSE_TIMEOUT, shared.converse(stream, peer)).await;
                    if !matches!(ended, Ok(Ok(()))) {
                        tracing::debug!(%peer, "a poll got no answer");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                warn!("cannot accept on the readiness endpoint: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
