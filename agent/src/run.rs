//! The run loop: feeds events to the pure machine of each app, writes its state into the journal, carries out actions.
//!
//! One loop, one journal; every app has at most one job under way, and a new one ends it. What jobs, processes, edges
//! and controllers say comes back as [`Happened`]. Stopping the loop stops nothing that it started: after the next
//! start the journal and the processes say where things stand.

mod asked;
mod boot;
mod inventory;
mod jobs;
mod means;
mod once;
mod readiness;
mod room;
mod stopwatch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use crate::agent::Agent;
use crate::journal::{Journal, JournalError};
use crate::link;
use crate::local;
use crate::order::{Edge, Order, Rollout, Standing, Work as Ordered};
use crate::report::{Happening, Report, What as Say};
use crate::runtime::Running;
use crate::spec::Spec;
use crate::update::{self, Action, App, Did, Event, What, Work};

use asked::{answer, release_of};
use boot::instances;
use means::Means;
use stopwatch::Stopwatch;

/// Happenings that wait for the loop: a few for each app.
const HAPPENED_MAX: usize = 256;

/// How often logs are looked at, to be rotated.
const ROTATE_EVERY: Duration = Duration::from_secs(60);

/// The journal's record of what the operators want of this node as a whole.
const STANDING: &str = "node.standing";

/// The journal's record of the edges: a restarted agent must find them also while every controller is down.
const EDGES: &str = "node.edges";

/// Apps' records begin with this in the journal.
const APP: &str = "app.";

/// What came of something that the loop began.
pub(crate) enum Happened {
    /// A job ended.
    Did { app: String, action: u64, did: Did },
    /// A drain goes on.
    Draining { app: String, in_flight: u64 },
    /// A hook or a smoke test that worked printed something.
    Printed { app: String, what: &'static str, output: Vec<u8> },
    /// Edges were not reachable, and the update went on without their word.
    NotAsked { app: String, edges: BTreeSet<String> },
    /// A process was started or found again.
    Runs { app: String, token: u64, running: Running },
    /// A process ended.
    Exited { app: String, token: u64, how: String, output: String },
    /// An idle app turned healthy or unhealthy.
    Health { app: String, token: u64, healthy: bool },
    /// A release was prepared, or not; or the once-per-release job ended.
    Answer { rollout: Rollout, attempt: u32, say: Box<Say> },
}

/// Milliseconds since this host was started: it never jumps, and goes on over restarts of the agent.
fn uptime() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
    seconds * 1000 + nanos / 1_000_000
}

/// One app, as the loop knows it.
#[derive(Default)]
struct Slot {
    state: App,
    job: Option<JoinHandle<()>>,
    /// Processes by token.
    running: BTreeMap<u64, Running>,
    /// The token whose health is watched, and the watcher.
    watched: Option<(u64, JoinHandle<()>)>,
    /// Tokens that turned unhealthy after they were healthy.
    unwell: BTreeSet<u64>,
    /// What a finished rollout said to keep: names of folders, or digests.
    keep: Vec<String>,
    /// What was last fetched ahead of its update.
    prepared: Option<Spec>,
    /// How long the steps of the update under way take.
    watch: Stopwatch,
    /// Who waits for a rollback asked for on this node.
    waiting: Option<oneshot::Sender<Result<local::Release, String>>>,
}

impl Slot {
    /// Every release that something here runs, goes to, or may go back to.
    fn in_use(&self) -> impl Iterator<Item = &Spec> {
        let state = &self.state;
        let update = match &state.work {
            Work::Update(update) => Some(update),
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => None,
        };
        let settled = state.current.iter().map(|settled| &settled.spec);
        let under_way = update.into_iter().flat_map(|update| {
            std::iter::once(&update.order.spec).chain(&update.old).chain(&update.back)
        });
        settled
            .chain(&state.previous)
            .chain(state.stray.iter().map(|stray| &stray.spec))
            .chain(state.queued.iter().map(|order| &order.spec))
            .chain(&self.prepared)
            .chain(under_way)
    }
}

