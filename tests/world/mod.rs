//! A world that fits into one process and has no chance but its seed: controllers, nodes, edges, network, operators.
//!
//! The real decisions are made here by the real code: [`rota_rollout::step`] and [`rota_agent::update::on`]. Everything
//! around them is simulated, and everything around them fails: messages are lost, repeated and late, processes are
//! killed between any two of their deeds, hosts lose power, an owner of yesterday wakes up. After every step the
//! world compares what is true with what must hold (design, section 8).
//!
//! - `fleet`: what a seed makes: releases, strategies, targets.
//! - `store`, `controller`: the controllers' side; `several`: more than one of them; `members`: who is one.
//! - `node`, `jobs`: a host, its agent and its processes.
//! - `link`: sessions and what they do to messages.
//! - `faults`, `operators`: what goes wrong; what people ask.
//! - `truths`: what must hold.

mod controller;
mod faults;
mod fleet;
mod jobs;
mod link;
mod members;
mod node;
mod operators;
mod rng;
mod several;
mod store;
mod truths;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use controller::Controller;
use fleet::{Line, Made};
use link::{Down, Up};
use node::Node;
use rng::Rng;
use rota_rollout::names::Timestamp;
use store::Store;

/// The clock of the controllers when a world begins: not zero, so that "before" exists.
const EPOCH_MS: u64 = 1_000_000;

/// A world that is not over after so many events has an endless loop in it.
const EVENTS_MAX: u64 = 400_000;

/// After the faults everything has to come to an end within so long.
const QUIET_MAX_MS: u64 = 12 * 3_600_000;

/// What happens at a point in time. Numbers of nodes are places in `World::nodes`.
#[derive(Debug)]
pub enum Ev {
    ToController { ctl: u64, node: usize, session: u64, up: Up },
    ToNode { node: usize, ctl: u64, session: u64, down: Down },
    Dial { node: usize },
    Prepared { node: usize, epoch: u64, prepare: node::Prepare },
    RunEnds { node: usize, epoch: u64, key: (u64, u32) },
    OnceEnds { node: usize, epoch: u64, key: (u64, u32) },
    InFlight { node: usize, epoch: u64, number: u64 },
    JobEnds { node: usize, epoch: u64, number: u64 },
    ProcessDies { node: usize, token: u64, start: u64 },
    Exited { node: usize, epoch: u64, token: u64 },
    AgentUp { node: usize },
    PowerUp { node: usize },
    Enrol { node: usize },
    Heal { node: usize },
    Tick { ctl: u64 },
    Wake { ctl: u64 },
    ControllerUp,
    Start { name: usize },
    Join { ctl: u64 },
    Beat { ctl: u64 },
    Look { ctl: u64 },
    LeaseEnds { name: usize },
    Watched { ctl: u64, copy: Rc<Store> },
    Recover { ctl: u64 },
    StoreBack { name: usize },
    Quorum,
    NodesBack { name: usize },
    Undrain { name: usize },
    ControllerResumes { ctl: u64 },
    Unfreeze { env: usize },
    WindowOpens { env: usize },
    EdgeBack,
    Fault,
    Operator,
    Quiet,
}

/// What a run was worth, so that the test can tell that its worlds are not all alike.
#[derive(Debug, Default, Clone)]
pub struct Story {
    pub events: u64,
    pub outcomes: BTreeMap<&'static str, u64>,
    pub deeds: BTreeMap<&'static str, u64>,
}

pub struct World {
    seed: u64,
    now: u64,
    seq: u64,
    queue: BTreeMap<(u64, u64), Ev>,
    rng: Rng,
    trace: bool,
    store: Store,
    controllers: BTreeMap<u64, Controller>,
    /// The controller that should own everything now.
    live: Option<u64>,
    next_id: u64,
    nodes: Vec<Node>,
    made: Vec<Made>,
    lines: Vec<Line>,
    /// How many controllers there are to be; `None`: one, on a store of its own.
    several: Option<usize>,
    /// Until when the store answers nobody.
    store_down: u64,
    /// Which process committed for a rollout in a term.
    committed: BTreeMap<(u64, u64), u64>,
    /// Nodes that a controller cannot reach: its name, the node.
    cuts: BTreeSet<(usize, usize)>,
    faulty: bool,
    /// Of ten thousand: how often a process is killed between two of its deeds.
    deadly: u64,
    rollouts_left: u64,
    answers: u64,
    quiet_since: u64,
    story: Story,
    wrong: Option<String>,
}

