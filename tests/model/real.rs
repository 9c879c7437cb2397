//! What decides in the model: the real core of the controllers and the real machine of the agents. Their states are
//! kept here once each and have numbers, so that a state of the model is small and no transition is made twice.

use std::collections::HashMap;
use std::sync::RwLock;

use rota_agent::update::{
    self, Action, App, Did, Direction as Way, Instance, Job, Said, Settled, Side, UpdateOrder, Work,
};
use rota_rollout::batches::{Target, plan};
use rota_rollout::names::{Attempt, NodeName, Release, Revision, RolloutId, Span, Timestamp};
use rota_rollout::node::{self, Direction, Failure, Observed, Report, Serving, StepName};
use rota_rollout::rollout::{Head, Kind, Limits, Rollout, Spec};
use rota_rollout::strategy::{Amount, OnFailure, Strategy};
use rota_rollout::{Event, What, invariants, outstanding, step};

use super::NODES;

/// Nothing here waits for time: every deadline is far away.
const NOW: Timestamp = Timestamp(1_000_000);

/// The rollout that everything is about.
const ROLLOUT: &str = "shop/prod/1";

/// An order to one node, without its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Order {
    pub node: usize,
    pub attempt: u8,
    pub back: bool,
}

/// What a node says of an attempt, as far as anything depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word {
    pub attempt: u8,
    pub told: Told,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Told {
    Joined,
    Done,
    Restored,
}

/// What an agent made of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fed {
    pub agent: u16,
    pub says: Vec<Word>,
    /// The attempts whose updates began.
    pub began: Vec<u8>,
}

/// One step of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub number: u16,
    pub changes: bool,
    pub orders: Vec<Order>,
}

/// An agent: its journal, and the job that it is at.
#[derive(Debug, Clone)]
struct Agent {
    app: App,
    job: Option<(u64, Job)>,
}

/// Things that have been seen, each under a number.
struct Book<T> {
    numbers: HashMap<String, u16>,
    things: Vec<T>,
}

impl<T: std::fmt::Debug> Book<T> {
    fn new() -> Self {
        Self { numbers: HashMap::new(), things: Vec::new() }
    }

    fn number(&mut self, thing: T) -> u16 {
        let next = u16::try_from(self.things.len()).expect("few enough");
        let number = *self.numbers.entry(format!("{thing:?}")).or_insert(next);
        if number == next {
            self.things.push(thing);
        }
        number
    }

    fn of(&self, number: u16) -> &T {
        &self.things[usize::from(number)]
    }
}

struct Known {
    rollouts: Book<Rollout>,
    steps: Book<rota_rollout::Step>,
    agents: Book<Agent>,
    decided: HashMap<(u16, usize, Word), Decided>,
    applied: HashMap<(u16, u16), u16>,
    ordered: HashMap<(u16, Order, u8), Fed>,
    finished: HashMap<(u16, bool), Fed>,
}

pub struct Real(RwLock<Known>);

fn release(minor: u32) -> Release {
    let digest = minor.to_string().repeat(64);
    let version = format!("1.{minor}.0").parse().expect("a version");
    Release { version, digest: digest.parse().expect("a digest") }
}

fn spec(minor: u32) -> rota_agent::spec::Spec {
    let Release { version, digest } = release(minor);
    rota_tests::sample::spec(version.into(), digest.into(), rota_agent::spec::Hooks::default())
}

fn name(node: usize) -> NodeName {
    format!("n{node}").parse().expect("a name")
}

fn number(name: &NodeName) -> usize {
    (0..NODES).find(|node| *name == self::name(*node)).expect("one of the nodes")
}

/// One node at a time, back when one fails; admitted, and both nodes have the release on their disks.
fn admitted() -> Rollout {
    let strategy = Strategy {
        batch: vec![Amount::try_from(1).expect("one")],
        on_failure: OnFailure::Rollback,
        monitor: Span::seconds(1),
        ..Strategy::default()
    };
    let observed =
        Observed { online: true, serving: Serving::In, busy: false, drained: false, unsure: false };
    let target = |node| Target {
        name: name(node),
        observed,
        runs: Some(release(0)),
        spread: None,
        left_alone: false,
    };
    let targets: Vec<Target> = (0..NODES).map(target).collect();
    let plan = plan(&targets, &strategy, &release(1), false);
    let long = Span::seconds(3_600);
    let spec = Spec {
        id: RolloutId {
            app: "shop".parse().expect("an app"),
            env: "prod".parse().expect("an environment"),
            revision: Revision(1),
        },
        kind: Kind::Deploy,
        to: release(1),
        from: Some(release(0)),
        limits: Limits { prepare: long, update: long, monitor: long, once: long },
        strategy,
        batches: plan.batches.clone(),
        targets: plan.targets,
        once: false,
        fence: None,
        started: NOW,
        who: "ann".to_owned(),
        message: String::new(),
    };
    let mut rollout = Rollout::new(spec, Head::new(plan.in_traffic), plan.nodes(&targets));
    let prepared = |node| {
        let (node, attempt) = (name(node), Attempt(1));
        What::Reported { node, attempt, report: Report::Prepared }
    };
    for what in [What::Started].into_iter().chain((0..NODES).map(prepared)) {
        let made = step(&rollout, &Event { at: NOW, what });
        rollout.apply(made.changes);
    }
    rollout
}

