//! The live block on a terminal: what stands at this moment, redrawn in place.
//!
//! `block` is pure: a watch, a size and a time to lines. `Painter` turns lines into the bytes that
//! replace the block before, in one write, so that nothing flickers.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use rota_rollout::names::Timestamp;

use super::table::{Ink, Tone, fit, fit_name, state_words, tone_of, width, wrap};
use super::watch::{self, Watch};
use super::words;
use crate::view::{NodeProgress, RolloutView};

/// Wider terminals do not make the block wider: the eye would have to travel.
const COLUMNS_MAX: usize = 80;

/// More nodes than this are summarised, on however high a terminal.
const NODES_LISTED_MAX: usize = 20;

/// Longer names are shortened on the live screen, so that there is room for what happens.
const NAME_COLUMNS_MAX: usize = 30;

/// Lines that are left free below: for a notice, and for the cursor.
const ROWS_BELOW: usize = 2;

/// Lines of a hold, and of its hint: on a narrow terminal a sentence takes some.
const HOLD_LINES_MAX: usize = 3;

/// What the terminal is like now.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its columns and rows.
    pub size: (usize, usize),
    /// Colours or none.
    pub ink: Ink,
    /// Now, for durations.
    pub at: Timestamp,
    /// When the watching began.
    pub began: Timestamp,
    /// What is wrong with the watching itself; empty: nothing.
    pub notice: &'a str,
}

/// The whole block, a line each; none is wider than the terminal.
pub fn block(watch: &Watch, frame: Frame<'_>) -> Vec<String> {
    let columns = frame.size.0.min(COLUMNS_MAX);
    let mut lines = Vec::new();
    if let Some(view) = watch.view() {
        lines.extend(title(view, frame, columns));
        lines.push(bar(watch, view, frame, columns));
        lines.push(String::new());
        let below = waits(view, frame, columns);
        let rows = frame.size.1.saturating_sub(lines.len() + below.len() + ROWS_BELOW).max(1);
        if view.nodes.len() <= rows.min(NODES_LISTED_MAX) {
            lines.extend(node_lines(watch, view.nodes.iter(), frame, columns));
        } else {
            lines.extend(summary(watch, view, frame, (columns, rows)));
        }
        lines.extend(below);
    }
    if !frame.notice.is_empty() {
        lines.push(frame.ink.paint(Tone::Warn, &fit(frame.notice, columns)));
    }
    // What has scrolled away cannot be drawn over: on a tiny terminal the end is left out.
    lines.truncate(frame.size.1.saturating_sub(1));
    lines
}

/// What it waits for, unless that stops it for good: then it is said below the block.
fn waits(view: &RolloutView, frame: Frame<'_>, columns: usize) -> Vec<String> {
    let Some(hold) = watch::waiting(view).filter(|_| watch::exit_of(view).is_none()) else {
        return Vec::new();
    };
    let mut lines = vec![String::new()];
    for (head, text, tone) in
        [("waits: ", &hold.text, Tone::Warn), ("       ", &hold.hint, Tone::Dim)]
    {
        let words = format!("{head}{}", words::clean(text));
        let room = columns.saturating_sub(head.len()).max(10);
        let folded = wrap(words.trim_start_matches(head), room);
        for (at, line) in folded.lines().take(HOLD_LINES_MAX).enumerate() {
            let head = if at == 0 { head } else { "       " };
            let line = fit(&format!("{head}{}", line.trim_start()), columns);
            lines.push(frame.ink.paint(tone, &line));
        }
    }
    lines
}

