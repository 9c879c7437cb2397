//! Rows and transcripts of the machine: what it hears, and what it does about it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::*;
use crate::spec::{self, Spec};

/// A release without hooks; its version tells it from others.
fn release(version: &str, smoke: bool, hooks: bool) -> Spec {
    let script = if hooks { vec![vec!["script".to_owned()]] } else { Vec::new() };
    let test = spec::Smoke {
        name: "home".to_owned(),
        test: spec::SmokeTest::Command(Vec::new()),
        timeout: Duration::from_secs(1),
        retries: 0,
    };
    Spec {
        app: "shop".to_owned(),
        env: "prod".to_owned(),
        version: version.to_owned(),
        digest: version.replace('.', "0").repeat(13)[..64].to_owned(),
        size: 1,
        format: spec::Format::Tar,
        run: spec::Run {
            driver: spec::Driver::Exec,
            command: Vec::new(),
            user: None,
            env: BTreeMap::new(),
            env_file: None,
            port: spec::Port::Auto,
            stop_signal: 15,
            stop_timeout: Duration::from_secs(1),
            notify: false,
            socket: false,
            limits: spec::Limits::default(),
        },
        health: spec::Health {
            check: spec::Check::Alive,
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
            healthy_for: Duration::ZERO,
            deadline: Duration::from_secs(10),
        },
        traffic: spec::Traffic {
            via: spec::Via::Edge("shop".to_owned()),
            drain_timeout: Duration::from_secs(1),
            on_drain_timeout: spec::OnDrainTimeout::Cut,
            edges: spec::Needed::All,
        },
        smoke: if smoke { vec![test] } else { Vec::new() },
        image: None,
        hooks: spec::Hooks {
            before_drain: script.clone(),
            before_start: script.clone(),
            after_join: script.clone(),
            on_failure: script,
        },
    }
}

/// A node and the story of what it heard and did, one line each.
struct Node {
    app: App,
    at: u64,
    heard: String,
    /// What people were told.
    told: Vec<String>,
}

const ORDER: &str = "shop/prod/7";

impl Node {
    /// 1.0.0 runs, in traffic, as process 1.
    fn serving() -> Self {
        let instance = Instance { label: String::new(), token: 1, port: 9000 };
        let spec = release("1.0.0", true, false);
        let app = App {
            current: Some(Settled::new(spec, Some(instance), Side::In)),
            counter: 1,
            ..App::default()
        };
        Self { app, at: 100_000, heard: String::new(), told: Vec::new() }
    }

    fn bare() -> Self {
        Self { app: App::default(), at: 100_000, heard: String::new(), told: Vec::new() }
    }

    /// Ten milliseconds later this happens. What is done about it is kept as text.
    fn hear(&mut self, what: What) -> &mut Self {
        self.at += 10;
        let outcome = on(&self.app, super::Event { at: self.at, what: what.clone() });
        let again = on(&self.app, super::Event { at: self.at, what });
        assert_eq!(outcome, again, "the same event, another outcome");
        let written = serde_json::to_string(&outcome.app).unwrap();
        let mut kept = outcome.app.clone();
        if let Work::Clear(_) = kept.work {
            kept.work = Work::Idle; // begun anew after a boot
        }
        assert_eq!(kept, serde_json::from_str(&written).unwrap(), "the journal lost some");
        self.app = outcome.app;
        outcome.actions.iter().for_each(|action| self.says_what_it_does(action));
        let tells = |action: &Action| matches!(action, Action::Tell(_));
        self.told.extend(outcome.actions.iter().filter(|it| tells(it)).map(action));
        let actions = outcome.actions.iter().filter(|it| !tells(it));
        let actions: Vec<String> = actions.map(action).collect();
        writeln!(self.heard, "{}", actions.join("; ")).unwrap();
        self
    }

    /// Who asks whether new requests may come hears what the job that begins now waits for.
    fn says_what_it_does(&self, action: &Action) {
        let Action::Do { task, .. } = action else { return };
        let serves = |i: &Instance| self.app.serving().is_some_and(|it| it.token == i.token);
        match task {
            Job::Join { instance, .. } | Job::Monitor { instance, .. } => {
                let ready = self.app.ready();
                assert!(
                    ready == Ready::In,
                    "{}{} joins: {ready:?}",
                    instance.token,
                    instance.label
                );
            }
            Job::Drain { instance, .. } | Job::Stop { instance, .. } => {
                assert!(!serves(instance), "{}{} leaves", instance.token, instance.label);
            }
            Job::Fetch(_)
            | Job::Hooks { .. }
            | Job::Swap(_)
            | Job::Start { .. }
            | Job::Health { .. }
            | Job::Smoke { .. }
            | Job::Wait { .. } => {}
        }
    }

