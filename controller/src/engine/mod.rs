//! The loop: event, step, commit, carry out.
//!
//! One task owns every decision. It takes all inputs that wait, lets the pure core step for each, commits what changed
//! in one transaction that is fenced by our terms, and only then sends orders, acknowledgements and answers. Readers
//! look at the same [`State`] through [`Handle::read`], and tell what they saw once [`Handle::is_durable`] says so.

pub mod admission;
mod agents;
mod around;
mod batch;
mod carry;
mod claims;
pub mod cluster;
pub mod drift;
mod evidence;
mod fence;
mod follow;
mod handle;
mod hearsay;
mod inbox;
pub mod keep;
mod late;
pub mod live;
mod load;
mod meter;
mod neighbours;
mod newcomers;
mod nodes;
pub mod number;
mod own;
pub mod pace;
pub mod place;
mod recent;
pub mod records;
mod reload;
mod removed;
mod run;
mod silence;
pub mod state;
mod together;
pub mod trace;
mod turn;
mod unsure;
mod verbs;
pub mod windows;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rota_proto::agent::{Again, FromAgent, Goodbye, ToAgent, to_agent};
use rota_rollout::names::{NodeName, Timestamp};
use tokio::sync::{oneshot, watch};

pub use admission::{Given, Start};
pub use batch::{Answer, Batch};
use cluster::{Cluster, Owner};
pub use handle::Handle;
use handle::{Barrier, Settled};
use inbox::{Inbox, inbox};
pub use load::{Ended, history, load_ended};
pub use meter::Measure;
pub use nodes::Drain;
pub use own::Service;
pub use run::RunAsked;
pub use state::{Active, Agent, AgentKey, Heartbeat, State, ToSession};
use together::Together;
pub use together::{OpenError, Own};
pub(crate) use turn::Turn;
pub(crate) use verbs::applied;
pub use verbs::{Ask, Asked};

use crate::access::now;
use crate::members::Place;
use crate::store::{Change, Outcome, Store, StoreError};

/// How often silent agents, deadlines and freezes are looked at.
const TICK: Duration = Duration::from_millis(250);

/// What is looked at beside the inputs of a turn.
struct Due {
    /// Silent agents, deadlines, freezes: only while nothing waits.
    tick: bool,
    /// Rollouts that nobody runs: these do not wait until all agents were heard.
    look: bool,
}

/// What the engine hears.
#[expect(clippy::large_enum_variant, reason = "a few live at a time, each for a moment")]
pub enum Input {
    /// An agent opened a session.
    Hello(Box<Hello>),
    /// An agent says something.
    Said { key: AgentKey, session: u64, message: FromAgent },
    /// A session ended; because its certificate was revoked?
    Gone { key: AgentKey, session: u64, revoked: bool },
    /// The certificates of nodes that were revoked: serial and node.
    Banned(Vec<(String, NodeName)>),
    /// An operator wants something.
    Asked(Box<Asked>, oneshot::Sender<Answer>),
    /// What was written to a shared store, by whomever, since everything was read for the `epoch`-th time.
    Stored { epoch: u64, changes: Vec<Change> },
    /// It is not told any more.
    Unwatched { epoch: u64, why: String },
    /// This controller's lease has ended.
    Expired { place: Place, why: String },
}

/// The beginning of a session.
pub struct Hello {
    /// Who, by certificate.
    pub key: AgentKey,
    /// Names the session.
    pub session: u64,
    /// Where it comes from.
    pub peer: String,
    /// What it says of itself.
    pub hello: rota_proto::agent::Hello,
    /// To the agent.
    pub out: ToSession,
    /// Its heartbeats.
    pub beat: Heartbeat,
}

/// The engine.
pub struct Engine {
    store: Arc<dyn Store>,
    state: Arc<RwLock<State>>,
    inbox: Inbox,
    changed: watch::Sender<u64>,
    settled: watch::Sender<Settled>,
    /// When it began to hear agents: at its start, or when its store came back.
    started: Timestamp,
    measure: Box<dyn Fn(Measure) + Send + Sync>,
    /// Among several controllers.
    together: Option<Together>,
    /// Commits that have changed nothing since the last one that has.
    refused: u32,
    /// A commit was sent, and nobody knows whether it happens.
    in_doubt: bool,
}

