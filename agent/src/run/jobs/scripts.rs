//! In and out of traffic by the operator's own scripts (`via = "command"`).
//!
//! `leave` must end with 0, then `in_flight` is asked until it says 0, then the kernel's table. A crash of the agent
//! may come anywhere between: the job begins again, and so do the scripts, which are harmless when they are repeated.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::moves::Quiet;
use super::{Desk, Did, Outcome, Trouble};
use crate::health::chain;
use crate::hooks::{self, HOOK_TIMEOUT};
use crate::run::Happened;
use crate::spec::{OnDrainTimeout, Scripts, Spec};
use crate::update::Instance;

/// The first wait between two questions for what is in flight. A script can only be asked.
const ASK_FIRST: Duration = Duration::from_millis(100);

/// The longest: a script may be as expensive as a request to a load balancer's API.
const ASK_LONGEST: Duration = Duration::from_secs(1);

impl Desk {
    pub(super) async fn join_by(
        &self,
        scripts: &Scripts,
        spec: &Spec,
        instance: &Instance,
    ) -> Outcome {
        self.script("join", &scripts.join, (spec, instance)).await?;
        Ok(Did::Ok)
    }

    pub(super) async fn drain_by(
        &self,
        scripts: &Scripts,
        (spec, instance): (&Spec, &Instance),
        must: bool,
    ) -> Outcome {
        let cuts = must || spec.traffic.on_drain_timeout == OnDrainTimeout::Cut;
        let left = self.script("leave", &scripts.leave, (spec, instance)).await;
        if let Err(trouble) = left {
            if !must {
                return Err(trouble);
            }
            tracing::warn!(app = self.app, "{}: it is stopped all the same", trouble.cause);
        }
        let (begun, limit) = (Instant::now(), spec.traffic.drain_timeout);
        let (at_start, in_flight) = match &scripts.in_flight {
            None => (0, 0),
            Some(argv) => match self.rest(argv, (spec, instance)).await {
                Ok(counted) => counted,
                Err(trouble) if !must => return Err(trouble),
                Err(trouble) => {
                    tracing::warn!(app = self.app, "{}: not counted", trouble.cause);
                    (0, 0)
                }
            },
        };
        if in_flight > 0 && !cuts {
            let limit = limit.as_millis();
            let cause = format!("not drained within {limit} ms: in_flight says {in_flight}");
            return Err(cause.into());
        }
        let rest = limit.saturating_sub(begun.elapsed());
        let Quiet { at_start: open_at_start, cut } =
            self.quiet((spec, instance), rest, cuts).await?;
        // What is in flight has a connection: it is not counted twice.
        let (in_flight_at_start, cut) = (at_start.max(open_at_start), in_flight.max(cut));
        Ok(Did::Drained { in_flight_at_start, cut })
    }

    /// Asks until nothing is in flight, or no time is left: what was in flight at first, and is now.
    async fn rest(
        &self,
        argv: &[String],
        (spec, instance): (&Spec, &Instance),
    ) -> Result<(u64, u64), Trouble> {
        let (begun, limit) = (Instant::now(), spec.traffic.drain_timeout);
        let at_start = self.in_flight(argv, (spec, instance)).await?;
        let (mut in_flight, mut wait) = (at_start, ASK_FIRST);
        while in_flight > 0 && begun.elapsed() < limit {
            sleep(wait.min(limit.saturating_sub(begun.elapsed()))).await;
            wait = (wait * 2).min(ASK_LONGEST);
            in_flight = self.in_flight(argv, (spec, instance)).await?;
        }
        Ok((at_start, in_flight))
    }

    async fn in_flight(
        &self,
        argv: &[String],
        (spec, instance): (&Spec, &Instance),
    ) -> Result<u64, Trouble> {
        let printed = self.script("in_flight", argv, (spec, instance)).await?;
        let output = String::from_utf8_lossy(&printed).into_owned();
        let last = output.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let Ok(in_flight) = last.parse::<u64>() else {
            let cause = format!("traffic.in_flight must print a number at its end, not {last:?}");
            return Err(Trouble { cause, output });
        };
        let app = self.app.clone();
        self.means.tell(Happened::Draining { app, in_flight }).await;
        Ok(in_flight)
    }

    async fn script(
        &self,
        key: &'static str,
        argv: &[String],
        (spec, instance): (&Spec, &Instance),
    ) -> Result<Vec<u8>, Trouble> {
        let start = self.means.start_spec(spec, instance);
        let ran = hooks::run_script(&self.means.launcher, &start, (key, argv), HOOK_TIMEOUT).await;
        ran.map_err(|error| Trouble {
            cause: chain(&error),
            output: String::from_utf8_lossy(&error.output).into_owned(),
        })
    }
}
