//! The built-in load balancer: one pool of members behind one listener.
//!
//! It is a process of its own, so that an agent's restart or upgrade cuts nobody off. The edge's
//! agent tells it through a Unix socket ([`control`]) which members should be in traffic; it says
//! back what is. The chain of a request:
//!
//! ```text
//! client ── serve ── exchange ── shared ── upstream ── member
//!           listen    try,        pool:      one link,
//!           HTTP/1,2  repeat      choose,    HTTP/1.1
//!                                 count
//! ```
//!
//! `pool.rs` decides and counts, as plain data. Its promise to whoever rolls out a new version:
//! once "out" is answered no new request goes to the member, and once it is observed out nothing
//! is in flight there and no connection of ours is open.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

mod body;
pub mod control;
mod exchange;
mod headers;
mod health;
pub mod member;
mod pool;
mod serve;
mod shared;
mod slot;
mod state;
mod ticket;
mod tunnel;
mod upstream;

pub use member::{Intent, Key, MemberState, Observed, Want};

/// How often idle connections are looked through. A fraction of the age they may reach.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Where a proxy listens and keeps what it must remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where clients are served. Port 0 picks a free one, which `stats` tells.
    pub listen: SocketAddr,
    /// The control socket; made with mode 0600. `SOCKET.lock` is held while the proxy runs.
    pub control: PathBuf,
    /// The state file; made with mode 0600.
    pub state: PathBuf,
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody can be served there.
    #[error("cannot listen for clients on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Nobody could control it.
    #[error("cannot open the control socket {}", path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Two proxies of one pool would both move its members.
    #[error("a proxy with the control socket {} is running already", path.display())]
    Running {
        /// The socket.
        path: PathBuf,
    },
    /// It cannot know which members are out. Guessing could send requests to a stopped app.
    #[error("cannot use the state file {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: state::Unusable,
    },
    /// It could not be asked to stop.
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
}

/// Serves the pool until SIGTERM, SIGINT or `shutdown`; then finishes what is in flight, for
/// 30 s at most.
pub async fn run(config: Config) -> Result<(), Error> {
    let _lock = lock(&config.control)?;
    let members = state::load(&config.state)
        .map_err(|cause| Error::State { path: config.state.clone(), cause })?;
    let listener = serve::listen(config.listen)
        .map_err(|cause| Error::Listen { address: config.listen, cause })?;
    let listen =
        listener.local_addr().map_err(|cause| Error::Listen { address: config.listen, cause })?;
    let control = control::bind(&config.control)
        .map_err(|cause| Error::Control { path: config.control.clone(), cause })?;
    let signals = signals()?;
    raise_descriptor_limit();
    let shared = shared::Shared::new();
    let keeping = tokio::spawn(state::keep(shared.clone(), config.state.clone()));
    for intent in &members {
        if let Err(refused) = shared.apply(intent) {
            tracing::error!(member = %intent.key, %refused, "the state file has an odd member");
        }
    }
    tokio::spawn(stop_on_signal(shared.clone(), signals));
    tokio::spawn(sweep(shared.clone()));
    let controlling = tokio::spawn(control::serve(shared.clone(), control, listen));
    tracing::info!(%listen, control = %config.control.display(), members = members.len(), "ready");
    serve::run(shared.clone(), listener).await;
    for task in [keeping, controlling] {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task of the proxy broke off");
        }
    }
    state::keep_now(&shared, &config.state).await;
    remove_socket(&config.control);
    tracing::info!("stopped");
    Ok(())
}

/// Holds the place of this proxy until the process ends, however it ends.
fn lock(control: &Path) -> Result<File, Error> {
    let path = state::beside(control, "lock");
    let fail = |cause| Error::Control { path: path.clone(), cause };
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(fail)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Running { path: control.to_owned() }),
        Err(errno) => Err(fail(errno.into())),
    }
}

/// Each exchange takes two descriptors, and the usual soft limit of 1024 is for `select`.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

type Signals = [tokio::signal::unix::Signal; 2];

fn signals() -> Result<Signals, Error> {
    let terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    Ok([terminate, interrupt])
}

async fn stop_on_signal(shared: Arc<shared::Shared>, [mut terminate, mut interrupt]: Signals) {
    tokio::select! {
        _some = terminate.recv() => shared.stop(),
        _some = interrupt.recv() => shared.stop(),
        () = shared.stopped() => {}
    }
}

async fn sweep(shared: Arc<shared::Shared>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _at = ticks.tick() => {}
            () = shared.stopped() => return,
        }
        shared.pool().sweep(Instant::now().into_std(), |link| link.is_alive());
    }
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        tracing::debug!(%error, path = %path.display(), "cannot remove the control socket");
    }
}
