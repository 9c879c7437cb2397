//! What the engine does between its turns: claims, a new reading of everything, a new place among the controllers.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rota_rollout::names::RolloutId;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::batch::{Batch, Next};
use super::cluster::Owner;
use super::load::{self, Claimant};
use super::state::AgentKey;
use super::{Engine, Input, Turn, again, goodbye, is_welcome, place, send};
use crate::access::now;
use crate::errors::Sort;
use crate::members::{JoinError, Membership, keys as members};
use crate::store::{Compare, Op, Outcome, Store, StoreError, StoreRevision, Txn};

/// How long the engine waits before it asks a store again that did not answer.
const STORE_RETRY: Duration = Duration::from_millis(500);

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

    /// What a turn has found to be done.
    pub(super) async fn go_on(&mut self, next: Next) {
        if let Some(why) = next.reload {
            return self.reload(&why, Vec::new()).await;
        }
        if let Some((number, together)) = next.barrier.zip(self.together.as_ref()) {
            together.seen.send_replace(number);
        }
        if next.follows {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(cluster) = &mut state.cluster {
                cluster.lead = None;
            }
        }
        for id in next.views.iter().filter(|id| !next.claims.contains(id)) {
            self.look_at(id).await;
        }
        for id in next.claims {
            self.claim(id, 0).await;
        }
        if next.lead {
            self.lead().await;
        }
    }

    /// Reads a rollout that another controller runs.
    async fn look_at(&mut self, id: &RolloutId) {
        match load::seen(self.store.as_ref(), id).await {
            Ok(Some(active)) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                state.rollouts.entry(id.clone()).or_insert(active);
            }
            Ok(None) => {}
            Err(error) => tracing::error!(rollout = %id, %error, "cannot be read"),
        }
    }

    /// Claims a rollout in a term above the newest that a node knows. It goes on with the next turn.
    pub(super) async fn claim(&mut self, id: RolloutId, newest: u64) {
        let (name, place) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.name.clone(), state.cluster.as_ref().map(|_| state.place()))
        };
        let claimant = Claimant { name: &name, place, newest };
        if place.is_some()
            && let Err(error) = self.store.settle().await
        {
            return tracing::error!(rollout = %id, %error, "cannot be claimed");
        }
        match load::claim(self.store.as_ref(), &id, &claimant).await {
            Ok(Some((active, from))) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                tracing::info!(rollout = %id, term = active.term, from, "claimed");
                state.rollouts.insert(id.clone(), active);
                state.taken.push((id, from));
            }
            Ok(None) if place.is_some() => {
                tracing::info!(rollout = %id, "another controller was faster to claim it");
            }
            Ok(None) => tracing::error!(rollout = %id, "another controller has claimed it"),
            Err(error) => tracing::error!(rollout = %id, %error, "cannot claim it"),
        }
    }

    /// Takes what belongs to no rollout, if nobody has it.
    async fn lead(&mut self) {
        let (name, place) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.name.clone(), state.cluster.as_ref().and_then(|cluster| cluster.place))
        };
        let Some(place) = place else { return };
        let key = members::LEAD.to_owned();
        let txn = Txn {
            compares: vec![
                Compare::Absent(key.clone()),
                Compare::Created(members::member(&name), place.fence),
            ],
            ops: vec![Op::Put { key, value: name.into_bytes(), lease: Some(place.lease) }],
        };
        match self.store.commit(txn).await {
            Ok(Outcome::Done(_)) => {
                self.reload("this controller leads from now on", Vec::new()).await
            }
            Ok(Outcome::Refused) => {}
            Err(error) => tracing::warn!(%error, "cannot lead"),
        }
    }

    /// A commit was refused: something that it relied on is not so any more. Nothing of the turn has happened.
    pub(super) async fn decide_anew(&mut self, batch: Batch) {
        for (reply, answer) in batch.answers {
            if reply.send(answer.and_then(|_| Err(place::again()))).is_err() {
                tracing::debug!("an operator did not wait for the answer");
            }
        }
        let mut lost: Vec<(AgentKey, bool)> = Vec::new();
        for (key, message) in batch.sends {
            lost.push((key, is_welcome(&message)));
        }
        self.reload("something else changed at the same moment", lost).await;
    }

    /// The commit failed: nothing of the turn has happened, or nobody knows. Read everything again, until that works.
    pub(super) async fn recover(&mut self, batch: Batch, why: &str) {
        self.say_away(why);
        for (reply, answer) in batch.answers {
            let refused = answer.and_then(|_| {
                let hint = "nothing was changed; try again when the store answers";
                Err(Sort::Store.error(why.to_owned(), hint))
            });
            if reply.send(refused).is_err() {
                tracing::debug!("an operator did not wait for the answer");
            }
        }
        if self.together.is_some() {
            return self.reload(why, Vec::new()).await;
        }
        let name = self.state.read().unwrap_or_else(PoisonError::into_inner).name.clone();
        let fresh = loop {
            match load::writable_state(self.store.as_ref(), &name, now()).await {
                Ok(fresh) => break fresh,
                Err(error) => {
                    tracing::error!(%error, "the store still does not answer");
                    tokio::time::sleep(STORE_RETRY).await;
                }
            }
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        load::replace(&mut state, fresh);
        let keys: Vec<AgentKey> = state.agents.keys().cloned().collect();
        for key in keys {
            // Whoever is connected says Hello again, with everything that it has not heard acknowledged.
            send(&mut state, &key, goodbye("the store was away"));
        }
        drop(state);
        self.settle(true);
        self.changed.send_modify(|version| *version += 1);
        tracing::info!("the store answers again");
    }

    fn say_away(&self, why: &str) {
        tracing::error!(why, "the store did not take a change: this controller decides nothing");
        self.state.write().unwrap_or_else(PoisonError::into_inner).store_down =
            Some(why.to_owned());
        self.settle(true);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Reads everything anew, with a new place where the old one is lost, until that works. Then agents are asked for
    /// what they have said in vain: those whose messages were lost with a turn, or else all.
    async fn reload(&mut self, why: &str, lost: Vec<(AgentKey, bool)>) {
        tracing::info!(why, "everything is read anew");
        self.settle(true);
        let mut tries = 0;
        while let Err(error) = self.read_anew().await {
            tries += 1;
            if tries == 1 {
                self.say_away(&error.to_string());
            }
            tracing::warn!(%error, "the store still does not answer");
            self.turn_away();
            tokio::time::sleep(STORE_RETRY).await;
        }
        if tries > 0 {
            tracing::info!("the store answers again");
        }
        self.ask_agents(if tries > 0 { Vec::new() } else { lost });
        self.settle(true);
        self.changed.send_modify(|version| *version += 1);
        self.resume().await;
    }

    /// Asks these agents for what was lost of what they said (all, if none is named); one whose session had only begun
    /// begins it anew.
    fn ask_agents(&self, lost: Vec<(AgentKey, bool)>) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.store_down = None;
        let all = || state.agents.keys().cloned().map(|key| (key, false)).collect();
        let lost: Vec<(AgentKey, bool)> = if lost.is_empty() { all() } else { lost };
        for (key, begun) in lost {
            let said = if begun { goodbye("what you said was lost") } else { again() };
            send(&mut state, &key, said);
        }
    }

    /// One try.
    async fn read_anew(&mut self) -> Result<(), OpenError> {
        let Some(together) = &self.together else { return Ok(()) };
        let (fresh, had) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.anew(), state.cluster.as_ref().and_then(|cluster| cluster.place))
        };
        let mut fresh = fresh;
        let lives = match had {
            Some(place) => self.store.keep_alive(place.lease).await?,
            None => false,
        };
        let place = match had.filter(|_| lives) {
            Some(place) => place,
            None => together.membership.join(now()).await?,
        };
        if let Some(cluster) = &mut fresh.cluster {
            cluster.place = Some(place);
        }
        self.store.settle().await?;
        let since = self.store.scan("", "", 0).await?.1;
        load::into(self.store.as_ref(), &mut fresh, now()).await?;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            load::replace(&mut state, fresh);
        }
        self.watch_from(since);
        Ok(())
    }

    /// While the store is away nothing is decided: operators hear it at once, and agents come again.
    fn turn_away(&mut self) {
        let why = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.store_down.clone().unwrap_or_default()
        };
        while let Ok(input) = self.inputs.try_recv() {
            if let Input::Asked(_, reply) = input {
                let hint = "nothing was changed; try again when the store answers";
                if reply.send(Err(Sort::Store.error(why.clone(), hint))).is_err() {
                    tracing::debug!("an operator did not wait for the answer");
                }
            }
        }
    }

    /// A new owner gives every order again that was not answered.
    pub(super) async fn resume(&mut self) {
        let mut batch = Batch::default();
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            let (at, started) = (now(), self.started);
            let own = state.rollouts.iter().filter(|(_, active)| active.owner == Owner::Us);
            let ids: Vec<RolloutId> = own.map(|(id, _)| id.clone()).collect();
            let mut turn = Turn { state: &mut state, batch: &mut batch, at, started };
            turn.windows_moved();
            for id in ids {
                turn.resend_all(&id);
            }
        }
        // What comes of it beyond orders is decided in the next turn.
        Box::pin(self.commit(batch)).await;
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
