//! What the wire refuses, as a table: one wrong field each, and the text that names it.

use std::collections::HashMap;

use rota_proto::agent::{self as proto, order::Work as Wire};

use crate::order::{Direction, OnFailure, StartOrder, Work};
use crate::spec::{Driver, Port, Via};

fn release() -> proto::ReleaseSpec {
    proto::ReleaseSpec {
        app: "shop".into(),
        env: "prod".into(),
        version: "1.1.0".into(),
        digest: "ab".repeat(32),
        size: 100,
        format: "tar.zst".into(),
        run: Some(proto::Run {
            driver: String::new(),
            command: vec!["./shop".into(), "--port".into(), "{port}".into()],
            user: "shop".into(),
            env: HashMap::from([("LOG".into(), "info".into())]),
            env_file: "-/etc/shop.env".into(),
            port: 9000,
            stop_signal: "TERM".into(),
            stop_timeout_ms: 10_000,
            no_port: false,
            limits: None,
            notify: false,
            socket: false,
        }),
        health: Some(proto::Health {
            check: Some(proto::health::Check::Http("/healthz".into())),
            interval_ms: 100,
            timeout_ms: 1000,
            healthy_for_ms: 0,
            deadline_ms: 60_000,
        }),
        traffic: Some(proto::TrafficPlan {
            via: "edge".into(),
            pool: "shop".into(),
            drain_timeout_ms: 30_000,
            fail_on_drain_timeout: false,
            ..proto::TrafficPlan::default()
        }),
        smoke: vec![proto::Smoke {
            name: "home".into(),
            test: Some(proto::smoke::Test::Http("/".into())),
            status: 200,
            contains: "v{version}".into(),
            matches: String::new(),
            timeout_ms: 5000,
            retries: 0,
        }],
        hooks: Some(proto::Hooks::default()),
        image: String::new(),
    }
}

fn update() -> proto::Update {
    proto::Update {
        release: Some(release()),
        direction: proto::Direction::Forward.into(),
        start_first: false,
        leave_on_failure: false,
        monitor_ms: 5000,
        edges: vec![proto::Edge {
            name: "lb-01".into(),
            pool: "shop".into(),
            address: "10.0.0.1:7402".into(),
        }],
    }
}

fn order(work: Wire) -> proto::Order {
    proto::Order { term: 3, rollout: "shop/prod/14".into(), attempt: 1, work: Some(work) }
}

#[test]
fn a_right_order_arrives_whole() {
    let order = super::order(order(Wire::Update(update())), Driver::Exec).unwrap();
    assert_eq!((order.term, order.attempt), (3, 1));
    assert_eq!(order.rollout.to_string(), "shop/prod/14");
    let Work::Update(update) = order.work else { panic!("not an update") };
    assert_eq!(update.direction, Direction::Forward);
    assert_eq!(update.start_order, StartOrder::StopFirst);
    assert_eq!(update.on_failure, OnFailure::Restore);
    let run = &update.release.run;
    assert_eq!((run.driver, run.port, run.stop_signal), (Driver::Exec, Port::Fixed(9000), 15));
    assert_eq!(update.release.traffic.via, Via::Edge("shop".into()));
    assert_eq!(update.release.folder(), "1.1.0-abababababab");
}

/// One wrong field of an update's release.
type Spoil = fn(&mut proto::ReleaseSpec);

