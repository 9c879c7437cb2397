//! Is an instance healthy? Waits for it after a start, and watches it afterwards.

use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use crate::http::{self, Bounds, HttpError};
use crate::runtime::command::{self, CommandError};
use crate::runtime::{Exit, Launcher, Running, StartSpec};
use crate::spec::{Check, Health};
use crate::template::TemplateError;

/// The first pause while nothing listens yet; it grows to the interval.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Each pause is this much longer than the one before.
const PAUSE_GROWTH: u32 = 2;
/// Failures in a row after which an instance that was healthy counts as unhealthy: one may be a
/// hiccup.
pub const FAILURES_TO_TURN: u32 = 3;
/// Bytes of an answer that are read; only its status matters.
const BODY_BYTES: usize = 16 * 1024;
/// Bytes of a failed command's output in its error.
const OUTPUT_SHOWN: usize = 500;

/// An instance, and how to ask it.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// Runs check commands.
    pub launcher: &'a Launcher,
    /// What was started.
    pub start: &'a StartSpec,
    /// What runs.
    pub running: &'a Running,
}

/// What became of waiting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It was healthy for as long as it had to be.
    Healthy {
        /// Since the wait began.
        after: Duration,
        /// Checks that were made.
        tries: u32,
    },
    /// It was not, before the deadline.
    Unhealthy {
        /// One line.
        cause: String,
        /// Checks that were made.
        tries: u32,
    },
    /// Its process ended.
    Exited {
        /// How.
        exit: Exit,
        /// What the last check said, if there was one.
        cause: Option<String>,
    },
}

/// Something changed after it had been healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It answers again.
    Healthy,
    /// It failed several checks in a row; this is the last one's cause.
    Unhealthy { cause: String },
    /// Its process ended; nothing follows.
    Exited { exit: Exit },
}

/// Why a check failed.
#[derive(Debug, Error)]
enum Failure {
    #[error("{0}")]
    Refused(HttpError),
    #[error("{}", chain(.0))]
    Http(HttpError),
    #[error("it answered {status} on {path}")]
    Status { status: u16, path: String },
    #[error("cannot connect to port {port}: {cause}")]
    Tcp { port: u16, cause: String },
    #[error("the check command {0}")]
    Command(String),
    #[error("{}", chain(.0))]
    NotRun(CommandError),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("it has no port that could be asked")]
    NoPort,
}

/// Checks until the instance was healthy for `healthy_for` without a break, its process ended, or
/// the deadline passed.
///
/// The first check is made at once. While nothing listens, checks follow each other faster than the
/// interval, so that an app which starts fast is not waited for.
pub async fn wait_healthy(probe: Probe<'_>, health: &Health) -> Verdict {
    let began = Instant::now();
    let mut wait = Wait { tries: 0, since: None, last: None };
    let outcome = {
        let healthy = wait.until_healthy(probe, health);
        tokio::select! {
            // An exit is the better news when both are known: it is final.
            biased;
            exit = probe.running.exited() => Outcome::Exited(exit),
            healthy = timeout(health.deadline, healthy) => match healthy {
                Ok(()) => Outcome::Healthy,
                Err(_elapsed) => Outcome::Late,
            }
        }
    };
    match outcome {
        Outcome::Healthy => Verdict::Healthy { after: began.elapsed(), tries: wait.tries },
        Outcome::Exited(exit) => Verdict::Exited { exit, cause: wait.last },
        Outcome::Late => Verdict::Unhealthy { cause: wait.too_late(health), tries: wait.tries },
    }
}

enum Outcome {
    Healthy,
    Exited(Exit),
    Late,
}

struct Wait {
    tries: u32,
    since: Option<Instant>,
    last: Option<String>,
}

impl Wait {
    async fn until_healthy(&mut self, probe: Probe<'_>, health: &Health) {
        // A process that is alive proves nothing in its first microsecond.
        let needed = match health.check {
            Check::Alive => health.healthy_for.max(health.interval),
            Check::Http(_) | Check::Tcp | Check::Command(_) => health.healthy_for,
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let asked = Instant::now();
            self.tries += 1;
            let next = match check(probe, health).await {
                Ok(()) => {
                    let left = needed.saturating_sub(self.since.get_or_insert(asked).elapsed());
                    if left.is_zero() {
                        return;
                    }
                    left.min(health.interval)
                }
                Err(failure) => {
                    self.since = None;
                    let next = match failure {
                        Failure::Refused(_) => pause.min(health.interval),
                        Failure::Http(_)
                        | Failure::Status { .. }
                        | Failure::Tcp { .. }
                        | Failure::Command(_)
                        | Failure::NotRun(_)
                        | Failure::Template(_)
                        | Failure::NoPort => health.interval,
                    };
                    pause = next.saturating_mul(PAUSE_GROWTH).max(FIRST_PAUSE);
                    self.last = Some(failure.to_string());
                    next
                }
            };
            sleep(next).await;
        }
    }

