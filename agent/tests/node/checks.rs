//! Health checks, smoke tests and hooks against real processes and sockets.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::common::{LONG, Node, SECOND, is_alive, spec, until};
use rota_agent::health::{Change, Probe, Verdict, wait_healthy, watch};
use rota_agent::hooks::{self, Moment};
use rota_agent::runtime::ports::Ports;
use rota_agent::runtime::{Exit, Running, StartSpec, command};
use rota_agent::smoke;
use rota_agent::spec::{Check, Health, Smoke, SmokeTest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

const QUICK: Duration = Duration::from_millis(300);
/// A limit that passes in the test, and within which a command certainly begins and prints.
const SOON: Duration = Duration::from_secs(2);

/// A page at a port: 200 with the path while `good`, else 500.
#[derive(Clone)]
struct Site {
    good: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
}

impl Site {
    fn new(good: bool) -> Site {
        Site { good: Arc::new(AtomicBool::new(good)), asked: Arc::default() }
    }

    async fn open(self, port: u16) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("is free");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                self.asked.fetch_add(1, Ordering::SeqCst);
                let mut asked = vec![0; 4096];
                let read = stream.read(&mut asked).await.unwrap_or(0);
                let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
                let path = asked.split(' ').nth(1).unwrap_or("").to_owned();
                let status = if self.good.load(Ordering::SeqCst) { "200 OK" } else { "500 Oh" };
                let reply =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{path}", path.len());
                // A caller that hung up is none of the site's business.
                let _sent = stream.write_all(reply.as_bytes()).await;
            }
        });
        port
    }
}

struct App {
    node: Node,
    start: StartSpec,
    running: Running,
}

impl App {
    async fn new(script: &str, port: Option<u16>) -> App {
        let node = Node::new();
        let mut start = node.start_spec(spec(script));
        start.port = port;
        let running = node.start(script).await;
        App { node, start, running }
    }

    fn probe(&self) -> Probe<'_> {
        Probe { launcher: &self.node.launcher, start: &self.start, running: &self.running }
    }

    async fn verdict(&self, health: &Health) -> Verdict {
        wait_healthy(self.probe(), health).await
    }

    async fn end(self) {
        self.node.end(&self.running).await;
    }
}

fn health(check: Check) -> Health {
    Health { check, ..spec("").health }
}

#[tokio::test]
async fn healthy_is_what_answers() {
    let site = Site::new(true);
    let port = site.clone().open(0).await;
    let app = App::new("exec sleep 1000", Some(port)).await;
    let sh = |script: &str| Check::Command(vec!["sh".into(), "-c".into(), script.into()]);
    let rows = [
        Check::Http("/healthz?v={version}".into()),
        Check::Tcp,
        Check::Alive,
        sh("test $PORT = {port} && test $ROTA_APP = shop"),
    ];
    for check in rows {
        let verdict = app.verdict(&health(check.clone())).await;
        assert!(matches!(verdict, Verdict::Healthy { .. }), "{check:?}: {verdict:?}");
    }
    app.end().await;
}

#[tokio::test]
async fn unhealthy_says_what_the_last_check_said() {
    let port = Site::new(false).open(0).await;
    let app = App::new("exec sleep 1000", Some(port)).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_port = silent.local_addr().expect("an address").port();
    let free = Ports::default().free().expect("a port");
    let sh = |script: &str| Check::Command(vec!["sh".into(), "-c".into(), script.into()]);
    let rows = [
        (Some(port), Check::Http("/x".into()), "it answered 500 on /x".to_owned()),
        (Some(free), Check::Http("/x".into()), format!("nothing listens on 127.0.0.1:{free}")),
        (Some(free), Check::Tcp, format!("nothing listens on 127.0.0.1:{free}")),
        (
            Some(silent_port),
            Check::Http("/x".into()),
            format!("no complete answer from 127.0.0.1:{silent_port}/x within 50ms"),
        ),
        (None, Check::Tcp, "it has no port that could be asked".into()),
        (
            Some(port),
            Check::Http("/{nmae}".into()),
            "`/{nmae}` uses {nmae}, which is not known here; known are version, app, env, port, \
             node and label.NAME, and {{ is a brace"
                .into(),
        ),
    ];
    let app_ref = &app;
    let [a, b, c, d, e, f] = rows.map(async |(port, check, expected)| {
        let mut start = app_ref.start.clone();
        start.port = port;
        // Only who never answers may be given up: an answer that comes late says the same as one in time.
        let timeout = if port == Some(silent_port) { Duration::from_millis(50) } else { LONG };
        let health = Health { timeout, deadline: SECOND, ..health(check) };
        match wait_healthy(Probe { start: &start, ..app_ref.probe() }, &health).await {
            Verdict::Unhealthy { cause, tries } => {
                assert_eq!(cause, format!("not healthy within 1s: {expected}"));
                assert!(tries >= 2);
            }
            other => panic!("{expected}: {other:?}"),
        }
    });
    tokio::join!(a, b, c, d, e, f);
    let failing = Health { deadline: SECOND, ..health(sh("echo not yet; exit 4")) };
    let expected = "not healthy within 1s: the check command exited with code 4: not yet";
    match app.verdict(&failing).await {
        Verdict::Unhealthy { cause, .. } => assert_eq!(cause, expected),
        other => panic!("{other:?}"),
    }
    app.end().await;
}

