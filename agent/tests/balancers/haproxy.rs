//! HAProxy through its admin socket.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rota_agent::traffic::haproxy::{Haproxy, Settings};
use rota_agent::traffic::{Balancer, BalancerError, Change, Observed, Want};

use crate::common::{App, Load, PATIENCE, apply, change, free_port, get, is, key, sees, there};

/// A HAProxy of our own, in master-worker mode as Debian runs it.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
    master: Child,
}

impl Server {
    /// With these lines in its backend.
    fn start(backend: &str) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        configure(folder.path(), port, backend, "admin");
        let master = launch(folder.path());
        Server { folder, port, master }
    }

    fn settings(&self) -> Settings {
        Settings { sockets: vec![self.socket()], backend: "shop".to_owned() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    async fn edge(&self) -> Arc<Haproxy> {
        let edge = Haproxy::start(self.folder.path(), "shop", &self.settings()).await;
        edge.expect("the folder is ours")
    }

    fn signal(&self, signal: &str) {
        let pid = self.master.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }

    /// A new process takes over. A master that is about to execute itself anew hears no signal: it is sent again.
    async fn reload(&self) {
        let before = pid(&self.socket());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.signal("-USR2");
            let again = Instant::now() + Duration::from_secs(1);
            while Instant::now() < again {
                if pid(&self.socket()).is_some_and(|now| Some(now) != before) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        }
        panic!("no reload: {:?}", std::fs::read_to_string(self.folder.path().join("haproxy.log")));
    }

    /// All processes end at once, and others start.
    fn restart(&mut self) {
        self.end();
        self.master = launch(self.folder.path());
    }

    fn end(&mut self) {
        self.master.kill().expect("it ran");
        self.master.wait().expect("it ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn configure(folder: &Path, port: u16, backend: &str, level: &str) {
    let at = folder.display();
    let state = folder.join("edge/shop/servers.state");
    let config = format!(
        "global\n  stats socket {at}/admin.sock mode 600 level {level} expose-fd listeners\n  \
         hard-stop-after 30s\n\
         defaults\n  mode http\n  balance roundrobin\n  timeout connect 2s\n  \
         timeout client 30s\n  timeout server 30s\n\
         frontend www\n  bind 127.0.0.1:{port}\n  default_backend shop\n\
         backend shop\n  load-server-state-from-file local\n  \
         server-state-file-name {}\n{backend}\n",
        state.display()
    );
    std::fs::write(folder.join("haproxy.cfg"), config).expect("a configuration");
}

/// Returns when its socket answers. Workers die with their master.
fn launch(folder: &Path) -> Child {
    let log = std::fs::File::create(folder.join("haproxy.log")).expect("a log");
    let mut master = Command::new("haproxy")
        .args(["-W", "-f"])
        .arg(folder.join("haproxy.cfg"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("haproxy starts");
    let begun = Instant::now();
    while pid(&folder.join("admin.sock")).is_none() {
        let ended = master.try_wait().expect("a child");
        let log = || std::fs::read_to_string(folder.join("haproxy.log"));
        assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{:?}", log());
        std::thread::yield_now();
    }
    master
}

/// Who answers on the socket.
fn pid(socket: &Path) -> Option<u32> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).ok()?;
    stream.write_all(b"show info\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().find_map(|line| line.strip_prefix("Pid: ")?.parse().ok())
}

/// The three ways in which a member gets its server.
#[tokio::test(flavor = "multi_thread")]
async fn members_are_static_servers_slots_or_added_ones() {
    if !there("haproxy") {
        return;
    }
    let (one, two) = (App::start("one").await, App::start("two").await);
    for (backend, at_rest) in [
        (format!("  server web-01 {}\n  server web-02 {}", one.address, two.address), 2),
        (format!("  server a {}\n  server b {}", one.address, two.address), 2),
        ("  server web-01 127.0.0.1:1\n  server web-02 127.0.0.1:1".to_owned(), 2),
        ("  server-template rota 1-3 127.0.0.1:1 disabled".to_owned(), 3),
        ("  balance roundrobin".to_owned(), 0),
    ] {
        let server = Server::start(&backend);
        let edge = server.edge().await;
        for (node, app) in [("web-01", &one), ("web-02", &two)] {
            apply(&*edge, change(node, app.address, Want::In)).await;
            is(&*edge, node, Observed::In).await;
        }
        let mut seen: Vec<String> = Vec::new();
        for _ in 0..4 {
            seen.push(get(server.port, "/", "").await.expect("an answer").0);
        }
        assert!(seen.contains(&"one".to_owned()) && seen.contains(&"two".to_owned()), "{seen:?}");

        let held = tokio::spawn({
            let port = server.port;
            async move {
                let mut all = Vec::new();
                for _ in 0..2 {
                    all.push(tokio::spawn(async move { get(port, "/hold", "").await }));
                }
                for request in all {
                    request.await.expect("a task").expect("never failed");
                }
            }
        });
        one.holds(1).await;
        two.holds(1).await;
        let member = apply(&*edge, change("web-01", one.address, Want::Out)).await;
        assert_eq!((member.observed, member.in_flight), (Observed::Draining, 1), "{backend}");
        let before = one.served.load(Ordering::Relaxed);
        for _ in 0..8 {
            assert_eq!(get(server.port, "/", "").await.expect("an answer").0, "two");
        }
        assert_eq!(one.served.load(Ordering::Relaxed), before, "{backend}");
        one.let_go();
        is(&*edge, "web-01", Observed::Out).await;
        two.let_go();
        held.await.expect("both were answered");

        apply(&*edge, change("web-01", one.address, Want::Gone)).await;
        sees(&*edge, |view| !view.members.contains_key(&key("web-01"))).await;
        apply(&*edge, change("web-02", two.address, Want::Out)).await;
        apply(&*edge, change("web-02", two.address, Want::Gone)).await;
        let servers = |text: &str| text.lines().filter(|line| line.contains(" shop ")).count();
        let state = server.folder.path().join("edge/shop/servers.state");
        sees(&*edge, |_| servers(&std::fs::read_to_string(&state).unwrap_or_default()) == at_rest)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sticky_sessions_end_too() {
    if !there("haproxy") {
        return;
    }
    let (one, two) = (App::start("one").await, App::start("two").await);
    let server = Server::start(
        "  balance roundrobin\n  cookie SRV insert indirect nocache\n  \
         server web-01 127.0.0.1:1 cookie one\n  server web-02 127.0.0.1:1 cookie two",
    );
    let edge = server.edge().await;
    for (node, app) in [("web-01", &one), ("web-02", &two)] {
        apply(&*edge, change(node, app.address, Want::In)).await;
        is(&*edge, node, Observed::In).await;
    }
    let mut cookie = String::new();
    for _ in 0..4 {
        let (body, set) = get(server.port, "/", "").await.expect("an answer");
        if body == "two" && !set.is_empty() {
            cookie = set;
        }
    }
    assert!(!cookie.is_empty(), "nobody is sticky");
    for _ in 0..4 {
        assert_eq!(get(server.port, "/", &cookie).await.expect("an answer").0, "two");
    }
    let held = tokio::spawn({
        let (port, cookie) = (server.port, cookie.clone());
        async move { get(port, "/hold", &cookie).await }
    });
    two.holds(1).await;
    apply(&*edge, change("web-02", two.address, Want::Out)).await;
    // The client goes on with its cookie. It is served, and soon by another.
    let begun = Instant::now();
    loop {
        let (body, _) = get(server.port, "/", &cookie).await.expect("never failed");
        if body == "one" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the sticky client never leaves");
    }
    two.let_go();
    assert_eq!(held.await.expect("a task").expect("never failed").0, "two");
    is(&*edge, "web-02", Observed::Out).await;
}

/// A reload in the middle: who is out stays out, what the old process has in flight counts, and nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn reloads_and_restarts_change_nothing() {
    if !there("haproxy") {
        return;
    }
    let (one, two) = (App::start("one").await, App::start("two").await);
    let (first, second) = (one.address, two.address);
    for backend in [
        format!("  server web-01 {first}\n  server web-02 {second}"),
        "  server-template rota 1-3 rota.invalid:1 disabled init-addr last,127.0.0.9".to_owned(),
    ] {
        let mut server = Server::start(&backend);
        let edge = server.edge().await;
        for (node, app) in [("web-01", first), ("web-02", second)] {
            apply(&*edge, change(node, app, Want::In)).await;
            is(&*edge, node, Observed::In).await;
        }
        let load = Load::start(server.port, 4);
        let held = tokio::spawn({
            let port = server.port;
            async move {
                let one = tokio::spawn(async move { get(port, "/hold", "").await });
                let two = tokio::spawn(async move { get(port, "/hold", "").await });
                (one.await.expect("a task"), two.await.expect("a task"))
            }
        });
        // With the load beside it the balancer decides whose they are.
        while one.held() + two.held() < 2 {
            tokio::task::yield_now().await;
        }
        server.reload().await;
        apply(&*edge, change("web-01", first, Want::Out)).await;
        let on_one = one.held();
        if on_one > 0 {
            let member = is(&*edge, "web-01", Observed::Draining).await;
            assert!(member.in_flight >= on_one, "{member:?}");
        }
        one.let_go();
        two.let_go();
        let (a, b) = held.await.expect("a task");
        assert!(a.is_ok() && b.is_ok(), "{a:?} {b:?}");
        is(&*edge, "web-01", Observed::Out).await;
        let before = one.served.load(Ordering::Relaxed);
        server.reload().await;
        sees(&*edge, |view| view.answers).await;
        is(&*edge, "web-01", Observed::Out).await;
        assert_eq!(one.served.load(Ordering::Relaxed), before, "requests while it was out");
        let (good, bad) = load.stop().await;
        assert!(bad.is_empty() && good > 100, "{good} good; {bad:?}");

        // A restart forgets all; an agent that restarts, too, but for the book.
        drop(edge);
        server.restart();
        let edge = server.edge().await;
        is(&*edge, "web-01", Observed::Out).await;
        is(&*edge, "web-02", Observed::In).await;
        for _ in 0..4 {
            assert_eq!(get(server.port, "/", "").await.expect("an answer").0, "two");
        }
        let view = sees(&*edge, |view| view.requests > 0).await;
        assert_eq!(view.failed, 0);
    }
}

/// An agent that is installed anew knows nothing of the servers to which HAProxy still sends requests.
#[tokio::test(flavor = "multi_thread")]
async fn servers_that_an_earlier_agent_filled_are_found_by_their_address() {
    if !there("haproxy") {
        return;
    }
    let (one, two) = (App::start("one").await, App::start("two").await);
    let server = Server::start(
        "  server-template rota 1-5 rota.invalid:1 disabled init-addr last,127.0.0.1",
    );
    let edge = server.edge().await;
    for (node, app) in [("web-01", &one), ("web-02", &two)] {
        apply(&*edge, change(node, app.address, Want::In)).await;
        is(&*edge, node, Observed::In).await;
    }
    drop(edge);
    std::fs::remove_dir_all(server.folder.path().join("edge")).expect("the book is lost");
    let edge = server.edge().await;
    apply(&*edge, change("web-02", two.address, Want::In)).await;
    is(&*edge, "web-02", Observed::In).await;
    apply(&*edge, change("web-01", one.address, Want::Out)).await;
    is(&*edge, "web-01", Observed::Out).await;
    for _ in 0..4 {
        assert_eq!(get(server.port, "/", "").await.expect("an answer").0, "two");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_at_the_deadline_is_cut_and_counted() {
    if !there("haproxy") {
        return;
    }
    let one = App::start("one").await;
    let server = Server::start(&format!("  server web-01 {}", one.address));
    let edge = server.edge().await;
    apply(&*edge, change("web-01", one.address, Want::In)).await;
    let port = server.port;
    let held = tokio::spawn(async move { get(port, "/hold", "").await });
    one.holds(1).await;
    apply(&*edge, change("web-01", one.address, Want::Out)).await;
    let cut = Change { cut: true, ..change("web-01", one.address, Want::Out) };
    let member = apply(&*edge, cut).await;
    assert_eq!(member.cut, 1);
    held.await.expect("a task").expect_err("it was cut");
    assert_eq!(is(&*edge, "web-01", Observed::Out).await.cut, 1);
    assert_eq!(edge.view().borrow().cut, 1);
    apply(&*edge, change("web-01", one.address, Want::In)).await;
    assert_eq!(is(&*edge, "web-01", Observed::In).await.cut, 0);
}

/// Two processes serve the same pool: out is out of both.
#[tokio::test(flavor = "multi_thread")]
async fn several_processes_are_one_edge() {
    if !there("haproxy") {
        return;
    }
    let (one, two) = (App::start("one").await, App::start("two").await);
    let left = Server::start("  balance roundrobin");
    let mut right = Server::start("  server-template rota 1-2 127.0.0.1:1 disabled");
    let sockets = vec![left.socket(), right.socket()];
    let settings = Settings { sockets, backend: "shop".to_owned() };
    let folder = tempfile::tempdir().expect("a folder");
    let edge = Haproxy::start(folder.path(), "shop", &settings).await.expect("ours");
    for (node, app) in [("web-01", &one), ("web-02", &two)] {
        apply(&*edge, change(node, app.address, Want::In)).await;
        is(&*edge, node, Observed::In).await;
    }
    let port = right.port;
    let held: Vec<_> =
        (0..2).map(|_| tokio::spawn(async move { get(port, "/hold", "").await })).collect();
    one.holds(1).await;
    let member = apply(&*edge, change("web-01", one.address, Want::Out)).await;
    assert_eq!((member.observed, member.in_flight), (Observed::Draining, 1));
    for port in [left.port, right.port] {
        for _ in 0..4 {
            assert_eq!(get(port, "/", "").await.expect("an answer").0, "two");
        }
    }
    one.let_go();
    is(&*edge, "web-01", Observed::Out).await;
    two.let_go();
    for request in held {
        request.await.expect("a task").expect("never failed");
    }
    right.end();
    sees(&*edge, |view| !view.answers).await;
    right.restart();
    is(&*edge, "web-01", Observed::Out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_refused_with_the_reason() {
    if !there("haproxy") {
        return;
    }
    let one = App::start("one").await;
    let server = Server::start("  balance roundrobin");
    configure(server.folder.path(), server.port, "  balance static-rr", "admin");
    let refused = async |settings: &Settings| {
        let folder = tempfile::tempdir().expect("a folder");
        let edge = Haproxy::start(folder.path(), "shop", settings).await.expect("ours");
        let begun = Instant::now();
        loop {
            match edge.apply(change("web-01", one.address, Want::In)).await {
                Err(BalancerError::Refused { why, .. }) => return why,
                Err(BalancerError::Silent { .. }) if begun.elapsed() < PATIENCE => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let nowhere = Settings { backend: "nowhere".to_owned(), ..server.settings() };
    assert_eq!(
        refused(&nowhere).await,
        "HAProxy has no backend `nowhere`; add it to its configuration, or name another one"
    );
    server.reload().await;
    let why = refused(&server.settings()).await;
    let told = "HAProxy did not take `experimental-mode on;add server shop/web-01 ";
    assert!(why.starts_with(told) && why.contains("dynamic load balancing"), "{why}");
}