/// What a node said, in the core's words.
fn heard(node: usize, word: Word) -> What {
    let report = match word.told {
        Told::Joined => Report::Joined(node::Measured::default()),
        Told::Done => Report::Done(node::Measured::default()),
        Told::Restored => Report::Failed(Failure {
            current: None,
            step: StepName::Smoke,
            text: "500".to_owned(),
            output: String::new(),
            left: node::Left::Restored,
            measured: node::Measured::default(),
        }),
    };
    What::Reported { node: name(node), attempt: Attempt(word.attempt.into()), report }
}

fn orders(of: Vec<rota_rollout::Order>) -> Vec<Order> {
    use rota_rollout::Order as Real;
    let one = |order| match order {
        Real::Update { node, attempt, direction, .. } => Some(Order {
            node: number(&node),
            attempt: u8::try_from(attempt.0).expect("few attempts"),
            back: direction == Direction::Back,
        }),
        Real::Prepare { .. }
        | Real::Run { .. }
        | Real::Once { .. }
        | Real::Settle { .. }
        | Real::WakeAt(_) => None,
    };
    of.into_iter().filter_map(one).collect()
}

impl Real {
    /// The first rollout and the first agent have the number 0.
    pub fn new() -> Self {
        let mut known = Known {
            rollouts: Book::new(),
            steps: Book::new(),
            agents: Book::new(),
            decided: HashMap::new(),
            applied: HashMap::new(),
            ordered: HashMap::new(),
            finished: HashMap::new(),
        };
        known.rollouts.number(admitted());
        let instance = Instance { label: String::new(), token: 1, port: 9000 };
        let current = Some(Settled::new(spec(0), Some(instance), Side::In));
        let app = App { current, counter: 1, ..App::default() };
        known.agents.number(Agent { app, job: None });
        Self(RwLock::new(known))
    }