/// How many controllers a world has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controllers {
    /// One, on a store of its own. Its next life claims what the one before ran.
    One,
    /// Up to three, on one store.
    Several,
}

/// Runs the world of a seed. `Err`: what did not hold, and when.
pub fn run(controllers: Controllers, seed: u64, trace: bool) -> Result<Story, String> {
    let mut world = World::new(controllers, seed, trace);
    while let Some((&(at, n), _)) = world.queue.first_key_value() {
        let Some(ev) = world.queue.remove(&(at, n)) else { break };
        world.now = at;
        world.story.events += 1;
        world.handle(ev);
        if world.wrong.is_none() && world.is_over() {
            world.check_end();
            world.report(n)?;
            return Ok(world.story);
        }
        if world.story.events > EVENTS_MAX {
            world.violation(format!("no end after {EVENTS_MAX} events: {}", world.standing()));
        }
        if !world.faulty && world.now > world.quiet_since + QUIET_MAX_MS {
            world.violation(format!(
                "no end {QUIET_MAX_MS} ms after the faults: {}",
                world.standing()
            ));
        }
        world.report(n)?;
    }
    Err(format!("seed={seed}: nothing is left to happen: {}", world.standing()))
}

impl World {
    fn new(controllers: Controllers, seed: u64, trace: bool) -> Self {
        let mut rng = Rng::new(seed);
        let several = (controllers == Controllers::Several).then(|| rng.pick(&[1, 2, 2, 3, 3]));
        let count = match controllers {
            Controllers::One => rng.pick(&[1, 2, 3, 3, 4, 5, 6, 8, 12]),
            Controllers::Several => rng.pick(&[1, 2, 3, 3, 4, 5]),
        };
        let lines = fleet::lines(several.map_or(1, |_| rng.pick(&[1, 2, 2, 3])));
        let nodes = count * lines.len();
        let made: Vec<Made> =
            lines.iter().flat_map(|line| fleet::releases(&mut rng, nodes, line)).collect();
        let deadly = rng.pick(&[0, 5, 20, 60]);
        let mut world = Self {
            seed,
            now: 0,
            seq: 0,
            queue: BTreeMap::new(),
            trace,
            store: Store::default(),
            controllers: BTreeMap::new(),
            live: None,
            next_id: 0,
            nodes: Vec::new(),
            made,
            lines,
            several,
            store_down: 0,
            committed: BTreeMap::new(),
            cuts: BTreeSet::new(),
            faulty: true,
            deadly,
            rollouts_left: rng.range(1, if several.is_some() { 7 } else { 4 }),
            answers: 0,
            quiet_since: 0,
            story: Story::default(),
            wrong: None,
            rng,
        };
        world.store.current = vec![None; world.lines.len()];
        world.store.frozen = vec![None; 2];
        world.store.closed = vec![None; 2];
        world.store.guard = vec![0; 2];
        for line in 0..world.lines.len() {
            for index in 0..count {
                world.add_node(line, index);
            }
        }
        match several {
            None => world.start_controller(),
            Some(controllers) => world.begin_several(controllers),
        }
        let quiet = world.rng.range(30_000, 900_000);
        for (after, ev) in [(1_000, Ev::Operator), (2_000, Ev::Fault), (quiet, Ev::Quiet)] {
            world.after(after, ev);
        }
        world
    }

    /// The controllers' clock.
    fn clock(&self) -> Timestamp {
        Timestamp(EPOCH_MS + self.now)
    }

    fn after(&mut self, ms: u64, ev: Ev) {
        self.at(self.now + ms, ev);
    }

