//! Several controllers on one etcd: who may join, what each keeps, and what one that is lost leaves behind.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rota_tests::etcd::Etcd;
use rota_tests::farm::{count, sweep};
use rota_tests::processes::{Process, Programs};
use serde_json::Value;

use super::text;

/// For anything to become so, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One etcd and the folders of controllers.
struct Site {
    etcd: Etcd,
    programs: Programs,
    dir: tempfile::TempDir,
}

impl Site {
    /// `None` where this machine has no etcd, which was said.
    fn new() -> Option<Self> {
        let etcd = Etcd::start(1)?;
        let dir = tempfile::tempdir().unwrap();
        Some(Self { etcd, programs: Programs::build().unwrap(), dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `rota serve` in the folder of this name, which is the controller's, too.
    fn serve(&self, name: &str, more: &[&str]) -> Command {
        self.serve_at(&self.etcd.url(), name, more)
    }

    fn serve_at(&self, store: &str, name: &str, more: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.rota);
        command.args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.args(["--name", name, "--store", store]).args(more);
        command.arg("--data").arg(self.path(name)).env_remove("ROTA_TOKEN");
        command
    }

    fn start(&self, name: &str, more: &[&str]) -> Process {
        let log = self.path(&format!("{name}.log"));
        Process::start(self.serve(name, more), &log).unwrap()
    }

    /// A start that fails, with this exit code; what it says.
    fn fails(&self, mut serve: Command, code: i32) -> String {
        let output = serve.output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{serve:?}: {said}");
        said
    }

    /// The operator's command line as the first admin, at this controller.
    fn rota(&self, at: &Process, args: &[&str]) -> Output {
        let admin = fs::read_to_string(self.path("c1/admin.toml")).unwrap();
        let mut context: toml::Table = admin.parse().unwrap();
        let address = at.told("grpc").unwrap().to_owned();
        context.insert("controllers".to_owned(), vec![address].into());
        let path = self.path("context.toml");
        fs::write(&path, context.to_string()).unwrap();
        let mut command = Command::new("chmod");
        command.arg("600").arg(&path).status().unwrap();
        let mut command = Command::new(&self.programs.rota);
        command.args(args).env("ROTA_CONTEXT", path).output().unwrap()
    }

    fn run(&self, at: &Process, args: &[&str], code: i32) -> String {
        let output = self.rota(at, args);
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said.trim().to_owned()
    }

    /// A document of a controller.
    fn read(&self, at: &Process, path: &str) -> String {
        let mut stream = TcpStream::connect(at.told("http").unwrap()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: c\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn token(&self, at: &Process, name: &str) -> String {
        let args = ["token", "create", "--for", "controller", "--name", name];
        String::from_utf8(self.rota(at, &args).stdout).unwrap().trim().to_owned()
    }

    /// A controller that joins by another one.
    fn join(&self, by: &Process, name: &str) -> Process {
        let token = self.token(by, name);
        self.start(name, &["--join", by.told("grpc").unwrap(), "--token", &token])
    }

    fn wait_for_controllers(&self, at: &Process, state: &str, number: usize) {
        let list = || -> Value {
            serde_json::from_str(&self.read(at, "/api/v1/controllers")).unwrap_or_default()
        };
        wait(&format!("{number} controllers {state}"), || count(&list(), "state", state) == number);
    }

    /// The whole artifacts in a controller's folder.
    fn artifacts(&self, name: &str) -> Vec<String> {
        let blobs = self.path(name).join("artifacts/sha256");
        let mut found: Vec<String> = files(&blobs)
            .iter()
            .flat_map(|folder| files(folder))
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        found.sort();
        found
    }

    /// A small app's manifest.
    fn app(&self, content: &str) -> String {
        let folder = self.path("app");
        fs::create_dir_all(folder.join("dist")).unwrap();
        fs::write(folder.join("dist/page"), content).unwrap();
        let manifest = "app = \"shop\"\n[artifact]\npath = \"dist\"\n[run]\ncommand = [\"true\"]\n\
                        port = \"auto\"\n[target]\nroles = [\"web\"]\n[traffic]\nvia = \"none\"\n";
        fs::write(folder.join("rota.toml"), manifest).unwrap();
        folder.join("rota.toml").to_str().unwrap().to_owned()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        sweep(self.dir.path());
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn wait(what: &str, right: impl Fn() -> bool) {
    let begun = Instant::now();
    while !right() {
        assert!(begun.elapsed() < PATIENCE, "still not: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn controllers_join_by_a_token_and_come_back() {
    let Some(site) = Site::new() else { return };
    let c1 = site.start("c1", &[]);
    let mut c2 = site.join(&c1, "c2");
    let c3 = site.join(&c2, "c3");
    site.wait_for_controllers(&c1, "active", 3);
    site.wait_for_controllers(&c3, "active", 3);
    assert!(!site.path("c2/admin.toml").exists(), "an admin's key is made once");
    let ca = |name: &str| fs::read(site.path(name).join("identity/ca.pem")).unwrap();
    assert!(ca("c1") == ca("c2") && ca("c2") == ca("c3"), "one authority");
    // What one lets in, another knows.
    let token = site.run(&c3, &["token", "create", "--for", "agent", "--name", "web-01"], 0);
    assert!(site.run(&c1, &["token", "ls"], 0).contains("web-01"), "{token}");
    // Again, with the flags still there.
    c2.kill().unwrap();
    let join = ["--join", c1.told("grpc").unwrap(), "--token", "spent long since"];
    let c2 = site.start("c2", &join);
    assert!(
        c2.log().contains("--join and --token are ignored: this controller has joined already")
    );
    site.wait_for_controllers(&c2, "active", 3);
}

#[test]
fn what_keeps_a_controller_out_is_said() {
    let Some(site) = Site::new() else { return };
    let c1 = site.start("c1", &[]);
    let address = c1.told("grpc").unwrap().to_owned();
    let join = |name: &str, token: &str| site.serve(name, &["--join", &address, "--token", token]);
    let said = site.fails(site.serve("c2", &[]), 1);
    assert!(
        said.contains("error: the store belongs to an installation that controller c2 has not")
    );
    assert!(said.contains("hint: `rota token create --for controller --name c2`"), "{said}");
    let said = site.fails(join("c2", "hunter2"), 2);
    assert!(said.contains("error: --token: this is not a token of rota"), "{said}");
    let agents = site.run(&c1, &["token", "create", "--for", "agent"], 0);
    let said = site.fails(join("c2", agents.lines().next().unwrap()), 2);
    assert!(said.contains("this is a token for an agent, but a controller is joining"), "{said}");
    let token = site.token(&c1, "c2");
    let said = site.fails(join("c4", &token), 1);
    assert!(said.contains("this token is for controller `c2`, not for `c4`"), "{said}");
    let said = site.fails(join("c1", &token), 1);
    assert!(said.contains("another `rota serve` uses the data directory"), "{said}");
    // Not the store of the controller that is joined: the token is not spent.
    let other = format!("{}?prefix=/other", site.etcd.url());
    let by_other = ["--join", address.as_str(), "--token", token.as_str()];
    let said = site.fails(site.serve_at(&other, "c2", &by_other), 1);
    assert!(said.contains("the store is empty: it is not the one of the controller at"), "{said}");
    // Of the embedded store nobody else can be part.
    let said = site.fails(site.serve_at("sqlite", "c2", &by_other), 2);
    assert!(said.contains("--join needs a store that controllers share"), "{said}");
    let mut c2 = site.start("c2", &by_other);
    c2.kill().unwrap();
    // What has joined is that controller, and of that store.
    fs::rename(site.path("c2"), site.path("c9")).unwrap();
    let said = site.fails(site.serve("c9", &[]), 1);
    assert!(
        said.contains("is the data directory of controller c2, and `--name` says c9"),
        "{said}"
    );
    fs::rename(site.path("c9"), site.path("c2")).unwrap();
    let said = site.fails(site.serve_at(&other, "c2", &[]), 1);
    assert!(said.contains("belongs to an installation, and the store has none"), "{said}");
}

#[test]
fn artifacts_outlive_the_controller_that_took_them() {
    let Some(site) = Site::new() else { return };
    let mut c1 = site.start("c1", &[]);
    let push = |at: &Process, version: &str| {
        let manifest = site.app(version);
        site.run(at, &["release", "push", "-f", &manifest, "--version", version], 0)
    };
    // Alone there is nowhere else to keep it, and nothing to say of it.
    assert!(!push(&c1, "1.0.0").contains("warning"));
    let mut c2 = site.join(&c1, "c2");
    // Who joins brings in what it lacks.
    wait("c2 has 1.0.0", || site.artifacts("c2") == site.artifacts("c1"));
    let c3 = site.join(&c2, "c3");
    site.wait_for_controllers(&c1, "active", 3);
    // What is new is on two disks when its push returns, and on three soon.
    assert!(!push(&c1, "1.1.0").contains("warning"));
    let copies = || ["c2", "c3"].iter().filter(|name| site.artifacts(name).len() == 2).count();
    assert!(copies() >= 1, "c1 and another one");
    wait("all have both", || copies() == 2 && site.artifacts("c1").len() == 2);
    // c1 burns. Whoever asks c3, whose disk was emptied, finds what c2 has.
    c1.kill().unwrap();
    let blobs = site.path("c3/artifacts/sha256");
    files(&blobs).iter().for_each(|folder| fs::remove_dir_all(folder).unwrap());
    let listed = site.read(&c3, "/api/v1/releases/shop/1.1.0/files");
    assert!(listed.contains("page"), "{listed}");
    // Alone again: said where somebody should know, and not by a failure.
    c2.kill().unwrap();
    site.wait_for_controllers(&c3, "lost", 2);
    let said = push(&c3, "1.2.0");
    let warning = "warning: release shop 1.2.0: its artifact is on one controller only: \
                   controller c1: lost; \
                   controller c2: lost";
    assert!(said.contains(warning), "{said}");
}

#[test]
fn a_lost_controller_is_forgotten() {
    let Some(site) = Site::new() else { return };
    let c1 = site.start("c1", &[]);
    let mut c2 = site.join(&c1, "c2");
    site.wait_for_controllers(&c1, "active", 2);
    let said = site.run(&c1, &["controller", "rm", "c2", "--yes"], 1);
    assert!(said.contains("error: controller c2 is running"), "{said}");
    assert!(said.contains("hint: `rota controller drain c2 --handover --wait`, then stop it"));
    let said = site.run(&c1, &["controller", "rm", "c1", "--yes"], 1);
    assert!(said.contains("error: controller c1 is running"), "{said}");
    let said = site.run(&c1, &["controller", "rm", "c9", "--yes"], 1);
    assert!(said.contains("error: there is no controller c9"), "{said}");
    c2.kill().unwrap();
    site.wait_for_controllers(&c1, "lost", 1);
    let said = site.run(&c1, &["controller", "rm", "c2", "--yes"], 0);
    assert_eq!(said, "controller c2 is forgotten and its certificates are revoked");
    site.wait_for_controllers(&c1, "lost", 0);
    let said = site.fails(site.serve("c2", &[]), 1);
    assert!(said.contains("error: controller c2 was removed from this installation"), "{said}");
    // Invited again, it is the same as any other.
    let c2 = site.join(&c1, "c2");
    site.wait_for_controllers(&c2, "active", 2);
}

/// As `docs/backup.md` has it: a state that was put back does not know who joined after it was kept.
#[test]
fn who_joined_after_a_backup_joins_again() {
    let Some(site) = Site::new() else { return };
    let mut c1 = site.start("c1", &[]);
    let (data, kept) = (site.path("c1"), site.path("kept"));
    let store = |args: &[&str]| {
        let mut rota = Command::new(&site.programs.rota);
        let output = rota.args(["-q", "store"]).args(args).arg(&kept).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    };
    let data = data.to_str().unwrap();
    store(&["backup", "--store", &site.etcd.url(), "--data", data]);
    let mut c2 = site.join(&c1, "c2");
    let release = site.app("1.0.0");
    site.run(&c2, &["release", "push", "-f", &release, "--version", "1.0.0"], 0);
    c1.terminate().unwrap();
    c2.terminate().unwrap();
    let there = format!("{}?prefix=/again", site.etcd.url());
    store(&["restore", "--to", &there, "--data", data]);
    let start = |name: &str, more: &[&str]| {
        let log = site.path(&format!("{name}.log"));
        Process::start(site.serve_at(&there, name, more), &log).unwrap()
    };
    let c1 = start("c1", &[]);
    let said = site.fails(site.serve_at(&there, "c2", &[]), 1);
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/backup.md");
    let page = fs::read_to_string(page).unwrap();
    for line in said.lines().filter(|line| line.starts_with("error") || line.starts_with("hint")) {
        assert!(page.contains(&line.replace("c2", "c3")), "docs/backup.md has not: {line}");
    }
    assert!(said.contains("error: controller c2 was removed from this installation"), "{said}");
    let artifacts = site.artifacts("c2");
    let token = site.token(&c1, "c2");
    let _c2 = start("c2", &["--join", c1.told("grpc").unwrap(), "--token", &token]);
    site.wait_for_controllers(&c1, "active", 2);
    assert!(artifacts.len() == 1 && site.artifacts("c2") == artifacts, "its folder stays in use");
}
