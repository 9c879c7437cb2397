//! Where an identity lives on disk, so that a crash never leaves half of one.
//!
//! `DIR/identity` is a link to a folder beside it (`DIR/identity.3f…`) that was written and synced
//! completely before the link pointed there. Whoever loads an identity reads all of it from one
//! such folder, or finds none.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::{fmt, process};

use ring::rand::{SecureRandom, SystemRandom};

use crate::certificate::hex;
use crate::keys::NoRandomness;

/// Why a file with an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot {deed} {}", .path.display())]
    Io {
        deed: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// Others on this host could read a private key.
    #[error(
        "{} can be read by other users of this host (mode {mode:04o}), but it holds a private key: \
         `chmod 600 {}`",
        .path.display(), .path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    /// Somebody removed one of the files.
    #[error(
        "{} holds only a part of an identity: {missing} is missing; restore it, or remove the \
         folder and join again with a new token",
        .dir.display()
    )]
    Incomplete { dir: PathBuf, missing: &'static str },
    /// It is not a link of ours, and not empty.
    #[error("{} is in the way: it is neither a link made here nor an empty folder", .0.display())]
    InTheWay(PathBuf),
    /// No unique name could be made.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

fn io_error(deed: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |cause| FileError::Io { deed, path, cause }
}

/// One identity, as it lies on disk. All three are PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The private key.
    pub key: String,
    /// The leaf, then its CA.
    pub cert: String,
    /// The trust roots, one or more.
    pub ca: String,
}

impl fmt::Debug for IdentityFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityFiles { .. }")
    }
}

const KEY: &str = "key.pem";
const CERT: &str = "cert.pem";
const CA: &str = "ca.pem";

impl IdentityFiles {
    /// The identity at `place` (`DIR/identity`); none when nothing, or an empty folder, is there.
    pub fn load(place: &Path) -> Result<Option<Self>, FileError> {
        let dir = match fs::canonicalize(place) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(io_error("find", place)(cause)),
        };
        let (key, cert, ca) = (read(&dir, KEY)?, read(&dir, CERT)?, read(&dir, CA)?);
        if key.is_some() {
            check_mode(&dir.join(KEY))?;
        }
        let missing = |missing| FileError::Incomplete { dir: place.to_owned(), missing };
        match (key, cert, ca) {
            (None, None, None) => Ok(None),
            (Some(key), Some(cert), Some(ca)) => Ok(Some(Self { key, cert, ca })),
            (None, ..) => Err(missing(KEY)),
            (_, None, _) => Err(missing(CERT)),
            (.., None) => Err(missing(CA)),
        }
    }

    /// Puts this identity at `place` in place of what is there, at once and durably.
    ///
    /// One process owns a place: a reader elsewhere could see its folder go while it reads.
    pub fn save(&self, place: &Path) -> Result<(), FileError> {
        let parent = parent_of(place);
        fs::create_dir_all(parent).map_err(io_error("make the folder", parent))?;
        let name = place.file_name().unwrap_or_default().to_owned();
        let fresh = beside(place, ".", &random_suffix()?);
        fs::DirBuilder::new().mode(0o700).create(&fresh).map_err(io_error("make", &fresh))?;
        for (file, text) in [(KEY, &self.key), (CERT, &self.cert), (CA, &self.ca)] {
            write_new(&fresh.join(file), text.as_bytes())?;
        }
        sync_folder(&fresh)?;
        sync_folder(parent)?;
        make_way(place)?;
        let link = beside(place, ".link.", &random_suffix()?);
        let target = fresh.file_name().unwrap_or_default();
        symlink(target, &link).map_err(io_error("make the link", &link))?;
        fs::rename(&link, place).map_err(io_error("replace", place))?;
        sync_folder(parent)?;
        remove_older(parent, &name, target);
        Ok(())
    }
}

fn read(dir: &Path, file: &str) -> Result<Option<String>, FileError> {
    let path = dir.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(io_error("read", &path)(cause)),
    }
}

/// A link cannot replace a folder: an empty one (a package or systemd made it) goes, anything else
/// stays.
fn make_way(place: &Path) -> Result<(), FileError> {
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(io_error("look at", place)(cause)),
        Ok(found) if found.is_symlink() => Ok(()),
        Ok(_) => fs::remove_dir(place).map_err(|_| FileError::InTheWay(place.to_owned())),
    }
}

