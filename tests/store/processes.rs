//! Processes that are paused or killed while they write. Each is this test binary, started again with a variable that
//! says what to do.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rota::store::{Change, Compare, Op, Outcome, Store, StoreError, Txn, scan_all};
use rota_tests::etcd::Etcd;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::writers::{PATIENCE, open};

/// The URL of the store, for the child.
const URL: &str = "ROTA_TEST_STORE_URL";

/// Records of one large transaction: some MiB, so that it is staged.
const RECORDS: usize = 40;
const RECORD_BYTES: usize = 100_000;

/// How often a process is killed while it writes large transactions.
const ROUNDS: u64 = 12;

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(test: &str, url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(URL, url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// What follows the word on the next line that has it.
    fn hear(&mut self, word: &str) -> String {
        for line in self.lines.by_ref() {
            if let Some((_, rest)) = line.unwrap().split_once(word) {
                return rest.trim().to_owned();
            }
        }
        panic!("it ended without {word:?}");
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        self.child.wait().unwrap();
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// The child: holds a lease, and writes behind it until it is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writes_behind_its_lease() {
    let Ok(url) = std::env::var(URL) else { return };
    let store = open(&url).await;
    let lease = store.grant(Duration::from_secs(2)).await.unwrap();
    let member = Op::Put { key: "/members/c1".to_owned(), value: vec![], lease: Some(lease) };
    let txn = Txn { compares: vec![Compare::Absent("/members/c1".to_owned())], ops: vec![member] };
    let Outcome::Done(fence) = store.commit(txn).await.unwrap() else { panic!("refused") };
    for n in 0_u64.. {
        let compares = vec![Compare::Created("/members/c1".to_owned(), fence)];
        let ops = vec![Op::put("/written", n.to_string().into_bytes())];
        match store.commit(Txn { compares, ops }).await {
            Ok(Outcome::Done(_)) => say(&format!("wrote {n}")),
            Ok(Outcome::Refused) => {
                let alive = store.keep_alive(lease).await.unwrap();
                say(&format!("fenced alive={alive}"));
                return;
            }
            // Its connections may have died while it slept.
            Err(why) => say(&format!("trouble {why}")),
        }
        // An error only says that the answer is not there yet.
        drop(store.keep_alive(lease).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_wakes_after_its_lease_writes_nothing() {
    let Some(etcd) = Etcd::start(3) else { return };
    let url = etcd.url();
    let store = open(&url).await;
    let mut child = Running::start("processes::child_writes_behind_its_lease", &url);
    child.hear("wrote 20");
    let since = store.scan("", "", 0).await.unwrap().1;
    let mut watch = store.watch("/members/", since).await.unwrap();
    child.signal(Signal::STOP);
    let gone = timeout(PATIENCE, watch.recv()).await.unwrap();
    assert!(matches!(gone, Some(Change::Deleted { .. })), "{gone:?}");
    // Somebody takes over, and writes.
    let ops = vec![Op::put("/members/c2", vec![]), Op::put("/written", b"ours".to_vec())];
    let compares = vec![Compare::Absent("/members/c1".to_owned())];
    let taken = store.commit(Txn { compares, ops }).await.unwrap();
    assert!(matches!(taken, Outcome::Done(_)));
    child.signal(Signal::CONT);
    assert_eq!(child.hear("fenced"), "alive=false");
    assert_eq!(store.get("/written").await.unwrap().unwrap().value, b"ours");
}

/// The child: writes large transactions, one behind the other, until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_writes_large_ones() {
    let Ok(url) = std::env::var(URL) else { return };
    let store = open(&url).await;
    let head = store.get("/head").await.unwrap();
    let mut last = head.as_ref().map_or(0, |entry| entry.modified);
    let first = head.map_or(0, |entry| number(&entry.value) + 1);
    for n in first.. {
        let head = match last {
            0 => Compare::Absent("/head".to_owned()),
            at => Compare::Modified("/head".to_owned(), at),
        };
        let value = n.to_string().into_bytes();
        let mut record = value.clone();
        record.resize(RECORD_BYTES, b' ');
        let mut ops = vec![Op::put("/head", value)];
        ops.extend((0..RECORDS).map(|i| Op::put(format!("/n/{i:02}"), record.clone())));
        say(&format!("tries {n}"));
        match store.commit(Txn { compares: vec![head], ops }).await {
            Ok(Outcome::Done(at)) => last = at,
            Ok(Outcome::Refused) => panic!("refused, and nobody else writes"),
            Err(StoreError::Unavailable(why) | StoreError::Unknown(why)) => {
                panic!("etcd is here: {why}")
            }
            Err(StoreError::Corrupt(what)) => panic!("{what}"),
        }
        say(&format!("done {n}"));
    }
}

fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_one_is_there_in_full_or_not_at_all_whoever_dies() {
    let Some(etcd) = Etcd::start(1) else { return };
    let url = etcd.url();
    let mut finished = 0;
    for round in 0..ROUNDS {
        let mut child = Running::start("processes::child_writes_large_ones", &url);
        let before = number(child.hear("tries").as_bytes());
        // Killed at another point of its way each time: laying down, deciding, carrying out.
        tokio::time::sleep(Duration::from_millis(5 + 17 * round)).await;
        child.signal(Signal::KILL);
        child.child.wait().unwrap();
        let said: Vec<String> = child.lines.by_ref().map_while(Result::ok).collect();
        let acknowledged = |line: &String| line.split_once("done ")?.1.trim().parse().ok();
        let done: Option<u64> = said.iter().rev().find_map(acknowledged);
        // Whoever opens the store finishes what was decided.
        let store = open(&url).await;
        let head = store.get("/head").await.unwrap().map(|entry| number(&entry.value));
        assert!(head >= done, "{done:?} was acknowledged and {head:?} is there");
        let (entries, _) = scan_all(&*store, "/n/").await.unwrap();
        assert_eq!(entries.len(), if head.is_some() { RECORDS } else { 0 });
        for entry in entries {
            assert_eq!(Some(number(&entry.value)), head, "{} in round {round}", entry.key);
        }
        if head > done && head >= Some(before) {
            finished += 1;
        }
    }
    println!("{ROUNDS} writers were killed; {finished} had decided and not told it");
}
