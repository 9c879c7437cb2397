//! The folders, markers and links of the releases; everything here blocks.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{ReleaseError, at};
use super::unpack::{self, UnpackError};
use super::{Installed, Marker, Releases};
use crate::journal::{replace, sync_folder};
use crate::spec::{IMAGE_FILE, Spec};

/// What a crash may leave begins with this and is removed at the next start.
const TEMPORARY: &str = ".tmp-";

impl Releases {
    pub(super) fn install_now(&self, spec: &Spec) -> Result<Installed, ReleaseError> {
        let folder = self.folder(spec);
        if let Some(marker) = read_marker(&folder)? {
            if marker.digest != spec.digest {
                return Err(ReleaseError::Taken { folder, digest: marker.digest });
            }
            if folder.is_dir() {
                return Ok(Installed { folder, spec: marker.spec });
            }
        }
        self.check_space(spec)?;
        let app = self.app_folder(&spec.app);
        let releases = app.join("releases");
        for path in [&self.root.join("apps"), &app, &releases] {
            make_open_folder(path).map_err(at("make", path))?;
        }
        let new = Temporary::within(&releases)?;
        self.unpack_artifact(spec, &new.path)?;
        self.put_in_place(spec, new, &folder)?;
        write_marker(&folder, spec)?;
        let artifact = self.artifact(&spec.digest);
        std::fs::remove_file(&artifact).map_err(at("remove", &artifact))?;
        Ok(Installed { folder, spec: spec.clone() })
    }

    /// A release whose image is somewhere else: its folder only names it.
    pub(super) fn install_image_now(
        &self,
        spec: &Spec,
        image: &str,
    ) -> Result<Installed, ReleaseError> {
        let folder = self.folder(spec);
        let app = self.app_folder(&spec.app);
        let releases = app.join("releases");
        for path in [&self.root.join("apps"), &app, &releases] {
            make_open_folder(path).map_err(at("make", path))?;
        }
        let new = Temporary::within(&releases)?;
        let file = new.path.join(IMAGE_FILE);
        std::fs::write(&file, image).map_err(at("write", &file))?;
        self.put_in_place(spec, new, &folder)?;
        write_marker(&folder, spec)?;
        let artifact = self.artifact(&spec.digest);
        match std::fs::remove_file(&artifact) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(at("remove", &artifact)(cause))
            }
            Ok(()) | Err(_) => Ok(Installed { folder, spec: spec.clone() }),
        }
    }

    fn unpack_artifact(&self, spec: &Spec, into: &Path) -> Result<(), ReleaseError> {
        let path = self.artifact(&spec.digest);
        let (app, version, digest) = (spec.app.clone(), spec.version.clone(), spec.digest.clone());
        let artifact = match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                return Err(ReleaseError::NotFetched { app, version, digest });
            }
            result => result.map_err(at("open", &path))?,
        };
        let failed = |cause: UnpackError| ReleaseError::Unpack { app, version, cause };
        let got = unpack::unpack(artifact, spec.format, into, &self.limits).map_err(failed)?;
        if got != spec.digest {
            std::fs::remove_file(&path).map_err(at("remove", &path))?;
            return Err(ReleaseError::Digest { expected: digest, got });
        }
        Ok(())
    }

    fn put_in_place(&self, spec: &Spec, new: Temporary, folder: &Path) -> Result<(), ReleaseError> {
        let handle = File::open(&new.path).map_err(at("open", &new.path))?;
        rustix::fs::syncfs(&handle).map_err(|errno| at("sync", &new.path)(errno.into()))?;
        let releases = self.app_folder(&spec.app).join("releases");
        // A folder without a marker is what a crash left here; it makes room first.
        let _old = match folder.exists() {
            true => {
                let old = Temporary::within(&releases)?;
                std::fs::rename(folder, &old.path).map_err(at("move away", folder))?;
                Some(old)
            }
            false => None,
        };
        std::fs::rename(&new.path, folder).map_err(at("name", folder))?;
        sync_folder(&releases).map_err(at("sync", &releases))
    }

    pub(super) fn point_current_now(&self, spec: &Spec) -> Result<Installed, ReleaseError> {
        let folder = self.folder(spec);
        if !self.is_installed(spec) {
            return Err(ReleaseError::Incomplete { folder });
        }
        // The same artifact may be ordered with another configuration.
        if read_marker(&folder)?.is_some_and(|marker| marker.spec != *spec) {
            write_marker(&folder, spec)?;
        }
        let app = self.app_folder(&spec.app);
        let (link, current) = (app.join(unique(".tmp-current-")), app.join("current"));
        let target = Path::new("releases").join(spec.folder());
        symlink(target, &link).map_err(at("make", &link))?;
        std::fs::rename(&link, &current).map_err(at("replace", &current))?;
        sync_folder(&app).map_err(at("sync", &app))?;
        Ok(Installed { folder, spec: spec.clone() })
    }

    pub(super) fn current_now(&self, app: &str) -> Result<Option<Installed>, ReleaseError> {
        let current = self.app_folder(app).join("current");
        let target = match std::fs::read_link(&current) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            result => result.map_err(at("read", &current))?,
        };
        let folder = self.app_folder(app).join(target);
        match read_marker(&folder)? {
            Some(marker) if folder.is_dir() => Ok(Some(Installed { folder, spec: marker.spec })),
            Some(_) | None => Err(ReleaseError::Incomplete { folder }),
        }
    }

    pub(super) fn clear_current_now(&self, app: &str) -> Result<(), ReleaseError> {
        let folder = self.app_folder(app);
        let current = folder.join("current");
        match std::fs::remove_file(&current) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(at("remove", &current)(cause)),
            Ok(()) => sync_folder(&folder).map_err(at("sync", &folder)),
        }
    }

    pub(super) fn installed_now(&self, app: &str) -> Result<Vec<Installed>, ReleaseError> {
        let releases = self.app_folder(app).join("releases");
        let mut installed = Vec::new();
        for name in names(&releases)? {
            let folder = releases.join(&name);
            if let Some(marker) = read_marker(&folder)?.filter(|_| folder.is_dir()) {
                installed.push(Installed { folder, spec: marker.spec });
            }
        }
        Ok(installed)
    }

    pub(super) fn prune_now(
        &self,
        app: &str,
        keep: &[String],
    ) -> Result<Vec<String>, ReleaseError> {
        let current = self.current_now(app)?.map(|it| it.folder);
        let mut gone = Vec::new();
        for Installed { folder, spec } in self.installed_now(app)? {
            let kept = keep.contains(&spec.folder()) || keep.contains(&spec.digest);
            if !kept && current.as_ref() != Some(&folder) {
                remove_release(&folder)?;
                gone.push(spec.version);
            }
        }
        Ok(gone)
    }

    pub(super) fn prune_cache_now(&self, keep: &[String]) -> Result<(), ReleaseError> {
        for name in names(&self.cache())? {
            if !keep.iter().any(|digest| *digest == name.trim_end_matches(".part")) {
                let path = self.artifact(&name);
                std::fs::remove_file(&path).map_err(at("remove", &path))?;
            }
        }
        Ok(())
    }

    pub(super) fn tidy_now(&self) -> Result<(), ReleaseError> {
        for app in names(&self.root.join("apps"))? {
            let folder = self.app_folder(&app);
            let releases = folder.join("releases");
            let current = std::fs::read_link(folder.join("current")).ok();
            for path in hidden(&folder)?.into_iter().chain(hidden(&releases)?) {
                remove(&path).map_err(at("remove", &path))?;
            }
            for name in names(&releases)? {
                let path = releases.join(&name);
                let is_current = current.as_ref().is_some_and(|it| it.ends_with(&name));
                if path.is_dir() && !marker_path(&path).exists() && !is_current {
                    remove(&path).map_err(at("remove", &path))?;
                }
            }
        }
        Ok(())
    }
}