/// Removes what earlier saves (or a crash in one) left. Failing here harms nobody: the next save
/// tries again.
fn remove_older(parent: &Path, name: &OsString, current: &std::ffi::OsStr) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    let mut prefix = name.clone();
    prefix.push(".");
    for entry in entries.flatten() {
        let found = entry.file_name();
        let ours = found.as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
        if !ours || found == current {
            continue;
        }
        let gone = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            Ok(_) | Err(_) => fs::remove_file(entry.path()),
        };
        // An old key that stays is still 0600, and its certificate ends by itself.
        drop(gone);
    }
}

/// Refuses a file with a key that group or others may read.
pub fn check_mode(path: &Path) -> Result<(), FileError> {
    let found = fs::metadata(path).map_err(io_error("look at", path))?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(FileError::Exposed { path: path.to_owned(), mode }) }
}

/// Writes a file that only its owner may read: all of it or nothing, and durable when this returns.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let parent = parent_of(path);
    let fresh = beside(path, ".", &format!("{}.{}", process::id(), random_suffix()?));
    let written = write_new(&fresh, content)
        .and_then(|()| fs::rename(&fresh, path).map_err(io_error("replace", path)));
    if let Err(error) = written {
        // What is half written must not stay; if even that fails, the first error is the one that
        // helps.
        drop(fs::remove_file(&fresh));
        return Err(error);
    }
    sync_folder(parent)
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error("create", path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io_error("write", path))
}

fn sync_folder(dir: &Path) -> Result<(), FileError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", dir))
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

fn beside(path: &Path, infix: &str, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(infix);
    name.push(suffix);
    parent_of(path).join(name)
}

fn random_suffix() -> Result<String, NoRandomness> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(mark: &str) -> IdentityFiles {
        let text = |what| format!("{what} {mark}");
        IdentityFiles { key: text("key"), cert: text("cert"), ca: text("ca") }
    }

    fn siblings(dir: &Path) -> usize {
        fs::read_dir(dir).expect("dir").count()
    }

    #[test]
    fn saved_identities_are_loaded_and_replaced_whole() {
        let dir = tempfile::tempdir().expect("tempdir");
        let place = dir.path().join("sub/identity");
        assert_eq!(IdentityFiles::load(&place).expect("load"), None);
        for mark in ["one", "two", "three"] {
            identity(mark).save(&place).expect("save");
            assert_eq!(IdentityFiles::load(&place).expect("load"), Some(identity(mark)));
            assert_eq!(siblings(place.parent().expect("parent")), 2, "the link and one folder");
        }
        let mode = fs::metadata(place.join(KEY)).expect("key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_crash_before_the_link_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let place = dir.path().join("identity");
        let half = dir.path().join("identity.00");
        fs::create_dir(&half).expect("dir");
        fs::write(half.join(KEY), "half").expect("write");
        assert_eq!(IdentityFiles::load(&place).expect("load"), None);
        identity("one").save(&place).expect("save");
        assert_eq!(IdentityFiles::load(&place).expect("load"), Some(identity("one")));
        assert!(!half.exists(), "the next save clears up");
    }

    #[test]
    fn folders_in_the_way() {
        let dir = tempfile::tempdir().expect("tempdir");
        let place = dir.path().join("identity");
        fs::create_dir(&place).expect("dir");
        assert_eq!(IdentityFiles::load(&place).expect("load"), None, "empty: no identity yet");
        fs::write(place.join(CERT), "x").expect("write");
        let error = IdentityFiles::load(&place).expect_err("half").to_string();
        assert!(error.contains("key.pem is missing"), "{error}");
        let error = identity("one").save(&place).expect_err("in the way").to_string();
        assert!(error.contains("is in the way"), "{error}");
        fs::remove_file(place.join(CERT)).expect("remove");
        identity("one").save(&place).expect("an empty folder gives way");
    }

    #[test]
    fn modes_of_key_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("key.pem");
        write_private(&path, b"secret").expect("write");
        for (mode, right) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o660, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
            match check_mode(&path) {
                Ok(()) => assert!(right, "{mode:o}"),
                Err(error) => {
                    let way_out = format!("`chmod 600 {}`", path.display());
                    assert!(!right && error.to_string().contains(&way_out), "{error}");
                }
            }
        }
        assert_eq!(siblings(dir.path()), 1, "no temporary files stay");
    }
}
