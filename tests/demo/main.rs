//! `cargo demo`: a small fleet on loopback under steady load, one good rollout and one that goes wrong on purpose.

use std::io::Write;
use std::process::ExitCode;

use rota_tests::Trouble;
use rota_tests::farm::{App, ENV, Farm};
use rota_tests::load::Load;

/// What the demo deploys, each with its expected exit code: a good first release, a good second, a bad third.
const RELEASES: [(&str, &[&str], i32); 3] =
    [("1.0.0", &[], 0), ("1.1.0", &[], 0), ("1.2.0", &["--broken-page"], 4)];

const STRATEGY: &str = "batch = 1\nmonitor = \"1s\"\non_failure = \"rollback\"";

/// Clients that ask all the time, half of them with a new connection for every request.
const CLIENTS: usize = 6;

fn main() -> ExitCode {
    let once = std::env::args().any(|arg| arg == "--once");
    match demo(once) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `false`: something was not as told.
fn demo(once: bool) -> Result<bool, Trouble> {
    say("building, then starting one controller, one edge and three nodes on loopback")?;
    let farm = Farm::start(3)?;
    let mut as_told = true;
    let mut load = None;
    for (version, args, expected) in RELEASES {
        let manifest = farm.write_app(App { args, strategy: STRATEGY, ..App::default() })?;
        say(&format!("rota deploy --version {version} --env {ENV}"))?;
        if !args.is_empty() {
            say("(this one answers 500 on purpose: its smoke test fails, and it is rolled back)")?;
        }
        let status = farm
            .rota()
            .args(["deploy", "--version", version, "--env", ENV, "-m", "demo", "-f"])
            .arg(manifest)
            .status()?;
        as_told &= told("exit code", status.code() == Some(expected))?;
        if load.is_none() {
            load = Some(Load::start(farm.pool()?, CLIENTS));
            say(&format!("{CLIENTS} clients now ask http://{}/ all the time", farm.pool()?))?;
        }
    }
    let (good, failed) = load.map(Load::stop).unwrap_or_default();
    say(&format!("requests: {} sent, {failed} failed", good + failed))?;
    as_told &= told("no request failed", failed == 0 && good > 0)?;
    farm.rota().args(["rollout", "history", "shop", "--env", ENV]).status()?;
    let runs = farm.run(&["node", "ls", "-o", "json"])?;
    let back = String::from_utf8_lossy(&runs.stdout).matches("\"1.1.0\"").count();
    as_told &= told("every node runs 1.1.0", back == 3)?;
    if once {
        return Ok(as_told);
    }
    let http = farm.controller.told("http").unwrap_or_default();
    let context = farm.path("controller/admin.toml");
    let rota = farm.programs.rota.display();
    say(&format!("dashboard: http://{http}/   the app: http://{}/", farm.pool()?))?;
    say("to play on, in another terminal:")?;
    say(&format!("  export ROTA_CONTEXT={}", context.display()))?;
    say(&format!("  {rota} status"))?;
    say(&format!("  {rota} rollout undo shop --env {ENV}"))?;
    say(&format!("  {rota} restart shop --env {ENV}"))?;
    say("Ctrl-C ends it all")?;
    until_interrupted()?;
    Ok(as_told)
}

fn told(what: &str, right: bool) -> Result<bool, Trouble> {
    if !right {
        say(&format!("NOT AS TOLD: {what}"))?;
    }
    Ok(right)
}

fn say(line: &str) -> Result<(), Trouble> {
    writeln!(std::io::stdout(), "demo: {line}")?;
    Ok(())
}

fn until_interrupted() -> Result<(), Trouble> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(tokio::signal::ctrl_c())?)
}
