//! The sessions to the controllers: one with each of them, for as long as this agent lives.
//!
//! What the controllers say comes out as [`Event`]s through one bounded queue. What this node says
//! is state, not messages: the reports that wait for an acknowledgement, the inventory, the pools.
//! Each session sends what its controller has not heard yet, and all of it again after a break.

mod again;
mod book;
mod ended;
mod fetch;
mod printed;
mod renew;
mod reports;
mod sender;
mod session;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rota_proto::agent as proto;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info};

use crate::order::{Directory, Order, Rollout, Standing};
use crate::own::Own;
use crate::report::{App, Happening, Report};
use crate::spec::Driver;
use crate::traffic::Refusal;

pub use fetch::{FetchError, Sink};
use printed::Printed;
use reports::Waiting;

/// Events that wait for the run loop. A controller has at most a few orders for one node; when the
/// loop hangs this fills, heartbeats stop, and the controllers see that something is wrong.
const EVENTS_MAX: usize = 64;
/// Refusals of this edge that wait for a controller; more are only logged here.
const REFUSALS_MAX: usize = 64;

/// What happened without an order, and waits for a controller; more is only logged here.
const HAPPENINGS_MAX: usize = 64;

/// What the controllers say.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An owner asks for something.
    Order { controller: String, order: Box<Order> },
    /// The controllers and edges of the environment, when they changed.
    Directory(Directory),
    /// What the operators want of this node as a whole; repeated with every session.
    Standing(Standing),
    /// All reports up to this number are durable at their rollouts' owners: forget them.
    Acked(u64),
    /// A session began.
    Up(String),
    /// A session ended.
    Down(String),
}

/// What this agent says of itself in every session.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The agent's folder, for `controllers.json`.
    pub data: PathBuf,
    /// Controllers from the settings.
    pub seeds: Vec<String>,
    /// The token it was started with: who was removed before joins again by it.
    pub token: Option<String>,
    /// The environment.
    pub env: String,
    /// What this node is for.
    pub roles: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Where its apps are reached, if told.
    pub address: Option<String>,
    /// Edges: where the `Traffic` service listens; an empty host means "where I call from".
    pub traffic_address: String,
    /// Edges: the pools served here.
    pub edges: Vec<proto::EdgePool>,
    /// What runs apps when a release does not say.
    pub driver: Driver,
}

/// How one controller is seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// HOST:PORT.
    pub address: String,
    /// Its name, once it was reached.
    pub name: Option<String>,
    /// `up`, `down`, or `same` when it is reached by another address.
    pub state: SeenState,
    /// Why it is down.
    pub error: Option<String>,
}

/// See [`Seen`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SeenState {
    /// A session lives.
    Up,
    /// None does.
    Down,
    /// The same controller has a session by another address.
    Same,
}

/// The handle of all sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    setup: Setup,
    own: Arc<Own>,
    events: mpsc::Sender<Event>,
    waiting: watch::Sender<Waiting>,
    /// `None` until it is known: what a node has not looked for yet, it must not be believed to lack.
    inventory: watch::Sender<Option<Arc<Vec<App>>>>,
    /// What commands print while they run.
    printed: watch::Sender<Printed>,
    pools: watch::Sender<proto::EdgeState>,
    /// How often controllers asked this edge to count anew.
    counts: watch::Sender<u64>,
    /// What this edge refused; the first session that is free tells it.
    refusals: (mpsc::Sender<Refusal>, tokio::sync::Mutex<mpsc::Receiver<Refusal>>),
    /// What happened without an order; the first session that is free tells it.
    happenings: (mpsc::Sender<Happening>, tokio::sync::Mutex<mpsc::Receiver<Happening>>),
    /// The newest directory that any controller sent.
    directory: watch::Sender<Option<Directory>>,
    /// The addresses to hold sessions with.
    targets: watch::Sender<Vec<String>>,
    seen: Mutex<BTreeMap<String, Seen>>,
    /// Which address holds the session with a controller, by the controller's name.
    claims: watch::Sender<BTreeMap<String, String>>,
    /// The token, until it was tried or a controller welcomed this agent without it.
    invited: tokio::sync::Mutex<Option<String>>,
    stop: watch::Sender<bool>,
}

/// Starts the sessions. They end when [`Link::stop`] is called.
pub fn start(setup: Setup, own: Arc<Own>) -> (Link, mpsc::Receiver<Event>) {
    let (events, inbox) = mpsc::channel(EVENTS_MAX);
    let (refusals, refused) = mpsc::channel(REFUSALS_MAX);
    let (happenings, happened) = mpsc::channel(HAPPENINGS_MAX);
    let targets = book::targets(&setup.seeds, &book::load(&setup.data));
    let invited = tokio::sync::Mutex::new(setup.token.clone());
    let shared = Arc::new(Shared {
        setup,
        invited,
        own,
        events,
        waiting: watch::Sender::new(Waiting::default()),
        inventory: watch::Sender::new(None),
        printed: watch::Sender::new(Printed::default()),
        pools: watch::Sender::new(proto::EdgeState::default()),
        counts: watch::Sender::new(0),
        refusals: (refusals, tokio::sync::Mutex::new(refused)),
        happenings: (happenings, tokio::sync::Mutex::new(happened)),
        directory: watch::Sender::new(None),
        targets: watch::Sender::new(targets),
        seen: Mutex::default(),
        claims: watch::Sender::new(BTreeMap::new()),
        stop: watch::Sender::new(false),
    });
    tokio::spawn(supervise(Arc::clone(&shared)));
    tokio::spawn(renew::keep_fresh(Arc::clone(&shared)));
    (Link { shared }, inbox)
}

