//! A host: disk, processes, and an agent that is killed between any two of its deeds and comes back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rota_agent::update::{
    self, Action, App, Failed, Failure, Instance, Left, Measured, Said, Settled, Side, Step,
    UpdateOrder, What, Work,
};
use rota_rollout::event::OnceResult;
use rota_rollout::names::NodeName;

use super::fleet::Quality;
use super::jobs::{Member, Proc, Running};
use super::link::{Down, Ran, Session, Told, Up};
use super::store::{Inventory, reread};
use super::{Ev, World};

/// One app on a host. Apps on one host have an agent each here: they share its name, and what operators want of it.
#[derive(Debug)]
pub struct Node {
    pub name: NodeName,
    /// Which app in which environment runs here.
    pub line: usize,
    pub zone: String,
    /// Complete releases on its disk.
    pub disk: BTreeSet<usize>,
    /// Where `current` points to.
    pub link: Option<usize>,
    /// What survives the agent.
    pub journal: App,
    pub outbox: VecDeque<(u64, u64, Told)>,
    pub next_seq: u64,
    /// When what waits in the outbox was last sent to everybody.
    pub repeated: u64,
    /// Once-per-release jobs that began here, and how they ended. Durable.
    pub once: BTreeMap<(u64, u32), Option<OnceResult>>,
    /// Commands that began here, and how they ended. Durable.
    pub ran: BTreeMap<(u64, u32), Option<Ran>>,
    /// Processes by token; they outlive the agent.
    pub procs: BTreeMap<u64, Proc>,
    /// Members of the pool by label, as the edges have them.
    pub members: BTreeMap<String, Member>,
    pub agent: Option<Agent>,
    /// Counts starts of the agent: what an earlier one had begun is lost.
    pub epoch: u64,
    pub powered: bool,
    /// It has joined the fleet; one that has not is there, and nobody knows it.
    pub enrolled: bool,
    pub booted_at: u64,
    pub sessions: BTreeMap<u64, Session>,
    /// The network to the controllers is cut.
    pub cut: bool,
    /// An update took it out of traffic, and it has not served since.
    pub taken_out: bool,
    /// Since when it serves.
    pub serves_since: Option<u64>,
    /// The newest term accepted for each rollout.
    pub terms: BTreeMap<String, u64>,
    /// A stop failed here: what should have ended may run on.
    pub leaky: bool,
    /// The newest of the operators' wishes that came here.
    pub standing: u64,
}

/// What lives in the agent's memory only.
#[derive(Debug, Default)]
pub struct Agent {
    pub job: Option<Running>,
}

/// A release that is being fetched ahead of its update.
#[derive(Debug, Clone)]
pub struct Prepare {
    pub revision: u64,
    pub attempt: u32,
    pub to: usize,
}

impl World {
    pub fn add_node(&mut self, line: usize, index: usize) {
        // Environments share no hosts.
        let letter = ["n", "t"][self.lines[line].env_number];
        let name: NodeName = format!("{letter}{index}").parse().expect("a name");
        let zone = ["a", "b", "c"][index % 3].to_owned();
        let first = self.lines[line].first;
        let comes_later = index > 0 && self.rng.percent(15);
        let bare = comes_later || self.rng.percent(10);
        let token = 1;
        let mut node = Node {
            name,
            line,
            zone,
            disk: BTreeSet::new(),
            link: None,
            journal: App { counter: token, ..App::default() },
            outbox: VecDeque::new(),
            next_seq: 1,
            repeated: 0,
            once: BTreeMap::new(),
            ran: BTreeMap::new(),
            procs: BTreeMap::new(),
            members: BTreeMap::new(),
            agent: (!comes_later).then(Agent::default),
            epoch: 0,
            powered: !comes_later,
            enrolled: !comes_later,
            booted_at: 0,
            sessions: BTreeMap::new(),
            cut: false,
            taken_out: false,
            serves_since: None,
            terms: BTreeMap::new(),
            leaky: false,
            standing: 0,
        };
        if !bare {
            let instance = Instance { label: String::new(), token, port: 9000 };
            node.disk.insert(first);
            node.link = Some(first);
            node.procs.insert(token, Proc::new(first, 0));
            node.members.insert(String::new(), Member { token, side: Side::In });
            let spec = self.made[first].spec.clone();
            node.journal.current = Some(Settled::new(spec, Some(instance), Side::In));
        }
        let index = self.nodes.len();
        self.nodes.push(node);
        self.store.inventories.push(Inventory::default());
        self.store.drained.push(false);
        let inventory = self.inventory(index);
        self.store.inventories[index] = inventory;
        self.nodes[index].serves_since = inventory.traffic_in.then_some(0);
        self.after(1, Ev::Dial { node: index });
        if comes_later {
            let comes = self.rng.range(2_000, 300_000);
            self.after(comes, Ev::Enrol { node: index });
        }
    }

