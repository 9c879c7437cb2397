//! Sequences of views, and what a watcher says and does about them.

use super::super::sample::{broken, held, node, rollout, with_nodes};
use super::*;

/// What holds that clear by themselves are borne in these tests.
const MAX_HOLD: Span = Span::seconds(30);

/// Shows the views one second after the other: all the news, and the verdict after the last.
fn check(views: Vec<RolloutView>, expected: &[&str], exit: Option<Exit>) {
    let mut watch = Watch::new(MAX_HOLD);
    let mut lines = Vec::new();
    let mut at = Timestamp(1_000_000);
    for view in views {
        at = at.after(Span::seconds(1));
        lines.extend(watch.see(at, view));
    }
    assert_eq!(lines, expected);
    assert_eq!(watch.verdict(at), exit);
}

#[test]
fn a_whole_rollout_line_by_line() {
    let sights = [
        ("pending", ["web-01 pending", "web-02 pending"]),
        ("rolling", ["web-01 updating fetch", "web-02 pending"]),
        ("rolling", ["web-01 updating drain", "web-02 pending"]),
        ("rolling", ["web-01 updating drain", "web-02 pending"]),
        ("rolling", ["web-01 updating health", "web-02 pending"]),
        ("rolling", ["web-01 done", "web-02 pending"]),
        ("rolling", ["web-01 done", "web-02 updating monitor"]),
        ("completed", ["web-01 done", "web-02 done"]),
    ];
    let views = sights.iter().map(|(state, nodes)| rollout(state, nodes)).collect();
    let expected = [
        "shop/prod/14  deploy of 1.1.0 (was 1.0.3): 2 nodes in 2 batches, pending",
        "shop/prod/14  rolling",
        "shop/prod/14  batch 1 of 2: web-01",
        "web-01  fetch",
        "web-01  drain  14 in flight",
        "web-01  health",
        "web-01  done  out of traffic 812 ms",
        "shop/prod/14  batch 2 of 2: web-02",
        "web-02  monitor",
        "shop/prod/14  completed",
        "web-02  done  out of traffic 812 ms",
    ];
    check(views, &expected, Some(Exit::Done));
}

#[test]
fn a_failure_and_the_hold_after_it() {
    let nodes =
        || vec![broken("web-01 restored", "smoke \"home\": 500", "panic"), node("web-02 pending")];
    let text = "1 of 2 nodes failed its smoke test and the limit is 0";
    let views = vec![
        rollout("rolling", &["web-01 updating smoke", "web-02 pending"]),
        with_nodes("rolling", nodes()),
        held(with_nodes("held", nodes()), "failures", text, ""),
    ];
    let expected = [
        "shop/prod/14  deploy of 1.1.0 (was 1.0.3): 2 nodes in 2 batches, rolling",
        "shop/prod/14  batch 1 of 2: web-01",
        "web-01  smoke",
        "web-01  restored  on 1.0.3, smoke \"home\": 500",
        "shop/prod/14  waits: 1 of 2 nodes failed its smoke test and the limit is 0",
    ];
    check(views, &expected, Some(Exit::Stopped));
}

#[test]
fn capacity_that_nobody_brings_back() {
    for (nodes, waits_for, exit) in [
        (["web-01 failed", "web-02 pending"], &["web-01"][..], Some(Exit::Stopped)),
        (["web-01 failed", "web-02 pending"], &["web-01", "web-02"][..], None),
        (["web-01 done", "web-02 pending"], &["web-01"][..], None),
        (["web-01 failed", "web-02 pending"], &[][..], None),
    ] {
        let mut view = held(rollout("held", &nodes), "capacity", "1 node is out of traffic", "");
        let hold = view.hold.as_mut().unwrap();
        hold.nodes = waits_for.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(exit_of(&view), exit, "{nodes:?} {waits_for:?}");
    }
}

#[test]
fn another_controller_takes_over() {
    let mut later = rollout("rolling", &["a updating drain"]);
    later.controller = "c2".to_owned();
    let expected = [
        "shop/prod/14  deploy of 1.1.0 (was 1.0.3): 1 node in 1 batch, rolling",
        "shop/prod/14  batch 1 of 1: a",
        "a  drain  14 in flight",
        "shop/prod/14  c2 took over from c1",
    ];
    check(vec![rollout("rolling", &["a updating drain"]), later], &expected, None);
}

#[test]
fn coming_late_to_a_large_rollout_counts_its_nodes() {
    let nodes =
        (1..=40).map(|n| node(&format!("web-{n:02} {}", if n > 30 { "pending" } else { "done" })));
    let mut view = with_nodes("rolling", nodes.collect());
    view.batches.clear();
    let expected = [
        "shop/prod/14  deploy of 1.1.0 (was 1.0.3): 40 nodes, rolling",
        "shop/prod/14  30 done, 10 pending",
    ];
    check(vec![view], &expected, None);
}

