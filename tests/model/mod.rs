//! A model of claim, lease, term and order, small enough to try every interleaving of it.
//!
//! Two controllers share one rollout over two nodes. The store is the compares of the design: a member's key has a
//! created revision, which is its controller's fence; a commit compares the fence; a claim compares the owner as it
//! was read, that the old owner's member key is gone, and the own fence. What decides is the real code: the core's
//! `step` and the machine of the agents (`real`). Between any two of its deeds a controller may be killed, or stand
//! still while its lease ends and wake up later: nothing here has to happen soon. Messages are late, and come in any
//! order; some are lost with their session, or come twice. What is left out: guards (the simulated world has them),
//! the agents' own crashes (so has it), and time.
//!
//! What may go wrong is counted in [`Left`]; each [`Flaw`] takes one piece of the design away, so that the tests show
//! that the model notices.

mod controllers;
mod nodes;
pub mod real;

use std::collections::BTreeSet;

use real::{Decided, Order, Real, Word};
use stateright::{Model, Property};

pub const NODES: usize = 2;
const CONTROLLERS: usize = 2;

/// More claims than anything can cause.
const TERMS: usize = 12;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub store: Store,
    pub controllers: [Option<Process>; CONTROLLERS],
    pub nodes: [Host; NODES],
    /// By controller and node.
    pub wires: [[Wire; NODES]; CONTROLLERS],
    pub left: Left,
    /// Which process committed in each term.
    committed: [Option<u8>; TERMS],
    pub wrong: Option<Wrong>,
}

/// What is durable.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    /// The created revision of each member's key. Revisions are counted for each key: they are compared, no more.
    members: [Option<u8>; CONTROLLERS],
    created: [u8; CONTROLLERS],
    owner: Owner,
    rollout: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owner {
    controller: usize,
    term: u8,
}

/// One life of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    number: u8,
    /// The created revision of its member key, as it knows it.
    fence: Option<u8>,
    /// It believes to own the rollout.
    runs: Option<Run>,
    doing: Doing,
    /// What a watch had told it before it claimed. Only a flaw makes use of it.
    old: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Run {
    term: u8,
    rollout: u16,
}

/// What it does next, if nothing comes between.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Doing {
    Nothing,
    /// It has claimed, or does not know what became of a commit: reads the rollout.
    Read,
    Commit {
        step: u16,
        orders: Vec<Order>,
        ack: (usize, Word),
    },
    Send {
        orders: Vec<Order>,
        then: Then,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Then {
    /// Acknowledges the report that this came of.
    Ack(usize, Word),
    /// Asks every node to repeat what nobody has acknowledged.
    AskAgain,
}

/// A node: its agent (a number of [`Real`]), and what it keeps until it is acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    agent: u16,
    outbox: BTreeSet<Word>,
    /// The newest term of an order that it carried out or answered.
    accepted: u8,
    /// The attempts whose updates began, as bits.
    begun: u8,
}

/// What is between a controller and a node; in no order. What a node says while a controller does not own the rollout
/// is heard by it at once and means nothing to it: that is the worst case, for it will not be said once more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Wire {
    down: BTreeSet<Down>,
    up: BTreeSet<Word>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Down {
    order: Order,
    term: u8,
}

/// What may still go wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Left {
    /// Controllers that are killed. They start again.
    pub crashes: u8,
    /// Leases that end while their controller lives: it stood still, or the store did not hear it.
    pub leases: u8,
    /// Sessions that break with all that was in them, and are made anew.
    pub breaks: u8,
    /// Messages that come twice.
    pub repeats: u8,
    /// Commits of which the answer is lost.
    pub answers: u8,
    /// Rollouts that are handed over.
    pub handovers: u8,
    /// Updates that fail their smoke test: everything goes back.
    pub failures: u8,
}

/// What is wrong in a state, found while it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    OldTermCarriedOut,
    UpdatedTwice,
    TwoCommitted,
    TermFell,
    TwoOut,
    NotWhatIsDurable,
    CoreBroken,
}

/// A piece of the design that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// A commit does not compare the fence.
    CommitsWithoutFence,
    /// A claim does not compare that the old owner's member is gone.
    ClaimsFromTheLiving,
    /// A claim leaves the term as it is.
    ClaimsInTheSameTerm,
    /// A new owner goes on with what it had read before it claimed.
    ClaimsWithoutReading,
    /// An agent looks at no term.
    AgentIgnoresTerms,
    /// A new owner does not order again what is outstanding.
    NeverOrdersAgain,
    /// A new owner does not ask for the reports that nobody has acknowledged.
    NeverAsksAgain,
}

/// Everything that can happen next. Numbers: of a controller, of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Start(usize),
    Join(usize),
    Notice(usize),
    LeaseEnds(usize),
    Crash(usize),
    Claim(usize),
    Read(usize),
    Hear { controller: usize, node: usize, word: Word, twice: bool },
    Commit(usize, Answer),
    Send(usize),
    HandOver(usize),
    Deliver { controller: usize, node: usize, what: Down, twice: bool },
    Finish { node: usize, well: bool },
    Break { controller: usize, node: usize },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Comes,
    /// The commit came to the store, and its answer not back.
    Lost,
    /// The commit did not come to the store, and nobody said so.
    NeverSent,
}

