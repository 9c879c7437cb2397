//! nginx through the file that it includes.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use rota_agent::traffic::nginx::{Nginx, Settings};
use rota_agent::traffic::{Balancer, BalancerError, Change, Observed, Want};

use crate::common::{App, Load, PATIENCE, apply, change, free_port, get, is, key, sees, there};

/// An nginx of our own.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
    master: Child,
}

impl Server {
    /// With these lines in its upstream, beside the included file.
    fn start(upstream: &str) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        configure(folder.path(), port, upstream);
        let first = "server 127.0.0.1:1 down;\n";
        std::fs::write(folder.path().join("shop.upstream"), first).expect("a file");
        let master = launch(folder.path());
        Server { folder, port, master }
    }

    fn upstream(&self) -> PathBuf {
        self.folder.path().join("shop.upstream")
    }

    async fn edge(&self) -> Arc<Nginx> {
        let pid_file = self.folder.path().join("nginx.pid");
        let settings = Settings { upstream: self.upstream(), pid_file };
        let edge = Nginx::start(self.folder.path(), "shop", &settings).await;
        edge.expect("the folder is ours")
    }

    /// Workers end a moment after their master, when they see that it is gone.
    fn end(&mut self) {
        let quit = Command::new("kill").args(["-TERM", &self.master.id().to_string()]).status();
        assert!(quit.expect("kill").success());
        self.master.wait().expect("it ended");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn configure(folder: &Path, port: u16, upstream: &str) {
    let at = folder.display();
    let config = format!(
        "daemon off;\nworker_processes 2;\npid {at}/nginx.pid;\nerror_log {at}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path {at}/body;\n  \
         proxy_temp_path {at}/proxy;\n  fastcgi_temp_path {at}/f;\n  uwsgi_temp_path {at}/u;\n  \
         scgi_temp_path {at}/s;\n  \
         upstream shop {{\n    include {at}/shop.upstream;\n    {upstream}\n  }}\n  \
         server {{\n    listen 127.0.0.1:{port};\n    location / {{\n      \
         proxy_pass http://shop;\n      proxy_http_version 1.1;\n      \
         proxy_set_header Connection \"\";\n    }}\n  }}\n}}\n"
    );
    std::fs::write(folder.join("nginx.conf"), config).expect("a configuration");
}

/// Returns when it takes connections.
fn launch(folder: &Path) -> Child {
    let mut command = Command::new("nginx");
    command.arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(folder);
    let mut master =
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx starts");
    let begun = Instant::now();
    let noted = || std::fs::read_to_string(folder.join("nginx.pid")).unwrap_or_default();
    while noted().trim() != master.id().to_string() {
        let ended = master.try_wait().expect("a child");
        let log = || std::fs::read_to_string(folder.join("error.log"));
        assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{:?}", log());
        std::thread::yield_now();
    }
    master
}

/// With idle connections to the apps, and without: who is out gets nothing new, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_and_nobody_notices() {
    if !there("nginx") {
        return;
    }
    for upstream in ["", "keepalive 8;"] {
        let (one, two) = (App::start("one").await, App::start("two").await);
        let mut server = Server::start(upstream);
        let edge = server.edge().await;
        for (node, app) in [("web-01", &one), ("web-02", &two)] {
            apply(&*edge, change(node, app.address, Want::In)).await;
            is(&*edge, node, Observed::In).await;
        }
        let load = Load::start(server.port, 4);
        let port = server.port;
        let mut held = Vec::new();
        while one.held() == 0 {
            held.push(tokio::spawn(async move { get(port, "/hold", "").await }));
            tokio::time::timeout(PATIENCE, async {
                while one.held() + two.held() < held.len() as u64 {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("it is held");
        }
        let member = apply(&*edge, change("web-01", one.address, Want::Out)).await;
        assert_eq!(member.observed, Observed::Draining);
        assert!(member.in_flight >= one.held(), "{member:?}");
        let before = one.served.load(Ordering::Relaxed);
        for _ in 0..8 {
            assert_eq!(get(port, "/", "").await.expect("an answer").0, "two");
        }
        one.let_go();
        is(&*edge, "web-01", Observed::Out).await;
        let after = one.served.load(Ordering::Relaxed);
        // What was under way at the old workers: the held ones, and one of each client.
        assert!(after - before <= held.len() as u64 + 4, "{before} then {after}");
        apply(&*edge, change("web-01", one.address, Want::In)).await;
        is(&*edge, "web-01", Observed::In).await;
        apply(&*edge, change("web-02", two.address, Want::Out)).await;
        two.let_go();
        is(&*edge, "web-02", Observed::Out).await;
        for request in held {
            request.await.expect("a task").expect("never failed");
        }
        let (good, bad) = load.stop().await;
        assert!(bad.is_empty() && good > 100, "{good} good; {bad:?}");
        apply(&*edge, change("web-02", two.address, Want::Gone)).await;
        sees(&*edge, |view| !view.members.contains_key(&key("web-02"))).await;

        // A restart of nginx and one of the agent change nothing.
        drop(edge);
        server.end();
        server.master = launch(server.folder.path());
        let edge = server.edge().await;
        is(&*edge, "web-01", Observed::In).await;
        assert_eq!(get(port, "/", "").await.expect("an answer").0, "one");
        let text = std::fs::read_to_string(server.upstream()).expect("ours");
        let lines: Vec<&str> = text.lines().collect();
        let server_line = format!("server {}; # web-01", one.address);
        let head = "# The pool shop, written by rota-agent: changes here are overwritten.";
        assert_eq!(lines, [head, &server_line]);
    }
}

/// A mistake of the operator's somewhere else in the configuration: nothing of it is touched, and nothing is in force.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_configuration_is_left_alone_and_reported() {
    if !there("nginx") {
        return;
    }
    let (one, two) = (App::start("one").await, App::start("two").await);
    let server = Server::start("");
    let edge = server.edge().await;
    for (node, app) in [("web-01", &one), ("web-02", &two)] {
        apply(&*edge, change(node, app.address, Want::In)).await;
    }
    let file = std::fs::read_to_string(server.upstream()).expect("ours");
    let config = server.folder.path().join("nginx.conf");
    let right = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, format!("{right}\nworker_processes many;\n")).expect("broken");
    match edge.apply(change("web-01", one.address, Want::Out)).await {
        Err(BalancerError::Refused { why, .. }) => {
            let told = "nginx refuses its configuration, which is left as it was: ";
            assert!(why.starts_with(told) && why.contains("worker_processes"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_to_string(server.upstream()).expect("ours"), file);
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..4 {
        seen.push(get(server.port, "/", "").await.expect("an answer").0);
    }
    assert!(seen.contains(&"one".to_owned()) && seen.contains(&"two".to_owned()), "{seen:?}");
    std::fs::write(&config, right).expect("mended");
    is(&*edge, "web-01", Observed::Out).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_flight_at_the_deadline_is_cut_and_counted() {
    if !there("nginx") {
        return;
    }
    let one = App::start("one").await;
    let server = Server::start("");
    let edge = server.edge().await;
    apply(&*edge, change("web-01", one.address, Want::In)).await;
    let port = server.port;
    let held = tokio::spawn(async move { get(port, "/hold", "").await });
    one.holds(1).await;
    apply(&*edge, change("web-01", one.address, Want::Out)).await;
    let cut = Change { cut: true, ..change("web-01", one.address, Want::Out) };
    assert_eq!(apply(&*edge, cut).await.cut, 1);
    held.await.expect("a task").expect_err("it was cut");
    assert_eq!(is(&*edge, "web-01", Observed::Out).await.cut, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_does_not_run_does_not_answer() {
    if !there("nginx") {
        return;
    }
    let one = App::start("one").await;
    let mut server = Server::start("");
    let edge = server.edge().await;
    sees(&*edge, |view| view.answers).await;
    server.end();
    sees(&*edge, |view| !view.answers).await;
    match edge.apply(change("web-01", one.address, Want::In)).await {
        Err(BalancerError::Silent { .. }) => {}
        other => panic!("{other:?}"),
    }
    server.master = launch(server.folder.path());
    is(&*edge, "web-01", Observed::In).await;
    assert_eq!(get(server.port, "/", "").await.expect("an answer").0, "one");
}