    fn ordered(&mut self, change: impl FnOnce(&mut UpdateOrder)) -> &mut Self {
        let mut order = UpdateOrder {
            rollout: ORDER.to_owned(),
            term: 3,
            attempt: 1,
            spec: release("1.1.0", true, false),
            direction: Direction::Forward,
            start_first: false,
            leave_on_failure: false,
            monitor_ms: 5_000,
        };
        change(&mut order);
        self.hear(What::Ordered(order))
    }

    fn did(&mut self, result: Did) -> &mut Self {
        let action = self.app.counter;
        self.hear(What::Did { action, result })
    }

    /// The job under way ends well, so many times.
    fn ok(&mut self, times: usize) -> &mut Self {
        for _ in 0..times {
            let result = match &self.app.work {
                Work::Update(update) => match &update.phase {
                    Phase::Forward(Task::Start) => Did::Started { port: 9001 },
                    Phase::Back { mend: Mend::OldStart, .. } => Did::Started { port: 9002 },
                    Phase::Forward(Task::Stop) | Phase::Back { mend: Mend::NewStop, .. } => {
                        Did::Stopped { killed: false }
                    }
                    Phase::Forward(Task::Drain) => Did::Drained { in_flight_at_start: 5, cut: 1 },
                    Phase::Forward(_) | Phase::Back { .. } => Did::Ok,
                },
                Work::Revive(Revive { phase: RevivePhase::Start, .. }) => {
                    Did::Started { port: 9003 }
                }
                Work::Clear(Clearing { phase: ClearingPhase::Stop, .. }) => {
                    Did::Stopped { killed: false }
                }
                Work::Idle | Work::Revive(_) | Work::Move(_) | Work::Clear(_) => Did::Ok,
            };
            self.did(result);
        }
        self
    }

    fn fails(&mut self, cause: &str) -> &mut Self {
        self.did(Did::Failed { cause: cause.to_owned(), output: String::new() })
    }

    fn exits(&mut self, token: u64) -> &mut Self {
        self.hear(What::Exited { token, how: "exited with 1".to_owned(), output: String::new() })
    }

    fn boots(&mut self, alive: &[u64]) -> &mut Self {
        self.hear(What::Booted { alive: alive.iter().copied().collect() })
    }

    /// What it did since the last look.
    fn said(&mut self) -> String {
        std::mem::take(&mut self.heard).trim_end().to_owned()
    }

    /// How it rests.
    fn rests(&self) -> String {
        let Some(current) = &self.app.current else { return "nothing".to_owned() };
        let runs = match &current.instance {
            Some(i) => format!("{} as {}{}", current.spec.version, i.token, i.label),
            None => format!("{} stopped", current.spec.version),
        };
        let previous = self.app.previous.as_ref().map_or("none", |spec| spec.version.as_str());
        let work = match &self.app.work {
            Work::Idle => "",
            Work::Update(_) => ", updating",
            Work::Revive(_) => ", reviving",
            Work::Move(_) => ", moving",
            Work::Clear(_) => ", clearing",
        };
        format!("{runs} {:?}, before it {previous}{work}", current.side)
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Do { task, .. } => job(task),
        Action::Say { attempt, said, .. } => format!("say {attempt} {}", words(said)),
        Action::Assert { instance, side } => {
            format!("assert {}{} {side:?}", instance.token, instance.label)
        }
        Action::Tell(text) => text.clone(),
        Action::Prune => "prune".to_owned(),
    }
}

fn job(job: &Job) -> String {
    let who = |i: &Instance| format!("{}{}", i.token, i.label);
    match job {
        Job::Fetch(spec) => format!("fetch {}", spec.version),
        Job::Hooks { which, .. } => format!("hooks {which:?}"),
        Job::Drain { instance, must, .. } => {
            format!("drain {}{}", who(instance), if *must { " and cut" } else { "" })
        }
        Job::Stop { instance, forget, .. } => {
            format!("stop {}{}", who(instance), if *forget { " for good" } else { "" })
        }
        Job::Swap(spec) => format!("swap {}", spec.as_ref().map_or("none", |s| s.version.as_str())),
        Job::Start { spec, label, token } => format!("start {} as {token}{label}", spec.version),
        Job::Health { instance, .. } => format!("health {}", who(instance)),
        Job::Smoke { instance, .. } => format!("smoke {}", who(instance)),
        Job::Join { instance, .. } => format!("join {}", who(instance)),
        Job::Monitor { instance, for_ms, .. } => format!("monitor {} {for_ms}", who(instance)),
        Job::Wait { for_ms } => format!("wait {for_ms}"),
    }
}

