//! Who was not heard for too long.

use rota_rollout::names::{Span, Timestamp};

use super::Turn;
use super::state::{AgentKey, OFFLINE_AFTER_MS, RETURN_GRACE_MS};

impl Turn<'_> {
    /// Agents that were silent for too long count as offline.
    pub(super) fn notice_silence(&mut self) {
        let at = self.state.ears.awake_until(self.at);
        if at < self.state.silence_due {
            return;
        }
        let grace = self.started.0 + RETURN_GRACE_MS;
        let (mut silent, mut due) = (Vec::new(), at.after(Span(OFFLINE_AFTER_MS)));
        for (key, agent) in self.state.agents.iter().filter(|(_, agent)| agent.online) {
            let until = agent.heard().after(Span(OFFLINE_AFTER_MS));
            // Who was not heard since this controller started, or its store came back, gets the time to return.
            let came = agent.heard().0 > self.started.0;
            let until = if came { until } else { until.max(Timestamp(grace)) };
            match until < at {
                true => silent.push(key.clone()),
                false => due = due.min(until),
            }
        }
        self.state.silence_due = due;
        for key in silent {
            let Some(agent) = self.state.agents.get_mut(&key) else { continue };
            agent.online = false;
            agent.hang_up();
            agent.record.last_seen = agent.heard;
            agent.record.offline = true;
            let record = agent.record.clone();
            self.keep_agent(&key, &record);
            self.event_of_agent(&key, "went silent: offline");
            match &key {
                AgentKey::Node(name) => self.observe(name, None),
                AgentKey::Edge(_) => self.edges_moved(),
            }
        }
    }
}

#[cfg(test)]
mod tests;
