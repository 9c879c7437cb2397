//! The behaviours: each starts its own apps, and says what must come of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rota_agent::runtime::{Exit, Runtime, command};
use rota_agent::spec::{Driver, Limits};

use crate::bench::{Bench, LONG, SHORT, all_gone, chain, processes_with};

/// Waits until it is told to end; also as the first process of a container, which only a handler ends.
const IDLE: &str = "trap 'exit 0' TERM; while :; do sleep 0.02; done";

const TERM: i32 = 15;
const KILL: i32 = 9;

pub async fn an_app_runs_with_its_own_environment(bench: &Bench) {
    let file = bench.folder().join("settings.env");
    fs::write(&file, "FROM_FILE='a $ecret \"x\\y`'\nLOG=file\n").expect("is written");
    let script = "pwd; umask; echo $0 $1; env; echo end";
    let mut start = bench.shell("environment", script);
    start.spec.run.command.extend(["{app} $HOME".into(), "--port={port}".into()]);
    start.spec.run.env.insert("LOG".into(), "info-{label.zone}-{{x}}".into());
    start.spec.run.env.insert("PERCENT".into(), "%n%%".into());
    start.spec.run.env_file = Some(file.display().to_string());
    let running = bench.start(&start).await;
    let output = bench.wrote(&running, "end\n").await;
    assert_eq!(running.exited().await, Exit::Code(0), "{output}");
    let mut lines = output.lines();
    if bench.driver != Driver::Docker {
        assert_eq!(lines.next(), start.folder.to_str());
        assert_eq!(lines.next(), Some("0022"));
    }
    for wanted in [
        "environment $HOME --port=9000",
        "FROM_FILE=a $ecret \"x\\y`",
        "LOG=info-a-{x}",
        "PERCENT=%n%%",
        "PORT=9000",
        "ROTA_APP=environment",
        "ROTA_ENV=prod",
        "ROTA_NODE=web-01",
        "ROTA_VERSION=1.2.0",
    ] {
        assert!(output.lines().any(|line| line == wanted), "no {wanted} in {output}");
    }
    assert!(!output.contains("CARGO"), "{output}");
}

pub async fn exit_codes_are_known(bench: &Bench) {
    let rows = [
        ("exit 0", Exit::Code(0)),
        ("exit 3", Exit::Code(3)),
        ("sleep 0.2; exit 4", Exit::Code(4)),
    ];
    for (script, expected) in rows {
        let running = bench.start(&bench.shell("exits", script)).await;
        assert_eq!(running.exited().await, expected, "{script}");
        assert_eq!(running.exit(), Some(expected));
        bench.runtime.kill_leftovers(running.instance()).await.expect("nothing is left");
    }
    if bench.driver != Driver::Docker {
        let running = bench.start(&bench.shell("exits", "sleep 0.2; kill -KILL $$")).await;
        assert_eq!(running.exited().await, Exit::Signal(KILL));
    }
}

pub async fn what_cannot_start_says_why(bench: &Bench) {
    for (command, why) in [
        (&["./missing"][..], "./missing"),
        (&["no-such-program"], "no-such-program"),
        (&["./{nmae}"], "uses {nmae}, which is not known here"),
    ] {
        let mut start = bench.shell("refused", "");
        start.spec.run.command = command.iter().map(|word| (*word).to_owned()).collect();
        let refusal = bench.refusal(&start).await;
        assert!(refusal.starts_with("cannot start refused 1.2.0: "), "{refusal}");
        assert!(refusal.contains(why), "{refusal}");
        assert!(bench.runtime.find("refused", "").await.expect("is looked for").is_none());
    }
    if bench.driver == Driver::Docker {
        return;
    }
    let mut start = bench.shell("refused", "");
    let script = start.folder.join("script");
    fs::write(&script, "#!/no/such/interpreter -x\n").expect("is written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("is set");
    start.spec.run.command = vec!["./script".into()];
    let refusal = bench.refusal(&start).await;
    assert!(refusal.contains("needs the interpreter /no/such/interpreter"), "{refusal}");
    start.folder = bench.folder().join("gone");
    let refusal = bench.refusal(&start).await;
    assert!(refusal.contains("/gone"), "{refusal}");
}

pub async fn an_app_runs_as_its_user(bench: &Bench) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may start apps as somebody else");
        return;
    }
    let mut start = bench.shell("user", "id -u; echo again >>/dev/stdout; echo end");
    start.spec.run.user = Some("nobody".into());
    let running = bench.start(&start).await;
    let output = bench.wrote(&running, "end\n").await;
    assert_eq!(output, "65534\nagain\nend\n");
    start.spec.run.user = Some("no-such-user".into());
    let refusal = bench.refusal(&start).await;
    assert!(refusal.contains("no-such-user"), "{refusal}");
}

