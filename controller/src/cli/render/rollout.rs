//! Rollouts, their plans and their history as text.

use std::fmt::Write as _;

use rota_rollout::names::Span;

use super::{facts, folded, foreign, listing};
use crate::cli::table::{Cell, Table, fit_name, state_words, tone_of};
use crate::cli::talk::Page;
use crate::cli::{ending, watch, words};
use crate::view::{HistoryEntry, NodeProgress, RolloutView};

/// Nodes that are listed on however low a terminal.
const NODES_LISTED_MIN: usize = 24;

/// The table of `rota rollout ls` and `rota status`.
pub fn rollouts(rollouts: &[RolloutView], page: &Page) -> String {
    let mut table =
        Table::new(&["ID", "RELEASE", "STATE", ">NODES", "STARTED", "WHY"]).sparing(&["STARTED"]);
    for rollout in rollouts {
        let why = why(rollout);
        table.row([
            Cell::from(rollout.id.as_str()),
            Cell::from(movement(rollout)),
            Cell::state(&rollout.state),
            Cell::from(format!("{}/{}", rollout.on_release, rollout.evidence.targets)),
            Cell::from(words::ago(&rollout.started_at, page.now)),
            foreign(&why),
        ]);
    }
    table.text(page.ink, page.columns)
}

/// Why it does not move; else why it was started.
fn why(rollout: &RolloutView) -> String {
    match (&rollout.paused, &rollout.hold) {
        (Some(by), _) => format!("by {by}"),
        (None, Some(hold)) => hold.text.clone(),
        (None, None) => rollout.message.clone(),
    }
}

/// `1.0.3 -> 1.1.0`.
pub fn movement(rollout: &RolloutView) -> String {
    match &rollout.from {
        Some(from) if *from != rollout.to => format!("{from} -> {}", rollout.to),
        Some(_) | None => rollout.to.clone(),
    }
}

/// `rota rollout history`.
pub(super) fn history(entries: &[HistoryEntry], page: &Page) -> String {
    let mut table = Table::new(&[">REV", "RELEASE", "STATE", "STARTED", "TOOK", "BY", "WHY"])
        .sparing(&["TOOK", "BY"]);
    for entry in entries {
        let end = entry.finished_at.as_deref().and_then(words::moment);
        let took = end.zip(words::moment(&entry.started_at));
        let release = match entry.kind.as_str() {
            "undo" | "restart" => format!("{} ({})", entry.release, entry.kind),
            _ => entry.release.clone(),
        };
        let took = took.map(|(end, start)| words::span(end.since(start)));
        table.row([
            Cell::from(entry.revision.to_string()),
            Cell::from(release.as_str()),
            Cell::state(&entry.state),
            Cell::from(words::date(&entry.started_at)),
            Cell::or_dash(took.as_deref()),
            Cell::or_dash(Some(&entry.who)),
            foreign(&why_then(entry)),
        ]);
    }
    table.text(page.ink, page.columns)
}

/// What was run, and why it was done.
fn why_then(entry: &HistoryEntry) -> String {
    let why = match (&entry.command, entry.message.as_str()) {
        (None, message) => message.to_owned(),
        (Some(command), "") => format!("run: {command}"),
        (Some(command), message) => format!("{message} (run: {command})"),
    };
    match &entry.break_glass {
        None => why,
        Some(by) => format!("{why} (glass broken by {by})"),
    }
}

/// `rota rollout status`: the rollout, what it waits for, its nodes, its evidence.
pub fn rollout(rollout: &RolloutView, page: &Page) -> String {
    let mut text = rollout_head(rollout, page);
    text.push('\n');
    text.push_str(&progress(rollout, page));
    for node in ending::failed(rollout) {
        let cause = words::clean(node.error.as_deref().unwrap_or_default());
        let printed = output(node, &ending::output_tail(node));
        // Whole, where the table had to shorten it.
        match text.contains(&cause) {
            true => text.push_str(&printed),
            false => {
                let columns = page.columns.unwrap_or(usize::MAX).saturating_sub(2);
                let named = format!("{}: {cause}", fit_name(&node.name, columns));
                let lines = folded(&named, Some(columns)).join("\n  ");
                writeln!(text, "\n{lines}").expect("strings take everything");
                text.push_str(printed.trim_start_matches('\n'));
            }
        }
    }
    text.push_str(&evidence(rollout, page));
    text
}

/// What was measured, below everything else.
fn evidence(view: &RolloutView, page: &Page) -> String {
    let lines = ending::evidence(view, page.now, ending::EVIDENCE_COLUMNS);
    let lines = lines.iter().flat_map(|line| folded(line, page.columns));
    lines.fold("\n".to_owned(), |text, line| text + &line + "\n")
}

