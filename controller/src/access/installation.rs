//! Whose a shared store is, and whether this controller belongs to it.
//!
//! `/installation` names the CA that counts. The first start on an empty store makes the CA and writes that down; every
//! other controller [joins](super::join) with a token, and comes back with the CA that it keeps in `DIR/identity`.
//! Beside it `DIR/identity/controller.json` says which controller this directory is, so that a wrong `--name`, a wrong
//! `--store` or a removed controller is noticed before anything is written.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use rota_identity::{FileError, Fingerprint, Identity, Kind, write_private};
use rota_rollout::names::Timestamp;
use serde::{Deserialize, Serialize};

use super::join::{Invited, NotJoined, join};
use super::members::{Member, member_key};
use super::record::{decode, encode, timestamp};
use super::{Ca, CaError, share};
use crate::errors::Sort;
use crate::store::{Compare, Op, Outcome, Store, StoreError, Txn};
use crate::view::ErrorView;

const KEY: &str = "/installation";

/// Which controller a data directory is.
const FILE: &str = "controller.json";

/// What the store says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Installation {
    /// The fingerprint of the CA.
    pub ca: String,
    pub founded: Timestamp,
    /// The controller that did.
    pub by: String,
}

/// What a data directory says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Who {
    name: String,
}

/// A controller at the door of a shared store.
pub struct Door<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// The data directory.
    pub dir: &'a Path,
    /// `--name`
    pub name: &'a str,
    /// `--join` and `--token`
    pub invited: Option<Invited<'a>>,
}

/// A controller that belongs here.
pub struct Inside {
    /// The CA of the installation.
    pub ca: Ca,
    /// This controller founds the installation: the first admin is made.
    pub founds: bool,
}

/// Why it does not.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The CA in the directory is not that of the store.
    #[error(
        "the store belongs to another installation than {}: its CA has SHA-256 {store}, the one \
         there {own}", .dir.display()
    )]
    AnotherCa { dir: PathBuf, own: String, store: String },
    /// The directory is another controller's.
    #[error(
        "{} is the data directory of controller {is}, and `--name` says {asked}", .dir.display()
    )]
    AnotherName { dir: PathBuf, is: String, asked: String },
    /// `rota controller rm`.
    #[error("controller {0} was removed from this installation")]
    Removed(String),
    /// A directory that belongs to an installation, and a store without one.
    #[error("{} belongs to an installation, and the store has none", .0.display())]
    StoreGone(PathBuf),
    /// Without a token nobody gets the CA.
    #[error("the store belongs to an installation that controller {0} has not joined")]
    NotInvited(String),
    /// What was copied there belongs to a CA that is not here.
    #[error(
        "the store holds an installation that no controller has opened yet, and its CA is not in \
         {}",
        .0.display()
    )]
    CaElsewhere(PathBuf),
    /// `--join` on an empty store.
    #[error("the store is empty: it is not the one of the controller at {0}")]
    NothingToJoin(String),
    /// Two first starts at once.
    #[error("another controller began this installation at the same moment")]
    Raced,
    /// Joining failed.
    #[error(transparent)]
    Join(#[from] NotJoined),
    /// The CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// A file in the directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// [`FILE`] is there and cannot be used.
    #[error("cannot read {}: {why}", .path.display())]
    Unreadable { path: PathBuf, why: String },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<EntryError> for ErrorView {
    fn from(error: EntryError) -> Self {
        let hint = match &error {
            EntryError::Join(error) => return error.into(),
            EntryError::Store(error) => return error.clone().into(),
            EntryError::AnotherCa { .. } => {
                "check --store and its prefix; a new controller has a --data directory of its own, \
                 and joins with --join HOST:PORT --token T"
                    .to_owned()
            }
            EntryError::AnotherName { is, .. } => {
                format!("--name {is}; another controller has a --data directory of its own")
            }
            EntryError::Removed(name) | EntryError::NotInvited(name) => format!(
                "`rota token create --for controller --name {name}`, then start it once with \
                 --join HOST:PORT --token T"
            ),
            EntryError::StoreGone(dir) => format!(
                "check --store and its prefix; to begin anew with the CA that is here, remove {}",
                dir.join("identity").join(FILE).display()
            ),
            EntryError::CaElsewhere(_) => {
                "first start the controller from whose --data directory it was copied".to_owned()
            }
            EntryError::NothingToJoin(_) => {
                "check --store and its prefix; without --join a new installation begins".to_owned()
            }
            EntryError::Raced => "join it: --join HOST:PORT --token T".to_owned(),
            EntryError::Ca(_) | EntryError::File(_) | EntryError::Unreadable { .. } => {
                String::new()
            }
        };
        Sort::Refused.error(crate::errors::chain(&error), hint)
    }
}

/// Everything that decides how a controller comes in.
struct Seen {
    own: Option<Fingerprint>,
    who: Option<Who>,
    record: Option<Installation>,
    /// The store knows a controller of this name.
    known: bool,
    /// The store holds nothing at all.
    empty: bool,
}

/// How a controller comes in.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// It begins the installation.
    Found,
    /// It belongs there already.
    Return,
    /// By its token.
    Join,
}

