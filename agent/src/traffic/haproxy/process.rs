//! One process of HAProxy: told what differs until nothing does, and looked at.
//!
//! A reload puts a new process behind the socket. The old one takes no new connections, but finishes what it has, and
//! nobody can ask it. The kernel can: a member with connections that the new process does not hold is not out yet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;
use tracing::info;

use super::plan::{self, Command, Drains};
use super::reading::{self, Admin, ReadError, Reading, Server};
use super::socket::{self, Silent};
use crate::journal::{self, JournalError};
use crate::sockets::{self, SocketsError};
use crate::traffic::book::Wanted;
use crate::traffic::{BalancerError, Key, Observed, Want};

/// So often one look tells HAProxy what differs. Out takes two: drain, then maint.
const ROUNDS_MAX: usize = 5;

/// The file that HAProxy can load at its start (`server-state-file-name`).
const STATE_FILE: &str = "servers.state";

/// One admin socket, and what is known of the processes behind it.
#[derive(Debug)]
pub struct Process {
    socket: PathBuf,
    backend: String,
    /// The backend's number in the process that answered last.
    id: Option<u64>,
    folder: PathBuf,
    /// Its servers' states are written down for the next start.
    keeps_state: bool,
    /// What was written last.
    state: Vec<(String, Option<SocketAddr>, Admin)>,
    /// Who answered last, and what it had counted.
    last: Option<Counted>,
    /// Counted by processes that are gone.
    before: (u64, u64),
    /// Processes that a reload replaced and that are not gone yet.
    old: Vec<u32>,
    drains: Drains,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    pid: u32,
    requests: u64,
    failed: u64,
}

/// What one process said, after it was told.
#[derive(Debug, Default)]
pub struct Standing {
    /// Requests so far, over reloads.
    pub requests: u64,
    /// Of those, failed.
    pub failed: u64,
    /// How each member stands, and what it has in flight.
    pub members: BTreeMap<Key, (Observed, u64)>,
    /// Why it did not do for a member what it was told.
    pub refused: BTreeMap<Key, String>,
}