    fn read<T>(&self, read: impl FnOnce(&Known) -> T) -> T {
        read(&self.0.read().expect("nobody panicked"))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Known) -> T) -> T {
        write(&mut self.0.write().expect("nobody panicked"))
    }

    /// What the core makes of a node's word.
    pub fn decide(&self, rollout: u16, node: usize, word: Word) -> Decided {
        let key = (rollout, node, word);
        if let Some(found) = self.read(|known| known.decided.get(&key).cloned()) {
            return found;
        }
        self.write(|known| {
            let event = Event { at: NOW, what: heard(node, word) };
            let made = step(known.rollouts.of(rollout), &event);
            let (changes, orders) = (!made.changes.is_empty(), orders(made.orders.clone()));
            let decided = Decided { number: known.steps.number(made), changes, orders };
            known.decided.insert(key, decided.clone());
            decided
        })
    }

    /// The rollout after a step's changes.
    pub fn apply(&self, rollout: u16, step: u16) -> u16 {
        if let Some(found) = self.read(|known| known.applied.get(&(rollout, step)).copied()) {
            return found;
        }
        self.write(|known| {
            let mut after = known.rollouts.of(rollout).clone();
            after.apply(known.steps.of(step).changes.clone());
            let after = known.rollouts.number(after);
            known.applied.insert((rollout, step), after);
            after
        })
    }

    /// What a new owner orders again.
    pub fn outstanding(&self, rollout: u16) -> Vec<Order> {
        self.read(|known| orders(outstanding(known.rollouts.of(rollout))))
    }

    pub fn is_ended(&self, rollout: u16) -> bool {
        self.read(|known| known.rollouts.of(rollout).is_ended())
    }

    pub fn state(&self, rollout: u16) -> &'static str {
        self.read(|known| known.rollouts.of(rollout).state())
    }

    pub fn is_sound(&self, rollout: u16) -> bool {
        self.read(|known| invariants::violations(known.rollouts.of(rollout)).is_empty())
    }

    /// What the agent's machine makes of an order.
    pub fn order(&self, agent: u16, order: Order, term: u8) -> Fed {
        let key = (agent, order, term);
        if let Some(found) = self.read(|known| known.ordered.get(&key).cloned()) {
            return found;
        }
        self.write(|known| {
            let mut after = known.agents.of(agent).clone();
            let mut fed = Fed { agent: 0, says: Vec::new(), began: Vec::new() };
            let what = update::What::Ordered(UpdateOrder {
                rollout: ROLLOUT.to_owned(),
                term: term.into(),
                attempt: order.attempt.into(),
                spec: spec(u32::from(!order.back)),
                direction: if order.back { Way::Back } else { Way::Forward },
                start_first: false,
                leave_on_failure: false,
                monitor_ms: 1_000,
            });
            after.feed(what, &mut fed);
            fed.agent = known.agents.number(after);
            known.ordered.insert(key, fed.clone());
            fed
        })
    }

    /// The newest term that the agent says it has accepted.
    pub fn term(&self, agent: u16) -> u8 {
        self.read(|known| {
            let fence = known.agents.of(agent).app.fences.get(ROLLOUT);
            u8::try_from(fence.map_or(0, |fence| fence.term)).expect("few terms")
        })
    }

    /// Is the agent at an update?
    pub fn is_busy(&self, agent: u16) -> bool {
        self.read(|known| known.agents.of(agent).job.is_some())
    }

    /// Is it out of traffic?
    pub fn is_out(&self, agent: u16) -> bool {
        self.read(|known| known.agents.of(agent).app.serving().is_none())
    }

    /// The agent goes on with its update until it has something to say: it joined, it is done, it failed.
    pub fn finish(&self, agent: u16, well: bool) -> Fed {
        let key = (agent, well);
        if let Some(found) = self.read(|known| known.finished.get(&key).cloned()) {
            return found;
        }
        self.write(|known| {
            let mut after = known.agents.of(agent).clone();
            let mut fed = Fed { agent: 0, says: Vec::new(), began: Vec::new() };
            while let Some((action, job)) = after.job.take() {
                let result = match job {
                    Job::Drain { .. } => Did::Drained { in_flight_at_start: 0, cut: 0 },
                    Job::Stop { .. } => Did::Stopped { killed: false },
                    Job::Start { .. } => Did::Started { port: 9000 },
                    Job::Smoke { .. } if !well => {
                        Did::Failed { cause: "500".to_owned(), output: String::new() }
                    }
                    Job::Fetch(_)
                    | Job::Hooks { .. }
                    | Job::Swap(_)
                    | Job::Health { .. }
                    | Job::Smoke { .. }
                    | Job::Join { .. }
                    | Job::Monitor { .. }
                    | Job::Wait { .. } => Did::Ok,
                };
                after.feed(update::What::Did { action, result }, &mut fed);
                if !fed.says.is_empty() {
                    break;
                }
            }
            fed.agent = known.agents.number(after);
            known.finished.insert(key, fed.clone());
            fed
        })
    }
}

impl Agent {
    fn attempt(&self) -> Option<u32> {
        match &self.app.work {
            Work::Update(update) => Some(update.order.attempt),
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => None,
        }
    }

    fn feed(&mut self, what: update::What, fed: &mut Fed) {
        let before = self.attempt();
        let outcome = update::on(&self.app, update::Event { at: 1, what });
        self.app = outcome.app;
        for action in outcome.actions {
            match action {
                Action::Do { number, task } => self.job = Some((number, task)),
                Action::Say { attempt, said, .. } => {
                    let told = match said {
                        Said::Joined(_) => Told::Joined,
                        Said::Done(_) => Told::Done,
                        Said::Failed(_) => Told::Restored,
                        Said::Prepared
                        | Said::Began { .. }
                        | Said::Broken { .. }
                        | Said::Stale { .. } => continue,
                    };
                    let attempt = u8::try_from(attempt).expect("few attempts");
                    fed.says.push(Word { attempt, told });
                }
                Action::Assert { .. } | Action::Tell(_) | Action::Prune => {}
            }
        }
        let after = self.attempt();
        if after != before
            && let Some(attempt) = after
        {
            fed.began.push(u8::try_from(attempt).expect("few attempts"));
        }
    }
}
