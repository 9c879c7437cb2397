//! What the engine does between its turns: claims, a new reading of everything, a new place among the controllers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use rota_rollout::names::RolloutId;

use super::agents::{directory, standing};
use super::batch::{Batch, Next};
use super::cluster::Owner;
use super::cluster::keys;
use super::load::{self, Claimant};
use super::state::AgentKey;
use super::together::OpenError;
use super::{Engine, Input, Turn, again, goodbye, is_welcome, place, send};
use crate::access::now;
use crate::errors::Sort;
use crate::members::{Place, keys as members};
use crate::store::{Compare, Op, Outcome, StoreError, Txn};

/// How long the engine waits before it asks a store again that did not answer.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// So many commits that have changed nothing one after the other are no chance any more: then it goes slower.
const REFUSED_IN_A_ROW: u32 = 3;

/// Whose messages were lost with a turn.
enum Lost {
    /// Anybody's.
    All,
    /// Of these; `true`: a session of theirs had just begun.
    Of(Vec<(AgentKey, bool)>),
}

impl Engine {
    /// What a turn has found to be done.
    pub(super) async fn go_on(&mut self, next: Next) {
        if let Some(why) = next.reload {
            return self.reload(&why, Lost::All).await;
        }
        if next.follows {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(cluster) = &mut state.cluster {
                cluster.lead = None;
            }
        }
        let views: Vec<&RolloutId> =
            next.views.iter().filter(|id| !next.claims.contains(id)).collect();
        let settled = if views.is_empty() { Ok(()) } else { self.store.settle().await };
        match settled {
            Ok(()) => {
                for id in views {
                    self.look_at(id).await;
                }
                // Whoever waits for it wants to see these, too.
                if let Some((number, together)) = next.barrier.zip(self.together.as_ref()) {
                    together.seen.send_replace(number);
                }
            }
            Err(error) => {
                tracing::warn!(%error, "rollouts of others cannot be read; again in a moment");
            }
        }
        for id in next.claims {
            if !self.claim(id, 0).await {
                return;
            }
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

    /// Claims a rollout in a term above the newest that a node knows. It goes on with the next turn. `false`: whether
    /// it was claimed is not known, and everything was read anew.
    pub(super) async fn claim(&mut self, id: RolloutId, newest: u64) -> bool {
        let (name, place) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            (state.name.clone(), state.cluster.as_ref().map(|_| state.place()))
        };
        let claimant = Claimant { name: &name, place, newest };
        let claimed = match self.store.settle().await {
            Ok(()) => load::claim(self.store.as_ref(), &id, &claimant).await,
            Err(error) => Err(error),
        };
        match claimed {
            Ok(Some((active, from))) => {
                let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
                tracing::info!(rollout = %id, term = active.term, from, "claimed");
                state.rollouts.insert(id.clone(), active);
                state.taken.push((id, from));
            }
            Ok(None) => tracing::info!(rollout = %id, "another controller was faster to claim it"),
            Err(error) if place.is_some() => {
                self.doubt(&error);
                self.reload(&format!("{id} could not be claimed: {error}"), Lost::All).await;
                return false;
            }
            Err(error) => tracing::error!(rollout = %id, %error, "cannot claim it"),
        }
        true
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
                self.reload("this controller leads from now on", Lost::All).await
            }
            Ok(Outcome::Refused) => {}
            Err(error) => {
                self.doubt(&error);
                self.reload(&format!("whether this controller leads: {error}"), Lost::All).await;
            }
        }
    }

    /// What was sent and not answered may happen at any time, also when everything has been read anew: as long as the
    /// place that it compares is there. So that is given up.
    fn doubt(&mut self, error: &StoreError) {
        self.in_doubt |= matches!(error, StoreError::Unknown(_));
    }

    /// A commit was refused: something that it relied on is not so any more. Nothing of the turn has happened.
    pub(super) async fn decide_anew(&mut self, batch: Batch) {
        for (reply, answer) in batch.answers {
            if reply.send(answer.and_then(|_| Err(place::again()))).is_err() {
                tracing::debug!("an operator did not wait for the answer");
            }
        }
        let lost = batch.sends.into_iter().map(|(key, message)| (key, is_welcome(&message)));
        let lost = Lost::Of(lost.collect());
        self.in_vain().await;
        self.reload("something else changed at the same moment", lost).await;
    }

    /// The commit failed: nothing of the turn has happened, or nobody knows. Read everything again, until that works.
    pub(super) async fn recover(&mut self, batch: Batch, error: &StoreError) {
        let why = error.to_string();
        self.say_away(&why);
        for (reply, answer) in batch.answers {
            if reply.send(answer.and_then(|_| Err(error.clone().into()))).is_err() {
                tracing::debug!("an operator did not wait for the answer");
            }
        }
        if self.together.is_some() {
            self.doubt(error);
            self.in_vain().await;
            return self.reload(&why, Lost::All).await;
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
        let own: Vec<RolloutId> = state.own().cloned().collect();
        state.taken.extend(own.into_iter().map(|id| (id, name.clone())));
        let keys: Vec<AgentKey> = state.agents.keys().cloned().collect();
        for key in keys {
            // Whoever is connected says Hello again, with everything that it has not heard acknowledged.
            send(&mut state, &key, goodbye("the store was away"));
        }
        drop(state);
        self.started = now(); // whom it turned away meanwhile gets the time to come back
        self.settle(true);
        self.changed.send_modify(|version| *version += 1);
        tracing::info!("the store answers again");
    }

    /// One commit more that has changed nothing.
    async fn in_vain(&mut self) {
        self.refused += 1;
        if self.refused > REFUSED_IN_A_ROW {
            tokio::time::sleep(STORE_RETRY).await;
        }
    }

    fn say_away(&self, why: &str) {
        tracing::error!(why, "this controller decides nothing");
        self.state.write().unwrap_or_else(PoisonError::into_inner).store_down =
            Some(why.to_owned());
        self.settle(true);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Reads everything anew, with a new place where the old one is lost, until that works. Then agents are asked for
    /// what they have said in vain.
    async fn reload(&mut self, why: &str, lost: Lost) {
        tracing::info!(why, "everything is read anew");
        self.settle(true);
        let (mut tries, mut said) = (0, String::new());
        while let Err(error) = self.read_anew().await {
            tries += 1;
            let why = error.to_string();
            if error.is_beyond_us() {
                self.step_aside().await;
            }
            if said != why {
                self.say_away(&why);
                said = why;
            }
            self.turn_away();
            tokio::time::sleep(STORE_RETRY).await;
        }
        if tries > 0 {
            tracing::info!(tries, "everything was read again: this controller goes on");
            self.started = now(); // whom it turned away meanwhile gets the time to come back
        }
        self.ask_agents(if tries > 0 { Lost::All } else { lost });
        self.settle(true);
        self.changed.send_modify(|version| *version += 1);
    }

    /// There is something that this controller does not understand, and others perhaps do: they take over what it runs.
    /// It comes in again when it can read everything.
    async fn step_aside(&mut self) {
        let Some(together) = &mut self.together else { return };
        let place = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.cluster.as_mut().and_then(|cluster| {
                cluster.members.remove(&together.membership.name);
                cluster.place.take()
            })
        };
        if let Some(place) = place {
            together.leave(place).await;
            tracing::error!("this controller steps aside: others take over what it runs");
        }
    }

    /// Tells agents again what they were perhaps told in vain, and asks for what they have said in vain; one whose
    /// session had only begun begins it anew. Every rollout of ours hears how things stand with the next turn.
    fn ask_agents(&self, lost: Lost) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.store_down = None;
        let own: Vec<RolloutId> = state.own().cloned().collect();
        let known: BTreeSet<RolloutId> = state.taken.iter().map(|(id, _)| id.clone()).collect();
        let name = state.name.clone();
        let more = own.into_iter().filter(|id| !known.contains(id));
        state.taken.extend(more.map(|id| (id, name.clone())));
        let lost: BTreeMap<AgentKey, bool> = match lost {
            Lost::All => state.agents.keys().cloned().map(|key| (key, false)).collect(),
            Lost::Of(some) => some.into_iter().fold(BTreeMap::new(), |mut lost, (key, begun)| {
                *lost.entry(key).or_default() |= begun;
                lost
            }),
        };
        for key in std::mem::take(&mut state.wished) {
            if let Some(drained) = state.agents.get(&key).map(|agent| agent.record.drained) {
                send(&mut state, &key, standing(drained));
            }
        }
        for (key, begun) in lost {
            if begun {
                send(&mut state, &key, goodbye("what you said was lost"));
                continue;
            }
            let Some(agent) = state.agents.get(&key).filter(|agent| agent.session.is_some()) else {
                continue;
            };
            let (env, drained) = (agent.record.env.clone(), agent.record.drained);
            let told = directory(&state, &key, &env);
            send(&mut state, &key, told);
            send(&mut state, &key, standing(drained));
            send(&mut state, &key, again());
        }
    }

    /// One try.
    async fn read_anew(&mut self) -> Result<(), OpenError> {
        let Some(together) = &mut self.together else { return Ok(()) };
        let had = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.cluster.as_ref().and_then(|cluster| cluster.place)
        };
        let place = match had {
            Some(place) if !self.in_doubt && together.membership.holds(&place).await? => {
                together.keep(place); // what was last told of it may have been overlooked meanwhile
                place
            }
            Some(place) => {
                together.leave(place).await;
                together.enter().await?
            }
            None => together.enter().await?,
        };
        self.in_doubt = false;
        let read = self.read_at(place).await;
        if let Some(together) =
            self.together.as_mut().filter(|_| read.is_err() && had != Some(place))
        {
            together.leave(place).await;
        }
        read
    }

    async fn read_at(&mut self, place: Place) -> Result<(), OpenError> {
        let Some(together) = &self.together else { return Ok(()) };
        let mut fresh = self.state.read().unwrap_or_else(PoisonError::into_inner).anew();
        if let Some(cluster) = &mut fresh.cluster {
            cluster.place = Some(place);
        }
        self.store.settle().await?;
        together.prove(place).await?;
        let since = self.store.scan("", "", 0).await?.1;
        let barrier = format!("{}{}", keys::BARRIER, together.membership.name);
        let barrier = self.store.get(&barrier).await?;
        load::into(self.store.as_ref(), &mut fresh, now()).await?;
        {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            load::replace(&mut state, fresh);
        }
        // What was written before is known now, though the new watch does not tell of it.
        let number = barrier.and_then(|entry| String::from_utf8_lossy(&entry.value).parse().ok());
        together.seen.send_modify(|seen| *seen = number.unwrap_or(0).max(*seen));
        self.watch_from(since);
        Ok(())
    }

    /// While the store is away nothing is decided: operators hear it at once, and agents come again.
    fn turn_away(&mut self) {
        let why = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.store_down.clone().unwrap_or_default()
        };
        while let Some(input) = self.inbox.next_now() {
            match input {
                Input::Asked(_, reply) => {
                    let hint = "nothing was changed; try again when the store answers";
                    if reply.send(Err(Sort::Store.error(why.clone(), hint))).is_err() {
                        tracing::debug!("an operator did not wait for the answer");
                    }
                }
                // Edges hear of it with their directory, when the store is back.
                Input::Banned(banned) => {
                    self.state.write().unwrap_or_else(PoisonError::into_inner).banned = banned;
                }
                // Agents are asked again, and what is watched is read anew.
                Input::Hello(_)
                | Input::Said { .. }
                | Input::Gone { .. }
                | Input::Stored { .. }
                | Input::Unwatched { .. }
                | Input::Expired { .. } => {}
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
