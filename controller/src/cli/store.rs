//! `rota store`: the state as a whole. It works at the store itself, on the host of a controller, and needs no context.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::desk::{Desk, list};
use super::outcome::{Exit, Failure, chain};
use super::talk::{self, Format};
use crate::backup::{self, Backup, BackupError, Head, Making, Passphrase};
use crate::store::etcd::{self, EtcdConfig, EtcdStore};
use crate::store::snapshot::{Snapshot, Unfilled, first_key};
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{Store, StoreError};

/// Where the packages keep a controller's data.
const DATA: &str = "/var/lib/rota";

/// Copy the state to another store, back it up, put it back
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy a state into an empty store, while no controller runs on it
    #[command(after_help = "Examples:\n  \
        rota store copy --from sqlite --to etcd://h1:2379,h2:2379,h3:2379\n  \
        rota store copy --from sqlite:/srv/rota --to \"etcd://h1:2379?ca=/etc/ssl/etcd.pem\"\n  \
        rota store copy --from etcd://h1:2379 --to sqlite:/srv/rota\n\n\
        It copies what the store holds. The authority and the artifacts stay where they\n\
        are: in the data directory, with which the controller is started on the new store.")]
    Copy {
        /// Where the state is: `sqlite` (see --data), `sqlite:DIR` or `etcd://HOST:PORT,...`
        #[arg(long, value_name = "STORE")]
        from: Place,
        /// Where it goes, likewise; nothing may be there
        #[arg(long, value_name = "STORE")]
        to: Place,
        /// The data directory of `sqlite`
        #[arg(long, value_name = "DIR", default_value = DATA)]
        data: PathBuf,
    },
    /// Write everything that a controller needs into one file, while it runs or not
    #[command(after_help = "Examples:\n  \
        rota store backup /backup/rota-monday\n  \
        rota store backup --passphrase-file /etc/rota/backup.pass /backup/rota-monday\n  \
        rota store backup --store etcd://h1:2379 --data /var/lib/rota /backup/rota-monday\n  \
        rota store backup --store etcd://h1:2379 /backup/state-monday\n\n\
        The file holds the authority's key, unless a passphrase seals it: keep it like\n\
        that key. With --store alone it holds the state, and no authority or artifacts.")]
    Backup {
        /// The file; it may not exist
        file: PathBuf,
        /// The data directory: its store, if --store says no other, its authority, its artifacts; without --store it
        /// is /var/lib/rota
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// The store, where it is not in the data directory
        #[arg(long, value_name = "STORE")]
        store: Option<Place>,
        /// Leave the artifacts out: releases that are not on the nodes must be pushed again
        #[arg(long)]
        without_artifacts: bool,
        /// Seal the authority's key with the first line of this file
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Put a backup into an empty store
    #[command(after_help = "Examples:\n  \
        rota store restore /backup/rota-monday --to sqlite:/var/lib/rota\n  \
        rota store restore /backup/rota-monday --to etcd://h1:2379 --data /var/lib/rota\n\n\
        Agents that have accepted newer orders than the backup knows of say so, and\n\
        controllers go on above them. docs/backup.md says what else is to be done.")]
    Restore {
        /// The backup
        file: PathBuf,
        /// Where its state goes: `sqlite` (see --data), `sqlite:DIR` or `etcd://HOST:PORT,...`
        #[arg(long, value_name = "STORE")]
        to: Place,
        /// Where its authority and artifacts go; of etcd, nowhere when it is not given
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// The file with the passphrase that seals the authority's key
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
}

/// Where a state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The database in a data directory; `None`: that of `--data`.
    Sqlite(Option<PathBuf>),
    /// A cluster.
    Etcd(EtcdConfig),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("etcd:") {
            return text.parse().map(Self::Etcd);
        }
        match text.split_once(':') {
            None if text == "sqlite" => Ok(Self::Sqlite(None)),
            Some(("sqlite", dir)) if !dir.is_empty() => Ok(Self::Sqlite(Some(dir.into()))),
            None | Some(_) => {
                Err("write `sqlite:DIR`, `sqlite`, or `etcd://HOST:PORT[,HOST:PORT...]`".to_owned())
            }
        }
    }
}