pub async fn its_own_signal_asks_it_to_stop(bench: &Bench) {
    let script = "trap 'echo bye; exit 5' USR1; echo up; while :; do sleep 0.02; done";
    let mut start = bench.shell("asked", script);
    start.spec.run.stop_signal = 10;
    let running = bench.start(&start).await;
    bench.wrote(&running, "up\n").await;
    let stopped = bench.runtime.stop(&running, 10, LONG).await.expect("stops");
    assert_eq!((stopped.killed, stopped.exit), (false, Exit::Code(5)));
    assert!(bench.runtime.find("asked", "").await.expect("is looked for").is_none());
    let again = bench.runtime.stop(&running, 10, LONG).await.expect("is stopped already");
    assert_eq!((again.killed, again.exit), (false, Exit::Code(5)));
}

pub async fn what_does_not_stop_is_killed(bench: &Bench) {
    let mut start = bench.shell("stubborn", "trap '' TERM; echo up; while :; do sleep 0.02; done");
    start.spec.run.stop_timeout = SHORT;
    let running = bench.start(&start).await;
    bench.wrote(&running, "up\n").await;
    let begun = Instant::now();
    let stopped = bench.runtime.stop(&running, TERM, SHORT).await.expect("stops");
    assert!(begun.elapsed() >= SHORT, "it had no time to end");
    assert!(stopped.killed, "{stopped:?}");
    let killed = [Exit::Signal(KILL), Exit::Code(128 + KILL)];
    assert!(killed.contains(&stopped.exit), "{stopped:?}");
}

/// A number that is nobody else's, for `sleep` to be found by: the drivers' suites run beside each other.
fn unique(bench: &Bench, row: u32) -> String {
    let driver = match bench.driver {
        Driver::Exec => 1,
        Driver::Systemd => 2,
        Driver::Docker => 3,
    };
    format!("{driver}{}{row}", 10_000_000 + std::process::id())
}

pub async fn children_end_with_their_app(bench: &Bench) {
    let rows = [
        // A wrapper that dies while its child would live.
        "trap 'exit 0' TERM; sleep {} & echo up; wait",
        // A child that its parent forgot.
        "sh -c 'sleep {} & echo up'; trap 'exit 0' TERM; while :; do sleep 0.02; done",
        // One that leads a session of its own.
        "trap 'exit 0' TERM; setsid sleep {} & echo up; wait",
    ];
    for (row, script) in (0..).zip(rows) {
        if bench.driver == Driver::Exec && row == 2 {
            continue; // a control group would hold it, and not every host has those
        }
        let child = unique(bench, row);
        let running = bench.start(&bench.shell("parent", &script.replace("{}", &child))).await;
        bench.wrote(&running, "up\n").await;
        bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
        assert_eq!(processes_with(&child), 0, "{script}");
    }
}

pub async fn two_instances_of_an_app_run_beside_each_other(bench: &Bench) {
    let first = bench.shell("pair", &format!("echo first; {IDLE}"));
    let mut second = bench.shell("pair", &format!("echo second; {IDLE}"));
    second.instance = "b".into();
    // An app whose name looks like the second instance's.
    let other = bench.shell("pair-b", &format!("echo other; {IDLE}"));
    let (first, second, other) =
        (bench.start(&first).await, bench.start(&second).await, bench.start(&other).await);
    bench.wrote(&first, "first\n").await;
    bench.wrote(&second, "second\n").await;
    bench.wrote(&other, "other\n").await;
    bench.runtime.stop(&first, TERM, LONG).await.expect("stops");
    assert_eq!((second.exit(), other.exit()), (None, None));
    let found = bench.runtime.find("pair", "b").await.expect("is looked for").expect("runs");
    assert_eq!(found.instance(), second.instance());
    bench.runtime.stop(&second, TERM, LONG).await.expect("stops");
    assert_eq!(other.exit(), None);
    bench.runtime.stop(&other, TERM, LONG).await.expect("stops");
}

