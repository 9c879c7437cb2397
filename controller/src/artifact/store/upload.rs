//! One upload: appends to its part, hashing as it goes, and makes the artifact visible at its end.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{
    ArtifactError, Claim, Digest, Limits, Places, blocking, failed, make_folder, remove, size_of,
    sync_folder,
};

/// Bytes that are read at once when a part is hashed again.
const HASH_BYTES: usize = 1024 * 1024;

/// An upload under way. Dropping it keeps the part, to go on from.
#[derive(Debug)]
pub struct Upload {
    digest: Digest,
    /// Away while a write is under way; gone after one that failed or was given up.
    part: Option<Part>,
}

/// The file and what is known of it; it goes to the blocking thread and comes back.
#[derive(Debug)]
struct Part {
    places: Arc<Places>,
    claim: Claim,
    path: PathBuf,
    file: File,
    hash: Sha256,
    have: u64,
    size: u64,
}

impl Upload {
    /// Appends the next bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ArtifactError> {
        let mut part = self.take()?;
        let part = blocking(move || part.append(&bytes).map(|()| part)).await?;
        self.part = Some(part);
        Ok(())
    }

    /// Verifies size and digest, and makes the artifact durable and visible.
    pub async fn finish(mut self) -> Result<(), ArtifactError> {
        let part = self.take()?;
        blocking(move || part.finish()).await
    }

    /// Bytes so far.
    pub fn have(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.have)
    }

    fn take(&mut self) -> Result<Part, ArtifactError> {
        self.part.take().ok_or_else(|| ArtifactError::Broken { digest: self.digest.clone() })
    }
}

/// Opens the part, checks that the upload can succeed, and hashes again what is there.
pub(super) fn begin(
    places: Arc<Places>,
    claim: Claim,
    limits: Limits,
    (size, offset): (u64, u64),
) -> Result<Upload, ArtifactError> {
    let digest = claim.digest.clone();
    if size == 0 || size > limits.artifact_bytes {
        return Err(ArtifactError::Size { size, limit: limits.artifact_bytes });
    }
    if size_of(&places.blob(&digest))?.is_some() {
        return Err(ArtifactError::Complete { digest });
    }
    let path = places.part(&digest);
    let have = size_of(&path)?.unwrap_or(0);
    if have > size {
        remove(&path)?;
        return Err(ArtifactError::TooMuch { digest, size, have });
    }
    if have != offset {
        return Err(ArtifactError::Offset { digest, offset, have });
    }
    check_space(&places, limits, size - have)?;
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed("open the upload", &path))?;
    let hash = hash(&mut file).map_err(failed("read the upload", &path))?;
    let part = Part { places, claim, path, file, hash, have, size };
    Ok(Upload { digest, part: Some(part) })
}

fn check_space(places: &Places, limits: Limits, need: u64) -> Result<(), ArtifactError> {
    let dir = &places.uploads;
    let disk = rustix::fs::statvfs(dir)
        .map_err(|cause| failed("read the free space of", dir)(cause.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let kept = limits.kept_free;
    if need.saturating_add(kept) > free {
        return Err(ArtifactError::NoSpace { dir: dir.clone(), need, kept, free });
    }
    Ok(())
}

fn hash(file: &mut File) -> std::io::Result<Sha256> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; HASH_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash),
            count => hash.update(&buffer[..count]),
        }
    }
}

impl Part {
    fn append(&mut self, bytes: &[u8]) -> Result<(), ArtifactError> {
        let have = self.have + bytes.len() as u64;
        if have > self.size {
            remove(&self.path)?;
            let digest = self.claim.digest.clone();
            return Err(ArtifactError::TooMuch { digest, size: self.size, have });
        }
        self.file.write_all(bytes).map_err(failed("write", &self.path))?;
        self.hash.update(bytes);
        self.have = have;
        Ok(())
    }

    fn finish(self) -> Result<(), ArtifactError> {
        let Self { places, claim, path, file, hash, have, size } = self;
        let digest = &claim.digest;
        if have < size {
            return Err(ArtifactError::TooLittle { digest: digest.clone(), size, have });
        }
        let found = hex(&hash.finalize());
        if found != digest.as_str() {
            remove(&path)?;
            return Err(ArtifactError::WrongDigest { expected: digest.clone(), found });
        }
        file.sync_all().map_err(failed("sync", &path))?;
        let blob = places.blob(digest);
        let folder = places.blobs.join(&digest.as_str()[..2]);
        make_folder(&folder)?;
        std::fs::rename(&path, &blob).map_err(failed("move the upload to", &blob))?;
        sync_folder(&folder)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
