//! What an agent's actions do to its host and to the edges, when they end, and how they fail.

use rota_agent::spec::OnDrainTimeout;
use rota_agent::update::{Did, Instance, Job, Phase, Side, Task, What, Work};

use super::fleet::Quality;
use super::{Ev, World};

/// One process.
#[derive(Debug, Clone)]
pub struct Proc {
    pub release: usize,
    pub alive: bool,
    pub healthy: bool,
    /// When each request that it has accepted ends, while it gets no new ones.
    pub in_flight: Vec<u64>,
    /// What is still in flight was counted as cut.
    pub counted: bool,
    /// Tells this start of the token from others.
    pub start: u64,
}

impl Proc {
    pub fn new(release: usize, start: u64) -> Self {
        Self { release, alive: true, healthy: true, in_flight: Vec::new(), counted: false, start }
    }
}

/// A member of the pool, as the edges have it.
#[derive(Debug, Clone)]
pub struct Member {
    pub token: u64,
    pub side: Side,
}

/// A job under way.
#[derive(Debug, Clone)]
pub struct Running {
    pub number: u64,
    pub job: Job,
    /// Its effect is there already, though nobody was told.
    pub effected: bool,
    /// It will fail for a reason outside of node and release.
    pub flaky: bool,
}

impl World {
    pub fn begin_job(&mut self, node: usize, number: u64, job: Job) {
        self.note(|| format!("    n{node} does {number}: {}", brief(&job)));
        let flaky = self.faulty && self.deadly > 0 && self.rng.myriad(50);
        if let Job::Drain { instance, .. } = &job
            && !flaky
        {
            self.leave(node, &instance.clone());
        }
        let took = self.duration(node, &job);
        let effected = !flaky && self.rng.percent(30);
        if effected {
            self.effect(node, &job);
        }
        let epoch = self.nodes[node].epoch;
        if let Job::Drain { .. } = &job
            && self.rng.percent(30)
        {
            self.after(took / 2, Ev::InFlight { node, epoch, number });
        }
        if let Some(agent) = &mut self.nodes[node].agent {
            agent.job = Some(Running { number, job, effected, flaky });
        }
        self.after(took, Ev::JobEnds { node, epoch, number });
    }

    /// Leaves traffic: from now on no new requests. What is in flight goes on.
    fn leave(&mut self, node: usize, instance: &Instance) {
        if self.nodes[node].journal.work_is_forward_drain() {
            self.check_taking_out(node, instance);
        }
        self.set_side(node, instance, Side::Out);
    }

    pub fn set_side(&mut self, node: usize, instance: &Instance, side: Side) {
        let now = self.now;
        let busy = self.rng.range(0, 5);
        let long = self.rng.percent(10);
        let ends: Vec<u64> = (0..busy)
            .map(|n| now + if long && n == 0 { 60_000 } else { self.rng.range(1, 3_000) })
            .collect();
        let host = &mut self.nodes[node];
        let (label, token) = (instance.label.clone(), instance.token);
        let was = host.members.insert(label, Member { token, side });
        let was_in = was.is_some_and(|m| m.token == token && m.side == Side::In);
        if let Some(proc) = host.procs.get_mut(&token) {
            proc.in_flight.retain(|end| *end > now);
            match side {
                Side::Out if was_in => proc.in_flight.extend(ends),
                Side::Out => {}
                Side::In => proc.counted = false,
            }
        }
        self.serves_again(node);
    }

    /// Whoever serves is not out any more.
    pub fn serves_again(&mut self, node: usize) {
        let serves = self.inventory(node).traffic_in;
        let now = self.now;
        let host = &mut self.nodes[node];
        host.taken_out &= !serves;
        host.serves_since = serves.then(|| host.serves_since.unwrap_or(now));
    }

    fn duration(&mut self, node: usize, job: &Job) -> u64 {
        let now = self.now;
        match job {
            Job::Fetch(spec) => {
                let there = self.disk_has(node, &spec.digest);
                if there { 5 } else { self.rng.range(100, 5_000) }
            }
            Job::Hooks { .. } => self.rng.range(10, 1_000),
            Job::Drain { spec, instance, .. } => {
                let limit = spec.traffic.drain_timeout.as_millis() as u64;
                let proc = self.nodes[node].procs.get(&instance.token).filter(|p| p.alive);
                let last = proc.and_then(|p| p.in_flight.iter().max().copied()).unwrap_or(now);
                last.saturating_sub(now).min(limit) + 5
            }
            Job::Stop { .. } => self.rng.range(10, 1_500),
            Job::Swap(_) => 5,
            Job::Start { .. } => self.rng.range(20, 400),
            Job::Health { spec, instance } => {
                let limit = spec.health.deadline.as_millis() as u64;
                let quality = self.quality(node, instance.token);
                if quality == Some(Quality::NeverHealthy) {
                    limit
                } else {
                    self.rng.range(20, 3_000)
                }
            }
            Job::Smoke { .. } => self.rng.range(10, 500),
            Job::Join { .. } => self.rng.range(5, 50),
            Job::Monitor { for_ms, .. } | Job::Wait { for_ms } => *for_ms,
        }
    }

