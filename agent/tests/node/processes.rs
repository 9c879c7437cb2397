//! Real processes: started through the shim of the real program, stopped, adopted, and never taken
//! for another.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{LONG, Node, SECOND, chain, is_alive, pid_of, spec, until};
use rota_agent::runtime::exec::Exec;
use rota_agent::runtime::{Exit, Instance, ProcessId, Runtime};

const TERM: i32 = 15;
const KILL: i32 = 9;

#[tokio::test]
async fn an_app_runs_in_its_folder_with_a_clean_environment() {
    let node = Node::new();
    fs::write(node.release().join("settings.env"), "FROM_FILE='a secret'\nLOG=file\n")
        .expect("writes");
    let mut wanted = spec("pwd; umask; echo $0 $1; env; echo end");
    wanted.run.command.extend(["{app}".into(), "--port={port}".into()]);
    wanted.run.env.insert("LOG".into(), "info-{label.zone}-{{x}}".into());
    wanted.run.env_file = Some(node.release().join("settings.env").display().to_string());
    let running = node.exec.start(&node.start_spec(wanted)).await.expect("starts");
    let log = node.wrote("end\n").await;
    assert_eq!(running.exited().await, Exit::Code(0));
    let mut lines = log.lines();
    let release = fs::canonicalize(node.release()).expect("is there");
    assert_eq!(lines.next().map(Path::new), Some(release.as_path()));
    assert_eq!(lines.next(), Some("0022"));
    assert_eq!(lines.next(), Some("shop --port=9000"));
    let known = [
        "FROM_FILE=a secret",
        "HOME=",
        "LANG=",
        "LOG=info-a-{x}",
        "LOGNAME=",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PORT=9000",
        "ROTA_APP=shop",
        "ROTA_ENV=prod",
        "ROTA_NODE=web-01",
        "ROTA_VERSION=1.2.0",
        "TZ=",
        "USER=",
        // What sh itself adds.
        "PWD=",
        "OLDPWD=",
        "SHLVL=",
        "_=",
    ];
    let variables: Vec<_> = lines.take_while(|line| *line != "end").collect();
    for line in &variables {
        assert!(known.iter().any(|it| line.starts_with(it)), "{line} must not be there");
    }
    for wanted in known.iter().filter(|it| !it.ends_with('=')) {
        assert!(variables.contains(wanted), "{wanted} is missing in {variables:?}");
    }
    let mode = fs::metadata(node.exec.log("shop", "")).expect("a log").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[tokio::test]
async fn an_app_leads_its_session_and_inherits_no_descriptors() {
    let node = Node::new();
    // What systemd or a shell may leave open in the agent, here: a descriptor without
    // close-on-exec.
    let leaked = fs::File::open("/dev/null").expect("opens");
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).expect("opens it to children");
    let running = node
        .start("ls -l /proc/self/fd; cat /proc/$$/oom_score_adj; echo end; exec sleep 1000")
        .await;
    let log = node.wrote("end\n").await;
    let open: Vec<_> = log.lines().filter_map(|line| line.split_once(" -> ")).collect();
    // 0, 1, 2, and 3: the folder that ls itself reads.
    assert_eq!(open.len(), 4, "{log}");
    assert!(open[0].1 == "/dev/null" && open[1].1.ends_with("app.log"), "{log}");
    assert!(log.contains("\n0\nend\n"), "{log}");
    let pid = pid_of(running.instance());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("lives");
    let fields: Vec<_> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
    assert_eq!((fields[2], fields[3]), (pid.to_string().as_str(), pid.to_string().as_str()));
    node.end(&running).await;
    drop(leaked);
}