impl Engine {
    /// Reads the state back, claims what runs, and is ready to go on. With a membership this controller is one of
    /// several, and takes its place among them.
    pub async fn open(
        store: Arc<dyn Store>,
        who: Own,
        measure: Box<dyn Fn(Measure) + Send + Sync>,
    ) -> Result<(Self, Handle), OpenError> {
        let mut state = State { name: who.name, advertise: who.advertise, ..State::default() };
        let (to_engine, inbox) = inbox();
        let barrier =
            who.membership.as_ref().map(|it| Barrier::new(Arc::clone(&it.store), &it.name));
        let seen = barrier.as_ref().map(Barrier::seen);
        let mut together = who
            .membership
            .zip(seen)
            .map(|(membership, seen)| Together::new(membership, to_engine.of_store(), seen));
        let mut since = None;
        if let Some(together) = &mut together {
            let place = together.enter().await?;
            store.settle().await?;
            state.cluster = Some(Cluster { place: Some(place), ..Cluster::default() });
            since = Some(store.scan("", "", 0).await?.1);
            // Whoever starts hears nobody yet: no need to wait and see.
            state.deaf_since = Some(Timestamp(0));
        }
        let loaded = load::into(store.as_ref(), &mut state, now()).await;
        let held = state.cluster.as_ref().and_then(|cluster| cluster.place);
        if let (Err(_), Some((together, place))) = (&loaded, together.as_mut().zip(held)) {
            together.leave(place).await;
        }
        loaded?;
        let state = Arc::new(RwLock::new(state));
        let (changed, watching) = watch::channel(0);
        let (settled, settling) = watch::channel(Settled::default());
        let handle = Handle::new(to_engine, Arc::clone(&state), (watching, settling), barrier);
        let started = now();
        let mut engine = Self {
            store,
            state,
            inbox,
            changed,
            settled,
            started,
            measure,
            together,
            refused: 0,
            in_doubt: false,
        };
        if let Some(since) = since {
            engine.watch_from(since);
        }
        Ok((engine, handle))
    }

    /// Runs until every handle is gone.
    pub async fn run(mut self) {
        let mut inputs = Vec::new();
        let (mut last_tick, mut last_look) = (now(), now());
        self.resume().await;
        loop {
            let wait = self.until_next(last_tick);
            tokio::select! {
                some = self.inbox.take(&mut inputs) => {
                    if !some {
                        return;
                    }
                }
                () = tokio::time::sleep(wait) => {}
            }
            // Not while inputs wait: an agent whose heartbeat lies in our own queue is not silent, and an update whose
            // report lies there is not late.
            let tick = self.until_next(last_tick).is_zero() && self.inbox.is_empty();
            if tick {
                last_tick = now();
            }
            let look = now().since(last_look).0 >= TICK.as_millis() as u64;
            if look {
                last_look = now();
            }
            let due = Due { tick, look };
            self.turn(std::mem::take(&mut inputs), due).await;
        }
    }

    /// How long nothing needs to be done, unless an input comes.
    fn until_next(&self, last_tick: Timestamp) -> Duration {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let wake = state.rollouts.values().filter_map(|active| active.wakes.first()).min();
        let tick = last_tick.0 + TICK.as_millis() as u64;
        let next = match state.taken.is_empty() {
            true => wake.map_or(tick, |wake| wake.0.min(tick)),
            false => 0,
        };
        Duration::from_millis(next.saturating_sub(now().0))
    }

