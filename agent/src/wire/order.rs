//! Orders, directories and standings as they come in -> agent types, checked.

use std::time::Duration;

use rota_proto::agent as proto;

use super::field::{At, BadField};
use super::spec::spec;
use crate::order::{
    Banned, Command, Direction, Directory, Edge, OnFailure, Once, Order, Rollout, Standing,
    StartOrder, Update, Work,
};
use crate::spec::{Driver, Spec};

/// The most edges, controllers or digests in one message; far more than any fleet has.
const LIST_MAX: usize = 1000;

/// An order, checked. `default` is what runs apps when the release does not say.
pub fn order(order: proto::Order, default: Driver) -> Result<Order, BadField> {
    let at = At::root();
    let rollout: Rollout =
        order.rollout.parse().map_err(|cause| at.field("rollout").bad(format!("{cause}")))?;
    use proto::order::Work as Wire;
    // A settled rollout asks for nothing any more, so it has no attempt.
    let attempted = !matches!(order.work, Some(Wire::Settle(_)));
    for (name, zero) in [("term", order.term == 0), ("attempt", order.attempt == 0 && attempted)] {
        if zero {
            return Err(at.field(name).bad("is 0: it counts from 1"));
        }
    }
    let work = match at.field("work").present(order.work)? {
        Wire::Prepare(prepare) => {
            let at = at.field("prepare");
            Work::Prepare(Box::new(release(&at, prepare.release, &rollout, default)?))
        }
        Wire::Update(wire) => {
            Work::Update(Box::new(update(&at.field("update"), wire, &rollout, default)?))
        }
        Wire::Once(once) => {
            let at = at.field("once");
            Work::Once(Box::new(Once {
                release: release(&at, once.release, &rollout, default)?,
                command: at.field("command").argv(once.command)?,
                timeout: at.field("timeout_ms").nonzero_duration(once.timeout_ms)?,
            }))
        }
        Wire::Run(run) => {
            let at = at.field("run");
            Work::Run(Box::new(Command {
                argv: at.field("command").argv(run.command)?,
                timeout: at.field("timeout_ms").nonzero_duration(run.timeout_ms)?,
            }))
        }
        Wire::Settle(settle) => {
            let (at, at_keep) = (at.field("settle"), "keep");
            let at = at.field(at_keep);
            let digests = list(&at, settle.keep, |at, digest| at.digest(digest))?;
            // They are only compared with what is here.
            let keep = if settle.releases.is_empty() { digests } else { settle.releases };
            Work::Settle { keep }
        }
    };
    Ok(Order { term: order.term, rollout, attempt: order.attempt, work })
}

fn update(
    at: &At,
    update: proto::Update,
    rollout: &Rollout,
    default: Driver,
) -> Result<Update, BadField> {
    let direction = match update.direction() {
        proto::Direction::Forward => Direction::Forward,
        proto::Direction::Back => Direction::Back,
        proto::Direction::Restart => Direction::Restart,
        // prost gives the zero also for numbers that it does not know.
        proto::Direction::Unspecified => {
            let problem = format!("is {}: use FORWARD, BACK or RESTART", update.direction);
            return Err(at.field("direction").bad(problem));
        }
    };
    Ok(Update {
        release: release(at, update.release, rollout, default)?,
        direction,
        start_order: match update.start_first {
            true => StartOrder::StartFirst,
            false => StartOrder::StopFirst,
        },
        on_failure: match update.leave_on_failure {
            true => OnFailure::Leave,
            false => OnFailure::Restore,
        },
        monitor: at.field("monitor_ms").duration(update.monitor_ms)?,
        edges: list(&at.field("edges"), update.edges, edge)?,
    })
}

/// A release of the rollout's own app and environment.
fn release(
    at: &At,
    release: Option<proto::ReleaseSpec>,
    rollout: &Rollout,
    default: Driver,
) -> Result<Spec, BadField> {
    let at = at.field("release");
    let spec = spec(&at, at.present(release)?, default)?;
    for (name, here, there) in [("app", &spec.app, &rollout.app), ("env", &spec.env, &rollout.env)]
    {
        if here != there {
            let problem = format!("is {here:?}, but the rollout is {rollout}");
            return Err(at.field(name).bad(problem));
        }
    }
    Ok(spec)
}

fn list<T, U>(
    at: &At,
    items: Vec<T>,
    check: impl Fn(&At, T) -> Result<U, BadField>,
) -> Result<Vec<U>, BadField> {
    if items.len() > LIST_MAX {
        return Err(at.bad(format!("has {} entries: at most {LIST_MAX}", items.len())));
    }
    items.into_iter().map(|item| check(at, item)).collect()
}

fn edge(at: &At, edge: proto::Edge) -> Result<Edge, BadField> {
    Ok(Edge {
        name: at.field("name").label(edge.name)?,
        pool: at.field("pool").label(edge.pool)?,
        address: at.field("address").address(edge.address)?,
    })
}

/// The directory of the environment, checked.
pub fn directory(directory: proto::Directory) -> Result<Directory, BadField> {
    let at = At::root();
    Ok(Directory {
        controllers: list(&at.field("controllers"), directory.controllers, |at, text| {
            at.address(text)
        })?,
        edges: list(&at.field("edges"), directory.edges, edge)?,
        banned: directory.banned.into_iter().map(banned).collect(),
    })
}

/// Compared, and nothing else: what fits no certificate harms nobody.
fn banned(banned: proto::Banned) -> Banned {
    Banned { serial: banned.serial, node: banned.node, gone: banned.gone }
}

/// The node's standing; absent means that nothing special is wanted.
pub fn standing(standing: Option<proto::Standing>) -> Standing {
    match standing {
        Some(proto::Standing { drained: true }) => Standing::Drained,
        Some(proto::Standing { drained: false }) | None => Standing::Serving,
    }
}

/// The bounds of the heartbeat that a controller may ask for: faster is a flood, slower and a
/// silent agent would not be noticed within 15 s.
const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// The interval that the controller told, within bounds.
pub fn heartbeat(ms: u64) -> Duration {
    Duration::from_millis(ms).clamp(HEARTBEAT.0, HEARTBEAT.1)
}