pub async fn the_next_agent_finds_what_runs(bench: &Bench) {
    let script = "trap 'exit 7' TERM; echo up; while :; do sleep 0.02; done";
    let running = bench.start(&bench.shell("adopted", script)).await;
    bench.wrote(&running, "up\n").await;
    let next = bench.next_agent();
    let found = next.find("adopted", "").await.expect("is looked for").expect("runs");
    assert_eq!(found.instance(), running.instance());
    let json = serde_json::to_string(running.instance()).expect("is kept");
    let kept = serde_json::from_str(&json).expect("is read");
    let adopted = next.adopt(&kept).await.expect("is looked for").expect("runs");
    assert!(next.output(&kept).await.expect("is read").contains("up\n"));
    let stopped = next.stop(&adopted, TERM, LONG).await.expect("stops");
    assert!(!stopped.killed);
    // Only the first agent was the parent of a process; everybody may ask systemd and docker.
    let known = if bench.driver == Driver::Exec { Exit::Unknown } else { Exit::Code(7) };
    assert_eq!(stopped.exit, known);
    assert_eq!(running.exited().await, Exit::Code(7));
    assert!(next.adopt(&kept).await.expect("is looked for").is_none());
}

pub async fn an_agent_that_is_killed_leaves_its_app_alone(bench: &Bench) {
    let mut agent = Command::new(std::env::current_exe().expect("a path"))
        .args(["--ignored", "--exact", "part"])
        .env(crate::PART, "agent")
        .env("ROTA_TEST_FOLDER", bench.folder())
        .env("ROTA_TEST_AGENT", bench.agent())
        .env("ROTA_TEST_DRIVER", bench.driver.to_string())
        .env("ROTA_TEST_IMAGE", &bench.image)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let begun = Instant::now();
    while !bench.folder().join("started").exists() {
        assert!(begun.elapsed() < LONG, "the app was never started");
        // The pace of looking at what another process does.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    agent.kill().expect("is killed");
    agent.wait().expect("is gone");
    let running = bench.runtime.find("outlives", "").await.expect("is looked for").expect("lives");
    bench.wrote(&running, "up\n").await;
    let end = tokio::time::timeout(SHORT, running.exited()).await;
    assert!(end.is_err(), "it ended: {end:?}");
    let stopped = bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
    assert!(!stopped.killed);
}

pub async fn what_has_ended_is_not_found(bench: &Bench) {
    assert!(bench.runtime.find("never-was", "").await.expect("is looked for").is_none());
    let running = bench.start(&bench.shell("ended", "exit 1")).await;
    running.exited().await;
    assert!(bench.runtime.find("ended", "").await.expect("is looked for").is_none());
    assert!(bench.next_agent().find("ended", "").await.expect("is looked for").is_none());
    // Its name is free for the next start.
    let running = bench.start(&bench.shell("ended", IDLE)).await;
    bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
}

pub async fn leftovers_of_a_crash_are_killed(bench: &Bench) {
    let child = unique(bench, 9);
    let script = format!("(trap '' TERM; sleep {child}) & echo up; exit 1");
    let mut start = bench.shell("crashed", &script);
    start.spec.run.stop_timeout = LONG;
    let running = bench.start(&start).await;
    assert_eq!(running.exited().await, Exit::Code(1));
    bench.runtime.kill_leftovers(running.instance()).await.expect("kills");
    all_gone(&child).await;
    let none = bench.runtime.kill_leftovers(running.instance()).await.expect("nothing is left");
    assert_eq!(none, 0);
    let next = bench.start(&bench.shell("crashed", &format!("echo next; {IDLE}"))).await;
    bench.wrote(&next, "next\n").await;
    bench.runtime.stop(&next, TERM, LONG).await.expect("stops");
}

pub async fn output_is_that_of_this_start(bench: &Bench) {
    let first = bench.start(&bench.shell("talks", "echo first")).await;
    first.exited().await;
    let second = bench.start(&bench.shell("talks", "echo second; echo error >&2")).await;
    second.exited().await;
    let output = bench.runtime.output(second.instance()).await.expect("is read");
    // dockerd reads stdout and stderr each for itself.
    let lines: BTreeSet<&str> = output.lines().collect();
    assert_eq!(lines, BTreeSet::from(["second", "error"]), "{output}");
}

pub async fn limits_hold_or_are_refused(bench: &Bench) {
    let limits = Limits {
        memory: Some(64 << 20),
        cpu_percent: Some(50),
        tasks: Some(40),
        open_files: Some(99),
    };
    let mut start = bench.shell("limited", "ulimit -n; echo end");
    start.spec.run.limits = limits;
    if bench.driver == Driver::Exec && bench.runtime.check(&start.spec).await.is_err() {
        let error = bench.runtime.check(&start.spec).await.expect_err("no controllers");
        let error = chain(&error);
        assert!(
            error.starts_with("[run] limits.memory cannot be done by the driver exec"),
            "{error}"
        );
        start.spec.run.limits = Limits { open_files: Some(99), ..Limits::default() };
    }
    bench.runtime.check(&start.spec).await.expect("it can");
    let running = bench.start(&start).await;
    assert_eq!(bench.wrote(&running, "end\n").await, "99\nend\n");
    running.exited().await;
    if bench.driver == Driver::Exec {
        return;
    }
    // It reads without end into a variable.
    let script = "x=$(tr '\\0' x </dev/zero); echo $x | wc -c; exec sleep 100000";
    let mut start = bench.shell("greedy", script);
    start.spec.run.limits = limits;
    let running = bench.start(&start).await;
    let exit = running.exited().await;
    // With control groups of the first version the kernel may tell nobody why.
    let told = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let killed = [Exit::Signal(KILL), Exit::Code(128 + KILL)];
    assert!(exit == Exit::OutOfMemory || (!told && killed.contains(&exit)), "{exit:?}");
}

pub async fn secrets_are_not_shown(bench: &Bench) {
    let secret = "hunter2-of-the-suite";
    let mut start = bench.shell("secretive", &format!("echo up; {IDLE}"));
    start.spec.run.env.insert("PASSWORD".into(), secret.into());
    let running = bench.start(&start).await;
    bench.wrote(&running, "up\n").await;
    let pid = running.instance().process.pid;
    let line = fs::read(format!("/proc/{pid}/cmdline")).expect("is read");
    assert!(!String::from_utf8_lossy(&line).contains(secret));
    let shown = match bench.driver {
        Driver::Exec => Vec::new(),
        Driver::Systemd => {
            let unit = running.instance().unit.clone().expect("is a unit");
            let show = Command::new("systemctl").args(["show", "--all", &unit]).output();
            let cat = Command::new("systemctl").args(["cat", &unit]).output();
            [show.expect("runs").stdout, cat.expect("runs").stdout].concat()
        }
        Driver::Docker => {
            let id = running.instance().container.clone().expect("is a container");
            let labels = "--format={{json .Config.Labels}} {{json .Args}}";
            let inspect = Command::new("docker").args(["inspect", labels, &id]).output();
            inspect.expect("runs").stdout
        }
    };
    assert!(bench.driver == Driver::Exec || !shown.is_empty());
    assert!(!String::from_utf8_lossy(&shown).contains(secret));
    let readable =
        |path: &Path| fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o077 != 0);
    assert!(!readable(&bench.folder().join("apps/secretive/run")));
    bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
    let mut broken = bench.shell("secretive", "true");
    broken.spec.run.env.insert("BAD=NAME".into(), secret.into());
    let refusal = bench.refusal(&broken).await;
    assert!(refusal.contains("BAD=NAME") && !refusal.contains(secret), "{refusal}");
}