    /// One turn: all inputs, one commit, then everything that had to wait for it.
    async fn turn(&mut self, inputs: Vec<Input>, due: Due) {
        let at = now();
        let mut batch = Batch::default();
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.turn += 1;
            let mut turn = Turn { state: &mut state, batch: &mut batch, at, started: self.started };
            turn.windows_moved();
            for key in std::mem::take(&mut turn.state.unsaved) {
                if let Some(agent) = turn.state.agents.get(&key) {
                    let record = agent.record.clone();
                    turn.keep_agent(&key, &record);
                }
            }
            while !turn.state.taken.is_empty() {
                let (id, from) = turn.state.taken.remove(0);
                turn.claimed(&id, &from);
                turn.take_over(&id);
            }
            for input in inputs {
                turn.take(input);
            }
            if due.tick {
                turn.tick();
            }
            if due.look {
                turn.see_to_owners();
            }
        }
        let reclaims = std::mem::take(&mut batch.reclaims);
        let next = std::mem::take(&mut batch.next);
        if !self.commit(batch).await {
            return; // what it found was of a state that is not ours any more
        }
        self.settle(false);
        Box::pin(self.go_on(next)).await;
        for (id, newest) in reclaims {
            if !self.claim(id, newest).await {
                return;
            }
        }
    }

    /// Tells readers that the state as it is may be shown; `lost`: it is another one than they saw.
    fn settle(&self, lost: bool) {
        let turn = self.state.read().unwrap_or_else(PoisonError::into_inner).turn;
        self.settled.send_modify(|settled| {
            *settled = Settled { turn, lost: settled.lost + u64::from(lost) };
        });
    }

    /// Makes a turn durable, then says what may be said. `false`: it has not happened, or nobody knows.
    async fn commit(&mut self, mut batch: Batch) -> bool {
        // Among several controllers nothing is said either by one that has lost its place and does not know it yet.
        if batch.is_empty() && !(self.together.is_some() && batch.speaks()) {
            self.say(batch);
            return true;
        }
        batch.fence(&self.state.read().unwrap_or_else(PoisonError::into_inner));
        let tracked = batch.tracked();
        let began = std::time::Instant::now();
        let outcome = self.store.commit(batch.txn()).await;
        (self.measure)(Measure::Commit(began.elapsed()));
        match outcome {
            Ok(Outcome::Done(revision)) => {
                self.refused = 0;
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                for id in &batch.admitted {
                    if let Some(active) = state.rollouts.get_mut(id) {
                        active.fence = revision;
                    }
                }
                if let Some(cluster) = &mut state.cluster {
                    cluster.wrote(tracked, revision);
                }
                drop(state);
                self.say(batch);
                return true;
            }
            Ok(Outcome::Refused) if self.together.is_some() => self.decide_anew(batch).await,
            Ok(Outcome::Refused) => {
                let why = "another controller has claimed one of our rollouts".to_owned();
                self.recover(batch, &StoreError::Unavailable(why)).await;
            }
            Err(error) => self.recover(batch, &error).await,
        }
        false
    }

    /// What may be said now that it is durable.
    fn say(&mut self, batch: Batch) {
        for event in batch.events {
            tracing::info!(rollout = event.rollout, node = event.node, "{}", event.text);
        }
        batch.measures.into_iter().for_each(&self.measure);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (key, message) in batch.sends {
            send(&mut state, &key, message);
        }
        let ended: Vec<_> = state
            .rollouts
            .iter()
            .filter(|(_, active)| active.owner == Owner::Us)
            .filter(|(_, active)| active.rollout.is_ended() && active.last_words.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for id in ended {
            state.rollouts.remove(&id);
            state.live.remove(&id);
        }
        drop(state);
        for (reply, answer) in batch.answers {
            if reply.send(answer).is_err() {
                tracing::debug!("an operator did not wait for the answer");
            }
        }
        if batch.touched {
            self.changed.send_modify(|version| *version += 1);
        }
    }
}

/// Hands a message to an agent's session. A session that does not read is ended: it counts as lost.
fn send(state: &mut State, key: &AgentKey, message: ToAgent) {
    let Some(agent) = state.agents.get_mut(key) else { return };
    let Some(session) = &agent.session else { return };
    if let Err(error) = session.out.try_send(Box::new(message)) {
        tracing::warn!(?key, %error, "an agent does not read: its session ends");
        agent.hang_up();
        if let AgentKey::Node(name) = key {
            state.hung_up.push(name.clone());
        }
    }
}

/// Asks an agent for everything that it has not heard acknowledged.
fn again() -> ToAgent {
    message(to_agent::Message::Again(Again {}))
}

/// Ends a session.
fn goodbye(reason: &str) -> ToAgent {
    message(to_agent::Message::Goodbye(Goodbye { reason: reason.to_owned() }))
}

/// Does a session begin with it?
fn is_welcome(message: &ToAgent) -> bool {
    matches!(message.message, Some(to_agent::Message::Welcome(_)))
}

/// A message to an agent.
pub fn message(message: to_agent::Message) -> ToAgent {
    ToAgent { message: Some(message) }
}
