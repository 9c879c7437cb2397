//! What people ask: sensible things, and everything else that is allowed.

use std::rc::Rc;

use rota_agent::update::What as AgentWhat;
use rota_rollout::What;
use rota_rollout::batches::{Plan, Target, plan};
use rota_rollout::gate::Hold;
use rota_rollout::names::{Revision, RolloutId, Span};
use rota_rollout::rollout::{Head, Kind, Rollout, Spec, Stage};
use rota_rollout::shut::Closed;
use rota_rollout::strategy::{StartOrder, Strategy, Tolerance};
use rota_rollout::verbs::{Verb, allow, with_glass};

use super::controller::Active;
use super::fleet::Line;
use super::link::Down;
use super::store::Kept;
use super::{Ev, World, fleet};

/// After so many answers an operator loses patience and aborts.
const PATIENCE: u64 = 12;

impl World {
    pub fn operate(&mut self) {
        let next = self.rng.range(800, 12_000);
        self.after(next, Ev::Operator);
        let Some((ctl, line, running)) = self.desk() else { return };
        let env = self.lines[line].env_number;
        if !self.faulty {
            return match running {
                Some(revision) => self.answer(ctl, revision),
                None => self.deploy(ctl, line),
            };
        }
        match (self.rng.range(0, 12), running) {
            (0 | 1, Some(revision)) => self.ask_anything(ctl, revision),
            (2 | 3, Some(revision)) => self.answer(ctl, revision),
            (4, Some(_)) if self.rng.percent(15) => self.supersede(ctl, line),
            (5, _) if self.rng.percent(30) => {
                let node = self.rng.index(self.nodes.len());
                let drained = self.store.drained[node];
                self.drain_node(node, !drained);
            }
            (6, _) if self.rng.percent(30) => {
                self.freeze(env, Some("a holiday".to_owned()));
                let thaw = self.rng.range(1_000, 60_000);
                self.after(thaw, Ev::Unfreeze { env });
            }
            (9, _) if self.rng.percent(25) => {
                let opens = self.rng.range(1_000, 60_000);
                self.window(env, Some(opens));
                self.after(opens, Ev::WindowOpens { env });
            }
            (7, _) if self.rng.percent(10) => {
                let node = self.rng.index(self.nodes.len());
                self.deed("asked back on the node");
                self.feed(node, AgentWhat::AskedBack);
            }
            (8, Some(_)) if self.rng.percent(20) => {
                self.edge_goes(true);
                let back = self.rng.range(1_000, 40_000);
                self.after(back, Ev::EdgeBack);
            }
            (_, None) => self.deploy(ctl, line),
            (_, Some(_)) => {}
        }
    }

    /// Who answers an operator, about which line, and its newest rollout that runs.
    fn desk(&mut self) -> Option<(u64, usize, Option<u64>)> {
        if self.several.is_some() {
            return self.desk_of_several();
        }
        let ctl = self.live.filter(|ctl| self.is_running(*ctl))?;
        Some((ctl, 0, self.running(ctl, 0)))
    }

    /// The newest rollout of a line that this controller runs.
    pub fn running(&self, ctl: u64, line: usize) -> Option<u64> {
        let mut mine = self.controllers.get(&ctl)?.rollouts.keys();
        mine.rfind(|revision| self.line_of(**revision) == line).copied()
    }

    fn supersede(&mut self, ctl: u64, line: usize) {
        let Some(old) = self.running(ctl, line) else { return };
        let deadly = std::mem::take(&mut self.deadly); // one commit in truth
        self.ask(ctl, old, Verb::Abort);
        self.deploy(ctl, line);
        self.deadly = deadly;
    }

    /// Who writes down what belongs to no rollout. `None`: nobody can now, and `again` comes later.
    fn writer(&mut self, again: Ev) -> Option<u64> {
        let writer = match self.several {
            None => self.live.filter(|ctl| self.is_running(*ctl)),
            Some(_) => self.lead(),
        };
        if writer.is_none() {
            self.after(1_000, again);
        }
        writer
    }

