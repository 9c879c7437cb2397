//! Sessions between agents and controllers. Within one session messages keep their order; everything else is chance.

use rota_agent::update::{Left, Said, Step, UpdateOrder};
use rota_rollout::What;
use rota_rollout::event::OnceResult;
use rota_rollout::names::{Attempt, NodeName, Span};
use rota_rollout::node::{self, Failure, Report, StepName};

use super::store::Inventory;
use super::{Ev, World};

/// An agent repeats what nobody has acknowledged for so long.
const REPEAT_MS: u64 = 60_000;

/// From an agent.
#[derive(Debug, Clone)]
pub enum Up {
    Hello(Inventory),
    Inventory(Inventory),
    Report { seq: u64, revision: u64, what: Told },
}

/// What a report says.
#[derive(Debug, Clone)]
pub enum Told {
    Said {
        attempt: u32,
        said: Said,
    },
    Once {
        attempt: u32,
        result: OnceResult,
    },
    /// A command ended: well, badly, or nobody knows.
    Ran {
        attempt: u32,
        end: Ran,
    },
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    Well,
    Badly,
    Unknown,
}

/// From a controller.
#[derive(Debug, Clone)]
pub enum Down {
    Prepare {
        revision: u64,
        term: u64,
        attempt: u32,
        to: usize,
    },
    Update(Box<UpdateOrder>),
    Once {
        revision: u64,
        term: u64,
        attempt: u32,
    },
    Run {
        revision: u64,
        term: u64,
        attempt: u32,
    },
    Settle {
        revision: u64,
        term: u64,
    },
    /// `seq`: of the operators' wishes for this node; an older one comes too late.
    Standing {
        drained: bool,
        seq: u64,
    },
    Ack {
        seq: u64,
    },
    /// This one report; those before it may be another owner's.
    AckOne {
        seq: u64,
    },
    /// A new owner asks for what nobody has acknowledged.
    Again,
}

/// One session, as the agent has it.
#[derive(Debug)]
pub struct Session {
    pub id: u64,
    /// The newest message of each direction arrives then; later ones not before.
    up: u64,
    down: u64,
    /// What the controller was last told.
    pub told: Inventory,
}

impl World {
    pub fn is_reachable(&self, ctl: u64, node: usize) -> bool {
        let cut = self.is_cut(ctl, node);
        let node = &self.nodes[node];
        node.agent.is_some() && !cut && node.sessions.contains_key(&ctl)
    }

    /// Is the network between them cut?
    pub fn is_cut(&self, ctl: u64, node: usize) -> bool {
        let name = self.controllers.get(&ctl).map(|controller| controller.name);
        self.nodes[node].cut || name.is_some_and(|name| self.cuts.contains(&(name, node)))
    }

    fn delay(&mut self) -> u64 {
        if self.faulty && self.rng.percent(2) {
            self.rng.range(500, 12_000)
        } else {
            self.rng.range(1, 20)
        }
    }

    pub fn send_up(&mut self, node: usize, ctl: u64, up: Up) {
        let delay = self.delay();
        let now = self.now;
        let cut = self.is_cut(ctl, node);
        let Some(session) = self.nodes[node].sessions.get_mut(&ctl) else { return };
        session.up = session.up.max(now + delay);
        let (at, session) = (session.up, session.id);
        if !cut {
            self.at(at, Ev::ToController { ctl, node, session, up });
        }
    }

    pub fn send_down(&mut self, ctl: u64, node: usize, down: Down) {
        let delay = self.delay();
        let now = self.now;
        let cut = self.is_cut(ctl, node);
        let Some(known) = self.controllers.get(&ctl).and_then(|c| c.views[node].session) else {
            return;
        };
        let Some(session) = self.nodes[node].sessions.get_mut(&ctl) else { return };
        if cut || session.id != known {
            return;
        }
        session.down = session.down.max(now + delay);
        let at = session.down;
        self.at(at, Ev::ToNode { node, ctl, session: known, down });
    }

    /// An agent looks for controllers that it has no session with.
    pub fn dial(&mut self, node: usize) {
        let again = self.rng.range(500, 3_000);
        self.after(again, Ev::Dial { node });
        if self.nodes[node].agent.is_none() || self.nodes[node].cut {
            return;
        }
        if self.several.is_some() {
            self.repeat(node);
        }
        let missing: Vec<u64> = self
            .controllers
            .keys()
            .copied()
            .filter(|ctl| self.is_running(*ctl) && !self.is_cut(*ctl, node))
            .filter(|ctl| !self.nodes[node].sessions.contains_key(ctl))
            .collect();
        for ctl in missing {
            let id = self.id();
            let told = self.inventory(node);
            let session = Session { id, up: 0, down: 0, told };
            self.nodes[node].sessions.insert(ctl, session);
            self.send_up(node, ctl, Up::Hello(told));
            let waiting: Vec<_> = self.nodes[node].outbox.iter().cloned().collect();
            for (seq, revision, what) in waiting {
                self.send_up(node, ctl, Up::Report { seq, revision, what });
            }
        }
    }

