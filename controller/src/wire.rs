//! The one place that knows both the wire's types and ours.
//!
//! - `trace`: what reports say for people only.

mod trace;

use std::str::FromStr;

use rota_proto::agent as wire;
use rota_rollout::names::{AppName, Attempt, NodeName, Release, RolloutId, Span};
use rota_rollout::node::{Direction, Failure, Left, Measured, Report, StepName};
use rota_rollout::{event::OnceResult, names::BadName};

use crate::artifact::download::ImageName;
use crate::engine::records::{AppRecord, ReleaseRecord};
use crate::manifest::{
    Argv, Artifact, Body, Check, Driver, Limits, Needed, OnDrainTimeout, Port, Resolved, SmokeTest,
    Via,
};

pub use trace::trace;

/// The most bytes of output that are kept of a failed node.
const OUTPUT_MAX: usize = 64 * 1024;

/// Why a message from an agent is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadMessage {
    /// A field that must be set is not, or is a value that this version does not know.
    #[error("{0} is missing or not known")]
    Missing(&'static str),
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] BadName),
}

/// What a report is about.
pub enum Said {
    /// A node's update.
    Report { id: RolloutId, attempt: Attempt, report: Report },
    /// The once-per-release job.
    Once { id: RolloutId, attempt: Attempt, result: OnceResult },
    /// The node has accepted a newer owner.
    Stale { id: RolloutId, newest_term: u64 },
}

/// Reads a report.
pub fn report(message: wire::Report) -> Result<Said, BadMessage> {
    use wire::report::What;
    let id = RolloutId::from_str(&message.rollout)?;
    let attempt = Attempt(message.attempt);
    let what = message.what.ok_or(BadMessage::Missing("report.what"))?;
    let report = match what {
        What::Prepared(_) => Report::Prepared,
        What::Step(began) => Report::Began { step: step(began.step)?, in_flight: began.in_flight },
        What::Joined(joined) => Report::Joined(measured(joined.measured)),
        What::Done(done) => Report::Done(measured(done.measured)),
        What::Failed(failed) => Report::Failed(failure(failed)?),
        What::Broken(broken) => {
            Report::Broken { cause: broken.cause, output: output(&broken.output) }
        }
        What::Once(once) => return Ok(Said::Once { id, attempt, result: once_result(once) }),
        What::Ran(ran) => command_ended(ran),
        What::Stale(stale) => return Ok(Said::Stale { id, newest_term: stale.newest_term }),
    };
    Ok(Said::Report { id, attempt, report })
}

/// A command ended: for the core it is an update that touched nothing.
fn command_ended(ran: wire::RunEnded) -> Report {
    let text = match (ran.known, ran.cause.as_str(), ran.exit_code) {
        (true, "", 0) => return Report::Done(Measured::default()),
        (true, "", code) => format!("it ended with exit code {code}"),
        (true, cause, _) => cause.to_owned(),
        (false, _, _) => {
            "its agent was restarted meanwhile: whether it took effect is not known".to_owned()
        }
    };
    Report::Failed(Failure {
        step: StepName::Run,
        text,
        output: output(&ran.output),
        left: Left::Untouched,
        measured: Measured::default(),
        current: None,
    })
}

fn step(number: i32) -> Result<StepName, BadMessage> {
    match wire::Step::try_from(number).unwrap_or(wire::Step::Unspecified) {
        wire::Step::Unspecified => Err(BadMessage::Missing("step")),
        wire::Step::Fetch => Ok(StepName::Fetch),
        wire::Step::Drain => Ok(StepName::Drain),
        wire::Step::Stop => Ok(StepName::Stop),
        wire::Step::Swap => Ok(StepName::Swap),
        wire::Step::Start => Ok(StepName::Start),
        wire::Step::Health => Ok(StepName::Health),
        wire::Step::Smoke => Ok(StepName::Smoke),
        wire::Step::Join => Ok(StepName::Join),
        wire::Step::Monitor => Ok(StepName::Monitor),
        wire::Step::Restore => Ok(StepName::Restore),
    }
}

fn measured(message: Option<wire::Measured>) -> Measured {
    let message = message.unwrap_or_default();
    Measured {
        out_of_traffic: Span(message.out_of_traffic_ms),
        in_flight_at_drain: message.in_flight_at_drain,
        cut: message.cut,
        kept_out: message.kept_out,
    }
}

