//! The page's drawings: plain SVG, made of numbers only.

use std::fmt::Write as _;

use rota_rollout::names::Span;

use super::story::Story;
use crate::view::{BatchView, PointView, StepTimeView};
use crate::words;

/// Columns of a wide drawing.
const WIDE: f64 = 1000.0;

/// Batches that have a bar of their own; a fleet of thousands in batches of one has no use for more.
const BATCHES_MAX: usize = 40;

/// Changes of the capacity that are drawn.
const CHANGES_MAX: usize = 2_000;

const INK: &str = "#2458b8";

/// What a step is drawn in: quiet for what serves, loud for what does not.
fn colour(step: &str) -> &'static str {
    match step {
        "fetch" => "#8a94a3",
        "drain" => "#2458b8",
        "stop" => "#b3541e",
        "swap" => "#7a4fb5",
        "start" => "#b58a1e",
        "health" => "#1a7f4b",
        "smoke" => "#14706e",
        "join" => "#3d6fd1",
        "restore" => "#b3261e",
        _ => "#aab3be",
    }
}

fn tone(state: &str) -> &'static str {
    match state {
        "done" => "#1a7f4b",
        "failed" => "#b3261e",
        "running" => INK,
        _ => "#aab3be",
    }
}

fn ms(ms: u64) -> String {
    words::span(Span(ms))
}

/// A drawing of this height, with a title for who cannot see it.
fn svg(height: f64, title: &str, inside: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDE} {height}\" width=\"100%\" role=\"img\" \
         aria-label=\"{title}\">{inside}</svg>"
    )
}

/// The line of time below a drawing.
fn axis(text: &mut String, y: f64, left: f64, length: u64) {
    for part in 0..=4_u32 {
        let x = left + (WIDE - left - 40.0) * f64::from(part) / 4.0;
        let label = ms(length * u64::from(part) / 4);
        write!(
            text,
            "<line x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke=\"#e6e9ee\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            y + 14.0
        )
        .expect("strings take everything");
    }
}

/// The batches as bars over time.
pub(super) fn batches(story: &Story, batches: &[BatchView]) -> String {
    const ROW: f64 = 22.0;
    const LEFT: f64 = 130.0;
    let shown = &batches[..batches.len().min(BATCHES_MAX)];
    let height = ROW * shown.len() as f64;
    let mut inside = String::new();
    axis(&mut inside, height, LEFT, story.length);
    let x = |at: u64| LEFT + (WIDE - LEFT - 40.0) * at as f64 / story.length as f64;
    for (row, batch) in shown.iter().enumerate() {
        let y = ROW * row as f64;
        let label = format!("{} · {}", batch.index, words::count(batch.nodes.len() as u64, "node"));
        write!(inside, "<text x=\"0\" y=\"{:.1}\">{label}</text>", y + 15.0)
            .expect("strings take everything");
        let Some(stretch) = story.batch(&batch.nodes) else { continue };
        let (from, to) = (x(stretch.from), x(stretch.to));
        let took = ms(stretch.to - stretch.from);
        let label = match to + 70.0 < WIDE {
            true => format!("<text x=\"{:.1}\" y=\"{:.1}\">{took}</text>", to + 6.0, y + 15.0),
            // No room behind it: before it, there is always some.
            false => format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{took}</text>",
                from - 6.0,
                y + 15.0
            ),
        };
        write!(
            inside,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\" \
             fill=\"{}\"/>{label}",
            y + 3.0,
            (to - from).max(2.0),
            ROW - 7.0,
            tone(&batch.state),
        )
        .expect("strings take everything");
    }
    svg(height + 18.0, "Batches over time", &inside)
}

/// How many batches have no bar.
pub(super) fn batches_left_out(batches: &[BatchView]) -> usize {
    batches.len().saturating_sub(BATCHES_MAX)
}

