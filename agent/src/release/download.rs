//! A download that can be interrupted: `cache/DIGEST.part` grows, is verified as a whole, and only
//! then gets its name.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::error::{ReleaseError, at};
use crate::journal::{hex, sync_folder};

/// An artifact on its way. Dropping it keeps what came for the next time.
#[derive(Debug)]
pub struct Partial {
    digest: String,
    size: u64,
    path: PathBuf,
    file: File,
    have: u64,
}

impl Partial {
    pub(super) fn open(cache: &Path, digest: &str, size: u64) -> Result<Partial, ReleaseError> {
        DirBuilder::new().recursive(true).mode(0o700).create(cache).map_err(at("make", cache))?;
        let path = cache.join(format!("{digest}.part"));
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(at("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ReleaseError::Busy { digest: digest.into() });
            }
            Err(TryLockError::Error(cause)) => return Err(at("lock", &path)(cause)),
        }
        let mut have = file.metadata().map_err(at("measure", &path))?.len();
        if have > size {
            file.set_len(0).map_err(at("empty", &path))?;
            have = 0;
        }
        Ok(Partial { digest: digest.into(), size, path, file, have })
    }

    /// Bytes that are here: fetch on from this offset.
    pub fn have(&self) -> u64 {
        self.have
    }

    /// Whether all bytes are here; `finish` is next.
    pub fn is_whole(&self) -> bool {
        self.have == self.size
    }

    /// Adds the next bytes. More than the artifact has are refused.
    pub async fn append(&mut self, data: Bytes) -> Result<(), ReleaseError> {
        let got = self.have.saturating_add(data.len() as u64);
        if got > self.size {
            let (digest, expected) = (self.digest.clone(), self.size);
            return Err(ReleaseError::Size { digest, expected, got });
        }
        let mut file = self.file.try_clone().map_err(at("open", &self.path))?;
        let worker = tokio::task::spawn_blocking(move || file.write_all(&data));
        let written = worker.await.map_err(|_| ReleaseError::Stopping)?;
        written.map_err(at("write", &self.path))?;
        self.have = got;
        Ok(())
    }

    /// Verifies size and digest. What does not match is deleted, so that the next try begins anew.
    pub async fn finish(self) -> Result<(), ReleaseError> {
        let worker = tokio::task::spawn_blocking(move || self.finish_now());
        worker.await.map_err(|_| ReleaseError::Stopping)?
    }

    fn finish_now(self) -> Result<(), ReleaseError> {
        if !self.is_whole() {
            let (digest, expected, got) = (self.digest, self.size, self.have);
            return Err(ReleaseError::Size { digest, expected, got });
        }
        let got = digest_of(&self.path).map_err(at("read", &self.path))?;
        if got != self.digest {
            std::fs::remove_file(&self.path).map_err(at("remove", &self.path))?;
            return Err(ReleaseError::Digest { expected: self.digest, got });
        }
        self.file.sync_all().map_err(at("sync", &self.path))?;
        let whole = self.path.with_extension("");
        std::fs::rename(&self.path, &whole).map_err(at("rename", &self.path))?;
        whole.parent().map_or(Ok(()), sync_folder).map_err(at("sync the folder of", &whole))
    }
}

fn digest_of(path: &Path) -> io::Result<String> {
    /// Bytes read at once: large enough that hashing, not reading, is the work.
    const BLOCK: usize = 128 * 1024;
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut block = vec![0; BLOCK];
    loop {
        match io::Read::read(&mut file, &mut block)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&block[..read]),
        }
    }
}
