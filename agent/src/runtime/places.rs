//! Where the drivers keep what belongs to an instance: its output, its environment, and the note by which the next
//! agent finds it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Instance, LaunchError, RuntimeError};
use crate::journal::replace;

/// The agent's folder, as the drivers use it.
#[derive(Debug, Clone)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    pub(super) fn new(root: &Path) -> Places {
        Places { root: root.into() }
    }

    /// Is this path in the agent's folder?
    pub(super) fn holds(&self, path: &Path) -> bool {
        path.starts_with(&self.root)
    }

    /// Where an instance's output is appended.
    pub(super) fn log(&self, app: &str, instance: &str) -> PathBuf {
        self.of(app, "log", instance, "log")
    }

    /// Where it is noted.
    pub(super) fn record(&self, app: &str, instance: &str) -> PathBuf {
        self.of(app, "run", instance, "json")
    }

    /// Where its environment is, for whoever starts it.
    pub(super) fn environment(&self, app: &str, instance: &str) -> PathBuf {
        self.of(app, "run", instance, "env")
    }

    fn of(&self, app: &str, folder: &str, instance: &str, ending: &str) -> PathBuf {
        let name = if instance.is_empty() { "app" } else { instance };
        self.root.join("apps").join(app).join(folder).join(format!("{name}.{ending}"))
    }

    /// Makes the folders of an app's output and notes. Only the agent reads the notes.
    pub(super) fn make(&self, app: &str) -> Result<(), LaunchError> {
        make_folder(self.log(app, "").parent(), 0o755)?;
        make_folder(self.record(app, "").parent(), 0o700)
    }

    /// What was last started under this name.
    pub(super) fn read(&self, app: &str, instance: &str) -> Result<Option<Instance>, RuntimeError> {
        let path = self.record(app, instance);
        let failed = |cause| RuntimeError::Disk { deed: "read", path: path.clone(), cause };
        match std::fs::read(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(failed(cause)),
            Ok(json) => {
                serde_json::from_slice(&json).map(Some).map_err(|cause| failed(cause.into()))
            }
        }
    }

    /// Notes an instance, before it runs.
    pub(super) fn write(&self, instance: &Instance) -> Result<(), LaunchError> {
        let path = self.record(&instance.app, &instance.instance);
        let json = serde_json::to_vec(instance).map_err(io::Error::from);
        json.and_then(|json| replace(&path, &json)).map_err(|cause| LaunchError::Disk {
            deed: "write",
            path,
            cause,
        })
    }

    /// Forgets an instance that has ended, unless another was started under its name meanwhile.
    pub(super) fn forget(&self, instance: &Instance) -> Result<(), RuntimeError> {
        let (app, name) = (&instance.app, &instance.instance);
        let is_it = |it: &Instance| it.driver == instance.driver && it.process == instance.process;
        if !self.read(app, name)?.is_some_and(|it| is_it(&it)) {
            return Ok(());
        }
        for path in [self.environment(app, name), self.record(app, name)] {
            match std::fs::remove_file(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(RuntimeError::Disk { deed: "remove", path, cause });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// With this mode whatever the agent's umask is.
fn make_folder(path: Option<&Path>, mode: u32) -> Result<(), LaunchError> {
    let Some(path) = path else { return Ok(()) };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(mode)))
        .map_err(|cause| LaunchError::Disk { deed: "make", path: path.into(), cause })
}