/// `shop/prod/14  1.0.3 -> 1.1.0   rolling, batch 2 of 4      0:42`; two lines where one is too short.
fn title(view: &RolloutView, frame: Frame<'_>, columns: usize) -> Vec<String> {
    let from = view.from.as_ref().filter(|from| **from != view.to);
    let movement = match (view.kind.as_str(), from) {
        ("restart", _) => format!("restart of {}", view.to),
        (_, Some(from)) => format!("{from} -> {}", view.to),
        (_, None) => view.to.clone(),
    };
    let mut state = state_words(&view.state);
    if let Some((index, all)) = watch::batch(view).filter(|(_, all)| *all > 1) {
        write!(state, ", batch {index} of {all}").expect("strings take everything");
    }
    let ended = view.finished_at.as_deref().and_then(words::moment);
    let clock = words::clock(ended.unwrap_or(frame.at).since(frame.began));
    let left = fit(&format!("{}  {movement}", view.id), columns.saturating_sub(8));
    let room = columns.saturating_sub(width(&left) + width(&clock) + 4);
    let tone = tone_of(&view.state);
    let bold = frame.ink.paint(Tone::Bold, &left);
    if width(&state) > room {
        let gap = " ".repeat(columns.saturating_sub(width(&left) + width(&clock)));
        let state = frame.ink.paint(tone, &fit(&state, columns));
        return vec![format!("{bold}{gap}{clock}"), state];
    }
    let gap = columns.saturating_sub(width(&left) + 2 + width(&state) + width(&clock));
    vec![format!("{bold}  {}{}{clock}", frame.ink.paint(tone, &state), " ".repeat(gap))]
}

/// `[########x---------]  3 of 8 nodes   ETA 1:10`: how many run the release; an x stands for nodes that failed.
fn bar(watch: &Watch, view: &RolloutView, frame: Frame<'_>, columns: usize) -> String {
    let (ended, all) = (watch::finished(view), view.nodes.len());
    let digits = all.to_string().len();
    let eta = watch
        .remaining(frame.at)
        .map_or(String::new(), |left| format!("ETA {}", words::clock(left)));
    let run = view.count_on_release();
    let label = format!("{run:>digits$} of {}  {eta:>11}", words::count(all as u64, "node"));
    let room = columns.saturating_sub(width(&label) + 4);
    let filled = (room * ended).checked_div(all).unwrap_or(0);
    let failed = view.nodes.iter().filter(|n| matches!(n.state.as_str(), "failed" | "restored"));
    let crossed = (room * failed.count()).div_ceil(all.max(1)).min(filled);
    let done = frame.ink.paint(Tone::Good, &"#".repeat(filled - crossed));
    let crossed = frame.ink.paint(Tone::Bad, &"x".repeat(crossed));
    let open = frame.ink.paint(Tone::Dim, &"-".repeat(room - filled));
    format!("[{done}{crossed}{open}]  {label}").trim_end().to_owned()
}

/// A line a node, in columns.
fn node_lines<'a>(
    watch: &Watch,
    nodes: impl Iterator<Item = &'a NodeProgress> + Clone,
    frame: Frame<'_>,
    columns: usize,
) -> Vec<String> {
    let longest = nodes.clone().map(|node| width(&node.name)).max().unwrap_or(0);
    let name_width = longest.min(NAME_COLUMNS_MAX).min(columns.saturating_sub(17)).max(1);
    nodes
        .map(|node| {
            let word = match (node.state.as_str(), node.doing()) {
                ("updating", Some(step)) => step.to_owned(),
                (state, _) => state_words(state),
            };
            let name = fit_name(&node.name, name_width);
            let head = format!("  {name:name_width$}  ");
            let room = columns.saturating_sub(width(&head) + 13);
            let detail = detail(watch, node, frame.at);
            let short = detail.replace("out of traffic", "out");
            let detail = fit(if width(&detail) > room { &short } else { &detail }, room);
            let painted = frame.ink.paint(tone_of(&node.state), &format!("{word:<11}"));
            let line = format!("{head}{painted}  {detail}");
            if detail.is_empty() && frame.ink == Ink::Plain {
                line.trim_end().to_owned()
            } else {
                line
            }
        })
        .collect()
}

