//! The controller's artifacts: whole and verified under their SHA-256, or not there at all.
//!
//! An upload grows in `DIR/uploads/DIGEST.part`, can break off and go on later, and is renamed to
//! `DIR/artifacts/sha256/aa/DIGEST` only after its size and digest were verified and it was synced.
//! Names come from [`Digest`], so no path of a caller's making is ever touched.

mod download;
mod files;
#[cfg(test)]
mod tests;
mod upload;

use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rota_rollout::names::Digest;

pub use download::Download;
pub use upload::Upload;

/// What the disk under the artifacts must and may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one artifact. 8 GiB is far above what a host should fetch to start an app, and a
    /// size in bits or a wrong file ends there.
    pub artifact_bytes: u64,
    /// Bytes that an upload leaves free, for the database that is on the same disk as a rule.
    pub kept_free: u64,
    /// How long a broken upload can be resumed. A week covers a release that waits over holidays.
    pub part_age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            artifact_bytes: 8 << 30,
            kept_free: 256 << 20,
            part_age: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// Why an artifact could not be kept or read. The cause is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Nobody uploaded it, or it was removed.
    #[error("there is no artifact {digest} here; upload it first")]
    Missing { digest: Digest },
    /// Nothing to upload.
    #[error("artifact {digest} is here already")]
    Complete { digest: Digest },
    /// One writer at a time.
    #[error("artifact {digest} is being uploaded by somebody else; wait for that, or try again")]
    Busy { digest: Digest },
    /// Empty, or above the limit.
    #[error("an artifact of {size} bytes is refused: 1 to {limit} bytes are taken")]
    Size { size: u64, limit: u64 },
    /// The uploader does not know how far it is.
    #[error("the upload of {digest} goes on at byte {have}, not at {offset}")]
    Offset { digest: Digest, offset: u64, have: u64 },
    /// A download from beyond the end.
    #[error("artifact {digest} has {size} bytes; there is no byte {offset}")]
    BeyondEnd { digest: Digest, offset: u64, size: u64 },
    /// The disk is too small.
    #[error(
        "the disk of {} has {free} bytes free, and the upload needs {need} and leaves {kept} for \
         the store; free space or remove old releases",
        .dir.display()
    )]
    NoSpace { dir: PathBuf, need: u64, kept: u64, free: u64 },
    /// More came than was announced.
    #[error(
        "the upload of {digest} was announced with {size} bytes and has at least {have}; what was \
         here is removed: upload again"
    )]
    TooMuch { digest: Digest, size: u64, have: u64 },
    /// It ended early; the part stays, to go on from.
    #[error("the upload of {digest} ended at byte {have} of {size}; go on from there")]
    TooLittle { digest: Digest, size: u64, have: u64 },
    /// The bytes are other ones.
    #[error("what was uploaded as {expected} has the digest {found}; it is removed: upload again")]
    WrongDigest { expected: Digest, found: String },
    /// An earlier write failed.
    #[error("the upload of {digest} broke off; begin again where it stands")]
    Broken { digest: Digest },
    /// The disk failed.
    #[error("cannot {deed} {}", .path.display())]
    Io {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
}

/// How much of an artifact is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadState {
    /// Bytes here: where an upload goes on.
    pub have: u64,
    /// It is whole and verified.
    pub complete: bool,
}

/// All artifacts of one controller.
#[derive(Debug, Clone)]
pub struct ArtifactStore {
    places: Arc<Places>,
    limits: Limits,
    /// What is being uploaded.
    busy: Busy,
    /// Whoever looks through an archive, while it does.
    listing: Arc<tokio::sync::Mutex<()>>,
    /// Shared by who makes a release of an artifact, alone by who removes artifacts.
    pub pushing: Arc<tokio::sync::RwLock<()>>,
}

/// Where things are.
#[derive(Debug)]
struct Places {
    blobs: PathBuf,
    uploads: PathBuf,
}

impl ArtifactStore {
    /// Opens the artifacts under `dir`, the controller's data folder, and removes what was left
    /// behind long ago. The store's lock on that folder keeps other controllers out.
    pub async fn open(dir: &Path) -> Result<Self, ArtifactError> {
        Self::open_with(dir, Limits::default()).await
    }

    /// As [`Self::open`], with limits of its own.
    pub async fn open_with(dir: &Path, limits: Limits) -> Result<Self, ArtifactError> {
        let places =
            Places { blobs: dir.join("artifacts").join("sha256"), uploads: dir.join("uploads") };
        let places = Arc::new(places);
        let opened = Arc::clone(&places);
        blocking(move || {
            make_folder(&opened.blobs)?;
            make_folder(&opened.uploads)?;
            opened.sweep(limits.part_age)
        })
        .await?;
        Ok(Self {
            places,
            limits,
            busy: Busy::default(),
            listing: Arc::default(),
            pushing: Arc::default(),
        })
    }

    /// How much of an artifact is here.
    pub async fn state(&self, digest: &Digest) -> Result<UploadState, ArtifactError> {
        let (places, digest) = (Arc::clone(&self.places), digest.clone());
        blocking(move || places.state(&digest)).await
    }

