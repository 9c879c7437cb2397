//! Outcomes as transcripts.

use super::super::sample::{broken, held, node, now, rollout, with_nodes};
use super::*;

fn check(view: &RolloutView, exit: Exit, expected: &str) {
    let words = match ending(view, exit, now()) {
        Ok(words) => words,
        Err(failure) => {
            assert_eq!(failure.exit, exit);
            failure.in_words()
        }
    };
    assert_eq!(words, expected);
}

#[test]
fn completed() {
    let view = rollout("completed", &["web-01 done", "web-02 done", "web-03 skipped"]);
    let expected = "\
shop/prod/14 completed: 2 of 3 nodes run 1.1.0 (was 1.0.3)
  skipped: web-03
  took 12.4 s; at least 2 of 3 in traffic; 120 931 requests, 0 failed, 0 cut
  out of traffic: web-01 812 ms, web-02 812 ms
";
    check(&view, Exit::Done, expected);
    let mut restart = rollout("completed", &["web-01 done"]);
    (restart.kind, restart.from) = ("restart".to_owned(), Some("1.1.0".to_owned()));
    let expected = "\
shop/prod/14 completed: 1 of 1 node restarted on 1.1.0
  took 12.4 s; at least 0 of 1 in traffic; 120 931 requests, 0 failed, 0 cut
  out of traffic: web-01 812 ms
";
    check(&restart, Exit::Done, expected);
}

#[test]
fn held_after_a_failure() {
    let view = with_nodes(
        "held",
        vec![
            node("web-1 done"),
            node("web-2 done"),
            broken(
                "web-3 restored",
                "smoke test \"home page\" answered 500",
                "listening\npanic: oops\n",
            ),
            node("web-4 pending"),
            node("web-5 pending"),
            node("web-6 pending"),
        ],
    );
    let text = "1 of 6 nodes failed its smoke test and the limit is 0";
    let hint = "`rota rollout resume shop/prod/14` goes on";
    let expected = "\
error: rollout shop/prod/14 is held: 1 of 6 nodes failed its smoke test and the limit is 0
  web-3: smoke test \"home page\" answered 500
    | listening
    | panic: oops
  web-1 and web-2 run 1.1.0; web-3 is back on 1.0.3; web-4 to web-6 were not touched
  took 42.0 s; at least 5 of 6 in traffic; 120 931 requests, 0 failed, 0 cut
  out of traffic: web-1 812 ms, web-2 812 ms
hint: `rota rollout resume shop/prod/14` goes on
";
    check(&held(view, "failures", text, hint), Exit::Stopped, expected);
}

#[test]
fn rolled_back() {
    let view = with_nodes(
        "rolled_back",
        vec![
            node("web-1 rolled_back"),
            broken("web-2 rolled_back", "health: no answer within 60s", ""),
        ],
    );
    let expected = "\
error: rollout shop/prod/14 was rolled back: web-2 failed
  web-2: health: no answer within 60s
  web-1 and web-2 are back on 1.0.3
  took 12.4 s; at least 1 of 2 in traffic; 120 931 requests, 0 failed, 0 cut
hint: `rota rollout inspect shop/prod/14` shows every node and its output
";
    check(&view, Exit::RolledBack, expected);
}

/// What can be done when a rollout is over, and none of its own verbs is allowed any more.
const OVER: &str = "`rota rollout inspect shop/prod/14` shows every node; `rota rollout undo shop \
                    --env prod` takes all nodes to the release before, a new deploy takes them on";

#[test]
fn headlines_and_hints_of_every_stop() {
    for (state, headline, hint) in [
        (
            "paused",
            "rollout shop/prod/14 is paused; 1 of 2 nodes run 1.1.0",
            "`rota rollout resume shop/prod/14` goes on, `rota rollout rollback shop/prod/14` goes \
             back",
        ),
        ("partial", "rollout shop/prod/14 is partial: 1 of 2 nodes run 1.1.0", OVER),
        ("failed", "rollout shop/prod/14 failed: web-2: it failed", OVER),
        ("aborted", "rollout shop/prod/14 was aborted", OVER),
    ] {
        let view = rollout(state, &["web-1 done", "web-2 failed"]);
        let failure = ending(&view, Exit::Stopped, now()).unwrap_err();
        assert_eq!(failure.message, headline);
        assert_eq!(failure.hint, hint);
        assert_eq!(failure.kind, state);
    }
}

