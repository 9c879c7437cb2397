//! What an update costs beside the bare restart of the same app: stop-first, one node at a time, no monitor time, with
//! and without load. Bare loop and rollout take turns in one run, so both see the same machine.

use std::collections::BTreeMap;
use std::time::Duration;

use rota_tests::Trouble;
use rota_tests::farm::Farm;
use rota_tests::load::Load;
use rota_tests::processes::Programs;

use super::Flags;
use super::bare::Bare;
use super::shop::Shop;
use super::table::{Samples, Table, machine, number};

/// Rollouts before anything counts: they bring both releases to the nodes.
const WARM_UP: usize = 3;

/// Runs the bench.
pub fn run(args: &[String]) -> Result<(), Trouble> {
    let flags = Flags::read(args, &["nodes", "runs", "clients"])?;
    let (runs, clients) = (flags.number("runs", 10)?, flags.number("clients", 8)?);
    println!("overhead: {}", machine()?);
    let programs = Programs::build()?;
    let head = ["", "nodes", "runs", "min", "median", "max", "over bare", "ratio"];
    let mut table = Table::new("Milliseconds per node, one node at a time", &head);
    let mut all_steps = Vec::new();
    for nodes in flags.numbers("nodes", "3,10")? {
        let mut field = Field::prepare(&programs, nodes)?;
        for load in [None, Some(clients)] {
            let measured = field.measure(runs, load)?;
            let name = if load.is_some() { "under load" } else { "quiet" };
            measured.rows(name, nodes, &mut table);
            all_steps.push((format!("{name}, {nodes} nodes"), measured));
        }
    }
    table.print();
    print_steps(&all_steps);
    Ok(())
}

/// A farm and its bare twin.
struct Field {
    farm: Farm,
    bare: Bare,
    shop: Shop,
    nodes: usize,
}

/// What one situation came to, in milliseconds per node.
#[derive(Default)]
struct Measured {
    bare: Samples,
    /// From the start of `rota deploy` to its end.
    command: Samples,
    /// From when the controller had started the rollout to when it had completed it.
    rollout: Samples,
    /// Each step on a node, as its agent tells.
    steps: BTreeMap<String, Samples>,
    out_of_traffic: Samples,
    requests: (u64, u64),
}

impl Field {
    fn prepare(programs: &Programs, nodes: usize) -> Result<Self, Trouble> {
        let farm = Farm::of(programs.clone(), nodes)?;
        let bare = Bare::start(&programs.app, nodes)?;
        let shop = Shop::open(&farm, "batch = 1")?;
        let mut field = Self { farm, bare, shop, nodes };
        for _ in 0..WARM_UP {
            field.deploy(&mut Measured::default())?;
        }
        Ok(field)
    }

    fn measure(&mut self, runs: usize, clients: Option<usize>) -> Result<Measured, Trouble> {
        let load = clients.map(|clients| Ok::<_, Trouble>(Load::start(self.farm.pool()?, clients)));
        let load = load.transpose()?;
        let mut measured = Measured::default();
        for round in 0..runs {
            let took = self.bare.roll(round)?;
            measured.bare.add_ms(self.per_node(took));
            self.deploy(&mut measured)?;
        }
        if let Some(load) = load {
            measured.requests = load.stop();
        }
        Ok(measured)
    }

    fn per_node(&self, took: Duration) -> Duration {
        took.div_f64(self.nodes as f64)
    }

    /// One rollout of a release that is pushed already.
    fn deploy(&mut self, measured: &mut Measured) -> Result<(), Trouble> {
        let rolled = self.shop.roll(&self.farm)?;
        measured.command.add_ms(self.per_node(rolled.command));
        measured.rollout.add_ms(self.per_node(rolled.rollout));
        for node in rolled.view["nodes"].as_array().into_iter().flatten() {
            measured.out_of_traffic.add(node["out_of_traffic_ms"].as_f64().unwrap_or(f64::NAN));
        }
        self.take_steps(measured);
        Ok(())
    }

    /// The newest line with the steps in each node's log.
    fn take_steps(&self, measured: &mut Measured) {
        for node in &self.farm.nodes {
            let log = node.log();
            let line = log.lines().rev().find_map(|line| line.split_once(STEPS));
            let Some((_, steps)) = line else { continue };
            for step in steps.split(", ") {
                let Some((name, took)) = step.trim().rsplit_once(' ') else { continue };
                let Some(ms) = took.strip_suffix("ms").and_then(|ms| ms.parse().ok()) else {
                    continue;
                };
                measured.steps.entry(name.to_owned()).or_default().add(ms);
            }
        }
    }
}

/// How an agent's line about the steps of an update begins.
const STEPS: &str = "steps took: ";

impl Measured {
    fn rows(&self, name: &str, nodes: usize, table: &mut Table) {
        let floor = self.bare.median();
        for (what, samples) in
            [("bare loop", &self.bare), ("rollout", &self.rollout), ("rota deploy", &self.command)]
        {
            let [least, middle, most] = samples.shown();
            let over = samples.median() - floor;
            let ratio = samples.median() / floor;
            table.row([
                format!("{what}, {name}"),
                nodes.to_string(),
                samples.len().to_string(),
                least,
                middle,
                most,
                number(over),
                number(ratio),
            ]);
        }
    }
}

fn print_steps(situations: &[(String, Measured)]) {
    let head = ["", "updates", "min", "median", "max"];
    for (name, measured) in situations {
        let mut table = Table::new(&format!("One node's steps in milliseconds, {name}"), &head);
        let mut sum = 0.0;
        for (step, samples) in &measured.steps {
            sum += samples.median();
            let row = [vec![step.clone(), samples.len().to_string()], samples.shown().to_vec()];
            table.row(row.concat());
        }
        let between = measured.rollout.median() - sum;
        table.row(["all steps", "", "", &number(sum), ""]);
        table.row(["between two nodes, and at both ends", "", "", &number(between), ""]);
        let out = &measured.out_of_traffic;
        let row = ["out of traffic".to_owned(), out.len().to_string()];
        table.row([row.to_vec(), out.shown().to_vec()].concat());
        table.print();
        let (good, failed) = measured.requests;
        if good + failed > 0 {
            println!("\nrequests meanwhile: {good} answered, {failed} failed");
        }
    }
}
