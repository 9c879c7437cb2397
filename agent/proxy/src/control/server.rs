//! The proxy's side of the control protocol.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Answer, Ask, CALL_LEN_MAX, Call, Said, Stats, read_line, to_line};
use crate::member::{Key, MemberState, Observed, Want};
use crate::shared::Shared;
use crate::state::beside;

/// Answers that wait for one client to read them. A client that reads nothing asks nothing more.
const SAID_QUEUED_MAX: usize = 64;

/// Between two messages that only tell how many are in flight. People and deadlines need no more;
/// changes of state are told at once.
const COUNTS_EVERY: Duration = Duration::from_millis(50);

/// After an accept that failed for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long the last answers may take when the proxy stops.
const GOODBYE_LIMIT: Duration = Duration::from_millis(200);

/// Opens the socket, for nobody but this user. Whoever held it before is gone: see `lib.rs`.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    // Bound aside and renamed, so that it is never seen with other rights or half replaced.
    let aside = beside(path, "new");
    match fs::remove_file(&aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&aside)?;
    fs::set_permissions(&aside, Permissions::from_mode(0o600))?;
    fs::rename(&aside, path)?;
    Ok(listener)
}

/// Serves control clients until the proxy stops.
pub(crate) async fn serve(shared: Arc<Shared>, listener: UnixListener, listen: SocketAddr) {
    let mut sessions = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.stopped() => break,
            Some(ended) = sessions.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a control session broke off");
            },
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    sessions.spawn(session(shared.clone(), stream, listen));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept control clients for a moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let goodbye = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(GOODBYE_LIMIT, goodbye).await.is_err() {
        tracing::debug!("stopping although control clients do not read");
    }
}

async fn session(shared: Arc<Shared>, stream: UnixStream, listen: SocketAddr) {
    let (reader, writer) = stream.into_split();
    let (say, said) = mpsc::channel(SAID_QUEUED_MAX);
    let listening = Session { shared: shared.clone(), listen, say, tasks: JoinSet::new() };
    let writing = tokio::spawn(write(writer, said));
    tokio::select! {
        ended = listening.listen(reader) => if let Err(error) = ended {
            tracing::debug!(%error, "control session ended");
        },
        () = shared.stopped() => {}
    }
    // Dropping the session dropped the last sender, so what is queued is written and that is all.
    match writing.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "control client does not read"),
        Err(error) => tracing::error!(%error, "writing to a control client broke off"),
    }
}

async fn write(mut writer: OwnedWriteHalf, mut said: mpsc::Receiver<Said>) -> io::Result<()> {
    while let Some(message) = said.recv().await {
        writer.write_all(&to_line(&message)?).await?;
    }
    Ok(())
}

struct Session {
    shared: Arc<Shared>,
    listen: SocketAddr,
    say: mpsc::Sender<Said>,
    tasks: JoinSet<()>,
}

impl Session {
    async fn listen(mut self, reader: OwnedReadHalf) -> io::Result<()> {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while read_line(&mut reader, &mut line, CALL_LEN_MAX).await? {
            match serde_json::from_slice::<Call>(&line) {
                Ok(call) => self.hear(call).await,
                Err(error) => {
                    say(&self.say, Said::Refused { id: 0, why: format!("not a call: {error}") })
                        .await;
                    return Err(error.into());
                }
            }
            line.clear();
            while self.tasks.try_join_next().is_some() {}
        }
        Ok(())
    }

    /// What is asked is in force when this returns; the answer may take longer.
    async fn hear(&mut self, Call { id, ask }: Call) {
        let answer = match ask {
            Ask::Apply(intent) => match self.shared.apply(&intent) {
                Ok(applied) => {
                    tracing::info!(member = %applied.key, want = ?intent.want, cut = intent.cut,
                        in_flight = applied.in_flight, "applied");
                    self.answer_settled(id, applied);
                    return;
                }
                Err(refused) => {
                    say(&self.say, Said::Refused { id, why: refused.to_string() }).await;
                    return;
                }
            },
            Ask::List => Answer::Members(self.shared.pool().list()),
            Ask::Stats => Answer::Stats(self.stats()),
            Ask::Subscribe => Answer::Subscribed,
            Ask::Shutdown => Answer::Stopping,
        };
        let (subscribed, stopping) = (answer == Answer::Subscribed, answer == Answer::Stopping);
        say(&self.say, Said::Answer { id, is: answer }).await;
        if subscribed {
            self.tasks.spawn(tell(self.shared.clone(), self.say.clone()));
        }
        if stopping {
            self.shared.stop();
        }
    }

    fn answer_settled(&mut self, id: u64, applied: MemberState) {
        let (shared, to) = (self.shared.clone(), self.say.clone());
        self.tasks.spawn(async move {
            let state = shared.settle(applied).await;
            say(&to, Said::Answer { id, is: Answer::Applied(state) }).await;
        });
    }

    fn stats(&self) -> Stats {
        let (requests, failed) = self.shared.counted();
        let pool = self.shared.pool();
        Stats {
            listen: self.listen,
            pid: std::process::id(),
            requests,
            failed,
            cut: pool.cut(),
            in_flight: pool.in_flight(),
            waiting: self.shared.waiting() as u64,
            idle: pool.idle() as u64,
        }
    }
}

/// Queues a message; false when the client is gone.
async fn say(to: &mpsc::Sender<Said>, message: Said) -> bool {
    to.send(message).await.is_ok()
}

/// Tells a subscriber how every member is, and whatever changes.
async fn tell(shared: Arc<Shared>, to: mpsc::Sender<Said>) {
    let (mut states, mut counts) = (shared.states(), shared.counts());
    let mut told = BTreeMap::new();
    loop {
        let list = shared.pool().list();
        for state in news(&mut told, list) {
            if !say(&to, Said::Member(state)).await {
                return;
            }
        }
        let next = Instant::now() + COUNTS_EVERY;
        let counted = async {
            let changed = counts.changed().await;
            tokio::time::sleep_until(next).await;
            changed
        };
        let changed = tokio::select! {
            changed = states.changed() => changed,
            changed = counted => changed,
            () = to.closed() => return,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// What a subscriber does not know yet. In flight is only told of members that drain.
fn news(told: &mut BTreeMap<Key, MemberState>, list: Vec<MemberState>) -> Vec<MemberState> {
    let mut news = Vec::new();
    let mut before = std::mem::take(told);
    for mut state in list {
        let known = before.remove(&state.key);
        match &known {
            Some(known)
                if state.observed == known.observed && state.observed != Observed::Draining =>
            {
                let shown = state.in_flight;
                state.in_flight = known.in_flight;
                if state != *known {
                    state.in_flight = shown;
                    news.push(state.clone());
                }
            }
            Some(known) if state == *known => {}
            Some(_) | None => news.push(state.clone()),
        }
        told.insert(state.key.clone(), state);
    }
    let gone = before.into_values().map(|state| MemberState {
        want: Want::Gone,
        observed: Observed::Absent,
        in_flight: 0,
        ..state
    });
    news.extend(gone);
    news
}
