//! How a rollout ended or stopped, in words: the outcome, its evidence, and for a stop its causes,
//! what stands now and what to do.

use rota_rollout::names::Timestamp;

use super::outcome::{Exit, Failure};
use super::table::state_words;
use super::watch;
use super::words;
use crate::view::{NodeProgress, RolloutView, evidence_line, wrapped};

/// Failed nodes whose causes are printed; `rota rollout inspect` shows all.
const CAUSES_MAX: usize = 3;

/// Lines of a failed node's output that are printed: the newest, so that the cause is on screen.
const OUTPUT_LINES_MAX: usize = 12;

/// Columns of one line of output; a minified stack trace must not fill the screen.
const OUTPUT_COLUMNS_MAX: usize = 200;

/// The columns that the evidence fits into, wherever it is read.
pub const EVIDENCE_COLUMNS: usize = 80;

/// The outcome in one line, for whatever state it is in.
pub fn headline(view: &RolloutView) -> String {
    let RolloutView { id, to, .. } = view;
    let (done, all) = (view.count_on_release(), view.nodes.len());
    let verb = match view.kind.as_str() {
        "restart" => "restarted on",
        "run" => "ran the command on",
        _ => "run",
    };
    let nodes = if all == 1 { "node" } else { "nodes" };
    let hold = view.hold.as_ref().map(|hold| words::clean(&hold.text));
    let why = |text: Option<String>| text.map_or(String::new(), |text| format!(": {text}"));
    match view.state.as_str() {
        "completed" => {
            let was = view.from.as_ref().filter(|from| *from != to && view.kind != "run");
            let was = was.map_or(String::new(), |from| format!(" (was {from})"));
            format!("{id} completed: {done} of {all} {nodes} {verb} {to}{was}")
        }
        "partial" => format!("rollout {id} is partial: {done} of {all} {nodes} {verb} {to}"),
        "rolled_back" => {
            let failed = words::names(failed(view).map(|node| node.name.as_str()));
            let why = (failed != "none").then(|| format!("{failed} failed"));
            format!(
                "rollout {id} was rolled back{}",
                match why {
                    Some(why) => format!(": {why}"),
                    None => String::new(),
                }
            )
        }
        "failed" => format!("rollout {id} failed{}", why(hold.or_else(|| first_cause(view)))),
        "aborted" => format!("rollout {id} was aborted"),
        "held" => format!("rollout {id} is held{}", why(hold.or_else(|| first_cause(view)))),
        "paused" => {
            let by = view
                .paused
                .as_deref()
                .map_or(String::new(), |by| format!(" by {}", words::clean(by)));
            format!("rollout {id} is paused{by}; {done} of {all} {nodes} {verb} {to}")
        }
        state => format!("rollout {id} is {}{}", state_words(state), why(hold)),
    }
}

/// What was measured, in lines that fit.
pub fn evidence(view: &RolloutView, now: Timestamp, columns: usize) -> Vec<String> {
    wrapped(&evidence_line(view, now), columns)
}

/// What stands now: who runs what, in one line.
pub fn standing(view: &RolloutView) -> String {
    let mut parts: Vec<(String, Vec<&str>)> = Vec::new();
    for node in &view.nodes {
        let saying = saying(node, view);
        match parts.iter_mut().find(|(known, _)| *known == saying) {
            Some((_, names)) => names.push(&node.name),
            None => parts.push((saying, vec![&node.name])),
        }
    }
    let sentence = |(saying, names): (String, Vec<&str>)| {
        let (one, many) = saying.split_once('|').unwrap_or((&saying, &saying));
        let verb = if names.len() == 1 { one } else { many };
        format!("{} {verb}", words::names(names))
    };
    parts.into_iter().map(sentence).collect::<Vec<_>>().join("; ")
}

/// A node's standing as `of one|of many`.
fn saying(node: &NodeProgress, view: &RolloutView) -> String {
    let release = node.release.as_deref();
    let running = release.unwrap_or(&view.to);
    match node.state.as_str() {
        "done" if view.kind == "run" => "ran it|ran it".to_owned(),
        "failed" if view.kind == "run" => "failed|failed".to_owned(),
        "pending" if view.kind == "run" => "was not reached|were not reached".to_owned(),
        "done" => format!("runs {running}|run {running}"),
        "restored" | "rolled_back" => match release {
            Some(release) => format!("is back on {release}|are back on {release}"),
            None => "is back|are back".to_owned(),
        },
        "pending" => "was not touched|were not touched".to_owned(),
        "updating" => "is still under way|are still under way".to_owned(),
        "skipped" => "was skipped|were skipped".to_owned(),
        "failed" => failed_as(node).to_owned(),
        state => format!("is {0}|are {0}", state_words(state)),
    }
}

/// What a node was left as that failed and could not restore itself, as `of one|of many`.
fn failed_as(node: &NodeProgress) -> &'static str {
    match node.left.as_deref() {
        Some("out") => "failed and is out of traffic|failed and are out of traffic",
        Some("untouched") => "failed and was not touched|failed and were not touched",
        Some("unknown") => {
            "failed, and nobody knows whether it serves|failed, and nobody knows whether they serve"
        }
        Some(_) | None => "failed|failed",
    }
}

