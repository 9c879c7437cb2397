//! Freezes, windows and broken glass: when updates may start, and who may start them all the same.

use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};
use rota_tests::farm::{App, ENV, Farm};
use serde_json::Value;

use super::{begin, deploy, run};

const FAST: App<'_> =
    App { args: &[], health: "", traffic: "", strategy: "batch = 1\nmonitor = \"0s\"" };

/// A window of this day so many minutes from now, one hour long, in UTC.
fn in_minutes(minutes: i64) -> String {
    let from = (Timestamp::now() + minutes.minutes()).to_zoned(TimeZone::UTC);
    let to = &from + 1.hour();
    let clock = |time: &Zoned| time.strftime("%H:%M").to_string();
    format!("{} {}-{} UTC", from.strftime("%a"), clock(&from), clock(&to))
}

/// A window that is closed now, and for longer than any test runs.
fn tomorrow() -> String {
    in_minutes(26 * 60)
}

fn json(farm: &Farm, args: &[&str]) -> Value {
    serde_json::from_str(&run(farm, &[args, &["-o", "json"]].concat(), 0)).unwrap()
}

#[test]
fn windows_are_added_listed_and_removed() {
    let farm = Farm::start(1).unwrap();
    let (open, closed) = (in_minutes(-10), tomorrow());
    for (window, told) in [
        ("Mon-Fri 22:00-05:00", "the time zone is missing"),
        ("Mo 22:00-05:00 UTC", "`Mo` is not a day"),
        ("Mon 22:00-05:00 Berlin", "`Berlin` is no time zone"),
    ] {
        let said = run(&farm, &["env", "window", "add", ENV, window], 2);
        assert!(said.contains(told), "{said}");
    }
    let said = run(&farm, &["env", "window", "add", ENV, &closed, "-m", "quiet hours"], 0);
    assert!(said.contains(&closed) && said.contains("it is closed until"), "{said}");
    let said = run(&farm, &["env", "window", "add", ENV, &open], 0);
    assert!(said.contains("it is open until"), "{said}");
    assert!(run(&farm, &["env", "window", "add", ENV, &open], 1).contains("already"));
    let listed = json(&farm, &["env", "window", "ls", ENV]);
    assert_eq!(
        (&listed[0]["window"], &listed[0]["open"], &listed[0]["message"], &listed[1]["open"]),
        (&closed.as_str().into(), &false.into(), &"quiet hours".into(), &true.into()),
        "{listed}"
    );
    let env = &json(&farm, &["env", "ls"])[0];
    assert!(env["open"] == true && env["changes_at"].is_string(), "{env}");
    assert!(run(&farm, &["env", "ls"], 0).contains(&open));
    assert!(run(&farm, &["status"], 0).contains("prod is open: closes"));
    run(&farm, &["env", "window", "rm", ENV, "3"], 1);
    run(&farm, &["env", "window", "rm", ENV, "2"], 0);
    assert!(run(&farm, &["status"], 0).contains("prod is closed: opens"));
    let said = run(&farm, &["env", "window", "rm", ENV, &closed], 0);
    assert!(said.contains("is always open"), "{said}");
    run(&farm, &["env", "window", "ls", "nowhere"], 1);
}

#[test]
fn a_rollout_outside_the_windows_waits_for_them() {
    let mut farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    run(&farm, &["env", "window", "add", ENV, &tomorrow()], 0);
    let manifest = farm.write_app(FAST).unwrap();
    let plan = ["plan", "-f", manifest.to_str().unwrap(), "--version", "1.1.0", "--env", ENV];
    let plan = run(&farm, &plan, 0);
    assert!(plan.contains("it would be held: outside the windows of prod: opens"), "{plan}");
    begin(&farm, "1.1.0", FAST);
    // Both fetch it meanwhile; nothing is drained.
    let fetched = |view: &Value| {
        view["hold"]["kind"] == "frozen"
            && view["nodes"].as_array().is_some_and(|all| all.iter().all(|n| n["step"].is_null()))
    };
    let view = farm.rollout(fetched).unwrap();
    let text = view["hold"]["text"].as_str().unwrap();
    assert!(text.starts_with("outside the windows of prod: opens "), "{text}");
    assert!(text.contains(" UTC (in 25 h") || text.contains(" UTC (in 26 h"), "{text}");
    farm.controller.kill().unwrap();
    farm.restart_controller().unwrap();
    farm.wait("/api/v1/edges", |edges| edges[0]["state"] == "ready").unwrap();
    let view = farm.rollout(fetched).unwrap();
    assert!(view["nodes"].as_array().unwrap().iter().all(|n| n["release"] == "1.0.0"), "{view}");
    // One that opens with the next minute: it goes on by itself.
    run(&farm, &["env", "window", "add", ENV, &in_minutes(1)], 0);
    farm.rollout(|view| view["state"] == "completed").unwrap();
}

