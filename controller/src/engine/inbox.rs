//! What waits for the engine, in two queues: what agents say, by the thousands, and everything else, which goes first.
//!
//! When a whole fleet comes back at once, minutes of work may lie in the first one. What the store tells must not wait
//! behind it: by what it tells this controller decides, and on it operators wait.

use tokio::sync::mpsc;

use super::Input;

/// Messages of agents that wait. A fleet of ten thousand may reconnect within seconds after a controller restarts;
/// beyond this, sessions wait their turn.
const AGENTS_QUEUED_MAX: usize = 16_384;

/// Everything else that waits. What the store tells comes up to a thousand changes at a time: what is not taken here
/// waits in the store.
const OTHERS_QUEUED_MAX: usize = 64;

/// Inputs taken in one turn, and so in one commit: enough to make the disk's flush cheap, few enough for quick answers.
const INPUTS_PER_TURN: usize = 512;

/// The ways in.
#[derive(Clone)]
pub(super) struct Senders {
    agents: mpsc::Sender<Input>,
    others: mpsc::Sender<Input>,
}

/// The engine's end.
pub(super) struct Inbox {
    agents: mpsc::Receiver<Input>,
    others: mpsc::Receiver<Input>,
}

/// Both ends.
pub(super) fn inbox() -> (Senders, Inbox) {
    let (to_agents, agents) = mpsc::channel(AGENTS_QUEUED_MAX);
    let (to_others, others) = mpsc::channel(OTHERS_QUEUED_MAX);
    (Senders { agents: to_agents, others: to_others }, Inbox { agents, others })
}

impl Senders {
    /// Puts it into its queue. `false`: the engine has ended.
    pub(super) async fn send(&self, input: Input) -> bool {
        let queue = match &input {
            Input::Hello(_) | Input::Said { .. } | Input::Gone { .. } => &self.agents,
            Input::Banned(_)
            | Input::Asked(..)
            | Input::Stored { .. }
            | Input::Unwatched { .. }
            | Input::Expired { .. } => &self.others,
        };
        queue.send(input).await.is_ok()
    }

    /// For what is told of the store. Weak, because an engine ends when nobody can tell it anything any more.
    pub(super) fn of_store(&self) -> mpsc::WeakSender<Input> {
        self.others.downgrade()
    }
}

impl Inbox {
    /// Waits for inputs, and takes those of one turn. `false`: nobody can tell anything any more.
    pub(super) async fn take(&mut self, into: &mut Vec<Input>) -> bool {
        let first = tokio::select! {
            biased;
            first = self.others.recv() => first,
            first = self.agents.recv() => first,
        };
        let Some(first) = first else { return false };
        into.push(first);
        while into.len() < INPUTS_PER_TURN
            && let Some(next) = self.next_now()
        {
            into.push(next);
        }
        true
    }

    /// Does nothing wait?
    pub(super) fn is_empty(&self) -> bool {
        self.agents.is_empty() && self.others.is_empty()
    }

    /// What waits, without waiting for more.
    pub(super) fn next_now(&mut self) -> Option<Input> {
        self.others.try_recv().or_else(|_| self.agents.try_recv()).ok()
    }
}
