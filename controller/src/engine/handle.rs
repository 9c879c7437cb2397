//! The way to the engine, for everything that listens: tell it, ask it, and see what it has made durable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::{Mutex, oneshot, watch};
use tokio::time::timeout;

use super::cluster::keys as guards;
use super::inbox::Senders;
use super::place::AGAIN;
use super::{Answer, Asked, Heartbeat, Input, State};
use crate::errors::Sort;
use crate::store::{Op, Store, Txn};

/// So long a read waits for what other controllers did; then it shows what is known.
const PASS_MAX: Duration = Duration::from_secs(2);

/// How often a change is decided anew because something else changed at the same moment.
const TRIES_MAX: usize = 20;

/// The way to the engine, for everything that listens.
#[derive(Clone)]
pub struct Handle {
    inputs: Senders,
    state: Arc<RwLock<State>>,
    changed: watch::Receiver<u64>,
    settled: watch::Receiver<Settled>,
    barrier: Option<Arc<Barrier>>,
}

/// How far the state that readers see is durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Every turn up to this one is.
    pub turn: u64,
    /// So often turns were lost: what readers saw of them has not happened.
    pub lost: u64,
}

/// A moment before a look at the state.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

impl Handle {
    pub(super) fn new(
        inputs: Senders,
        state: Arc<RwLock<State>>,
        (changed, settled): (watch::Receiver<u64>, watch::Receiver<Settled>),
        barrier: Option<Barrier>,
    ) -> Self {
        Self { inputs, state, changed, settled, barrier: barrier.map(Arc::new) }
    }

    /// Waits until everything that any controller had acknowledged before is known here. Where the store does not
    /// answer, what is known has to do: the state says itself that the store is away. `false`: it is like that now.
    pub async fn catch_up(&self) -> bool {
        let Some(barrier) = &self.barrier else { return true };
        if self.read().store_down.is_some() {
            return false;
        }
        let passed = barrier.pass().await;
        if let Err(why) = &passed {
            tracing::warn!(why, "what other controllers did a moment ago may not be known here");
        }
        passed.is_ok()
    }

    /// The state as it is. Never held over an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic in the engine ends the process; what it left is still the newest that we know.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// For whatever hears the agents: as long as it beats, who is not heard is silent.
    pub fn ears(&self) -> Heartbeat {
        self.read().ears.clone()
    }

    /// Taken before a look at the state, for [`Self::is_durable`] after it.
    pub fn mark(&self) -> Mark {
        Mark(self.settled.borrow().lost)
    }

    /// Waits until what was seen since the mark is durable. `false`: it never will be, look again. While the store is
    /// away it may be shown as it is: the state says itself that it is away.
    pub async fn is_durable(&self, mark: Mark) -> bool {
        let turn = self.read().turn;
        let mut settled = self.settled.clone();
        let settled = settled.wait_for(|now| now.turn >= turn || now.lost != mark.0).await;
        // An engine that has ended changes nothing any more.
        settled.map_or(true, |now| now.lost == mark.0)
    }

    /// Rises whenever something that people may look at has changed.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Tells the engine. `false`: it has ended.
    pub async fn tell(&self, input: Input) -> bool {
        self.inputs.send(input).await
    }

    /// Asks on behalf of an operator; the answer comes when it is durable.
    pub async fn ask(&self, asked: Asked) -> Answer {
        let ended = || Sort::Unreachable.error("this controller is stopping", "ask another one");
        for _ in 1..TRIES_MAX {
            let (reply, answer) = oneshot::channel();
            if !self.tell(Input::Asked(Box::new(asked.clone()), reply)).await {
                return Err(ended());
            }
            match answer.await.unwrap_or_else(|_| Err(ended())) {
                Err(refused) if refused.kind == AGAIN => {}
                answer => return answer,
            }
        }
        Err(Sort::Refused.error("too much changes at the same time; nothing was done", "try again"))
    }
}

/// Something that this controller writes to the shared store, and then waits to be told of by the watch: by then it has
/// been told of everything that was written before.
pub(super) struct Barrier {
    store: Arc<dyn Store>,
    key: String,
    /// The number of the newest; whoever comes while one is being written shares the next.
    asked: AtomicU64,
    writing: Mutex<u64>,
    seen: watch::Sender<u64>,
}

impl Barrier {
    pub(super) fn new(store: Arc<dyn Store>, name: &str) -> Self {
        let key = format!("{}{name}", guards::BARRIER);
        // Above those of an earlier process.
        let first = crate::access::now().0 << 10;
        let (seen, _) = watch::channel(0);
        Self { store, key, asked: AtomicU64::new(first), writing: Mutex::new(0), seen }
    }

    pub(super) fn seen(&self) -> watch::Sender<u64> {
        self.seen.clone()
    }

    async fn pass(&self) -> Result<(), String> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut seen = self.seen.subscribe();
        let passed = async {
            let mut written = self.writing.lock().await;
            if *written < mine {
                let number = self.asked.load(Ordering::SeqCst);
                let ops = vec![Op::put(self.key.clone(), number.to_string().into_bytes())];
                let txn = Txn { compares: Vec::new(), ops };
                self.store.commit(txn).await.map_err(|error| error.to_string())?;
                *written = number;
            }
            drop(written);
            seen.wait_for(|seen| *seen >= mine).await.map(|_| ()).map_err(|error| error.to_string())
        };
        match timeout(PASS_MAX, passed).await {
            Ok(passed) => passed,
            Err(_) => Err(format!("not seen within {} s", PASS_MAX.as_secs())),
        }
    }
}

#[cfg(test)]
mod tests;
