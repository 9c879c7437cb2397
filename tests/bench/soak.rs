//! Rollouts without a pause under steady load, until so many requests were sent: how many failed?

use std::time::Instant;

use rota_tests::Trouble;
use rota_tests::farm::Farm;
use rota_tests::load::Load;
use rota_tests::processes::Programs;

use crate::Flags;
use crate::shop::Shop;

/// The nodes behind the edge.
const NODES: usize = 3;

/// Both orders take turns.
const STRATEGIES: [&str; 2] = ["batch = 1", "batch = 1\norder = \"start-first\""];

/// Prints what became of all requests.
pub fn run(args: &[String]) -> Result<(), Trouble> {
    let flags = Flags::read(args, &["requests", "clients"])?;
    let requests = flags.number("requests", 1_000_000)? as u64;
    let clients = flags.number("clients", 16)?;
    let farm = Farm::of(Programs::build()?, NODES)?;
    let mut shop = Shop::open(&farm, STRATEGIES[0])?;
    shop.roll(&farm)?;
    let (load, begun) = (Load::start(farm.pool()?, clients), Instant::now());
    let mut rollouts = 0;
    while load.so_far().0 < requests {
        // Two rollouts of each order, to and fro, so that every one of them moves every node.
        for strategy in STRATEGIES {
            shop.follow(strategy)?;
            for _ in 0..2 {
                shop.roll(&farm)?;
                rollouts += 1;
            }
        }
    }
    let took = begun.elapsed();
    let (good, failed) = load.stop();
    println!("{good} requests answered, {failed} failed, in {:.0} s", took.as_secs_f64());
    println!("{rollouts} rollouts over {NODES} nodes meanwhile, half of them start-first");
    println!("{clients} clients, half of them with a new connection for each request");
    if failed > 0 {
        return Err(format!("{failed} requests failed").into());
    }
    Ok(())
}