fn words(said: &Said) -> String {
    match said {
        Said::Prepared => "prepared".to_owned(),
        Said::Began { step, in_flight: 0 } => format!("{step:?}").to_lowercase(),
        Said::Began { step, in_flight } => format!("{step:?} {in_flight}").to_lowercase(),
        Said::Joined(m) => format!("joined out {} cut {}", m.out_of_traffic_ms, m.cut),
        Said::Done(m) => format!("done out {} cut {}", m.out_of_traffic_ms, m.cut),
        Said::Failed(failed) => {
            let worse =
                failed.restore_error.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
            let runs = failed.release.as_deref().unwrap_or("nothing");
            format!(
                "failed at {:?}: {}; {:?}{worse}, runs {runs}",
                failed.failure.step, failed.failure.cause, failed.left
            )
        }
        Said::Broken { cause, .. } => format!("broken: {cause}"),
        Said::Stale { newest_term } => format!("stale, newest {newest_term}"),
    }
}

fn check(said: String, expected: &str) {
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let said: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(said, expected, "\nit did:\n{}\n", said.join("\n"));
}

#[test]
fn stop_first() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(9);
    check(
        node.said(),
        "say 1 fetch; fetch 1.1.0
         say 1 drain; drain 1
         say 1 stop; stop 1
         say 1 swap; swap 1.1.0
         say 1 start; start 1.1.0 as 6
         say 1 health; health 6
         say 1 smoke; smoke 6
         say 1 join; join 6
         say 1 joined out 70 cut 1; say 1 monitor; monitor 6 5000
         say 1 done out 70 cut 1",
    );
    assert_eq!(node.rests(), "1.1.0 as 6 In, before it 1.0.0");
}

#[test]
fn start_first() {
    let mut node = Node::serving();
    node.ordered(|order| order.start_first = true).ok(9);
    check(
        node.said(),
        "say 1 fetch; fetch 1.1.0
         say 1 start; start 1.1.0 as 3b
         say 1 health; health 3b
         say 1 smoke; smoke 3b
         say 1 join; join 3b
         say 1 drain; drain 1
         say 1 stop; stop 1 for good
         say 1 swap; swap 1.1.0
         say 1 joined out 0 cut 1; say 1 monitor; monitor 3b 5000
         say 1 done out 0 cut 1",
    );
    assert_eq!(node.rests(), "1.1.0 as 3b In, before it 1.0.0");
    let next = |order: &mut UpdateOrder| {
        (order.attempt, order.start_first) = (2, true);
        order.spec = release("1.2.0", false, false);
    };
    node.ordered(next).ok(1);
    assert!(node.said().ends_with("start 1.2.0 as 12"), "the labels take turns");
}

/// What starts alone takes the place of what was there, so that no member stays in the pool that nobody is.
#[test]
fn a_member_keeps_its_label_where_nothing_starts_beside_it() {
    let mut node = Node::serving();
    node.ordered(|order| order.start_first = true).ok(9);
    assert_eq!(node.rests(), "1.1.0 as 3b In, before it 1.0.0");
    let next = |order: &mut UpdateOrder| {
        (order.attempt, order.spec) = (2, release("1.2.0", false, false));
    };
    node.ordered(next).ok(8);
    assert!(node.rests().starts_with("1.2.0 as 15b In"), "{}", node.rests());
    // So does what a restore puts back.
    let next = |order: &mut UpdateOrder| {
        (order.attempt, order.spec) = (3, release("1.3.0", false, false));
    };
    node.ordered(next).ok(5).fails("no").ok(6);
    assert!(node.rests().contains("b In"), "{}", node.rests());
}

#[test]
fn hooks_run_forward_and_not_back() {
    let mut node = Node::serving();
    node.ordered(|order| order.spec = release("1.1.0", false, true)).ok(11);
    let said = node.said();
    for hook in ["BeforeDrain", "BeforeStart", "AfterJoin"] {
        assert!(said.contains(hook), "{hook}: {said}");
    }
    let back = |order: &mut UpdateOrder| {
        (order.attempt, order.direction) = (2, Direction::Back);
        order.spec = release("1.0.0", true, true);
    };
    node.ordered(back).ok(8);
    let said = node.said();
    assert!(!said.contains("hooks") && !said.contains("smoke"), "{said}");
    assert_eq!(node.rests(), "1.0.0 as 17 In, before it 1.1.0");
}

