//! The start: reads the journal, finds the processes again, and goes on with whatever was under way.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant, sleep};
use tracing::{error, warn};

use super::means::Means;
use super::{APP, EDGES, Loop, STANDING, Slot};
use crate::journal::JournalError;
use crate::order::Edge;
use crate::runtime::Running;
use crate::spec::Spec;
use crate::update::{App, Instance, What, Work};

/// So long systemd or dockerd may be away, as while they are upgraded with the agent, before their apps are taken for
/// gone.
const FIND_MAX: Duration = Duration::from_secs(30);

/// Between two tries: neither says when it is back.
const FIND_AGAIN: Duration = Duration::from_millis(200);

impl Loop {
    /// Reads the journal, finds the processes again, and goes on with whatever was under way.
    pub(super) async fn boot(&mut self) -> Result<(), JournalError> {
        self.drained = self.journal.get(STANDING).await?.unwrap_or(false);
        let edges: Vec<Edge> = self.journal.get(EDGES).await?.unwrap_or_default();
        self.means.edges.know(&edges);
        self.known = edges;
        for record in self.journal.list().await? {
            let Some(app) = record.strip_prefix(APP) else { continue };
            if let Some(state) = self.journal.get::<App>(&record).await? {
                let slot = Slot { state, ..Slot::default() };
                self.slots.insert(app.to_owned(), slot);
            }
        }
        let apps: Vec<String> = self.slots.keys().cloned().collect();
        self.tell_who_is_out();
        for app in apps {
            let alive = self.find_processes(&app).await;
            self.feed(&app, What::Booted { alive }).await?;
            self.say_last(&app);
        }
        self.told_all();
        Ok(())
    }

    /// The tokens of the processes that still run; from now on they are watched again.
    async fn find_processes(&mut self, app: &str) -> BTreeSet<u64> {
        let mut alive = BTreeSet::new();
        let Some(slot) = self.slots.get_mut(app) else { return alive };
        for (spec, instance) in instances(&slot.state) {
            match find(&self.means, &spec, &instance).await {
                Ok(Some(running)) => {
                    alive.insert(instance.token);
                    self.means.watch_exit(app, instance.token, &running);
                    slot.running.insert(instance.token, running);
                }
                Ok(None) => {}
                Err(why) => error!(app, why, "cannot look for the app's process"),
            }
        }
        alive
    }

    /// What was last said of each rollout is said again: the agent may have died before it was heard.
    fn say_last(&mut self, app: &str) {
        let Some(slot) = self.slots.get(app) else { return };
        let last: Vec<_> = slot
            .state
            .fences
            .iter()
            .filter_map(|(rollout, fence)| {
                Some((rollout.clone(), fence.attempt, fence.last.clone()?))
            })
            .collect();
        for (rollout, attempt, said) in last {
            self.say(&rollout, attempt, said.into());
        }
    }
}

/// The process of an instance. Who cannot be asked has not said that it is gone.
async fn find(means: &Means, spec: &Spec, instance: &Instance) -> Result<Option<Running>, String> {
    let until = Instant::now() + FIND_MAX;
    let mut said = false;
    loop {
        match means.find(spec, instance).await {
            Err(why) if Instant::now() < until => {
                if !std::mem::replace(&mut said, true) {
                    warn!(app = spec.app, why, "cannot look for the app's process yet");
                }
                sleep(FIND_AGAIN).await;
            }
            found => return found,
        }
    }
}

/// Every process that a state speaks of, with the release it runs.
pub(super) fn instances(state: &App) -> Vec<(Spec, Instance)> {
    let mut all = Vec::new();
    if let Some(settled) = &state.current {
        all.extend(settled.instance.iter().map(|i| (settled.spec.clone(), i.clone())));
    }
    all.extend(state.stray.iter().map(|stray| (stray.spec.clone(), stray.instance.clone())));
    if let Work::Update(update) = &state.work {
        let old = update.old.clone().zip(update.facts.old.clone());
        let new = update.facts.new.clone().map(|new| (update.order.spec.clone(), new));
        all.extend(old.into_iter().chain(new));
    }
    all
}