/// The table of the nodes.
fn progress(rollout: &RolloutView, page: &Page) -> String {
    let mut table =
        Table::new(&["NODE", "STATE", "STEP", "RELEASE", ">IN FLIGHT", ">OUT OF TRAFFIC", "NOTE"])
            .sparing(&["IN FLIGHT", "STEP", "RELEASE"]);
    // On a terminal, those that somebody may want to see come first, and the rest is counted.
    let mut nodes: Vec<&NodeProgress> = rollout.nodes.iter().collect();
    let listed = page.rows.map_or(usize::MAX, |rows| rows.max(NODES_LISTED_MIN));
    if nodes.len() > listed {
        nodes.sort_by_key(|node| match node.state.as_str() {
            "failed" | "restored" => 0,
            "updating" => 1,
            _ => 2,
        });
    }
    let left_out = nodes.split_off(nodes.len().min(listed));
    for node in nodes {
        let out = (node.out_of_traffic_ms > 0).then(|| words::span(Span(node.out_of_traffic_ms)));
        let draining = node.doing() == Some("drain");
        let in_flight = draining.then(|| words::thousands(node.in_flight));
        table.row([
            Cell::from(node.name.as_str()),
            Cell::state(&node.state),
            Cell::or_dash(node.doing()),
            Cell::or_dash(node.release.as_deref()),
            Cell::or_dash(in_flight.as_deref()),
            Cell::or_dash(out.as_deref()),
            foreign(node.error.as_deref().unwrap_or_default()),
        ]);
    }
    let mut text = listing(&table, page, "no node is a target");
    if !left_out.is_empty() {
        let (more, id) = (watch::counts(left_out.into_iter()), &rollout.id);
        let line = format!("and {more}: `rota rollout status {id} | less` lists them");
        writeln!(text, "{}", folded(&line, page.columns).join("\n"))
            .expect("strings take everything");
    }
    text
}

fn rollout_head(rollout: &RolloutView, page: &Page) -> String {
    let state = state_words(&rollout.state);
    let mut state = page.ink.paint(tone_of(&rollout.state), &state);
    if let Some(by) = &rollout.paused {
        write!(state, " by {}", words::clean(by)).expect("strings take everything");
    }
    if let Some((index, all)) = watch::batch(rollout) {
        write!(state, ", batch {index} of {all}").expect("strings take everything");
    }
    if let Some(rehearsal) = rollout.rehearsal.as_deref().and_then(rehearsal) {
        write!(state, ", {rehearsal}").expect("strings take everything");
    }
    let owner = match rollout.finished_at {
        Some(_) => String::new(),
        None => format!("{} (term {})", rollout.controller, rollout.term),
    };
    let (hold, glass) = (rollout.hold.as_ref(), rollout.break_glass.as_ref());
    let since = |since: &str| words::ago(since, page.now);
    let started = format!("{} by {}", words::date(&rollout.started_at), rollout.who);
    facts(
        page,
        &[
            ("rollout", rollout.id.clone()),
            ("release", movement(rollout)),
            ("kind", if rollout.kind == "deploy" { String::new() } else { rollout.kind.clone() }),
            ("command", rollout.command.as_deref().map(words::clean).unwrap_or_default()),
            ("state", state),
            ("waits", hold.map_or(String::new(), |hold| words::clean(&hold.text))),
            ("since", hold.map_or(String::new(), |hold| since(&hold.since))),
            ("hint", hold.map_or(String::new(), |hold| words::clean(&hold.hint))),
            ("why", words::clean(&rollout.message)),
            ("glass", glass.map_or(String::new(), |by| format!("broken by {}", words::clean(by)))),
            ("started", started),
            ("ended", rollout.finished_at.as_deref().map(words::date).unwrap_or_default()),
            ("controller", owner),
        ],
    )
}

/// What the rehearsal of the way back is at; `None` when there is nothing more to say.
fn rehearsal(word: &str) -> Option<&'static str> {
    match word {
        "forward" => Some("the way back is rehearsed next"),
        "back" => Some("rehearsal: the way back"),
        "again" => Some("rehearsal: forward again"),
        "waived" => Some("without a way back that was rehearsed"),
        _ => None,
    }
}

/// A node's output, indented.
fn output(node: &NodeProgress, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let attempt = if node.attempt > 1 && node.state != "rolled_back" {
        format!(" in attempt {}", node.attempt)
    } else {
        String::new()
    };
    let mut text = format!("\n{} printed{attempt}:\n", node.name);
    for line in lines {
        writeln!(text, "  | {line}").expect("strings take everything");
    }
    text
}

/// `rota rollout inspect`: all of it, with the batches and the whole output.
pub fn rollout_in_full(view: &RolloutView, page: &Page) -> String {
    let mut text = rollout_head(view, page);
    text.push('\n');
    text.push_str(&progress(view, page));
    let mut table = Table::new(&[">BATCH", "STATE", "NODES"]);
    for batch in &view.batches {
        table.row([
            Cell::from(batch.index.to_string()),
            Cell::state(&batch.state),
            Cell::from(batch.nodes.join(" ")),
        ]);
    }
    text.push('\n');
    text.push_str(&listing(&table, page, "no batch is planned yet"));
    for node in &view.nodes {
        let printed = node.output.as_deref().unwrap_or_default();
        let lines: Vec<String> = printed.lines().map(words::clean).collect();
        text.push_str(&output(node, &lines));
    }
    text.push_str(&evidence(view, page));
    text
}