    /// A host joins the fleet.
    pub fn enrol(&mut self, node: usize) {
        self.deed("node enrolled");
        self.note(|| format!("    n{node}: joins the fleet"));
        let host = &mut self.nodes[node];
        (host.powered, host.enrolled) = (true, true);
        host.booted_at = self.now;
        host.agent = Some(Agent::default());
    }

    /// A host that rests is made anew: its disk, its journal, its processes are gone.
    pub fn make_anew(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        let rests = host.journal.work == Work::Idle && host.outbox.is_empty();
        let busy =
            host.once.values().any(Option::is_none) || host.ran.values().any(Option::is_none);
        let working = host.agent.as_ref().is_none_or(|agent| agent.job.is_some());
        if !rests || busy || working || !host.powered {
            return;
        }
        host.disk.clear();
        host.link = None;
        host.journal = App { counter: host.journal.counter, ..App::default() };
        host.procs.clear();
        host.members.clear();
        host.terms.clear();
        host.sessions.clear();
        (host.taken_out, host.serves_since, host.leaky) = (false, None, false);
        host.epoch += 1;
        self.deed("node made anew");
        self.note(|| format!("    n{node}: is made anew"));
    }

    /// What runs here.
    pub fn inventory(&self, node: usize) -> Inventory {
        let node = &self.nodes[node];
        let serves = |member: &&Member| {
            member.side == Side::In && node.procs.get(&member.token).is_some_and(|p| p.alive)
        };
        let traffic_in = node.members.values().any(|member| serves(&member));
        let healthy = node.procs.values().any(|proc| proc.alive && proc.healthy);
        let moving = matches!(node.journal.work, Work::Update(_)) || node.journal.queued.is_some();
        Inventory { link: node.link, healthy, traffic_in, moving }
    }

    /// One event of the agent's machine: journal first, then actions.
    pub fn feed(&mut self, node: usize, what: What) {
        let Some(_) = &self.nodes[node].agent else { return };
        let host = &self.nodes[node];
        let at = self.now - host.booted_at + 1;
        self.note(|| format!("    n{node} {}", brief(&what)));
        let before = host.journal.clone();
        let outcome = update::on(&before, update::Event { at, what: what.clone() });
        for note in &outcome.notes {
            self.note(|| format!("    n{node} | {note}"));
        }
        if self.dies_here() {
            return self.kill_agent(node, "before the journal");
        }
        self.nodes[node].journal = outcome.app;
        self.check_fed(node, &before, &what);
        if self.dies_here() {
            return self.kill_agent(node, "after the journal");
        }
        for action in outcome.actions {
            if self.dies_here() {
                return self.kill_agent(node, "amid its actions");
            }
            self.act(node, action);
        }
        self.tell_inventory(node);
    }

    fn act(&mut self, node: usize, action: Action) {
        match action {
            Action::Do { number, task } => self.begin_job(node, number, task),
            Action::Say { rollout, attempt, said } => {
                let Some(revision) = revision_of(&rollout) else { return };
                self.note(|| format!("    n{node} says {attempt}: {}", brief_said(&said)));
                self.tell(node, revision, Told::Said { attempt, said });
            }
            Action::Assert { instance, side } => self.set_side(node, &instance, side),
            Action::Tell(_) | Action::Prune => {}
        }
    }

    pub fn kill_agent(&mut self, node: usize, why: &str) {
        self.note(|| format!("    n{node}: the agent dies {why}"));
        self.deed("agent killed");
        let host = &mut self.nodes[node];
        host.agent = None;
        host.sessions.clear();
        let down = self.rng.range(50, if self.faulty { 30_000 } else { 500 });
        self.after(down, Ev::AgentUp { node });
    }

