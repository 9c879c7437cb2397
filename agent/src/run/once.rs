//! Commands that may take effect once only: the once-per-release job, and what an operator runs on this node.
//!
//! Each is begun at most once per attempt, which the journal knows before it begins. Its outcome is known, or said to
//! be unknown; it is never guessed, and never tried again without a new attempt.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::means::Means;
use super::{Happened, Loop};
use crate::health::chain;
use crate::journal::JournalError;
use crate::order::{Command, Once as Job, Rollout};
use crate::report::{Once, What as Say};
use crate::runtime::command::{self, Ended, Hear};
use crate::runtime::{Exit, StartSpec};
use crate::update::{Instance, Work};

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// The once-per-release job.
    Once,
    /// An operator's command.
    Run,
}

/// What is to be done.
struct Task {
    deed: Deed,
    rollout: Rollout,
    attempt: u32,
    argv: Vec<String>,
    timeout: Duration,
    /// Where, as whom, and in which environment; or why not.
    start: Result<StartSpec, String>,
}

/// What the journal knows of the newest one of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    rollout: Rollout,
    attempt: u32,
    /// `None`: it began, and whether it ended nobody wrote down.
    ended: Option<Once>,
    #[serde(default)]
    took_ms: u64,
    /// Bytes that it printed in all.
    #[serde(default)]
    printed: u64,
}

impl Record {
    /// Was it begun after this task was ordered? Then the order is a late repeat.
    fn is_after(&self, task: &Task) -> bool {
        self.rollout.env == task.rollout.env
            && (self.rollout.revision, self.attempt) > (task.rollout.revision, task.attempt)
    }
}

impl Task {
    /// The journal's record, and what is under way.
    fn name(&self) -> String {
        let deed = match self.deed {
            Deed::Once => "once",
            Deed::Run => "run",
        };
        format!("{deed}.{}", self.rollout.app)
    }

    /// Says how it ended; `record` has the rest.
    async fn say(&self, means: &Means, ended: Once, record: &Record) {
        let Record { took_ms, printed, .. } = *record;
        let say = Box::new(match self.deed {
            Deed::Once => Say::Once(ended),
            Deed::Run => Say::Ran { ended, took_ms, printed },
        });
        let (rollout, attempt) = (self.rollout.clone(), self.attempt);
        means.tell(Happened::Answer { rollout, attempt, say }).await;
    }
}

impl Loop {
    /// The once-per-release job: of a release that need not run here yet.
    pub(super) async fn once(
        &mut self,
        rollout: Rollout,
        attempt: u32,
        job: Job,
    ) -> Result<(), JournalError> {
        let nobody = Instance { label: String::new(), token: 0, port: 0 };
        let start = Ok(self.means.start_spec(&job.release, &nobody));
        let Job { command: argv, timeout, .. } = job;
        self.carry_out_once(Task { deed: Deed::Once, rollout, attempt, argv, timeout, start }).await
    }

    /// An operator's command: beside the app as it runs here.
    pub(super) async fn command(
        &mut self,
        rollout: Rollout,
        attempt: u32,
        command: Command,
    ) -> Result<(), JournalError> {
        let start = self.beside(&rollout.app);
        let Command { argv, timeout } = command;
        self.carry_out_once(Task { deed: Deed::Run, rollout, attempt, argv, timeout, start }).await
    }

    /// Where and how the app runs here.
    fn beside(&self, app: &str) -> Result<StartSpec, String> {
        let state = self.slots.get(app).map(|slot| &slot.state);
        match state.map(|state| (&state.work, &state.current)) {
            Some((Work::Update(_), _)) => Err(format!("{app} is being updated here right now")),
            Some((_, Some(settled))) => {
                let nobody = Instance { label: String::new(), token: 0, port: 0 };
                let instance = settled.instance.as_ref().unwrap_or(&nobody);
                Ok(self.means.start_spec(&settled.spec, instance))
            }
            Some((_, None)) | None => Err(format!("this node does not run {app}")),
        }
    }

    /// Does it, unless this attempt of it has begun before: then its outcome is said again.
    async fn carry_out_once(&self, task: Task) -> Result<(), JournalError> {
        let name = task.name();
        let known = self.journal.get::<Record>(&name).await?;
        if let Some(known) = known {
            if known.rollout == task.rollout && known.attempt == task.attempt {
                if !self.means.once_runs(&name) {
                    let unknown = || Once::Unknown { output: Vec::new() };
                    let ended = known.ended.clone().unwrap_or_else(unknown);
                    task.say(&self.means, ended, &known).await;
                }
                return Ok(()); // while it is under way, its end will be said
            }
            if known.is_after(&task) {
                let (rollout, attempt) = (&task.rollout, task.attempt);
                warn!(%rollout, attempt, "a command of an earlier attempt is ignored");
                return Ok(());
            }
        }
        let (rollout, attempt) = (task.rollout.clone(), task.attempt);
        let begun = Record { rollout, attempt, ended: None, took_ms: 0, printed: 0 };
        self.journal.put(&name, &begun).await?;
        self.means.once_begins(&name);
        let (journal, means) = (self.journal.clone(), self.means.clone());
        tokio::spawn(async move {
            let since = Instant::now();
            let (ended, printed) = carry_out(&means, &task).await;
            let took_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            let record = Record { ended: Some(ended.clone()), took_ms, printed, ..begun };
            if let Err(cause) = journal.put(&name, &record).await {
                error!(%cause, name, "the outcome of a command cannot be kept");
            }
            means.once_ends(&name);
            task.say(&means, ended, &record).await;
            means.link.print_ended(&task.rollout, task.attempt);
        });
        Ok(())
    }
}

/// How it ended, and how much it printed. What an operator runs is heard by him while it runs.
async fn carry_out(means: &Means, task: &Task) -> (Once, u64) {
    let failed = |cause| (Once::Failed { cause, output: Vec::new() }, 0);
    let start = match &task.start {
        Ok(start) => start,
        Err(why) => return failed(why.clone()),
    };
    let live = |bytes: &[u8]| means.link.printed(&task.rollout, task.attempt, bytes);
    let hear: Hear<'_> = match task.deed {
        Deed::Run => &live,
        Deed::Once => &|_| (),
    };
    let ran = command::run_heard(&means.launcher, start, &task.argv, task.timeout, hear).await;
    match ran {
        // A job that cannot begin failed: to say that it never began would have it ordered again, for ever.
        Err(error) => failed(chain(&error)),
        Ok(ended) => (how(&ended, task), ended.printed),
    }
}

fn how(ended: &Ended, task: &Task) -> Once {
    let output = ended.output.clone();
    match ended.exit {
        Some(Exit::Code(code)) => Once::Exited { code, output },
        Some(Exit::Signal(number)) => Once::Exited { code: 128 + number, output },
        Some(Exit::OutOfMemory) => Once::Exited { code: 137, output },
        Some(Exit::Unknown) => Once::Unknown { output },
        None => {
            let cause = format!("it did not end within {:?} and was killed", task.timeout);
            Once::Failed { cause, output }
        }
    }
}
