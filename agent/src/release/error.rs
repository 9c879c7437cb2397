//! What can go wrong with a release on a node.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::unpack::UnpackError;

/// A release that could not be fetched, unpacked, pointed at or removed.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// The disk refused.
    #[error("cannot {deed} {path}")]
    Disk {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// There is no room.
    #[error(
        "no room for {app} {version}: the disk of {root} has {} MiB free and {} MiB are needed",
        .have >> 20, .need.div_ceil(1 << 20)
    )]
    NoSpace { app: String, version: String, root: PathBuf, have: u64, need: u64 },
    /// More bytes came than the artifact has, or fewer.
    #[error("artifact {digest} has {expected} bytes, but {got} came")]
    Size { digest: String, expected: u64, got: u64 },
    /// Something else came.
    #[error("the artifact that came has the digest {got}, but {expected} was ordered")]
    Digest { expected: String, got: String },
    /// Another download of the same artifact is under way.
    #[error("artifact {digest} is being fetched already")]
    Busy { digest: String },
    /// It must be fetched first.
    #[error("{app} {version} cannot be unpacked: its artifact {digest} was not fetched")]
    NotFetched { app: String, version: String, digest: String },
    /// The archive is broken or hostile.
    #[error("cannot unpack {app} {version}")]
    Unpack {
        app: String,
        version: String,
        #[source]
        cause: UnpackError,
    },
    /// Two digests that begin alike.
    #[error("{folder} already holds a release with the digest {digest}")]
    Taken { folder: PathBuf, digest: String },
    /// Half a release, or none.
    #[error("{folder} is not a complete release")]
    Incomplete { folder: PathBuf },
    /// The marker beside a folder is damaged.
    #[error("cannot understand {path}")]
    Marker {
        path: PathBuf,
        #[source]
        cause: serde_json::Error,
    },
    /// The runtime is shutting down.
    #[error("the work on a release was given up: the agent is stopping")]
    Stopping,
}

/// Says what was being done with what when the disk refused.
pub(super) fn at(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ReleaseError {
    let path = path.to_owned();
    move |cause| ReleaseError::Disk { deed, path, cause }
}
