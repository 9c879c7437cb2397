//! The project's benches: `cargo run --release -p rota-tests --bin bench -- NAME [--FLAG VALUE]..`.
//!
//! Each starts real processes on free ports of loopback, in a folder of its own, and ends them again. It asserts no
//! times: it prints a table, and each table has its baseline, measured in the same run, because machines and their
//! neighbours differ. `docs/performance.md` says what the numbers mean.

mod backend;
mod bare;
mod fleet;
mod memory;
mod overhead;
mod process;
mod proxy;
mod shop;
mod soak;
mod table;
mod takeover;

use std::collections::BTreeMap;
use std::process::ExitCode;

use rota_tests::Trouble;

const USAGE: &str = "\
usage: bench NAME [--FLAG VALUE]..
  overhead      what an update costs beside the bare restart of the same app
                  --nodes 3,10  --runs 10  --clients 8
  agent-memory  what an agent needs, idle and after many updates, and how big its program is
                  --updates 100  --agent PATH (else the static build, when it is there)
  fleet         one controller with many simulated agents, each with a session of its own
                  --agents 1000  --runs 3  --rota PATH (another build of the controller)
                  --controllers 2 (several on etcd, one of them killed)  --processes 4
                  --beside sqlite (the same at one controller on SQLite; `nothing`: without)
  proxy         the built-in proxy beside HAProxy, in front of the same backend
                  --connections 64  --seconds 4  --runs 3
  soak          rollouts without a pause under load: how many requests fail?
                  --requests 1000000  --clients 16
  takeover      what happens to rollouts when their owner, or etcd, is harmed
                  --nodes 20  --kills 20  --away 30  --clients 8";

/// The flags of one bench.
struct Flags {
    given: BTreeMap<String, String>,
}

impl Flags {
    /// Reads `--name value` pairs; one that the bench does not know is refused.
    fn read(args: &[String], known: &[&str]) -> Result<Self, Trouble> {
        let mut given = BTreeMap::new();
        for pair in args.chunks(2) {
            let [flag, value] = pair else {
                return Err(format!("`{}` needs a value\n{USAGE}", pair.join(" ")).into());
            };
            let name = flag.strip_prefix("--").filter(|name| known.contains(name));
            let name = name.ok_or_else(|| format!("`{flag}` is not known here\n{USAGE}"))?;
            given.insert(name.to_owned(), value.clone());
        }
        Ok(Self { given })
    }

    fn text(&self, name: &str, default: &str) -> String {
        self.given.get(name).map_or(default, String::as_str).to_owned()
    }

    fn number(&self, name: &str, default: usize) -> Result<usize, Trouble> {
        let Some(text) = self.given.get(name) else { return Ok(default) };
        text.parse().map_err(|_| format!("`--{name} {text}`: write a number").into())
    }

    fn numbers(&self, name: &str, default: &str) -> Result<Vec<usize>, Trouble> {
        let text = self.text(name, default);
        let wrong = |_| Trouble::from(format!("`--{name} {text}`: write numbers, like {default}"));
        text.split(',').map(|part| part.parse().map_err(wrong)).collect()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build: its numbers mean nothing; use `--release`");
    }
    let done = match name.as_str() {
        "overhead" => overhead::run(rest),
        "proxy" => proxy::run(rest),
        "soak" => soak::run(rest),
        "takeover" => takeover::run(rest),
        "fleet" => fleet::run(rest),
        fleet::SHARE => fleet::share::play(rest),
        "agent-memory" => memory::run(rest),
        other => Err(format!("there is no bench `{other}`\n{USAGE}").into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
