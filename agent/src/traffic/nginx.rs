//! nginx (open source) as a pool's balancer: a file of `server` lines that the operator includes in an `upstream`, and
//! a reload for each change.
//!
//! The file is what is wanted, so a restart of nginx changes nothing. A change is in force when nginx has tested the
//! whole configuration, and every worker that ran before the reload has stopped taking requests. Such workers finish
//! what they have; nginx does not say how much that is, but the kernel knows who is connected to the member.

mod master;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::book::{Book, Wanted};
use super::{Balancer, BalancerError, Change, Key, Member, Observed, View, Want};
pub use crate::config::Nginx as Settings;
use crate::health::chain;
use crate::journal::{self, JournalError};
use crate::sockets::{self, SocketsError};
use master::{Master, MasterError};

/// Between two looks at rest: that nginx runs, and how many connections there are.
const LOOK_AT_REST: Duration = Duration::from_secs(1);

/// The first looks while a member drains. The kernel has no event for a connection's end.
const LOOK_MOVING: Duration = Duration::from_millis(5);

/// The longest of these.
const LOOK_MOVING_MAX: Duration = Duration::from_millis(100);

/// The nginx of one pool.
#[derive(Debug)]
pub struct Nginx {
    pool: String,
    settings: Settings,
    book: Mutex<Book>,
    /// Which master has loaded which file; held over a reload, so that changes that come meanwhile share the next one.
    loaded: Mutex<Option<Loaded>>,
    view: watch::Sender<Arc<View>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Loaded {
    master: u32,
    text: String,
}

/// Why a change is not in force.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Book(#[from] JournalError),
    #[error("cannot {deed} {}", path.display())]
    File {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    #[error(transparent)]
    Master(#[from] MasterError),
    #[error(transparent)]
    Sockets(#[from] SocketsError),
}

impl Trouble {
    fn into_balancer(self, pool: &str) -> BalancerError {
        let pool = pool.to_owned();
        match self {
            Self::Master(MasterError::Absent { .. }) => BalancerError::Silent { pool },
            Self::Master(MasterError::Refused { .. }) | Self::File { .. } => {
                BalancerError::Refused { pool, why: chain(&self) }
            }
            Self::Book(_) | Self::Master(_) | Self::Sockets(_) => {
                BalancerError::Broken { pool, cause: Box::new(self) }
            }
        }
    }
}

impl Nginx {
    /// Takes the pool over.
    pub async fn start(
        data: &Path,
        pool: &str,
        settings: &Settings,
    ) -> Result<Arc<Self>, JournalError> {
        let book = Book::open(&data.join("edge").join(pool)).await?;
        let nginx = Arc::new(Self {
            pool: pool.to_owned(),
            settings: settings.clone(),
            book: Mutex::new(book),
            loaded: Mutex::new(None),
            view: watch::Sender::new(Arc::default()),
        });
        tokio::spawn(Arc::clone(&nginx).keep());
        Ok(nginx)
    }

    async fn keep(self: Arc<Self>) {
        let mut changed = self.view.subscribe();
        let (mut pause, mut said) = (LOOK_MOVING, None);
        loop {
            let trouble = self.settle().await.err().map(|error| chain(&error));
            if trouble != said {
                match &trouble {
                    Some(why) => warn!(pool = self.pool, "{why}"),
                    None => info!(pool = self.pool, "nginx is as it should be"),
                }
                said = trouble;
            }
            let moving = {
                let view = changed.borrow_and_update();
                view.members.values().any(|it| it.observed == Observed::Draining)
            };
            pause = match moving {
                true => (pause * 3 / 2).min(LOOK_MOVING_MAX),
                false => LOOK_AT_REST,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                moved = changed.changed() => match moved {
                    Ok(()) => pause = LOOK_MOVING,
                    Err(_) => return,
                },
            }
        }
    }

    /// Puts in force what the book says, and shows what stands then.
    async fn settle(&self) -> Result<(), Trouble> {
        let done = self.load().await;
        let members = self.book.lock().await.members().clone();
        let shown = match &done {
            Ok(()) => self.shown(&members),
            Err(_) => Ok(View { answers: false, ..View::clone(&self.view.borrow()) }),
        };
        let shown = shown?;
        self.view.send_if_modified(|view| {
            let news = **view != shown;
            *view = Arc::new(shown);
            news
        });
        done
    }

    /// Has nginx load the file, unless it has. A configuration that nginx does not take is left alone: its old one
    /// goes on, and the file is as it was, so that nginx can be restarted.
    async fn load(&self) -> Result<(), Trouble> {
        let mut loaded = self.loaded.lock().await;
        let members = self.book.lock().await.members().clone();
        let text = lines(&self.pool, &members);
        let master = Master::find(&self.settings.pid_file)?;
        let wanted = Loaded { master: master.pid(), text };
        if loaded.as_ref() == Some(&wanted) {
            return Ok(());
        }
        let path = &self.settings.upstream;
        let file = |deed| move |cause| Trouble::File { deed, path: path.clone(), cause };
        let before = match std::fs::read_to_string(path) {
            Ok(before) => Some(before),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(file("read")(error)),
        };
        if before.as_ref() != Some(&wanted.text) {
            journal::replace(path, wanted.text.as_bytes()).map_err(file("write"))?;
        }
        if let Err(error) = master.test().await {
            if let Some(before) = before {
                journal::replace(path, before.as_bytes()).map_err(file("write"))?;
            }
            return Err(error.into());
        }
        master.reload().await?;
        info!(pool = self.pool, "nginx was reloaded");
        *loaded = Some(wanted);
        drop(loaded);
        let mut book = self.book.lock().await;
        let mut left = book.members().clone();
        left.retain(|key, it| it.want != Want::Gone || members.get(key) != Some(it));
        Ok(book.replace(left).await?)
    }

    fn shown(&self, members: &BTreeMap<Key, Wanted>) -> Result<View, Trouble> {
        let mut view = View { answers: true, cut: self.view.borrow().cut, ..View::default() };
        for (key, wanted) in members.iter().filter(|(_, it)| it.want != Want::Gone) {
            let in_flight = sockets::connected_to(wanted.address)?.len() as u64;
            let observed = match (wanted.want, in_flight) {
                (Want::In, _) => Observed::In,
                (Want::Out | Want::Gone, 0) => Observed::Out,
                (Want::Out | Want::Gone, _) => Observed::Draining,
            };
            let Wanted { address, version, cut, .. } = wanted.clone();
            view.members.insert(key.clone(), Member { address, observed, in_flight, cut, version });
        }
        Ok(view)
    }

    /// Closes the connections to a member, and counts them.
    async fn cut(&self, key: &Key) -> Result<(), Trouble> {
        let mut book = self.book.lock().await;
        let mut members = book.members().clone();
        let Some(wanted) = members.get_mut(key) else { return Ok(()) };
        let open = sockets::connected_to(wanted.address)?;
        for peer in &open {
            sockets::close(peer)?;
        }
        let cut = open.len() as u64;
        wanted.cut += cut;
        book.replace(members).await?;
        self.view.send_modify(|view| {
            *view = Arc::new(View { cut: view.cut + cut, ..View::clone(view) });
        });
        Ok(())
    }
}

/// The file: a line for each member. nginx wants at least one.
fn lines(pool: &str, members: &BTreeMap<Key, Wanted>) -> String {
    let mut text =
        format!("# The pool {pool}, written by rota-agent: changes here are overwritten.\n");
    let there = members.iter().filter(|(_, wanted)| wanted.want != Want::Gone);
    let mut none = true;
    for (key, wanted) in there {
        let down = if wanted.want == Want::In { "" } else { " down" };
        let Key { node, instance } = key;
        let dot = if instance.is_empty() { "" } else { "." };
        text += &format!("server {}{down}; # {node}{dot}{instance}\n", wanted.address);
        none = false;
    }
    if none {
        text += "server 127.0.0.1:1 down; # nobody\n";
    }
    text
}

#[tonic::async_trait]
impl Balancer for Nginx {
    async fn apply(&self, change: Change) -> Result<Member, BalancerError> {
        let failed = |error: Trouble| error.into_balancer(&self.pool);
        self.book.lock().await.take(&change).await.map_err(|error| failed(error.into()))?;
        self.settle().await.map_err(failed)?;
        if change.cut && change.want == Want::Out {
            self.cut(&change.key).await.map_err(failed)?;
            self.settle().await.map_err(failed)?;
        }
        Ok(self.view.borrow().after(change))
    }

    fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }
}
