//! The page's part about the nodes: those with trouble first and open, the others folded.

use std::fmt::Write as _;

use rota_rollout::names::Span;

use super::page::{escape, lines, tag};
use super::{Dossier, by_interest, drawing};
use crate::view::{NodeProgress, TraceView};
use crate::words;

/// Up to so many nodes without trouble are listed one by one; more are folded into one line that opens.
const LISTED_MAX: usize = 25;

/// Up to so many nodes all lie open: the page is as short as on paper, where nothing can be unfolded.
const OPEN_MAX: usize = 6;

/// The section.
pub(super) fn nodes(dossier: &Dossier) -> String {
    let nodes = by_interest(&dossier.view);
    let (trouble, fine): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| had_trouble(node));
    let mut html = String::from("<h2>Nodes</h2>\n");
    for node in &trouble {
        html.push_str(&one(dossier, node, true));
    }
    let few = dossier.view.nodes.len() <= OPEN_MAX;
    let all: String = fine.iter().map(|node| one(dossier, node, few)).collect();
    if fine.len() > LISTED_MAX {
        let rest = if trouble.is_empty() { "" } else { " other" };
        writeln!(
            html,
            "<details><summary><b>{}{rest} nodes</b> <span class=\"dim\">without \
             trouble</span></summary><div>{all}</div></details>",
            fine.len()
        )
        .expect("strings take everything");
    } else {
        html.push_str(&all);
    }
    html
}

fn had_trouble(node: &NodeProgress) -> bool {
    matches!(node.state.as_str(), "failed" | "restored") || node.cut > 0 || node.attempt > 1
}

fn one(dossier: &Dossier, node: &NodeProgress, open: bool) -> String {
    let mut facts = vec![node.release.as_deref().map(escape).unwrap_or_default()];
    if node.out_of_traffic_ms > 0 {
        facts.push(format!("out of traffic {}", words::span(Span(node.out_of_traffic_ms))));
    }
    if node.in_flight_at_drain > 0 {
        facts.push(format!("{} in flight at its drain", node.in_flight_at_drain));
    }
    if node.cut > 0 {
        facts.push(format!("<b class=\"bad\">{} cut</b>", node.cut));
    }
    if node.attempt > 1 {
        facts.push(format!("{} attempts", node.attempt));
    }
    if let Some(error) = &node.error {
        facts.push(escape(&words::clean(error)));
    }
    facts.retain(|fact| !fact.is_empty());
    let summary = format!(
        "<b class=\"mono\">{}</b> {} <span class=\"dim\">{}</span>",
        escape(&node.name),
        tag(&node.state),
        facts.join(" · ")
    );
    let traces: String = dossier.of(&node.name).map(attempt).collect();
    let printed =
        dossier.untold(node).map(|output| format!("<h3>Output</h3><pre>{}</pre>", lines(output)));
    let inside = format!("{traces}{}", printed.unwrap_or_default());
    if inside.is_empty() {
        return format!("<details><summary>{summary}</summary></details>\n");
    }
    let open = if open { " open" } else { "" };
    format!("<details{open}><summary>{summary}</summary><div>{inside}</div></details>\n")
}

/// One attempt: its steps, its curve, its outputs.
fn attempt(trace: &TraceView) -> String {
    let what = if trace.once { "Once-per-release job, attempt" } else { "Attempt" };
    let mut html = format!("<h3>{what} {}</h3>", trace.attempt);
    if let Some(error) = &trace.error {
        write!(html, "<p class=\"bad\">{}</p>", escape(&words::clean(error)))
            .expect("strings take everything");
    }
    if !trace.steps.is_empty() {
        html.push_str(&drawing::steps(&trace.steps));
        let step = |step: &crate::view::StepTimeView| {
            format!("{} {}", escape(&step.step), words::span(Span(step.took_ms)))
        };
        let steps: Vec<String> = trace.steps.iter().map(step).collect();
        write!(html, "<p class=\"dim\">{}</p>", steps.join(" · "))
            .expect("strings take everything");
    }
    if trace.killed {
        html.push_str("<p class=\"warn\">It did not end within its stop_timeout: killed.</p>");
    }
    if let Some(code) = trace.exit_code {
        let took = trace.took_ms.map(|ms| format!(" after {}", words::span(Span(ms))));
        write!(html, "<p>exit code {code}{}</p>", took.unwrap_or_default())
            .expect("strings take everything");
    }
    if trace.in_flight.iter().any(|point| point.in_flight > 0) {
        let drained = trace.in_flight.iter().find(|point| point.in_flight == 0);
        let said = drained.map_or(String::new(), |point| {
            format!(", drained after {}", words::span(Span(point.at_ms)))
        });
        write!(
            html,
            "<p class=\"dim\">Requests in flight from the drain until it was back{said}</p>{}",
            drawing::curve(&trace.in_flight)
        )
        .expect("strings take everything");
    }
    for printed in &trace.outputs {
        write!(
            html,
            "<p class=\"dim\">{}</p><pre>{}</pre>",
            escape(&printed.headline()),
            lines(&printed.output)
        )
        .expect("strings take everything");
    }
    html
}
