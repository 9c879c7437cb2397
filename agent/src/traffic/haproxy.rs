//! HAProxy as a pool's balancer, over its admin socket (HAProxy 2.4 and later).
//!
//! HAProxy is the operator's: it reloads, restarts and is changed without asking us, and then knows nothing of what it
//! was told before. So nothing is told once: the book holds what is wanted of each member, every look compares it with
//! what HAProxy says, and tells what differs ([`plan`]). HAProxy has no events; looks are frequent while something is
//! moving or out, and rare when all is in.

mod plan;
mod process;
mod reading;
mod socket;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::book::{Book, Wanted};
use super::{Balancer, BalancerError, Change, Key, Member, Observed, View, Want};
pub use crate::config::Haproxy as Settings;
use crate::health::chain;
use crate::journal::JournalError;
use process::{Process, Standing, Trouble};

/// Between two looks while all members are in and stay there: a reload is noticed after this. A look takes HAProxy and
/// us some 0.3 ms.
const LOOK_AT_REST: Duration = Duration::from_millis(250);

/// While one is out: HAProxy would send requests to it after a reload until it is told again.
const LOOK_OUT: Duration = Duration::from_millis(100);

/// The first looks while requests in flight finish, or a server comes up.
const LOOK_MOVING: Duration = Duration::from_millis(5);

/// The HAProxy of one pool.
#[derive(Debug)]
pub struct Haproxy {
    pool: String,
    desk: Mutex<Desk>,
    view: watch::Sender<Arc<View>>,
}

#[derive(Debug)]
struct Desk {
    book: Book,
    processes: Vec<Process>,
    /// Ended by us, over all members and since the agent started.
    cut: u64,
    /// Why HAProxy did not do for a member what it was told.
    refused: BTreeMap<Key, String>,
    /// What went wrong last, to say it once.
    trouble: Option<String>,
}

impl Haproxy {
    /// Takes the pool over: reads what was wanted before, and looks at HAProxy from now on.
    pub async fn start(
        data: &Path,
        pool: &str,
        settings: &Settings,
    ) -> Result<Arc<Self>, JournalError> {
        let folder = data.join("edge").join(pool);
        let book = Book::open(&folder).await?;
        let Settings { sockets, backend } = settings;
        let process = |socket: &PathBuf| Process::new(socket.clone(), backend.clone(), &folder);
        let mut processes: Vec<Process> = sockets.iter().map(process).collect();
        if let Some(first) = processes.first_mut() {
            first.keeps_state();
        }
        let haproxy = Arc::new(Self {
            pool: pool.to_owned(),
            desk: Mutex::new(Desk {
                book,
                processes,
                cut: 0,
                refused: BTreeMap::new(),
                trouble: None,
            }),
            view: watch::Sender::new(Arc::default()),
        });
        tokio::spawn(Arc::clone(&haproxy).keep());
        Ok(haproxy)
    }

    /// Looks again and again, for as long as this agent lives.
    async fn keep(self: Arc<Self>) {
        let mut pause = Duration::ZERO;
        let mut changed = self.view.subscribe();
        loop {
            let looked = self.desk.lock().await.look(&self.pool, &self.view).await;
            let longest = match &looked {
                Ok(()) => longest_pause(&self.view.borrow()),
                Err(_) => LOOK_OUT,
            };
            let moving = longest < LOOK_OUT;
            pause = if moving { (pause * 3 / 2).clamp(LOOK_MOVING, LOOK_OUT) } else { longest };
            changed.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // A change was put in force: from now on something moves.
                moved = changed.changed() => match moved {
                    Ok(()) => pause = Duration::ZERO,
                    Err(_) => return,
                },
            }
        }
    }
}

/// How long nobody needs to look.
fn longest_pause(view: &View) -> Duration {
    let mut members = view.members.values();
    if members.clone().any(|it| matches!(it.observed, Observed::Draining | Observed::Joining)) {
        return LOOK_MOVING;
    }
    let out = members.any(|it| it.observed == Observed::Out);
    if out { LOOK_OUT } else { LOOK_AT_REST }
}