/// A place, found.
enum Found {
    Sqlite(PathBuf),
    Etcd(EtcdConfig),
}

impl Place {
    fn found(self, data: &Path) -> Found {
        match self {
            Self::Sqlite(dir) => Found::Sqlite(dir.unwrap_or_else(|| data.to_owned())),
            Self::Etcd(config) => Found::Etcd(config),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(dir) => write!(f, "sqlite:{}", dir.display()),
            Self::Etcd(config) => config.fmt(f),
        }
    }
}

/// Carries out `rota store`.
pub async fn run(desk: &Desk, command: StoreCommand) -> Result<Exit, Failure> {
    match command {
        StoreCommand::Copy { from, to, data } => {
            copy(desk, &from.found(&data), &to.found(&data)).await
        }
        StoreCommand::Backup { file, data, store, without_artifacts, passphrase_file } => {
            let passphrase = passphrase(passphrase_file.as_deref())?;
            let place = match (store, &data) {
                (Some(store), data) => store.found(data.as_deref().unwrap_or(Path::new(DATA))),
                (None, Some(data)) => Found::Sqlite(data.clone()),
                (None, None) => Found::Sqlite(DATA.into()),
            };
            // The directory of the database is the data directory.
            let data = match &place {
                Found::Sqlite(dir) => Some(dir.clone()),
                Found::Etcd(_) => data,
            };
            let snapshot = place.look().await?;
            let making = Making {
                snapshot: &snapshot,
                from: place.to_string(),
                made_at: jiff::Timestamp::now().to_string(),
                data: data.as_deref(),
                without_artifacts,
                passphrase,
            };
            let head = backup::write(&file, &making).map_err(refused)?;
            tell_backup(desk, &file, &head, data.is_some())
        }
        StoreCommand::Restore { file, to, data, passphrase_file } => {
            let place = to.found(data.as_deref().unwrap_or(Path::new(DATA)));
            let data = match &place {
                Found::Sqlite(dir) => Some(dir.clone()),
                Found::Etcd(_) => data,
            };
            let passphrase = passphrase(passphrase_file.as_deref())?;
            restore(desk, &file, &place, data.as_deref(), passphrase.as_ref()).await
        }
    }
}

async fn copy(desk: &Desk, from: &Found, to: &Found) -> Result<Exit, Failure> {
    from.check_aside()?;
    // The database stays locked until all is copied: no controller starts on it meanwhile.
    let (snapshot, lock) = from.take().await?;
    to.fill(&snapshot).await?;
    drop(lock);
    let (keys, revision) = (snapshot.entries.len(), snapshot.revision);
    desk.talk.say(&format!("copied {keys} keys from {from} (revision {revision}) to {to}"));
    if let Found::Sqlite(dir) = from {
        let moved = SqliteStore::move_aside(&database(dir)).map_err(|why| from.failed(&why))?;
        desk.talk.say(&format!("what was copied lies in {} now", moved.display()));
    }
    desk.talk.say(&format!("start controllers on {to} from now on, and none on {from}"));
    let document = json!({
        "from": from.to_string(), "to": to.to_string(), "revision": revision, "keys": keys,
    });
    told(desk, &document)
}

