//! A node that came after the rollout was admitted, or has lost everything since, joins it.

use super::observed::{is_in_batch, joins_late};
use super::prepare;
use crate::batches::Target;
use crate::draft::Draft;
use crate::newcomers::takes_in;
use crate::node::{Node, Phase};

/// It goes with the batch after the one in turn: that one stays as it was looked at, and ends; with the last batch when
/// that is in turn. Every percentage stays what it was when the rollout was admitted.
pub(super) fn joins(draft: &mut Draft, target: &Target) -> bool {
    let name = &target.name;
    if !takes_in(draft.base(), name) || !target.observed.online || target.observed.drained {
        return false;
    }
    let known = draft.node(name).cloned();
    let (why, before) = match &known {
        Some(_) if target.runs.is_some() => return false,
        Some(node) => ("has nothing any more", node.clone()),
        None => ("is new here", Node::waiting(0, target.observed, target.runs.clone())),
    };
    let batch = (draft.head.batch + 1).min(draft.spec().batches.len()).max(draft.head.batch);
    let node = Node {
        batch,
        phase: Phase::Waiting,
        observed: target.observed,
        runs: target.runs.clone(),
        // What it would run if this rollout had not been: there it goes when the rollout goes back.
        previous: before.previous.clone().or_else(|| draft.spec().from.clone()),
        spread: target.spread.clone(),
        ..before
    };
    draft.note_on(name, format!("{why}: it goes with batch {batch}"));
    draft.set(name, node);
    if !is_in_batch(draft, name, batch) {
        joins_late(draft, name);
    }
    prepare(draft, name);
    true
}