impl Desk {
    /// Looks at every process, tells each what differs, and shows what stands then.
    async fn look(&mut self, pool: &str, view: &watch::Sender<Arc<View>>) -> Result<(), Trouble> {
        let mut members = self.book.members().clone();
        let mut standings = Vec::new();
        let mut trouble = None;
        for process in &mut self.processes {
            match process.settle(&mut members).await {
                Ok(standing) => standings.push(standing),
                Err(error) => trouble = Some(error),
            }
        }
        members.retain(|_, it| it.want != Want::Gone || !it.servers.is_empty());
        let refused = standings.iter().flat_map(|it| it.refused.clone());
        self.refused = refused.collect();
        if let Err(error) = self.book.replace(members).await {
            trouble = Some(error.into());
        }
        self.say(pool, trouble.as_ref());
        let answers = trouble.is_none();
        view.send_if_modified(|known| {
            let now = match answers {
                true => self.shown(&standings),
                false => View { answers: false, ..View::clone(known) },
            };
            let news = **known != now;
            *known = Arc::new(now);
            news
        });
        trouble.map_or(Ok(()), Err)
    }

    fn shown(&self, standings: &[Standing]) -> View {
        let members = self.book.members().iter().filter(|(_, it)| it.want != Want::Gone);
        let member = |(key, wanted): (&Key, &Wanted)| (key.clone(), member(key, wanted, standings));
        View {
            answers: true,
            listen: None,
            requests: standings.iter().map(|it| it.requests).sum(),
            failed: standings.iter().map(|it| it.failed).sum(),
            cut: self.cut,
            members: members.map(member).collect(),
        }
    }

    /// Trouble is told when it begins and when it is over, not with every look.
    fn say(&mut self, pool: &str, trouble: Option<&Trouble>) {
        let refused = self.refused.values().next().cloned();
        let now = trouble.map(|error| chain(error)).or(refused);
        if now != self.trouble {
            match &now {
                Some(why) => warn!(pool, "{why}"),
                None => info!(pool, "HAProxy is as it should be"),
            }
        }
        self.trouble = now;
    }

    /// Ends what is in flight to a member, and counts it.
    async fn cut(&mut self, key: &Key) -> Result<(), Trouble> {
        let mut members = self.book.members().clone();
        let Some(wanted) = members.get_mut(key) else { return Ok(()) };
        let mut cut = 0;
        for process in &mut self.processes {
            cut += process.cut(wanted).await?;
        }
        wanted.cut += cut;
        self.cut += cut;
        Ok(self.book.replace(members).await?)
    }
}

/// A member over all processes: it is in when it is in everywhere, and out when it is out everywhere.
fn member(key: &Key, wanted: &Wanted, standings: &[Standing]) -> Member {
    let each = || standings.iter().filter_map(|standing| standing.members.get(key));
    let any = |observed| each().any(|(it, _)| *it == observed);
    let observed = match wanted.want {
        Want::In if any(Observed::Joining) => Observed::Joining,
        Want::In => Observed::In,
        Want::Out | Want::Gone if any(Observed::In) => Observed::In,
        Want::Out | Want::Gone if any(Observed::Draining) => Observed::Draining,
        Want::Out | Want::Gone => Observed::Out,
    };
    Member {
        address: wanted.address,
        observed,
        in_flight: each().map(|(_, in_flight)| in_flight).sum(),
        cut: wanted.cut,
        version: wanted.version.clone(),
    }
}

#[tonic::async_trait]
impl Balancer for Haproxy {
    async fn apply(&self, change: Change) -> Result<Member, BalancerError> {
        let mut desk = self.desk.lock().await;
        let failed = |error: Trouble| error.into_balancer(&self.pool);
        desk.book.take(&change).await.map_err(|error| failed(error.into()))?;
        let mut looked = desk.look(&self.pool, &self.view).await;
        if change.cut && change.want == Want::Out && looked.is_ok() {
            desk.cut(&change.key).await.map_err(failed)?;
            looked = desk.look(&self.pool, &self.view).await;
        }
        looked.map_err(failed)?;
        if let Some(why) = desk.refused.get(&change.key) {
            return Err(BalancerError::Refused { pool: self.pool.clone(), why: why.clone() });
        }
        Ok(self.view.borrow().after(change))
    }

    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    async fn count(&self) {
        // What goes wrong is told by the look itself.
        self.desk.lock().await.look(&self.pool, &self.view).await.ok();
    }
}
