//! Load balancers that the operator runs: a fleet behind HAProxy and behind nginx, with load through them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rota_tests::farm::{App, Farm, count};
use rota_tests::load::Load;
use rota_tests::processes::Programs;

use super::{CLIENTS, begin, deploy, run, versions};

/// A load balancer of our own, which ends with the test.
pub(super) struct Balancer {
    folder: tempfile::TempDir,
    pub(super) address: SocketAddr,
    pub(super) process: Child,
    /// Tells it to load its configuration again.
    reload: &'static str,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.signal("-TERM");
        self.process.wait().unwrap();
    }
}

impl Balancer {
    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(super) fn start(
        program: &str,
        args: &[&str],
        folder: tempfile::TempDir,
        address: SocketAddr,
    ) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "{program} does not listen");
            std::thread::yield_now();
        }
        let reload = if program == "nginx" { "-HUP" } else { "-USR2" };
        Self { folder, address, process, reload }
    }

    pub(super) fn path(&self, name: &str) -> String {
        at(self.folder.path(), name)
    }
}

pub(super) fn at(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

/// Is it installed? If not, it is said loudly that nothing is proven here.
pub(super) fn there(program: &str) -> bool {
    let found = Command::new(program).arg("-v").output().is_ok();
    if !found {
        eprintln!("SKIPPED: {program} is not installed (apt-get install {program})");
    }
    found
}

pub(super) fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn haproxy() -> Balancer {
    let (folder, address) = (tempfile::tempdir().unwrap(), free());
    let socket = at(folder.path(), "admin.sock");
    let config = format!(
        "global\n  stats socket {socket} mode 600 level admin expose-fd listeners\n\
         defaults\n  mode http\n  timeout connect 2s\n  timeout client 30s\n  timeout server 30s\n\
         frontend shop\n  bind {address}\n  default_backend shop\n\
         backend shop\n  load-server-state-from-file local\n  \
         server-state-file-name {}\n  \
         server-template rota 1-8 rota.invalid:1 disabled init-addr last,127.255.255.254\n",
        at(folder.path(), "servers.state")
    );
    let file = at(folder.path(), "haproxy.cfg");
    fs::write(&file, config).unwrap();
    Balancer::start("haproxy", &["-W", "-f", &file], folder, address)
}

fn nginx() -> Balancer {
    let (folder, address) = (tempfile::tempdir().unwrap(), free());
    let dir = folder.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {dir}/{kind};\n"))
        .concat();
    let config = format!(
        "daemon off;\nworker_processes 2;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections 512; }}\nhttp {{\n  access_log off;\n{temporary}  \
         upstream shop {{ include {dir}/shop.upstream; keepalive 8; }}\n  \
         server {{\n    listen {address};\n    location / {{\n      proxy_pass http://shop;\n      \
         proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n    }}\n  }}\n}}\n"
    );
    let file = at(folder.path(), "nginx.conf");
    fs::write(&file, config).unwrap();
    fs::write(folder.path().join("shop.upstream"), "server 127.0.0.1:1 down;\n").unwrap();
    let prefix = format!("{dir}/");
    Balancer::start("nginx", &["-c", &file, "-p", &prefix], folder, address)
}

/// Forward and back in this order, with a reload in the middle that nobody asked us about; no request is lost.
fn rolls_behind(balancer: &Balancer, edge: &str, order: &str) {
    let farm = Farm::behind(Programs::build().unwrap(), edge, 3).unwrap();
    let state = farm.path("lb-01/edge/shop/servers.state");
    std::os::unix::fs::symlink(state, balancer.path("servers.state")).unwrap();
    let strategy = format!("batch = 1\nmonitor = \"100ms\"\norder = \"{order}\"");
    let app = App { strategy: &strategy, ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    let load = Load::reopening(balancer.address, CLIENTS);
    begin(&farm, "1.1.0", app);
    farm.rollout(|view| view["nodes"][0]["state"] == "done").unwrap();
    balancer.signal(balancer.reload);
    farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(versions(&farm, "1.1.0"), 3);
    deploy(&farm, "1.2.0", app, 0);
    run(&farm, &["rollout", "undo", "shop", "--env", "prod"], 0);
    let (good, failed) = load.stop();
    assert_eq!(failed, 0, "of {good}");
    assert!(good > 100, "there was load: {good}");
}

#[test]
fn haproxy_loses_no_request() {
    if !there("haproxy") {
        return;
    }
    for order in ["stop-first", "start-first"] {
        let balancer = haproxy();
        let edge = format!("haproxy@{}#shop", balancer.path("admin.sock"));
        rolls_behind(&balancer, &edge, order);
    }
}

#[test]
fn nginx_loses_no_request() {
    if !there("nginx") {
        return;
    }
    for order in ["stop-first", "start-first"] {
        let balancer = nginx();
        let (file, pid) = (balancer.path("shop.upstream"), balancer.path("nginx.pid"));
        rolls_behind(&balancer, &format!("nginx@{file}#{pid}"), order);
    }
}

/// A load balancer that does not answer its agent holds a rollout, and says which.
#[test]
fn a_silent_one_holds_the_rollout() {
    if !there("haproxy") {
        return;
    }
    let mut balancer = haproxy();
    let edge = format!("haproxy@{}#shop", balancer.path("admin.sock"));
    let farm = Farm::behind(Programs::build().unwrap(), &edge, 3).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    balancer.process.kill().unwrap();
    balancer.process.wait().unwrap();
    farm.wait("/api/v1/edges", |list| count(list, "state", "silent") == 1).unwrap();
    begin(&farm, "1.1.0", app);
    let held = farm.rollout(|view| view["hold"]["kind"] == "offline").unwrap();
    assert!(held["hold"]["text"].as_str().unwrap().contains("lb-01"), "{held}");
    let file = balancer.path("haproxy.cfg");
    let mut again = Command::new("haproxy");
    again.args(["-W", "-f", &file]).stdout(Stdio::null()).stderr(Stdio::null());
    balancer.process = again.spawn().unwrap();
    farm.rollout(|view| view["state"] == "completed").unwrap();
    assert_eq!(versions(&farm, "1.1.0"), 3);
}
