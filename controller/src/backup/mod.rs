//! A backup: one file with everything that a controller needs to be built anew, and no more trusted than its checksums.
//!
//! It is a tar that needs no `rota` to be looked at: `backup.json` says what it is, `entries.jsonl.zst` has the keys of
//! the store, one a line, `identity/` the authority, `artifacts/` the artifacts by digest, and `SHA256SUMS`, the last,
//! a sum of each. A file that ends before it, or in which anything has another sum, is refused as a whole.

mod numbers;
mod read;
mod seal;
#[cfg(test)]
mod tests;
mod write;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rota_identity::certificate::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::StoreError;
pub use numbers::{RESTORED, RestoredRecord, put_back};
pub use read::{Backup, Key};
pub use seal::Passphrase;
pub use write::{Making, write};

/// The layout of the file; raised when an older program could not read it any more.
const VERSION: u32 = 1;

/// The members of the tar.
const HEAD: &str = "backup.json";
const ENTRIES: &str = "entries.jsonl.zst";
const CA: &str = "identity/ca.pem";
const CA_KEY: &str = "identity/ca-key.pem";
const CA_SEALED: &str = "identity/ca-key.sealed";
const ARTIFACTS: &str = "artifacts/sha256/";
const SUMS: &str = "SHA256SUMS";

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its layout.
    pub v: u32,
    /// The program that made it.
    pub rota: String,
    /// When, as RFC 3339.
    pub made_at: String,
    /// The store.
    pub from: String,
    /// As of which revision of that.
    pub revision: u64,
    /// How many keys.
    pub keys: usize,
    /// The authority's fingerprint; absent where it is left out.
    pub ca: Option<String>,
    /// How many artifacts.
    pub artifacts: usize,
    /// Artifacts of releases that were not there, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// Why there is no backup, or it cannot be put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file.
    #[error("cannot {deed} {}", .path.display())]
    File {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It would be overwritten.
    #[error("{} exists already; name another file, or remove it", .0.display())]
    Exists(PathBuf),
    /// It is not one, or not whole.
    #[error("{} cannot be used as a backup: {why}", .path.display())]
    Damaged { path: PathBuf, why: String },
    /// A newer program made it.
    #[error(
        "{} has layout {found} and this program knows {VERSION}: rota {by} made it; use that \
         version",
        .path.display()
    )]
    Newer { path: PathBuf, found: u32, by: String },
    /// What is there is another.
    #[error("{} is another authority than that of the backup; name an empty folder", .0.display())]
    AnotherCa(PathBuf),
    /// An artifact on the disk is not what its name says.
    #[error(
        "{} has not the digest that it is named by; remove it, and push its release again",
        .0.display()
    )]
    Spoiled(PathBuf),
    /// The key is sealed, or cannot be.
    #[error("{0}")]
    Seal(&'static str),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The error of a deed at a file.
fn file(deed: &'static str, path: &Path) -> impl Fn(io::Error) -> BackupError + use<> {
    let path = path.to_owned();
    move |cause| BackupError::File { deed, path: path.clone(), cause }
}

/// One line of the entries. Values are JSON records; one that is not text stands in base64.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Where an artifact lies below a data directory.
fn artifact_path(dir: &Path, digest: &str) -> PathBuf {
    dir.join(ARTIFACTS).join(&digest[..2]).join(digest)
}

/// Is it a SHA-256 as artifacts are named?
fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Sums up what is read through it.
struct Summed<R> {
    inner: R,
    sum: Sha256,
}

impl<R: Read> Summed<R> {
    fn new(inner: R) -> Self {
        Self { inner, sum: Sha256::new() }
    }

    /// As `sha256sum` writes it.
    fn sum(self) -> String {
        hex(&self.sum.finalize())
    }
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sum.update(&buffer[..count]);
        Ok(count)
    }
}
