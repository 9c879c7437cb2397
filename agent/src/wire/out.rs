//! Reports and inventories, agent types -> proto.

use rota_proto::agent as proto;

use super::field::BadField;
use crate::report::{
    App, Failed, Happening, Left, Measured, OUTPUT_MAX, Once, Piece, Report, Step, What,
};

/// The most of a bad order's rollout that is repeated in the answer, in bytes.
const ECHO_MAX: usize = 200;

/// A report for the wire.
pub fn report(report: &Report) -> proto::Report {
    use proto::report::What as Wire;
    let what = match &report.what {
        What::Prepared => Wire::Prepared(proto::Prepared {}),
        What::Step { step: began, in_flight } => {
            Wire::Step(proto::StepBegan { step: step(*began).into(), in_flight: *in_flight })
        }
        What::Joined(cost) => Wire::Joined(proto::Joined { measured: Some(measured(cost)) }),
        What::Done(cost) => Wire::Done(proto::Done { measured: Some(measured(cost)) }),
        What::Failed(why) => Wire::Failed(failed(why)),
        What::Once(ended) => Wire::Once(once(ended)),
        What::Ran { ended, took_ms, printed } => {
            Wire::Ran(proto::RunEnded { took_ms: *took_ms, printed: *printed, ..ran(ended) })
        }
        What::Broken { cause, output } => {
            Wire::Broken(proto::Broken { cause: cause.clone(), output: tail(output) })
        }
        What::Stale { newest_term } => Wire::Stale(proto::StaleOrder { newest_term: *newest_term }),
    };
    proto::Report {
        seq: report.seq,
        rollout: report.rollout.to_string(),
        attempt: report.attempt,
        at_ms: report.at_ms,
        what: Some(what),
    }
}

/// The answer to an order that failed its checks. It has the number 0, because it is in no
/// journal: whoever repeats the order gets the same answer again.
pub fn refusal(rollout: &str, attempt: u32, why: &BadField, at_ms: u64) -> proto::Report {
    let cut = rollout.floor_char_boundary(ECHO_MAX);
    proto::Report {
        seq: 0,
        rollout: rollout[..cut].to_owned(),
        attempt,
        at_ms,
        what: Some(proto::report::What::Failed(proto::Failed {
            step: proto::Step::Fetch.into(),
            cause: why.to_string(),
            left: proto::Left::Untouched.into(),
            ..proto::Failed::default()
        })),
    }
}

/// The last [`OUTPUT_MAX`] bytes.
fn tail(output: &[u8]) -> Vec<u8> {
    output[output.len().saturating_sub(OUTPUT_MAX)..].to_vec()
}

fn step(step: Step) -> proto::Step {
    match step {
        Step::Fetch => proto::Step::Fetch,
        Step::Drain => proto::Step::Drain,
        Step::Stop => proto::Step::Stop,
        Step::Swap => proto::Step::Swap,
        Step::Start => proto::Step::Start,
        Step::Health => proto::Step::Health,
        Step::Smoke => proto::Step::Smoke,
        Step::Join => proto::Step::Join,
        Step::Monitor => proto::Step::Monitor,
        Step::Restore => proto::Step::Restore,
    }
}

fn measured(measured: &Measured) -> proto::Measured {
    let times = measured.steps.iter();
    proto::Measured {
        out_of_traffic_ms: measured.out_of_traffic_ms,
        in_flight_at_drain: measured.in_flight_at_drain,
        cut: measured.cut,
        killed: measured.killed,
        kept_out: measured.kept_out,
        steps: times
            .map(|(name, took_ms)| proto::StepTime { step: step(*name).into(), took_ms: *took_ms })
            .collect(),
        in_flight: measured
            .in_flight
            .iter()
            .map(|(at_ms, in_flight)| proto::Point { at_ms: *at_ms, in_flight: *in_flight })
            .collect(),
        printed: measured
            .printed
            .iter()
            .map(|it| proto::Printed { what: it.what.clone(), output: it.output.clone() })
            .collect(),
        not_asked: measured.not_asked.clone(),
    }
}

fn failed(failed: &Failed) -> proto::Failed {
    let left = match failed.left {
        Left::Restored => proto::Left::Restored,
        Left::Out => proto::Left::Out,
        Left::Untouched => proto::Left::Untouched,
    };
    proto::Failed {
        step: step(failed.step).into(),
        cause: failed.cause.clone(),
        output: tail(&failed.output),
        left: left.into(),
        restore_error: failed.restore_error.clone().unwrap_or_default(),
        measured: Some(measured(&failed.measured)),
        release: failed.release.clone().unwrap_or_default(),
    }
}

/// What `timeout` answers for a command that it ended: for controllers that read no cause.
const FAILED: i32 = 124;

fn once(once: &Once) -> proto::OnceEnded {
    let (exit_code, output, cause) = match once {
        Once::Exited { code, output } => (*code, output.as_slice(), ""),
        Once::Failed { cause, output } => (FAILED, output.as_slice(), cause.as_str()),
        Once::Unknown { output } => (0, output.as_slice(), ""),
    };
    proto::OnceEnded {
        started: true,
        known: !matches!(once, Once::Unknown { .. }),
        exit_code,
        output: tail(output),
        cause: cause.to_owned(),
    }
}

fn ran(ended: &Once) -> proto::RunEnded {
    let proto::OnceEnded { known, exit_code, output, cause, .. } = once(ended);
    proto::RunEnded { known, exit_code, output, cause, ..proto::RunEnded::default() }
}

/// A piece of a command's output, for the wire.
pub fn piece(piece: Piece) -> proto::Output {
    let Piece { rollout, attempt, offset, data } = piece;
    proto::Output { rollout: rollout.to_string(), attempt, offset, data }
}

/// What happened without an order, for the wire.
pub fn happening(happening: Happening) -> proto::Happening {
    let Happening { app, text } = happening;
    proto::Happening { app, text }
}

/// What this node has, for the wire.
pub fn inventory(apps: &[App]) -> proto::Inventory {
    proto::Inventory { apps: apps.iter().map(app).collect() }
}

/// One app of the inventory.
pub fn app(app: &App) -> proto::App {
    let (version, digest) = app.release.clone().unwrap_or_default();
    proto::App {
        app: app.app.clone(),
        version,
        digest,
        health: app.health.to_string(),
        traffic: app.traffic.to_string(),
        in_flight: u32::try_from(app.in_flight).unwrap_or(u32::MAX),
        port: app.port.map_or(0, u32::from),
        pool: app.pool.clone().unwrap_or_default(),
        step: app.step.map(|step| step.to_string()).unwrap_or_default(),
    }
}