/// In flight while it drains, the time out of traffic, the cause of a failure.
fn detail(watch: &Watch, node: &NodeProgress, at: Timestamp) -> String {
    if node.state != "updating" {
        return watch::node_detail(node);
    }
    let mut parts = Vec::new();
    if node.doing() == Some("drain") {
        parts.push(format!("{} in flight", node.in_flight));
    }
    if let Some(out) = watch.out_of_traffic(node, at) {
        parts.push(format!("out of traffic {}", words::span(out)));
    }
    if node.attempt > 1 {
        parts.push(format!("attempt {}", node.attempt));
    }
    parts.join(", ")
}

/// Counts for each state, then as many single nodes as fit, the failing ones first.
fn summary(
    watch: &Watch,
    view: &RolloutView,
    frame: Frame<'_>,
    (columns, rows): (usize, usize),
) -> Vec<String> {
    const ORDER: [&str; 7] =
        ["failed", "restored", "updating", "done", "rolled_back", "skipped", "pending"];
    let digits = view.nodes.len().to_string().len();
    let mut lines = Vec::new();
    for state in ORDER {
        let count = view.nodes.iter().filter(|node| node.state == state).count();
        if count == 0 {
            continue;
        }
        let steps = if state == "updating" { steps(view) } else { String::new() };
        let word = frame.ink.paint(tone_of(state), &format!("{:<11}", state_words(state)));
        let line = format!("  {word}  {count:>digits$}");
        let room = columns.saturating_sub(17 + digits);
        if steps.is_empty() {
            lines.push(line);
        } else {
            lines.push(format!("{line}  {}", fit(&steps, room)));
        }
    }
    let room = rows.saturating_sub(lines.len() + 1).min(NODES_LISTED_MAX);
    let rank = |node: &NodeProgress| ORDER[..3].iter().position(|state| *state == node.state);
    let mut shown: Vec<&NodeProgress> =
        view.nodes.iter().filter(|node| rank(node).is_some()).collect();
    // The slow ones before those that have just begun.
    let out = |node: &NodeProgress| watch.out_of_traffic(node, frame.at);
    shown.sort_by_key(|node| (rank(node), Reverse(out(node))));
    shown.truncate(room);
    if !shown.is_empty() {
        lines.push(String::new());
        lines.extend(node_lines(watch, shown.into_iter(), frame, columns));
    }
    lines
}

/// `drain 20, health 12, monitor 18`, in the order of the steps.
fn steps(view: &RolloutView) -> String {
    const STEPS: [&str; 9] =
        ["fetch", "drain", "stop", "swap", "start", "health", "smoke", "join", "monitor"];
    let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
    for node in view.nodes.iter().filter(|node| node.state == "updating") {
        let step = node.doing().unwrap_or_default();
        if let Some(at) = STEPS.iter().position(|known| *known == step) {
            *counts.entry(at).or_default() += 1;
        }
    }
    let parts: Vec<String> =
        counts.iter().map(|(at, count)| format!("{} {count}", STEPS[*at])).collect();
    parts.join(", ")
}

/// Replaces the block drawn before by the next one.
#[derive(Debug, Default)]
pub struct Painter {
    drawn: Vec<usize>,
}

impl Painter {
    /// The bytes that draw these lines over the block before. The terminal's present width says
    /// how many rows the old lines take by now, should it have been made narrower.
    pub fn paint(&mut self, lines: &[String], columns: usize) -> String {
        let above: usize = self.drawn.iter().map(|w| w.div_ceil(columns.max(1)).max(1)).sum();
        // A terminal that knows synchronised updates shows all of it at once; others ignore it.
        let mut bytes = String::from("\x1b[?2026h");
        if above > 0 {
            write!(bytes, "\r\x1b[{above}A").expect("strings take everything");
        }
        for line in lines {
            bytes.push_str(line);
            bytes.push_str("\x1b[K\n");
        }
        bytes.push_str("\x1b[J\x1b[?2026l");
        self.drawn = lines.iter().map(|line| width(line)).collect();
        bytes
    }
}

#[cfg(test)]
mod tests;
