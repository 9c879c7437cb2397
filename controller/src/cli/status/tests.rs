//! The one screen, as transcripts.

use super::super::sample::{env, held, pipe, rollout};
use super::*;
use crate::view::{ControllerView, FreezeView};

fn fleet(app: &str, env: &str, in_traffic: usize) -> FleetView {
    FleetView {
        app: app.to_owned(),
        env: env.to_owned(),
        release: Some("1.0.3".to_owned()),
        revision: Some(14),
        targets: 6,
        in_traffic,
        on_another: 0,
    }
}

/// 200 apps on a terminal of 24 rows: what to look at comes first, the rest is counted, and a pipe gets it all.
#[test]
fn one_screen_for_two_hundred_apps() {
    let name = |number: usize| format!("app-{number:03}");
    let mut fleets: Vec<FleetView> =
        (1..=200).map(|number| fleet(&name(number), "prod", 6)).collect();
    fleets[150].in_traffic = 5;
    fleets[160].on_another = 2;
    let status = StatusView { fleets, ..StatusView::default() };
    let page = Page { columns: Some(80), rows: Some(24), ..pipe() };
    let text = screen(&status, &page);
    assert!(text.lines().count() <= 24, "{text}");
    let expected = "\
APP      ENV   RELEASE  REV  IN TRAFFIC
app-151  prod  1.0.3     14  5 of 6
app-161  prod  1.0.3     14  6 of 6, 2 on another release
app-001  prod  1.0.3     14  6 of 6
";
    assert!(text.starts_with(expected), "{text}");
    let rest = "and 188 more, all of their nodes in traffic: `rota status --env ENV`";
    assert!(text.contains(rest), "{text}");
    assert_eq!(screen(&status, &pipe()).lines().count(), 205);
}

#[test]
fn a_quiet_night() {
    let status = StatusView { fleets: vec![fleet("shop", "prod", 6)], ..StatusView::default() };
    let expected = "\
APP   ENV   RELEASE  REV  IN TRAFFIC
shop  prod  1.0.3     14  6 of 6

no rollout is under way

no node needs care
";
    assert_eq!(screen(&status, &pipe()), expected);
}

#[test]
fn a_night_at_work() {
    let hold = "1 of 6 nodes failed and the limit is 0";
    let hint = "`rota rollout resume shop/prod/14`";
    let freeze = FreezeView {
        until: None,
        message: "sale".to_owned(),
        who: "bob".to_owned(),
        since: "2026-11-24T03:00:00Z".to_owned(),
    };
    let status = StatusView {
        drift: Vec::new(),
        fleets: vec![fleet("shop", "prod", 5), fleet("shop", "test", 6)],
        rollouts: vec![held(rollout("held", &["a done", "b failed"]), "failures", hold, hint)],
        care: vec![CareView {
            name: "web-07".to_owned(),
            env: "prod".to_owned(),
            text: "offline for 3h".to_owned(),
            hint: "`rota node inspect web-07`".to_owned(),
        }],
        envs: vec![env("prod", 6, Some(freeze)), env("test", 6, None)],
        controllers: vec![ControllerView {
            name: "c2".to_owned(),
            state: "lost".to_owned(),
            rollouts: Vec::new(),
            version: "0.1.0".to_owned(),
            address: String::new(),
        }],
    };
    let expected = "\
APP   ENV   RELEASE  REV  IN TRAFFIC
shop  prod  1.0.3     14  5 of 6
shop  test  1.0.3     14  6 of 6

ID            RELEASE         STATE  NODES  STARTED  WHY
shop/prod/14  1.0.3 -> 1.1.0  held     1/2  42s ago  1 of 6 nodes failed and the limit is 0
hint: shop/prod/14: `rota rollout resume shop/prod/14`

prod is frozen until unfrozen by bob: sale

NEEDS CARE  ENV   WHAT
web-07      prod  offline for 3h; `rota node inspect web-07`

controller c2 is lost
";
    assert_eq!(screen(&status, &pipe()), expected);
}

#[test]
fn who_paused_what_and_why() {
    let mut paused = rollout("paused", &["a done", "b pending"]);
    paused.paused = Some("alice: looking at errors".to_owned());
    let expected = "\
ID            RELEASE         STATE   NODES  STARTED  WHY
shop/prod/14  1.0.3 -> 1.1.0  paused    1/2  42s ago  by alice: looking at errors
shop/prod/14 is paused by alice: looking at errors
";
    assert_eq!(rollouts(&[paused], &pipe()), expected);
}

#[test]
fn an_empty_installation() {
    let expected = "\
nothing is deployed yet: `rota deploy` starts

no rollout is under way

no node needs care
";
    assert_eq!(screen(&StatusView::default(), &pipe()), expected);
}