/// How many targets were in traffic over time.
pub(super) fn capacity(story: &Story, targets: usize, least: usize) -> String {
    const HEIGHT: f64 = 120.0;
    const LEFT: f64 = 50.0;
    let mut inside = String::new();
    axis(&mut inside, HEIGHT, LEFT, story.length);
    let x = |at: u64| LEFT + (WIDE - LEFT - 40.0) * at as f64 / story.length as f64;
    let y = |serving: usize| HEIGHT - (HEIGHT - 12.0) * serving as f64 / targets.max(1) as f64;
    let mut path = String::new();
    let mut last = story.capacity.first().map_or(targets, |(_, first)| *first);
    let thin = story.capacity.len().div_ceil(CHANGES_MAX).max(1);
    for (at, serving) in story.capacity.iter().step_by(thin) {
        let begin = if path.is_empty() { "M" } else { "L" };
        write!(path, "{begin}{:.1} {:.1}L{0:.1} {:.1}", x(*at), y(last), y(*serving))
            .expect("strings take everything");
        last = *serving;
    }
    write!(path, "L{:.1} {:.1}", x(story.length), y(last)).expect("strings take everything");
    let floor = y(least);
    write!(
        inside,
        "<path d=\"{path}L{:.1} {HEIGHT}L{LEFT} {HEIGHT}Z\" fill=\"#2458b8\" \
         fill-opacity=\".12\"/><path d=\"{path}\" fill=\"none\" stroke=\"{INK}\" \
         stroke-width=\"1.6\"/><line x1=\"{LEFT}\" y1=\"{floor:.1}\" x2=\"{:.1}\" \
         y2=\"{floor:.1}\" stroke=\"#b3261e\" stroke-dasharray=\"4 3\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{targets}</text>",
        x(story.length),
        WIDE - 40.0,
        LEFT - 8.0,
        y(targets) + 4.0
    )
    .expect("strings take everything");
    if least != targets {
        write!(
            inside,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{least}</text>",
            LEFT - 8.0,
            floor + 4.0
        )
        .expect("strings take everything");
    }
    svg(HEIGHT + 18.0, "Targets in traffic over time", &inside)
}

/// The steps of an attempt, each as wide as it took.
pub(super) fn steps(steps: &[StepTimeView]) -> String {
    let all: u64 = steps.iter().map(|step| step.took_ms).sum();
    let bar = |step: &StepTimeView| {
        let share = 100.0 * step.took_ms as f64 / all.max(1) as f64;
        let label = if share > 7.0 { step.step.as_str() } else { "" };
        format!(
            "<span style=\"width:{share:.2}%;background:{}\" title=\"{} {}\">{label}</span>",
            colour(&step.step),
            step.step,
            ms(step.took_ms)
        )
    };
    format!("<div class=\"steps\">{}</div>", steps.iter().map(bar).collect::<String>())
}

/// What was in flight from the drain's begin until the node was back.
pub(super) fn curve(points: &[PointView]) -> String {
    const WIDTH: f64 = 320.0;
    const HEIGHT: f64 = 64.0;
    let most = points.iter().map(|point| point.in_flight).max().unwrap_or(0);
    let length = points.last().map_or(1, |point| point.at_ms).max(1);
    let x = |at: u64| 34.0 + (WIDTH - 40.0) * at as f64 / length as f64;
    let y = |n: u64| HEIGHT - (HEIGHT - 12.0) * n as f64 / most.max(1) as f64;
    let mut path = String::new();
    let mut last = points.first().map_or(0, |point| point.in_flight);
    for point in points {
        let begin = if path.is_empty() { "M" } else { "L" };
        write!(
            path,
            "{begin}{:.1} {:.1}L{0:.1} {:.1}",
            x(point.at_ms),
            y(last),
            y(point.in_flight)
        )
        .expect("strings take everything");
        last = point.in_flight;
    }
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" width=\"{WIDTH}\" role=\"img\" aria-label=\"Requests in \
         flight over time\"><line x1=\"34\" y1=\"{HEIGHT}\" x2=\"{:.1}\" y2=\"{HEIGHT}\" \
         stroke=\"#d9dee5\"/><path d=\"{path}\" fill=\"none\" stroke=\"{INK}\" \
         stroke-width=\"1.6\"/><text x=\"28\" y=\"16\" text-anchor=\"end\">{most}</text>\
         <text x=\"28\" y=\"{HEIGHT}\" text-anchor=\"end\">0</text><text x=\"{:.1}\" y=\"{:.1}\" \
         text-anchor=\"end\">{}</text></svg>",
        HEIGHT + 16.0,
        WIDTH - 6.0,
        WIDTH - 6.0,
        HEIGHT + 13.0,
        ms(length)
    )
}
