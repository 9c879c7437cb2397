//! The tests before a node rejoins: in order, against its own instance, out of traffic.

use std::time::Duration;

use regex_lite::Regex;
use thiserror::Error;
use tokio::time::sleep;

use crate::health::{Probe, chain};
use crate::http::{self, Answer, Bounds};
use crate::runtime::Exit;
use crate::runtime::command::{self, CommandError};
use crate::spec::{Smoke, SmokeTest};
use crate::template::{TemplateError, Values};

/// Between two tries of one test: long enough for a cache or a connection pool to come up.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of a page that are searched.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a wrong answer that are shown.
const BODY_SHOWN: usize = 200;
/// Bytes of memory for one regular expression; the crate's own limit is ten times that.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// A smoke test that failed, or could not be made.
#[derive(Debug, Error)]
#[error("smoke test `{name}` failed {}: {cause}", tries(*tries_made))]
pub struct SmokeError {
    /// The test's name.
    pub name: String,
    /// How often it was tried.
    pub tries_made: u32,
    /// What its command wrote; empty for requests.
    pub output: Vec<u8>,
    /// Why the last try failed.
    pub cause: Failure,
}

/// Why one try failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// Another status.
    #[error("GET {path} answered {got}, expected {expected}; {body}")]
    Status { path: String, got: u16, expected: u16, body: Shown },
    /// Not what was to be there.
    #[error("GET {path} answered {status} without {wanted}; {body}")]
    Body { path: String, status: u16, wanted: String, body: Shown },
    /// No answer.
    #[error("{}", chain(.0))]
    Http(http::HttpError),
    /// The command.
    #[error("`{program}` {exit}")]
    Exit { program: String, exit: Exit },
    /// The command ran too long.
    #[error("`{program}` did not end within {limit:?} and was killed with all that it forked")]
    Timeout { program: String, limit: Duration },
    /// The command did not run.
    #[error("{}", chain(.0.as_ref()))]
    Command(Box<CommandError>),
    /// A substitution.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// Not a regular expression.
    #[error("`{pattern}` is no regular expression: {why}")]
    Regex { pattern: String, why: String },
    /// It listens nowhere.
    #[error("it has no port that could be asked")]
    NoPort,
    /// There is nothing to test any more.
    #[error("the app {0} meanwhile")]
    Exited(Exit),
}

impl Failure {
    /// Whether another try could end differently.
    fn may_pass_later(&self) -> bool {
        match self {
            Failure::Status { .. } | Failure::Body { .. } | Failure::Http(_) => true,
            Failure::Exit { .. } | Failure::Timeout { .. } => true,
            Failure::Command(_) | Failure::Template(_) | Failure::Regex { .. } => false,
            Failure::NoPort | Failure::Exited(_) => false,
        }
    }
}

/// The beginning of a body, for an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown(String);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_str() {
            "" => write!(f, "the body is empty"),
            text => write!(f, "the body begins with {text:?}"),
        }
    }
}

/// Runs the tests one after the other; the first that fails ends it. Answers what their commands printed.
pub async fn run(probe: Probe<'_>, tests: &[Smoke]) -> Result<Vec<u8>, SmokeError> {
    let mut printed = Vec::new();
    for test in tests {
        printed.extend(run_one(probe, test).await?);
    }
    Ok(printed)
}

async fn run_one(probe: Probe<'_>, test: &Smoke) -> Result<Vec<u8>, SmokeError> {
    let mut tries_made = 0;
    loop {
        tries_made += 1;
        let mut output = Vec::new();
        let tried = tokio::select! {
            biased;
            exit = probe.running.exited() => Err(Failure::Exited(exit)),
            tried = try_once(probe, test, &mut output) => tried,
        };
        match tried {
            Ok(()) => return Ok(output),
            Err(cause) if tries_made > test.retries || !cause.may_pass_later() => {
                return Err(SmokeError { name: test.name.clone(), tries_made, output, cause });
            }
            Err(_) => sleep(RETRY_PAUSE).await,
        }
    }
}

async fn try_once(probe: Probe<'_>, test: &Smoke, output: &mut Vec<u8>) -> Result<(), Failure> {
    match &test.test {
        SmokeTest::Http { path, status, contains, matches } => {
            let values = probe.start.values();
            let expected =
                Expected::new(&values, *status, contains.as_deref(), matches.as_deref())?;
            let address = probe.start.address().ok_or(Failure::NoPort)?;
            let path = values.render(path)?;
            let bounds = Bounds { timeout: test.timeout, body: BODY_BYTES_MAX };
            let answer = http::get(address, &path, bounds).await.map_err(Failure::Http)?;
            expected.check(path, &answer)
        }
        SmokeTest::Command(argv) => {
            let Probe { launcher, start, running } = probe;
            let at = (start, running.instance());
            let ended = command::run_inside(launcher, at, argv, test.timeout).await;
            let ended = ended.map_err(|cause| Failure::Command(Box::new(cause)))?;
            let success = ended.is_success();
            *output = ended.output;
            let program = argv.first().cloned().unwrap_or_default();
            match ended.exit {
                Some(_) if success => Ok(()),
                Some(exit) => Err(Failure::Exit { program, exit }),
                None => Err(Failure::Timeout { program, limit: test.timeout }),
            }
        }
    }
}

/// What an answer must be.
struct Expected {
    status: u16,
    contains: Option<String>,
    matches: Option<Regex>,
}

impl Expected {
    fn new(
        values: &Values<'_>,
        status: u16,
        contains: Option<&str>,
        matches: Option<&str>,
    ) -> Result<Expected, Failure> {
        let contains = contains.map(|text| values.render(text)).transpose()?;
        let pattern = matches.map(|text| values.render_regex(text)).transpose()?;
        let matches = pattern.map(|pattern| {
            let built = regex_lite::RegexBuilder::new(&pattern).size_limit(REGEX_BYTES_MAX).build();
            built.map_err(|error| Failure::Regex { pattern, why: error.to_string() })
        });
        Ok(Expected { status, contains, matches: matches.transpose()? })
    }

    fn check(&self, path: String, answer: &Answer) -> Result<(), Failure> {
        let Answer { status, ref body, whole } = *answer;
        let text = String::from_utf8_lossy(body);
        let shown = || Shown(String::from_utf8_lossy(&body[..body.len().min(BODY_SHOWN)]).into());
        if status != self.status {
            return Err(Failure::Status {
                path,
                got: status,
                expected: self.status,
                body: shown(),
            });
        }
        let missing = match (&self.contains, &self.matches) {
            (Some(part), _) if !text.contains(part.as_str()) => Some(format!("`{part}`")),
            (_, Some(regex)) if !regex.is_match(&text) => Some(format!("a match of `{regex}`")),
            (_, _) => None,
        };
        match missing {
            None => Ok(()),
            Some(what) => {
                let within = if whole { "" } else { " in its first MiB" };
                let wanted = format!("{what}{within}");
                Err(Failure::Body { path, status, wanted, body: shown() })
            }
        }
    }
}

fn tries(made: u32) -> String {
    match made {
        1 => "at the first try".into(),
        _ => format!("{made} times"),
    }
}
