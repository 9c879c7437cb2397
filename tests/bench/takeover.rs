//! What takes how long when an owner dies, stands still or is cut off in the middle of a rollout: 3 members of etcd, 3
//! controllers, 20 nodes, an edge with its proxy, and load all the time. Every row is a rollout that completed, with no
//! node updated twice.

use std::time::Duration;

use rota_tests::Trouble;
use rota_tests::farm::App;
use rota_tests::load::Load;
use rota_tests::several::{Several, Size};
use rota_tests::takeover::{HEAD, Harm, suffer};
use serde_json::Value;

use super::Flags;

const FLAGS: [&str; 4] = ["nodes", "kills", "away", "clients"];

/// A rollout of a node has about so many events.
const EVENTS_PER_NODE: usize = 11;

const APP: App<'static> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 4\nmonitor = \"300ms\"" };

/// Prints a row for each rollout, and what clients saw of all.
pub fn run(args: &[String]) -> Result<(), Trouble> {
    let flags = Flags::read(args, &FLAGS)?;
    let (nodes, kills) = (flags.number("nodes", 20)?, flags.number("kills", 20)?);
    let (away, clients) = (flags.number("away", 30)?, flags.number("clients", 8)?);
    let away = Duration::from_secs(away as u64);
    let Some(mut farm) = Several::start(Size { etcd: 3, controllers: 3, nodes })? else {
        return Err("this needs etcd on the PATH".into());
    };
    farm.begin(0, "1.0.0", APP)?;
    farm.wait(0, "/api/v1/rollouts/shop/prod", |view: &Value| view["state"] == "completed")?;
    let load = Load::start(farm.pool()?, clients);
    let moment = |number: usize| 1 + number * nodes * EVENTS_PER_NODE / kills.max(1);
    let middle = nodes * EVENTS_PER_NODE / 2;
    let harms = (0..kills).map(|number| (Harm::Kill, moment(number))).chain([
        (Harm::Pause(away), middle),
        (Harm::NoStore(away), middle),
        (Harm::NoAgents(away), middle),
        (Harm::Alone(away), middle),
        (Harm::Leader, middle),
        (Harm::NoQuorum(away), middle),
    ]);
    println!("{HEAD}");
    for (number, harm) in harms.enumerate() {
        println!("{}", suffer(&mut farm, &format!("1.{}.0", number + 1), APP, harm)?);
    }
    let (served, failed) = load.stop();
    let begun: Vec<usize> =
        farm.nodes.iter().map(|node| node.log().matches(" begins, attempt ").count()).collect();
    let (least, most) = (begun.iter().min(), begun.iter().max());
    println!(
        "\n{served} requests, {failed} failed; updates that each node began: {least:?} to {most:?}"
    );
    Ok(())
}