#[tokio::test]
async fn what_cannot_be_run_says_why() {
    let node = Node::new();
    let write = |name: &str, text: &str, mode| {
        let path = node.release().join(name);
        fs::write(&path, text).expect("writes");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("sets it");
    };
    write("plain.txt", "x", 0o644);
    write("script", "#!/no/such/interpreter -x\n", 0o755);
    fs::create_dir(node.release().join("dir")).expect("makes it");
    let here = node.release().display().to_string();
    let rows: [(&[&str], String); 8] = [
        (&["./missing"], format!("cannot run `./missing`: there is no file {here}/./missing")),
        (
            &["no-such-program"],
            "cannot run `no-such-program`: there is no such program in \
             /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
                .into(),
        ),
        (
            &["./plain.txt"],
            format!("cannot run `./plain.txt`: {here}/./plain.txt is not executable (mode 0644)"),
        ),
        (
            &["./script"],
            format!(
                "cannot run `./script`: {here}/./script needs the interpreter \
                 /no/such/interpreter, which is not there"
            ),
        ),
        (&["./dir"], format!("cannot run `./dir`: {here}/./dir is a folder")),
        (&[], "the command is empty".into()),
        (&[""], "the command is empty".into()),
        (
            &["./{nmae}"],
            "`./{nmae}` uses {nmae}, which is not known here; known are version, app, env, port, \
             node and label.NAME, and {{ is a brace"
                .into(),
        ),
    ];
    for (command, expected) in rows {
        let mut wanted = spec("");
        wanted.run.command = command.iter().map(|it| (*it).into()).collect();
        let error = node.start_error(&node.start_spec(wanted)).await;
        assert_eq!(error, format!("cannot start shop 1.2.0: {expected}"));
    }
    let mut gone = node.start_spec(spec("true"));
    gone.folder = node.folder.path().join("gone");
    let expected = format!("cannot enter the folder {}", gone.folder.display());
    assert!(node.start_error(&gone).await.contains(&expected));
    let mut nobody = spec("true");
    nobody.run.user = Some("no-such-user".into());
    let error = node.start_error(&node.start_spec(nobody)).await;
    assert_eq!(error, "cannot start shop 1.2.0: there is no user `no-such-user` in /etc/passwd");
}

#[tokio::test]
async fn an_app_runs_as_its_user() {
    if !rustix::process::getuid().is_root() {
        eprintln!("skipped: only root can switch users");
        return;
    }
    let node = Node::new();
    let mut wanted =
        spec("id -u; id -g; id -G; echo $USER; echo x > file; echo again >> /dev/stdout; echo end");
    wanted.run.user = Some("nobody".into());
    let running = node.exec.start(&node.start_spec(wanted)).await.expect("starts");
    let log = node.wrote("end\n").await;
    running.exited().await;
    let passwd = fs::read_to_string("/etc/passwd").expect("reads");
    let nobody = passwd.lines().find(|it| it.starts_with("nobody:")).expect("is there");
    let fields: Vec<_> = nobody.split(':').collect();
    let (uid, gid) = (fields[2], fields[3]);
    assert!(log.starts_with(&format!("{uid}\n{gid}\n{gid}\nnobody\n")), "{log}");
    assert!(!node.release().join("file").exists(), "the release is not the app's to change");
    assert!(log.contains("again\nend\n"), "{log}");
}

#[tokio::test]
async fn an_app_that_ends_by_itself_is_seen() {
    let node = Node::new();
    for (script, expected) in [("exit 3", Exit::Code(3)), ("kill -11 $$", Exit::Signal(11))] {
        let running = node.start(script).await;
        assert_eq!(running.exited().await, expected, "{script}");
        assert_eq!(running.exit(), Some(expected));
        running.signal(TERM).expect("nobody is there to mind");
        let stopped = node.exec.stop(&running, TERM, SECOND).await.expect("is stopped already");
        assert_eq!((stopped.killed, stopped.exit), (false, expected));
    }
}