    /// Admits a rollout, if the plan is safe.
    fn deploy(&mut self, ctl: u64, line: usize) {
        if self.rollouts_left == 0 || !self.may_admit(ctl, line) {
            return;
        }
        if self.rng.percent(15) {
            return self.run(ctl, line);
        }
        let strategy = fleet::strategy(&mut self.rng);
        let restart = self.rng.percent(15);
        let Line { app, env, env_number, first } = self.lines[line].clone();
        let current = self.store.current[line].unwrap_or(first);
        let to = if restart { current } else { first + self.rng.index(fleet::RELEASES) };
        let targets = self.targets(ctl, line, strategy.spread_by.is_some());
        let release = self.made[to].release.clone();
        let planned = plan(&targets, &strategy, &release, restart);
        self.check_plan(&planned, &targets, &strategy);
        let stopped =
            self.store.frozen[env_number].is_some() || !self.store.edges_offline.is_empty();
        if !planned.refusals.is_empty() || stopped {
            self.deed("plan refused");
            return;
        }
        self.rollouts_left -= 1;
        let revision = self.store.rollouts.keys().next_back().map_or(1, |last| last + 1);
        let id = RolloutId { app, env, revision: Revision(revision) };
        let spec = Spec {
            id,
            kind: if restart { Kind::Restart } else { Kind::Deploy },
            to: release,
            from: self.store.current[line].map(|index| self.made[index].release.clone()),
            limits: fleet::limits(&strategy),
            strategy,
            batches: planned.batches.clone(),
            targets: planned.targets,
            once: !restart && self.rng.percent(25),
            fence: (!restart && self.rng.percent(15)).then(|| "1.1.0 forbids it".to_owned()),
            started: self.clock(),
            who: "op".to_owned(),
            message: String::new(),
        };
        self.admit((ctl, line), spec, (&planned, &targets));
    }

    /// Runs a command on every node that runs something.
    fn run(&mut self, ctl: u64, line: usize) {
        let Line { app, env, env_number, first } = self.lines[line].clone();
        let mut targets = self.targets(ctl, line, false);
        targets.retain(|target| target.runs.is_some());
        targets.iter_mut().for_each(|target| target.observed.drained = false);
        let strategy = Strategy {
            batch: vec![fleet::amount(&mut self.rng)],
            order: StartOrder::StartFirst,
            max_failures: Tolerance::Number(self.rng.range(0, 2) as u32),
            ..Strategy::default()
        };
        let current = self.store.current[line].unwrap_or(first);
        let release = self.made[current].release.clone();
        let planned = plan(&targets, &strategy, &release, true);
        if planned.batches.is_empty() || self.store.frozen[env_number].is_some() {
            self.deed("plan refused");
            return;
        }
        self.rollouts_left -= 1;
        self.deed("command");
        let revision = self.store.rollouts.keys().next_back().map_or(1, |last| last + 1);
        let spec = Spec {
            id: RolloutId { app, env, revision: Revision(revision) },
            kind: Kind::Run,
            to: release,
            from: None,
            limits: fleet::limits(&strategy),
            strategy,
            batches: planned.batches.clone(),
            targets: planned.targets,
            once: false,
            fence: None,
            started: self.clock(),
            who: "op".to_owned(),
            message: String::new(),
        };
        self.admit((ctl, line), spec, (&planned, &targets));
    }

    fn admit(
        &mut self,
        (ctl, line): (u64, usize),
        spec: Spec,
        (planned, targets): (&Plan, &[Target]),
    ) {
        let revision = spec.id.revision.0;
        self.note(|| format!("rollout {revision}: {spec:?}"));
        let mut head = Head::new(planned.in_traffic);
        head.closed.clone_from(&self.store.closed[self.lines[line].env_number]);
        let rollout = Rollout::new(spec, head, planned.nodes(targets));
        let owner = self.controllers.get(&ctl).map_or(0, |controller| controller.name);
        let fence = self.controllers.get(&ctl).and_then(|controller| controller.member.fence);
        let place = fence.unwrap_or_default();
        let kept = Kept { rollout: rollout.clone(), term: 1, owner, place, line };
        self.store.rollouts.insert(revision, Rc::new(kept));
        if let Some(controller) = self.controllers.get_mut(&ctl) {
            let active = Active { rollout, term: 1, wakes: Default::default() };
            controller.rollouts.insert(revision, active);
        }
        self.deed("rollout");
        let deadly = std::mem::take(&mut self.deadly); // admission and start are one commit
        self.step(ctl, revision, What::Started);
        self.deadly = deadly;
    }

