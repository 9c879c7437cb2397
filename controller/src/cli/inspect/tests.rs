//! The page: nothing foreign gets out of its place, and a large fleet stays readable.

use super::super::sample::{broken, node, now, with_nodes};
use super::*;
use crate::view::{PointView, PrintedView, StepTimeView};

const HOSTILE: &str =
    "</pre><script>alert(1)</script><img src=x onerror=\"alert('1')\">\x1b[31m\u{202e}";

fn trace(name: &str, output: &str) -> TraceView {
    let point = |at_ms, in_flight| PointView { at_ms, in_flight };
    TraceView {
        node: name.to_owned(),
        attempt: 1,
        steps: [("drain", 212), ("stop", 12), ("health", 403)]
            .map(|(step, took_ms)| StepTimeView { step: step.to_owned(), took_ms })
            .to_vec(),
        in_flight: vec![point(2, 14), point(80, 7), point(212, 0), point(700, 0)],
        outputs: vec![PrintedView {
            what: "smoke".to_owned(),
            output: output.to_owned(),
            bytes: 0,
        }],
        ..TraceView::default()
    }
}

#[test]
fn nothing_foreign_gets_out_of_its_place() {
    let mut view = with_nodes("failed", vec![broken("web-1 failed", HOSTILE, HOSTILE)]);
    view.message = HOSTILE.to_owned();
    view.who = HOSTILE.to_owned();
    let dossier = Dossier { view, traces: vec![trace("web-1", HOSTILE)], events: Vec::new() };
    let html = page::page(&dossier, now());
    for forbidden in ["<script", "<img", "onerror=\"", "\x1b", "\u{202e}", "src=", "href=", "url("]
    {
        let found = html.replace("&lt;img src=x onerror=&quot;", "").contains(forbidden);
        assert!(!found, "{forbidden:?} is on the page");
    }
    assert!(html.contains("&lt;script&gt;"), "it is there as text");
}

#[test]
fn a_thousand_nodes_are_summed_up() {
    let mut nodes: Vec<NodeProgress> = (1..=1000).map(|n| node(&format!("web-{n} done"))).collect();
    nodes[499] = broken("web-500 restored", "smoke: 500", "");
    let view = with_nodes("partial", nodes);
    let traces = (1..=1000).map(|n| trace(&format!("web-{n}"), "fine")).collect();
    let dossier = Dossier { view, traces, events: Vec::new() };
    let html = page::page(&dossier, now());
    let at = |text: &str| html.find(text).unwrap_or_else(|| panic!("{text:?} is not on the page"));
    assert!(at("<b class=\"mono\">web-500</b>") < at("<b class=\"mono\">web-1</b>"));
    assert!(html.contains("<b>999 other nodes</b>"), "who had no trouble is folded");
    assert!(html.len() < 4 << 20, "{} bytes", html.len());
    let text = text::text(&dossier, &super::super::sample::pipe());
    assert!(text.contains("\nand 970 nodes more"), "{text}");
}

#[test]
fn curves_in_a_line() {
    let point = |at_ms, in_flight| PointView { at_ms, in_flight };
    for (points, until, line) in [
        (vec![], 0, "________________________"),
        (vec![point(0, 8), point(50, 4), point(100, 0)], 100, "████████████▄▄▄▄▄▄▄▄▄▄▄_"),
        (vec![point(0, 1000), point(99, 1), point(100, 0)], 100, "███████████████████████_"),
    ] {
        assert_eq!(text::sparkline(&points, until), line);
    }
}

#[test]
fn a_paragraph_for_each_attempt() {
    let view = with_nodes("completed", vec![node("web-1 done")]);
    let dossier = Dossier { view, traces: vec![trace("web-1", "fine")], events: Vec::new() };
    let text = text::text(&dossier, &super::super::sample::pipe());
    let expected = "
web-1 attempt 1
  steps       drain 212 ms; stop 12 ms; health 403 ms
  in flight   14 at most █████████▄▄▄▄▄▄▄▄▄▄▄▄▄▄_ drained after 212 ms; 0 cut
  smoke printed:
  | fine
";
    assert!(text.ends_with(expected), "{text}");
}
