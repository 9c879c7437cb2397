//! Which store keeps the state, and what a controller needs to be one of several on it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::rand::{SecureRandom, SystemRandom};
use rota_identity::certificate::hex;
use rota_identity::{FileError, write_private};

use crate::serve_args::{ServeArgs, StoreArg};
use crate::store::etcd::EtcdStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

/// Bytes of the name of a data directory: enough that no two are alike.
const INSTANCE_BYTES: usize = 16;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// Another process uses it.
    #[error(
        "another `rota serve` uses the data directory {}: stop it, or give this one another \
         `--data`",
        .0.display()
    )]
    InUse(PathBuf),
    /// A file in it.
    #[error("cannot use {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// A file in it cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// No randomness.
    #[error("this host gives no random bytes")]
    NoRandomness,
}

/// The store, and how this controller is told from others.
pub struct Opened {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Among several controllers.
    pub shared: Option<Shared>,
}

/// What makes one of several.
pub struct Shared {
    /// Names the data directory.
    pub instance: String,
    /// Held for as long as the process lives: one process, one place.
    pub lock: File,
}

/// Opens the store that the command line names.
pub async fn open(args: &ServeArgs) -> Result<Opened, super::ServeError> {
    match &args.store {
        StoreArg::Sqlite => {
            let store: Arc<dyn Store> = SqliteStore::open(&args.data.join("rota.db"))?;
            Ok(Opened { store, shared: None })
        }
        StoreArg::Etcd(config) => {
            let lock = lock(&args.data)?;
            let instance = instance(&args.data)?;
            refuse_embedded(&args.data)?;
            let store: Arc<dyn Store> = EtcdStore::open(config.clone()).await?;
            Ok(Opened { store, shared: Some(Shared { instance, lock }) })
        }
    }
}

/// Where there is state already, it would be left behind unnoticed.
fn refuse_embedded(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("rota.db");
    if !path.exists() {
        return Ok(());
    }
    let shown = path.display();
    Err(StoreError::Unavailable(format!(
        "{shown} holds the state of this controller: copy it first with `rota store copy --from \
         sqlite --data {} --to etcd://...`, which moves it aside",
        dir.display()
    )))
}

/// One process uses a data directory at a time.
fn lock(dir: &Path) -> Result<File, DirError> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = file.map_err(|cause| DirError::File { path, cause })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(DirError::InUse(dir.to_owned())),
    }
}

/// The name of a data directory, made at its first use.
fn instance(dir: &Path) -> Result<String, DirError> {
    let path = dir.join("instance");
    let mut text = String::new();
    match File::open(&path).and_then(|mut file| file.read_to_string(&mut text)) {
        Ok(_) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(DirError::File { path, cause }),
    }
    let mut bytes = [0; INSTANCE_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| DirError::NoRandomness)?;
    let name = hex(&bytes);
    write_private(&path, name.as_bytes())?;
    Ok(name)
}
