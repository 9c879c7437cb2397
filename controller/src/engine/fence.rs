//! Taking a rollout back although its release forbids it: only with a reason, which is written down.

use rota_rollout::names::RolloutId;
use rota_rollout::verbs::{Verb, allow};

use super::Turn;
use super::admission::no_reason;
use crate::errors::Sort;
use crate::view::ErrorView;

impl Turn<'_> {
    /// `why`: the reason for breaking the fence, if it is to be broken.
    pub(super) fn past_fence(
        &mut self,
        id: &RolloutId,
        who: &str,
        why: Option<&str>,
    ) -> Result<(), ErrorView> {
        if why.is_some_and(|why| why.trim().is_empty()) {
            return Err(no_reason());
        }
        let active = self.state.rollouts.get(id);
        let allowed = active.filter(|it| allow(&it.rollout, &Verb::Rollback).is_ok());
        let fence = allowed.and_then(|active| active.rollout.spec.fence.clone());
        match (fence, why) {
            (None, _) => {}
            (Some(fence), Some(why)) => {
                self.event_of(id, None, format!("{who} breaks the fence: {why} ({fence})"));
            }
            (Some(fence), None) => {
                let hint = format!(
                    "`rota rollout abort {id}` leaves it mixed; \
                     `rota rollout rollback {id} --break-fence -m WHY` goes back all the same"
                );
                let message = format!("rollout {id} cannot go back: {fence}");
                return Err(Sort::Refused.error(message, hint));
            }
        }
        Ok(())
    }
}