#[test]
fn the_first_release_of_a_node() {
    let mut node = Node::bare();
    node.ordered(|_| ()).ok(7);
    check(
        node.said(),
        "say 1 fetch; fetch 1.1.0
         say 1 swap; swap 1.1.0
         say 1 start; start 1.1.0 as 3
         say 1 health; health 3
         say 1 smoke; smoke 3
         say 1 join; join 3
         say 1 joined out 0 cut 0; say 1 monitor; monitor 3 5000
         say 1 done out 0 cut 0",
    );
    assert_eq!(node.rests(), "1.1.0 as 3 In, before it none");
    let mut node = Node::bare();
    node.ordered(|_| ()).ok(3).fails("not healthy").ok(2);
    let said = node.said();
    assert!(said.ends_with("failed at Health: not healthy; Out, runs nothing"), "{said}");
}

/// For every step: what its failure makes the node do. It always ends as it was.
#[test]
fn failure_at_each_step() {
    for (steps, start_first, does) in [
        (0, false, ""),
        (1, false, "join"),
        (2, false, "join"),
        (3, false, "swap start health join"),
        (4, false, "stop swap start health join"),
        (5, false, "stop swap start health join"),
        (6, false, "stop swap start health join"),
        (7, false, "drain stop swap start health join"),
        (8, false, "drain stop swap start health join"),
        (0, true, ""),
        (1, true, "stop"),
        (2, true, "stop"),
        (3, true, "stop"),
        (4, true, "drain stop"),
        (5, true, "join drain stop"),
        (6, true, "join drain stop"),
        (7, true, "drain stop swap start health join"),
        (8, true, "drain stop swap start health join"),
    ] {
        let mut node = Node::serving();
        node.ordered(|order| order.start_first = start_first).ok(steps);
        node.said();
        let jobs = does.split_whitespace().count();
        node.fails("no").ok(jobs);
        let said = node.said();
        let done: Vec<&str> = said
            .split("\n")
            .flat_map(|line| line.split("; "))
            .filter_map(|deed| deed.split(' ').next())
            .filter(|verb| !["say", "Restored,", "Untouched,", ""].contains(verb))
            .collect();
        assert_eq!(done.join(" "), does, "after {steps} steps, start-first {start_first}:\n{said}");
        let left = if steps == 0 { "Untouched, runs 1.0.0" } else { "Restored, runs 1.0.0" };
        assert!(said.ends_with(left), "after {steps} steps: {said}");
        let rests = node.rests();
        assert!(
            rests.starts_with("1.0.0 as ") && rests.ends_with(" In, before it none"),
            "{rests}"
        );
    }
}

#[test]
fn a_restore_that_fails_is_loud() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(6).fails("500").ok(3).fails("not healthy either");
    check(
        node.said().lines().skip(7).collect::<Vec<_>>().join("\n"),
        "say 1 restore; stop 6
         swap 1.0.0
         start 1.0.0 as 11
         health 11
         say 1 failed at Smoke: 500; Out (the previous release did not get healthy: \
         not healthy either), runs 1.0.0",
    );
    assert_eq!(node.rests(), "1.0.0 as 11 Out, before it 1.0.0");
    // It stays out, also over a boot, until somebody asks.
    node.boots(&[11]);
    check(node.said(), "assert 11 Out; drain 11 and cut");
}

/// Only the one that could not be ended is the trouble: the old one serves on.
#[test]
fn a_new_instance_that_cannot_be_ended() {
    let mut node = Node::serving();
    node.ordered(|order| order.start_first = true).ok(3).fails("500").fails("it does not die");
    let said = node.said();
    assert!(
        said.ends_with(
            "Restored (the failed release could not be stopped: it does not die), runs 1.0.0; \
             wait 500"
        ),
        "{said}"
    );
    assert_eq!(node.rests(), "1.0.0 as 1 In, before it none, clearing");
}

impl Node {
    /// 1.1.0 was joined beside 1.0.0 and failed, and nobody could be told that it leaves again.
    fn with_a_stray() -> Self {
        let mut node = Self::serving();
        node.ordered(|order| order.start_first = true).ok(4).fails("500").fails("no edge");
        let said = node.said();
        let end = "Restored (the failed release could not leave traffic: no edge), runs 1.0.0; \
                   wait 500";
        assert!(said.ends_with(end), "{said}");
        node
    }
}

