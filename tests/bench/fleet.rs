//! One controller with a large fleet: memory for each agent, CPU at rest, a rollout over all, and their return after
//! the controller was killed. The agents are simulated (see `agent`), the controller is `rota serve` on SQLite. With
//! `--controllers 2` the same beside two controllers on etcd (see `restart`), or those alone with `--beside nothing`.

mod agent;
mod answers;
mod crowd;
mod restart;
pub mod share;
mod site;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_tests::Trouble;
use rota_tests::farm::Farm;
use rota_tests::processes::Programs;
use rustix::process::{Resource, getrlimit, setrlimit};

use super::Flags;
use super::process;
use super::shop::Shop;
use super::table::{Samples, Table, machine, number};
use crowd::Crowd;

/// Over how long the controller is watched while nothing happens.
const IDLE: Duration = Duration::from_secs(10);

/// What a process is called that plays a part of the crowd.
pub const SHARE: &str = "fleet-share";

/// Descriptors beside those of the sessions.
const SPARE_DESCRIPTORS: u64 = 200;

/// Runs the bench.
pub fn run(args: &[String]) -> Result<(), Trouble> {
    let known = ["agents", "runs", "asked", "rota", "controllers", "processes", "beside"];
    let flags = Flags::read(args, &known)?;
    let (agents, runs) = (flags.number("agents", 1000)?, flags.number("runs", 3)?);
    let asked = flags.number("asked", 100)?;
    println!("fleet: {}", machine()?);
    allow_descriptors(agents)?;
    let mut programs = Programs::build()?;
    let other = flags.text("rota", "");
    if !other.is_empty() {
        programs.rota = std::fs::canonicalize(&other)
            .map_err(|error| format!("cannot find `--rota {other}`: {error}"))?;
    }
    let controllers = flags.number("controllers", 1)?;
    if controllers > 1 {
        let processes = flags.number("processes", 4)?;
        let size = restart::Size { agents, controllers, processes, runs };
        let beside = flags.text("beside", "sqlite") == "sqlite";
        return restart::bench(&programs, size, beside);
    }
    let farm = Farm::of(programs, 0)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(Fleet::bench(farm, agents, runs, asked));
    runtime.shutdown_background();
    done
}

/// A session takes one descriptor here and one in the controller, which inherits the limit.
fn allow_descriptors(agents: usize) -> Result<(), Trouble> {
    let limit = getrlimit(Resource::Nofile);
    let needed = agents as u64 + SPARE_DESCRIPTORS;
    if limit.maximum.is_some_and(|most| most < needed) {
        return Err(format!("{agents} agents need {needed} open files: `ulimit -n`").into());
    }
    raise_descriptors()
}

fn raise_descriptors() -> Result<(), Trouble> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

struct Fleet {
    farm: Farm,
    crowd: Arc<Crowd>,
    agents: usize,
    table: Table,
    /// Those that are printed below it.
    tables: Vec<Table>,
}

impl Fleet {
    async fn bench(farm: Farm, agents: usize, runs: usize, asked: usize) -> Result<(), Trouble> {
        let title = format!("One controller, {agents} agents");
        let table = Table::new(&title, &["", "", "min", "median", "max"]);
        let mut fleet = Self { farm, crowd: Crowd::new(), agents, table, tables: Vec::new() };
        fleet.connect().await?;
        fleet.rest()?;
        fleet.roll(runs).await?;
        fleet.memory("after the rollouts")?;
        fleet.answers(asked).await?;
        fleet.come_back(false).await?;
        fleet.come_back(true).await?;
        fleet.table.print();
        fleet.tables.iter().for_each(Table::print);
        for (error, count) in fleet.crowd.errors() {
            println!("\nsessions that ended or did not begin: {count} with `{error}`");
        }
        Ok(())
    }

    fn controller(&self) -> u32 {
        self.farm.controller.pid()
    }

    fn one(&mut self, what: &str, unit: &str, value: f64) {
        eprintln!("bench: {what}: {} {unit}", number(value));
        self.table.row([what, unit, "", &number(value), ""]);
    }