/// Why HAProxy is not as it should be.
#[derive(Debug, Error)]
pub enum Trouble {
    /// Nobody answers.
    #[error(transparent)]
    Silent(#[from] Silent),
    /// It cannot be used so.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It was told to end what is in flight, and did not.
    #[error("HAProxy did not take `{command}`: {answer}")]
    Refused { command: String, answer: String },
    /// The agent's own disk.
    #[error(transparent)]
    Book(#[from] JournalError),
    /// The kernel did not tell who is connected.
    #[error(transparent)]
    Sockets(#[from] SocketsError),
}

impl Trouble {
    /// As nodes are told: what a repeat cannot mend is refused, with the reason.
    pub fn into_balancer(self, pool: &str) -> BalancerError {
        let pool = pool.to_owned();
        match self {
            Self::Silent(_) => BalancerError::Silent { pool },
            Self::Read(ReadError::NoBackend { .. } | ReadError::NotAdmin)
            | Self::Refused { .. } => BalancerError::Refused { pool, why: self.to_string() },
            Self::Read(ReadError::Odd { .. }) | Self::Book(_) | Self::Sockets(_) => {
                BalancerError::Broken { pool, cause: Box::new(self) }
            }
        }
    }
}

impl Process {
    pub fn new(socket: PathBuf, backend: String, folder: &Path) -> Self {
        Self {
            socket,
            backend,
            id: None,
            folder: folder.to_owned(),
            keeps_state: false,
            state: Vec::new(),
            last: None,
            before: (0, 0),
            old: Vec::new(),
            drains: Drains::new(),
        }
    }

    /// Writes its servers' states down for HAProxy's next start.
    pub fn keeps_state(&mut self) {
        self.keeps_state = true;
    }

    /// Tells it what differs until nothing does, and says how the members stand then.
    pub async fn settle(
        &mut self,
        members: &mut BTreeMap<Key, Wanted>,
    ) -> Result<Standing, Trouble> {
        let mut reading = self.read().await?;
        loop {
            let (told, refused) = self.told(members, reading).await?;
            self.note_state(&told);
            let reloads = is_replaced(told.pid);
            if reloads.is_none() {
                // It has just ended, and what it was told is forgotten; or it is not to be seen from here.
                reading = self.read().await?;
                if reading.pid != told.pid {
                    continue;
                }
            }
            let standing = self.standing(members, &told, reloads.unwrap_or(false))?;
            return Ok(Standing { refused, ..standing });
        }
    }

    /// Tells the process that answers what differs; as it stands then, and what it refused.
    async fn told(
        &mut self,
        members: &mut BTreeMap<Key, Wanted>,
        mut reading: Reading,
    ) -> Result<(Reading, BTreeMap<Key, String>), Trouble> {
        let name = self.socket.display().to_string();
        let mut refused = BTreeMap::new();
        for _ in 0..ROUNDS_MAX {
            let commands = plan::plan(&name, members, &reading, &mut self.drains);
            let rest = commands.into_iter().filter(|(key, _)| !refused.contains_key(key));
            let rest: Vec<_> = rest.collect();
            if rest.is_empty() {
                break;
            }
            for (key, command) in rest {
                if let Some(why) = self.tell(&command).await? {
                    refused.insert(key, why);
                }
            }
            reading = self.read().await?;
        }
        Ok((reading, refused))
    }

    async fn read(&mut self) -> Result<Reading, Trouble> {
        let question = reading::question(&self.backend, self.id.take());
        let answer = socket::ask(&self.socket, &question).await?;
        let reading = reading::read(&self.backend, &answer)?;
        self.id = reading.id;
        let Reading { pid, requests, failed, .. } = reading;
        if let Some(last) = self.last.filter(|last| last.pid != pid) {
            let socket = self.socket.display();
            info!(%socket, old = last.pid, new = pid, "HAProxy was reloaded");
            self.before = (self.before.0 + last.requests, self.before.1 + last.failed);
            self.old.push(last.pid);
        }
        self.last = Some(Counted { pid, requests, failed });
        Ok(reading)
    }

    /// Says why it was not done. Forgetting a server waits until its last connection is closed, so that is tried again
    /// with the next look.
    async fn tell(&self, command: &Command) -> Result<Option<String>, Trouble> {
        let mut refused = None;
        for line in command.lines(&self.backend) {
            let answer = socket::ask(&self.socket, &line).await?;
            let complaint = complaint_of(&answer);
            if complaint.is_empty() {
                info!(socket = %self.socket.display(), "{line}");
                return Ok(None);
            }
            refused.get_or_insert(format!("HAProxy did not take `{line}`: {complaint}"));
        }
        Ok(refused.filter(|_| !matches!(command, Command::Delete(_))))
    }

    /// Ends what is in flight to a member; says how much that was.
    pub async fn cut(&mut self, wanted: &Wanted) -> Result<u64, Trouble> {
        let Some(name) = wanted.servers.get(&self.socket.display().to_string()) else {
            return Ok(0);
        };
        let reading = self.read().await?;
        let in_flight = reading.servers.get(&name.name).map_or(0, |server| server.in_flight);
        if in_flight > 0 {
            let line = format!("shutdown sessions server {}/{}", self.backend, name.name);
            let answer = socket::ask(&self.socket, &line).await?;
            if !complaint_of(&answer).is_empty() {
                let answer = answer.trim().to_owned();
                return Err(Trouble::Refused { command: line, answer });
            }
        }
        Ok(in_flight)
    }

    fn standing(
        &mut self,
        members: &BTreeMap<Key, Wanted>,
        reading: &Reading,
        reloads: bool,
    ) -> Result<Standing, Trouble> {
        let name = self.socket.display().to_string();
        self.old.retain(|pid| Path::new("/proc").join(pid.to_string()).exists());
        let mut standing = Standing {
            requests: self.before.0 + reading.requests,
            failed: self.before.1 + reading.failed,
            ..Standing::default()
        };
        for (key, wanted) in members {
            let server = wanted.servers.get(&name).and_then(|it| reading.servers.get(&it.name));
            let mut observed = plan::observed(wanted, server);
            let mut in_flight = server.map_or(0, |server| server.in_flight);
            if wanted.want != Want::In && !self.old.is_empty() {
                in_flight += held_by_others(wanted.address, server)?;
            }
            if observed == Observed::Out && (in_flight > 0 || reloads) {
                observed = Observed::Draining;
            }
            standing.members.insert(key.clone(), (observed, in_flight));
        }
        Ok(standing)
    }

    /// A HAProxy that is configured to loads this at its start, and never sends a request to a member that is out. It
    /// is a convenience: the next look mends what a start without it does.
    fn note_state(&mut self, reading: &Reading) {
        if !self.keeps_state {
            return;
        }
        let server = |(name, it): (&String, &Server)| (name.clone(), it.address, it.admin);
        let now: Vec<_> = reading.servers.iter().map(server).collect();
        if now == self.state {
            return;
        }
        let path = self.folder.join(STATE_FILE);
        match journal::replace(&path, reading.state.as_bytes()) {
            Ok(()) => self.state = now,
            Err(error) => tracing::warn!("cannot write {}: {error}", path.display()),
        }
    }
}

/// Is a reload under way that replaces this process? The new one may have read a state from before the last change, and
/// would believe for a moment that a member is in. HAProxy's master says whom it replaces: it executes itself with
/// `-sf PID` before it reads anything. `None`: there is no such process here.
fn is_replaced(pid: u32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let master = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    let words = std::fs::read(format!("/proc/{}/cmdline", master.trim())).unwrap_or_default();
    let pid = pid.to_string();
    Some(words.split(|byte| *byte == 0).any(|word| word == pid.as_bytes()))
}

/// Connections to a member that the process which answers does not hold.
fn held_by_others(address: SocketAddr, server: Option<&Server>) -> Result<u64, SocketsError> {
    let all = sockets::connected_to(address)?.len() as u64;
    let own = server.map_or(0, |server| server.in_flight + server.idle);
    Ok(all.saturating_sub(own))
}

/// HAProxy answers nothing when all is well, but for some commands, which say what they did.
fn complaint_of(answer: &str) -> &str {
    let fine = ["New server registered.", "Server deleted.", "changed", "no need to change"];
    let lines = answer.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.into_iter().find(|line| !fine.iter().any(|it| line.contains(it))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::UnixListener;

    use super::*;

    /// Answers as HAProxy does, of one server that takes what it is told.
    fn answer(pid: u32, admin: u32) -> String {
        format!(
            "Pid: {pid}\n\n1\n\
             # be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_port\n\
             3 shop 1 web-01 127.0.0.1 2 {admin} 1\n\n# pxname,svname,scur,stot,mode\n\
             shop,web-01,0,0,http\nshop,BACKEND,0,0,http\n"
        )
    }

    /// The worker of yesterday answers that a member is in maintenance, and ends before anybody looks after it; the new
    /// one read an older state.
    #[tokio::test]
    async fn what_a_worker_said_that_has_ended_counts_for_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut worker = tokio::process::Command::new("sleep").arg("100").spawn().unwrap();
        let old = worker.id().unwrap();
        let haproxy = tokio::spawn(async move {
            let (mut pid, mut admin, mut told) = (old, 1, Vec::new());
            while told.len() < 2 {
                let (stream, _) = listener.accept().await.unwrap();
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                let state = line.trim().strip_prefix("set server shop/web-01 state ");
                let said = match state {
                    Some(state) => {
                        admin = if state == "drain" { 8 } else { 1 };
                        told.push(state.to_owned());
                        String::new()
                    }
                    None => answer(pid, admin),
                };
                if pid == old {
                    worker.kill().await.unwrap();
                    (pid, admin) = (std::process::id(), 0);
                }
                stream.write_all(said.as_bytes()).await.unwrap();
            }
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.read_line(&mut String::new()).await.unwrap();
            stream.write_all(answer(pid, admin).as_bytes()).await.unwrap();
            told
        });
        let key = Key { node: "web-01".to_owned(), instance: String::new() };
        let wanted = Wanted {
            address: "127.0.0.1:1".parse().unwrap(),
            want: Want::Out,
            version: "1.0.0".to_owned(),
            cut: 0,
            servers: BTreeMap::new(),
        };
        let mut members = BTreeMap::from([(key.clone(), wanted)]);
        let mut process = Process::new(socket, "shop".to_owned(), folder.path());
        let standing = process.settle(&mut members).await.unwrap();
        assert_eq!(haproxy.await.unwrap(), ["drain", "maint"], "the new one was told, too");
        assert_eq!(standing.members[&key], (Observed::Out, 0));
    }
}
