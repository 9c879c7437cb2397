//! What must hold after every step, counted here from the records alone, and not by the core's own tallies.

use rota_rollout::node::{Direction, Left, Node, Phase, Serving, Skip};
use rota_rollout::rollout::{Outcome, Stage};
use rota_rollout::strategy::{Deadline, Mode, OnFailure, StartOrder};
use rota_rollout::{Hold, Order, Rollout, invariants};

use super::fleet::Fleet;

/// Is it capacity that does not serve, for whatever reason?
fn is_out(node: &Node) -> bool {
    match node.observed.serving {
        _ if matches!(node.phase, Phase::Updating { takes_out: true, .. }) => true,
        Serving::Absent => false,
        Serving::In => !node.observed.online,
        Serving::Out => true,
    }
}

/// Away and passed over: where no capacity was promised it stops nobody.
fn is_passed_over(node: &Node) -> bool {
    match node.phase {
        Phase::Skipped { why: Skip::Offline } => true,
        Phase::Skipped { why: Skip::ByOperator | Skip::NotMeant } => !node.observed.online,
        _ => false,
    }
}

fn limit(rollout: &Rollout, batch: usize) -> usize {
    rollout.spec.strategy.unavailable_limit(batch, rollout.spec.targets)
}

/// Must it still be taken back?
fn is_to_go_back(rollout: &Rollout, node: &Node) -> bool {
    let somewhere = node.previous.as_ref().is_some_and(|before| *before != rollout.spec.to);
    let forward = matches!(node.phase, Phase::Monitoring { direction: Direction::Forward, .. });
    let running = matches!(node.phase, Phase::Updating { .. } | Phase::Monitoring { .. });
    running || (somewhere && (forward || node.phase == Phase::Done))
}

/// Was it left out of traffic on the way to the new release, with one before to go back to?
fn is_left_out(rollout: &Rollout, node: &Node) -> bool {
    let somewhere = node.previous.as_ref().is_some_and(|before| *before != rollout.spec.to);
    somewhere && matches!(node.phase, Phase::Failed { left: Left::Out | Left::Unknown, .. })
}

impl Fleet {
    /// After every step.
    pub fn check(&mut self, before: &Rollout, orders: &[Order]) {
        let wrong = invariants::violations(&self.rollout);
        assert!(wrong.is_empty(), "{wrong:?}: {:#?}", self.story);
        self.check_named();
        let mut started = Vec::new();
        for order in orders {
            if let Order::Update { node, attempt, direction, .. } = order {
                self.check_order(before, order);
                if *direction == Direction::Forward {
                    let new = self.attempts.insert((node.clone(), *attempt));
                    assert!(new, "{node} is ordered twice in {attempt}: {:#?}", self.story);
                    *self.ordered.entry(node.clone()).or_default() += 1;
                    self.order.push(node.clone());
                }
                started.push(node.clone());
            }
        }
        if started.is_empty() {
            return;
        }
        let rollout = &self.rollout;
        let story = &self.story;
        let spec = &rollout.spec;
        let batches = started.iter().map(|name| rollout.nodes()[name].batch);
        let out = rollout.nodes().values().filter(|node| {
            let promised = rollout.spec.strategy.max_unavailable.is_some();
            is_out(node) && (promised || !is_passed_over(node))
        });
        let takes_out =
            |name| matches!(rollout.nodes()[name].phase, Phase::Updating { takes_out: true, .. });
        if started.iter().any(takes_out) {
            let limits = batches.clone().map(|batch| limit(rollout, batch));
            let (out, limit) = (out.count(), limits.max().unwrap_or(0));
            assert!(out <= limit, "{out} are out, the limit is {limit}: {story:#?}");
        }
        let running: Vec<&Node> =
            rollout.nodes().values().filter(|node| node.phase.is_running()).collect();
        let widths = batches.map(|batch| spec.strategy.batch_size(batch, spec.targets));
        let width = widths.max().unwrap_or(0);
        let turned = started.iter().all(|name| before.nodes()[name].phase.is_running());
        assert!(running.len() <= width || turned, "{} > {width}: {story:#?}", running.len());
        if rollout.spec.strategy.spread_by.is_some() {
            let same = running.windows(2).all(|two| two[0].spread == two[1].spread);
            assert!(same, "two zones are under way: {story:#?}");
        }
    }