/// Nodes that failed, whether or not they restored themselves, and the one whose once-per-release job did.
pub fn failed(view: &RolloutView) -> impl Iterator<Item = &NodeProgress> {
    view.nodes.iter().filter(|node| match node.state.as_str() {
        "failed" | "restored" => true,
        "rolled_back" | "pending" => node.error.is_some(),
        _ => false,
    })
}

fn first_cause(view: &RolloutView) -> Option<String> {
    let node = failed(view).next()?;
    let error = node.error.as_deref().map_or("it failed".to_owned(), words::clean);
    Some(format!("{}: {error}", node.name))
}

/// The failed nodes' causes with the tail of their output.
fn causes(view: &RolloutView) -> Vec<String> {
    let mut lines = Vec::new();
    for node in failed(view).take(CAUSES_MAX) {
        let error = node.error.as_deref().map_or("no cause was reported".to_owned(), words::clean);
        lines.push(format!("{}: {error}", node.name));
        lines.extend(output_tail(node).into_iter().map(|line| format!("  | {line}")));
    }
    let more = failed(view).count().saturating_sub(CAUSES_MAX);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// The newest lines of what the app or a script printed, safe to print.
pub fn output_tail(node: &NodeProgress) -> Vec<String> {
    let output = node.output.as_deref().unwrap_or_default();
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let left_out = lines.len().saturating_sub(OUTPUT_LINES_MAX);
    let mut tail = Vec::new();
    if left_out > 0 {
        tail.push(format!("... {} before", words::count(left_out as u64, "line")));
    }
    let shown = lines.iter().skip(left_out);
    tail.extend(shown.map(|line| super::table::fit(&words::clean(line), OUTPUT_COLUMNS_MAX)));
    tail
}

/// What to do about a rollout that stopped.
fn hint(view: &RolloutView) -> String {
    let RolloutView { id, .. } = view;
    let asked = view.hold.as_ref().map(|hold| words::clean(&hold.hint));
    match view.state.as_str() {
        "held" => match asked {
            Some(hint) if !hint.is_empty() => hint,
            Some(_) | None => {
                format!(
                    "`rota rollout resume {id}` goes on, `rota rollout rollback {id}` goes back"
                )
            }
        },
        "paused" if matches!(view.kind.as_str(), "restart" | "run") => {
            format!("`rota rollout resume {id}` goes on, `rota rollout abort {id}` ends it")
        }
        "paused" => {
            format!("`rota rollout resume {id}` goes on, `rota rollout rollback {id}` goes back")
        }
        "partial" | "failed" | "aborted" => {
            format!("`rota rollout inspect {id}` shows every node; {}", ways_out(view))
        }
        "rolled_back" => {
            format!("`rota rollout inspect {id}` shows every node and its output")
        }
        _ => format!("`rota rollout status {id} -w` goes on watching"),
    }
}

/// What can be done about a rollout that is over: its own verbs are refused by now.
fn ways_out(view: &RolloutView) -> String {
    let RolloutView { app, env, .. } = view;
    if view.kind == "run" {
        return format!("`rota run {app} --env {env} --on NODE -- ...` runs it again there");
    }
    if view.kind == "restart" {
        return format!("`rota restart {app} --env {env}` tries again");
    }
    match view.from {
        // Where all nodes are where they were, the way back would lead one release further.
        Some(_) if view.on_release == 0 => {
            format!("no node runs {}; a new deploy tries again", view.to)
        }
        Some(_) => format!(
            "`rota rollout undo {app} --env {env}` takes all nodes to the release before, a new \
             deploy takes them on"
        ),
        None => "a new deploy takes them on".to_owned(),
    }
}

/// The outcome: what to print for a success, or the failure.
pub fn ending(view: &RolloutView, exit: Exit, now: Timestamp) -> Result<String, Box<Failure>> {
    if exit == Exit::Done {
        let skipped = words::names(
            view.nodes.iter().filter(|n| n.state == "skipped").map(|n| n.name.as_str()),
        );
        let skipped = match skipped.as_str() {
            "none" => String::new(),
            names => format!("  skipped: {names}\n"),
        };
        let lines = evidence(view, now, EVIDENCE_COLUMNS - 2);
        let evidence: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        return Ok(format!("{}\n{skipped}{evidence}", headline(view)));
    }
    let mut stands = causes(view);
    stands.push(standing(view));
    stands.extend(evidence(view, now, EVIDENCE_COLUMNS - 2));
    stands.retain(|line| !line.is_empty());
    let waits = exit == Exit::Stopped && watch::exit_of(view).is_none();
    let kind = if waits { "held".to_owned() } else { view.state.clone() };
    let failure = Failure::new(&kind, headline(view)).stands(stands).hint(hint(view));
    Err(Box::new(Failure { exit, ..failure }))
}

#[cfg(test)]
mod tests;
