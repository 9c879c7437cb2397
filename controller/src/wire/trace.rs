//! What reports say for people only: times, curves, outputs.

use rota_proto::agent as wire;
use rota_rollout::names::Span;
use rota_rollout::node::Report;

use super::{OUTPUT_MAX, command_ended, output, plain, step};
use crate::engine::trace::{Printed, TraceRecord};

/// The most points of a curve, steps and outputs that are taken of one report. Agents send fewer.
const LIST_MAX: usize = 256;

/// What an attempt left behind; empty where the report has none of it.
pub fn trace(message: &wire::Report) -> TraceRecord {
    use wire::report::What;
    let mut trace = TraceRecord { attempt: message.attempt, ..TraceRecord::default() };
    match &message.what {
        Some(What::Joined(joined)) => measured(&mut trace, joined.measured.as_ref()),
        Some(What::Done(done)) => measured(&mut trace, done.measured.as_ref()),
        Some(What::Failed(failed)) => {
            measured(&mut trace, failed.measured.as_ref());
            trace.error = Some(failed.cause.clone());
            let what = step(failed.step).map_or("app".to_owned(), |step| step.to_string());
            print(&mut trace, &what, &failed.output);
            if !failed.restore_error.is_empty() {
                trace.printed.push(Printed {
                    what: "restore".to_owned(),
                    output: format!("the restore failed too: {}\n", failed.restore_error),
                    bytes: 0,
                });
            }
        }
        Some(What::Once(once)) => {
            trace.once = true;
            trace.exit_code = once.known.then_some(once.exit_code);
            trace.error = Some(once.cause.clone()).filter(|cause| !cause.is_empty());
            print(&mut trace, "once", &once.output);
        }
        Some(What::Ran(ran)) => {
            if !ran.output.is_empty() {
                let tail = &ran.output[ran.output.len().saturating_sub(OUTPUT_MAX)..];
                let (what, output) = ("command".to_owned(), plain(tail));
                trace.printed.push(Printed { what, output, bytes: ran.printed });
            }
            let by_itself = ran.known && ran.cause.is_empty();
            trace.exit_code = by_itself.then_some(ran.exit_code);
            trace.took = ran.known.then_some(Span(ran.took_ms));
            if let Report::Failed(failure) = command_ended(ran.clone()) {
                trace.error = Some(failure.text);
            }
        }
        Some(What::Prepared(_) | What::Step(_) | What::Broken(_) | What::Stale(_)) | None => {}
    }
    trace
}

fn print(trace: &mut TraceRecord, what: &str, bytes: &[u8]) {
    if !bytes.is_empty() {
        trace.printed.push(Printed { what: what.to_owned(), output: output(bytes), bytes: 0 });
    }
}

fn measured(trace: &mut TraceRecord, measured: Option<&wire::Measured>) {
    let Some(measured) = measured else { return };
    let steps = measured.steps.iter().take(LIST_MAX);
    trace.steps =
        steps.filter_map(|time| Some((step(time.step).ok()?, Span(time.took_ms)))).collect();
    let points = measured.in_flight.iter().take(LIST_MAX);
    trace.in_flight = points.map(|point| (point.at_ms, point.in_flight)).collect();
    trace.killed = measured.killed;
    trace.not_asked = measured.not_asked.iter().take(LIST_MAX).cloned().collect();
    for printed in measured.printed.iter().take(LIST_MAX) {
        print(trace, &printed.what, &printed.output);
    }
}