#[test]
fn what_a_restore_could_not_get_rid_of_is_tried_until_it_is_gone() {
    let mut node = Node::with_a_stray();
    node.ok(1).fails("no edge").ok(5);
    let expected = "drain 3b and cut
         wait 1000
         drain 3b and cut
         stop 3b for good
         swap 1.0.0";
    check(node.said(), expected);
    assert_eq!(node.rests(), "1.0.0 as 1 In, before it none");
    assert_eq!(node.told, ["1.1.0, which failed, is out of traffic and ended"]);
    // A boot changes nothing about it, whoever is alive; nor does the end of the one that serves.
    let mut node = Node::with_a_stray();
    node.boots(&[1, 3]).ok(5);
    let booted = format!("assert 3b Out; assert 1 In; join 1\nwait 500\n{}", tail(expected, 3));
    check(node.said(), &booted);
    let mut node = Node::with_a_stray();
    node.exits(1).ok(8);
    let revived = "wait 0\nstart 1.0.0 as 10\nhealth 10\njoin 10\nwait 500";
    check(node.said(), &format!("{revived}\n{}", tail(expected, 3)));
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len() - lines..].join("\n")
}

/// Its name among the pool's members is taken: an order waits for one try, and is refused if that fails, too.
#[test]
fn orders_and_drains_while_something_is_left_over() {
    let another = |order: &mut UpdateOrder| (order.attempt, order.start_first) = (2, true);
    let mut node = Node::with_a_stray();
    node.ordered(another).ok(3);
    check(
        node.said(),
        "drain 3b and cut
         stop 3b for good
         swap 1.0.0
         say 2 fetch; fetch 1.1.0",
    );
    let mut node = Node::with_a_stray();
    node.ordered(another).fails("no edge");
    let refused = "say 2 failed at Drain: 1.1.0, which failed, is still there: no edge; \
                   Untouched, runs 1.0.0";
    check(node.said(), &format!("drain 3b and cut\n{refused}; wait 1000"));
    for alive in [&[1, 3][..], &[3]] {
        let mut node = Node::with_a_stray();
        node.ordered(another).boots(alive);
        let said = node.said();
        assert!(said.contains("say 2 failed at Drain: 1.1.0, which failed, is"), "{said}");
    }
    // An operator's drain takes both out.
    let mut node = Node::with_a_stray();
    node.hear(What::Standing { drained: true }).ok(5);
    check(
        node.said(),
        "drain 1 and cut
         wait 500
         drain 3b and cut
         stop 3b for good
         swap 1.0.0
         drain 1 and cut",
    );
    // And nobody goes back meanwhile.
    let mut node = Node::with_a_stray();
    node.app.previous = Some(release("0.9.0", false, false));
    node.hear(What::AskedBack);
    check(node.said(), "");
}

#[test]
fn left_for_inspection() {
    let mut node = Node::serving();
    node.ordered(|order| order.leave_on_failure = true).ok(6).fails("500");
    let said = node.said();
    assert!(said.ends_with("say 1 restore; say 1 failed at Smoke: 500; Out, runs 1.1.0"), "{said}");
    assert_eq!(node.rests(), "1.1.0 as 6 Out, before it 1.0.0");
    // A retry that fails does not put the failed release into traffic.
    node.ordered(|order| order.attempt = 2).fails("corrupt");
    check(
        node.said(),
        "say 2 fetch; fetch 1.1.0
         say 2 failed at Fetch: corrupt; Untouched, runs 1.1.0",
    );
    assert_eq!(node.rests(), "1.1.0 as 6 Out, before it 1.0.0");
    // And one that fails later goes back to what was proven.
    node.ordered(|order| (order.attempt, order.start_first) = (3, true)).ok(6).fails("500").ok(5);
    check(
        node.said().lines().skip(1).collect::<Vec<_>>().join("\n"),
        "say 3 drain; drain 6
         say 3 stop; stop 6
         say 3 swap; swap 1.1.0
         say 3 start; start 1.1.0 as 14
         say 3 health; health 14
         say 3 smoke; smoke 14
         say 3 restore; stop 14
         swap 1.0.0
         start 1.0.0 as 19
         health 19
         join 19
         say 3 failed at Smoke: 500; Restored, runs 1.0.0",
    );
    assert_eq!(node.rests(), "1.0.0 as 19 In, before it 1.0.0");
}