    /// A restore that fails too leaves whatever is left, and says so.
    fn is_restoring(&self, node: usize) -> bool {
        match &self.nodes[node].journal.work {
            Work::Update(update) => matches!(update.phase, Phase::Back { .. }),
            Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => true,
        }
    }

    fn disk_has(&self, node: usize, digest: &str) -> bool {
        let index = self.made.iter().position(|made| made.spec.digest == digest);
        index.is_some_and(|index| self.nodes[node].disk.contains(&index))
    }

    fn quality(&self, node: usize, token: u64) -> Option<Quality> {
        let proc = self.nodes[node].procs.get(&token).filter(|proc| proc.alive)?;
        Some(self.made[proc.release].quality[node])
    }

    fn release_of(&self, digest: &str) -> usize {
        self.made.iter().position(|made| made.spec.digest == digest).unwrap_or(0)
    }

    /// What a job does to the world.
    fn effect(&mut self, node: usize, job: &Job) {
        match job {
            Job::Fetch(spec) => {
                let release = self.release_of(&spec.digest);
                if self.made[release].quality[node] != Quality::Corrupt {
                    self.nodes[node].disk.insert(release);
                }
            }
            Job::Stop { instance, forget, .. } => {
                self.check_stop(node, instance);
                self.nodes[node].procs.remove(&instance.token);
                if *forget {
                    let held = &mut self.nodes[node].members;
                    if held.get(&instance.label).is_some_and(|m| m.token == instance.token) {
                        held.remove(&instance.label);
                    }
                }
            }
            Job::Swap(spec) => {
                let link = spec.as_ref().map(|spec| self.release_of(&spec.digest));
                self.nodes[node].link = link;
                self.check_link(node);
            }
            Job::Start { spec, token, label } => self.spawn(node, &spec.digest, *token, label),
            Job::Join { instance, .. } => {
                if self.quality(node, instance.token).is_some() {
                    self.set_side(node, instance, Side::In);
                }
            }
            Job::Hooks { .. }
            | Job::Drain { .. }
            | Job::Health { .. }
            | Job::Smoke { .. }
            | Job::Monitor { .. }
            | Job::Wait { .. } => {}
        }
    }

    fn spawn(&mut self, node: usize, digest: &str, token: u64, label: &str) {
        if self.nodes[node].procs.get(&token).is_some_and(|proc| proc.alive) {
            return;
        }
        let release = self.release_of(digest);
        let quality = self.made[release].quality[node];
        if quality == Quality::StartFails {
            return;
        }
        self.check_start(node, release, label);
        let start = self.id();
        let mut proc = Proc::new(release, start);
        proc.healthy = quality != Quality::NeverHealthy;
        self.nodes[node].procs.insert(token, proc);
        if quality == Quality::ExitsAtStart {
            let dies = self.rng.range(0, 600);
            self.after(dies, Ev::ProcessDies { node, token, start });
        }
    }

    pub fn in_flight(&mut self, node: usize, epoch: u64, number: u64) {
        let now = self.now;
        let host = &self.nodes[node];
        let Some(agent) = host.agent.as_ref().filter(|_| host.epoch == epoch) else { return };
        let Some(running) = agent.job.as_ref().filter(|job| job.number == number) else { return };
        let Job::Drain { instance, .. } = &running.job else { return };
        let proc = host.procs.get(&instance.token);
        let left = proc.map_or(0, |p| p.in_flight.iter().filter(|end| **end > now).count());
        self.feed(node, What::Draining { in_flight: left as u64 });
    }

    pub fn job_ends(&mut self, node: usize, epoch: u64, number: u64) {
        let host = &mut self.nodes[node];
        if host.epoch != epoch {
            return;
        }
        let Some(agent) = &mut host.agent else { return };
        let Some(running) = agent.job.take_if(|job| job.number == number) else { return };
        if running.flaky {
            self.deed("job flaked");
            self.nodes[node].leaky |= self.is_restoring(node);
            let result = Did::Failed { cause: "it flaked".to_owned(), output: String::new() };
            return self.feed(node, What::Did { action: number, result });
        }
        if !running.effected {
            self.effect(node, &running.job);
        }
        let result = self.result(node, &running.job);
        self.feed(node, What::Did { action: number, result });
    }