    pub fn start_agent(&mut self, node: usize) {
        let host = &mut self.nodes[node];
        if host.agent.is_some() || !host.powered {
            return;
        }
        host.agent = Some(Agent::default());
        host.epoch += 1;
        let read: App = reread(&host.journal);
        // What is left over is cleared away from the beginning.
        let clears = matches!(host.journal.work, Work::Clear(_)) && read.work == Work::Idle;
        let kept = App { work: host.journal.work.clone(), ..read.clone() };
        let same = if clears { kept == host.journal } else { read == host.journal };
        let alive: BTreeSet<u64> =
            host.procs.iter().filter(|(_, proc)| proc.alive).map(|(token, _)| *token).collect();
        let lost: Vec<(u64, u32)> =
            host.once.iter().filter(|(_, end)| end.is_none()).map(|(key, _)| *key).collect();
        if !same {
            self.violation(format!("n{node}: the journal is not read back as it was written"));
        }
        let cut_off: Vec<(u64, u32)> = self.nodes[node]
            .ran
            .iter()
            .filter(|(_, end)| end.is_none())
            .map(|(key, _)| *key)
            .collect();
        for key in cut_off {
            self.nodes[node].ran.insert(key, Some(Ran::Unknown));
        }
        for key in lost {
            self.once_ended(node, key, OnceResult::Unknown);
        }
        self.feed(node, What::Booted { alive });
    }

    pub fn power_up(&mut self, node: usize) {
        let now = self.now;
        let host = &mut self.nodes[node];
        if host.powered {
            return;
        }
        host.powered = true;
        host.booted_at = now;
        self.start_agent(node);
    }

    pub fn hear_controller(&mut self, node: usize, ctl: u64, session: u64, down: Down) {
        let host = &self.nodes[node];
        if host.agent.is_none() || host.sessions.get(&ctl).is_none_or(|s| s.id != session) {
            return;
        }
        match down {
            Down::Prepare { revision, term, attempt, to } => {
                if self.accepts(node, revision, term, attempt) {
                    let epoch = self.nodes[node].epoch;
                    let there = self.nodes[node].disk.contains(&to);
                    let took = if there { 5 } else { self.rng.range(200, 8_000) };
                    let prepare = Prepare { revision, attempt, to };
                    self.after(took, Ev::Prepared { node, epoch, prepare });
                }
            }
            Down::Update(order) => self.order_update(node, *order),
            Down::Once { revision, term, attempt } => {
                if self.accepts(node, revision, term, attempt) {
                    self.order_once(node, (revision, attempt));
                }
            }
            Down::Run { revision, term, attempt } => {
                if self.accepts(node, revision, term, attempt) {
                    self.order_run(node, (revision, attempt));
                }
            }
            Down::Settle { revision, term } => {
                let rollout = self.title(revision);
                self.feed(node, What::Settle { rollout, term });
            }
            Down::Standing { drained, seq } => {
                if seq >= self.nodes[node].standing {
                    self.nodes[node].standing = seq;
                    self.feed(node, What::Standing { drained });
                }
            }
            Down::Ack { seq } => self.nodes[node].outbox.retain(|(waiting, _, _)| *waiting > seq),
            Down::AckOne { seq } => self.nodes[node].outbox.retain(|(it, _, _)| *it != seq),
            Down::Again => {
                let waiting: Vec<_> = self.nodes[node].outbox.iter().cloned().collect();
                for (seq, revision, what) in waiting {
                    self.send_up(node, ctl, Up::Report { seq, revision, what });
                }
            }
        }
    }

    fn order_update(&mut self, node: usize, order: UpdateOrder) {
        let to = self.made.iter().position(|made| made.spec.digest == order.spec.digest);
        self.note(|| {
            format!("    n{node} gets {:?} to {to:?}, attempt {}", order.direction, order.attempt)
        });
        self.feed(node, What::Ordered(order));
    }

    /// The fence of orders that are not updates: kept with the app.
    fn accepts(&mut self, node: usize, revision: u64, term: u64, attempt: u32) -> bool {
        let rollout = self.title(revision);
        let newest = self.nodes[node].journal.fences.get(&rollout).map_or(0, |fence| fence.term);
        if term < newest {
            let said = Said::Stale { newest_term: newest };
            self.tell(node, revision, Told::Said { attempt, said });
            return false;
        }
        true
    }

