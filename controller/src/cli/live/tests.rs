//! The live block as transcripts.

use rota_rollout::names::Span;

use super::super::sample::{broken, held, node, now, rollout, with_nodes};
use super::*;

fn frame(size: (usize, usize)) -> Frame<'static> {
    Frame { size, ink: Ink::Plain, at: now(), began: Timestamp(now().0 - 42_000), notice: "" }
}

fn watching(view: RolloutView) -> Watch {
    let mut watch = Watch::new(Span::seconds(30));
    watch.see(Timestamp(now().0 - 1_200), view);
    watch
}

fn check(watch: &Watch, frame: Frame<'_>, expected: &str) {
    let lines = block(watch, frame);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(text, expected);
    assert!(lines.iter().all(|line| width(line) <= frame.size.0.min(COLUMNS_MAX)), "too wide");
    assert!(lines.len() < frame.size.1, "too high");
}

#[test]
fn a_small_fleet_is_listed() {
    let mut nodes: Vec<_> =
        ["web-01 done", "web-02 updating drain", "web-03 updating health", "web-05 pending"]
            .map(node)
            .into();
    nodes.insert(3, broken("web-04 restored", "smoke \"home page\" answered 500", ""));
    let expected = "\
shop/prod/14  1.0.3 -> 1.1.0  rolling, batch 2 of 5                         0:42
[#########xxxxxxxxxxx-------------------------------]  1 of 5 nodes

  web-01  done         out of traffic 812 ms
  web-02  drain        14 in flight
  web-03  health       out of traffic 1.2 s
  web-04  restored     on 1.0.3, smoke \"home page\" answered 500
  web-05  pending
";
    check(&watching(with_nodes("rolling", nodes)), frame((120, 40)), expected);
}

#[test]
fn the_pace_gives_an_eta() {
    let nodes = ["a done", "b updating smoke", "c pending"];
    let mut watch = Watch::new(Span::seconds(30));
    let start = Timestamp(now().0 - 30_000);
    watch.see(start, rollout("rolling", &["a updating drain", "b pending", "c pending"]));
    watch.see(Timestamp(now().0 - 1_000), rollout("rolling", &nodes));
    let expected = "\
shop/prod/14  1.0.3 -> 1.1.0  rolling, batch 2 of 3                         0:42
[#################----------------------------------]  1 of 3 nodes     ETA 1:00

  a  done         out of traffic 812 ms
  b  smoke        out of traffic 1.0 s
  c  pending
";
    check(&watch, frame((80, 24)), expected);
}

#[test]
fn a_large_fleet_is_summarised_failing_nodes_first() {
    let mut nodes: Vec<_> = (1..=230).map(|n| node(&format!("web-{n:03} done"))).collect();
    nodes.extend((231..=260).map(|n| node(&format!("web-{n:03} updating drain"))));
    nodes.extend((261..=270).map(|n| node(&format!("web-{n:03} updating monitor"))));
    nodes.push(broken("web-271 failed", "health: no answer within 60s", ""));
    nodes.extend((272..=1000).map(|n| node(&format!("web-{n:03} pending"))));
    let mut view = with_nodes("rolling", nodes);
    view.batches.clear();
    let expected = "\
shop/prod/14  1.0.3 -> 1.1.0  rolling                                       0:42
[#########x-----------------------------------]   230 of 1000 nodes

  failed          1
  updating       40  drain 30, monitor 10
  done          230
  pending       729

  web-271  failed       health: no answer within 60s
  web-231  drain        14 in flight
  web-232  drain        14 in flight
  web-233  drain        14 in flight
  web-234  drain        14 in flight
  web-235  drain        14 in flight
  web-236  drain        14 in flight
";
    check(&watching(view), frame((80, 17)), expected);
}

#[test]
fn a_hold_and_a_lost_connection_are_said() {
    let view = rollout("held", &["a pending"]);
    let text = "2 nodes are down and the limit is 2";
    let watch = watching(held(view, "capacity", text, "clears when web-03 is back"));
    let frame = Frame { notice: "connection lost: c1 is gone", ..frame((80, 24)) };
    let expected = "\
shop/prod/14  1.0.3 -> 1.1.0  held                                          0:42
[----------------------------------------------------]  0 of 1 node

  a  pending

waits: 2 nodes are down and the limit is 2
       clears when web-03 is back
connection lost: c1 is gone
";
    check(&watch, frame, expected);
}

#[test]
fn it_fits_every_terminal() {
    let name = "a-node-with-a-very-long-name-indeed-yes";
    let nodes = (0..50).map(|n| broken(&format!("{name}-{n} failed"), &"long ".repeat(50), ""));
    let view = with_nodes("rolling", nodes.collect());
    for nodes in [1, 10, 20, 21, 50] {
        let mut view = view.clone();
        view.nodes.truncate(nodes);
        let watch = watching(held(view, "capacity", &"why ".repeat(60), &"how ".repeat(60)));
        for size in [(20, 8), (40, 10), (80, 24), (200, 60), (80, 12)] {
            let lines = block(&watch, Frame { notice: "lost", ..frame(size) });
            assert!(lines.len() < size.1, "{nodes} nodes, {size:?}: {} lines", lines.len());
            let widest = lines.iter().map(|line| width(line)).max().unwrap();
            assert!(widest <= size.0, "{nodes} nodes, {size:?}: {widest} columns: {lines:#?}");
        }
    }
}

#[test]
fn colours_take_no_room() {
    let view = rollout("rolling", &["a done", "b updating drain", "c pending"]);
    let watch = watching(view);
    let plain = block(&watch, frame((80, 24)));
    let coloured = block(&watch, Frame { ink: Ink::Colour, ..frame((80, 24)) });
    let stripped: Vec<String> = coloured
        .iter()
        .map(|line| super::super::table::uncoloured(line).trim_end().to_owned())
        .collect();
    assert_eq!(stripped, plain);
}

#[test]
fn painting_goes_back_over_what_was_drawn() {
    let mut painter = Painter::default();
    let lines = |n: usize| vec!["x".repeat(10); n];
    let first = painter.paint(&lines(2), 80);
    assert_eq!(first, "\x1b[?2026hxxxxxxxxxx\x1b[K\nxxxxxxxxxx\x1b[K\n\x1b[J\x1b[?2026l");
    let second = painter.paint(&lines(1), 80);
    assert!(second.starts_with("\x1b[?2026h\r\x1b[2Axxxx"), "{second:?}");
    // Narrower now: the line of ten columns takes three rows of four.
    let third = painter.paint(&lines(1), 4);
    assert!(third.starts_with("\x1b[?2026h\r\x1b[3A"), "{third:?}");
}
