//! A rollout in full as text: below the tables a paragraph for each node, with its steps, its curve and its outputs.

use std::fmt::Write as _;

use rota_rollout::names::Span;

use super::{Dossier, by_interest};
use crate::cli::render;
use crate::cli::talk::Page;
use crate::view::{NodeProgress, PointView, TraceView, wrapped};
use crate::words;

/// Nodes that have a paragraph of their own; those that failed come first, and `-o json` has all.
const NODES_MAX: usize = 30;

/// Lines of one output that are shown; `-o json` and the page have all of it.
const LINES_MAX: usize = 40;

/// Columns of a paragraph, whatever the terminal has.
const COLUMNS: usize = 80;

/// Places of a curve.
const SPARKS: usize = 24;

/// The whole.
pub(super) fn text(dossier: &Dossier, page: &Page) -> String {
    let mut view = dossier.view.clone();
    for node in &mut view.nodes {
        node.output = dossier.untold(node).map(str::to_owned); // the rest stands in the paragraphs
    }
    let mut text = render::rollout_in_full(&view, page);
    let nodes = by_interest(&dossier.view);
    let mut shown = 0;
    let mut left = 0;
    for node in nodes {
        let traces: Vec<&TraceView> = dossier.of(&node.name).collect();
        if traces.is_empty() {
            continue;
        }
        if shown == NODES_MAX {
            left += 1;
            continue;
        }
        shown += 1;
        for trace in traces {
            text.push_str(&paragraph(node, trace));
        }
    }
    if left > 0 {
        writeln!(text, "\nand {} more: `-o json` has all", words::count(left as u64, "node"))
            .expect("strings take everything");
    }
    text
}

fn paragraph(node: &NodeProgress, trace: &TraceView) -> String {
    let what = if trace.once { "once-per-release job, attempt" } else { "attempt" };
    let mut text = format!("\n{} {what} {}\n", node.name, trace.attempt);
    let mut fact = |label: &str, value: &str| {
        for (index, line) in wrapped(value, COLUMNS - 14).iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            writeln!(text, "  {label:<10}  {line}").expect("strings take everything");
        }
    };
    let step = |step: &crate::view::StepTimeView| {
        format!("{} {}", step.step, words::span(Span(step.took_ms)))
    };
    let steps: Vec<String> = trace.steps.iter().map(step).collect();
    if !steps.is_empty() {
        fact("steps", &steps.join("; "));
    }
    if let Some(curve) = curve(trace, node) {
        fact("in flight", &curve);
    }
    if trace.killed {
        fact("stop", "it did not end within its stop_timeout and was killed");
    }
    if let Some(took) = trace.took_ms {
        fact("took", &words::span(Span(took)));
    }
    if let Some(code) = trace.exit_code {
        fact("exit code", &code.to_string());
    }
    if let Some(error) = &trace.error {
        fact("error", &words::clean(error));
    }
    for printed in &trace.outputs {
        writeln!(text, "  {}:", printed.headline()).expect("strings take everything");
        let lines: Vec<&str> = printed.output.lines().collect();
        let left_out = lines.len().saturating_sub(LINES_MAX);
        if left_out > 0 {
            writeln!(text, "  | ... {} before", words::count(left_out as u64, "line"))
                .expect("strings take everything");
        }
        for line in &lines[left_out..] {
            writeln!(text, "  | {}", words::clean(line)).expect("strings take everything");
        }
    }
    text
}

/// `14 requests  █▆▄▂▁_  drained after 212 ms; 0 cut`.
fn curve(trace: &TraceView, node: &NodeProgress) -> Option<String> {
    let most = trace.in_flight.iter().map(|point| point.in_flight).max()?;
    let drained = trace.in_flight.iter().find(|point| point.in_flight == 0)?;
    let took = words::span(Span(drained.at_ms));
    let cut = words::thousands(node.cut);
    if most == 0 {
        return Some(format!("none, drained after {took}; {cut} cut"));
    }
    let line = sparkline(&trace.in_flight, drained.at_ms);
    Some(format!("{} at most {line} drained after {took}; {cut} cut", words::thousands(most)))
}

/// What was in flight until a moment, in as many places.
pub(super) fn sparkline(points: &[PointView], until: u64) -> String {
    const BARS: [char; 9] = ['_', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = points.iter().map(|point| point.in_flight).max().unwrap_or(0).max(1);
    let at = |place: usize| {
        let moment = until * place as u64 / (SPARKS as u64 - 1);
        let before = points.iter().take_while(|point| point.at_ms <= moment).last();
        let in_flight = before.or(points.first()).map_or(0, |point| point.in_flight);
        BARS[usize::try_from((in_flight * 8).div_ceil(most)).unwrap_or(8).min(8)]
    };
    (0..SPARKS).map(at).collect()
}
