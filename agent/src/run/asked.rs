//! What somebody on this node asks for: how things stand, or the previous release back. No controller is needed.

use tokio::sync::oneshot;
use tracing::info;

use super::{Loop, Slot};
use crate::journal::JournalError;
use crate::local::{self, Request};
use crate::update::{App, Side, What, Work};

impl Loop {
    pub(super) async fn asked(&mut self, request: Request) -> Result<(), JournalError> {
        match request {
            Request::Updates(reply) => answer(reply, self.updates()),
            Request::Apps(reply) => answer(reply, self.inventory()),
            Request::Release { app, reply } => {
                let none = || Err(format!("this node does not run {app}"));
                let found = self.slots.get(&app);
                answer(reply, found.map_or_else(none, |slot| release_of(&app, &slot.state)));
            }
            Request::Rollback { app, reply } => self.roll_back(app, reply).await?,
        }
        Ok(())
    }

    /// Back to the previous proven release, by the word of somebody on this node.
    async fn roll_back(
        &mut self,
        app: String,
        reply: oneshot::Sender<Result<local::Release, String>>,
    ) -> Result<(), JournalError> {
        let refusal = match self.slots.get(&app) {
            None => Some(format!("this node does not run {app}")),
            Some(slot) if matches!(slot.state.work, Work::Update(_)) => {
                Some(format!("{app} is being updated right now: try again when that is done"))
            }
            Some(slot) if slot.state.previous.is_none() => {
                Some(format!("{app} has no previous release on this node to go back to"))
            }
            Some(Slot { state: App { stray: Some(stray), .. }, .. }) => Some(format!(
                "{} of {app}, which failed, is still there: {}; it is tried again by itself",
                stray.spec.version, stray.cause
            )),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            answer(reply, Err(refusal));
            return Ok(());
        }
        self.feed(&app, What::AskedBack).await?;
        if let Some(slot) = self.slots.get_mut(&app) {
            slot.waiting = Some(reply);
        }
        Ok(())
    }
}

pub(super) fn release_of(app: &str, state: &App) -> Result<local::Release, String> {
    match &state.current {
        Some(settled) if settled.side == Side::In || settled.instance.is_some() => {
            Ok(local::Release {
                app: app.to_owned(),
                release: settled.spec.version.clone(),
                digest: settled.spec.digest.clone(),
            })
        }
        Some(_) | None => Err(format!("no release of {app} runs here")),
    }
}

/// Whoever asked may be gone meanwhile; then nobody needs the answer.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, value: T) {
    if reply.send(value).is_err() {
        info!("whoever asked is gone");
    }
}
