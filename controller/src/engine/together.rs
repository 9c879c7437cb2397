//! An engine among several: who it is, and what keeps it up with the others.

use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Engine, Input, load};
use crate::access::now;
use crate::members::{JoinError, Membership, Place};
use crate::store::{Store, StoreError, StoreRevision};

/// Changes that are taken from the watch at once.
const CHANGES_AT_ONCE: usize = 1_024;

/// Why an engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No place among the controllers.
    #[error(transparent)]
    Join(#[from] JoinError),
}

impl OpenError {
    /// Is it that this controller does not understand what others, or what is in the store?
    pub fn is_beyond_us(&self) -> bool {
        match self {
            Self::Store(error) | Self::Join(JoinError::Store(error)) => match error {
                StoreError::Corrupt(_) => true,
                StoreError::Unavailable(_) | StoreError::Unknown(_) => false,
            },
            Self::Join(JoinError::TooFar { .. }) => true,
            Self::Join(JoinError::Taken { .. } | JoinError::Full) => false,
        }
    }
}

/// Takes a place among the others, and not before it is known that everybody and everything is understood: nobody is
/// disturbed by one that cannot take part.
pub async fn enter(membership: &Membership) -> Result<Place, OpenError> {
    membership.understood(false).await?;
    load::readable(membership.store.as_ref(), &membership.name).await?;
    Ok(membership.join(now()).await?)
}

/// This controller.
pub struct Own {
    /// Its name.
    pub name: String,
    /// Where agents and operators reach it.
    pub advertise: String,
    /// Among several controllers; `None` with the embedded store.
    pub membership: Option<Membership>,
}

impl Own {
    /// The only controller.
    pub fn alone(name: &str, advertise: &str) -> Self {
        Self { name: name.to_owned(), advertise: advertise.to_owned(), membership: None }
    }
}

/// One of several controllers.
pub struct Together {
    /// How it is in.
    pub membership: Membership,
    /// For what is watched. Weak, because an engine ends when nobody can tell it anything any more.
    pub inputs: mpsc::WeakSender<Input>,
    /// What follows the store for it, and keeps its lease.
    pub tasks: Vec<JoinHandle<()>>,
    /// The barriers that were seen.
    pub seen: watch::Sender<u64>,
}

impl Drop for Together {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Engine {
    /// Follows the store from here on, and keeps the lease of the place that this controller has.
    pub(super) fn watch_from(&mut self, since: StoreRevision) {
        let Some(together) = &mut self.together else { return };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(cluster) = &mut state.cluster else { return };
        together.tasks.drain(..).for_each(|task| task.abort());
        cluster.epoch += 1;
        let (epoch, inputs) = (cluster.epoch, together.inputs.clone());
        let follow = follow(Arc::clone(&self.store), since, epoch, inputs.clone());
        together.tasks.push(tokio::spawn(follow));
        if let Some(place) = cluster.place {
            let membership = together.membership.clone();
            together.tasks.push(tokio::spawn(async move {
                let why = membership.keep(place.lease).await;
                tell(&inputs, Input::Expired { place, why }).await;
            }));
        }
    }
}

/// Tells the engine what is written to the store.
async fn follow(
    store: Arc<dyn Store>,
    since: StoreRevision,
    epoch: u64,
    inputs: mpsc::WeakSender<Input>,
) {
    let unwatched = |why: String| Input::Unwatched { epoch, why };
    let mut changes = match store.watch("", since).await {
        Ok(changes) => changes,
        Err(error) => return tell(&inputs, unwatched(error.to_string())).await,
    };
    loop {
        let mut some = Vec::new();
        if changes.recv_many(&mut some, CHANGES_AT_ONCE).await == 0 {
            return tell(&inputs, unwatched("the store is not watched any more".to_owned())).await;
        }
        tell(&inputs, Input::Stored { epoch, changes: some }).await;
    }
}

async fn tell(inputs: &mpsc::WeakSender<Input>, input: Input) {
    let Some(inputs) = inputs.upgrade() else { return };
    if inputs.send(input).await.is_err() {
        tracing::debug!("the engine has ended");
    }
}

#[cfg(test)]
mod tests;
