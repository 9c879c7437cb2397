//! What every driver does alike. Each row starts apps of its own.

mod rows;
mod sockets;

use std::path::Path;
use std::pin::Pin;

use rota_agent::runtime::Runtime;
use rota_agent::spec::Driver;
use rota_tests::Trouble;

use crate::bench::{self, Bench};

type Behaviour = for<'a> fn(&'a Bench) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

macro_rules! behaviours {
    ($($place:ident::$name:ident),* $(,)?) => {
        [$((stringify!($name), (|bench| Box::pin($place::$name(bench))) as Behaviour)),*]
    };
}

/// All of them, one after the other, so that a failure names one.
pub fn run(bench: &Bench) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    for (name, behaviour) in behaviours![
        rows::an_app_runs_with_its_own_environment,
        rows::exit_codes_are_known,
        rows::what_cannot_start_says_why,
        rows::an_app_runs_as_its_user,
        rows::its_own_signal_asks_it_to_stop,
        rows::what_does_not_stop_is_killed,
        rows::children_end_with_their_app,
        rows::two_instances_of_an_app_run_beside_each_other,
        rows::the_next_agent_finds_what_runs,
        rows::an_agent_that_is_killed_leaves_its_app_alone,
        rows::what_has_ended_is_not_found,
        rows::leftovers_of_a_crash_are_killed,
        rows::output_is_that_of_this_start,
        rows::limits_hold_or_are_refused,
        rows::secrets_are_not_shown,
        rows::an_app_says_when_it_is_ready,
        rows::a_unit_that_is_only_mentioned_is_no_obstacle,
        rows::a_start_that_was_given_up_is_no_obstacle,
        rows::commands_run_beside_an_app_and_at_it,
        sockets::a_restart_refuses_no_connection,
    ] {
        let begun = std::time::Instant::now();
        eprintln!("{}: {name} …", bench.driver);
        runtime.block_on(behaviour(bench));
        eprintln!("{}: {name} ok, {} ms", bench.driver, begun.elapsed().as_millis());
    }
}

/// Starts an app and then hangs; see [`rows::an_agent_that_is_killed_leaves_its_app_alone`].
pub fn agent_that_is_killed() -> Result<(), Trouble> {
    let told = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let (folder, agent) = (told("ROTA_TEST_FOLDER")?, told("ROTA_TEST_AGENT")?);
    let driver = match told("ROTA_TEST_DRIVER")?.as_str() {
        "systemd" => Driver::Systemd,
        "docker" => Driver::Docker,
        _ => Driver::Exec,
    };
    let folder = Path::new(&folder);
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done";
    let image = std::env::var("ROTA_TEST_IMAGE").unwrap_or_default();
    let start = bench::start(folder, (driver, &image), "outlives", script);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        bench::drivers(folder, Path::new(&agent)).start(&start).await?;
        std::fs::write(folder.join("started"), "")?;
        std::future::pending().await
    })
}
