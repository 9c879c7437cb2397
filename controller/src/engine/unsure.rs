//! What is seen of a node, and may change by itself: who is not heard here may serve again, and who goes on with an
//! update that nobody waits for may leave traffic.

use rota_rollout::names::{AppName, NodeName, RolloutId, Timestamp};
use rota_rollout::node::Serving;

use super::State;
use super::records::{AgentRecord, AppRecord};
use super::state::Agent;

impl Agent {
    /// One that has no session here.
    pub fn unheard(record: AgentRecord, heard: Timestamp, online: bool) -> Self {
        let (pools, moving) = (Vec::new(), Vec::new());
        Self { record, session: None, heard, online, pools, moving }
    }

    /// Takes in what it says of its apps. `None`: nothing new; `Some(true)`: something to be written down.
    pub fn says(&mut self, apps: Vec<AppRecord>, moving: Vec<AppName>) -> Option<bool> {
        let durable = self.record.apps != apps;
        let new = durable || self.moving != moving;
        (self.record.apps, self.moving) = (apps, moving);
        new.then_some(durable)
    }
}

impl State {
    /// May what is seen of an app on a node change by itself? Asked where it matters: of one that is out of traffic,
    /// and could be mended for nothing; and of one that was ordered and is not waited for any more, for an operator
    /// skipped it or its time was over, and could count as back.
    pub(super) fn is_unsure(
        &self,
        name: &NodeName,
        agent: &Agent,
        app: &AppName,
        own: Option<&RolloutId>,
    ) -> bool {
        let node = own
            .and_then(|id| self.rollouts.get(id))
            .and_then(|active| active.rollout.nodes().get(name));
        if node.is_some_and(|node| node.phase.is_running()) {
            return false;
        }
        let out = serving(&agent.record, app) == Serving::Out;
        let matters = out || node.is_some_and(|node| node.phase.is_given_up());
        matters && (agent.session.is_none() || agent.moving.contains(app))
    }
}

/// Does the app serve on this node?
pub(super) fn serving(record: &AgentRecord, app: &AppName) -> Serving {
    match record.apps.iter().find(|entry| entry.app == *app) {
        None => Serving::Absent,
        Some(entry) if entry.release.is_none() => Serving::Absent,
        Some(entry) if entry.health == "healthy" && entry.traffic == "in" => Serving::In,
        Some(_) => Serving::Out,
    }
}