    fn targets(&self, ctl: u64, line: usize, spread: bool) -> Vec<Target> {
        (0..self.nodes.len())
            .filter(|node| self.nodes[*node].enrolled && self.nodes[*node].line == line)
            .filter_map(|node| {
                Some(Target {
                    name: self.nodes[node].name.clone(),
                    observed: self.observed(ctl, node, None)?,
                    runs: self.runs(ctl, node),
                    spread: spread.then(|| self.nodes[node].zone.clone()),
                    left_alone: false,
                })
            })
            .collect()
    }

    /// Asks, when it is allowed.
    fn ask(&mut self, ctl: u64, revision: u64, verb: Verb) -> bool {
        let Some(active) = self.active(ctl, revision) else { return false };
        if allow(&active.rollout, &verb).is_err() {
            return false;
        }
        self.deed("verb");
        self.step(ctl, revision, What::Asked { verb, who: "op".to_owned() });
        true
    }

    fn ask_anything(&mut self, ctl: u64, revision: u64) {
        let named = |world: &mut Self| {
            let node = world.rng.index(world.nodes.len());
            vec![world.nodes[node].name.clone()]
        };
        let verb = match self.rng.range(0, 9) {
            0 | 1 => Verb::Pause,
            2 | 3 => Verb::Resume,
            4 => Verb::Promote,
            5 if self.rng.percent(20) => Verb::Abort,
            6 if self.rng.percent(40) => Verb::Rollback,
            7 => Verb::Retry(Vec::new()),
            8 => Verb::Retry(named(self)),
            9 if self.rng.percent(30) => return self.break_glass(ctl, revision),
            _ => Verb::Skip(named(self)),
        };
        self.ask(ctl, revision, verb);
    }

    /// Does something about a hold.
    fn answer(&mut self, ctl: u64, revision: u64) {
        let Some(active) = self.active(ctl, revision) else { return };
        let env = self.lines[self.line_of(revision)].env_number;
        let head = &active.rollout.head;
        let hold = head.held.as_ref().map(|held| held.hold.clone());
        let aborting = head.stage == Stage::Aborting;
        if head.paused.is_some() {
            self.ask(ctl, revision, Verb::Resume);
            return;
        }
        let Some(hold) = hold else { return };
        if !self.faulty {
            self.answers += 1;
            if self.answers > PATIENCE && !aborting {
                if !self.ask(ctl, revision, Verb::Abort) {
                    self.violation(format!("abort is refused while it is held: {hold}"));
                }
                return;
            }
        }
        let verb = match &hold {
            Hold::Failures { .. } | Hold::Fence { .. } => match self.rng.range(0, 3) {
                0 => Verb::Resume,
                1 => Verb::Rollback,
                2 => Verb::Abort,
                _ => Verb::Retry(Vec::new()),
            },
            Hold::Rehearsal { .. } => match self.rng.range(0, 3) {
                0 => Verb::Resume,
                1 => Verb::Rollback,
                2 => Verb::Abort,
                _ => Verb::Retry(Vec::new()),
            },
            Hold::RollbackFailed { .. } => match self.rng.range(0, 2) {
                0 => Verb::Resume,
                1 => Verb::Abort,
                _ => Verb::Retry(Vec::new()),
            },
            Hold::Approval { .. } => Verb::Promote,
            Hold::Deadline { .. } => Verb::Resume,
            Hold::OnceUnknown { .. } if self.rng.percent(40) => Verb::Resume,
            Hold::OnceUnknown { .. } if self.rng.percent(70) => Verb::Retry(Vec::new()),
            Hold::OnceUnknown { .. } => Verb::Abort,
            Hold::Once { .. } if self.rng.percent(80) => Verb::Retry(Vec::new()),
            Hold::Once { .. } => Verb::Abort,
            Hold::Offline { nodes } if self.rng.percent(30) => Verb::Skip(nodes.clone()),
            Hold::Offline { .. } | Hold::Capacity { .. } | Hold::Busy { .. } => return,
            Hold::Frozen { .. } | Hold::Closed(_) if self.rng.percent(30) => {
                return self.break_glass(ctl, revision);
            }
            Hold::Frozen { .. } => return self.freeze(env, None),
            Hold::Closed(_) => return self.window(env, None),
            Hold::Edges { .. } => return self.edge_goes(false),
        };
        self.ask(ctl, revision, verb);
    }