    fn at(&mut self, at: u64, ev: Ev) {
        self.seq += 1;
        self.queue.insert((at.max(self.now), self.seq), ev);
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Does a process die right here, between two of its deeds?
    fn dies_here(&mut self) -> bool {
        self.faulty && self.deadly > 0 && self.rng.myriad(self.deadly)
    }

    fn deed(&mut self, name: &'static str) {
        *self.story.deeds.entry(name).or_default() += 1;
    }

    fn note(&self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>9.3} {}", self.now as f64 / 1000.0, text());
        }
    }

    fn violation(&mut self, text: String) {
        self.note(|| format!("VIOLATION {text}"));
        self.wrong.get_or_insert(text);
    }

    fn report(&self, step: u64) -> Result<(), String> {
        match &self.wrong {
            Some(wrong) => {
                Err(format!("seed={} step={step} at={} ms: {wrong}", self.seed, self.now))
            }
            None => Ok(()),
        }
    }

    fn handle(&mut self, ev: Ev) {
        match ev {
            Ev::ToController { ctl, node, session, up } => self.hear_agent(ctl, node, session, up),
            Ev::ToNode { node, ctl, session, down } => {
                self.hear_controller(node, ctl, session, down)
            }
            Ev::Dial { node } => self.dial(node),
            Ev::Prepared { node, epoch, prepare } => self.prepared(node, epoch, prepare),
            Ev::RunEnds { node, epoch, key } => self.run_ends(node, epoch, key),
            Ev::OnceEnds { node, epoch, key } => self.once_ends(node, epoch, key),
            Ev::InFlight { node, epoch, number } => self.in_flight(node, epoch, number),
            Ev::JobEnds { node, epoch, number } => self.job_ends(node, epoch, number),
            Ev::ProcessDies { node, token, start } => self.process_dies(node, token, start),
            Ev::Exited { node, epoch, token } => self.exited(node, epoch, token),
            Ev::AgentUp { node } => self.start_agent(node),
            Ev::Enrol { node } => self.enrol(node),
            Ev::PowerUp { node } => self.power_up(node),
            Ev::Heal { node } => self.heal(node),
            Ev::Tick { ctl } => self.tick(ctl),
            Ev::Wake { ctl } => self.wake(ctl),
            Ev::ControllerUp => self.start_controller(),
            Ev::Start { name } => self.start_member(name),
            Ev::Join { ctl } => self.join(ctl),
            Ev::Beat { ctl } => self.beat(ctl),
            Ev::Look { ctl } => self.look(ctl),
            Ev::LeaseEnds { name } => self.lease_ends(name),
            Ev::Watched { ctl, copy } => self.watched(ctl, copy),
            Ev::Recover { ctl } => self.recover(ctl),
            Ev::StoreBack { name } => self.store_back(name),
            Ev::Quorum => self.quorum(),
            Ev::NodesBack { name } => self.nodes_back(name),
            Ev::Undrain { name } => self.undrain(name),
            Ev::ControllerResumes { ctl } => self.resume_controller(ctl),
            Ev::Unfreeze { env } => self.freeze(env, None),
            Ev::WindowOpens { env } => self.window(env, None),
            Ev::EdgeBack => self.edge_goes(false),
            Ev::Fault => self.fault(),
            Ev::Operator => self.operate(),
            Ev::Quiet => self.quiet(),
        }
    }

    /// Where everything stands, for a failing seed.
    fn standing(&self) -> String {
        let mut text = String::new();
        for (revision, kept) in &self.store.rollouts {
            let head = &kept.rollout.head;
            if !kept.rollout.is_ended() {
                text.push_str(&format!(
                    "rollout {revision} of c{}: {:?}, paused {:?}, held {:?}; ",
                    kept.owner, head.stage, head.paused, head.held
                ));
                for (name, node) in kept.rollout.nodes() {
                    text.push_str(&format!("{name} {:?}; ", node.phase));
                }
            }
        }
        for node in &self.nodes {
            text.push_str(&format!("{}: {:?}; ", node.name, node.journal.work));
        }
        for (ctl, controller) in &self.controllers {
            let member = &controller.member;
            let (fence, blind) = (member.fence, member.blind);
            text.push_str(&format!("{ctl} is c{}: {fence:?}, blind {blind}; ", controller.name));
        }
        text
    }
}