pub struct World {
    pub real: Real,
    pub may_go_wrong: Left,
    pub flaw: Option<Flaw>,
}

impl World {
    fn lacks(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// The rollout is over, every node is at rest, and nobody keeps a report.
    fn is_at_its_end(&self, state: &State) -> bool {
        let rests = |host: &Host| host.outbox.is_empty() && !self.real.is_busy(host.agent);
        self.real.is_ended(state.store.rollout) && state.nodes.iter().all(rests)
    }

    fn ended_as(&self, state: &State, how: &str) -> bool {
        self.is_at_its_end(state) && self.real.state(state.store.rollout) == how
    }
}

impl Model for World {
    type State = State;
    type Action = Deed;

    /// Both controllers are there. The first has just committed that the first node is to be updated.
    fn init_states(&self) -> Vec<State> {
        let orders = self.real.outstanding(0);
        let process = |number: usize| Process {
            number: u8::try_from(number).expect("few controllers"),
            fence: Some(1),
            runs: (number == 0).then_some(Run { term: 1, rollout: 0 }),
            doing: match number {
                0 => Doing::Send { orders: orders.clone(), then: Then::AskAgain },
                _ => Doing::Nothing,
            },
            old: 0,
        };
        let host = Host { agent: 0, outbox: BTreeSet::new(), accepted: 0, begun: 0 };
        let mut committed = [None; TERMS];
        committed[1] = Some(0);
        vec![State {
            store: Store {
                members: [Some(1); CONTROLLERS],
                created: [1; CONTROLLERS],
                owner: Owner { controller: 0, term: 1 },
                rollout: 0,
            },
            controllers: [Some(process(0)), Some(process(1))],
            nodes: [host.clone(), host],
            wires: Default::default(),
            left: self.may_go_wrong,
            committed,
            wrong: None,
        }]
    }

    fn actions(&self, state: &State, deeds: &mut Vec<Deed>) {
        if state.wrong.is_some() {
            return;
        }
        for controller in 0..CONTROLLERS {
            self.deeds_of_controller(state, controller, deeds);
            for node in 0..NODES {
                self.deeds_between(state, controller, node, deeds);
            }
        }
        for (node, host) in state.nodes.iter().enumerate() {
            if self.real.is_busy(host.agent) {
                deeds.push(Deed::Finish { node, well: true });
                if state.left.failures > 0 {
                    deeds.push(Deed::Finish { node, well: false });
                }
            }
        }
    }

    fn next_state(&self, before: &State, deed: Deed) -> Option<State> {
        let mut state = before.clone();
        match deed {
            Deed::Start(who) => self.start(&mut state, who),
            Deed::Join(who) => self.join(&mut state, who),
            Deed::Notice(who) => self.notice(&mut state, who),
            Deed::LeaseEnds(who) => self.lease_ends(&mut state, who),
            Deed::Crash(who) => self.crash(&mut state, who),
            Deed::Claim(who) => self.claim(&mut state, who),
            Deed::Read(who) => self.read(&mut state, who),
            Deed::Hear { controller, node, word, twice } => {
                self.hear(&mut state, controller, (node, word), twice);
            }
            Deed::Commit(who, answer) => self.commit(&mut state, who, answer),
            Deed::Send(who) => self.send(&mut state, who),
            Deed::HandOver(who) => self.hand_over(&mut state, who),
            Deed::Deliver { controller, node, what, twice } => {
                self.deliver(&mut state, (controller, node), what, twice);
            }
            Deed::Finish { node, well } => self.finish(&mut state, node, well),
            Deed::Break { controller, node } => self.break_session(&mut state, controller, node),
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn never(name: &'static str, found: fn(&World, &State) -> bool) -> Property<World> {
            Property::always(name, found)
        }
        vec![
            never("an order of an older term is never carried out", |_, state| {
                state.wrong != Some(Wrong::OldTermCarriedOut)
            }),
            never("no node is updated twice for one attempt", |_, state| {
                state.wrong != Some(Wrong::UpdatedTwice)
            }),
            never("no two processes commit in one term", |_, state| {
                state.wrong != Some(Wrong::TwoCommitted)
            }),
            never("no term falls", |_, state| state.wrong != Some(Wrong::TermFell)),
            never("no two nodes are out at once", |_, state| state.wrong != Some(Wrong::TwoOut)),
            never("an owner knows what is durable", |_, state| {
                state.wrong != Some(Wrong::NotWhatIsDurable)
            }),
            never("the core keeps its promises", |_, state| state.wrong != Some(Wrong::CoreBroken)),
            Property::eventually("it comes to its end", |world: &World, state: &State| {
                state.wrong.is_some() || world.is_at_its_end(state)
            }),
            Property::sometimes("it completes in a later term", |world: &World, state: &State| {
                state.store.owner.term > 1 && world.ended_as(state, "completed")
            }),
        ]
    }
}
