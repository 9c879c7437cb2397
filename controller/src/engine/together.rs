//! An engine among several: who it is, and what keeps it up with the others.

use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::records::keys;
use super::{Engine, Input, load};
use crate::access::now;
use crate::members::{JoinError, Membership, Place, keys as members};
use crate::store::{Compare, Op, Outcome, Store, StoreError, StoreRevision, Txn};

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
async fn enter(membership: &Membership) -> Result<Place, OpenError> {
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
    /// The barriers that were seen.
    pub seen: watch::Sender<u64>,
    /// For what is watched. Weak, because an engine ends when nobody can tell it anything any more.
    inputs: mpsc::WeakSender<Input>,
    /// Keeps the lease of this controller's place.
    keeping: Option<JoinHandle<()>>,
    /// Follows the store.
    following: Option<JoinHandle<()>>,
}

impl Together {
    /// One that has no place yet.
    pub(super) fn new(
        membership: Membership,
        inputs: mpsc::WeakSender<Input>,
        seen: watch::Sender<u64>,
    ) -> Self {
        Self { membership, seen, inputs, keeping: None, following: None }
    }

    /// Takes a place, and keeps its lease from here on: to read everything may take longer than a lease lives.
    pub(super) async fn enter(&mut self) -> Result<Place, OpenError> {
        end(&mut self.keeping);
        let place = enter(&self.membership).await?;
        self.keep(place);
        Ok(place)
    }

    /// Gives a place up, and follows the store no more.
    pub(super) async fn leave(&mut self, place: Place) {
        end(&mut self.keeping);
        end(&mut self.following);
        self.membership.give_up(place.lease).await;
    }

    /// A store that only answers is not back: it must take a change of this place, too.
    pub(super) async fn prove(&self, place: Place) -> Result<(), StoreError> {
        let Membership { store, name, .. } = &self.membership;
        let compares = vec![Compare::Created(members::member(name), place.fence)];
        let ops = vec![Op::put(keys::PROBE, now().0.to_string().into_bytes())];
        match store.commit(Txn { compares, ops }).await? {
            Outcome::Done(_) => Ok(()),
            Outcome::Refused => {
                Err(StoreError::Unavailable("this controller's place is lost".to_owned()))
            }
        }
    }

    /// Renews the lease of a place, until it has ended.
    pub(super) fn keep(&mut self, place: Place) {
        end(&mut self.keeping);
        let (membership, inputs) = (self.membership.clone(), self.inputs.clone());
        self.keeping = Some(tokio::spawn(async move {
            let why = membership.keep(place.lease).await;
            tell(&inputs, Input::Expired { place, why }).await;
        }));
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        end(&mut self.keeping);
        end(&mut self.following);
    }
}

fn end(task: &mut Option<JoinHandle<()>>) {
    if let Some(task) = task.take() {
        task.abort();
    }
}

impl Engine {
    /// Follows the store from here on.
    pub(super) fn watch_from(&mut self, since: StoreRevision) {
        let Some(together) = &mut self.together else { return };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(cluster) = &mut state.cluster else { return };
        cluster.epoch += 1;
        let (store, inputs) = (Arc::clone(&self.store), together.inputs.clone());
        end(&mut together.following);
        together.following = Some(tokio::spawn(follow(store, since, cluster.epoch, inputs)));
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
