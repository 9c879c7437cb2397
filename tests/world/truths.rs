//! What must hold (design, section 8), as the world itself sees it: from its processes and edges, not from reports.

use rota_agent::update::{App, Instance, Left, Said, Side, What, Work};
use rota_rollout::batches::{Plan, Target};
use rota_rollout::node::{Direction, Phase, Skip};
use rota_rollout::strategy::{OnNodeFailure, Strategy};
use rota_rollout::{Hold, invariants};
use rota_rollout::{Order, Rollout};

use super::World;
use super::fleet::Quality;
use super::node::revision_of;

/// Within so long a controller sees that a node serves again, or its session breaks.
const SEEN_AFTER_MS: u64 = 30_000;

/// The most targets that the rollout may ever take out at once.
fn limit(rollout: &Rollout) -> usize {
    let spec = &rollout.spec;
    (1..=spec.batches.len().max(1))
        .map(|batch| spec.strategy.unavailable_limit(batch, spec.targets))
        .max()
        .unwrap_or(0)
}

impl World {
    /// After every step of the core.
    pub fn check_step(
        &mut self,
        ctl: u64,
        revision: u64,
        orders: &[Order],
        was_held: Option<Hold>,
    ) {
        let Some(active) = self.active(ctl, revision) else { return };
        let mut wrong = invariants::violations(&active.rollout);
        let head = &active.rollout.head;
        let starts =
            orders.iter().any(|order| matches!(order, Order::Update { .. } | Order::Run { .. }));
        let now_held = head.held.as_ref().map(|held| held.hold.clone());
        let forward = |order: &Order| {
            matches!(order, Order::Update { direction: Direction::Forward, .. })
                || matches!(order, Order::Once { .. })
        };
        let closed = head.closed.is_some() && orders.iter().any(forward);
        let shut = (head.frozen.is_some() || closed) && head.break_glass.is_none();
        let once = orders.iter().any(|order| matches!(order, Order::Once { .. }));
        if once && (head.frozen.is_some() || head.closed.is_some()) && head.break_glass.is_none() {
            wrong.push("the once-per-release job starts while frozen or closed".to_owned());
        }
        let stopped = head.paused.is_some() || shut || !head.edges_offline.is_empty();
        if starts && (stopped || (was_held.is_some() && now_held == was_held)) {
            wrong.push(format!(
                "an update starts while paused {:?}, frozen {:?}, closed {:?}, edges offline {:?}, \
                 held {:?}",
                head.paused, head.frozen, head.closed, head.edges_offline, head.held
            ));
        }
        if self.several.is_some() {
            wrong.extend(self.wrong_across(ctl, revision, orders));
        }
        if let Some(kept) = self.store.rollouts.get(&revision)
            && kept.term == active.term
            && kept.rollout != active.rollout
        {
            wrong.push("the owner's state is not what is durable".to_owned());
        }
        if !wrong.is_empty() {
            self.violation(format!("rollout {revision}: {}", wrong.join("; ")));
        }
    }

    /// The plan names every target once.
    pub fn check_plan(&mut self, plan: &Plan, targets: &[Target], strategy: &Strategy) {
        let planned = plan.batches.iter().map(Vec::len).sum::<usize>() + plan.skipped.len();
        if planned != targets.len() {
            self.violation(format!("{planned} of {} targets are planned", targets.len()));
        }
        for (index, batch) in plan.batches.iter().enumerate() {
            if batch.is_empty() || batch.len() > strategy.batch_size(index + 1, targets.len()) {
                self.violation(format!("batch {} has {} nodes", index + 1, batch.len()));
            }
        }
    }

    /// After every event of an agent, when it is in the journal.
    pub fn check_fed(&mut self, node: usize, before: &App, what: &What) {
        let host = &self.nodes[node];
        let mut wrong = Vec::new();
        if let What::Ordered(order) = what
            && host.terms.get(&order.rollout).is_some_and(|newest| order.term < *newest)
            && host.journal != *before
        {
            wrong.push(format!("n{node} carries out an order of term {}", order.term));
        }
        let fences: Vec<(String, u64)> =
            host.journal.fences.iter().map(|(name, fence)| (name.clone(), fence.term)).collect();
        let app = &host.journal;
        let updated =
            matches!(before.work, Work::Update(_)) && !matches!(app.work, Work::Update(_));
        if updated && !host.leaky {
            wrong.extend(self.unfinished(node));
        }
        let host = &mut self.nodes[node];
        for (name, term) in fences {
            let newest = host.terms.entry(name).or_default();
            *newest = term.max(*newest);
        }
        for wrong in wrong {
            self.violation(wrong);
        }
    }

