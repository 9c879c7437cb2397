//! What a rollout would do, as text: the batches, what they cost, what changes, and what stands in the way.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::cli::table::{Cell, Table, Tone};
use crate::cli::talk::Page;
use crate::cli::words;
use crate::view::{FileChange, FilesView, PlanView, StepView};

/// More batches than this are summed up: nobody reads a thousand lines of one node each.
const BATCHES_LISTED_MAX: usize = 20;

/// `rota plan`.
pub fn plan(plan: &PlanView, page: &Page) -> String {
    let was = plan.from.as_ref().map_or(String::new(), |from| format!(" (now {from})"));
    let targets = words::count(plan.targets as u64, "target");
    let batches = plan.batches.len();
    let plural = if batches == 1 { "" } else { "es" };
    let mut text = format!("{}{was}: {targets} in {batches} batch{plural}\n", plan.to);
    text.push_str(&table(plan, page));
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(format!("at least {} of {} in traffic", plan.least_in_traffic, plan.targets));
    warning(plan, page).into_iter().for_each(&mut line);
    if let Some(eta) = &plan.eta {
        let takes = match (eta.at_least, eta.ms) {
            (true, 0) => "how long it takes is ",
            (false, 0) => "", // nothing is to be done
            (_, _) => "takes ",
        };
        line(format!("{takes}{}", words::clean(&eta.text)));
    }
    plan.notes.iter().for_each(|note| line(words::clean(note)));
    if !plan.approvals.is_empty() {
        let after: Vec<String> = plan.approvals.iter().map(ToString::to_string).collect();
        let word = if after.len() == 1 { "batch" } else { "batches" };
        let after = after.join(", ");
        line(format!("after {word} {after} it waits for `rota rollout promote`"));
    }
    if let Some(once) = &plan.once {
        let command = words::clean(&once.command.join(" "));
        line(format!("once, on {}, before anything is drained: {command}", once.node));
    }
    for (why, nodes) in left_alone(plan) {
        line(format!("left alone: {}, {}", words::names(nodes), words::clean(why)));
    }
    text.push_str(&different(plan));
    for hold in &plan.holds {
        let would = page.ink.paint(Tone::Warn, "it would be held:");
        writeln!(text, "{would} {}", words::clean(&hold.text)).expect("strings take everything");
        if !hold.hint.is_empty() {
            writeln!(text, "  {}", words::clean(&hold.hint)).expect("strings take everything");
        }
    }
    for refusal in &plan.refusals {
        let refused = page.ink.paint(Tone::Bad, "refused:");
        writeln!(text, "{refused} {}", words::clean(refusal)).expect("strings take everything");
    }
    text
}

/// Where none serves for a while, although there is more than one that could.
pub fn warning(plan: &PlanView, page: &Page) -> Option<String> {
    let serves_none = |step: &&StepView| step.in_traffic == 0;
    let steps = plan.steps.iter().filter(serves_none);
    let numbers: Vec<String> = steps.map(|step| step.batch.to_string()).collect();
    if plan.from.is_none() || plan.targets < 2 {
        return None;
    }
    let batches = match numbers.as_slice() {
        [] => return None,
        [only] => format!("batch {only}"),
        [first, .., last] => format!("{} batches, from {first} to {last}", numbers.len()),
    };
    let warning = page.ink.paint(Tone::Warn, "warning:");
    Some(format!(
        "{warning} no node serves during {batches}; `max_unavailable` keeps some in traffic"
    ))
}

fn table(plan: &PlanView, page: &Page) -> String {
    let mut table = Table::new(&[">BATCH", ">SIZE", ">OUT", ">IN TRAFFIC", "NODES"]).indented(2);
    for (index, nodes) in plan.batches.iter().enumerate().take(BATCHES_LISTED_MAX) {
        let step = plan.steps.get(index);
        table.row([
            Cell::from((index + 1).to_string()),
            Cell::from(nodes.len().to_string()),
            Cell::or_dash(step.map(|step| step.out.to_string()).as_deref()),
            Cell::or_dash(step.map(|step| step.in_traffic.to_string()).as_deref()),
            Cell::from(words::names(nodes.iter().map(String::as_str))),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    let mut text = table.text(page.ink, page.columns);
    let more = plan.batches.iter().skip(BATCHES_LISTED_MAX);
    let (batches, nodes) = (more.clone().count(), more.map(Vec::len).sum::<usize>());
    if batches > 0 {
        let nodes = words::count(nodes as u64, "node");
        let plural = if batches == 1 { "" } else { "es" };
        writeln!(text, "  and {batches} more batch{plural} with {nodes}")
            .expect("strings take everything");
    }
    text
}

/// Who is left alone, by the reason.
fn left_alone(plan: &PlanView) -> BTreeMap<&str, Vec<&str>> {
    let mut alone: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for skipped in &plan.skipped {
        alone.entry(&skipped.why).or_default().push(&skipped.name);
    }
    alone
}

/// What is different from the current release: keys of the manifest, then files.
fn different(plan: &PlanView) -> String {
    let Some(from) = &plan.from else { return String::new() };
    let shown =
        |value: &Option<String>| value.as_deref().map_or("not written".to_owned(), words::clean);
    let mut rows: Vec<(String, String)> = plan
        .changes
        .iter()
        .map(|change| {
            (change.key.clone(), format!("{} -> {}", shown(&change.old), shown(&change.new)))
        })
        .collect();
    let files = plan.files.clone().unwrap_or_default();
    rows.extend(files.changed.iter().map(file));
    let more = more(&files);
    let known = plan.files.is_some() && files.not_compared.is_empty();
    if rows.is_empty() && more.is_empty() {
        let nothing = format!("\nnothing is different from {from}\n\n");
        return if known { nothing } else { String::new() };
    }
    let pad = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = format!("\nwhat is different from {from}:\n");
    for (name, what) in rows {
        writeln!(text, "  {name:pad$}  {what}").expect("strings take everything");
    }
    text.push_str(&more);
    text.push('\n');
    text
}

fn file(change: &FileChange) -> (String, String) {
    let path = words::clean(&change.path);
    match (change.old, change.new) {
        (None, new) => (format!("+ {path}"), words::bytes(new.unwrap_or(0))),
        (Some(old), None) => (format!("- {path}"), words::bytes(old)),
        (Some(old), Some(new)) => {
            (format!("~ {path}"), format!("{} -> {}", words::bytes(old), words::bytes(new)))
        }
    }
}

fn more(files: &FilesView) -> String {
    let more = files.total.saturating_sub(files.changed.len());
    match (more, files.not_compared.as_str()) {
        (_, why) if !why.is_empty() => {
            format!("  files were not compared: {}\n", words::clean(why))
        }
        (0, _) => String::new(),
        (more, _) => format!("  and {}\n", words::count(more as u64, "more file")),
    }
}
