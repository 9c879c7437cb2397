//! Verbs that come too late: the engine has let go of what is over; the store knows how it ended, and the core what is
//! right then.

use rota_proto::operator::RolloutVerb;
use rota_rollout::names::RolloutId;
use rota_rollout::verbs::allow;

use super::asked::verb_of;
use crate::engine::{Answer, load_ended};
use crate::errors::Sort;
use crate::serve::operators::OperatorService;

/// The engine's answer, or for what is over the core's refusal.
pub(super) async fn answer(
    service: &OperatorService,
    (id, verb): (&RolloutId, &RolloutVerb),
    answer: Answer,
) -> Answer {
    if answer.is_ok() || service.api.engine.read().rollouts.contains_key(id) {
        return answer;
    }
    let verb = verb_of(verb)?;
    let ended = load_ended(service.api.store.as_ref(), id).await?;
    match ended.map(|ended| allow(&ended.rollout, &verb)) {
        Some(Err(refusal)) => Err(Sort::Refused.error(refusal.reason, refusal.hint)),
        Some(Ok(())) | None => answer,
    }
}
