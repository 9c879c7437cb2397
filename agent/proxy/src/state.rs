//! The state file: which members the pool has and what is wanted of them, so that a restarted
//! proxy comes back with them. Written aside, synced and renamed: it is the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::member::Intent;
use crate::shared::Shared;

/// The only edition of the file's form so far.
const FORM: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    v: u32,
    members: Vec<Intent>,
}

/// Why the state file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It is there but cannot be read.
    #[error("cannot read it")]
    Read(#[source] io::Error),
    /// It is not what this program writes.
    #[error("it is not a state file of this proxy")]
    Parse(#[source] serde_json::Error),
    /// A newer program wrote it.
    #[error("it has form {0}, and this program knows form {FORM}")]
    Form(u32),
}

/// What was wanted when it was last written; nothing when there is no file.
pub fn load(path: &Path) -> Result<Vec<Intent>, Unusable> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Unusable::Read(error)),
    };
    let saved: Saved = serde_json::from_slice(&text).map_err(Unusable::Parse)?;
    if saved.v != FORM {
        return Err(Unusable::Form(saved.v));
    }
    Ok(saved.members)
}

/// Writes the file; when this returns it outlives a power loss.
pub fn save(path: &Path, members: Vec<Intent>) -> io::Result<()> {
    let text = serde_json::to_vec(&Saved { v: FORM, members })?;
    let aside = beside(path, "new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

/// The path with one more suffix.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Saves every change until the proxy stops. Changes that come while one is written are written
/// together.
pub async fn keep(shared: Arc<Shared>, path: PathBuf) {
    let mut editions = shared.editions();
    loop {
        tokio::select! {
            changed = editions.changed() => if changed.is_err() { return },
            () = shared.stopped() => return,
        }
        keep_now(&shared, &path).await;
    }
}

/// Saves what is in force now.
pub async fn keep_now(shared: &Shared, path: &Path) {
    let (edition, members) = shared.pool().intents();
    let target = path.to_owned();
    let saved = tokio::task::spawn_blocking(move || save(&target, members)).await;
    match saved {
        Ok(Ok(())) => {}
        // Traffic does as it is told all the same; only a restart would not remember.
        Ok(Err(error)) => tracing::error!(%error, path = %path.display(), "cannot save members"),
        Err(error) => tracing::error!(%error, "saving the members was broken off"),
    }
    shared.note_saved(edition);
}
