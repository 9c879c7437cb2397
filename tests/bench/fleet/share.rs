//! The crowd in several processes, because no process may open as many files as ten thousand agents need that hold two
//! sessions each: the part that one process plays, and all parts as the bench sees them.

use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rota_tests::Trouble;

use super::super::Flags;
use super::crowd::{self, Crowd, PATIENCE, Tally};

/// How often at most a part tells what it counts: thousands of agents move at once.
const TOLD_EVERY: Duration = Duration::from_millis(20);

/// Said to a part whose agents may connect.
const LIVE: &str = "live";

/// Plays a part, until whoever started it is gone.
pub fn play(args: &[String]) -> Result<(), Trouble> {
    let flags = Flags::read(args, &["address", "token", "from", "agents"])?;
    let (address, token) = (flags.text("address", ""), flags.text("token", ""));
    let from = flags.number("from", 1)?;
    let agents = from..from + flags.number("agents", 1)?;
    super::raise_descriptors()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let crowd = Crowd::new();
    crowd.set_spreads(true);
    runtime.spawn(tell(Arc::clone(&crowd)));
    let all = runtime.block_on(crowd::enrol(&crowd, &address, &token, agents))?;
    let _in_runtime = runtime.enter();
    for line in std::io::stdin().lines() {
        if line? == LIVE {
            all.iter().for_each(|agent| agent.live(address.clone()));
        }
    }
    std::process::exit(0); // none of thousands of sessions has to say goodbye
}

async fn tell(crowd: Arc<Crowd>) {
    let mut counted = crowd.counted();
    while counted.changed().await.is_ok() {
        let tally = counted.borrow_and_update().clone();
        let text = serde_json::to_string(&tally).unwrap_or_default();
        if writeln!(std::io::stdout(), "{text}").is_err() {
            return;
        }
        tokio::time::sleep(TOLD_EVERY).await; // what is counted meanwhile is told at once
    }
}

/// All parts.
pub struct Shares {
    parts: Vec<(Child, ChildStdin)>,
    counted: Arc<Counted>,
}

#[derive(Default)]
struct Counted {
    tallies: Mutex<Vec<Tally>>,
    changed: Condvar,
}

impl Counted {
    fn lock(&self) -> MutexGuard<'_, Vec<Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn total(tallies: &[Tally]) -> Tally {
    tallies.iter().fold(Tally::default(), Tally::and)
}

impl Shares {
    /// Spreads so many agents over so many processes, and gives each an identity.
    pub fn enrol(
        (address, token): (&str, &str),
        agents: usize,
        processes: usize,
    ) -> Result<Self, Trouble> {
        let counted = Arc::new(Counted::default());
        *counted.lock() = vec![Tally::default(); processes];
        let mut shares = Self { parts: Vec::new(), counted };
        for number in 0..processes {
            let part = agents * number / processes..agents * (number + 1) / processes;
            shares.begin((address, token), part)?;
        }
        shares.wait("all have enrolled", |tally| tally.enrolled == agents)?;
        Ok(shares)
    }

    fn begin(&mut self, (address, token): (&str, &str), part: Range<usize>) -> Result<(), Trouble> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([super::SHARE, "--address", address, "--token", token]);
        command.args(["--from", &(part.start + 1).to_string()]);
        command.args(["--agents", &part.len().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = stdin.zip(stdout).ok_or("a process without pipes")?;
        let (number, counted) = (self.parts.len(), Arc::clone(&self.counted));
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let Ok(tally) = serde_json::from_str(&line) else { continue };
                counted.lock()[number] = tally;
                counted.changed.notify_all();
            }
        });
        self.parts.push((child, stdin));
        Ok(())
    }

    /// Lets all connect.
    pub fn live(&mut self) -> Result<(), Trouble> {
        for (_, stdin) in &mut self.parts {
            writeln!(stdin, "{LIVE}")?;
        }
        Ok(())
    }

    /// What all parts have counted.
    pub fn tally(&self) -> Tally {
        total(&self.counted.lock())
    }

    /// Waits until the count is as it should be.
    pub fn wait(&self, what: &str, right: impl Fn(&Tally) -> bool) -> Result<(), Trouble> {
        let end = Instant::now() + PATIENCE;
        let mut tallies = self.counted.lock();
        loop {
            let all = total(&tallies);
            if right(&all) {
                return Ok(());
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let secs = PATIENCE.as_secs();
                return Err(format!("waited {secs} s until {what}; so far {all:?}").into());
            }
            let waited = self.counted.changed.wait_timeout(tallies, left);
            tallies = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Shares {
    fn drop(&mut self) {
        for (child, _) in &mut self.parts {
            if child.kill().is_err() || child.wait().is_err() {
                eprintln!("a part of the crowd had ended already");
            }
        }
    }
}