    /// An operator's standing wish for a node.
    pub fn drain_node(&mut self, node: usize, drained: bool) {
        if self.several.is_some() {
            return self.drain_host(node, drained);
        }
        let Some(ctl) = self.live.filter(|ctl| self.is_running(*ctl)) else { return };
        self.deed("node drained or undrained");
        self.note(|| format!("    n{node}: drained {drained}"));
        self.store.drained[node] = drained;
        self.store.wishes += 1;
        let seq = self.store.wishes;
        self.send_down(ctl, node, Down::Standing { drained, seq });
        self.observe(ctl, node, None);
    }

    /// The edge's agent goes silent, or is heard again.
    pub fn edge_goes(&mut self, silent: bool) {
        if self.several.is_some() {
            return self.edge_seen_by_all(silent);
        }
        let Some(ctl) = self.live.filter(|ctl| self.is_running(*ctl)) else {
            return self.after(1_000, Ev::EdgeBack);
        };
        self.deed("edge gone or back");
        let edge = || "lb-1".parse().expect("an edge");
        self.store.edges_offline = silent.then(edge).into_iter().collect();
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let revisions: Vec<u64> = controller.rollouts.keys().copied().collect();
        for revision in revisions {
            self.step(ctl, revision, What::EdgesOffline(self.store.edges_offline.clone()));
        }
    }

    /// The windows of the environment close for so long, or open.
    pub fn window(&mut self, env: usize, opens_in: Option<u64>) {
        let Some(ctl) = self.writer(Ev::WindowOpens { env }) else { return };
        self.deed("windows closed or opened");
        self.store.closed[env] = opens_in.map(|ms| Closed {
            text: "outside the windows".to_owned(),
            opens: self.clock().after(Span(ms)),
        });
        if self.several.is_some() {
            self.store.guard[env] += 1;
            return self.published();
        }
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let revisions: Vec<u64> = controller.rollouts.keys().copied().collect();
        for revision in revisions {
            self.step(ctl, revision, What::Closed(self.store.closed[env].clone()));
        }
    }

    /// Some verb that takes `--break-glass`.
    fn break_glass(&mut self, ctl: u64, revision: u64) {
        let verb = match self.rng.index(3) {
            0 => Verb::Rollback,
            1 => Verb::Retry(Vec::new()),
            _ => Verb::Resume,
        };
        let Some(active) = self.active(ctl, revision) else { return };
        let Ok(verbs) = with_glass(&active.rollout, verb) else { return };
        self.deed("glass broken");
        let deadly = std::mem::take(&mut self.deadly); // one commit in truth
        for verb in verbs {
            self.step(ctl, revision, What::Asked { verb, who: "op: why".to_owned() });
        }
        self.deadly = deadly;
    }

    pub fn freeze(&mut self, env: usize, why: Option<String>) {
        let Some(ctl) = self.writer(Ev::Unfreeze { env }) else { return };
        self.store.frozen[env].clone_from(&why);
        if self.several.is_some() {
            self.store.guard[env] += 1;
            return self.published();
        }
        let Some(controller) = self.controllers.get(&ctl) else { return };
        let revisions: Vec<u64> = controller.rollouts.keys().copied().collect();
        for revision in revisions {
            self.step(ctl, revision, What::Frozen(why.clone()));
        }
    }
}
