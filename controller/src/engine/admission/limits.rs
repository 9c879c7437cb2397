//! How long the parts of a rollout may take before they are a reason to hold: the manifest's timeouts, and slack.

use rota_rollout::names::Span;
use rota_rollout::rollout::Limits;

use crate::engine::records::ReleaseRecord;
use crate::manifest::{Resolved, Smoke, Via};

/// Beside what the manifest allows each step: for process starts, hooks' own limits and slow networks.
const UPDATE_SLACK: Span = Span::seconds(60);

/// Beside the manifest's timeouts, every hook may take so long.
const HOOK_LIMIT: Span = Span::seconds(600);

/// So long an agent waits at most until everyone who polls knows.
const POLLS_LIMIT: Span = Span::seconds(600);

/// To fetch, verify and unpack: so long in any case, and as long as a slow link (1 MiB/s) needs.
const PREPARE_LEAST: Span = Span::seconds(600);

/// How long each part may take: what the manifest allows the update and, after a failure, the restore.
pub(super) fn limits(resolved: &Resolved, release: &ReleaseRecord) -> Limits {
    let smoke = |smoke: &Smoke| smoke.timeout.0 * (u64::from(smoke.retries) + 1);
    let hooks = &resolved.hooks;
    let scripts = hooks.before_drain.len()
        + hooks.before_start.len()
        + hooks.after_join.len()
        + hooks.on_failure.len();
    let polls = match resolved.traffic.via {
        Via::Endpoint { .. } => 2 * POLLS_LIMIT.0,
        Via::Edge(_) | Via::Command(_) | Via::None => 0,
    };
    let once_through = resolved.traffic.drain_timeout.0
        + polls
        + resolved.run.stop_timeout.0
        + resolved.health.deadline.0
        + resolved.smoke.iter().map(smoke).sum::<u64>()
        + scripts as u64 * HOOK_LIMIT.0;
    Limits {
        prepare: Span(PREPARE_LEAST.0 + release.size / 1024),
        update: Span(2 * once_through + UPDATE_SLACK.0),
        monitor: Span(resolved.strategy.monitor.0 + once_through + UPDATE_SLACK.0),
        once: resolved
            .once
            .as_ref()
            .map_or(Span::ZERO, |once| Span(once.timeout.0 + UPDATE_SLACK.0)),
    }
}
