//! The table of transitions: every phase with every report; what is not listed is refused.

use crate::names::{Span, Timestamp};

use super::*;

fn phases() -> Vec<(&'static str, Phase)> {
    let deadline = Timestamp(9);
    let cause = |silent, direction| Cause {
        step: None,
        text: String::new(),
        output: String::new(),
        direction,
        silent,
    };
    let updating = |direction| Phase::Updating { direction, step: None, deadline, takes_out: true };
    let failed =
        |silent, direction| Phase::Failed { cause: cause(silent, direction), left: Left::Unknown };
    use Direction::{Back, Forward};
    vec![
        ("waiting", Phase::Waiting),
        ("preparing", Phase::Preparing { deadline }),
        ("ready", Phase::Ready),
        ("updating", updating(Forward)),
        ("updating back", updating(Back)),
        ("monitoring", Phase::Monitoring { direction: Forward, deadline }),
        ("monitoring back", Phase::Monitoring { direction: Back, deadline }),
        ("done", Phase::Done),
        ("failed", failed(false, Forward)),
        ("silent", failed(true, Forward)),
        ("silent back", failed(true, Back)),
        ("skipped", Phase::Skipped { why: Skip::ByOperator }),
        ("rolled back", Phase::RolledBack),
    ]
}

fn reports() -> Vec<(&'static str, Report)> {
    let failure = Failure {
        step: StepName::Smoke,
        text: "500".to_owned(),
        output: String::new(),
        left: Left::Restored,
        measured: Measured::default(),
        current: None,
    };
    let nothing = Measured::default();
    vec![
        ("prepared", Report::Prepared),
        ("began", Report::Began { step: StepName::Stop, in_flight: 0 }),
        ("joined", Report::Joined(nothing)),
        ("done", Report::Done(nothing)),
        ("failed", Report::Failed(failure)),
        ("broken", Report::Broken { cause: "it died".to_owned(), output: String::new() }),
    ]
}

fn word(phase: &Phase) -> String {
    let way = |direction: &Direction| match direction {
        Direction::Forward => "",
        Direction::Back => " back",
    };
    match phase {
        Phase::Waiting => "waiting".to_owned(),
        Phase::Preparing { .. } => "preparing".to_owned(),
        Phase::Ready => "ready".to_owned(),
        Phase::Updating { direction, step, .. } => {
            let step = step.map(|step| format!(" at {step}")).unwrap_or_default();
            format!("updating{}{step}", way(direction))
        }
        Phase::Monitoring { direction, deadline } => {
            format!("monitoring{} until {}", way(direction), deadline.0)
        }
        Phase::Done => "done".to_owned(),
        Phase::Failed { cause, left } => {
            format!("failed{} {left:?}: {}", way(&cause.direction), cause.text)
        }
        Phase::Skipped { .. } => "skipped".to_owned(),
        Phase::RolledBack => "rolled back".to_owned(),
    }
}

#[test]
fn every_phase_and_every_report() {
    let rows = [
        ("preparing", "prepared", "ready"),
        ("preparing", "began", "preparing"),
        ("preparing", "failed", "failed Restored: 500"),
        ("updating", "began", "updating at stop"),
        ("updating", "joined", "monitoring until 77"),
        ("updating", "done", "done"),
        ("updating", "failed", "failed Restored: 500"),
        ("updating back", "began", "updating back at stop"),
        ("updating back", "joined", "monitoring back until 77"),
        ("updating back", "done", "rolled back"),
        ("updating back", "failed", "failed back Restored: 500"),
        ("monitoring", "done", "done"),
        ("monitoring", "failed", "failed Restored: 500"),
        ("monitoring back", "done", "rolled back"),
        ("monitoring back", "failed", "failed back Restored: 500"),
        ("done", "broken", "failed Out: it died"),
        ("updating", "broken", "failed Out: it died"),
        ("updating back", "broken", "failed back Out: it died"),
        ("monitoring", "broken", "failed Out: it died"),
        ("monitoring back", "broken", "failed back Out: it died"),
        ("silent", "broken", "failed Out: it died"),
        ("silent back", "broken", "failed back Out: it died"),
        ("silent", "done", "done"),
        ("silent", "failed", "failed Restored: 500"),
        ("silent back", "done", "rolled back"),
        ("silent back", "failed", "failed back Restored: 500"),
    ];
    for (from, phase) in phases() {
        for (what, report) in reports() {
            let to = phase.on(&report, Deadlines { monitoring: Timestamp(77) });
            let to = to.as_ref().map_or("refused".to_owned(), word);
            let row = rows.iter().find(|(f, w, _)| (*f, *w) == (from, what));
            assert_eq!(to, row.map_or("refused", |(_, _, to)| to), "{from} hears {what}");
        }
    }
}

#[test]
fn what_each_phase_is() {
    for (from, phase) in phases() {
        let running =
            matches!(from, "updating" | "updating back" | "monitoring" | "monitoring back");
        let open = running || matches!(from, "waiting" | "preparing" | "ready");
        assert_eq!(phase.is_running(), running, "{from}");
        assert_eq!(phase.is_settled(), !open, "{from}");
        assert_eq!(phase.deadline().is_some(), running || from == "preparing", "{from}");
    }
}

#[test]
fn who_is_capacity_and_who_serves() {
    let updating = |takes_out| Phase::Updating {
        direction: Direction::Forward,
        step: None,
        deadline: Timestamp(9),
        takes_out,
    };
    let rows = [
        (Serving::In, true, Phase::Waiting, false, true),
        (Serving::In, false, Phase::Waiting, true, false),
        (Serving::Out, true, Phase::Waiting, true, false),
        (Serving::Out, false, Phase::Waiting, true, false),
        (Serving::Absent, true, Phase::Waiting, false, false),
        (Serving::Absent, false, Phase::Waiting, false, false),
        (Serving::In, true, updating(true), true, false),
        (Serving::In, true, updating(false), false, true),
        (Serving::Out, true, updating(false), true, false),
        (Serving::Absent, true, updating(false), false, false),
    ];
    for (serving, online, phase, out, serves) in rows {
        let observed = Observed { online, serving, busy: false, drained: false, unsure: false };
        let node = Node { phase: phase.clone(), ..Node::waiting(1, observed, None) };
        assert_eq!(
            (node.is_out(), node.is_serving()),
            (out, serves),
            "{serving:?} {online} {phase:?}"
        );
    }
}

#[test]
fn measures_add_up() {
    let one =
        Measured { out_of_traffic: Span(100), in_flight_at_drain: 7, cut: 1, kept_out: false };
    let two = Measured { out_of_traffic: Span(50), in_flight_at_drain: 3, cut: 2, kept_out: false };
    let sum =
        Measured { out_of_traffic: Span(150), in_flight_at_drain: 7, cut: 3, kept_out: false };
    assert_eq!(one.plus(two), sum);
}
