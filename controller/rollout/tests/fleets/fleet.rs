//! A fleet of hosts that carry out orders, fail at them, go away and come back; and the clock.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::batches::{Target, plan};
use rota_rollout::event::OnceResult;
use rota_rollout::names::{Attempt, NodeName, Release, Revision, RolloutId, Span, Timestamp};
use rota_rollout::node::{
    Direction, Failure, Left, Measured, Node, Observed, Phase, Report, Serving, StepName,
};
use rota_rollout::rollout::{Head, Kind, Limits, Rollout, Spec, Stage};
use rota_rollout::strategy::{OnNodeFailure, StartOrder};
use rota_rollout::verbs::{self, Verb};
use rota_rollout::{Event, Hold, Order, What, newcomers, step};

use super::case::{self, Case};

const START: Timestamp = Timestamp(1_000_000);

/// More deeds than any of these rollouts needs to come to rest.
const DEEDS_MAX: usize = 20_000;

/// One host, as it really is.
#[derive(Debug, Clone)]
pub struct Host {
    pub seen: Observed,
    pub runs: Option<Release>,
    pub job: Option<Job>,
    /// It came, or was made anew, while the rollout ran: there is nothing that it could restore.
    pub bare: bool,
}

/// What a host is about.
#[derive(Debug, Clone)]
pub struct Job {
    attempt: Attempt,
    pub work: Work,
}

#[derive(Debug, Clone)]
pub enum Work {
    Prepare,
    Once,
    Update { direction: Direction, to: Release, done: Done },
}

/// How far an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Done {
    Nothing,
    Drained,
    Joined,
}

pub struct Fleet {
    pub rollout: Rollout,
    pub at: Timestamp,
    pub hosts: BTreeMap<NodeName, Host>,
    pub wakes: BTreeSet<Timestamp>,
    /// How often each node was ordered forward, and which attempts.
    pub ordered: BTreeMap<NodeName, usize>,
    pub attempts: BTreeSet<(NodeName, Attempt)>,
    /// In which order.
    pub order: Vec<NodeName>,
    pub retries: usize,
    /// How often each node was made anew.
    pub anew: BTreeMap<NodeName, usize>,
    /// Who was asked for by name once more, while nodes rolled.
    pub named: BTreeSet<NodeName>,
    pub approved: Vec<usize>,
    /// The fewest in traffic while each batch was in turn.
    pub least_of: BTreeMap<usize, usize>,
    pub story: Vec<String>,
}