    /// An update ended: is anything between the old release and the new one?
    fn unfinished(&self, node: usize) -> Vec<String> {
        let host = &self.nodes[node];
        let current = host.journal.current.as_ref();
        let mut wrong = Vec::new();
        let belongs = current.map(|settled| settled.spec.digest.as_str());
        let linked = host.link.map(|index| self.made[index].spec.digest.as_str());
        let left_out = current.is_some_and(|settled| settled.side == Side::Out);
        if belongs != linked && !left_out {
            wrong.push(format!("n{node}: `current` is {linked:?}, the journal says {belongs:?}"));
        }
        let mine = current.and_then(|settled| settled.instance.as_ref()).map(|i| i.token);
        let strangers: Vec<u64> = host
            .procs
            .iter()
            .filter(|(token, proc)| proc.alive && Some(**token) != mine)
            .map(|(token, _)| *token)
            .collect();
        let instance = current.and_then(|settled| settled.instance.as_ref());
        let lives = mine.is_some_and(|token| host.procs.get(&token).is_some_and(|p| p.alive));
        let serves = instance
            .and_then(|i| host.members.get(&i.label))
            .is_some_and(|member| Some(member.token) == mine && member.side == Side::In);
        let reviving = matches!(host.journal.work, Work::Revive(_) | Work::Move(Side::In));
        if lives && !left_out && !serves && !host.journal.drained && !reviving {
            wrong.push(format!("n{node}: its update ended, and it is not back in traffic"));
        }
        if !strangers.is_empty() {
            wrong.push(format!("n{node}: processes {strangers:?} run and belong to nothing"));
        }
        wrong
    }

    /// An update takes an instance out of traffic.
    pub fn check_taking_out(&mut self, node: usize, instance: &Instance) {
        let host = &self.nodes[node];
        let Work::Update(update) = &host.journal.work else { return };
        let serves = |label: &String, token: u64| {
            let member = host.members.get(label);
            member.is_some_and(|m| m.token == token && m.side == Side::In)
                && host.procs.get(&token).is_some_and(|proc| proc.alive)
        };
        let others = host
            .members
            .iter()
            .any(|(label, member)| member.token != instance.token && serves(label, member.token));
        if !serves(&instance.label, instance.token) || others {
            return;
        }
        if host.serves_since.is_none_or(|since| self.now < since + SEEN_AFTER_MS) {
            return; // it was down when the order was made, and nobody can have seen it come back
        }
        let Some(revision) = revision_of(&update.order.rollout) else { return };
        let Some(kept) = self.store.rollouts.get(&revision) else { return };
        let own = limit(&kept.rollout);
        let running = self.store.open(kept.line).map(|(_, kept)| kept);
        let line = kept.line;
        let limit = running.map(|kept| limit(&kept.rollout)).max().unwrap_or(0).max(own);
        self.nodes[node].taken_out = true;
        let out: Vec<String> = self
            .nodes
            .iter()
            .filter(|node| node.taken_out && node.line == line)
            .map(|node| node.name.to_string())
            .collect();
        if out.len() > limit {
            self.violation(format!(
                "{out:?} are out of traffic by our doing, the limit is {limit}"
            ));
        }
    }

    pub fn check_stop(&mut self, node: usize, instance: &Instance) {
        let now = self.now;
        let host = &self.nodes[node];
        let Some(proc) = host.procs.get(&instance.token).filter(|proc| proc.alive) else { return };
        let member = host.members.get(&instance.label).filter(|m| m.token == instance.token);
        let in_traffic = member.is_some_and(|member| member.side == Side::In);
        let cut = proc.in_flight.iter().filter(|end| **end > now).count();
        let counted = proc.counted;
        let says_ready = host.journal.serving().is_some_and(|it| it.token == instance.token);
        if says_ready {
            let wrong = format!("n{node}: process {} is stopped and says ready", instance.token);
            return self.violation(wrong);
        }
        if in_traffic {
            self.violation(format!("n{node}: process {} is stopped in traffic", instance.token));
        } else if cut > 0 && !counted {
            self.violation(format!("n{node}: {cut} requests are cut and not counted"));
        }
    }

