//! Targets and strategy make batches: the plan, before anything is touched.

use std::collections::BTreeMap;

use crate::forecast::{Ahead, Forecast};
use crate::gate::Hold;
use crate::names::{NodeName, Release};
use crate::node::{Node, Observed, Phase, Serving, Skip};
use crate::strategy::{Offline, Strategy};

/// A node that the manifest's `[target]` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: NodeName,
    /// What the fleet says of it.
    pub observed: Observed,
    /// The release of the app that runs there.
    pub runs: Option<Release>,
    /// The value of the `spread_by` label; `None` without one.
    pub spread: Option<String>,
    /// It counts for the capacity, but is not to be moved: only others catch up.
    pub left_alone: bool,
}

/// What a rollout would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The nodes of each batch in order.
    pub batches: Vec<Vec<NodeName>>,
    /// Targets that are left alone, and why.
    pub skipped: Vec<(NodeName, Skip)>,
    /// All targets.
    pub targets: usize,
    /// Of these, in traffic now.
    pub in_traffic: usize,
    /// The fewest in traffic at any moment, if nothing else fails.
    pub least_in_traffic: usize,
    /// What each batch comes to.
    pub steps: Vec<Ahead>,
    /// The batches after which an operator must promote.
    pub approvals: Vec<usize>,
    /// What would hold it, if nothing changes.
    pub holds: Vec<Hold>,
    /// Why it would not be safe; empty: it may start.
    pub refusals: Vec<String>,
    /// How each percentage resolved, and what the strategy asks in vain.
    pub notes: Vec<String>,
}

/// Makes the plan. `restart`: also nodes that run the release already.
pub fn plan(targets: &[Target], strategy: &Strategy, to: &Release, restart: bool) -> Plan {
    let mut skipped = Vec::new();
    let mut moving: Vec<&Target> = Vec::new();
    for target in targets {
        match skip(target, strategy, to, restart) {
            Some(why) => skipped.push((target.name.clone(), why)),
            None => moving.push(target),
        }
    }
    // What is down already goes first: mending it costs no capacity and gives some back.
    moving.sort_by_key(|target| (serves(target), target.spread.clone(), target.name.clone()));
    let batches = cut(&moving, strategy, targets.len());
    let in_traffic = targets.iter().filter(|target| serves(target)).count();
    let mut rest = moving.as_slice();
    let taken = batches.iter().map(|batch| {
        let (these, others) = rest.split_at(batch.len());
        rest = others;
        these.to_vec()
    });
    let forecast = Forecast { targets, batches: taken.collect(), strategy };
    let steps = forecast.steps();
    let least = steps.iter().map(|step| step.in_traffic).min().unwrap_or(in_traffic);
    Plan {
        refusals: refusals(targets, &moving, strategy),
        notes: forecast
            .notes()
            .into_iter()
            .chain(rehearsed(&moving, &batches, strategy, to))
            .collect(),
        holds: forecast.holds(),
        approvals: forecast.approvals(),
        steps,
        batches,
        skipped,
        targets: targets.len(),
        in_traffic,
        least_in_traffic: least.min(in_traffic),
    }
}

pub(crate) fn serves(target: &Target) -> bool {
    target.observed.online && target.observed.serving == Serving::In
}

fn skip(target: &Target, strategy: &Strategy, to: &Release, restart: bool) -> Option<Skip> {
    if target.left_alone {
        return Some(Skip::NotMeant);
    }
    if target.observed.drained {
        return Some(Skip::Drained);
    }
    if !target.observed.online {
        return (strategy.offline == Offline::Skip).then_some(Skip::Offline);
    }
    let current = target.runs.as_ref() == Some(to) && target.observed.serving == Serving::In;
    (current && !restart).then_some(Skip::AlreadyCurrent)
}

/// Cuts the sorted targets into batches; a batch never spans two values of the `spread_by` label.
fn cut(moving: &[&Target], strategy: &Strategy, targets: usize) -> Vec<Vec<NodeName>> {
    let mut batches: Vec<Vec<NodeName>> = Vec::new();
    let mut value: Option<&Option<String>> = None;
    for target in moving {
        let number = batches.len();
        let full = batches.last().is_none_or(|batch: &Vec<NodeName>| {
            batch.len() >= strategy.batch_size(number, targets)
        });
        let other_value = strategy.spread_by.is_some() && value != Some(&target.spread);
        if full || other_value {
            batches.push(Vec::new());
        }
        value = Some(&target.spread);
        if let Some(batch) = batches.last_mut() {
            batch.push(target.name.clone());
        }
    }
    batches
}

fn refusals(targets: &[Target], moving: &[&Target], strategy: &Strategy) -> Vec<String> {
    let mut refusals = Vec::new();
    if targets.is_empty() {
        refusals.push(
            "no node matches the target: check the environment, [target] roles and labels, \
             and `rota node ls`"
                .to_owned(),
        );
        return refusals;
    }
    if let Some(amount) = strategy.max_unavailable {
        let limit = amount.of(targets.len());
        let offline: Vec<NodeName> = targets
            .iter()
            .filter(|t| !t.observed.online && t.observed.serving != Serving::Absent)
            .map(|t| t.name.clone())
            .collect();
        let blocked = moving.iter().any(|target| serves(target));
        if blocked && offline.len() >= limit {
            refusals.push(format!(
                "{} of {} targets are offline ({}) and max_unavailable is {limit}: \
                 no serving node could be updated",
                offline.len(),
                targets.len(),
                crate::gate::list(&offline),
            ));
        }
    }
    refusals
}

/// Which batch goes back and forward again before the others, or why none.
fn rehearsed(
    moving: &[&Target],
    batches: &[Vec<NodeName>],
    strategy: &Strategy,
    to: &Release,
) -> Option<String> {
    let back = |name: &NodeName| {
        let target = moving.iter().find(|target| target.name == *name);
        target.is_some_and(|it| it.runs.as_ref().is_some_and(|runs| runs != to))
    };
    let first = batches.iter().position(|batch| batch.iter().any(back));
    strategy.rehearse_rollback.then(|| match first {
        Some(index) => format!("batch {} is rehearsed: forward, back, forward again", index + 1),
        None => "the rehearsal of the way back is skipped: no target runs another release, \
                 so there is nothing to go back to"
            .to_owned(),
    })
}

impl Plan {
    /// The records of all targets, for a rollout that starts by this plan.
    pub fn nodes(&self, targets: &[Target]) -> BTreeMap<NodeName, Node> {
        let mut nodes = BTreeMap::new();
        let by_name: BTreeMap<&NodeName, &Target> = targets.iter().map(|t| (&t.name, t)).collect();
        for (index, batch) in self.batches.iter().enumerate() {
            for name in batch {
                if let Some(target) = by_name.get(name) {
                    let node = Node::waiting(index + 1, target.observed, target.runs.clone());
                    let node = Node { spread: target.spread.clone(), ..node };
                    nodes.insert(name.clone(), node);
                }
            }
        }
        for (name, why) in &self.skipped {
            if let Some(target) = by_name.get(name) {
                let mut node = Node::waiting(1, target.observed, target.runs.clone());
                node.phase = Phase::Skipped { why: *why };
                node.spread.clone_from(&target.spread);
                nodes.insert(name.clone(), node);
            }
        }
        nodes
    }
}

#[cfg(test)]
mod tests;
