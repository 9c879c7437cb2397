//! Artifacts that other controllers have: brought here where they are wanted, and given to another one while they are
//! new.
//!
//! Every controller keeps every artifact on its own disk. One that is missing is copied from whichever controller has
//! it, goes on after a break, and counts once its digest is verified. With the embedded store there is no other
//! controller, and nothing here does anything.

mod background;
mod copy;
mod spread;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rota_identity::Dialer;
use rota_rollout::names::Digest;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::store::{ArtifactError, ArtifactStore};
use crate::errors::{Sort, chain};
use crate::view::ErrorView;

pub use spread::Spread;

/// Copies that run at once. More would share the same disk and the same link.
const COPIES_MAX: usize = 4;

/// How long somebody waits for an artifact that is being copied. Callers allow an answer 30 s.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Within this, a controller that has an artifact has begun to send it.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);

/// Another controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name, which its certificate must say.
    pub name: String,
    /// HOST:PORT.
    pub address: String,
}

/// The other controllers of this installation.
pub trait Peers: Send + Sync {
    /// Those that are alive now.
    fn others(&self) -> Vec<Peer>;
    /// The names of those that were here and are not alive: nothing can be kept by them.
    fn lost(&self) -> Vec<String>;
    /// Changes when they do.
    fn changed(&self) -> watch::Receiver<()>;
}

/// Why an artifact is not here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotBrought {
    /// Every other controller said that it lacks it.
    #[error("no controller that is alive has the artifact {}", .0.short())]
    Nowhere(Digest),
    /// Somebody who may have it did not send it.
    #[error("the artifact {} could not be copied from another controller: {last}", .digest.short())]
    Unreachable { digest: Digest, last: String },
    /// This controller's own disk.
    #[error("the artifact {} cannot be kept here: {why}", .digest.short())]
    Here { digest: Digest, why: String },
}

impl From<NotBrought> for ErrorView {
    /// Another controller may have it, or this one a moment later: whoever asks should ask again.
    fn from(error: NotBrought) -> Self {
        let hint = match &error {
            NotBrought::Nowhere(_) => {
                "start the controller again that took it, or push the release again"
            }
            NotBrought::Unreachable { .. } => "`rota controller ls` shows who is there",
            NotBrought::Here { .. } => "",
        };
        Sort::Unreachable.error(error.to_string(), hint)
    }
}

/// How much a copy may take of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Somebody waits for it.
    Hurried,
    /// Nobody does: it leaves most of the link to the agents.
    Leisurely,
}

/// How far a copy is.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Bytes here.
    pub have: u64,
    /// Some of them came since it began: somebody has it.
    pub moves: bool,
    /// What came of it, once it has ended.
    pub ended: Option<Result<(), NotBrought>>,
}

/// A copy that runs. It goes on when nobody waits for it any more.
#[derive(Debug, Clone)]
pub struct Copying {
    digest: Digest,
    told: watch::Receiver<Told>,
    hurry: Arc<AtomicBool>,
}

impl Copying {
    /// What came of it.
    pub async fn end(mut self) -> Result<(), NotBrought> {
        let broken = NotBrought::Here { digest: self.digest, why: "the copy broke off".to_owned() };
        let ended = self.told.wait_for(|told| told.ended.is_some()).await;
        ended.ok().and_then(|told| told.ended.clone()).unwrap_or(Err(broken))
    }

    /// How far it is, and every change of that.
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.clone()
    }
}

/// The artifacts of the installation, as one controller sees them.
#[derive(Clone)]
pub struct Artifacts {
    /// What is on its own disk.
    pub here: ArtifactStore,
    peers: Arc<dyn Peers>,
    dialer: Dialer,
    running: Running,
    turns: Arc<Semaphore>,
}

impl Artifacts {
    /// Over this disk, and those controllers.
    pub fn new(here: ArtifactStore, peers: Arc<dyn Peers>, dialer: Dialer) -> Self {
        let turns = Arc::new(Semaphore::new(COPIES_MAX));
        Self { here, peers, dialer, running: Running::default(), turns }
    }

