//! Views for the tests of this folder, in the fewest words.

use rota_rollout::names::Timestamp;

use super::table::Ink;
use super::talk::Page;
use super::words;
use crate::view::{BatchView, EnvView, Evidence, FreezeView, HoldView, NodeProgress, RolloutView};

/// "Now" in all tests: 42 s after every rollout's start.
pub const NOW: &str = "2026-11-24T03:45:42.000Z";

/// A pipe.
pub fn pipe() -> Page {
    Page { ink: Ink::Plain, columns: None, rows: None, now: now() }
}

/// [`NOW`].
pub fn now() -> Timestamp {
    words::moment(NOW).unwrap()
}

/// A node from `NAME STATE [STEP]`, for example `web-01 updating drain`.
pub fn node(text: &str) -> NodeProgress {
    let mut words = text.split(' ');
    let name = words.next().unwrap().to_owned();
    let state = words.next().unwrap().to_owned();
    let step = words.next().map(str::to_owned);
    let moved = matches!(state.as_str(), "done" | "updating");
    let (done, drains) = (state == "done", step.as_deref() == Some("drain"));
    NodeProgress {
        name,
        release: Some(if moved { "1.1.0" } else { "1.0.3" }.to_owned()),
        attempt: u32::from(state != "pending"),
        left: match state.as_str() {
            "failed" => Some("out".to_owned()),
            "restored" => Some("restored".to_owned()),
            _ => None,
        },
        error: None,
        output: None,
        out_of_traffic_ms: if done { 812 } else { 0 },
        in_flight_at_drain: if drains { 14 } else { 0 },
        in_flight: if drains { 14 } else { 0 },
        cut: 0,
        restoring: step.as_deref() == Some("restore"),
        step: step.filter(|step| step != "restore"),
        state,
    }
}

/// An environment without windows.
pub fn env(name: &str, nodes: usize, frozen: Option<FreezeView>) -> EnvView {
    EnvView {
        env: name.to_owned(),
        nodes,
        frozen,
        windows: Vec::new(),
        open: true,
        changes_at: None,
        changes: String::new(),
    }
}

/// A node that failed for this cause.
pub fn broken(text: &str, error: &str, output: &str) -> NodeProgress {
    let output = Some(output.to_owned()).filter(|output| !output.is_empty());
    NodeProgress { error: Some(error.to_owned()), output, ..node(text) }
}

/// A rollout to 1.1.0 with these nodes, one a batch.
pub fn rollout(state: &str, nodes: &[&str]) -> RolloutView {
    with_nodes(state, nodes.iter().map(|text| node(text)).collect())
}

/// The same with nodes made elsewhere.
pub fn with_nodes(state: &str, nodes: Vec<NodeProgress>) -> RolloutView {
    let batch = |(index, node): (usize, &NodeProgress)| BatchView {
        index: index + 1,
        nodes: vec![node.name.clone()],
        state: match node.state.as_str() {
            "pending" => "pending",
            "updating" => "running",
            "failed" | "restored" => "failed",
            _ => "done",
        }
        .to_owned(),
    };
    let ended = !matches!(state, "pending" | "preparing" | "rolling" | "held" | "paused");
    let mut view = RolloutView {
        id: "shop/prod/14".to_owned(),
        app: "shop".to_owned(),
        env: "prod".to_owned(),
        revision: 14,
        kind: "deploy".to_owned(),
        command: None,
        from: Some("1.0.3".to_owned()),
        to: "1.1.0".to_owned(),
        strategy: "batches of 1, stop-first".to_owned(),
        message: "faster search".to_owned(),
        who: "alice".to_owned(),
        state: state.to_owned(),
        hold: None,
        paused: None,
        rehearsal: None,
        break_glass: None,
        on_release: 0,
        controller: "c1".to_owned(),
        term: 3,
        batches: nodes.iter().enumerate().map(batch).collect(),
        evidence: Evidence {
            least_in_traffic: nodes.len().saturating_sub(1),
            targets: nodes.len(),
            cut: 0,
            failed_requests: 0,
            requests: 120_931,
            ..Evidence::default()
        },
        nodes,
        eta_ms: None,
        started_at: "2026-11-24T03:45:00.000Z".to_owned(),
        finished_at: ended.then(|| "2026-11-24T03:45:12.480Z".to_owned()),
        duration_ms: ended.then_some(12_480),
    };
    view.on_release = view.count_on_release();
    view
}

/// The same rollout, held or waiting.
pub fn held(view: RolloutView, kind: &str, text: &str, hint: &str) -> RolloutView {
    let hold = HoldView {
        kind: kind.to_owned(),
        text: text.to_owned(),
        hint: hint.to_owned(),
        nodes: Vec::new(),
        since: "2026-11-24T03:45:30.000Z".to_owned(),
    };
    RolloutView { hold: Some(hold), ..view }
}