/// A crash of the agent at each step, everything alive: the same job once more, and the same end.
#[test]
fn a_crash_at_each_step() {
    for start_first in [false, true] {
        for crash in 0..=8 {
            let mut node = Node::serving();
            node.ordered(|order| order.start_first = start_first).ok(crash);
            let last = node.said().lines().last().unwrap_or_default().to_owned();
            let again = last.rsplit("; ").next().unwrap_or_default().to_owned();
            let alive: Vec<u64> = (1..=node.app.counter).collect();
            node.boots(&alive);
            let said = node.said();
            assert!(said.ends_with(&again), "after {crash} steps: {again}, then {said}");
            node.ok(9 - crash);
            assert!(node.rests().starts_with("1.1.0"), "after {crash} steps: {}", node.rests());
        }
    }
}

/// A crash of the agent amid a restore.
#[test]
fn a_crash_amid_a_restore() {
    for crash in 0..5 {
        let mut node = Node::serving();
        node.ordered(|_| ()).ok(6).fails("500").ok(crash);
        let alive: Vec<u64> = (1..=node.app.counter).collect();
        node.boots(&alive).ok(5);
        assert!(node.rests().starts_with("1.0.0"), "after {crash} steps: {}", node.rests());
        assert!(node.said().contains("Restored, runs 1.0.0"), "after {crash} steps");
    }
}

/// The host lost its power at each step: no process is left.
#[test]
fn a_reboot_at_each_step() {
    for start_first in [false, true] {
        for crash in 0..=8 {
            let mut node = Node::serving();
            node.ordered(|order| order.start_first = start_first).ok(crash);
            node.boots(&[]).ok(16);
            let rests = node.rests();
            assert!(rests.contains(" In,") && !rests.contains("ing"), "after {crash}: {rests}");
            assert!(rests.contains(" as "), "after {crash} steps something runs: {rests}");
        }
    }
}

#[test]
fn a_term_heard_with_anything_refuses_older_orders() {
    let mut node = Node::serving();
    node.hear(What::Heard { rollout: ORDER.to_owned(), term: 4 });
    check(node.said(), "");
    node.ordered(|_| ());
    check(node.said(), "say 1 stale, newest 4");
    node.hear(What::Heard { rollout: ORDER.to_owned(), term: 2 });
    node.ordered(|order| order.term = 4);
    assert!(node.said().contains("fetch"), "the term that was heard is obeyed");
}

#[test]
fn repeated_stale_and_newer_orders() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(1);
    node.said();
    node.ordered(|_| ());
    check(node.said(), "say 1 drain");
    node.ordered(|order| order.term = 2);
    check(node.said(), "say 1 stale, newest 3");
    node.ordered(|order| order.term = 5);
    check(node.said(), "say 1 drain");
    node.ordered(|_| ());
    check(node.said(), "say 1 stale, newest 5");
    node.ordered(|order| (order.term, order.attempt) = (5, 0));
    check(node.said(), "");
    node.hear(What::Settle { rollout: ORDER.to_owned(), term: 4 });
    check(node.said(), "");
    // A newer attempt waits until this one has ended.
    node.ordered(|order| (order.term, order.attempt) = (5, 2));
    check(node.said(), "");
    node.ok(8);
    let said = node.said();
    assert!(said.ends_with("say 1 done out 140 cut 1; say 2 fetch; fetch 1.1.0"), "{said}");
}

#[test]
fn a_newer_order_ends_the_monitor_time() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(8);
    node.said();
    let back = |order: &mut UpdateOrder| {
        (order.attempt, order.direction) = (2, Direction::Back);
        order.spec = release("1.0.0", true, false);
    };
    node.ordered(back).ok(1);
    check(node.said(), "say 2 fetch; fetch 1.0.0\nsay 2 drain; drain 6");
}

#[test]
fn results_of_ended_actions_mean_nothing() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(2);
    node.said();
    let before = node.app.clone();
    for action in [0, 1, 2, 3, 99] {
        node.hear(What::Did { action, result: Did::Stopped { killed: true } });
    }
    node.exits(77);
    check(node.said(), "");
    assert_eq!(node.app, before);
}