#[tokio::test]
async fn stopping_asks_first_and_kills_then() {
    let rows = [
        (
            "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done",
            false,
            Exit::Code(0),
            LONG,
        ),
        ("echo up; exec sleep 1000", false, Exit::Signal(TERM), LONG),
        (
            "trap '' TERM; echo up; while :; do sleep 0.1; done",
            true,
            Exit::Signal(KILL),
            SECOND / 5,
        ),
    ];
    for (script, killed, exit, patience) in rows {
        let node = Node::new();
        let running = node.start(script).await;
        node.wrote("up\n").await;
        let stopped = node.exec.stop(&running, TERM, patience).await.expect("stops");
        assert_eq!((stopped.killed, stopped.exit), (killed, exit), "{script}");
        assert!(!is_alive(pid_of(running.instance())), "{script}");
        assert_eq!(node.exec.find("shop", "").await.expect("looks").map(|_| ()), None);
    }
}

/// The numbers that a script wrote as `child N`.
async fn children(node: &Node, count: usize) -> Vec<i32> {
    until("children", || {
        let log = node.log();
        let pids: Vec<i32> =
            log.lines().filter_map(|line| line.strip_prefix("child ")?.parse().ok()).collect();
        Some(pids).filter(|it| it.len() == count)
    })
    .await
}