async fn restore(
    desk: &Desk,
    file: &Path,
    to: &Found,
    data: Option<&Path>,
    passphrase: Option<&Passphrase>,
) -> Result<Exit, Failure> {
    let mut backup = Backup::read(file).map_err(refused)?;
    let made_at = backup.head.made_at.clone();
    let upto =
        backup::put_back(&mut backup.snapshot, &made_at, &jiff::Timestamp::now().to_string())
            .map_err(|why| to.failed(&why))?;
    // Whatever may be refused is refused before anything is written.
    if let (Some(data), Some((_, key))) = (data, &backup.ca) {
        backup.check_place(data).map_err(refused)?;
        Backup::open_key(key, passphrase).map_err(refused)?;
    }
    let store = to.open().await?;
    if let Some(held) = first_key(&*store).await.map_err(|why| to.failed(&why))? {
        return Err(to.not_empty(&held));
    }
    if let Some(data) = data {
        backup.put_files(data, passphrase).map_err(refused)?;
    }
    to.fill_open(&*store, &backup.snapshot).await?;
    let Head { keys, artifacts, revision, .. } = &backup.head;
    desk.talk.say(&format!("{to} holds the {keys} keys of {made_at} (revision {revision})"));
    desk.talk
        .say(&format!("new rollouts are numbered from {} on: agents know older ones", upto + 1));
    match (data, &backup.ca) {
        (Some(data), Some(_)) => desk.talk.say(&format!(
            "{} has the authority and {artifacts} artifacts of that time",
            data.display()
        )),
        (Some(_), None) => {
            desk.talk.say("the backup holds no authority: put identity/ back by hand")
        }
        (None, _) => desk
            .talk
            .say("authority and artifacts were not put back: --data DIR says where they belong"),
    }
    let document = json!({
        "to": to.to_string(), "made_at": made_at, "revision": revision, "keys": keys,
        "rollouts_from": upto + 1, "artifacts": data.map(|_| artifacts),
        "ca": data.and(backup.head.ca.as_ref()),
    });
    told(desk, &document)
}

impl Found {
    /// Everything, also while controllers run.
    async fn look(&self) -> Result<Snapshot, Failure> {
        let looked = match self {
            Self::Sqlite(dir) => SqliteStore::snapshot(&database(dir)),
            Self::Etcd(config) => match EtcdStore::open(config.clone()).await {
                Ok(store) => store.snapshot().await,
                Err(why) => Err(why),
            },
        };
        looked.map_err(|why| self.failed(&why))
    }

    /// Everything, while nobody may change it; and what keeps others out.
    async fn take(&self) -> Result<(Snapshot, Option<Arc<SqliteStore>>), Failure> {
        let snapshot = self.look().await?;
        match self {
            Self::Sqlite(dir) => {
                let path = database(dir);
                let lock = SqliteStore::open(&path).map_err(|why| self.failed(&why))?;
                // What was committed before it was locked belongs to it.
                let snapshot = SqliteStore::snapshot(&path).map_err(|why| self.failed(&why))?;
                Ok((snapshot, Some(lock)))
            }
            Self::Etcd(_) if snapshot.alive.is_empty() => Ok((snapshot, None)),
            Self::Etcd(_) => {
                let alive = list(&snapshot.alive);
                let message = format!("controllers run on {self}: {alive}; nothing was copied");
                Err(Failure::new("refused", message)
                    .hint("stop them first; agents and apps go on meanwhile"))
            }
        }
    }

    /// What was copied is moved aside afterwards: nothing may be there.
    fn check_aside(&self) -> Result<(), Failure> {
        let Self::Sqlite(dir) = self else { return Ok(()) };
        let aside = SqliteStore::aside(&database(dir));
        if !aside.exists() {
            return Ok(());
        }
        let message =
            format!("{} is there from an earlier copy; nothing was changed", aside.display());
        Err(Failure::new("refused", message).hint("move it away, then copy again"))
    }

    async fn open(&self) -> Result<Arc<dyn Store>, Failure> {
        let opened: Result<Arc<dyn Store>, StoreError> = match self {
            Self::Sqlite(dir) => SqliteStore::open(&database(dir)).map(|store| store as Arc<_>),
            Self::Etcd(config) => {
                EtcdStore::open(config.clone()).await.map(|store| store as Arc<_>)
            }
        };
        opened.map_err(|why| self.failed(&why))
    }