    fn result(&mut self, node: usize, job: &Job) -> Did {
        let failed = |cause: &str| Did::Failed { cause: cause.to_owned(), output: String::new() };
        match job {
            Job::Fetch(spec) if self.disk_has(node, &spec.digest) => Did::Ok,
            Job::Fetch(_) => failed("the digest is another"),
            Job::Hooks { spec, .. } => {
                let release = self.release_of(&spec.digest);
                match self.made[release].quality[node] {
                    Quality::HookFails => failed("exit code 3"),
                    _ => Did::Ok,
                }
            }
            Job::Drain { spec, instance, must } => {
                let cuts = *must || spec.traffic.on_drain_timeout == OnDrainTimeout::Cut;
                self.drained(node, instance, cuts)
            }
            Job::Stop { .. } => Did::Stopped { killed: self.rng.percent(5) },
            Job::Start { token, .. } => match self.nodes[node].procs.get(token) {
                Some(_) => Did::Started { port: 9000 },
                None => failed("no such file"),
            },
            Job::Health { instance, .. } => match self.quality(node, instance.token) {
                None | Some(Quality::NeverHealthy) => failed("it did not get healthy"),
                Some(_) => Did::Ok,
            },
            Job::Smoke { instance, .. } => match self.quality(node, instance.token) {
                None | Some(Quality::SmokeFails) => failed("500"),
                Some(_) => Did::Ok,
            },
            Job::Join { instance, .. } => match self.quality(node, instance.token) {
                None => failed("the edge sees it down"),
                Some(quality) => {
                    self.joined(node, instance.token, quality);
                    Did::Ok
                }
            },
            Job::Monitor { instance, .. } => match self.quality(node, instance.token) {
                None => failed("it is gone"),
                Some(_) => Did::Ok,
            },
            Job::Swap(_) | Job::Wait { .. } => Did::Ok,
        }
    }

    /// Some releases die only under load.
    fn joined(&mut self, node: usize, token: u64, quality: Quality) {
        let start = self.nodes[node].procs.get(&token).map_or(0, |proc| proc.start);
        let dies = match quality {
            Quality::DiesInMonitor => self.rng.range(0, 5_000),
            Quality::DiesLate => self.rng.range(5_000, 120_000),
            _ => return,
        };
        self.after(dies, Ev::ProcessDies { node, token, start });
    }

    fn drained(&mut self, node: usize, instance: &Instance, cuts: bool) -> Did {
        let now = self.now;
        let Some(proc) = self.nodes[node].procs.get_mut(&instance.token).filter(|p| p.alive) else {
            return Did::Drained { in_flight_at_start: 0, cut: 0 };
        };
        let at_start = proc.in_flight.len() as u64;
        proc.in_flight.retain(|end| *end > now);
        let left = proc.in_flight.len() as u64;
        if left > 0 && !cuts {
            let cause = format!("{left} requests were still in flight");
            return Did::Failed { cause, output: String::new() };
        }
        proc.counted = true;
        Did::Drained { in_flight_at_start: at_start, cut: left }
    }

    pub fn process_dies(&mut self, node: usize, token: u64, start: u64) {
        let host = &mut self.nodes[node];
        let Some(proc) = host.procs.get_mut(&token).filter(|p| p.alive && p.start == start) else {
            return;
        };
        proc.alive = false;
        proc.in_flight.clear();
        let epoch = host.epoch;
        self.serves_again(node);
        self.note(|| format!("    n{node}: process {token} dies"));
        if self.nodes[node].agent.is_some() {
            let after = self.rng.range(1, 100);
            self.after(after, Ev::Exited { node, epoch, token });
        }
    }

    pub fn exited(&mut self, node: usize, epoch: u64, token: u64) {
        let host = &self.nodes[node];
        if host.agent.is_none() || host.epoch != epoch {
            return;
        }
        let how = "exited with 1".to_owned();
        self.feed(node, What::Exited { token, how, output: "panic".to_owned() });
    }
}

trait Draining {
    fn work_is_forward_drain(&self) -> bool;
}

impl Draining for rota_agent::update::App {
    fn work_is_forward_drain(&self) -> bool {
        matches!(&self.work, Work::Update(update) if update.phase == Phase::Forward(Task::Drain))
    }
}

fn brief(job: &Job) -> String {
    match job {
        Job::Fetch(spec) => format!("fetch {}", spec.version),
        Job::Hooks { which, .. } => format!("hooks {which:?}"),
        Job::Drain { instance, must, .. } => format!("drain {} must {must}", instance.token),
        Job::Stop { instance, forget, .. } => format!("stop {} forget {forget}", instance.token),
        Job::Swap(spec) => format!("swap {:?}", spec.as_ref().map(|spec| &spec.version)),
        Job::Start { spec, token, label } => format!("start {} {token} {label:?}", spec.version),
        Job::Health { instance, .. } => format!("health {}", instance.token),
        Job::Smoke { instance, .. } => format!("smoke {}", instance.token),
        Job::Join { instance, .. } => format!("join {}", instance.token),
        Job::Monitor { instance, for_ms, .. } => format!("monitor {} {for_ms}", instance.token),
        Job::Wait { for_ms } => format!("wait {for_ms}"),
    }
}