/// An app that ends during its update, by step.
#[test]
fn the_new_app_ends_during_its_update() {
    for (steps, says) in [(5, "Health"), (6, "Smoke"), (7, "Join"), (8, "Monitor")] {
        let mut node = Node::serving();
        node.ordered(|_| ()).ok(steps).exits(6).ok(6);
        let said = node.said();
        assert!(
            said.contains(&format!("failed at {says}: the app exited with 1; Restored")),
            "{said}"
        );
        assert!(node.rests().starts_with("1.0.0"), "{}", node.rests());
    }
}

#[test]
fn a_late_exit_is_reported_once_and_mended() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(9);
    node.said();
    node.exits(6).ok(4);
    check(
        node.said(),
        "say 1 broken: the app exited with 1; wait 0
         start 1.1.0 as 12
         health 12
         join 12",
    );
    assert_eq!(node.rests(), "1.1.0 as 12 In, before it 1.0.0");
    node.exits(12);
    check(node.said(), "wait 500");
    node.hear(What::Settle { rollout: ORDER.to_owned(), term: 3 });
    check(node.said(), "prune");
}

#[test]
fn a_crash_loop_is_patient() {
    let mut node = Node::serving();
    let mut waits = Vec::new();
    for _ in 0..9 {
        let token = node.app.current.as_ref().unwrap().instance.as_ref().unwrap().token;
        node.exits(token);
        waits.push(node.said());
        node.ok(2); // it starts, and ends before it is healthy
        node.said();
    }
    let expected = [0, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 30_000, 30_000];
    assert_eq!(waits, expected.map(|ms| format!("wait {ms}")));
    node.ok(2);
    node.at += 120_000;
    let token = node.app.current.as_ref().unwrap().instance.as_ref().unwrap().token;
    node.exits(token);
    assert!(node.said().ends_with("wait 0"), "steady again");
}

#[test]
fn a_revival_that_does_not_get_healthy_leaves_before_it_is_ended() {
    let mut node = Node::serving();
    node.exits(1).ok(2).fails("no").ok(3);
    check(
        node.said(),
        "wait 0
         start 1.0.0 as 3
         health 3
         drain 3 and cut
         stop 3
         wait 500
         start 1.0.0 as 8",
    );
}

/// What could not join is kept running, and only the join is tried again.
#[test]
fn a_join_that_is_not_confirmed_is_tried_again() {
    let mut node = Node::serving();
    node.exits(1).ok(3).fails("no edge").ok(2);
    check(
        node.said(),
        "wait 0
         start 1.0.0 as 3
         health 3
         join 3
         wait 500
         join 3",
    );
    assert_eq!(node.rests(), "1.0.0 as 3 In, before it none");
}

#[test]
fn drained_by_an_operator() {
    let mut node = Node::serving();
    let standing = |drained| What::Standing { drained };
    node.hear(standing(true)).ok(1).hear(standing(true)).hear(standing(false)).ok(1);
    check(node.said(), "drain 1 and cut\n\n\njoin 1");
    // What the edges did not confirm is asked again.
    node.hear(standing(true)).fails("no edge").ok(2);
    check(node.said(), "drain 1 and cut\nwait 0\ndrain 1 and cut");
    // It dies: it is started, and stays out.
    node.exits(1).ok(4);
    check(node.said(), "wait 500\nstart 1.0.0 as 8\nhealth 8\ndrain 8 and cut");
    node.boots(&[8]).ok(1);
    check(node.said(), "assert 8 Out; drain 8 and cut");
    // Undrained while it comes back to life: followed when that is over.
    node.boots(&[]).ok(2).hear(standing(false)).ok(2);
    assert!(node.said().ends_with("join 13"), "{}", node.rests());
}

#[test]
fn drained_during_an_update() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(3).hear(What::Standing { drained: true }).ok(6);
    assert!(node.said().ends_with("say 1 done out 80 cut 1; drain 6 and cut"));
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(6).hear(What::Standing { drained: true }).fails("500").ok(4);
    let said = node.said();
    assert!(said.contains("Restored, runs 1.0.0; drain 11 and cut"), "{said}");
}

/// An update that meets an app that is being brought back to life, or moved.
#[test]
fn an_update_interrupts() {
    let mut node = Node::serving();
    node.exits(1).ok(2);
    node.said();
    node.ordered(|_| ()).fails("corrupt").ok(3);
    check(
        node.said(),
        "say 1 fetch; fetch 1.1.0
         say 1 failed at Fetch: corrupt; Untouched, runs 1.0.0; start 1.0.0 as 3
         health 3
         join 3",
    );
    assert_eq!(node.rests(), "1.0.0 as 3 In, before it none");
    // A move into traffic that an update interrupts is made up for by the restore.
    let mut node = Node::serving();
    node.boots(&[1]);
    node.ordered(|order| order.start_first = true).ok(1).fails("no").ok(2);
    let said = node.said();
    assert!(
        said.ends_with("join 1\nstop 4b for good\nsay 1 failed at Start: no; Restored, runs 1.0.0"),
        "{said}"
    );
}