#[test]
fn what_is_wrong_in_a_release_is_refused_by_name() {
    fn run(spec: &mut proto::ReleaseSpec) -> &mut proto::Run {
        spec.run.as_mut().unwrap()
    }
    fn health(spec: &mut proto::ReleaseSpec) -> &mut proto::Health {
        spec.health.as_mut().unwrap()
    }
    let rows: &[(Spoil, &str)] = &[
        (|s| s.app = "Shop".into(), "update.release.app"),
        (|s| s.app = "other".into(), "update.release.app"),
        (|s| s.env = "..".into(), "update.release.env"),
        (|s| s.env = "test".into(), "update.release.env"),
        (|s| s.version = "../1".into(), "update.release.version"),
        (|s| s.version = String::new(), "update.release.version"),
        (|s| s.digest = "AB".repeat(32), "update.release.digest"),
        (|s| s.digest = "ab".into(), "update.release.digest"),
        (|s| s.size = 0, "update.release.size"),
        (|s| s.format = "zip".into(), "update.release.format"),
        (|s| s.run = None, "update.release.run"),
        (|s| run(s).driver = "k8s".into(), "update.release.run.driver"),
        (|s| run(s).command.clear(), "update.release.run.command"),
        (|s| run(s).command[0].clear(), "update.release.run.command"),
        (|s| run(s).command[0].push('\0'), "update.release.run.command"),
        (|s| run(s).user = "a b".into(), "update.release.run.user"),
        (|s| run(s).user = "-rf".into(), "update.release.run.user"),
        (|s| drop(run(s).env.insert("A=B".into(), String::new())), "update.release.run.env"),
        (|s| drop(run(s).env.insert(String::new(), "x".into())), "update.release.run.env"),
        (|s| run(s).port = 65_536, "update.release.run.port"),
        (|s| run(s).no_port = true, "update.release.run.port"),
        (|s| run(s).stop_signal = "SEGV".into(), "update.release.run.stop_signal"),
        (|s| run(s).stop_signal.clear(), "update.release.run.stop_signal"),
        (|s| run(s).stop_timeout_ms = u64::MAX, "update.release.run.stop_timeout_ms"),
        (|s| s.health = None, "update.release.health"),
        (|s| health(s).interval_ms = 0, "update.release.health.interval_ms"),
        (|s| health(s).deadline_ms = 0, "update.release.health.deadline_ms"),
        (
            |s| health(s).check = Some(proto::health::Check::Http("healthz".into())),
            "update.release.health.http",
        ),
        (|s| health(s).check = Some(proto::health::Check::Tcp(false)), "update.release.health.tcp"),
        (|s| s.traffic = None, "update.release.traffic"),
        (|s| s.traffic.as_mut().unwrap().via = "dns".into(), "update.release.traffic.via"),
        (|s| s.traffic.as_mut().unwrap().pool.clear(), "update.release.traffic.pool"),
        (|s| s.smoke[0].test = None, "update.release.smoke.test"),
        (|s| s.smoke[0].status = 99, "update.release.smoke.status"),
        (|s| s.smoke[0].timeout_ms = 0, "update.release.smoke.timeout_ms"),
        (|s| s.smoke[0].retries = 101, "update.release.smoke.retries"),
        (|s| s.smoke[0].matches = "(".into(), "update.release.smoke.matches"),
        (
            |s| s.hooks.as_mut().unwrap().before_start.push(proto::Command { argv: vec![] }),
            "update.release.hooks.before_start",
        ),
    ];
    for (number, (spoil, field)) in rows.iter().enumerate() {
        let mut update = update();
        spoil(update.release.as_mut().unwrap());
        let error = super::order(order(Wire::Update(update)), Driver::Exec)
            .expect_err(&format!("row {number} ({field})"));
        assert_eq!(error.field, *field, "row {number}: {error}");
    }
}

#[test]
fn what_is_wrong_around_it_is_refused_by_name() {
    let right = || order(Wire::Update(update()));
    let with = |change: fn(&mut proto::Update)| {
        let mut update = update();
        change(&mut update);
        order(Wire::Update(update))
    };
    let once = |command: Vec<String>, timeout_ms| {
        order(Wire::Once(proto::Once { release: Some(release()), command, timeout_ms }))
    };
    let rows = [
        (proto::Order { term: 0, ..right() }, "term"),
        (proto::Order { attempt: 0, ..right() }, "attempt"),
        (proto::Order { rollout: "shop/prod".into(), ..right() }, "rollout"),
        (proto::Order { rollout: "shop/prod/0".into(), ..right() }, "rollout"),
        (proto::Order { rollout: "shop/../1".into(), ..right() }, "rollout"),
        (proto::Order { work: None, ..right() }, "work"),
        (with(|u| u.direction = 0), "update.direction"),
        (with(|u| u.direction = 99), "update.direction"),
        (with(|u| u.release = None), "update.release"),
        (with(|u| u.monitor_ms = u64::MAX), "update.monitor_ms"),
        (with(|u| u.edges[0].name = "LB".into()), "update.edges.name"),
        (with(|u| u.edges[0].address = "lb".into()), "update.edges.address"),
        (with(|u| u.edges[0].address = "lb:0".into()), "update.edges.address"),
        (order(Wire::Prepare(proto::Prepare { release: None })), "prepare.release"),
        (once(vec![], 1000), "once.command"),
        (once(vec!["./migrate".into()], 0), "once.timeout_ms"),
        (order(Wire::Settle(settle(&["x"]))), "settle.keep"),
    ];
    for (order, field) in rows {
        let error = super::order(order, Driver::Exec).expect_err(field);
        assert_eq!(error.field, field, "{error}");
    }
}

fn settle(digests: &[&str]) -> proto::Settle {
    let keep = digests.iter().map(|digest| (*digest).to_owned()).collect();
    proto::Settle { keep, releases: Vec::new() }
}

#[test]
fn a_settled_rollout_has_no_attempt() {
    let settle = proto::Order { attempt: 0, ..order(Wire::Settle(proto::Settle::default())) };
    let order = super::order(settle, Driver::Exec).expect("as controllers send it");
    assert_eq!(order.work, crate::order::Work::Settle { keep: Vec::new() });
}

#[test]
fn a_refusal_is_a_report_that_names_the_field() {
    let error = super::order(order(Wire::Settle(settle(&["x"]))), Driver::Exec).unwrap_err();
    let report = super::refusal("shop/prod/14", 2, &error, 7);
    assert_eq!((report.seq, report.rollout.as_str(), report.attempt), (0, "shop/prod/14", 2));
    let Some(proto::report::What::Failed(failed)) = report.what else { panic!("not a failure") };
    assert_eq!(failed.left(), proto::Left::Untouched);
    assert_eq!(
        failed.cause,
        "the order cannot be carried out: its field `settle.keep` is \"x\": \
         use 64 hexadecimal digits in lower case"
    );
}