    /// Are there other controllers?
    pub fn is_alone(&self) -> bool {
        self.peers.others().is_empty()
    }

    /// The copy of it that runs and moves, if one does. From now on somebody waits for it.
    pub fn running(&self, digest: &Digest) -> Option<Copying> {
        let found = self.running.lock().get(digest).cloned();
        let moving = found.filter(|copying| copying.told.borrow().moves);
        moving.inspect(|copying| copying.hurry.store(true, Ordering::Relaxed))
    }

    /// Before an upload: brings the artifact here from whoever has it already. Who has it answers soon; nobody waits
    /// for those who do not answer.
    pub async fn brought_if_known(&self, digest: &Digest) {
        let Ok(Some(copying)) = self.begin(digest, Pace::Hurried, None).await else { return };
        let mut told = copying.told();
        let moves = told.wait_for(|told| told.moves || told.ended.is_some());
        let moves = timeout(KNOWN_WITHIN, moves).await.is_ok_and(|moves| moves.is_ok());
        if moves && timeout(WAIT_MAX, copying.end()).await.is_err() {
            tracing::debug!(digest = digest.short(), "it is still being copied");
        }
    }

    /// Sees to it that an artifact is here: at once when it is, else copied from whoever has it.
    pub async fn bring(&self, digest: &Digest, pace: Pace) -> Result<(), NotBrought> {
        match self.begin(digest, pace, None).await? {
            None => Ok(()),
            Some(copying) => copying.end().await,
        }
    }

    /// Before an artifact is read for somebody who waits for the answer: brings it here, but does not keep him for
    /// long. With no other controller there is nothing to wait for; it is found or not.
    pub async fn brought(&self, digest: &Digest) -> Result<(), ErrorView> {
        if self.is_alone() {
            return Ok(());
        }
        match timeout(WAIT_MAX, self.bring(digest, Pace::Hurried)).await {
            Ok(brought) => Ok(brought?),
            Err(_) => Err(Sort::Unreachable.error(
                format!("the artifact {} is still being copied to this controller", digest.short()),
                "ask another one, or again in a while",
            )),
        }
    }

    /// Begins the copy of an artifact, or joins the one that runs; `None`: it is here. `first` is asked before others.
    pub async fn begin(
        &self,
        digest: &Digest,
        pace: Pace,
        first: Option<&str>,
    ) -> Result<Option<Copying>, NotBrought> {
        let state = self.here.state(digest).await.map_err(|error| here(digest, &error))?;
        if state.complete {
            return Ok(None);
        }
        let (tell, told) = watch::channel(Told { have: state.have, ..Told::default() });
        let hurry = Arc::new(AtomicBool::new(false));
        let new = Copying { digest: digest.clone(), told, hurry };
        let (copying, begins) = self.running.join(new);
        if pace == Pace::Hurried {
            copying.hurry.store(true, Ordering::Relaxed);
        }
        if begins {
            let copy = copy::Copy {
                artifacts: self.clone(),
                digest: digest.clone(),
                first: first.map(str::to_owned),
                hurry: Arc::clone(&copying.hurry),
                tell,
            };
            tokio::spawn(copy.run());
        }
        Ok(Some(copying))
    }
}

/// The copies that run: whoever wants the same artifact waits for the same copy.
#[derive(Debug, Clone, Default)]
struct Running(Arc<Mutex<HashMap<Digest, Copying>>>);

impl Running {
    /// The one that runs, or else this one, which then begins.
    fn join(&self, new: Copying) -> (Copying, bool) {
        let mut running = self.lock();
        if let Some(found) = running.get(&new.digest) {
            return (found.clone(), false);
        }
        running.insert(new.digest.clone(), new.clone());
        (new, true)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Digest, Copying>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn here(digest: &Digest, error: &ArtifactError) -> NotBrought {
    NotBrought::Here { digest: digest.clone(), why: chain(error) }
}