#[test]
fn people_hear_of_what_nobody_ordered() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(9);
    assert_eq!(node.told, [""; 0], "an update tells of itself");
    let token = node.app.current.as_ref().unwrap().instance.as_ref().unwrap().token;
    node.exits(token).ok(4).hear(What::AskedBack);
    let expected = [
        "1.1.0 exited with 1; it is started again",
        "1.1.0 runs again, healthy and in traffic",
        "back to 1.0.0: asked for on the node",
    ];
    assert_eq!(node.told, expected);
}

#[test]
fn asked_back_on_the_node() {
    let mut node = Node::serving();
    node.hear(What::AskedBack);
    check(node.said(), "");
    node.ordered(|_| ()).hear(What::AskedBack).ok(9);
    node.said();
    node.hear(What::AskedBack).ok(8);
    check(
        node.said(),
        "say 1 broken: the previous release was asked for on the node; fetch 1.0.0
         drain 6
         stop 6
         swap 1.0.0
         start 1.0.0 as 15
         health 15
         join 15
         monitor 15 0",
    );
    assert_eq!(node.rests(), "1.0.0 as 15 In, before it 1.1.0");
}

#[test]
fn adopted_after_a_restart_of_the_agent() {
    let mut node = Node::serving();
    node.boots(&[1]).ok(1);
    check(node.said(), "assert 1 In; join 1");
    node.boots(&[]).ok(4);
    check(node.said(), "wait 0\nstart 1.0.0 as 4\nhealth 4\njoin 4");
    assert_eq!(node.rests(), "1.0.0 as 4 In, before it none");
    let mut bare = Node::bare();
    bare.boots(&[]);
    check(bare.said(), "");
}

/// The power went while the operator's scripts ran after a restore.
#[test]
fn a_reboot_during_on_failure() {
    let mut node = Node::serving();
    let hooks = |order: &mut UpdateOrder| {
        order.start_first = true;
        order.spec = release("1.1.0", true, true);
    };
    node.ordered(hooks).ok(3).fails("no").ok(1);
    assert!(node.said().ends_with("hooks OnFailure"));
    node.boots(&[]).ok(5);
    let said = node.said();
    assert!(said.contains("start 1.0.0") && said.contains("Restored, runs 1.0.0"), "{said}");
}

#[test]
fn drain_progress_is_told() {
    let mut node = Node::serving();
    node.ordered(|_| ()).ok(1);
    node.said();
    node.hear(What::Draining { in_flight: 4 }).hear(What::Draining { in_flight: 2 });
    check(node.said(), "say 1 drain 4\nsay 1 drain 2");
    node.ok(1).hear(What::Draining { in_flight: 1 });
    assert!(node.said().ends_with("stop 1"));
}

#[test]
fn old_fences_are_forgotten_first() {
    let mut node = Node::serving();
    for revision in [7, 8, 9, 10, 11] {
        node.ordered(|order| order.rollout = format!("shop/prod/{revision}")).ok(9);
    }
    let kept: Vec<&String> = node.app.fences.keys().collect();
    assert_eq!(kept, ["shop/prod/10", "shop/prod/11", "shop/prod/8", "shop/prod/9"]);
}

#[test]
fn what_who_asks_is_told() {
    let mut node = Node::serving();
    let mut told = format!("{:?}", node.app.ready());
    node.ordered(|_| {});
    for _ in 0..9 {
        write!(told, " {:?}", node.app.ready()).unwrap();
        node.ok(1);
    }
    // fetch; drain, stop; swap, start, health, smoke; join, monitor
    assert_eq!(told, "In In Out Out Down Down Down Down In In");
    node.exits(node.app.serving().unwrap().token);
    assert_eq!(node.app.ready(), Ready::Down, "it died");
    node.ok(3);
    assert_eq!(node.app.ready(), Ready::In, "it is well again, and joins");
    node.ok(1).hear(What::Standing { drained: true });
    assert_eq!(node.app.ready(), Ready::Out, "an operator drains the node");
    node.ok(1).hear(What::Standing { drained: false });
    assert_eq!(node.app.ready(), Ready::In);
}
