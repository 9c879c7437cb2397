//! One turn of the engine: every input goes to the part that knows it; what changes gathers in the batch.

use rota_proto::agent::from_agent;
use rota_rollout::names::{NodeName, RolloutId, Timestamp};

use super::carry::NewEvent;
use super::number::after;
use super::place::{NO_HOST, elsewhere};
use super::records::keys;
use super::state::{AgentKey, EVENTS_IN_MEMORY};
use super::{Answer, Asked, Batch, Input, State};
use crate::api::rollouts::state_of;
use crate::errors::Sort;
use crate::store::StoreError;
use crate::view::EventView;
use crate::wire;

/// Events kept in the store; the oldest go first.
const EVENTS_KEPT: u64 = 50_000;

/// The engine while it makes one turn.
pub(crate) struct Turn<'a> {
    pub state: &'a mut State,
    pub batch: &'a mut Batch,
    pub at: Timestamp,
    pub started: Timestamp,
}

impl Turn<'_> {
    /// Takes one input in.
    pub(super) fn take(&mut self, input: Input) {
        match input {
            Input::Hello(hello) => self.hello(*hello),
            Input::Said { key, session, message } => {
                let known = self.state.agents.get_mut(&key);
                let Some(agent) = known.filter(|agent| {
                    agent.session.as_ref().is_some_and(|current| current.id == session)
                }) else {
                    return; // of a session that has been replaced
                };
                agent.heard = self.at;
                match message.message {
                    Some(from_agent::Message::Report(report)) => self.report(&key, report),
                    Some(from_agent::Message::Inventory(inventory)) => {
                        self.inventory(&key, &inventory);
                    }
                    Some(from_agent::Message::Edge(edge)) => self.edge_state(&key, edge),
                    Some(from_agent::Message::Happening(happening)) => {
                        self.happened(&key, &happening);
                    }
                    Some(from_agent::Message::Output(output)) => match wire::piece(output) {
                        Ok(piece) => self.printed(&key, piece),
                        Err(error) => tracing::warn!(?key, %error, "output that is ignored"),
                    },
                    // A refusal was written into the audit log where it came in.
                    Some(
                        from_agent::Message::Heartbeat(_)
                        | from_agent::Message::Hello(_)
                        | from_agent::Message::Refusal(_),
                    )
                    | None => {}
                }
            }
            Input::Gone { key, session, revoked } => {
                if let Some(agent) = self.state.agents.get_mut(&key)
                    && agent.session.as_ref().is_some_and(|current| current.id == session)
                {
                    agent.session = None;
                    agent.heard = self.at;
                    self.is_gone(&key, revoked);
                }
            }
            Input::Banned(banned) => {
                self.state.banned = banned;
                self.tell_edges();
            }
            Input::Stored { epoch, changes } => self.stored(epoch, changes),
            Input::Unwatched { epoch, why } => {
                if self.state.cluster.as_ref().is_some_and(|cluster| cluster.epoch == epoch) {
                    self.batch.next.reload = Some(why);
                }
            }
            Input::Expired { place, why } => {
                if let Some(cluster) = &mut self.state.cluster
                    && cluster.place == Some(place)
                {
                    cluster.place = None;
                    self.batch.next.reload = Some(why);
                }
            }
            Input::Asked(asked, reply) => {
                let answer = self.answer(*asked);
                self.batch.answers.push((reply, answer));
            }
        }
    }

    /// An agent has no session any more.
    fn is_gone(&mut self, key: &AgentKey, revoked: bool) {
        match key {
            AgentKey::Edge(name) => {
                self.edges_moved();
                // Removed unseen, and here again before that was known: nothing that is watched tells of it.
                if revoked && !self.state.leads() {
                    self.batch.next.reload = Some(format!("edge {name} is revoked"));
                }
            }
            AgentKey::Node(name) => self.observe(name, None),
        }
    }

    /// What an operator hears, from here or from where it is decided.
    fn answer(&mut self, asked: Asked) -> Answer {
        if let Some(why) = &self.state.store_down {
            return Err(Sort::Store.error(why.clone(), ""));
        }
        match self.state.place_of(&asked) {
            Ok(None) => self.asked(asked),
            Ok(Some(name)) => Err(elsewhere(&name)),
            Err(nobody) => Err(Sort::Refused.error(nobody.to_string(), NO_HOST)),
        }
    }

    /// Deadlines, silent agents, freezes that end.
    pub(super) fn tick(&mut self) {
        self.notice_silence();
        self.edges_moved();
        for name in std::mem::take(&mut self.state.hung_up) {
            self.observe(&name, None);
        }
        if self.state.leads() {
            self.thaw();
        }
        self.wake_rollouts();
        self.close_overdue();
        self.catch_up();
        self.see_to_hearing();
    }

    /// Writes a line about a rollout, or one of its nodes, into the event log.
    pub(super) fn event_of(&mut self, id: &RolloutId, node: Option<&NodeName>, text: String) {
        let rollout = self.state.rollouts.get(id).map(|active| &active.rollout);
        let known = rollout.zip(node).and_then(|(rollout, node)| rollout.nodes().get(node));
        self.event(NewEvent {
            app: Some(id.app.to_string()),
            env: Some(id.env.to_string()),
            rollout: Some(id.to_string()),
            node: node.map(NodeName::to_string),
            in_traffic: rollout.map(|rollout| rollout.tally().serving),
            state: known.map(|node| state_of(&node.phase)),
            ..NewEvent::new("rollout", text)
        });
    }

    /// Writes a line into the event log.
    pub(super) fn event(&mut self, new: NewEvent) {
        let seq = self.state.next_seq(self.at);
        self.state.next_event = after(seq);
        let event = EventView {
            seq,
            at: crate::access::rfc3339(self.at),
            app: new.app,
            env: new.env,
            rollout: new.rollout,
            node: new.node,
            kind: new.kind.to_owned(),
            text: new.text,
            in_traffic: new.in_traffic,
            state: new.state.map(str::to_owned),
        };
        self.batch.events.push(event.clone());
        let written = self.batch.put(keys::event(seq), &event);
        self.written(written);
        // Among several controllers the lead makes room from time to time.
        let old = seq.checked_sub(EVENTS_KEPT).filter(|old| *old > 0);
        if let Some(old) = old.filter(|_| self.state.cluster.is_none()) {
            self.batch.delete(keys::event(old));
        }
        self.state.events.push_back(event);
        if self.state.events.len() > EVENTS_IN_MEMORY {
            self.state.events.pop_front();
        }
    }

    /// Keeps an error from the encoder where people see it; a record that cannot be written is a fault of ours.
    pub(crate) fn written(&mut self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::error!(%error, "a record could not be written");
        }
    }
}
