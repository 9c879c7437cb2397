//! What was measured during a rollout: the numbers, and the one line that says them wherever people read it.

use rota_rollout::names::{Span, Timestamp};
use serde::{Deserialize, Serialize};

use super::RolloutView;
use crate::words;

/// Nodes whose time out of traffic the line names one by one; of more it says the median and the longest.
const NODES_NAMED_MAX: usize = 3;

/// What was measured during a rollout.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The fewest targets in traffic at any moment.
    pub least_in_traffic: usize,
    /// All targets.
    pub targets: usize,
    /// In-flight requests that we ended.
    pub cut: u64,
    /// Requests that an edge answered with an error of its own, or that broke off.
    pub failed_requests: u64,
    /// Requests that the edges served meanwhile.
    pub requests: u64,
    /// From its start to its end; absent while it runs.
    #[serde(default)]
    pub duration_ms: Option<u64>,
    /// The longest time that one node was out of traffic.
    #[serde(default)]
    pub longest_out_of_traffic_ms: u64,
    /// The edges that did not say what they had counted by its end: `requests` and `failed_requests` may be too low.
    #[serde(default)]
    pub unheard_edges: Vec<String>,
    /// The edges that were not reachable when nodes moved: `edges = "reachable"` went on without them.
    #[serde(default)]
    pub unasked_edges: Vec<String>,
    /// All that in one line, the same for every reader; absent while it runs.
    #[serde(default)]
    pub text: Option<String>,
}

/// How long it took, or takes up to now.
pub fn took(view: &RolloutView, now: Timestamp) -> Option<Span> {
    let end = match &view.finished_at {
        Some(end) => words::moment(end)?,
        None => now,
    };
    Some(end.since(words::moment(&view.started_at)?))
}

/// What was measured, in one line.
pub fn evidence_line(view: &RolloutView, now: Timestamp) -> String {
    let Evidence { least_in_traffic, targets, cut, failed_requests, requests, .. } = &view.evidence;
    let mut parts = Vec::new();
    if let Some(took) = took(view, now) {
        parts.push(format!("took {}", words::span(took)));
    }
    if view.kind == "run" {
        parts.extend(ran(view));
        return parts.join("; ");
    }
    parts.push(format!("at least {least_in_traffic} of {targets} in traffic"));
    let requests = words::count(*requests, "request");
    let (failed, cut) = (words::thousands(*failed_requests), words::thousands(*cut));
    parts.push(format!("{requests}, {failed} failed, {cut} cut"));
    if !view.evidence.unheard_edges.is_empty() {
        parts.push(format!("{} not heard at the end", view.evidence.unheard_edges.join(", ")));
    }
    let unasked = &view.evidence.unasked_edges;
    if !unasked.is_empty() {
        let were = if unasked.len() == 1 { "was" } else { "were" };
        parts.push(format!("{} {were} not reachable: not asked", unasked.join(", ")));
    }
    parts.extend(out_of_traffic(view));
    parts.join("; ")
}

/// On how many nodes a command ran, and on which it did not.
fn ran(view: &RolloutView) -> Vec<String> {
    let count = |state: &str| view.nodes.iter().filter(|node| node.state == state).count();
    let mut parts = vec![format!("ran on {} of {} nodes", count("done"), view.nodes.len())];
    for (state, word) in
        [("failed", "failed on"), ("skipped", "skipped"), ("pending", "not reached")]
    {
        if count(state) > 0 {
            parts.push(format!("{word} {}", count(state)));
        }
    }
    parts
}

/// How long the nodes were out of traffic, those that were.
fn out_of_traffic(view: &RolloutView) -> Option<String> {
    let mut out: Vec<(u64, &str)> = view
        .nodes
        .iter()
        .filter(|node| node.out_of_traffic_ms > 0)
        .map(|node| (node.out_of_traffic_ms, node.name.as_str()))
        .collect();
    let said = |(ms, name): &(u64, &str)| format!("{name} {}", words::span(Span(*ms)));
    if out.len() <= NODES_NAMED_MAX {
        let all: Vec<String> = out.iter().map(said).collect();
        return (!all.is_empty()).then(|| format!("out of traffic: {}", all.join(", ")));
    }
    out.sort_unstable();
    let (median, longest) = (out.get(out.len() / 2)?.0, out.last()?);
    Some(format!(
        "out of traffic: {} nodes, median {}, longest {}",
        words::thousands(out.len() as u64),
        words::span(Span(median)),
        said(longest)
    ))
}

/// The line in as many lines as fit; it breaks between its parts.
pub fn wrapped(line: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in line.split("; ") {
        match lines.last_mut() {
            Some(last) if last.chars().count() + 2 + part.chars().count() <= columns => {
                last.push_str("; ");
                last.push_str(part);
            }
            Some(_) | None => lines.push(part.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_breaks_between_its_parts() {
        for (line, columns, lines) in [
            ("took 1 ms", 80, vec!["took 1 ms"]),
            ("a; b; c", 80, vec!["a; b; c"]),
            ("aaaa; bbbb; cc", 10, vec!["aaaa; bbbb", "cc"]),
            ("much too long for it; b", 10, vec!["much too long for it", "b"]),
        ] {
            assert_eq!(wrapped(line, columns), lines, "{line}");
        }
    }
}
