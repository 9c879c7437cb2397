//! What an agent needs on its host: resident memory idle and after many updates, CPU when nothing happens, and the size
//! of its program.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rota_tests::Trouble;
use rota_tests::farm::Farm;
use rota_tests::processes::Programs;

use super::Flags;
use super::process;
use super::shop::Shop;
use super::table::{Table, machine, number};

/// Where the profile `agent` leaves its program, from the workspace.
const STATIC: &str = "x86_64-unknown-linux-gnu/agent/rota-agent";

/// Over how long an idle agent is watched: two of its heartbeats.
const IDLE: Duration = Duration::from_secs(10);

/// Rows of the table, the last of them after all updates.
const ROWS: usize = 5;

/// Runs the bench.
pub fn run(args: &[String]) -> Result<(), Trouble> {
    let flags = Flags::read(args, &["updates", "agent"])?;
    let updates = flags.number("updates", 100)?;
    println!("agent-memory: {}", machine()?);
    let mut programs = Programs::build()?;
    let (agent, build) = agent_of(&flags, &programs)?;
    let size = std::fs::metadata(&agent)?.len();
    println!("the agent is {build}: {} MiB", number(mib(size / 1024)));
    programs.agent = agent;
    let farm = Farm::of(programs, 1)?;
    let node = farm.nodes.first().ok_or("a farm without nodes")?.pid();
    let mut table =
        Table::new("One agent", &["", "resident MiB", "of that its own", "% of a core"]);
    let row = |table: &mut Table, what: &str| -> Result<(), Trouble> {
        let busy = process::load(node, IDLE)?;
        let (all, own) = process::resident(node)?;
        table.row([what, &number(mib(all)), &number(mib(own)), &number(busy)]);
        Ok(())
    };
    row(&mut table, "enrolled, no app yet")?;
    let mut shop = Shop::open(&farm, "batch = 1")?;
    shop.roll(&farm)?;
    row(&mut table, "with an app")?;
    let each = updates.div_ceil(ROWS);
    let mut done = 0;
    while done < updates {
        let next = (done + each).min(updates);
        for _ in done..next {
            shop.roll(&farm)?;
        }
        done = next;
        row(&mut table, &format!("after {done} updates"))?;
    }
    table.print();
    Ok(())
}

fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// The program to measure, and in words which build it is.
fn agent_of(flags: &Flags, programs: &Programs) -> Result<(PathBuf, String), Trouble> {
    let given = flags.text("agent", "");
    if !given.is_empty() {
        let path = std::fs::canonicalize(&given)
            .map_err(|error| format!("cannot find `--agent {given}`: {error}"))?;
        return Ok((path, "the one of `--agent`".to_owned()));
    }
    let target = programs.agent.parent().and_then(Path::parent);
    let small = target.map(|target| target.join(STATIC)).filter(|path| path.is_file());
    Ok(match small {
        Some(small) => (small, "the static build of the profile `agent`".to_owned()),
        None => {
            let why =
                "a dynamic build of the profile `release`, because the static one is not there";
            (programs.agent.clone(), why.to_owned())
        }
    })
}