    pub fn check_start(&mut self, node: usize, release: usize, label: &str) {
        let host = &self.nodes[node];
        if !host.disk.contains(&release) {
            self.violation(format!("n{node} starts a release that is not complete"));
        }
        let host = &self.nodes[node];
        let beside = match &host.journal.work {
            Work::Update(update) => update.order.start_first,
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => false,
        };
        if host.procs.values().any(|proc| proc.alive) && !beside && !host.leaky {
            self.violation(format!("n{node}: {label:?} starts beside a process that runs"));
        }
    }

    pub fn check_link(&mut self, node: usize) {
        let host = &self.nodes[node];
        if host.link.is_some_and(|link| !host.disk.contains(&link)) {
            self.violation(format!("n{node}: `current` points to an incomplete release"));
        }
    }

    /// A command begins on a node: never without a new attempt.
    pub fn check_run(&mut self, node: usize, key: (u64, u32)) {
        let kept = self.store.rollouts.get(&key.0).map(|kept| &kept.rollout);
        let ordered = kept.and_then(|rollout| rollout.nodes().get(&self.nodes[node].name));
        if ordered.is_none_or(|known| known.attempt.0 < key.1) {
            self.violation(format!("n{node} runs a command that nobody has written down"));
        }
    }

    pub fn check_once(&mut self, node: usize, key: (u64, u32)) {
        use rota_rollout::event::OnceResult::Succeeded;
        let before = self.nodes.iter().flat_map(|host| &host.once);
        let again = before.filter(|((revision, _), _)| *revision == key.0);
        if again.clone().any(|(_, end)| *end == Some(Succeeded)) {
            self.violation(format!("n{node} runs the job of rollout {} again", key.0));
        }
    }

    /// Is everything at rest after the faults?
    pub fn is_over(&self) -> bool {
        let rests = |node: &super::node::Node| {
            node.powered
                && node.agent.as_ref().is_some_and(|agent| agent.job.is_none())
                && node.journal.work == Work::Idle
                && node.outbox.is_empty()
        };
        !self.faulty
            && self.now > self.quiet_since + 240_000
            && (self.live.is_some() || self.several.is_some_and(|all| self.members_alive() == all))
            && (self.rollouts_left == 0 || self.now > self.quiet_since + 3_600_000)
            && self.store.rollouts.values().all(|kept| kept.rollout.is_ended())
            && self.nodes.iter().enumerate().all(|(n, node)| rests(node) || !self.is_good(n))
    }

    /// Does it run a release that has nothing wrong with it here?
    fn is_good(&self, node: usize) -> bool {
        self.nodes[node].link.is_none_or(|link| self.made[link].quality[node] == Quality::Good)
    }

    /// At rest: who should serve, serves.
    pub fn check_end(&mut self) {
        for node in 0..self.nodes.len() {
            let host = &self.nodes[node];
            let Some(current) = &host.journal.current else { continue };
            if !self.is_good(node) {
                continue;
            }
            let serves = self.inventory(node).traffic_in;
            let drained = self.store.drained[node];
            let side = current.side;
            if drained && serves {
                self.violation(format!("n{node} is drained by an operator and serves"));
            } else if !drained && side == Side::In && !serves {
                self.violation(format!("n{node} is healthy and stays out of traffic"));
            } else if !drained && side == Side::Out && !self.may_stay_out(node) {
                self.violation(format!("n{node} was left out of traffic for no reason"));
            }
        }
    }

    /// Its restore failed too, or it was to be left.
    fn may_stay_out(&self, node: usize) -> bool {
        let host = &self.nodes[node];
        host.leaky
            || host.journal.fences.iter().any(|(rollout, fence)| {
                let Some(Said::Failed(failed)) = &fence.last else { return false };
                let kept =
                    revision_of(rollout).and_then(|revision| self.store.rollouts.get(&revision));
                let leaves = kept.map(|kept| &kept.rollout).is_some_and(|rollout| {
                    let known = rollout.nodes().get(&host.name);
                    // What an operator skips, nobody takes back for him; and not what ran nothing before.
                    let skipped = known.is_some_and(|known| {
                        matches!(known.phase, Phase::Skipped { why: Skip::ByOperator })
                    });
                    let to = &rollout.spec.to;
                    let first = known.is_some_and(|it| {
                        it.previous.as_ref().is_none_or(|previous| previous == to)
                    });
                    let leave = rollout.spec.strategy.on_node_failure == OnNodeFailure::Leave;
                    first || (leave && (skipped || rollout.state() != "rolled_back"))
                });
                // It was out before an attempt that did not touch it.
                let out = matches!(failed.left, Left::Out | Left::Untouched);
                out && (failed.restore_error.is_some() || leaves)
            })
    }
}