impl Link {
    /// Sends a report to every controller, and again in every new session until it is
    /// acknowledged. After a restart the journal's reports are given again.
    pub fn report(&self, report: Report) {
        self.shared.waiting.send_modify(|waiting| waiting.push(report));
    }

    /// What this node has; sent when it differs from what was said before. No controller is dialled before it is known.
    pub fn inventory(&self, apps: Vec<App>) {
        self.shared.inventory.send_if_modified(|known| {
            let news = known.as_deref() != Some(&apps);
            *known = Some(Arc::new(apps));
            news
        });
    }

    /// A command printed something: told while it runs, as far as the sessions keep up.
    pub fn printed(&self, rollout: &Rollout, attempt: u32, bytes: &[u8]) {
        self.shared.printed.send_modify(|printed| printed.add(rollout, attempt, bytes));
    }

    /// It has ended, and its report has the rest.
    pub fn print_ended(&self, rollout: &Rollout, attempt: u32) {
        self.shared.printed.send_if_modified(|printed| {
            printed.end(rollout, attempt);
            false // there is nothing to tell of it
        });
    }

    /// The pools of this edge as they are.
    pub fn pools(&self, state: proto::EdgeState) {
        self.shared.pools.send_if_modified(|known| {
            let news = *known != state;
            *known = state;
            news
        });
    }

    /// How often controllers asked this edge to count anew; `counted` of the state that answers says which it answers.
    pub fn counts(&self) -> watch::Receiver<u64> {
        self.shared.counts.subscribe()
    }

    /// Tells one controller what happened without an order.
    pub fn happened(&self, happening: Happening) {
        if let Err(error) = self.shared.happenings.0.try_send(happening) {
            tracing::warn!(%error, "too much happens while no controller hears of it");
        }
    }

    /// Where this edge puts what it refused.
    pub fn refusals(&self) -> mpsc::Sender<Refusal> {
        self.shared.refusals.0.clone()
    }

    /// The newest directory, as it changes; `None` before any controller was reached.
    pub fn directory(&self) -> watch::Receiver<Option<Directory>> {
        self.shared.directory.subscribe()
    }

    /// How the controllers are seen from here.
    pub fn controllers(&self) -> Vec<Seen> {
        self.shared.seen().values().cloned().collect()
    }

    /// Brings the artifact with this digest into `sink`; see [`fetch::fetch`].
    pub async fn fetch(&self, digest: &str, sink: &mut dyn Sink) -> Result<u64, FetchError> {
        fetch::fetch(&self.shared, digest, sink).await
    }

    /// Says goodbye to all controllers.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }
}

impl Shared {
    /// A panic elsewhere leaves this map whole: each change is one assignment.
    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> Vec<String> {
        self.targets.borrow().clone()
    }

    /// Gives an event to the run loop. When that is gone, so is the agent.
    async fn tell(&self, event: Event) {
        if self.events.send(event).await.is_err() {
            self.stop.send_replace(true);
        }
    }

    /// Takes over what a controller says about the fleet.
    async fn learn(&self, directory: Directory) {
        let news = self.directory.send_if_modified(|known| {
            let news = known.as_ref() != Some(&directory);
            *known = Some(directory.clone());
            news
        });
        if !news {
            return;
        }
        let known = directory.controllers.clone();
        if !known.is_empty() {
            let targets = book::targets(&self.setup.seeds, &known);
            let moved = self.targets.send_if_modified(|old| {
                let moved = *old != targets;
                *old = targets;
                moved
            });
            if moved {
                info!(controllers = known.join(","), "learned the controllers");
                if let Err(error) = book::save(&self.setup.data, &known) {
                    // Only the next start suffers: it begins with the seeds.
                    error!("cannot keep the list of controllers: {error}");
                }
            }
        }
        self.tell(Event::Directory(directory)).await;
    }
}

/// One task for every address, from when it is learned until it is forgotten.
async fn supervise(shared: Arc<Shared>) {
    let mut targets = shared.targets.subscribe();
    let mut stop = shared.stop.subscribe();
    let mut tasks = JoinSet::new();
    let mut running = BTreeMap::new();
    loop {
        let wanted = targets.borrow_and_update().clone();
        running.retain(|_, task: &mut tokio::task::AbortHandle| !task.is_finished());
        for address in wanted {
            running
                .entry(address.clone())
                .or_insert_with(|| tasks.spawn(session::keep(Arc::clone(&shared), address)));
        }
        tokio::select! {
            changed = targets.changed() => if changed.is_err() { break },
            // A session task that ended was forgotten, and perhaps learned again meanwhile.
            Some(ended) = tasks.join_next() => if let Err(panic) = ended {
                error!("a session ended by a mistake in this program: {panic}");
            },
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    while tasks.join_next().await.is_some() {}
}
