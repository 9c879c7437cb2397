//! The way to the engine, for everything that listens: tell it, ask it, and see what it has made durable.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::{mpsc, oneshot, watch};

use super::{Answer, Asked, Input, State};
use crate::errors::Sort;

/// The way to the engine, for everything that listens.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    state: Arc<RwLock<State>>,
    changed: watch::Receiver<u64>,
    settled: watch::Receiver<Settled>,
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
        inputs: mpsc::Sender<Input>,
        state: Arc<RwLock<State>>,
        changed: watch::Receiver<u64>,
        settled: watch::Receiver<Settled>,
    ) -> Self {
        Self { inputs, state, changed, settled }
    }

    /// The state as it is. Never held over an await.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic in the engine ends the process; what it left is still the newest that we know.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
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
        self.inputs.send(input).await.is_ok()
    }

    /// Asks on behalf of an operator; the answer comes when it is durable.
    pub async fn ask(&self, asked: Asked) -> Answer {
        let (reply, answer) = oneshot::channel();
        let ended = || Sort::Unreachable.error("this controller is stopping", "ask another one");
        if !self.tell(Input::Asked(Box::new(asked), reply)).await {
            return Err(ended());
        }
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

#[cfg(test)]
mod tests;