#[test]
fn a_wait_that_lasted_too_long() {
    let view = rollout("held", &["web-1 pending"]);
    let view = held(view, "frozen", "prod is frozen: sale", "`rota env unfreeze prod`");
    let failure = ending(&view, Exit::Stopped, now()).unwrap_err();
    assert_eq!(failure.kind, "held");
    assert_eq!(failure.message, "rollout shop/prod/14 is held: prod is frozen: sale");
    assert_eq!(failure.hint, "`rota env unfreeze prod`");
}

#[test]
fn output_is_bounded_and_harmless() {
    let long: String = (1..=30).map(|n| format!("line {n}\x1b[31m\n\n")).collect();
    let tail = output_tail(&broken("a failed", "x", &long));
    assert_eq!(tail.len(), OUTPUT_LINES_MAX + 1);
    assert_eq!(tail.first().unwrap(), "... 18 lines before");
    assert_eq!(tail.last().unwrap(), "line 30");
    let wide = output_tail(&broken("a failed", "x", &"x".repeat(5000)));
    assert_eq!(wide[0].len(), OUTPUT_COLUMNS_MAX);
}

#[test]
fn many_failures_are_counted() {
    let nodes = (1..=5).map(|n| broken(&format!("web-{n} failed"), "no", "")).collect();
    let lines = causes(&with_nodes("failed", nodes));
    assert_eq!(lines, ["web-1: no", "web-2: no", "web-3: no", "and 2 more"]);
}

#[test]
fn the_first_rollout_has_no_way_back() {
    let hint = |from: Option<&str>, kind: &str| {
        let mut view = rollout("partial", &["web-1 done", "web-2 failed"]);
        (view.from, view.kind) = (from.map(str::to_owned), kind.to_owned());
        ending(&view, Exit::Stopped, now()).unwrap_err().hint
    };
    let shows = "`rota rollout inspect shop/prod/14` shows every node; ";
    assert_eq!(hint(None, "deploy"), format!("{shows}a new deploy takes them on"));
    let again = "`rota restart shop --env prod` tries again";
    assert_eq!(hint(Some("1.1.0"), "restart"), format!("{shows}{again}"));
}

#[test]
fn what_failed_nodes_were_left_as() {
    for (left, state, told) in [
        (Some("out"), "held", "web-1 failed and is out of traffic"),
        (Some("untouched"), "held", "web-1 failed and was not touched"),
        (Some("unknown"), "held", "web-1 failed, and nobody knows whether it serves"),
        (None, "held", "web-1 failed"),
    ] {
        let mut view = rollout(state, &["web-1 failed"]);
        view.nodes[0].left = left.map(str::to_owned);
        assert_eq!(standing(&view), told, "{left:?} {state}");
    }
}

#[test]
fn a_failed_once_job_shows_its_output() {
    let error = "the once-per-release job failed: it ended with exit code 1";
    let nodes = vec![broken("web-1 pending", error, "no such table\n"), node("web-2 pending")];
    let text = "the once-per-release job on web-1 failed: it ended with exit code 1";
    let view = held(with_nodes("held", nodes), "once", text, "`rota rollout retry shop/prod/14`");
    let expected = "\
error: rollout shop/prod/14 is held: the once-per-release job on web-1 failed: it ended with exit \
                    code 1
  web-1: the once-per-release job failed: it ended with exit code 1
    | no such table
  web-1 and web-2 were not touched
  took 42.0 s; at least 1 of 2 in traffic; 120 931 requests, 0 failed, 0 cut
hint: `rota rollout retry shop/prod/14`
";
    check(&view, Exit::Stopped, expected);
}

#[test]
fn who_paused_and_why() {
    let mut view = rollout("paused", &["web-1 done", "web-2 pending"]);
    view.paused = Some("alice: looking at\nerrors".to_owned());
    let told = "rollout shop/prod/14 is paused by alice: looking at errors; 1 of 2 nodes run 1.1.0";
    assert_eq!(headline(&view), told);
}

#[test]
fn nodes_that_ran_it_already_run_it() {
    let mut view = rollout("completed", &["web-1 skipped", "web-2 skipped"]);
    view.nodes[0].release = Some("1.1.0".to_owned());
    assert_eq!(headline(&view), "shop/prod/14 completed: 1 of 2 nodes run 1.1.0 (was 1.0.3)");
}