pub async fn an_app_says_when_it_is_ready(bench: &Bench) {
    let mut start = bench.shell("notifies", "sleep 0.3; echo up; systemd-notify --ready; wait");
    start.spec.run.command[2] += "; exec sleep 100000";
    start.spec.run.notify = true;
    if bench.driver != Driver::Systemd {
        let error = bench.runtime.check(&start.spec).await.expect_err("only systemd listens");
        let error = chain(&error);
        assert!(error.starts_with("[run] notify cannot be done by the driver "), "{error}");
        return;
    }
    let running = bench.start(&start).await;
    let output = bench.runtime.output(running.instance()).await.expect("is read");
    assert_eq!(output, "up\n", "it was ready only then");
    bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
    start.spec.run.command[2] = "echo dying; exit 3".into();
    let running = bench.start(&start).await;
    assert_eq!(running.exited().await, Exit::Code(3));
    start.spec.run.command[2] = "echo hanging; exec sleep 100000".into();
    // It must have begun to run and have said something meanwhile.
    start.spec.health.deadline = Duration::from_secs(2);
    let refusal = bench.runtime.start(&start).await.expect_err("is never ready");
    assert_eq!(refusal.output(), "hanging\n");
    assert!(chain(&refusal).contains("did not say READY=1 within 2s"));
}