    /// What nobody has acknowledged for long is said once more to everybody: its owner may have ended the rollout and
    /// died before it could, and to whoever else heard it then it was another's.
    fn repeat(&mut self, node: usize) {
        let now = self.now;
        let host = &mut self.nodes[node];
        if !host.outbox.is_empty() && now < host.repeated + REPEAT_MS {
            return;
        }
        host.repeated = now;
        let (waiting, sessions) = (host.outbox.clone(), host.sessions.keys().copied());
        for ctl in sessions.collect::<Vec<_>>() {
            for (seq, revision, what) in waiting.iter().cloned() {
                self.send_up(node, ctl, Up::Report { seq, revision, what });
            }
        }
    }

    /// A controller's process is gone: so are its sessions.
    pub fn hang_up(&mut self, ctl: u64) {
        for node in &mut self.nodes {
            node.sessions.remove(&ctl);
        }
    }

    /// Keeps a report until it is acknowledged, and sends it to everybody.
    pub fn tell(&mut self, node: usize, revision: u64, what: Told) {
        let seq = self.nodes[node].next_seq;
        self.nodes[node].next_seq += 1;
        self.nodes[node].outbox.push_back((seq, revision, what.clone()));
        let sessions: Vec<u64> = self.nodes[node].sessions.keys().copied().collect();
        for ctl in sessions {
            let what = what.clone();
            self.send_up(node, ctl, Up::Report { seq, revision, what: what.clone() });
            if self.faulty && self.rng.percent(2) {
                self.send_up(node, ctl, Up::Report { seq, revision, what });
            }
        }
    }

    /// Tells the controllers when what runs here has changed.
    pub fn tell_inventory(&mut self, node: usize) {
        if self.nodes[node].agent.is_none() {
            return;
        }
        let now = self.inventory(node);
        let others: Vec<u64> = self.nodes[node]
            .sessions
            .iter()
            .filter(|(_, session)| session.told != now)
            .map(|(ctl, _)| *ctl)
            .collect();
        for ctl in others {
            if let Some(session) = self.nodes[node].sessions.get_mut(&ctl) {
                session.told = now;
            }
            self.send_up(node, ctl, Up::Inventory(now));
        }
    }
}

impl Told {
    /// The event of the core; `None`: it is for the shell.
    pub fn event(self, node: NodeName) -> Option<What> {
        Some(match self {
            Self::Once { attempt, result } => {
                What::OnceEnded { node, attempt: Attempt(attempt), result }
            }
            Self::Ran { attempt, end } => {
                let report = match end {
                    Ran::Well => Report::Done(node::Measured::default()),
                    Ran::Badly | Ran::Unknown => Report::Failed(Failure {
                        current: None,
                        step: StepName::Run,
                        text: format!("{end:?}"),
                        output: String::new(),
                        left: node::Left::Untouched,
                        measured: node::Measured::default(),
                    }),
                };
                What::Reported { node, attempt: Attempt(attempt), report }
            }
            Self::Said { attempt, said } => {
                What::Reported { node, attempt: Attempt(attempt), report: report(said)? }
            }
        })
    }
}

fn report(said: Said) -> Option<Report> {
    Some(match said {
        Said::Prepared => Report::Prepared,
        Said::Began { step, in_flight } => Report::Began { step: step_name(step), in_flight },
        Said::Joined(measured) => Report::Joined(sum(measured)),
        Said::Done(measured) => Report::Done(sum(measured)),
        Said::Failed(failed) => Report::Failed(Failure {
            step: step_name(failed.failure.step),
            text: failed.failure.cause,
            output: failed.failure.output,
            left: match failed.left {
                Left::Restored => node::Left::Restored,
                Left::Out => node::Left::Out,
                Left::Untouched => node::Left::Untouched,
            },
            measured: sum(failed.measured),
            current: failed.release.and_then(|version| version.parse().ok()),
        }),
        Said::Broken { cause, output } => Report::Broken { cause, output },
        Said::Stale { .. } => return None,
    })
}

fn sum(measured: rota_agent::update::Measured) -> node::Measured {
    node::Measured {
        out_of_traffic: Span(measured.out_of_traffic_ms),
        in_flight_at_drain: measured.in_flight_at_drain,
        cut: measured.cut,
        kept_out: measured.kept_out,
    }
}

fn step_name(step: Step) -> StepName {
    match step {
        Step::Fetch => StepName::Fetch,
        Step::Drain => StepName::Drain,
        Step::Stop => StepName::Stop,
        Step::Swap => StepName::Swap,
        Step::Start => StepName::Start,
        Step::Health => StepName::Health,
        Step::Smoke => StepName::Smoke,
        Step::Join => StepName::Join,
        Step::Monitor => StepName::Monitor,
        Step::Restore => StepName::Restore,
    }
}