struct Loop {
    means: Means,
    journal: Journal,
    slots: BTreeMap<String, Slot>,
    drained: bool,
    /// The edges, as the journal has them.
    known: Vec<Edge>,
    /// The number of the last report. It begins with the clock, so that it rises over restarts.
    seq: u64,
}

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Runs until `stop` is set. An error is a journal that cannot be read: nothing is guessed then.
pub async fn run(
    mut agent: Agent,
    mut stop: watch::Receiver<bool>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (config, edges) = (agent.config.clone(), agent.edges.clone());
    let (happened, mut happenings) = mpsc::channel(HAPPENED_MAX);
    let journal = Journal::open(&config.data.join("journal"))?;
    let endpoint = readiness::serve(&mut agent, &journal).await?;
    let mut polled = readiness::changes(endpoint.as_ref());
    let means = Means::new(&config, agent.link.clone(), (edges.clone(), endpoint), happened);
    means.releases.tidy().await?;
    let mut this = Loop {
        means,
        journal,
        slots: BTreeMap::new(),
        drained: false,
        known: Vec::new(),
        seq: now() << 10,
    };
    this.boot().await?;
    let mut moved = edges.watch();
    let mut rotate = tokio::time::interval(ROTATE_EVERY);
    loop {
        this.show();
        tokio::select! {
            event = agent.events.recv() => match event {
                Some(event) => this.link_event(event).await?,
                None => return Ok(()),
            },
            Some(happened) = happenings.recv() => this.happened(happened).await?,
            Some(request) = agent.requests.recv() => this.asked(request).await?,
            Ok(()) = moved.changed() => {}
            Ok(()) = polled.changed() => {}
            _ = rotate.tick() => this.rotate(),
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}

impl Loop {
    /// One event for one app: the machine decides, the journal remembers, then the actions leave.
    async fn feed(&mut self, app: &str, what: What) -> Result<(), JournalError> {
        let drained = self.drained;
        let slot = self.slots.entry(app.to_owned()).or_default();
        if slot.state.counter == 0 {
            slot.state.drained = drained;
        }
        let outcome = update::on(&slot.state, Event { at: uptime(), what });
        for note in &outcome.notes {
            info!(app, "{note}");
        }
        if outcome.app != slot.state {
            self.journal.put(&format!("{APP}{app}"), &outcome.app).await?;
            slot.state = outcome.app;
        }
        self.tell_ready(app);
        for action in outcome.actions {
            self.carry_out(app, action);
        }
        self.after(app);
        Ok(())
    }

    fn carry_out(&mut self, app: &str, action: Action) {
        match action {
            Action::Do { number, task } => {
                let Some(slot) = self.slots.get_mut(app) else { return };
                let running = slot.running.clone();
                let job = jobs::spawn(self.means.clone(), app.to_owned(), number, task, running);
                if let Some(old) = slot.job.replace(job) {
                    old.abort();
                }
            }
            Action::Say { rollout, attempt, said } => {
                let mut say = said.into();
                let slot = self.slots.get_mut(app);
                if let Some(steps) = slot.and_then(|it| it.watch.hear(&mut say, Instant::now())) {
                    info!("{app}: steps took: {steps}");
                }
                self.say(&rollout, attempt, say);
            }
            Action::Assert { instance, side } => {
                let Some(slot) = self.slots.get(app) else { return };
                let found = instances(&slot.state).into_iter().find(|(_, one)| *one == instance);
                if let Some((spec, instance)) = found {
                    self.means.assert(&spec, &instance, side);
                }
            }
            Action::Tell(text) => self.means.link.happened(Happening { app: app.to_owned(), text }),
            Action::Prune => self.prune(app),
        }
    }

    /// What follows from the new state: whose health is watched, who was waiting.
    fn after(&mut self, app: &str) {
        let Some(slot) = self.slots.get_mut(app) else { return };
        let known: BTreeSet<u64> = instances(&slot.state).iter().map(|(_, i)| i.token).collect();
        slot.running.retain(|token, _| known.contains(token));
        slot.unwell.retain(|token| known.contains(token));
        let settled = match (&slot.state.work, &slot.state.current) {
            (Work::Idle | Work::Move(_) | Work::Clear(_), settled) => settled.as_ref(),
            (Work::Update(_) | Work::Revive(_), _) => None,
        };
        let wanted = settled.and_then(|settled| {
            let instance = settled.instance.as_ref()?;
            let running = slot.running.get(&instance.token)?;
            Some((settled.spec.clone(), instance.clone(), running.clone()))
        });
        let token = wanted.as_ref().map(|(_, instance, _)| instance.token);
        if slot.watched.as_ref().map(|(token, _)| *token) != token {
            if let Some((_, old)) = slot.watched.take() {
                old.abort();
            }
            slot.watched = wanted.map(|(spec, instance, running)| {
                (instance.token, self.means.watch_health(app, spec, &instance, running))
            });
        }
        if matches!(slot.state.work, Work::Idle | Work::Clear(_))
            && let Some(reply) = slot.waiting.take()
        {
            answer(reply, release_of(app, &slot.state));
        }
    }

    fn say(&mut self, rollout: &str, attempt: u32, what: Say) {
        let Ok(rollout) = rollout.parse::<Rollout>() else {
            return error!(rollout, "not the name of a rollout: nothing can be said of it");
        };
        self.seq += 1;
        self.means.link.report(Report { seq: self.seq, rollout, attempt, at_ms: now(), what });
    }

    async fn link_event(&mut self, event: link::Event) -> Result<(), JournalError> {
        match event {
            link::Event::Order { controller, order } => self.ordered(&controller, *order).await?,
            link::Event::Directory(directory) => self.know(directory.edges).await?,
            link::Event::Standing(standing) => {
                let drained = standing == Standing::Drained;
                if drained != self.drained {
                    self.journal.put(STANDING, &drained).await?;
                    self.drained = drained;
                }
                let apps: Vec<String> = self.slots.keys().cloned().collect();
                for app in apps {
                    self.feed(&app, What::Standing { drained }).await?;
                }
            }
            link::Event::Up(name) => info!("controller {name} is here"),
            link::Event::Down(name) => info!("controller {name} is gone"),
            link::Event::Acked(_) => {}
        }
        Ok(())
    }

    /// These are the edges now; kept, so that moving in and out of traffic needs no controller.
    async fn know(&mut self, edges: Vec<Edge>) -> Result<(), JournalError> {
        self.means.edges.know(&edges);
        if edges != self.known {
            self.journal.put(EDGES, &edges).await?;
            self.known = edges;
        }
        Ok(())
    }

    async fn ordered(&mut self, controller: &str, order: Order) -> Result<(), JournalError> {
        let Order { term, rollout, attempt, work } = order;
        let app = rollout.app.clone();
        let newest = self
            .slots
            .get(&app)
            .and_then(|slot| slot.state.fences.get(&rollout.to_string()).map(|fence| fence.term));
        if let Some(newest_term) = newest.filter(|newest| term < *newest) {
            warn!(controller, %rollout, term, newest_term, "an order of an owner of yesterday");
            self.say(&rollout.to_string(), attempt, Say::Stale { newest_term });
            return Ok(());
        }
        match work {
            Ordered::Update(ordered) => {
                let known = self.means.with_directory(&ordered.edges);
                self.know(known).await?;
                let ordered = ordered.into_order(&rollout, term, attempt);
                self.feed(&app, What::Ordered(ordered)).await?;
            }
            Ordered::Settle { keep } => {
                self.slots.entry(app.clone()).or_default().keep = keep;
                let rollout = rollout.to_string();
                self.feed(&app, What::Settle { rollout, term }).await?;
            }
            Ordered::Prepare(spec) => {
                self.feed(&app, What::Heard { rollout: rollout.to_string(), term }).await?;
                self.slots.entry(app).or_default().prepared = Some((*spec).clone());
                jobs::prepare(self.means.clone(), rollout, attempt, *spec);
            }
            Ordered::Run(command) => {
                self.feed(&app, What::Heard { rollout: rollout.to_string(), term }).await?;
                self.command(rollout, attempt, *command).await?;
            }
            Ordered::Once(job) => {
                self.feed(&app, What::Heard { rollout: rollout.to_string(), term }).await?;
                self.once(rollout, attempt, *job).await?;
            }
        }
        Ok(())
    }

    async fn happened(&mut self, happened: Happened) -> Result<(), JournalError> {
        match happened {
            Happened::Did { app, action, did } => {
                self.feed(&app, What::Did { action, result: did }).await?;
            }
            Happened::Draining { app, in_flight } => {
                self.feed(&app, What::Draining { in_flight }).await?;
            }
            Happened::Printed { app, what, output } => {
                let slot = self.slots.entry(app).or_default();
                slot.watch.print(what.to_owned(), output);
            }
            Happened::NotAsked { app, edges } => {
                let names: Vec<&str> = edges.iter().map(String::as_str).collect();
                let text = format!("{}: not reachable, not asked", names.join(", "));
                if self.slots.entry(app.clone()).or_default().watch.not_asked(&edges) {
                    warn!(app, "went on without edges: {text}");
                    self.means.link.happened(Happening { app, text });
                }
            }
            Happened::Runs { app, token, running } => {
                self.means.watch_exit(&app, token, &running);
                let slot = self.slots.entry(app).or_default();
                slot.running.insert(token, running);
            }
            Happened::Exited { app, token, how, output } => {
                self.feed(&app, What::Exited { token, how, output }).await?;
            }
            Happened::Health { app, token, healthy } => {
                let slot = self.slots.entry(app.clone()).or_default();
                let change =
                    if healthy { slot.unwell.remove(&token) } else { slot.unwell.insert(token) };
                if change {
                    warn!(app, healthy, "the app's health changed");
                    self.tell_ready(&app);
                }
            }
            Happened::Answer { rollout, attempt, say } => {
                self.say(&rollout.to_string(), attempt, *say);
            }
        }
        Ok(())
    }
}