fn failure(message: wire::Failed) -> Result<Failure, BadMessage> {
    let left = match wire::Left::try_from(message.left).unwrap_or(wire::Left::Unspecified) {
        wire::Left::Unspecified => return Err(BadMessage::Missing("failed.left")),
        wire::Left::Restored => Left::Restored,
        wire::Left::Out => Left::Out,
        wire::Left::Untouched => Left::Untouched,
    };
    let text = if message.restore_error.is_empty() {
        message.cause
    } else {
        format!("{}; the restore failed too: {}", message.cause, message.restore_error)
    };
    Ok(Failure {
        step: step(message.step)?,
        text,
        output: output(&message.output),
        left,
        measured: measured(message.measured),
        current: message.release.parse().ok(), // an odd one is told by the inventory, too
    })
}

/// The tail of an output, as text.
fn output(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(OUTPUT_MAX)..];
    String::from_utf8_lossy(tail).into_owned()
}

/// A piece of what a command printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// In which rollout.
    pub id: RolloutId,
    /// In which attempt of the node.
    pub attempt: Attempt,
    /// How many bytes were printed before it.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

/// Reads a piece of a command's output.
pub fn piece(message: wire::Output) -> Result<Piece, BadMessage> {
    let wire::Output { rollout, attempt, offset, data } = message;
    Ok(Piece { id: rollout.parse()?, attempt: Attempt(attempt), offset, data })
}

/// Every byte that is no part of a letter becomes a question mark: places in the text are places in the bytes.
pub fn plain(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '?'));
    }
    text
}

fn once_result(message: wire::OnceEnded) -> OnceResult {
    match (message.started, message.known, message.exit_code) {
        (false, _, _) => OnceResult::NeverBegan,
        (true, false, _) => OnceResult::Unknown,
        (true, true, 0) => OnceResult::Succeeded,
        (true, true, code) => OnceResult::Failed {
            text: match message.cause.as_str() {
                "" => format!("it ended with exit code {code}"),
                cause => cause.to_owned(),
            },
            output: output(&message.output),
        },
    }
}

/// The apps of a node of which it says that an update is under way.
pub fn moving(inventory: &wire::Inventory) -> Vec<AppName> {
    let moving = inventory.apps.iter().filter(|app| !app.step.is_empty());
    moving.filter_map(|app| app.app.parse().ok()).collect()
}

/// Reads what runs on a node. An entry that cannot be read is left out and named in the second list.
pub fn apps(inventory: &wire::Inventory) -> (Vec<AppRecord>, Vec<String>) {
    let mut bad = Vec::new();
    let apps = inventory
        .apps
        .iter()
        .filter_map(|app| {
            let name = app.app.parse().map_err(|error| bad.push(format!("{error}"))).ok()?;
            let release = match (app.version.parse(), app.digest.parse()) {
                (Ok(version), Ok(digest)) => Some(Release { version, digest }),
                _ => None,
            };
            let (health, traffic) = (app.health.clone(), app.traffic.clone());
            Some(AppRecord { app: name, release, health, traffic })
        })
        .collect();
    (apps, bad)
}

/// Everything a node needs to run a release.
pub fn release_spec(manifest: &Resolved, env: &str, release: &ReleaseRecord) -> wire::ReleaseSpec {
    wire::ReleaseSpec {
        app: release.app.to_string(),
        env: env.to_owned(),
        version: release.version.to_string(),
        digest: release.digest.to_string(),
        size: release.size,
        format: release.format.clone(),
        run: Some(run(manifest)),
        health: Some(health(manifest)),
        traffic: Some(traffic(manifest)),
        smoke: manifest.smoke.iter().map(smoke).collect(),
        hooks: Some(hooks(manifest)),
        image: image(manifest, release),
    }
}

/// Where nodes pull an image from, always the same one; empty when there is an artifact.
fn image(manifest: &Resolved, release: &ReleaseRecord) -> String {
    match manifest.artifact.filled(&release.app, &release.version) {
        Artifact::Image(image) => ImageName::of(&image).pinned(&release.digest),
        Artifact::Path(_) | Artifact::Url { .. } => String::new(),
    }
}

fn run(manifest: &Resolved) -> wire::Run {
    let run = &manifest.run;
    let env_file = run
        .env_file
        .as_ref()
        .map(|file| format!("{}{}", if file.optional { "-" } else { "" }, file.path));
    wire::Run {
        driver: run.driver.map(Driver::as_str).unwrap_or_default().to_owned(),
        command: run.command.clone(),
        user: run.user.clone().unwrap_or_default(),
        env: run.env.clone().into_iter().collect(),
        env_file: env_file.unwrap_or_default(),
        port: match run.port {
            Port::None | Port::Auto => 0,
            Port::Fixed(port) => u32::from(port),
        },
        stop_signal: run.stop_signal.name().to_owned(),
        stop_timeout_ms: run.stop_timeout.0,
        no_port: run.port == Port::None,
        limits: Some(limits(&run.limits)),
        notify: run.notify,
        socket: run.socket,
    }
}