#[test]
fn windows_that_close_hold_what_runs_and_broken_glass_does_not_wait() {
    let farm = Farm::start(3).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    begin(&farm, "1.1.0", App { strategy: "batch = 1\nmonitor = \"1s\"", ..FAST });
    farm.rollout(|view| view["nodes"][0]["step"] == "monitor").unwrap();
    run(&farm, &["env", "window", "add", ENV, &tomorrow()], 0);
    let stands =
        |view: &Value| view["hold"]["kind"] == "frozen" && view["nodes"][0]["state"] == "done";
    let view = farm.rollout(stands).unwrap();
    assert_eq!(view["nodes"][1]["state"], "pending", "{view}");
    // A reason is not optional.
    run(&farm, &["rollout", "resume", "shop/prod", "--break-glass"], 2);
    run(&farm, &["rollout", "resume", "shop/prod", "--break-glass", "-m", ""], 2);
    run(&farm, &["rollout", "pause", "shop/prod", "--break-glass", "-m", "x"], 2);
    run(&farm, &["rollout", "resume", "shop/prod"], 1);
    let why = ["rollout", "resume", "shop/prod", "--break-glass", "-m", "the site is down"];
    run(&farm, &why, 0);
    let view = farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(view["break_glass"], "admin: the site is down", "{view}");
    let told = "the site is down";
    for place in [
        &["rollout", "status", "shop/prod"][..],
        &["rollout", "inspect", "shop/prod"],
        &["rollout", "history", "shop", "--env", ENV],
        &["events", "--app", "shop"],
        &["audit"],
    ] {
        assert!(run(&farm, place, 0).contains(told), "{place:?}");
    }
    let audit = json(&farm, &["audit"]);
    let broke = |line: &&Value| line["what"] == "rollout resume --break-glass";
    let line =
        audit.as_array().unwrap().iter().rfind(|line| broke(line) && line["message"] == told);
    assert_eq!(line.unwrap()["who"], "operator admin", "{audit}");
}

#[test]
fn a_frozen_environment_takes_what_breaks_the_glass() {
    let farm = Farm::start(2).unwrap();
    deploy(&farm, "1.0.0", FAST, 0);
    run(&farm, &["env", "freeze", ENV, "-m", "sale"], 0);
    let refused = deploy(&farm, "1.1.0", FAST, 1);
    assert!(refused.contains("--break-glass -m WHY"), "{refused}");
    let manifest = farm.write_app(FAST).unwrap();
    let manifest = manifest.to_str().unwrap();
    let go = ["deploy", "-f", manifest, "--version", "1.1.0", "--env", ENV, "--break-glass"];
    run(&farm, &go, 2);
    run(&farm, &[&go[..], &["-m", "a hole in it"]].concat(), 0);
    run(&farm, &["restart", "shop", "--env", ENV], 1);
    run(&farm, &["restart", "shop", "--env", ENV, "--break-glass", "-m", "it leaks"], 0);
    run(&farm, &["rollout", "undo", "shop", "--env", ENV, "--break-glass", "-m", "back"], 0);
    let start = ["rollout", "start", "shop", "--release", "1.1.0", "--env", ENV];
    run(&farm, &[&start[..], &["--break-glass", "-m", "forth"]].concat(), 0);
    // A freeze, unlike a window, holds the way back too.
    run(&farm, &["env", "unfreeze", ENV], 0);
    let strategy = "batch = 1\nmonitor = \"0s\"\napprove_after = [1]";
    begin(&farm, "1.2.0", App { strategy, ..FAST });
    farm.rollout(|view| view["hold"]["kind"] == "approval").unwrap();
    run(&farm, &["env", "freeze", ENV, "-m", "sale"], 0);
    run(&farm, &["rollout", "rollback", "shop/prod", "--yes"], 0);
    let view = farm.rollout(|view| view["hold"]["kind"] == "frozen").unwrap();
    assert!(view["hold"]["hint"].as_str().unwrap().contains("--break-glass"), "{view}");
    let args = ["rollout", "rollback", "shop/prod", "--yes", "--break-glass", "-m", "it is down"];
    run(&farm, &args, 0);
    farm.rollout(|view| view["state"] == "rolled_back").unwrap();
}