/// A folder that disappears unless it was renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    fn within(releases: &Path) -> Result<Temporary, ReleaseError> {
        let path = releases.join(unique(TEMPORARY));
        make_open_folder(&path).map_err(at("make", &path))?;
        Ok(Temporary { path })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match std::fs::remove_dir_all(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                // The next start tidies it away.
                tracing::warn!(path = %self.path.display(), %cause, "cannot remove a folder");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// A name that no other call of this or an earlier process uses.
fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}-{number}", std::process::id())
}

/// A folder that the app's user may enter whatever the agent's umask is.
fn make_open_folder(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn marker_path(folder: &Path) -> PathBuf {
    let mut name = folder.as_os_str().to_owned();
    name.push(".ok");
    PathBuf::from(name)
}

pub(super) fn read_marker(folder: &Path) -> Result<Option<Marker>, ReleaseError> {
    let path = marker_path(folder);
    match std::fs::read(&path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(at("read", &path)(cause)),
        Ok(json) => match serde_json::from_slice(&json) {
            Ok(marker) => Ok(Some(marker)),
            Err(cause) => Err(ReleaseError::Marker { path, cause }),
        },
    }
}

fn write_marker(folder: &Path, spec: &Spec) -> Result<(), ReleaseError> {
    let path = marker_path(folder);
    let marker = Marker { v: 1, digest: spec.digest.clone(), spec: spec.clone() };
    let json = serde_json::to_vec(&marker)
        .map_err(|cause| ReleaseError::Marker { path: path.clone(), cause })?;
    replace(&path, &json).map_err(at("write", &path))
}

/// First the marker, durably; then a crash leaves a folder that counts for nothing.
fn remove_release(folder: &Path) -> Result<(), ReleaseError> {
    let marker = marker_path(folder);
    std::fs::remove_file(&marker).map_err(at("remove", &marker))?;
    folder.parent().map_or(Ok(()), sync_folder).map_err(at("sync the folder of", folder))?;
    std::fs::remove_dir_all(folder).map_err(at("remove", folder))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path)?.is_dir() {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    }
}

/// What is in a folder and not hidden, sorted; nothing when there is no folder.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, ReleaseError> {
    let mut names = entries(folder)?;
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    Ok(names)
}

fn hidden(folder: &Path) -> Result<Vec<PathBuf>, ReleaseError> {
    let names = entries(folder)?;
    Ok(names.iter().filter(|it| it.starts_with(TEMPORARY)).map(|it| folder.join(it)).collect())
}

fn entries(folder: &Path) -> Result<Vec<String>, ReleaseError> {
    let listing = match std::fs::read_dir(folder) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(at("list", folder))?,
    };
    let mut names = Vec::new();
    for entry in listing {
        let entry = entry.map_err(at("list", folder))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}