#[tokio::test]
async fn forked_children_end_too() {
    // A wrapper that dies at TERM while its child would live; a child that ignores TERM; one that
    // its parent forgot.
    let rows = [
        ("sleep 1000 & echo child $!; wait", false),
        (r#"sh -c 'trap "" TERM; echo child $$; while :; do sleep 0.1; done' & wait"#, true),
        ("sh -c 'sleep 1000 & echo child $!' ; exec sleep 1000", false),
    ];
    for (script, killed) in rows {
        let node = Node::new();
        let running = node.start(script).await;
        let pids = children(&node, 1).await;
        let patience = if killed { SECOND / 5 } else { LONG };
        let stopped = node.exec.stop(&running, TERM, patience).await.expect("stops");
        assert_eq!(stopped.killed, killed, "{script}");
        assert!(!is_alive(pids[0]), "{script}");
    }
}

#[tokio::test]
async fn leftovers_of_an_app_that_crashed_are_killed() {
    let node = Node::new();
    let running =
        node.start("sleep 1000 & echo child $!; (sleep 1000 & echo child $!); exit 1").await;
    let pids = children(&node, 2).await;
    assert_eq!(running.exited().await, Exit::Code(1));
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    assert_eq!(node.exec.kill_leftovers(running.instance()).await.expect("kills"), 2);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    assert_eq!(node.exec.kill_leftovers(running.instance()).await.expect("nothing left"), 0);
}

#[tokio::test]
async fn a_control_group_holds_even_what_leaves_the_session() {
    let Some(base) = cgroup_base() else {
        eprintln!("skipped: no writable cgroup v2 here");
        return;
    };
    let mut node = Node::new();
    node.exec = node.exec.clone().with_cgroups(&base);
    let running =
        node.start("setsid sh -c 'echo child $$; exec sleep 1000' & wait; exec sleep 1000").await;
    let pids = children(&node, 1).await;
    let group = running.instance().cgroup.clone().expect("has one");
    let stopped = node.exec.stop(&running, KILL, SECOND).await.expect("stops");
    assert!(!stopped.killed || !is_alive(pids[0]));
    assert!(!is_alive(pids[0]), "it left the session, but not the group");
    assert!(!group.exists(), "the empty group is removed");
    fs::remove_dir(&base).expect("is empty");
}

fn cgroup_base() -> Option<std::path::PathBuf> {
    let root = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(Path::new)
        .find(|it| it.join("cgroup.procs").exists() && it.join("cgroup.controllers").exists())?;
    let base = root.join(format!("rota-test-{}", std::process::id()));
    fs::create_dir(&base).ok().map(|()| base)
}

#[tokio::test]
async fn adoption_needs_the_same_process_of_the_same_boot() {
    let node = Node::new();
    let running = node.start("exec sleep 1000").await;
    let instance = running.instance().clone();
    let json = serde_json::to_string(&instance).expect("is kept");
    let kept: Instance = serde_json::from_str(&json).expect("is read");
    assert_eq!(kept, instance);
    let ProcessId { pid, start_time, boot_id } = instance.process.clone();
    let others = [
        ProcessId { pid, start_time: start_time + 1, boot_id: boot_id.clone() },
        ProcessId { pid, start_time, boot_id: "another".into() },
        ProcessId { pid: i32::MAX, start_time, boot_id },
    ];
    for process in others {
        let other = Instance { process, ..instance.clone() };
        assert!(node.exec.adopt(&other).await.expect("looks").is_none(), "{other:?}");
        assert_eq!(node.exec.kill_leftovers(&other).await.expect("finds none"), 0);
    }
    assert!(is_alive(pid), "it was never mistaken for one of them");
    let adopted = node.exec.adopt(&kept).await.expect("looks").expect("is there");
    let found = node.exec.find("shop", "").await.expect("looks").expect("is there");
    assert_eq!(found.instance(), &instance);
    let stopped = node.exec.stop(&adopted, TERM, LONG).await.expect("stops");
    assert_eq!((stopped.killed, stopped.exit), (false, Exit::Unknown));
    assert_eq!(running.exited().await, Exit::Signal(TERM), "its parent knows more");
    assert!(node.exec.adopt(&kept).await.expect("looks").is_none());
}

/// Started by the test below as another process, which then is killed: an agent that dies.
#[tokio::test]
#[ignore = "is a part of another test"]
async fn agent_that_is_killed() {
    let Some(folder) = std::env::var_os("ROTA_TEST_FOLDER") else { return };
    let node = Node::new();
    let exec = Exec::new(Path::new(&folder), node.launcher.clone());
    exec.start(&node.start_spec(spec("trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done")))
        .await
        .expect("starts");
    fs::write(Path::new(&folder).join("started"), "").expect("writes");
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn an_app_outlives_an_agent_that_is_killed_and_the_next_one_finds_it() {
    let node = Node::new();
    let mut agent = std::process::Command::new(std::env::current_exe().expect("a path"))
        .args(["--ignored", "--exact", "processes::agent_that_is_killed"])
        .env("ROTA_TEST_FOLDER", node.folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    until("the app is started", || node.folder.path().join("started").exists().then_some(())).await;
    node.wrote("up\n").await;
    agent.kill().expect("kills");
    agent.wait().expect("is gone");
    let running = node.exec.find("shop", "").await.expect("looks").expect("lives on");
    assert!(is_alive(pid_of(running.instance())));
    // Still nobody ended it, and its end is noticed though it is nobody's child.
    let none = tokio::time::timeout(Duration::from_millis(50), running.exited()).await;
    assert!(none.is_err(), "{none:?}");
    let stopped = node.exec.stop(&running, TERM, LONG).await.expect("stops");
    assert_eq!((stopped.killed, stopped.exit), (false, Exit::Unknown));
}

#[tokio::test]
async fn output_is_read_from_where_the_instance_began() {
    let node = Node::new();
    let first = node.start("echo first").await;
    first.exited().await;
    let second = node.start("echo second; echo error >&2").await;
    second.exited().await;
    assert_eq!(node.log(), "first\nsecond\nerror\n");
    let Instance { log, log_since, .. } = second.instance();
    let tail =
        rota_agent::logs::tail(log, rota_agent::logs::TAIL_BYTES, *log_since).expect("reads");
    assert_eq!(tail, "second\nerror\n");
}

#[tokio::test]
async fn secrets_are_not_in_the_arguments() {
    let node = Node::new();
    let mut wanted = spec("tr '\\0' ' ' < /proc/$$/cmdline; echo; echo end");
    wanted.run.env.insert("PASSWORD".into(), "hunter2".into());
    let running = node.exec.start(&node.start_spec(wanted)).await.expect("starts");
    let log = node.wrote("end\n").await;
    running.exited().await;
    assert!(!log.contains("hunter2"), "{log}");
    let mut broken = spec("true");
    broken.run.env.insert("BAD=NAME".into(), "hunter2".into());
    let error = node.exec.start(&node.start_spec(broken)).await.expect_err("is refused");
    assert!(!chain(&error).contains("hunter2") && chain(&error).contains("BAD=NAME"));
}