    /// Who was asked for by name once more waits for no failure of another.
    fn check_named(&self) {
        let head = &self.rollout.head;
        let held = head.held.as_ref().map(|held| &held.hold);
        let Some(Hold::Failures { .. } | Hold::Fence { .. }) = held else { return };
        for name in self.named.iter().filter(|_| head.stage == Stage::Rolling) {
            let node = &self.rollout.nodes()[name];
            let in_turn = node.batch == head.batch && node.observed.online;
            let waits = in_turn && node.phase == Phase::Ready;
            assert!(!waits, "{name} was asked for and waits: {:#?}", self.story);
        }
    }

    /// Before a node may be ordered to move.
    fn check_order(&self, before: &Rollout, order: &Order) {
        let Order::Update { node: name, attempt, direction, .. } = order else { return };
        let (rollout, story) = (&self.rollout, &self.story);
        let (head, strategy) = (&rollout.head, &rollout.spec.strategy);
        let node = &rollout.nodes()[name];
        assert!(node.observed.online && !node.observed.busy, "{name}: {story:#?}");
        assert!(head.paused.is_none() && head.frozen.is_none(), "{name}: {story:#?}");
        assert!(head.edges_offline.is_empty(), "{name}: {story:#?}");
        assert!(*attempt >= before.nodes()[name].attempt, "{name}: {story:#?}");
        match direction {
            Direction::Forward => {
                assert!(!node.observed.drained, "{name} is drained: {story:#?}");
                // Whom this very step gives up for being offline may come after.
                let failed = before.nodes().iter().filter(|(name, node)| {
                    let still = |node: &Node| matches!(node.phase, Phase::Failed { .. });
                    still(node) && still(&rollout.nodes()[*name])
                });
                let borne = strategy.on_failure == OnFailure::Continue
                    || self.named.contains(name)
                    || failed.count() <= rollout.failures_borne();
                assert!(borne, "{name} begins, and too many failed: {story:#?}");
                if let Deadline::After(after) = strategy.deadline {
                    let late = self.at >= rollout.spec.started.after(after);
                    assert!(!late || head.deadline_waived, "{name} is too late: {story:#?}");
                }
                if let (Some(gap), Mode::Batches) = (head.gap_since, strategy.mode) {
                    assert!(self.at >= gap.after(strategy.delay), "{name} is early: {story:#?}");
                }
                for after in strategy.approve_after.iter().map(|after| after.get() as usize) {
                    let asked = node.batch > after && after < rollout.spec.batches.len();
                    assert!(!asked || head.approved >= after, "no approval: {story:#?}");
                }
            }
            Direction::Back => {
                let newer = rollout
                    .nodes()
                    .iter()
                    .find(|(_, other)| other.batch > node.batch && is_to_go_back(rollout, other));
                assert!(newer.is_none(), "{name} goes back before {newer:?}: {story:#?}");
            }
        }
        if strategy.order == StartOrder::StartFirst {
            assert!(!matches!(node.phase, Phase::Updating { takes_out: true, .. }));
        }
    }

    /// When it is over.
    pub fn check_end(&self) {
        let (rollout, story) = (&self.rollout, &self.story);
        let Stage::Ended { outcome, .. } = rollout.head.stage else { panic!("not over") };
        for (name, node) in rollout.nodes() {
            let phase = &node.phase;
            let open = matches!(phase, Phase::Waiting | Phase::Preparing { .. } | Phase::Ready);
            match outcome {
                Outcome::Completed | Outcome::Partial => {
                    assert!(phase.is_settled() && !open, "{name} {phase:?}: {story:#?}");
                    let whole = matches!(phase, Phase::Done | Phase::Skipped { .. });
                    assert!(whole || outcome == Outcome::Partial, "{name} {phase:?}: {story:#?}");
                }
                Outcome::RolledBack => {
                    let was_there = node.previous.as_ref() == Some(&rollout.spec.to);
                    assert!(*phase != Phase::Done || was_there, "{name}: {story:#?}");
                    assert!(!phase.is_running(), "{name} {phase:?}: {story:#?}");
                    assert!(!is_left_out(rollout, node), "{name} is left out: {story:#?}");
                }
                Outcome::Failed | Outcome::Aborted => {
                    assert!(!phase.is_running(), "{name} {phase:?}: {story:#?}");
                }
            }
            let times = self.ordered.get(name).copied().unwrap_or(0);
            let anew = self.anew.get(name).copied().unwrap_or(0);
            let ways = if rollout.spec.strategy.rehearse_rollback { 2 } else { 1 };
            assert!(
                times <= ways * (1 + self.retries + anew),
                "{name} was ordered {times} times: {story:#?}"
            );
        }
    }
}
