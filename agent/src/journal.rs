//! What survives a crash: small records, each replaced as a whole, and noticed when damaged.
//!
//! A record is a file `NAME.json` whose first line is the SHA-256 of the rest. It is written
//! beside, fsynced and renamed over the old one, so that after a power cut there is the old record
//! or the new one.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::sync::Mutex;

/// Bytes of one record. An update's journal with two releases is about 4 KiB.
pub const RECORD_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Damaged copies of one record that are kept for inspection; the last is then overwritten.
const CORRUPT_KEPT: u32 = 9;

/// A record that could not be kept or read.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The disk refused.
    #[error("cannot {deed} {path}")]
    Disk {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// The record is damaged; it was moved aside and counts as absent from now on.
    #[error("the journal's record {name} is damaged ({why}) and was moved to {aside}")]
    Corrupt { name: String, why: &'static str, aside: PathBuf },
    /// The record is whole, but another version of the agent wrote it.
    #[error("the journal's record {name} cannot be understood by this version")]
    Foreign {
        name: String,
        #[source]
        cause: serde_json::Error,
    },
    /// A value that has no JSON, or too much of it.
    #[error("the journal's record {name} cannot be written: {why}")]
    Unwritable { name: String, why: String },
    /// A name that is no file's name.
    #[error("`{name}` cannot name a record: use letters, digits, `-`, `_` and `.`")]
    Name { name: String },
    /// The runtime is shutting down.
    #[error("the journal's work on {name} was given up: the agent is stopping")]
    Stopping { name: String },
}

/// The records of one folder. Clones share it; the changes of all of them happen one after the
/// other.
#[derive(Debug, Clone)]
pub struct Journal {
    folder: Arc<PathBuf>,
    turn: Arc<Mutex<()>>,
}

impl Journal {
    /// Opens or makes the folder, readable for the agent's user only, and clears what a crash left
    /// half written.
    pub fn open(folder: &Path) -> Result<Journal, JournalError> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(at("make", folder))?;
        for entry in std::fs::read_dir(folder).map_err(at("list", folder))? {
            let path = entry.map_err(at("list", folder))?.path();
            if path.extension().is_some_and(|it| it == "new") {
                std::fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(Journal { folder: Arc::new(folder.into()), turn: Arc::default() })
    }

    /// Replaces the record; durable when this returns. A caller that stops waiting does not stop
    /// the write.
    pub async fn put<T: Serialize>(&self, name: &str, value: &T) -> Result<(), JournalError> {
        let path = self.path(name)?;
        let record = encode(name, value)?;
        self.in_turn(name, move || replace(&path, &record).map_err(at("write", &path))).await
    }

    /// The record, or `None` when there is none.
    pub async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, JournalError> {
        let path = self.path(name)?;
        let owned = name.to_owned();
        let json = self.in_turn(name, move || read(&owned, &path)).await?;
        let decode = |json: Vec<u8>| {
            serde_json::from_slice(&json)
                .map_err(|cause| JournalError::Foreign { name: name.into(), cause })
        };
        json.map(decode).transpose()
    }

    /// Removes the record; durable when this returns. One that is not there is fine.
    pub async fn remove(&self, name: &str) -> Result<(), JournalError> {
        let path = self.path(name)?;
        let folder = self.folder.clone();
        self.in_turn(name, move || match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(at("remove", &path)(cause)),
            Ok(()) => sync_folder(&folder).map_err(at("sync", &folder)),
        })
        .await
    }

    /// The names of all records, sorted.
    pub async fn list(&self) -> Result<Vec<String>, JournalError> {
        let folder = self.folder.clone();
        self.in_turn("list", move || {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&*folder).map_err(at("list", &folder))? {
                let name = entry.map_err(at("list", &folder))?.file_name();
                names.extend(
                    name.to_str().and_then(|it| it.strip_suffix(".json")).map(str::to_owned),
                );
            }
            names.sort();
            Ok(names)
        })
        .await
    }

    fn path(&self, name: &str) -> Result<PathBuf, JournalError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty()
            || name.starts_with('.')
            || name.len() > 200
            || !name.chars().all(allowed)
        {
            return Err(JournalError::Name { name: name.into() });
        }
        Ok(self.folder.join(format!("{name}.json")))
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let turn = self.turn.clone().lock_owned().await;
        let worker = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        worker.await.map_err(|_| JournalError::Stopping { name: name.into() })?
    }
}

/// Writes a file so that after a power cut it is the old one or this one; mode 0600.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes renames and removals in this folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn at(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |cause| JournalError::Disk { deed, path, cause }
}

fn encode<T: Serialize>(name: &str, value: &T) -> Result<Vec<u8>, JournalError> {
    let refuse = |why: String| JournalError::Unwritable { name: name.into(), why };
    let json = serde_json::to_vec(value).map_err(|cause| refuse(cause.to_string()))?;
    if json.len() as u64 > RECORD_BYTES_MAX {
        return Err(refuse(format!("{} bytes, the limit is {RECORD_BYTES_MAX}", json.len())));
    }
    let mut record = hex(&Sha256::digest(&json)).into_bytes();
    record.push(b'\n');
    record.extend_from_slice(&json);
    Ok(record)
}