#[test]
fn every_state_has_its_exit_code() {
    for (state, kind, exit) in [
        ("pending", None, None),
        ("preparing", None, None),
        ("rolling", None, None),
        ("rolling_back", None, None),
        ("completed", None, Some(Exit::Done)),
        ("rolled_back", None, Some(Exit::RolledBack)),
        ("failed", None, Some(Exit::Stopped)),
        ("aborted", None, Some(Exit::Stopped)),
        ("partial", None, Some(Exit::Stopped)),
        ("paused", None, Some(Exit::Stopped)),
        ("held", Some("failures"), Some(Exit::Stopped)),
        ("held", Some("approval"), Some(Exit::Stopped)),
        ("held", Some("deadline"), Some(Exit::Stopped)),
        ("held", Some("once"), Some(Exit::Stopped)),
        ("held", Some("capacity"), None),
        ("held", Some("offline"), None),
        ("held", Some("frozen"), None),
        ("held", Some("store"), None),
        ("held", Some("of a newer controller"), None),
        ("of a newer controller", None, None),
    ] {
        let mut view = rollout(state, &["a pending"]);
        if let Some(kind) = kind {
            view = held(view, kind, "text", "");
        }
        assert_eq!(exit_of(&view), exit, "{state} {kind:?}");
    }
}

#[test]
fn holds_that_clear_by_themselves_are_borne_for_a_while() {
    // Kind of the hold at each second, `-` for none, `*` for one beside a running update; then the
    // second at which we leave.
    for (kinds, leaves) in [
        (vec![(0, "capacity")], Some(30)),
        (vec![(0, "capacity"), (20, "-")], None),
        (vec![(0, "capacity"), (20, "-"), (21, "capacity")], Some(51)),
        (vec![(0, "capacity"), (20, "offline")], Some(50)),
        (vec![(5, "frozen")], Some(35)),
        (vec![(0, "*")], None),
        (vec![(0, "*"), (40, "capacity")], Some(70)),
        (vec![(10, "failures")], Some(10)),
    ] {
        let mut watch = Watch::new(MAX_HOLD);
        let mut left = None;
        for second in 0..100 {
            let at = Timestamp(1_000_000).after(Span::seconds(second));
            if let Some((_, kind)) = kinds.iter().find(|(when, _)| *when == second) {
                watch.see(
                    at,
                    match *kind {
                        "-" => rollout("rolling", &["a updating drain"]),
                        "*" => {
                            let moving = rollout("rolling", &["a updating drain"]);
                            held(moving, "capacity", "1 is down", "")
                        }
                        kind => held(rollout("held", &["a pending"]), kind, "text", ""),
                    },
                );
            }
            if left.is_none() && watch.verdict(at).is_some() {
                left = Some(second);
            }
        }
        assert_eq!(left, leaves, "{kinds:?}");
    }
}

#[test]
fn the_time_left_comes_from_the_pace() {
    let nodes = |done: usize| {
        let state = |n: usize| if n < done { "done" } else { "updating health" };
        let nodes = (0..10).map(|n| node(&format!("web-{n:02} {}", state(n))));
        with_nodes("rolling", nodes.collect())
    };
    let start = Timestamp(1_000_000);
    let mut watch = Watch::new(MAX_HOLD);
    // Two nodes were done before we came: they say nothing about the pace.
    watch.see(start, nodes(2));
    for (second, done, left) in [(5, 2, None), (10, 4, Some(30)), (20, 7, Some(12)), (30, 10, None)]
    {
        let at = start.after(Span::seconds(second));
        watch.see(at, nodes(done));
        assert_eq!(watch.remaining(at), left.map(Span::seconds), "{done} done");
    }
}

#[test]
fn time_out_of_traffic_runs_while_a_node_is_out() {
    let start = Timestamp(1_000_000);
    let mut watch = Watch::new(MAX_HOLD);
    for (ms, text, out) in [
        (0, "a updating drain", None),
        (100, "a updating stop", Some(0)),
        (500, "a updating health", Some(400)),
        (900, "a updating monitor", None),
        (1000, "a done", Some(812)),
    ] {
        let at = start.after(Span(ms));
        watch.see(at, rollout("rolling", &[text]));
        assert_eq!(watch.out_of_traffic(&node(text), at), out.map(Span), "{text}");
    }
}

#[test]
fn foreign_text_cannot_steer_the_terminal() {
    let nasty = broken("a failed", "\x1b[2J\x1b[31mboom\nnext", "");
    assert_eq!(node_line(&nasty, 1), "a  failed  boom next");
}