/// systemd knows the name of a unit that others wait for, and of one that it has just forgotten: neither is in the way.
pub async fn a_unit_that_is_only_mentioned_is_no_obstacle(bench: &Bench) {
    if bench.driver != Driver::Systemd {
        return;
    }
    let waits = "[Unit]\nAfter=rota-mentioned.service\n[Service]\nExecStart=/bin/sleep infinity\n";
    fs::write("/run/systemd/system/mentions.service", waits).expect("is written");
    let systemctl = |args: &[&str]| Command::new("systemctl").args(args).output().expect("runs");
    assert!(systemctl(&["start", "mentions.service"]).status.success());
    let shown = systemctl(&["show", "--property=LoadState", "rota-mentioned.service"]).stdout;
    assert_eq!(String::from_utf8_lossy(&shown), "LoadState=not-found\n");
    let start = bench.shell("mentioned", IDLE);
    for _ in 0..2 {
        let running = bench.start(&start).await;
        bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
    }
    assert!(systemctl(&["stop", "mentions.service"]).status.success());
}

/// An order that comes in the middle of a start ends it there; what it left behind is found, and in nobody's way.
pub async fn a_start_that_was_given_up_is_no_obstacle(bench: &Bench) {
    let mut start = bench.shell("given-up", IDLE);
    start.spec.run.notify = bench.driver == Driver::Systemd;
    if start.spec.run.notify {
        let ended = tokio::select! {
            () = bench.runs("given-up") => None,
            ended = bench.runtime.start(&start) => Some(ended),
        };
        assert!(ended.is_none(), "it said nothing, and is waited for: {ended:?}");
        start.spec.run.notify = false;
    } else {
        bench.start(&start).await;
    }
    for _ in 0..2 {
        let found = bench.runtime.find("given-up", "").await.expect("is looked for");
        bench.runtime.stop(&found.expect("runs"), TERM, LONG).await.expect("stops");
        bench.start(&start).await;
    }
    let found = bench.runtime.find("given-up", "").await.expect("is looked for").expect("runs");
    bench.runtime.stop(&found, TERM, LONG).await.expect("stops");
}

pub async fn commands_run_beside_an_app_and_at_it(bench: &Bench) {
    let sh = |script: &str| ["sh", "-c", script].map(str::to_owned);
    let start = bench.shell("commanded", &format!("echo here >$ROTA_APP.mark; echo up; {IDLE}"));
    let running = bench.start(&start).await;
    bench.wrote(&running, "up\n").await;
    let launcher = bench.launcher();
    let tells = sh("echo $ROTA_APP-{version}; exit 3");
    let ended = command::run(&launcher, &start, &tells, LONG).await.expect("runs");
    assert_eq!((ended.exit, &ended.output[..]), (Some(Exit::Code(3)), &b"commanded-1.2.0\n"[..]));
    let at = (&start, running.instance());
    let ended = command::run_inside(&launcher, at, &sh("cat commanded.mark"), LONG).await;
    assert_eq!(ended.expect("runs").output, b"here\n");
    let child = unique(bench, 7);
    let hangs = sh(&format!("echo begun; sleep {child}"));
    let late = Duration::from_secs(1);
    let ended = command::run(&launcher, &start, &hangs, late).await.expect("runs");
    assert_eq!((ended.exit, &ended.output[..]), (None, &b"begun\n"[..]));
    all_gone(&child).await;
    let ended = command::run_inside(&launcher, at, &hangs, late).await.expect("runs");
    assert_eq!((ended.exit, &ended.output[..]), (None, &b"begun\n"[..]));
    let none = ["no-such-program".to_owned()];
    match command::run(&launcher, &start, &none, LONG).await {
        Ok(ended) => panic!("it ran: {ended:?}"),
        Err(error) => assert!(chain(&error).contains("no-such-program"), "{error}"),
    }
    bench.runtime.stop(&running, TERM, LONG).await.expect("stops");
}
