//! What a rollout by a plan comes to: the capacity that each batch leaves, where it asks, and what would hold it.
//!
//! Everything here assumes that nothing else fails: offline nodes stay away, the others do as they are told.

use std::collections::BTreeSet;

use crate::batches::{Target, serves};
use crate::gate::Hold;
use crate::names::NodeName;
use crate::node::Serving;
use crate::strategy::{Amount, Mode, Offline, OnFailure, StartOrder, Strategy, Tolerance};

/// What one batch comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Its number, from 1.
    pub batch: usize,
    /// The most serving targets that are out at once, by us, while it is in turn.
    pub out: usize,
    /// The fewest targets in traffic while it is in turn.
    pub in_traffic: usize,
}

/// A plan that is being looked at.
pub(crate) struct Forecast<'a> {
    pub targets: &'a [Target],
    /// The targets of each batch.
    pub batches: Vec<Vec<&'a Target>>,
    pub strategy: &'a Strategy,
}

/// The batches between which nothing stands: in window mode nodes of several of them are under way at once.
#[derive(Default)]
struct Group {
    /// Targets in it that serve.
    serving: usize,
    /// Targets in it that do not, and will.
    mended: usize,
    /// Of these, the ones that are down, and use up the limit until then.
    down: usize,
}

impl Forecast<'_> {
    /// What each batch comes to.
    pub fn steps(&self) -> Vec<Ahead> {
        let all = self.targets.len();
        let now = self.targets.iter().filter(|target| serves(target)).count();
        let mut down = self.targets.iter().filter(|target| self.uses_up(target)).count();
        let mut mended = 0;
        let mut group = Group::default();
        let mut steps = Vec::with_capacity(self.batches.len());
        for (index, batch) in self.batches.iter().enumerate() {
            if index == 0 || self.is_cut_off(index) {
                mended += group.mended;
                down -= group.down;
                group = Group::default();
            }
            for target in batch {
                let comes = !serves(target) && self.will_serve(target);
                group.serving += usize::from(serves(target));
                group.mended += usize::from(comes);
                group.down += usize::from(comes && self.uses_up(target));
            }
            let (width, limit) = (
                self.strategy.batch_size(index + 1, all),
                self.strategy.unavailable_limit(index + 1, all),
            );
            // The worst is at its beginning: nobody is mended yet, and whoever serves and may, leaves.
            let places = width.min(limit).saturating_sub(group.mended);
            let first = group.serving.min(places).min(limit.saturating_sub(down));
            let later = limit.saturating_sub(down - group.down);
            let (out, first) = match self.strategy.order {
                StartOrder::StopFirst => (group.serving.min(width).min(later), first),
                StartOrder::StartFirst => (0, 0),
            };
            steps.push(Ahead { batch: index + 1, out, in_traffic: now + mended - first });
        }
        steps
    }

    /// Must everything before this batch be over when it begins?
    fn is_cut_off(&self, index: usize) -> bool {
        if self.strategy.mode == Mode::Batches || self.asks_after(index) {
            return true;
        }
        let moves = |batch: &&Vec<&Target>| batch.iter().any(|target| self.will_serve(target));
        let label = |batch: &Vec<&Target>| batch.first().map(|target| target.spread.clone());
        let (before, this) = (&self.batches[..index], &self.batches[index]);
        let before = before.iter().rev().find(moves).map(label);
        self.strategy.spread_by.is_some() && moves(&this) && before != Some(label(this))
    }

    fn asks_after(&self, batch: usize) -> bool {
        self.strategy.approve_after.iter().any(|after| after.get() as usize == batch)
    }

    /// Will it serve when the rollout is done with it?
    fn will_serve(&self, target: &Target) -> bool {
        target.observed.online || self.strategy.offline == Offline::Wait
    }

    /// Does it use up the limit now, without our doing? Where the operator promised no capacity of his own, those that
    /// are offline and passed over do not.
    fn uses_up(&self, target: &Target) -> bool {
        let passed_over = target.left_alone
            || (!target.observed.drained && self.strategy.offline == Offline::Skip);
        let counts = target.observed.online || !passed_over;
        let capacity = target.observed.serving != Serving::Absent;
        !serves(target) && capacity && (counts || self.strategy.max_unavailable.is_some())
    }

    /// The batches after which an operator must promote.
    pub fn approvals(&self) -> Vec<usize> {
        (1..self.batches.len()).filter(|batch| self.asks_after(*batch)).collect()
    }

    /// What would hold it if nothing changes, in the order in which it would be met.
    pub fn holds(&self) -> Vec<Hold> {
        let moving: Vec<&Target> = self.batches.iter().flatten().copied().collect();
        let away = |target: &&&Target| !target.observed.online;
        let offline: Vec<NodeName> =
            moving.iter().filter(away).map(|target| target.name.clone()).collect();
        let mut holds = Vec::new();
        let (all, tolerance) = (self.targets.len(), self.strategy.max_failures);
        match self.strategy.offline {
            Offline::Wait if !offline.is_empty() => holds.push(Hold::Offline { nodes: offline }),
            Offline::Fail
                if offline.len() > tolerance.of(all)
                    && self.strategy.on_failure != OnFailure::Continue =>
            {
                let limit = tolerance.of(all);
                holds.push(Hold::Failures { failed: offline, targets: all, limit });
            }
            Offline::Wait | Offline::Fail | Offline::Skip => {}
        }
        holds.extend(self.no_capacity());
        let busy = moving.iter().filter(|target| target.observed.busy);
        let busy: Vec<NodeName> = busy.map(|target| target.name.clone()).collect();
        if !busy.is_empty() {
            holds.push(Hold::Busy { nodes: busy });
        }
        holds
    }

    /// Are so many targets down, and stay so, that the serving ones of some batch could not be updated?
    fn no_capacity(&self) -> Option<Hold> {
        if self.strategy.order == StartOrder::StartFirst {
            return None;
        }
        let moved: BTreeSet<&NodeName> =
            self.batches.iter().flatten().map(|target| &target.name).collect();
        let stays_down = |target: &&Target| {
            self.uses_up(target) && !(moved.contains(&target.name) && self.will_serve(target))
        };
        let down: Vec<NodeName> =
            self.targets.iter().filter(stays_down).map(|target| target.name.clone()).collect();
        let limits = self.batches.iter().enumerate().filter_map(|(index, batch)| {
            let limit = self.strategy.unavailable_limit(index + 1, self.targets.len());
            batch.iter().any(|target| serves(target)).then_some(limit)
        });
        let limit = limits.into_iter().find(|limit| down.len() >= *limit)?;
        Some(Hold::Capacity { down, limit })
    }

    /// Every percentage, resolved, and every approval that is never asked, for people.
    pub fn notes(&self) -> Vec<String> {
        let all = self.targets.len();
        let mut notes = Vec::new();
        let mut say = |what: &str, percent: u32, resolved: usize| {
            let line = format!("{what}: {percent} % of {all} = {resolved}");
            if !notes.contains(&line) {
                notes.push(line);
            }
        };
        let named = self.strategy.max_unavailable.map(|amount| ("max_unavailable", amount));
        let sizes = self.strategy.batch.iter().map(|amount| ("batch", *amount));
        for (what, amount) in sizes.chain(named) {
            if let Amount::Percent(percent) = amount {
                say(what, percent.get(), amount.of(all));
            }
        }
        if let Tolerance::Percent(percent) = self.strategy.max_failures {
            say("max_failures", percent.get(), self.strategy.max_failures.of(all));
        }
        let batches = self.batches.len();
        let asked = self.strategy.approve_after.iter().map(|after| after.get() as usize);
        for after in asked.filter(|after| *after >= batches && batches > 0) {
            let why = match (after == batches, batches) {
                (true, _) => "nothing comes after that batch".to_owned(),
                (false, 1) => "there is only 1 batch".to_owned(),
                (false, _) => format!("there are only {batches} batches"),
            };
            notes.push(format!("approve_after {after}: {why}, so it is never asked"));
        }
        notes
    }
}