impl Door<'_> {
    /// Comes in, and keeps the CA. Broken off anywhere before [`Self::settle`], it is done again to the same end.
    pub async fn enter(&self, now: SystemTime) -> Result<Inside, EntryError> {
        let identity = self.dir.join("identity");
        let own = Ca::open(&identity)?;
        let seen = self.look(own.as_ref()).await?;
        let way = self.way(&seen)?;
        if way == Way::Return && self.invited.is_some() {
            tracing::info!("--join and --token are ignored: this controller has joined already");
        }
        let founder = seen.record.as_ref().is_none_or(|record| record.by == self.name);
        let ca = match (way, own, &self.invited, &seen.record) {
            (Way::Found, own, ..) => self.found(&identity, own, now, seen.known).await?,
            (Way::Return, Some(ca), ..) => ca,
            (Way::Join, _, Some(invited), Some(record)) => join(self, invited, record).await?,
            (Way::Return | Way::Join, ..) => return Err(EntryError::NotInvited(self.name.into())),
        };
        // What was copied here from another store has an admin.
        let new = seen.record.is_some() || seen.empty;
        Ok(Inside { ca, founds: founder && new && seen.who.is_none() })
    }

    /// When all that is made once was made: from now on this directory is this controller.
    pub async fn settle(&self, now: Timestamp) -> Result<(), EntryError> {
        if self.who()?.is_some() {
            return Ok(());
        }
        // Known it is, but where somebody copied the CA here by hand.
        let key = self.member_key();
        let token = String::from("its CA");
        let member = Member { certificates: Vec::new(), enrolled: now, token };
        let compares = vec![Compare::Absent(key.clone())];
        let ops = vec![Op::put(key, encode(&member)?)];
        self.store.commit(Txn { compares, ops }).await?;
        // Joining may have broken off after the CA was kept.
        share::forget(self.store, self.name).await?;
        let who = Who { name: self.name.to_owned() };
        write_private(&self.dir.join("identity").join(FILE), &encode(&who)?)?;
        Ok(())
    }

    async fn look(&self, own: Option<&Ca>) -> Result<Seen, EntryError> {
        // First: what another one founds at this moment is then seen as its installation.
        let (first, _) = self.store.scan("", "", 1).await?;
        let record = self.store.get(KEY).await?;
        let known = self.store.get(&self.member_key()).await?.is_some();
        Ok(Seen {
            own: own.map(Ca::fingerprint),
            who: self.who()?,
            record: record.as_ref().map(decode).transpose()?,
            known,
            empty: first.is_empty(),
        })
    }

    fn member_key(&self) -> String {
        // A name that is none is nobody's.
        Identity::new(Kind::Controller, self.name).map_or(String::new(), |who| member_key(&who))
    }

    /// What all that comes to.
    fn way(&self, seen: &Seen) -> Result<Way, EntryError> {
        let dir = || self.dir.to_owned();
        let removed = seen.who.is_some() && !seen.known;
        if let Some(who) = seen.who.as_ref().filter(|who| who.name != self.name) {
            let (is, asked) = (who.name.clone(), self.name.to_owned());
            return Err(EntryError::AnotherName { dir: dir(), is, asked });
        }
        match (&seen.own, &seen.record, &self.invited) {
            (Some(own), Some(record), _) if own.to_string() != record.ca => {
                let (own, store) = (own.to_string(), record.ca.clone());
                Err(EntryError::AnotherCa { dir: dir(), own, store })
            }
            (Some(_), Some(_), None) if removed => Err(EntryError::Removed(self.name.into())),
            (Some(_), Some(_), Some(_)) if removed => Ok(Way::Join),
            (Some(_), Some(_), _) => Ok(Way::Return),
            (Some(_), None, _) if seen.who.is_some() => Err(EntryError::StoreGone(dir())),
            (None, None, Some(invited)) => Err(EntryError::NothingToJoin(invited.address.into())),
            (Some(_), None, _) => Ok(Way::Found),
            (None, None, None) if !seen.empty => Err(EntryError::CaElsewhere(dir())),
            (None, None, None) => Ok(Way::Found),
            (None, Some(_), Some(_)) => Ok(Way::Join),
            (None, Some(_), None) => Err(EntryError::NotInvited(self.name.into())),
        }
    }

    /// Begins the installation, with the CA that is here or a new one.
    async fn found(
        &self,
        identity: &Path,
        own: Option<Ca>,
        now: SystemTime,
        known: bool,
    ) -> Result<Ca, EntryError> {
        let (ca, new) = match own {
            Some(ca) => (ca, false),
            None => (Ca::create(identity, now)?, true),
        };
        let (at, key) = (timestamp(now), self.member_key());
        let record =
            Installation { ca: ca.fingerprint().to_string(), founded: at, by: self.name.into() };
        let mut compares = vec![Compare::Absent(KEY.to_owned())];
        let mut ops = vec![Op::put(KEY, encode(&record)?)];
        if !known {
            let token = String::from("first start");
            let member = Member { certificates: Vec::new(), enrolled: at, token };
            compares.push(Compare::Absent(key.clone()));
            ops.push(Op::put(key, encode(&member)?));
        }
        match self.store.commit(Txn { compares, ops }).await? {
            Outcome::Done(_) => Ok(ca),
            Outcome::Refused => {
                if new {
                    // It has signed nothing, and would be taken for the CA of another installation.
                    Ca::discard(identity)?;
                }
                Err(EntryError::Raced)
            }
        }
    }

    fn who(&self) -> Result<Option<Who>, EntryError> {
        let path = self.dir.join("identity").join(FILE);
        let unreadable = |why: String| EntryError::Unreadable { path: path.clone(), why };
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|bad| unreadable(bad.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests;