#[tokio::test]
async fn a_fast_app_is_not_waited_for_and_a_dead_one_neither() {
    let port = Ports::default().free().expect("a port");
    let app = App::new("exec sleep 1000", Some(port)).await;
    let slow = Health { interval: LONG, ..health(Check::Http("/".into())) };
    let began = Instant::now();
    let (verdict, _) = tokio::join!(app.verdict(&slow), async {
        tokio::time::sleep(Duration::from_millis(30)).await; // an app that is slow to listen
        Site::new(true).open(port).await
    });
    let Verdict::Healthy { tries, .. } = verdict else { panic!("{verdict:?}") };
    assert!(tries > 1 && began.elapsed() < LONG / 2, "{tries} tries in {:?}", began.elapsed());
    app.end().await;

    let dying = App::new("sleep 0.1; exit 5", Ports::default().free().ok()).await;
    let verdict = dying.verdict(&slow).await;
    let Verdict::Exited { exit: Exit::Code(5), cause: Some(cause) } = verdict else {
        panic!("{verdict:?}")
    };
    assert!(cause.starts_with("nothing listens on"), "{cause}");
    let at_once = App::new("exit 6", None).await;
    let verdict = at_once.verdict(&Health { interval: SECOND, ..health(Check::Alive) }).await;
    assert_eq!(verdict, Verdict::Exited { exit: Exit::Code(6), cause: None });
}

#[tokio::test]
async fn healthy_for_is_without_a_break() {
    let site = Site::new(true);
    let port = site.clone().open(0).await;
    let app = App::new("exec sleep 1000", Some(port)).await;
    let steady = Health { healthy_for: QUICK, ..health(Check::Http("/".into())) };
    let Verdict::Healthy { after, tries } = app.verdict(&steady).await else { panic!("healthy") };
    assert!(after >= QUICK && tries > 2, "{after:?} {tries}");
    let late = Health { deadline: QUICK, healthy_for: LONG, ..steady.clone() };
    let Verdict::Unhealthy { cause, .. } = app.verdict(&late).await else { panic!("too late") };
    assert!(cause.starts_with("not healthy for 60s within 300ms: it is only since "), "{cause}");
    // A break begins the time anew.
    let asked = site.asked.load(Ordering::SeqCst);
    let began = Instant::now();
    let (verdict, broken_at) = tokio::join!(app.verdict(&steady), async {
        until("two checks", || (site.asked.load(Ordering::SeqCst) >= asked + 2).then_some(()))
            .await;
        site.good.store(false, Ordering::SeqCst);
        let now = site.asked.load(Ordering::SeqCst);
        until("a bad one", || (site.asked.load(Ordering::SeqCst) >= now + 2).then_some(())).await;
        site.good.store(true, Ordering::SeqCst);
        began.elapsed()
    });
    let Verdict::Healthy { after, .. } = verdict else { panic!("{verdict:?}") };
    assert!(after >= broken_at + QUICK - Duration::from_millis(1), "{after:?} {broken_at:?}");
    app.end().await;
}

