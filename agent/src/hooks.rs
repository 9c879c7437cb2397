//! The operator's own scripts around an update: one after the other, the first failure ends it.

use std::time::Duration;

use thiserror::Error;

use crate::health::chain;
use crate::runtime::command::{self, CommandError};
use crate::runtime::{Exit, Launcher, StartSpec};

/// For each command. A hook that needs longer hangs, and an update must not hang with it.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// When the scripts run; for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// While the node is still in traffic.
    BeforeDrain,
    /// After the swap.
    BeforeStart,
    /// Back in traffic.
    AfterJoin,
    /// After the update failed.
    OnFailure,
}

impl Moment {
    /// As the manifest calls it.
    pub fn name(self) -> &'static str {
        match self {
            Moment::BeforeDrain => "before_drain",
            Moment::BeforeStart => "before_start",
            Moment::AfterJoin => "after_join",
            Moment::OnFailure => "on_failure",
        }
    }
}

/// A script that failed.
#[derive(Debug, Error)]
#[error("hook {} {number} of {count}, `{program}`, {cause}", moment.name())]
pub struct HookError {
    /// When.
    pub moment: Moment,
    /// Which, from 1.
    pub number: usize,
    /// Of how many.
    pub count: usize,
    /// Its program.
    pub program: String,
    /// The end of what it wrote.
    pub output: Vec<u8>,
    /// Why.
    pub cause: Failure,
}

/// Why a script failed.
#[derive(Debug, Error)]
pub enum Failure {
    /// It did not end with 0.
    #[error("{0}")]
    Exit(Exit),
    /// It did not end.
    #[error("did not end within {0:?} and was killed with all that it forked")]
    Timeout(Duration),
    /// It did not begin.
    #[error("could not be run: {}", chain(.0))]
    NotRun(CommandError),
}

/// A script of `[traffic]` that failed.
#[derive(Debug, Error)]
#[error("traffic.{key}, `{program}`, {cause}")]
pub struct ScriptError {
    /// Which.
    pub key: &'static str,
    /// Its program.
    pub program: String,
    /// The end of what it wrote.
    pub output: Vec<u8>,
    /// Why.
    pub cause: Failure,
}

/// Runs one script of `[traffic]` as hooks are run. Answers what it printed.
pub async fn run_script(
    launcher: &Launcher,
    start: &StartSpec,
    (key, argv): (&'static str, &[String]),
    limit: Duration,
) -> Result<Vec<u8>, ScriptError> {
    let (output, cause) = match command::run(launcher, start, argv, limit).await {
        Ok(ended) if ended.is_success() => return Ok(ended.output),
        Ok(ended) => (ended.output, ended.exit.map_or(Failure::Timeout(limit), Failure::Exit)),
        Err(error) => (Vec::new(), Failure::NotRun(error)),
    };
    let program = argv.first().cloned().unwrap_or_default();
    Err(ScriptError { key, program, output, cause })
}

/// Runs the commands in order, each for at most `limit`, as the app's user, in the release's
/// folder. Answers what they printed.
pub async fn run_all(
    launcher: &Launcher,
    start: &StartSpec,
    moment: Moment,
    limit: Duration,
) -> Result<Vec<u8>, HookError> {
    let hooks = &start.spec.hooks;
    let commands = match moment {
        Moment::BeforeDrain => &hooks.before_drain,
        Moment::BeforeStart => &hooks.before_start,
        Moment::AfterJoin => &hooks.after_join,
        Moment::OnFailure => &hooks.on_failure,
    };
    let mut printed = Vec::new();
    for (index, argv) in commands.iter().enumerate() {
        let (output, cause) = match command::run(launcher, start, argv, limit).await {
            Ok(ended) if ended.is_success() => {
                printed.extend(ended.output);
                continue;
            }
            Ok(ended) => {
                let failure = ended.exit.map_or(Failure::Timeout(limit), Failure::Exit);
                (ended.output, failure)
            }
            Err(error) => (Vec::new(), Failure::NotRun(error)),
        };
        let program = argv.first().cloned().unwrap_or_default();
        let (number, count) = (index + 1, commands.len());
        return Err(HookError { moment, number, count, program, output, cause });
    }
    Ok(printed)
}