    pub fn prepared(&mut self, node: usize, epoch: u64, prepare: Prepare) {
        let host = &self.nodes[node];
        if host.agent.is_none() || host.epoch != epoch {
            return;
        }
        let Prepare { revision, attempt, to } = prepare;
        let said = if self.made[to].quality[node] == Quality::Corrupt {
            Said::Failed(Box::new(Failed {
                failure: Failure {
                    step: Step::Fetch,
                    cause: "the digest is another".to_owned(),
                    output: String::new(),
                },
                left: Left::Untouched,
                restore_error: None,
                measured: Measured::default(),
                release: None,
            }))
        } else {
            self.nodes[node].disk.insert(to);
            Said::Prepared
        };
        self.tell(node, revision, Told::Said { attempt, said });
    }

    /// The once-per-release job: begun at most once for each attempt, which is durable before it begins.
    fn order_once(&mut self, node: usize, key: (u64, u32)) {
        match self.nodes[node].once.get(&key) {
            Some(None) => {} // under way
            Some(Some(result)) => {
                let result = result.clone();
                self.tell(node, key.0, Told::Once { attempt: key.1, result });
            }
            None => {
                let before = |(other, end): (&(u64, u32), &Option<OnceResult>)| {
                    other.0 == key.0 && *end == Some(OnceResult::Succeeded)
                };
                if self.nodes[node].once.iter().any(before) {
                    return self.once_ended(node, key, OnceResult::Succeeded);
                }
                if self.rng.percent(5) {
                    let result = OnceResult::NeverBegan;
                    return self.tell(node, key.0, Told::Once { attempt: key.1, result });
                }
                self.check_once(node, key);
                self.nodes[node].once.insert(key, None);
                let epoch = self.nodes[node].epoch;
                let took = self.rng.range(100, 20_000);
                self.after(took, Ev::OnceEnds { node, epoch, key });
            }
        }
    }

    /// An operator's command: begun at most once for each attempt, which is durable before it begins.
    fn order_run(&mut self, node: usize, key: (u64, u32)) {
        match self.nodes[node].ran.get(&key) {
            Some(None) => {} // under way
            Some(Some(end)) => {
                let end = *end;
                self.tell(node, key.0, Told::Ran { attempt: key.1, end });
            }
            None => {
                if self.nodes[node].ran.keys().any(|other| *other > key) {
                    return; // a late repeat
                }
                if let Work::Update(_) = &self.nodes[node].journal.work {
                    // An update that its rollout was told to forget: there is no app to run it beside.
                    self.nodes[node].ran.insert(key, Some(Ran::Badly));
                    return self.tell(node, key.0, Told::Ran { attempt: key.1, end: Ran::Badly });
                }
                self.check_run(node, key);
                self.nodes[node].ran.insert(key, None);
                let epoch = self.nodes[node].epoch;
                let took = self.rng.range(10, 20_000);
                self.after(took, Ev::RunEnds { node, epoch, key });
            }
        }
    }

    pub fn run_ends(&mut self, node: usize, epoch: u64, key: (u64, u32)) {
        let host = &self.nodes[node];
        if host.agent.is_none() || host.epoch != epoch {
            return;
        }
        let end = if self.rng.percent(80) { Ran::Well } else { Ran::Badly };
        self.nodes[node].ran.insert(key, Some(end));
        self.tell(node, key.0, Told::Ran { attempt: key.1, end });
    }

    pub fn once_ends(&mut self, node: usize, epoch: u64, key: (u64, u32)) {
        let host = &self.nodes[node];
        if host.agent.is_none() || host.epoch != epoch {
            return;
        }
        let result = if self.rng.percent(70) {
            OnceResult::Succeeded
        } else {
            OnceResult::Failed { text: "exit code 1".to_owned(), output: String::new() }
        };
        self.once_ended(node, key, result);
    }

    fn once_ended(&mut self, node: usize, key: (u64, u32), result: OnceResult) {
        self.nodes[node].once.insert(key, Some(result.clone()));
        self.tell(node, key.0, Told::Once { attempt: key.1, result });
    }
}

pub fn revision_of(rollout: &str) -> Option<u64> {
    rollout.rsplit('/').next()?.parse().ok()
}

fn brief(what: &What) -> String {
    match what {
        What::Ordered(order) => {
            format!("ordered {}#{} term {}", order.rollout, order.attempt, order.term)
        }
        other => format!("{other:?}"),
    }
}

fn brief_said(said: &Said) -> String {
    match said {
        Said::Failed(failed) => format!(
            "failed at {:?} ({}), left {:?} {:?}",
            failed.failure.step, failed.failure.cause, failed.left, failed.restore_error
        ),
        other => format!("{other:?}"),
    }
}