    async fn fill(&self, snapshot: &Snapshot) -> Result<(), Failure> {
        let store = self.open().await?;
        self.fill_open(&*store, snapshot).await
    }

    async fn fill_open(&self, store: &dyn Store, snapshot: &Snapshot) -> Result<(), Failure> {
        let value_max = match self {
            Self::Sqlite(_) => sqlite::VALUE_BYTES_MAX,
            Self::Etcd(_) => etcd::VALUE_BYTES_MAX,
        };
        snapshot.fill(store, value_max).await.map_err(|why| match why {
            Unfilled::Holds(key) => self.not_empty(&key),
            Unfilled::TooLarge { .. } => {
                Failure::new("refused", format!("{self}: {why}; nothing was changed"))
            }
            Unfilled::Store(why) => self.failed(&why),
        })
    }

    fn not_empty(&self, key: &str) -> Failure {
        let message = format!("{self} is not empty: it holds {key}; nothing was changed");
        Failure::new("refused", message).hint(match self {
            Self::Sqlite(dir) => {
                format!("name another folder, or move {} away", database(dir).display())
            }
            Self::Etcd(config) => {
                let prefix = &config.prefix;
                format!("name another prefix, or empty it: `etcdctl del --prefix {prefix}/`")
            }
        })
    }

    fn failed(&self, why: &StoreError) -> Failure {
        let message = match why {
            StoreError::Unavailable(why) => why.clone(),
            StoreError::Unknown(_) | StoreError::Corrupt(_) => why.to_string(),
        };
        Failure::new("refused", message)
    }
}

fn database(dir: &Path) -> PathBuf {
    dir.join("rota.db")
}

fn passphrase(path: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    path.map(Passphrase::read).transpose().map_err(refused)
}

fn refused(error: BackupError) -> Failure {
    Failure::new("refused", chain(&error))
}

fn tell_backup(desk: &Desk, file: &Path, head: &Head, with_data: bool) -> Result<Exit, Failure> {
    let place = file.display();
    let Head { keys, revision, artifacts, missing, .. } = head;
    let from = &head.from;
    desk.talk.say(&format!("{place} holds {keys} keys of {from} (revision {revision})"));
    match (&head.ca, with_data) {
        (Some(_), _) => desk.talk.say(&format!("and the authority, and {artifacts} artifacts")),
        (None, true) => desk.talk.say("and no authority: there is none in the data directory"),
        (None, false) => desk.talk.say("and neither authority nor artifacts: --data DIR adds them"),
    }
    if !missing.is_empty() {
        desk.talk.say(&format!(
            "artifacts of releases are not in this data directory, but with other controllers: {}",
            list(missing)
        ));
    }
    let document = serde_json::to_value(head)
        .map_err(|error| Failure::internal("cannot show the backup", &error))?;
    told(desk, &document)
}

/// The document where a program reads; people were told in words.
fn told(desk: &Desk, document: &serde_json::Value) -> Result<Exit, Failure> {
    if desk.talk.format == Format::Json {
        desk.talk.data(&talk::pretty(&document.to_string())?)?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, right) in [
            ("sqlite", Ok("sqlite:/data")),
            ("sqlite:/srv/rota", Ok("sqlite:/srv/rota")),
            ("etcd://h1:2379", Ok("etcd://h1:2379?prefix=/rota")),
            ("sqlite:", Err("write `sqlite:DIR`")),
            ("postgres://x", Err("write `sqlite:DIR`")),
            ("etcd://", Err("at least one member")),
        ] {
            match (text.parse::<Place>(), right) {
                (Ok(got), Ok(right)) => {
                    assert_eq!(got.found(Path::new("/data")).to_string(), right);
                }
                (Err(got), Err(right)) => assert!(got.contains(right), "{text}: {got}"),
                (got, right) => panic!("{text}: {got:?} instead of {right:?}"),
            }
        }
    }
}
