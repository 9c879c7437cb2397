//! What load balancers that ask this node are told: what the journal says, unless the app is known to be unwell.

use tokio::sync::watch;

use super::{Loop, Slot};
use crate::agent::Agent;
use crate::journal::{Journal, JournalError};
use crate::report::TrafficState;
use crate::traffic::endpoint::{Endpoint, Pollers, Reach};
use crate::update::{Ready, Work};

/// Answers from now on, each app as soon as it is known how it stands.
pub(super) async fn serve(
    agent: &mut Agent,
    journal: &Journal,
) -> Result<Option<Endpoint>, JournalError> {
    let Some((endpoint, listener)) = agent.endpoint.take() else { return Ok(None) };
    endpoint.serve(listener, journal.clone()).await?;
    Ok(Some(endpoint))
}

/// Tells whenever who polls has changed; never, where nobody can.
pub(super) fn changes(endpoint: Option<&Endpoint>) -> watch::Receiver<Pollers> {
    endpoint.map_or_else(|| watch::channel(Pollers::new()).1, Endpoint::changes)
}

impl Loop {
    /// In the journal it is; now they are told.
    pub(super) fn tell_ready(&self, app: &str) {
        if let (Some(endpoint), Some(slot)) = (&self.means.endpoint, self.slots.get(app)) {
            endpoint.set(app, ready(slot));
        }
    }

    /// Whoever is out by the journal's word is out, whether its process lives or not.
    pub(super) fn tell_who_is_out(&self) {
        for (app, slot) in &self.slots {
            if slot.state.ready() == Ready::Out {
                self.tell_ready(app);
            }
        }
    }

    /// Nothing is unknown any more.
    pub(super) fn told_all(&self) {
        self.means.endpoint.iter().for_each(Endpoint::complete);
    }

    /// Where an app stands, by what was told to those who asked.
    pub(super) fn traffic_by_polls(&self, app: &str, settle: u32) -> TrafficState {
        let (Some(endpoint), Some(slot)) = (&self.means.endpoint, self.slots.get(app)) else {
            return TrafficState::Out;
        };
        // At rest it got there once. That a load balancer was started again changes nothing; that none is left does.
        let rests = matches!(slot.state.work, Work::Idle | Work::Move(_) | Work::Clear(_));
        match (ready(slot), endpoint.reach(app, settle)) {
            (Ready::In, Reach::All) => TrafficState::In,
            (Ready::In, Reach::Some(_)) if rests => TrafficState::In,
            (Ready::Out, Reach::Some(_)) => TrafficState::Draining,
            (Ready::In, Reach::Some(_) | Reach::Nobody)
            | (Ready::Out, Reach::All | Reach::Nobody)
            | (Ready::Down, _) => TrafficState::Out,
        }
    }
}

fn ready(slot: &Slot) -> Ready {
    match slot.state.serving() {
        Some(instance) if slot.unwell.contains(&instance.token) => Ready::Down,
        Some(_) | None => slot.state.ready(),
    }
}
