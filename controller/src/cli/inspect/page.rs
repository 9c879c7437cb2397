//! A rollout as one HTML page: no scripts, nothing loaded from elsewhere, everything foreign escaped.

use std::fmt::Write as _;

use rota_rollout::names::{Span, Timestamp};

use super::story::Story;
use super::style::CSS;
use super::{Dossier, drawing, nodes};
use crate::cli::ending;
use crate::cli::table::{Tone, state_words, tone_of};
use crate::view::{RolloutView, evidence_line, took};
use crate::words;

/// Up to so many events lie open; more are folded.
const EVENTS_OPEN_MAX: usize = 40;

/// Nothing on the page may load or run anything, whatever slipped into it.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The page.
pub(super) fn page(dossier: &Dossier, now: Timestamp) -> String {
    let view = &dossier.view;
    let story = Story::of(dossier, now);
    let id = escape(&view.id);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{id} {}</title>\n<style>{CSS}</style>\n</head>\n<body>\n",
        escape(&state_words(&view.state)),
    );
    html.push_str(&head(view, now));
    html.push_str(&numbers(view, now));
    html.push_str(&facts(view));
    if !view.batches.is_empty() {
        html.push_str("<h2>Batches</h2>\n");
        html.push_str(&drawing::batches(&story, &view.batches));
        let left_out = drawing::batches_left_out(&view.batches);
        if left_out > 0 {
            writeln!(html, "<p class=\"dim\">and {left_out} more batches</p>")
                .expect("strings take everything");
        }
    }
    if view.kind != "run" && !story.capacity.is_empty() {
        html.push_str(
            "<h2>Capacity</h2>\n<p class=\"dim\">Targets in traffic over time; the \
                       broken line is the least that the controller counted.</p>\n",
        );
        let evidence = &view.evidence;
        html.push_str(&drawing::capacity(&story, evidence.targets, evidence.least_in_traffic));
    }
    html.push_str(&nodes::nodes(dossier));
    html.push_str(&events(dossier));
    html.push_str(&measured(view, now));
    html.push_str("</body>\n</html>\n");
    html
}

fn head(view: &RolloutView, now: Timestamp) -> String {
    let mut html = format!(
        "<header><h1>{} {}</h1>\n<p class=\"lead\">{}</p>\n",
        escape(&view.id),
        tag(&view.state),
        escape(&ending::headline(view)),
    );
    let why = words::clean(&view.message);
    if !why.is_empty() {
        writeln!(
            html,
            "<p>“{}” <span class=\"dim\">— {}</span></p>",
            escape(&why),
            escape(&view.who)
        )
        .expect("strings take everything");
    }
    html.push_str("</header>\n");
    if let Some(hold) = &view.hold {
        writeln!(
            html,
            "<div class=\"alert wait\"><b>It waits:</b> {} <span class=\"dim\">since \
             {}</span></div>",
            escape(&words::clean(&hold.text)),
            escape(&words::date(&hold.since))
        )
        .expect("strings take everything");
    }
    let failed: Vec<String> = ending::failed(view)
        .take(FAILED_MAX)
        .map(|node| {
            let error = node.error.as_deref().unwrap_or("no cause was reported");
            format!(
                "<p><b class=\"mono\">{}</b> {}</p>",
                escape(&node.name),
                escape(&words::clean(error))
            )
        })
        .collect();
    if !failed.is_empty() {
        let all = ending::failed(view).count();
        let more = all.saturating_sub(FAILED_MAX);
        let more = if more > 0 { format!("<p>and {more} more</p>") } else { String::new() };
        writeln!(html, "<div class=\"alert\">{}{more}</div>", failed.concat())
            .expect("strings take everything");
    }
    let running = view.finished_at.is_none();
    if running {
        let at = rfc3339(now);
        writeln!(html, "<p class=\"dim\">Not over yet: as it stood at {at}.</p>")
            .expect("strings take everything");
    }
    html
}

/// Failed nodes whose causes stand at the top.
const FAILED_MAX: usize = 5;