    /// Goes on with an upload at `offset`, which must be what [`Self::state`] says.
    pub async fn begin(
        &self,
        digest: &Digest,
        size: u64,
        offset: u64,
    ) -> Result<Upload, ArtifactError> {
        let claim = self.busy.claim(digest)?;
        let (places, limits) = (Arc::clone(&self.places), self.limits);
        blocking(move || upload::begin(places, claim, limits, (size, offset))).await
    }

    /// Reads an artifact from `offset` on.
    pub async fn read(&self, digest: &Digest, offset: u64) -> Result<Download, ArtifactError> {
        download::begin(self.places.blob(digest), digest, offset).await
    }

    /// Removes an artifact; `false`: there was none. Downloads that have begun go on.
    pub async fn remove(&self, digest: &Digest) -> Result<bool, ArtifactError> {
        let path = self.places.blob(digest);
        blocking(move || remove(&path)).await
    }

    /// Every whole artifact, and how long ago it came.
    pub async fn ages(&self) -> Result<Vec<(Digest, Duration)>, ArtifactError> {
        let places = Arc::clone(&self.places);
        blocking(move || {
            let came = |(digest, _)| {
                let path = places.blob(&digest);
                let data = path.metadata().and_then(|data| data.modified());
                let came = data.map_err(failed("read the age of", &path))?;
                Ok((digest, SystemTime::now().duration_since(came).unwrap_or_default()))
            };
            places.list()?.into_iter().map(came).collect()
        })
        .await
    }

    /// Every whole artifact and its size, in the order of their digests.
    pub async fn list(&self) -> Result<Vec<(Digest, u64)>, ArtifactError> {
        let places = Arc::clone(&self.places);
        blocking(move || places.list()).await
    }
}

impl Places {
    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(&digest.as_str()[..2]).join(digest.as_str())
    }

    fn part(&self, digest: &Digest) -> PathBuf {
        self.uploads.join(format!("{digest}.part"))
    }

    fn state(&self, digest: &Digest) -> Result<UploadState, ArtifactError> {
        if let Some(have) = size_of(&self.blob(digest))? {
            return Ok(UploadState { have, complete: true });
        }
        let have = size_of(&self.part(digest))?.unwrap_or(0);
        Ok(UploadState { have, complete: false })
    }

    fn list(&self) -> Result<Vec<(Digest, u64)>, ArtifactError> {
        let mut found = Vec::new();
        for folder in entries(&self.blobs)? {
            for path in entries(&folder)? {
                // What has another name was not put here by us, and is left alone.
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if let (Ok(digest), Some(size)) = (name.parse(), size_of(&path)?) {
                    found.push((digest, size));
                }
            }
        }
        found.sort();
        Ok(found)
    }

    /// Removes parts that nobody will go on with.
    fn sweep(&self, age: Duration) -> Result<(), ArtifactError> {
        for path in entries(&self.uploads)? {
            let is_part = path.extension().is_some_and(|end| end == "part");
            let touched = path
                .metadata()
                .and_then(|data| data.modified())
                .map_err(failed("read the age of", &path))?;
            let idle = SystemTime::now().duration_since(touched).unwrap_or_default();
            if is_part && idle > age {
                remove(&path)?;
                tracing::info!(path = %path.display(), "removed an upload that was given up");
            }
        }
        Ok(())
    }
}

/// The artifacts that are being uploaded: two writers of one part would spoil each other's bytes.
#[derive(Debug, Clone, Default)]
struct Busy(Arc<Mutex<HashSet<Digest>>>);

impl Busy {
    fn claim(&self, digest: &Digest) -> Result<Claim, ArtifactError> {
        if self.set().insert(digest.clone()) {
            Ok(Claim { busy: self.clone(), digest: digest.clone() })
        } else {
            Err(ArtifactError::Busy { digest: digest.clone() })
        }
    }

    fn set(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to write one part, until it is dropped.
#[derive(Debug)]
struct Claim {
    busy: Busy,
    digest: Digest,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.busy.set().remove(&self.digest);
    }
}

/// Does what waits for a disk on a thread that may.
async fn blocking<T: Send + 'static>(
    deed: impl FnOnce() -> Result<T, ArtifactError> + Send + 'static,
) -> Result<T, ArtifactError> {
    match tokio::task::spawn_blocking(deed).await {
        Ok(result) => result,
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}

fn failed(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArtifactError {
    let path = path.to_owned();
    move |cause| ArtifactError::Io { deed, path, cause }
}

fn size_of(path: &Path) -> Result<Option<u64>, ArtifactError> {
    match path.metadata() {
        Ok(data) => Ok(data.is_file().then_some(data.len())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed("look at", path)(cause)),
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(failed("list", folder))
}

fn remove(path: &Path) -> Result<bool, ArtifactError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(failed("remove", path)(cause)),
    }
}

/// Makes a folder that survives a power loss, its parents too.
fn make_folder(path: &Path) -> Result<(), ArtifactError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(failed("make the folder", path)(cause)),
    }
}

fn sync_folder(path: &Path) -> Result<(), ArtifactError> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder", path))
}
