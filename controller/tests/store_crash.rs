//! Kills a process that commits, again and again, and takes the disk from another: what was
//! acknowledged is there, and nothing by halves.
//!
//! The process is this test binary, started again with a variable that says where the database is.
//! A kill takes the process but not the kernel's memory: that SQLite syncs before it answers is its
//! own well-tested part.
#![expect(clippy::unwrap_used, reason = "a test, and helpers of tests")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rota::store::sqlite::SqliteStore;
use rota::store::{Op, Outcome, Store, Txn, scan_all};

/// Says to the child where to commit. Only this test sets it.
const DATABASE: &str = "ROTA_TEST_CRASH_DATABASE";

/// How often the child is killed.
const ROUNDS: usize = 20;

/// Commits that are under way at once, so that there are groups.
const TASKS: u64 = 8;

/// The child: commits numbered pairs until it is killed, and prints each number when it was
/// acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_until_killed() {
    let Ok(path) = std::env::var(DATABASE) else { return };
    let store = SqliteStore::open(Path::new(&path)).unwrap();
    let start = store.scan("", "", 0).await.unwrap().1 * TASKS;
    let task = |n: u64| {
        let store = Arc::clone(&store);
        async move {
            for number in (0..).map(|i| start + i * TASKS + n) {
                let put = |side| Op::put(format!("/{side}/{number:020}"), vec![b'x'; 500]);
                let ops = vec![put("left"), put("middle"), put("right")];
                let outcome = store.commit(Txn { compares: vec![], ops }).await.unwrap();
                assert_ne!(outcome, Outcome::Refused);
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {number}").and_then(|()| out.flush()).unwrap();
            }
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|n| tokio::spawn(task(n))).collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// The child: commits until the disk takes no more; then reads go on, and show what was
/// acknowledged.
#[tokio::test]
async fn commits_until_refused() {
    let Ok(path) = std::env::var(DATABASE) else { return };
    let store = SqliteStore::open(Path::new(&path)).unwrap();
    for number in 0..10_000 {
        let ops = vec![Op::put(format!("/left/{number:020}"), vec![b'x'; 500])];
        match store.commit(Txn { compares: vec![], ops }).await {
            Ok(_) => println!("ack {number}"),
            Err(why) => {
                println!("refused {why}");
                let seen = numbers(&store, "left").await;
                assert_eq!(seen, (0..number).collect(), "nothing more, and nothing less");
                println!("seen");
                return;
            }
        }
    }
    panic!("the disk took everything");
}

fn start(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commits_until_killed", "--nocapture"])
        .env(DATABASE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Numbers that look random: a linear congruential generator with Knuth's constants.
fn roll(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Lets the child acknowledge some, kills it, and reads what it still said.
fn kill_after(mut child: Child, count: u64) -> BTreeSet<u64> {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = BTreeSet::new();
    let number = |line: &str| line.split_once("ack ").and_then(|(_, n)| n.parse::<u64>().ok());
    for line in lines.by_ref() {
        acknowledged.extend(number(&line.unwrap()));
        if acknowledged.len() as u64 >= count {
            break;
        }
    }
    child.kill().unwrap();
    // The last line may be cut short: a number is whole only when its end came along.
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    acknowledged.extend(rest.iter().rev().skip(1).filter_map(|line| number(line)));
    child.wait().unwrap();
    acknowledged
}

async fn numbers(store: &SqliteStore, side: &str) -> BTreeSet<u64> {
    let (entries, _) = scan_all(store, &format!("/{side}/")).await.unwrap();
    assert!(entries.iter().all(|entry| entry.value == [b'x'; 500]), "{side}");
    entries.iter().map(|e| e.key.rsplit('/').next().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rota.db");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = now.as_millis() as u64;
    let mut seed = first;
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        acknowledged.extend(kill_after(start(&path), 1 + roll(&mut seed) % 200));
        let context = format!("seed={first} round={round}");
        let store = SqliteStore::open(&path).unwrap();
        let left = numbers(&store, "left").await;
        for side in ["middle", "right"] {
            assert!(left == numbers(&store, side).await, "{context}: half a transaction");
        }
        let lost: Vec<_> = acknowledged.difference(&left).collect();
        assert!(lost.is_empty(), "{context}: lost {lost:?}");
        let revision = store.scan("", "", 0).await.unwrap().1;
        assert_eq!(revision, left.len() as u64, "{context}: a revision for each");
    }
    assert!(acknowledged.len() >= ROUNDS);
}

#[tokio::test]
async fn a_disk_that_takes_no_more_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rota.db");
    drop(SqliteStore::open(&path).unwrap());
    // The shell ignores the signal that would end the child at its limit, so that writes fail.
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "commits_until_refused", "--nocapture"])
        .env(DATABASE, &path)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&limited.stdout);
    let refused = told.lines().find(|line| line.contains("refused ")).unwrap_or_default();
    assert!(refused.contains("the store is not available: cannot"), "{told}");
    assert!(refused.contains("look at the disk"), "{refused}");
    assert!(told.lines().any(|line| line == "seen"), "{told}");
    let acknowledged = told.lines().filter(|line| line.contains("ack ")).count() as u64;
    let store = SqliteStore::open(&path).unwrap();
    assert!(acknowledged > 0);
    assert_eq!(numbers(&store, "left").await, (0..acknowledged).collect());
}