#[tokio::test]
async fn watching_tells_turns_and_the_end() {
    let site = Site::new(true);
    let port = site.clone().open(0).await;
    let app = App::new("exec sleep 1000", Some(port)).await;
    let (tell, mut changes) = mpsc::channel(4);
    let health = health(Check::Http("/".into()));
    let every = Duration::from_millis(20);
    let steps = async {
        until("checked", || (site.asked.load(Ordering::SeqCst) > 2).then_some(())).await;
        site.good.store(false, Ordering::SeqCst);
        let cause = "it answered 500 on /".to_owned();
        assert_eq!(changes.recv().await, Some(Change::Unhealthy { cause }));
        site.good.store(true, Ordering::SeqCst);
        assert_eq!(changes.recv().await, Some(Change::Healthy));
        app.running.signal(9).expect("kills");
        assert_eq!(changes.recv().await, Some(Change::Exited { exit: Exit::Signal(9) }));
        assert_eq!(changes.recv().await, None);
    };
    tokio::join!(watch(app.probe(), &health, every, tell), steps);
    app.end().await;
}

fn http_test(status: u16, contains: Option<&str>, matches: Option<&str>) -> Smoke {
    let test = SmokeTest::Http {
        path: "/page/v{version}".into(),
        status,
        contains: contains.map(Into::into),
        matches: matches.map(Into::into),
    };
    Smoke { name: "page".into(), test, timeout: LONG, retries: 0 }
}

fn command_test(script: &str, timeout: Duration) -> Smoke {
    let test = SmokeTest::Command(vec!["sh".into(), "-c".into(), script.into()]);
    Smoke { name: "script".into(), test, timeout, retries: 0 }
}

#[tokio::test]
async fn smoke_tests_pass_or_say_what_came() {
    let port = Site::new(true).open(0).await;
    let app = App::new("exec sleep 1000", Some(port)).await;
    let rows = [
        (http_test(200, None, None), ""),
        (http_test(200, Some("/page/v{version}"), Some("v{version}$")), ""),
        (command_test("test $PORT = {port}; pwd; exit 0", LONG), ""),
        (
            http_test(204, None, None),
            "smoke test `page` failed at the first try: GET /page/v1.2.0 answered 200, expected \
             204; the body begins with \"/page/v1.2.0\"",
        ),
        (
            http_test(200, Some("v1.3"), None),
            "smoke test `page` failed at the first try: GET /page/v1.2.0 answered 200 without \
             `v1.3`; the body begins with \"/page/v1.2.0\"",
        ),
        (
            http_test(200, None, Some("^v{version}")),
            "smoke test `page` failed at the first try: GET /page/v1.2.0 answered 200 without a \
             match of `^v1\\.2\\.0`; the body begins with \"/page/v1.2.0\"",
        ),
        (
            command_test("echo no; echo really >&2; exit 3", LONG),
            "smoke test `script` failed at the first try: `sh` exited with code 3 [no\nreally\n]",
        ),
        (
            command_test("echo hangs; sleep 1000", SOON),
            "smoke test `script` failed at the first try: `sh` did not end within 2s and was \
             killed with all that it forked [hangs\n]",
        ),
    ];
    for (test, expected) in rows {
        let got = match smoke::run(app.probe(), std::slice::from_ref(&test)).await {
            Ok(_) => String::new(),
            Err(error) if error.output.is_empty() => error.to_string(),
            Err(error) => format!("{error} [{}]", String::from_utf8_lossy(&error.output)),
        };
        assert_eq!(got, expected);
    }
    let broken = smoke::run(app.probe(), &[http_test(200, None, Some("("))]).await;
    assert!(broken.expect_err("no regex").to_string().contains("`(` is no regular expression"));
    app.end().await;
}