impl Fleet {
    /// Admitted, nothing begun.
    pub fn of(case: &Case) -> Self {
        let (targets, strategy) = (case.targets(), case.strategy());
        let plan = plan(&targets, &strategy, &case::new(), false);
        let monitor = Span(strategy.monitor.0 + 60_000);
        let parsed = || ("shop".parse().unwrap(), "prod".parse().unwrap());
        let (app, env) = parsed();
        let spec = Spec {
            id: RolloutId { app, env, revision: Revision(7) },
            kind: Kind::Deploy,
            to: case::new(),
            from: Some(case::old()),
            strategy,
            batches: plan.batches.clone(),
            targets: plan.targets,
            limits: Limits {
                prepare: Span::seconds(60),
                update: Span::seconds(120),
                monitor,
                once: Span::seconds(60),
            },
            once: case.once,
            fence: None,
            started: START,
            who: "ann".to_owned(),
            message: String::new(),
        };
        let host = |target: &Target| Host {
            seen: target.observed,
            runs: target.runs.clone(),
            job: None,
            bare: false,
        };
        Self {
            rollout: Rollout::new(spec, Head::new(plan.in_traffic), plan.nodes(&targets)),
            at: START,
            hosts: targets.iter().map(|target| (target.name.clone(), host(target))).collect(),
            wakes: BTreeSet::new(),
            ordered: BTreeMap::new(),
            attempts: BTreeSet::new(),
            order: Vec::new(),
            retries: 0,
            anew: BTreeMap::new(),
            named: BTreeSet::new(),
            approved: Vec::new(),
            least_of: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    /// Everything that the numbers say, then no faults any more.
    pub fn live(mut self, choices: &[u16]) {
        self.hear(What::Started);
        for choice in choices {
            if self.rollout.is_ended() {
                break;
            }
            self.deed(*choice);
        }
        self.calm(false);
        assert!(self.stands_for_a_reason(), "it stands still in silence: {:#?}", self.story);
        self.mend();
        for round in 0..DEEDS_MAX {
            self.calm(true);
            if self.rollout.is_ended() {
                return self.check_end();
            }
            assert!(self.stands_for_a_reason(), "it stands still in silence: {:#?}", self.story);
            self.help(round);
        }
        panic!("it never ends: {:#?}", self.story);
    }

    /// Nothing fails, all who may leave at once leave before any is back; approvals are given.
    pub fn roll_in_step(&mut self) {
        self.hear(What::Started);
        for _ in 0..DEEDS_MAX {
            let batch = self.rollout.head.batch;
            let drains = |host: &Host| match &host.job {
                Some(Job { work: Work::Update { done: Done::Nothing, .. }, .. }) => 0,
                Some(_) => 1,
                None => 2,
            };
            // Who was ordered first is back first.
            let place = |name: &NodeName| self.order.iter().position(|other| other == name);
            let working = self.hosts.iter().filter(|(_, h)| h.job.is_some() && h.seen.online);
            let next = working.min_by_key(|(name, host)| (drains(host), place(name)));
            let next = next.map(|(name, _)| name.clone());
            match (next, self.rollout.head.held.as_ref().map(|held| &held.hold)) {
                _ if self.rollout.is_ended() => return,
                (Some(name), _) => self.work(&name),
                (None, Some(Hold::Approval { batch, .. })) => {
                    self.approved.push(*batch);
                    self.ask(Verb::Promote);
                }
                (None, Some(Hold::Deadline { .. })) => self.ask(Verb::Resume),
                (None, Some(_)) => return,
                (None, None) => match self.next_wake() {
                    Some(at) => self.jump(at),
                    None => return,
                },
            }
            let serving = self.rollout.tally().serving;
            let least = self.least_of.entry(batch).or_insert(serving);
            *least = serving.min(*least);
        }
    }

    /// Everything that can go on by itself goes on. `well`: and it works.
    fn calm(&mut self, well: bool) {
        for turn in 0..DEEDS_MAX {
            let working = self.hosts.iter().filter(|(_, h)| h.job.is_some() && h.seen.online);
            let names: Vec<NodeName> = working.map(|(name, _)| name.clone()).collect();
            if self.rollout.is_ended() {
                return;
            }
            if let Some(name) = names.get(turn % names.len().max(1)) {
                if !well && turn % 11 == 10 {
                    self.fail(&name.clone(), turn);
                } else {
                    self.work(&name.clone());
                }
            } else if let Some(at) = self.next_wake() {
                self.jump(at);
            } else {
                return;
            }
        }
        panic!("it never comes to rest: {:#?}", self.story);
    }

    fn stands_for_a_reason(&self) -> bool {
        let head = &self.rollout.head;
        self.rollout.is_ended() || head.held.is_some() || head.paused.is_some()
    }

    /// What may happen, drawn by one number.
    fn deed(&mut self, choice: u16) {
        let (what, which) = (choice % 32, usize::from(choice / 32));
        let working: Vec<NodeName> = self
            .hosts
            .iter()
            .filter(|(_, host)| host.job.is_some() && host.seen.online)
            .map(|(name, _)| name.clone())
            .collect();
        let any: Vec<NodeName> = self.hosts.keys().cloned().collect();
        let worker = working.get(which % working.len().max(1)).cloned();
        let host = any[which % any.len()].clone();
        match (what, worker) {
            (0..=15, Some(worker)) => self.work(&worker),
            (16 | 17, Some(worker)) => self.fail(&worker, which),
            (0..=19, _) => match self.next_wake() {
                Some(at) => self.jump(at),
                None => self.jump(self.at.after(Span::seconds(which as u64 % 90))),
            },
            (20 | 21, _) => self.goes_or_comes(&host, which),
            (22, _) => self.breaks_or_heals(&host),
            (23, _) => self.turns(&host, |seen| seen.busy = !seen.busy),
            (24, _) => self.drains(&host),
            (25, _) => self.hear(What::Frozen((which % 2 == 0).then(|| "sale".to_owned()))),
            (26, _) => {
                let edges = if which % 2 == 0 { vec!["lb-01".parse().unwrap()] } else { vec![] };
                self.hear(What::EdgesOffline(edges));
            }
            (27, _) => self.breaks_late(&host),
            (28, _) if which % 2 == 0 => self.newcomer(which),
            (28, _) => self.made_anew(&host),
            (_, _) => self.asks(&host, which),
        }
    }

    fn asks(&mut self, host: &NodeName, which: usize) {
        let verb = match which % 10 {
            0 => Verb::Pause,
            1 | 2 => Verb::Resume,
            3 | 4 => Verb::Promote,
            5 => Verb::Skip(vec![host.clone()]),
            6 => Verb::Retry(vec![host.clone()]),
            7 => Verb::Retry(Vec::new()),
            8 if which.is_multiple_of(4) => Verb::Abort,
            _ => Verb::Rollback,
        };
        self.ask(verb);
    }

    fn ask(&mut self, verb: Verb) {
        if verbs::allow(&self.rollout, &verb).is_err() {
            return;
        }
        if let Verb::Retry(named) = &verb {
            self.retries += 1;
            if matches!(self.rollout.head.stage, Stage::Rolling | Stage::Rehearsing) {
                self.named.extend(named.iter().cloned());
            }
        }
        self.hear(What::Asked { verb, who: "ann".to_owned() });
    }

    /// Faults are over: everything is back, and heals.
    fn mend(&mut self) {
        self.hear(What::Frozen(None));
        self.hear(What::EdgesOffline(Vec::new()));
        let names: Vec<NodeName> = self.hosts.keys().cloned().collect();
        for name in names {
            if !self.hosts[&name].seen.online {
                self.comes(&name);
            }
            let working = self.hosts[&name].job.is_some();
            self.turns(&name, |seen| {
                (seen.busy, seen.drained) = (false, false);
                if seen.serving == Serving::Out && !working {
                    seen.serving = Serving::In;
                }
            });
        }
    }

    /// What an operator does at a hold.
    fn help(&mut self, round: usize) {
        let healing: Vec<NodeName> = self.hosts.keys().cloned().collect();
        for name in healing {
            if self.hosts[&name].job.is_none() && self.hosts[&name].seen.serving == Serving::Out {
                self.turns(&name, |seen| seen.serving = Serving::In);
            }
        }
        let verb = match self.rollout.head.held.as_ref().map(|held| &held.hold) {
            _ if self.rollout.is_ended() => return,
            _ if self.rollout.head.paused.is_some() => Verb::Resume,
            Some(Hold::Approval { .. }) => Verb::Promote,
            Some(Hold::Failures { .. } | Hold::Fence { .. } | Hold::RollbackFailed { .. }) => {
                match round % 4 {
                    0 => Verb::Retry(self.first_failed()),
                    1 => Verb::Retry(Vec::new()),
                    2 => Verb::Resume,
                    _ => Verb::Abort,
                }
            }
            Some(Hold::Deadline { .. } | Hold::OnceUnknown { .. }) => Verb::Resume,
            Some(Hold::Once { .. } | Hold::Rehearsal { .. }) => match round % 3 {
                2 => Verb::Abort,
                _ => Verb::Retry(Vec::new()),
            },
            Some(
                Hold::Capacity { .. }
                | Hold::Offline { .. }
                | Hold::Busy { .. }
                | Hold::Frozen { .. }
                | Hold::Closed(_)
                | Hold::Edges { .. },
            )
            | None => return,
        };
        self.ask(verb);
    }

    /// The first that failed, by name.
    fn first_failed(&self) -> Vec<NodeName> {
        let failed = |node: &Node| matches!(node.phase, Phase::Failed { .. });
        let names = self.rollout.nodes().iter().filter(|(_, node)| failed(node));
        names.map(|(name, _)| name.clone()).take(1).collect()
    }

    fn next_wake(&self) -> Option<Timestamp> {
        self.wakes.first().copied()
    }

    fn jump(&mut self, at: Timestamp) {
        self.at = at.max(self.at);
        self.wakes = self.wakes.split_off(&Timestamp(self.at.0 + 1));
        // Whoever can be heard and did not end in time will never say anything more.
        for (name, host) in &mut self.hosts {
            let overdue = self.rollout.nodes()[name].phase.deadline().is_some_and(|d| d <= at);
            if overdue && host.seen.online {
                host.job = None;
            }
        }
        self.hear(What::Tick);
    }

    pub fn hear(&mut self, what: What) {
        self.story.push(format!("{} {what:?}", self.at.0));
        let before = self.rollout.clone();
        let step = step(&self.rollout, &Event { at: self.at, what });
        self.rollout.apply(step.changes);
        self.check(&before, &step.orders);
        for order in step.orders {
            self.take(order);
        }
        if let Some(held) = &self.rollout.head.held {
            self.story.push(format!("  held: {}", held.hold));
        }
    }

    fn take(&mut self, order: Order) {
        let (node, attempt, work) = match order {
            Order::WakeAt(at) => {
                self.wakes.insert(at);
                return;
            }
            Order::Settle { .. } | Order::Run { .. } => return, // nobody runs a command here
            Order::Prepare { node, attempt } => (node, attempt, Work::Prepare),
            Order::Once { node, attempt } => (node, attempt, Work::Once),
            Order::Update { node, attempt, direction, to } => {
                (node, attempt, Work::Update { direction, to, done: Done::Nothing })
            }
        };
        self.story.push(format!("  {node} {attempt}: {work:?}"));
        self.hosts.get_mut(&node).unwrap().job = Some(Job { attempt, work });
    }

    fn says(&mut self, node: &NodeName, attempt: Attempt, report: Report) {
        self.hear(What::Reported { node: node.clone(), attempt, report });
    }

    fn sees(&mut self, name: &NodeName) {
        let host = &self.hosts[name];
        let (observed, runs) = (host.seen, host.runs.clone());
        self.hear(What::Observed { node: name.clone(), observed, runs });
    }

    fn turns(&mut self, name: &NodeName, change: impl FnOnce(&mut Observed)) {
        change(&mut self.hosts.get_mut(name).unwrap().seen);
        self.sees(name);
    }

    /// A host takes the next step of what it was asked.
    fn work(&mut self, name: &NodeName) {
        let Some(Job { attempt, work }) = self.hosts[name].job.clone() else { return };
        match work {
            Work::Prepare => {
                self.hosts.get_mut(name).unwrap().job = None;
                self.says(name, attempt, Report::Prepared);
            }
            Work::Once => {
                self.hosts.get_mut(name).unwrap().job = None;
                let result = OnceResult::Succeeded;
                self.hear(What::OnceEnded { node: name.clone(), attempt, result });
            }
            Work::Update { done: Done::Nothing, .. } => {
                self.goes_on(name, Done::Drained);
                self.says(name, attempt, Report::Began { step: StepName::Drain, in_flight: 3 });
                if self.leaves_traffic() {
                    self.turns(name, |seen| {
                        if seen.serving == Serving::In {
                            seen.serving = Serving::Out;
                        }
                    });
                }
            }
            Work::Update { done: Done::Drained, to, .. } => {
                self.goes_on(name, Done::Joined);
                self.joins(name, to);
                self.says(name, attempt, Report::Joined(Measured::default()));
                self.sees(name);
            }
            Work::Update { done: Done::Joined, .. } => {
                self.hosts.get_mut(name).unwrap().job = None;
                self.says(name, attempt, Report::Done(Measured::default()));
            }
        }
    }

    fn leaves_traffic(&self) -> bool {
        self.rollout.spec.strategy.order == StartOrder::StopFirst
    }

    fn goes_on(&mut self, name: &NodeName, now: Done) {
        let job = self.hosts.get_mut(name).unwrap().job.as_mut().unwrap();
        if let Work::Update { done, .. } = &mut job.work {
            *done = now;
        }
    }

    fn joins(&mut self, name: &NodeName, on: Release) {
        let host = self.hosts.get_mut(name).unwrap();
        host.runs = Some(on);
        host.seen.serving = if host.seen.drained { Serving::Out } else { Serving::In };
    }

    /// A host cannot do what it was asked.
    fn fail(&mut self, name: &NodeName, how: usize) {
        let Some(Job { attempt, work }) = self.hosts[name].job.clone() else { return };
        self.hosts.get_mut(name).unwrap().job = None;
        let before = self.rollout.nodes()[name].previous.clone();
        let failed = |step, left| {
            let measured = Measured::default();
            let (text, output) = ("broken".to_owned(), String::new());
            Report::Failed(Failure { step, text, output, left, measured, current: None })
        };
        match work {
            Work::Prepare => {
                self.says(name, attempt, failed(StepName::Fetch, Left::Untouched));
            }
            Work::Once => {
                let result = match how % 3 {
                    0 => OnceResult::Failed { text: "exit 1".to_owned(), output: String::new() },
                    1 => OnceResult::Unknown,
                    _ => OnceResult::NeverBegan,
                };
                self.hear(What::OnceEnded { node: name.clone(), attempt, result });
            }
            Work::Update { done: Done::Nothing, .. } => {
                self.says(name, attempt, failed(StepName::Drain, Left::Untouched));
            }
            Work::Update { direction, .. } => {
                let leaves = self.rollout.spec.strategy.on_node_failure == OnNodeFailure::Leave;
                let back = match direction {
                    Direction::Forward => before.filter(|_| !self.hosts[name].bare),
                    Direction::Back => Some(case::new()),
                };
                match back.filter(|_| !leaves && !how.is_multiple_of(4)) {
                    Some(back) => {
                        self.joins(name, back);
                        self.says(name, attempt, failed(StepName::Smoke, Left::Restored));
                    }
                    None => {
                        self.hosts.get_mut(name).unwrap().seen.serving = Serving::Out;
                        self.says(name, attempt, failed(StepName::Smoke, Left::Out));
                    }
                }
                self.sees(name);
            }
        }
    }

    fn goes_or_comes(&mut self, name: &NodeName, how: usize) {
        if !self.hosts[name].seen.online {
            return self.comes(name);
        }
        if how.is_multiple_of(3) {
            // It lost power: what it was about is lost too, and what it ran stands still.
            let host = self.hosts.get_mut(name).unwrap();
            if host.job.take().is_some() && host.seen.serving == Serving::In {
                host.seen.serving = Serving::Out;
            }
        }
        self.turns(name, |seen| seen.online = false);
    }

    /// What it was ordered it has done meanwhile: it needs no controller for that.
    fn comes(&mut self, name: &NodeName) {
        let job = self.hosts[name].job.clone();
        let update = match job {
            Some(Job { attempt, work: Work::Update { to, .. } }) => Some((attempt, to)),
            Some(_) | None => None,
        };
        let host = self.hosts.get_mut(name).unwrap();
        if update.is_some() {
            host.job = None;
        }
        if let Some((_, to)) = &update {
            self.joins(name, to.clone());
        }
        self.turns(name, |seen| seen.online = true);
        if let Some((attempt, _)) = update {
            self.says(name, attempt, Report::Done(Measured::default()));
        } else if self.hosts[name].job.is_none() {
            self.told_again(name);
        }
    }

    /// Every order that was not answered is given again to who returns.
    fn told_again(&mut self, name: &NodeName) {
        for order in rota_rollout::outstanding(&self.rollout) {
            match &order {
                Order::Prepare { node, .. }
                | Order::Update { node, .. }
                | Order::Once { node, .. }
                    if node == name =>
                {
                    self.take(order);
                }
                Order::Prepare { .. }
                | Order::Update { .. }
                | Order::Run { .. }
                | Order::Once { .. }
                | Order::Settle { .. }
                | Order::WakeAt(_) => {}
            }
        }
    }

    fn breaks_or_heals(&mut self, name: &NodeName) {
        if self.hosts[name].job.is_some() || self.hosts[name].seen.drained {
            return;
        }
        self.turns(name, |seen| {
            seen.serving = match seen.serving {
                Serving::In => Serving::Out,
                Serving::Out => Serving::In,
                Serving::Absent => Serving::Absent,
            };
        });
    }

    /// A host comes that nobody knew, with nothing on it.
    fn newcomer(&mut self, which: usize) {
        let name: NodeName = format!("new{}", which % 5).parse().unwrap();
        if !self.hosts.contains_key(&name) {
            self.joins_in(name, which);
        }
    }

    /// A host loses everything.
    fn made_anew(&mut self, name: &NodeName) {
        if self.hosts[name].job.is_some() || !self.hosts[name].seen.online {
            return;
        }
        let host = self.hosts.get_mut(name).unwrap();
        (host.runs, host.bare) = (None, true);
        *self.anew.entry(name.clone()).or_default() += 1;
        self.turns(name, |seen| seen.serving = Serving::Absent);
        self.joins_in(name.clone(), 0);
    }

    fn joins_in(&mut self, name: NodeName, which: usize) {
        let seen = Observed {
            online: true,
            serving: Serving::Absent,
            busy: false,
            drained: false,
            unsure: false,
        };
        let known = self.rollout.nodes().get(&name).map(|node| node.spread.clone());
        let zoned = self.rollout.spec.strategy.spread_by.is_some();
        let zone = || zoned.then(|| format!("z{}", which % 3));
        let target = Target {
            name: name.clone(),
            observed: self.hosts.get(&name).map_or(seen, |host| host.seen),
            runs: None,
            spread: known.unwrap_or_else(zone),
            left_alone: false,
        };
        // The order to prepare comes in the same step.
        let host = Host { seen: target.observed, runs: None, job: None, bare: true };
        let new = self.hosts.insert(name.clone(), host).is_none();
        let takes = newcomers::takes_in(&self.rollout, &name);
        self.hear(What::Newcomer(target));
        if new && !self.rollout.nodes().contains_key(&name) {
            assert!(!takes, "{name} was not taken in: {:#?}", self.story);
            self.hosts.remove(&name);
        }
    }

    fn breaks_late(&mut self, name: &NodeName) {
        let node = &self.rollout.nodes()[name];
        let (attempt, done) = (node.attempt, node.phase == Phase::Done);
        if !done || self.hosts[name].job.is_some() || !self.hosts[name].seen.online {
            return;
        }
        self.hosts.get_mut(name).unwrap().seen.serving = Serving::Out;
        let (cause, output) = ("it crashed".to_owned(), String::new());
        self.says(name, attempt, Report::Broken { cause, output });
        self.sees(name);
    }

    fn drains(&mut self, name: &NodeName) {
        let busy = self.hosts[name].job.is_some();
        self.turns(name, |seen| {
            seen.drained = !seen.drained;
            seen.serving = match seen.serving {
                Serving::Absent => Serving::Absent,
                serving if busy => serving,
                Serving::In | Serving::Out if seen.drained => Serving::Out,
                Serving::In | Serving::Out => Serving::In,
            };
        });
    }
}