/// 0 on the wire is none; a limit of nothing cannot be written.
fn limits(limits: &Limits) -> wire::Limits {
    wire::Limits {
        memory: limits.memory.unwrap_or(0),
        cpu_percent: limits.cpu.unwrap_or(0),
        tasks: limits.tasks.unwrap_or(0),
        open_files: limits.open_files.unwrap_or(0),
    }
}

fn health(manifest: &Resolved) -> wire::Health {
    use wire::health::Check as Wire;
    let health = &manifest.health;
    wire::Health {
        check: match &health.check {
            Check::Alive => None,
            Check::Http(path) => Some(Wire::Http(path.clone())),
            Check::Tcp => Some(Wire::Tcp(true)),
            Check::Command(argv) => Some(Wire::Command(wire::Command { argv: argv.clone() })),
        },
        interval_ms: health.interval.0,
        timeout_ms: health.timeout.0,
        healthy_for_ms: health.healthy_for.0,
        deadline_ms: health.deadline.0,
    }
}

fn traffic(manifest: &Resolved) -> wire::TrafficPlan {
    let (via, pool) = match &manifest.traffic.via {
        Via::Edge(pool) => ("edge", pool.clone()),
        Via::Endpoint { .. } => ("endpoint", String::new()),
        Via::Command(_) => ("command", String::new()),
        Via::None => ("none", String::new()),
    };
    let command = |argv: &Argv| wire::Command { argv: argv.clone() };
    let scripts = match &manifest.traffic.via {
        Via::Command(scripts) => Some(scripts),
        Via::Edge(_) | Via::Endpoint { .. } | Via::None => None,
    };
    let settle = match manifest.traffic.via {
        Via::Endpoint { settle } => settle,
        Via::Edge(_) | Via::Command(_) | Via::None => 0,
    };
    wire::TrafficPlan {
        via: via.to_owned(),
        pool,
        drain_timeout_ms: manifest.traffic.drain_timeout.0,
        fail_on_drain_timeout: manifest.traffic.on_drain_timeout == OnDrainTimeout::Fail,
        reachable_edges: manifest.traffic.edges == Needed::Reachable,
        leave: scripts.map(|it| command(&it.leave)),
        join: scripts.map(|it| command(&it.join)),
        in_flight: scripts.and_then(|it| it.in_flight.as_ref()).map(command),
        settle,
    }
}

fn smoke(smoke: &crate::manifest::Smoke) -> wire::Smoke {
    use wire::smoke::Test;
    let (test, status, contains, matches) = match &smoke.test {
        SmokeTest::Command(argv) => {
            let command = wire::Command { argv: argv.clone() };
            (Test::Command(command), 0, String::new(), String::new())
        }
        SmokeTest::Http { path, status, body } => {
            let (contains, matches) = match body {
                Body::Any => (String::new(), String::new()),
                Body::Contains(text) => (text.clone(), String::new()),
                Body::Matches(regex) => (String::new(), regex.clone()),
            };
            (Test::Http(path.clone()), u32::from(*status), contains, matches)
        }
    };
    wire::Smoke {
        name: smoke.name.clone(),
        test: Some(test),
        status,
        contains,
        matches,
        timeout_ms: smoke.timeout.0,
        retries: smoke.retries,
    }
}

fn hooks(manifest: &Resolved) -> wire::Hooks {
    let commands = |list: &[crate::manifest::Argv]| {
        list.iter().map(|argv| wire::Command { argv: argv.clone() }).collect()
    };
    wire::Hooks {
        before_drain: commands(&manifest.hooks.before_drain),
        before_start: commands(&manifest.hooks.before_start),
        after_join: commands(&manifest.hooks.after_join),
        on_failure: commands(&manifest.hooks.on_failure),
    }
}

/// The wire's direction of a core direction.
pub fn direction(direction: Direction, restart: bool) -> wire::Direction {
    match direction {
        Direction::Forward if restart => wire::Direction::Restart,
        Direction::Forward => wire::Direction::Forward,
        Direction::Back => wire::Direction::Back,
    }
}

/// Names of nodes from an operator.
pub fn nodes(names: &[String]) -> Result<Vec<NodeName>, BadName> {
    names.iter().map(|name| name.parse()).collect()
}
