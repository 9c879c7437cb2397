//! The releases on this node: fetched, verified, unpacked, pointed at, and thrown away again.
//!
//! A folder `releases/VERSION-DIGEST12` counts only with its marker `VERSION-DIGEST12.ok` beside
//! it, which is written last and removed first; so a crash at any point leaves a complete release
//! or none, and `current` never points at half a one.

mod download;
mod error;
mod folders;
mod space;
mod unpack;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use download::Partial;
pub use error::ReleaseError;
pub use unpack::{Limits, Rule, UnpackError};

use crate::spec::Spec;

/// A complete release on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its folder.
    pub folder: PathBuf,
    /// As it was last ordered; the digest is the folder's.
    pub spec: Spec,
}

/// The marker beside a complete folder.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    v: u32,
    digest: String,
    spec: Spec,
}

/// All releases under the agent's data folder. Clones share it.
///
/// Two calls for the same app at the same time are the caller's to avoid; for different apps they
/// are fine.
#[derive(Debug, Clone)]
pub struct Releases {
    root: Arc<PathBuf>,
    limits: Limits,
}

impl Releases {
    /// The releases in `root/apps`, downloads in `root/cache`.
    pub fn new(root: &Path) -> Releases {
        Releases { root: Arc::new(root.into()), limits: Limits::default() }
    }

    /// The same with other limits.
    pub fn with_limits(self, limits: Limits) -> Releases {
        Releases { limits, ..self }
    }

    /// The folder of one app.
    pub fn app_folder(&self, app: &str) -> PathBuf {
        self.root.join("apps").join(app)
    }

    /// Where this release's folder is or will be.
    pub fn folder(&self, spec: &Spec) -> PathBuf {
        self.app_folder(&spec.app).join("releases").join(spec.folder())
    }

    /// Removes what a crash left half done. Once, before anything else is asked.
    pub async fn tidy(&self) -> Result<(), ReleaseError> {
        self.blocking(|releases| releases.tidy_now()).await
    }

    /// The download of this release's artifact, with what was fetched before.
    pub async fn partial(&self, spec: &Spec) -> Result<Partial, ReleaseError> {
        let (digest, size) = (spec.digest.clone(), spec.size);
        self.blocking(move |releases| Partial::open(&releases.cache(), &digest, size)).await
    }

    /// Whether the artifact is here and verified, but not unpacked yet.
    pub fn is_fetched(&self, spec: &Spec) -> bool {
        self.artifact(&spec.digest).is_file()
    }

    /// Whether the release is complete on this node.
    pub fn is_installed(&self, spec: &Spec) -> bool {
        folders::read_marker(&self.folder(spec)).is_ok_and(|marker| {
            marker.is_some_and(|it| it.digest == spec.digest) && self.folder(spec).is_dir()
        })
    }

    /// Refuses when the disk has no room for this release; `install` asks this too.
    pub fn check_space(&self, spec: &Spec) -> Result<(), ReleaseError> {
        space::check(&self.root, spec, self.limits.reserve_bytes)
    }

    /// Unpacks the fetched artifact. A repeat answers at once.
    pub async fn install(&self, spec: &Spec) -> Result<Installed, ReleaseError> {
        let spec = spec.clone();
        self.blocking(move |releases| releases.install_now(&spec)).await
    }

    /// Where the fetched artifact is.
    pub fn fetched(&self, spec: &Spec) -> PathBuf {
        self.artifact(&spec.digest)
    }

    /// Installs a release that is a container image, which was brought here already.
    pub async fn install_image(
        &self,
        spec: &Spec,
        image: String,
    ) -> Result<Installed, ReleaseError> {
        let spec = spec.clone();
        self.blocking(move |releases| releases.install_image_now(&spec, &image)).await
    }

    /// Makes this release the app's current one, by one atomic rename; durable when this returns.
    pub async fn point_current(&self, spec: &Spec) -> Result<Installed, ReleaseError> {
        let spec = spec.clone();
        self.blocking(move |releases| releases.point_current_now(&spec)).await
    }

    /// What `current` points at; an error when that is no complete release.
    pub async fn current(&self, app: &str) -> Result<Option<Installed>, ReleaseError> {
        let app = app.to_owned();
        self.blocking(move |releases| releases.current_now(&app)).await
    }

    /// Removes the link, not the release: for an app whose first release failed.
    pub async fn clear_current(&self, app: &str) -> Result<(), ReleaseError> {
        let app = app.to_owned();
        self.blocking(move |releases| releases.clear_current_now(&app)).await
    }

    /// Every complete release of this app, by folder name.
    pub async fn installed(&self, app: &str) -> Result<Vec<Installed>, ReleaseError> {
        let app = app.to_owned();
        self.blocking(move |releases| releases.installed_now(&app)).await
    }

    /// The apps that have a folder here, by name.
    pub async fn apps(&self) -> Result<Vec<String>, ReleaseError> {
        self.blocking(|releases| folders::names(&releases.root.join("apps"))).await
    }

    /// Removes every release of the app that is not current, and that `keep` names neither by its folder nor by its
    /// digest; says which versions went.
    pub async fn prune(&self, app: &str, keep: &[String]) -> Result<Vec<String>, ReleaseError> {
        let (app, keep) = (app.to_owned(), keep.to_vec());
        self.blocking(move |releases| releases.prune_now(&app, &keep)).await
    }

    /// Removes every download, finished or not, whose digest is not in `keep`.
    pub async fn prune_cache(&self, keep: &[String]) -> Result<(), ReleaseError> {
        let keep = keep.to_vec();
        self.blocking(move |releases| releases.prune_cache_now(&keep)).await
    }

    fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    fn artifact(&self, digest: &str) -> PathBuf {
        self.cache().join(digest)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Releases) -> Result<T, ReleaseError> + Send + 'static,
    ) -> Result<T, ReleaseError> {
        let releases = self.clone();
        let worker = tokio::task::spawn_blocking(move || work(&releases));
        worker.await.map_err(|_| ReleaseError::Stopping)?
    }
}
