//! The once-per-release job: begun at most once per attempt, and its outcome known or said to be unknown.

use serde::{Deserialize, Serialize};

use super::Happened;
use super::means::Means;
use crate::health::chain;
use crate::journal::{Journal, JournalError};
use crate::order::{Once as Job, Rollout};
use crate::report::{Once, What as Say};
use crate::runtime::{Exit, command};
use crate::update::Instance;

/// What the journal knows of the newest job of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    rollout: Rollout,
    attempt: u32,
    /// `None`: it began, and whether it ended nobody wrote down.
    ended: Option<Once>,
}

/// Runs the job, unless this attempt of it has begun before: then its outcome is said again.
pub(super) async fn run(
    journal: &Journal,
    means: Means,
    (rollout, attempt): (Rollout, u32),
    job: Job,
) -> Result<(), JournalError> {
    let name = format!("once.{}", rollout.app);
    let known = journal.get::<Record>(&name).await?;
    if let Some(known) = known.filter(|it| it.rollout == rollout && it.attempt == attempt) {
        if means.once_runs(&name) {
            return Ok(()); // it is under way: its end will be said
        }
        let unknown = Once::Unknown { output: Vec::new() };
        let once = known.ended.unwrap_or(unknown);
        let say = Box::new(Say::Once(once));
        means.tell(Happened::Answer { rollout, attempt, say }).await;
        return Ok(());
    }
    let begun = Record { rollout: rollout.clone(), attempt, ended: None };
    journal.put(&name, &begun).await?;
    means.once_begins(&name);
    let journal = journal.clone();
    tokio::spawn(async move {
        let once = carry_out(&means, &job).await;
        let record = Record { ended: Some(once.clone()), ..begun };
        if let Err(error) = journal.put(&name, &record).await {
            tracing::error!(%error, "the outcome of the once-per-release job cannot be kept");
        }
        means.once_ends(&name);
        let say = Box::new(Say::Once(once));
        means.tell(Happened::Answer { rollout, attempt, say }).await;
    });
    Ok(())
}

async fn carry_out(means: &Means, job: &Job) -> Once {
    let nobody = Instance { label: String::new(), token: 0, port: 0 };
    let start = means.start_spec(&job.release, &nobody);
    match command::run(&means.launcher, &start, &job.command, job.timeout).await {
        // A job that cannot begin failed: to say that it never began would have it ordered again, for ever.
        Err(error) => Once::Failed { cause: chain(&error), output: Vec::new() },
        Ok(ended) => match ended.exit {
            Some(Exit::Code(code)) => Once::Exited { code, output: ended.output },
            Some(Exit::Signal(number)) => Once::Exited { code: 128 + number, output: ended.output },
            Some(Exit::Unknown) => Once::Unknown { output: ended.output },
            None => {
                let cause = format!("it did not end within {:?} and was killed", job.timeout);
                Once::Failed { cause, output: ended.output }
            }
        },
    }
}