#[tokio::test]
async fn smoke_tests_are_in_order_and_retried() {
    let site = Site::new(false);
    let port = site.clone().open(0).await;
    let app = App::new("exec sleep 1000", Some(port)).await;
    let patient = Smoke { retries: 5, ..http_test(200, None, None) };
    let (result, ()) =
        tokio::join!(smoke::run(app.probe(), std::slice::from_ref(&patient)), async {
            until("one try", || (site.asked.load(Ordering::SeqCst) > 0).then_some(())).await;
            site.good.store(true, Ordering::SeqCst);
        });
    result.expect("passes later");
    site.good.store(false, Ordering::SeqCst);
    let touch = command_test("touch touched", LONG);
    let once = Smoke { retries: 1, ..patient };
    let error = smoke::run(app.probe(), &[once, touch]).await.expect_err("fails");
    assert_eq!(error.tries_made, 2);
    assert!(error.to_string().starts_with("smoke test `page` failed 2 times: "), "{error}");
    assert!(!app.node.release().join("touched").exists(), "the next test is not run");
    app.running.signal(9).expect("kills");
    app.running.exited().await;
    let error = smoke::run(app.probe(), &[http_test(200, None, None)]).await.expect_err("is gone");
    let expected =
        "smoke test `page` failed at the first try: the app was ended by signal 9 meanwhile";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn commands_end_with_all_that_they_forked() {
    let node = Node::new();
    let start = node.start_spec(spec(""));
    let pids = || -> Option<Vec<i32>> {
        let text = fs::read_to_string(node.release().join("pids")).ok()?;
        Some(text.lines().filter_map(|it| it.parse().ok()).collect())
    };
    let sh = |script: &str| ["sh", "-c", script].map(str::to_owned);
    let forking = "sleep 1000 & echo $! > pids; echo out";
    let ended = command::run(&node.launcher, &start, &sh(forking), LONG).await.expect("runs");
    assert_eq!((ended.exit, ended.output.as_slice()), (Some(Exit::Code(0)), &b"out\n"[..]));
    assert!(!pids().expect("was written").iter().any(|pid| is_alive(*pid)));
    let hanging = "trap '' TERM; (sleep 1000 & echo $! > pids; wait) & wait";
    let ended = command::run(&node.launcher, &start, &sh(hanging), QUICK).await.expect("runs");
    assert_eq!(ended.exit, None);
    assert!(!pids().expect("was written").iter().any(|pid| is_alive(*pid)));
    fs::remove_file(node.release().join("pids")).expect("is there");
    let given_up = sh("echo $$ > pids.new; mv pids.new pids; sleep 1000");
    tokio::select! {
        ended = command::run(&node.launcher, &start, &given_up, LONG) => panic!("{ended:?}"),
        _ = until("it runs", || pids().filter(|it| !it.is_empty())) => {}
    }
    let pid = pids().expect("was written")[0];
    until("it is killed", || (!is_alive(pid)).then_some(())).await;
}

#[tokio::test]
async fn much_output_does_not_stop_a_command_and_its_end_is_kept() {
    let node = Node::new();
    let start = node.start_spec(spec(""));
    let argv = ["sh", "-c", "head -c 3000000 /dev/zero; echo; echo the end"].map(str::to_owned);
    let ended = command::run(&node.launcher, &start, &argv, LONG).await.expect("runs");
    assert!(ended.is_success());
    assert_eq!(ended.output.len(), 64 * 1024);
    assert!(ended.output.ends_with(b"\nthe end\n"));
}

#[tokio::test]
async fn hooks_run_in_order_until_one_fails() {
    let node = Node::new();
    let mut start = node.start_spec(spec(""));
    let sh = |script: &str| vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
    start.spec.hooks.before_start =
        vec![sh("echo 1 >> ran"), sh("echo 2 >> ran; pwd; exit 9"), sh("echo 3 >> ran")];
    start.spec.hooks.after_join = vec![sh("echo 4 >> ran")];
    start.spec.hooks.on_failure = vec![vec!["./missing".into()]];
    start.spec.hooks.before_drain = vec![sh("sleep 1000")];
    let run = async |moment, limit| hooks::run_all(&node.launcher, &start, moment, limit).await;
    let error = run(Moment::BeforeStart, LONG).await.expect_err("the second fails");
    assert_eq!(error.to_string(), "hook before_start 2 of 3, `sh`, exited with code 9");
    let release = fs::canonicalize(node.release()).expect("is there");
    assert_eq!(Path::new(String::from_utf8_lossy(&error.output).trim()), release);
    run(Moment::AfterJoin, LONG).await.expect("passes");
    assert_eq!(fs::read_to_string(node.release().join("ran")).expect("ran"), "1\n2\n4\n");
    let error = run(Moment::OnFailure, LONG).await.expect_err("is missing").to_string();
    let begin = "hook on_failure 1 of 1, `./missing`, could not be run: cannot run `./missing`: \
                 there is no file ";
    assert!(error.starts_with(begin), "{error}");
    let error = run(Moment::BeforeDrain, QUICK).await.expect_err("hangs").to_string();
    let expected = "hook before_drain 1 of 1, `sh`, did not end within 300ms and was killed with \
                    all that it forked";
    assert_eq!(error, expected);
}

#[test]
fn an_instance_without_a_port_has_no_address() {
    let node = Node::new();
    let mut start = node.start_spec(spec(""));
    assert_eq!(start.address(), Some(SocketAddr::from(([127, 0, 0, 1], 9000))));
    start.port = None;
    assert_eq!(start.address(), None);
}