fn read(name: &str, path: &Path) -> Result<Option<Vec<u8>>, JournalError> {
    let record = match std::fs::read(path) {
        Ok(record) => record,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(at("read", path)(cause)),
    };
    let mut parts = record.splitn(2, |byte| *byte == b'\n');
    let why = match (parts.next(), parts.next()) {
        (Some(sum), Some(json)) if hex(&Sha256::digest(json)).as_bytes() == sum => {
            return Ok(Some(json.to_vec()));
        }
        (Some(_), Some(_)) => "its checksum does not match",
        (_, _) => "it has no checksum",
    };
    let aside = aside(path);
    std::fs::rename(path, &aside).map_err(at("move aside", path))?;
    Err(JournalError::Corrupt { name: name.into(), why, aside })
}

/// `NAME.corrupt`, or `NAME.corrupt.2` and so on when there is one already.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let numbered = |number: u32| match number {
        1 => path.with_extension("corrupt"),
        _ => path.with_extension(format!("corrupt.{number}")),
    };
    (1..CORRUPT_KEPT).map(numbered).find(|it| !it.exists()).unwrap_or(numbered(CORRUPT_KEPT))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(journal: &Journal, name: &str) -> String {
        match journal.get::<Vec<u32>>(name).await {
            Ok(value) => format!("{value:?}"),
            Err(JournalError::Corrupt { why, aside, .. }) => {
                format!("corrupt: {why}: {}", aside.file_name().expect("a name").display())
            }
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn records_are_kept_replaced_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).expect("opens");
        assert_eq!(shown(&journal, "update").await, "None");
        journal.put("update", &vec![1, 2]).await.expect("puts");
        journal.put("update", &vec![3]).await.expect("puts");
        journal.put("app.shop", &vec![4]).await.expect("puts");
        let again = Journal::open(&path).expect("opens");
        assert_eq!(shown(&again, "update").await, "Some([3])");
        assert_eq!(again.list().await.expect("lists"), ["app.shop", "update"]);
        again.remove("update").await.expect("removes");
        again.remove("update").await.expect("is gone already");
        assert_eq!(again.list().await.expect("lists"), ["app.shop"]);
    }

    #[tokio::test]
    async fn damage_is_noticed_and_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("opens");
        let file = folder.path().join("update.json");
        type Damage = fn(Vec<u8>) -> Vec<u8>;
        let rows: [(Damage, &str); 4] = [
            (
                |it| it[..it.len() - 1].to_vec(),
                "corrupt: its checksum does not match: update.corrupt",
            ),
            (|_| Vec::new(), "corrupt: it has no checksum: update.corrupt.2"),
            (|it| it[..10].to_vec(), "corrupt: it has no checksum: update.corrupt.3"),
            (
                |it| [&[b'0'][..], &it[1..]].concat(),
                "corrupt: its checksum does not match: update.corrupt.4",
            ),
        ];
        for (damage, expected) in rows {
            journal.put("update", &vec![77, 78]).await.expect("puts");
            let whole = std::fs::read(&file).expect("reads");
            let damaged = damage(whole.clone());
            if damaged == whole {
                continue;
            }
            std::fs::write(&file, damaged).expect("writes");
            assert_eq!(shown(&journal, "update").await, expected);
            assert_eq!(shown(&journal, "update").await, "None", "reported once, then absent");
        }
    }

    #[tokio::test]
    async fn what_another_version_wrote_stays_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("opens");
        journal.put("update", &"text").await.expect("puts");
        let error = shown(&journal, "update").await;
        assert_eq!(error, "the journal's record update cannot be understood by this version");
        assert_eq!(journal.get::<String>("update").await.expect("reads").as_deref(), Some("text"));
    }

    #[tokio::test]
    async fn names_are_file_names_and_leftovers_are_cleared() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("update.json.new"), b"half").expect("writes");
        let journal = Journal::open(folder.path()).expect("opens");
        assert!(!folder.path().join("update.json.new").exists());
        for name in ["", ".x", "../x", "a/b", "a b"] {
            let error = journal.put(name, &1).await.unwrap_err();
            assert!(matches!(error, JournalError::Name { .. }), "{name}: {error}");
        }
    }

    #[tokio::test]
    async fn changes_happen_in_order_also_when_nobody_waits() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::open(folder.path()).expect("opens");
        for number in 0..50u32 {
            let value = vec![number];
            let put = journal.put("update", &value);
            // Polled once and dropped: the write goes on, and the next one comes after it.
            tokio::select! {
                biased;
                done = put => done.expect("puts"),
                () = std::future::ready(()) => {}
            }
        }
        journal.put("update", &vec![1000]).await.expect("puts");
        assert_eq!(shown(&journal, "update").await, "Some([1000])");
    }
}