    fn too_late(&self, health: &Health) -> String {
        let Health { deadline, healthy_for, .. } = health;
        match (&self.since, &self.last) {
            (Some(since), _) => format!(
                "not healthy for {healthy_for:?} within {deadline:?}: it is only since {:?}",
                since.elapsed()
            ),
            (None, Some(last)) => format!("not healthy within {deadline:?}: {last}"),
            (None, None) => format!("not healthy within {deadline:?}: no check came to an end"),
        }
    }
}

/// Watches a healthy instance until its process ends or nobody listens; sends each change.
///
/// `every` is the pause while all is well; after a failure the checks follow each other in the
/// health check's own interval.
pub async fn watch(
    probe: Probe<'_>,
    health: &Health,
    every: Duration,
    changes: mpsc::Sender<Change>,
) {
    let gone = tokio::select! {
        exit = probe.running.exited() => Some(exit),
        () = watch_checks(probe, health, every, &changes) => None,
        () = changes.closed() => None,
    };
    if let Some(exit) = gone
        && changes.send(Change::Exited { exit }).await.is_err()
    {
        tracing::debug!("an instance ended that nobody watches any more");
    }
}

async fn watch_checks(
    probe: Probe<'_>,
    health: &Health,
    every: Duration,
    changes: &mpsc::Sender<Change>,
) {
    let mut failures = 0;
    loop {
        let calm = failures == 0 || failures >= FAILURES_TO_TURN;
        sleep(if calm { every } else { health.interval.min(every) }).await;
        let change = match check(probe, health).await {
            Ok(()) if failures >= FAILURES_TO_TURN => {
                failures = 0;
                Some(Change::Healthy)
            }
            Ok(()) => {
                failures = 0;
                None
            }
            Err(failure) => {
                failures += 1;
                (failures == FAILURES_TO_TURN)
                    .then(|| Change::Unhealthy { cause: failure.to_string() })
            }
        };
        if let Some(change) = change
            && changes.send(change).await.is_err()
        {
            return;
        }
    }
}

async fn check(probe: Probe<'_>, health: &Health) -> Result<(), Failure> {
    match &health.check {
        // Its end is noticed by whoever runs the checks.
        Check::Alive => Ok(()),
        Check::Http(path) => check_http(probe, path, health.timeout).await,
        Check::Tcp => check_tcp(probe, health.timeout).await,
        Check::Command(argv) => check_command(probe, argv, health.timeout).await,
    }
}

async fn check_http(probe: Probe<'_>, path: &str, limit: Duration) -> Result<(), Failure> {
    let address = probe.start.address().ok_or(Failure::NoPort)?;
    let path = probe.start.values().render(path)?;
    let bounds = Bounds { timeout: limit, body: BODY_BYTES };
    match http::get(address, &path, bounds).await {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        Ok(answer) => Err(Failure::Status { status: answer.status, path }),
        Err(error @ HttpError::Refused { .. }) => Err(Failure::Refused(error)),
        Err(error) => Err(Failure::Http(error)),
    }
}

async fn check_tcp(probe: Probe<'_>, limit: Duration) -> Result<(), Failure> {
    let address = probe.start.address().ok_or(Failure::NoPort)?;
    let port = address.port();
    match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(_connection)) => Ok(()),
        Ok(Err(cause)) if cause.kind() == std::io::ErrorKind::ConnectionRefused => {
            Err(Failure::Refused(HttpError::Refused { address }))
        }
        Ok(Err(cause)) => Err(Failure::Tcp { port, cause: cause.to_string() }),
        Err(_elapsed) => Err(Failure::Tcp { port, cause: format!("no answer within {limit:?}") }),
    }
}

async fn check_command(probe: Probe<'_>, argv: &[String], limit: Duration) -> Result<(), Failure> {
    let Probe { launcher, start, running } = probe;
    let ended = command::run_inside(launcher, (start, running.instance()), argv, limit).await;
    let ended = ended.map_err(Failure::NotRun)?;
    if ended.is_success() {
        return Ok(());
    }
    let how = match ended.exit {
        Some(exit) => exit.to_string(),
        None => format!("did not end within {limit:?}"),
    };
    let from = ended.output.len().saturating_sub(OUTPUT_SHOWN);
    let output = String::from_utf8_lossy(&ended.output[from..]);
    Err(Failure::Command(match output.trim() {
        "" => how,
        said => format!("{how}: {said}"),
    }))
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(it) = cause {
        text = format!("{text}: {it}");
        cause = it.source();
    }
    text
}