    async fn connect(&mut self) -> Result<(), Trouble> {
        let address = self.farm.controller.told("grpc").ok_or("no gRPC address")?.to_owned();
        let (before, _) = process::resident(self.controller())?;
        let uses = self.agents.to_string();
        let made = self.farm.run(&["token", "create", "--for", "agent", "--uses", &uses])?;
        let token = String::from_utf8(made.stdout)?.trim().to_owned();
        let begun = Instant::now();
        let all = crowd::enrol(&self.crowd, &address, &token, 1..self.agents + 1).await?;
        self.one("all enrol, each with a key and certificate", "s", begun.elapsed().as_secs_f64());
        let (enrolled, _) = process::resident(self.controller())?;
        let (begun, used) = (Instant::now(), process::cpu(self.controller())?);
        for agent in all {
            agent.live(address.clone());
        }
        let agents = self.agents;
        self.crowd.wait("all are connected", |tally| tally.up == agents).await?;
        let took = begun.elapsed();
        let used = process::cpu(self.controller())?.saturating_sub(used);
        self.one("all connect (mTLS, hello, welcome)", "s", took.as_secs_f64());
        self.one("of that controller CPU", "s", used.as_secs_f64());
        let (connected, _) = process::resident(self.controller())?;
        let each = |kib: u64| kib as f64 / agents as f64;
        self.one("controller without agents", "MiB", before as f64 / 1024.0);
        self.one("memory for an agent, since all have enrolled", "KiB", each(connected - enrolled));
        self.one("memory for an agent, enrolment included", "KiB", each(connected - before));
        Ok(())
    }

    fn memory(&mut self, when: &str) -> Result<(), Trouble> {
        let (resident, _) = process::resident(self.controller())?;
        self.one(&format!("controller {when}"), "MiB", resident as f64 / 1024.0);
        Ok(())
    }

    fn rest(&mut self) -> Result<(), Trouble> {
        let busy = process::load(self.controller(), IDLE)?;
        self.one("controller at rest, heartbeats only", "% of a core", busy);
        Ok(())
    }

    async fn roll(&mut self, runs: usize) -> Result<(), Trouble> {
        let mut shop = Shop::open(&self.farm, "batch = \"10%\"")?;
        let (mut alone, mut cpu, mut followed) = <(Samples, Samples, Samples)>::default();
        let mut revision = 0;
        for run in 0..=runs {
            let (begun, used) = (Instant::now(), process::cpu(self.controller())?);
            shop.start(&self.farm)?;
            revision += 1;
            let (id, agents) = (format!("shop/prod/{revision}"), self.agents);
            let all = |tally: &crowd::Tally| tally.settled.get(&id).is_some_and(|it| *it >= agents);
            self.crowd.wait("the rollout is over", all).await?;
            if run == 0 {
                let first = begun.elapsed().as_secs_f64();
                self.one("first rollout, 10 % batches, durable", "s", first);
                continue;
            }
            alone.add(begun.elapsed().as_secs_f64());
            cpu.add(process::cpu(self.controller())?.saturating_sub(used).as_secs_f64());
            followed.add(shop.roll(&self.farm)?.command.as_secs_f64());
            revision += 1;
        }
        for (what, samples) in [
            ("rollout, 10 % batches, durable, nobody watches", alone),
            ("of that controller CPU", cpu),
            ("the same, `rota deploy` follows it", followed),
        ] {
            let [least, middle, most] = samples.shown();
            self.table.row([what, "s", &least, &middle, &most]);
        }
        Ok(())
    }

    async fn come_back(&mut self, spread: bool) -> Result<(), Trouble> {
        self.crowd.set_spreads(spread);
        let begun = Instant::now();
        self.farm.controller.kill()?;
        self.crowd.wait("all have noticed", |tally| tally.up == 0).await?;
        self.farm.restart_controller()?;
        let ready = begun.elapsed();
        let asked = Instant::now();
        let listed = self.farm.run(&["node", "ls", "-o", "json"])?;
        let answered = asked.elapsed();
        let agents = self.agents;
        self.crowd.wait("all are back", |tally| tally.up == agents).await?;
        let back = begun.elapsed();
        let how = if spread { "spread over 30 s" } else { "all at once" };
        let offline = count_offline(&listed.stdout)?;
        let later = count_offline(&self.farm.run(&["node", "ls", "-o", "json"])?.stdout)?;
        self.one(&format!("kill -9 until ready again, {how}"), "s", ready.as_secs_f64());
        self.one(&format!("`rota node ls` meanwhile, {how}"), "s", answered.as_secs_f64());
        self.one(&format!("kill -9 until all are back, {how}"), "s", back.as_secs_f64());
        self.one(&format!("nodes shown offline then, {how}"), "nodes", (offline + later) as f64);
        self.memory(&format!("after the return, {how}"))
    }
}

fn count_offline(json: &[u8]) -> Result<usize, Trouble> {
    let nodes: serde_json::Value = serde_json::from_slice(json)?;
    let nodes = nodes.as_array().ok_or("no list of nodes")?;
    Ok(nodes.iter().filter(|node| node["state"] == "offline").count())
}
