//! One list of behaviours that every driver must have: `exec` here, `systemd` on a host that runs it.

mod bench;
mod host;
mod image;
mod registry;
mod rollout;
mod suite;

use rota_agent::spec::Driver;

use bench::Bench;
use host::Host;
use image::Image;
use rota_tests::Trouble;
use rota_tests::processes::Programs;

/// Says which part [`part`] plays.
pub const PART: &str = "ROTA_TEST_PART";

#[test]
fn exec_conforms() -> Result<(), Trouble> {
    let programs = Programs::build()?;
    suite::run(&Bench::new(Driver::Exec, programs.agent, programs.app)?);
    Ok(())
}

#[test]
fn systemd_conforms() -> Result<(), Trouble> {
    let programs = Programs::build()?;
    let host = match Host::start(&programs) {
        Ok(host) => host,
        Err(why) => {
            eprintln!("SKIPPED: no host with systemd can be made here: {why}");
            return Ok(());
        }
    };
    host.run_part("suite")?;
    host.run_part("rollouts")
}

#[test]
fn docker_conforms() -> Result<(), Trouble> {
    let programs = Programs::build()?;
    let made = Image::make("rota-tests/shell", &[]);
    let image = match made.and_then(|image| image.start().map(|()| image)) {
        Ok(image) => image,
        Err(why) => {
            eprintln!("SKIPPED: no container can be started here: {why}");
            return Ok(());
        }
    };
    let bench = Bench::new(Driver::Docker, programs.agent.clone(), programs.app.clone())?;
    suite::run(&bench.with_image(&image.name));
    rollout::by_docker(programs)
}

/// What other tests start as a process of its own: in a host with systemd, or to be killed.
#[test]
#[ignore = "is a part of other tests"]
fn part() -> Result<(), Trouble> {
    let programs = host::programs();
    match std::env::var(PART).unwrap_or_default().as_str() {
        "suite" => suite::run(&Bench::new(Driver::Systemd, programs.agent, programs.app)?),
        "rollouts" => rollout::by_systemd(programs)?,
        "agent" => suite::agent_that_is_killed()?,
        other => return Err(format!("there is no part {other:?}").into()),
    }
    Ok(())
}
