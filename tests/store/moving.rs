//! A whole state that moves: from SQLite to etcd and back, into a backup and out of it, by the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rota::store::sqlite::SqliteStore;
use rota::store::{Op, Store, Txn};
use rota_tests::etcd::Etcd;
use rota_tests::processes::Programs;

use crate::writers::open;

/// Keys of a state: several batches.
const KEYS: usize = 5000;

struct Rig {
    dir: tempfile::TempDir,
    rota: PathBuf,
}

impl Rig {
    fn new() -> Self {
        let rota = Programs::build().unwrap().rota;
        Self { dir: tempfile::tempdir().unwrap(), rota }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn place(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    /// A database with a state.
    async fn state(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let store = SqliteStore::open(&self.path(name).join("rota.db")).unwrap();
        let entry = |n| (format!("/n/{n:05}"), format!("{{\"v\":1,\"n\":{n}}}").into_bytes());
        let mut all: Vec<_> = (0..KEYS).map(entry).collect();
        all.push(("/o".to_owned(), vec![b'x'; 1_000_000]));
        for part in all.chunks(1000) {
            let ops = part.iter().map(|(key, value)| Op::put(key.clone(), value.clone())).collect();
            store.commit(Txn { compares: vec![], ops }).await.unwrap();
        }
        // Who is alive does not move along.
        let lease = store.grant(Duration::from_secs(600)).await.unwrap();
        let lead = Op::Put { key: "/lead".to_owned(), value: vec![], lease: Some(lease) };
        store.commit(Txn { compares: vec![], ops: vec![lead] }).await.unwrap();
        all
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.rota).arg("store").args(args).output().unwrap()
    }

    fn done(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
        format!("{}{said}", String::from_utf8_lossy(&output.stdout))
    }

    fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    }
}