/// The numbers that everybody looks for.
fn numbers(view: &RolloutView, now: Timestamp) -> String {
    let evidence = &view.evidence;
    let span = |ms: u64| words::span(Span(ms));
    let mut tiles = vec![(took(view, now).map_or("-".to_owned(), words::span), "duration", "")];
    if view.kind == "run" {
        let count = |state: &str| view.nodes.iter().filter(|node| node.state == state).count();
        tiles.push((format!("{} of {}", count("done"), view.nodes.len()), "nodes ran it", ""));
        tiles.push((count("failed").to_string(), "failed", bad(count("failed") as u64)));
    } else {
        let least = format!("{} of {}", evidence.least_in_traffic, evidence.targets);
        tiles.push((least, "targets in traffic at least", ""));
        tiles.push((words::thousands(evidence.requests), "requests served", ""));
        let failed = evidence.failed_requests;
        tiles.push((words::thousands(failed), "requests failed", bad(failed)));
        tiles.push((words::thousands(evidence.cut), "requests cut", bad(evidence.cut)));
        let longest = evidence.longest_out_of_traffic_ms;
        tiles.push((span(longest), "longest out of traffic", ""));
    }
    let tile = |(number, what, tone): (String, &str, &str)| {
        format!("<div><b class=\"{tone}\">{number}</b><span>{what}</span></div>")
    };
    format!("<div class=\"numbers\">{}</div>\n", tiles.into_iter().map(tile).collect::<String>())
}

fn bad(number: u64) -> &'static str {
    if number > 0 { "bad" } else { "good" }
}

/// Who, what, when.
fn facts(view: &RolloutView) -> String {
    let from = view.from.as_deref().unwrap_or("nothing");
    let movement = match view.kind.as_str() {
        "run" | "restart" => view.to.clone(),
        _ => format!("{from} → {}", view.to),
    };
    let date = |time: &str| words::date(time);
    let rows = [
        ("Release", movement),
        ("Kind", view.kind.clone()),
        ("Command", view.command.as_deref().map(words::clean).unwrap_or_default()),
        ("Started", format!("{} by {}", date(&view.started_at), view.who)),
        ("Ended", view.finished_at.as_deref().map(date).unwrap_or_default()),
        ("Strategy", view.strategy.clone()),
        ("Outcome", state_words(&view.state)),
        ("Controller", format!("{}, term {}", view.controller, view.term)),
    ];
    let row =
        |(label, value): &(&str, String)| format!("<dt>{label}</dt><dd>{}</dd>\n", escape(value));
    let rows = rows.iter().filter(|(_, value)| !value.is_empty()).map(row);
    format!("<dl>\n{}</dl>\n", rows.collect::<String>())
}

fn events(dossier: &Dossier) -> String {
    let events = &dossier.events;
    let row = |event: &crate::view::EventView| {
        format!(
            "<tr><td class=\"mono dim\">{}</td><td class=\"mono\">{}</td><td>{}</td></tr>\n",
            escape(event.at.get(11..23).unwrap_or(&event.at)),
            escape(event.node.as_deref().unwrap_or_default()),
            escape(&words::clean(&event.text))
        )
    };
    let rows: String = events.iter().map(row).collect();
    let open = if events.len() <= EVENTS_OPEN_MAX { " open" } else { "" };
    format!(
        "<h2>Events</h2>\n<details{open}><summary>{} <span class=\"dim\">times are UTC</span>\
         </summary><div><table><tbody>\n{rows}</tbody></table></div></details>\n",
        words::count(events.len() as u64, "event")
    )
}

fn measured(view: &RolloutView, now: Timestamp) -> String {
    format!(
        "<h2>How it was measured</h2>\n<p>{}</p>\n\
         <p class=\"dim\">Requests are counted by the edges, from the rollout's start until each \
         edge was asked for its last word at the end. A request failed when an edge answered it \
         with an error of its own or it broke off; it was cut when it was still in flight at the \
         drain's deadline. Steps and in-flight curves are measured on the node itself; time out \
         of traffic runs from the drain's begin until every edge has read the node back as in, \
         over all attempts. Capacity is what the controller knew at each moment. Outputs are \
         tails.</p>\n\
         <footer>{} · made {} by rota {}</footer>\n",
        escape(&evidence_line(view, now)),
        escape(&view.id),
        rfc3339(now),
        env!("CARGO_PKG_VERSION"),
    )
}

fn rfc3339(at: Timestamp) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or(String::new(), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// A state as a coloured word.
pub(super) fn tag(state: &str) -> String {
    let class = match tone_of(state) {
        Tone::Good => "good",
        Tone::Busy => "busy",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
        Tone::Plain | Tone::Dim | Tone::Bold => "dim",
    };
    format!("<span class=\"tag {class}\">{}</span>", escape(&state_words(state)))
}

/// Foreign text, harmless: markup is text, and nothing turns the direction of reading round.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' => safe.push('\n'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {
                safe.push('\u{fffd}');
            }
            char if char.is_control() => {}
            char => safe.push(char),
        }
    }
    safe
}

/// Several lines of foreign text.
pub(super) fn lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| escape(&words::clean(line))).collect();
    lines.join("\n")
}