fn held(path: &Path) -> Vec<(String, Vec<u8>)> {
    SqliteStore::snapshot(&path.join("rota.db")).unwrap().entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_moves_to_etcd_and_back() {
    let Some(etcd) = Etcd::start(1) else { return };
    let rig = Rig::new();
    let state = rig.state("old").await;
    let (url, data) = (etcd.url(), rig.path("old").display().to_string());
    let said = rig.done(&["copy", "--from", "sqlite", "--data", &data, "--to", &url]);
    assert!(said.contains("copied 5001 keys from sqlite:"), "{said}");
    assert!(said.contains("and none on sqlite:"), "{said}");
    // It is not there any more, and nothing begins in its place.
    let (database, moved) = (rig.path("old/rota.db"), rig.path("old/rota.db.moved"));
    let gone = SqliteStore::open(&database).map(|_| ()).unwrap_err().to_string();
    assert!(gone.contains("copied from here to another store"), "{gone}");
    assert!(!database.exists());
    fs::copy(&moved, &database).unwrap();
    assert_eq!(held(&rig.path("old")), state, "nothing of it was left in a log");
    let said = rig.refused(&["copy", "--from", &rig.place("old"), "--to", &url], 1);
    assert!(said.contains("from an earlier copy"), "{said}");
    fs::remove_file(&moved).unwrap();
    let store = open(&url).await;
    assert_eq!(store.snapshot().await.unwrap().entries, state);
    let back = rig.place("back");
    let json = rig.done(&["copy", "--from", &url, "--to", &back, "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["keys"], json["to"].as_str()), (&5001.into(), Some(back.as_str())));
    assert_eq!(held(&rig.path("back")), state);

    // Neither a place that holds something nor one that is in use is touched.
    let old = rig.place("old");
    let said = rig.refused(&["copy", "--from", &old, "--to", &url], 1);
    assert!(said.contains("is not empty: it holds /n/00000") && said.contains("--prefix /rota/"));
    let said = rig.refused(&["copy", "--from", &url, "--to", &back], 1);
    assert!(said.contains("is not empty") && said.contains("rota.db away"), "{said}");
    let lease = store.grant(Duration::from_secs(600)).await.unwrap();
    let c1 = Op::Put { key: "/members/c1".to_owned(), value: vec![], lease: Some(lease) };
    store.commit(Txn { compares: vec![], ops: vec![c1] }).await.unwrap();
    let said = rig.refused(&["copy", "--from", &url, "--to", &rig.place("third")], 1);
    assert!(said.contains("controllers run on") && said.contains("c1"), "{said}");
    let running = SqliteStore::open(&rig.path("old").join("rota.db")).unwrap();
    let other = format!("{url}?prefix=/other");
    let said = rig.refused(&["copy", "--from", &old, "--to", &other], 1);
    assert!(said.contains("another `rota serve`"), "{said}");
    drop(running);
    rig.done(&["copy", "--from", &old, "--to", &other]);
    assert!(moved.exists());
    let said = rig.refused(&["copy", "--from", &rig.place("nowhere"), "--to", &url], 1);
    assert!(said.contains("no controller ran there"), "{said}");
    assert!(!rig.path("nowhere").exists(), "looking makes nothing");
    let said = rig.refused(&["copy", "--from", "postgres://x", "--to", &url], 2);
    assert!(said.contains("sqlite:DIR"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_etcd_is_put_back() {
    let Some(etcd) = Etcd::start(1) else { return };
    let rig = Rig::new();
    let state = rig.state("old").await;
    let (url, backup) = (etcd.url(), rig.path("backup").display().to_string());
    rig.done(&["copy", "--from", &rig.place("old"), "--to", &url]);
    let said = rig.done(&["backup", "--store", &url, &backup]);
    assert!(said.contains("neither authority nor artifacts"), "{said}");
    let mode = fs::metadata(&backup).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let said = rig.refused(&["backup", "--store", &url, &backup], 1);
    assert!(said.contains("exists already"), "{said}");
    let other = format!("{url}?prefix=/other");
    rig.done(&["restore", &backup, "--to", &other]);
    let put_back = |mut entries: Vec<(String, Vec<u8>)>| {
        let (mark, _) = entries.pop().unwrap();
        assert_eq!(mark, "/restored", "new rollouts go on above what agents know");
        assert_eq!(entries, state);
    };
    put_back(open(&other).await.snapshot().await.unwrap().entries);
    let said = rig.refused(&["restore", &backup, "--to", &other], 1);
    assert!(said.contains("is not empty"), "{said}");
    rig.done(&["restore", &backup, "--to", &rig.place("new")]);
    put_back(held(&rig.path("new")));
    let mut spoiled = fs::read(&backup).unwrap();
    let middle = spoiled.len() / 2;
    spoiled[middle] ^= 1;
    fs::write(&backup, spoiled).unwrap();
    let said = rig.refused(&["restore", &backup, "--to", &rig.place("never")], 1);
    assert!(said.contains("another sum"), "{said}");
    assert!(!rig.path("never").exists(), "it was refused before anything was made");
}

/// One that was filled by half is refused, by controllers too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_was_broken_off_is_no_state() {
    let Some(etcd) = Etcd::start(1) else { return };
    let rig = Rig::new();
    rig.state("old").await;
    let half = open(&etcd.url()).await;
    let ops = vec![Op::put("/filling", b"{}".to_vec()), Op::put("/n/00000", b"{}".to_vec())];
    half.commit(Txn { compares: vec![], ops }).await.unwrap();
    let said = rig.refused(&["copy", "--from", &rig.place("old"), "--to", &etcd.url()], 1);
    assert!(said.contains("broken off") && said.contains("etcdctl del --prefix /rota/"), "{said}");
    let store = SqliteStore::open(&rig.path("half").join("rota.db")).unwrap();
    let ops = vec![Op::put("/filling", b"{}".to_vec())];
    store.commit(Txn { compares: vec![], ops }).await.unwrap();
    drop(store);
    // A child of another test holds our lock, too, between its fork and its exec.
    let told = loop {
        let open = SqliteStore::open(&rig.path("half").join("rota.db"));
        let told = open.map(|_| ()).unwrap_err().to_string();
        if !told.contains("another `rota serve`") {
            break told;
        }
        std::thread::yield_now();
    };
    assert!(told.contains("broken off"), "{told}");
}
