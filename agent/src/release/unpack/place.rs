//! Places one entry of an archive in the tree, or refuses it.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

use super::meter::Shared;
use super::{Limits, Rule, UnpackError};

/// Bytes copied at once.
const BLOCK: usize = 128 * 1024;
/// setuid, setgid, sticky.
const SPECIAL_BITS: u32 = 0o7000;

/// The folder that an archive is unpacked into. Nobody else writes there meanwhile.
pub(super) struct Tree<'a> {
    root: &'a Path,
    limits: &'a Limits,
    entries: u64,
    /// The folder that was last found to be real all the way down; most entries are its neighbours.
    real: PathBuf,
    block: Vec<u8>,
}

impl<'a> Tree<'a> {
    pub(super) fn new(root: &'a Path, limits: &'a Limits) -> Tree<'a> {
        Tree { root, limits, entries: 0, real: PathBuf::new(), block: vec![0; BLOCK] }
    }

    pub(super) fn place<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        meter: &Shared,
        explain: &dyn Fn(io::Error) -> UnpackError,
    ) -> Result<(), UnpackError> {
        let name = entry.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&name).into_owned();
        let refused = |rule| UnpackError::Refused { name: shown.clone(), rule };
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        self.count_entry()?;
        let mode = entry.header().mode().map_err(explain)?;
        if mode & SPECIAL_BITS != 0 {
            return Err(refused(Rule::Bits(mode)));
        }
        let path = self.inside(&name).map_err(&refused)?;
        let failed = |cause| UnpackError::Write { name: shown.clone(), cause };
        let placed = match kind {
            EntryType::Directory => self.folder(&path),
            // How archives from before 1988 write a folder.
            EntryType::Regular if name.ends_with(b"/") => self.folder(&path),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut file = match self.new_file(&path, mode) {
                    Ok(file) => file,
                    Err(problem) => return Err(problem.explain(refused, failed)),
                };
                return self.copy(entry, &mut file, meter, (explain, &failed));
            }
            EntryType::Symlink => self.link(&path, &target(entry)),
            EntryType::Link => self.hard_link(&path, &target(entry)),
            _ => Err(Problem::Rule(Rule::Special(special(kind)))),
        };
        placed.map_err(|problem| problem.explain(refused, failed))
    }

    fn count_entry(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        match self.entries > self.limits.entries {
            true => Err(UnpackError::TooMuch { rule: Rule::Entries(self.limits.entries) }),
            false => Ok(()),
        }
    }

    /// The entry's path below the root, without `.`; empty for the root itself.
    fn inside(&self, name: &[u8]) -> Result<PathBuf, Rule> {
        if name.len() > self.limits.path_bytes {
            return Err(Rule::LongPath(self.limits.path_bytes));
        }
        if name.contains(&0) {
            return Err(Rule::Nul);
        }
        if name.is_empty() {
            return Err(Rule::Empty);
        }
        let mut inside = PathBuf::new();
        for part in Path::new(OsStr::from_bytes(name)).components() {
            match part {
                Component::Normal(part) => inside.push(part),
                Component::CurDir => {}
                Component::ParentDir => return Err(Rule::Parent),
                Component::RootDir | Component::Prefix(_) => return Err(Rule::Absolute),
            }
        }
        Ok(inside)
    }

    fn folder(&mut self, path: &Path) -> Result<(), Problem> {
        self.make_real(path)
    }

    /// Makes sure that this folder and all above it are real folders, never links.
    fn make_real(&mut self, path: &Path) -> Result<(), Problem> {
        if self.real.starts_with(path) {
            return Ok(());
        }
        let mut at = PathBuf::new();
        for part in path.components() {
            at.push(part);
            let full = self.root.join(&at);
            match found(&full)? {
                None => {
                    fs::create_dir(&full)?;
                    fs::set_permissions(&full, Permissions::from_mode(0o755))?;
                    // Folders that are only implied count too, or one deep path would be thousands.
                    self.entries += 1;
                    if self.entries > self.limits.entries {
                        return Err(Problem::Rule(Rule::Entries(self.limits.entries)));
                    }
                }
                Some(it) if it.is_dir() => {}
                Some(_) if at == path => return Err(Rule::Clash("file or link").into()),
                Some(it) if it.is_symlink() => return Err(Rule::BelowLink(shown(&at)).into()),
                Some(_) => return Err(Rule::BelowFile(shown(&at)).into()),
            }
        }
        self.real = path.to_owned();
        Ok(())
    }

    /// Makes the place free for a file or link: a later entry of the same name replaces the earlier
    /// one.
    fn free(&mut self, path: &Path) -> Result<PathBuf, Problem> {
        let Some(parent) = path.parent() else { return Err(Rule::Empty.into()) };
        match self.make_real(parent) {
            // Seen from below, a link or file in place of the parent is what the entry lies below.
            Err(Problem::Rule(Rule::Clash(_))) => {
                let is_link = found(&self.root.join(parent))?.is_some_and(|it| it.is_symlink());
                let below = if is_link { Rule::BelowLink } else { Rule::BelowFile };
                return Err(below(shown(parent)).into());
            }
            result => result?,
        }
        let full = self.root.join(path);
        match found(&full)? {
            Some(it) if it.is_dir() => return Err(Rule::Clash("folder").into()),
            Some(_) => fs::remove_file(&full)?,
            None => {}
        }
        Ok(full)
    }

    fn new_file(&mut self, path: &Path, mode: u32) -> Result<File, Problem> {
        let full = self.free(path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(full)?;
        let executable = mode & 0o111 != 0;
        file.set_permissions(Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
        Ok(file)
    }

    fn copy<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        file: &mut File,
        meter: &Shared,
        (explain, failed): (&dyn Fn(io::Error) -> UnpackError, &dyn Fn(io::Error) -> UnpackError),
    ) -> Result<(), UnpackError> {
        let sparse = entry.header().entry_type() == EntryType::GNUSparse;
        loop {
            let read = match entry.read(&mut self.block) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => return Err(explain(cause)),
            };
            if sparse {
                meter.count(read as u64).map_err(explain)?;
            }
            file.write_all(&self.block[..read]).map_err(failed)?;
        }
    }

    fn link(&mut self, path: &Path, target: &[u8]) -> Result<(), Problem> {
        check_target(path, target)?;
        let full = self.free(path)?;
        Ok(symlink(OsStr::from_bytes(target), full)?)
    }

    /// A hard link's target is a path from the root of the archive, and must be a file that was
    /// unpacked before.
    fn hard_link(&mut self, path: &Path, target: &[u8]) -> Result<(), Problem> {
        let wrong = || Problem::Rule(Rule::HardLink(String::from_utf8_lossy(target).into_owned()));
        let from = self.inside(target).map_err(|_| wrong())?;
        let mut at = self.root.to_owned();
        let mut parts = from.components().peekable();
        while let Some(part) = parts.next() {
            at.push(part);
            let is_last = parts.peek().is_none();
            match found(&at)? {
                Some(it) if it.is_dir() && !is_last => {}
                Some(it) if it.is_file() && is_last => {}
                Some(_) | None => return Err(wrong()),
            }
        }
        if from == path {
            return Ok(());
        }
        let full = self.free(path)?;
        Ok(fs::hard_link(at, full)?)
    }
}

/// Why an entry was not placed.
enum Problem {
    Rule(Rule),
    Disk(io::Error),
}

impl From<Rule> for Problem {
    fn from(rule: Rule) -> Problem {
        Problem::Rule(rule)
    }
}

impl From<io::Error> for Problem {
    fn from(cause: io::Error) -> Problem {
        Problem::Disk(cause)
    }
}

impl Problem {
    fn explain(
        self,
        refused: impl Fn(Rule) -> UnpackError,
        failed: impl Fn(io::Error) -> UnpackError,
    ) -> UnpackError {
        match self {
            Problem::Rule(rule @ Rule::Entries(_)) => UnpackError::TooMuch { rule },
            Problem::Rule(rule) => refused(rule),
            Problem::Disk(cause) => failed(cause),
        }
    }
}

/// See the rules at the top of `unpack.rs`.
fn check_target(path: &Path, target: &[u8]) -> Result<(), Rule> {
    let text = String::from_utf8_lossy(target).into_owned();
    if target.is_empty() {
        return Err(Rule::Empty);
    }
    if target.contains(&0) {
        return Err(Rule::Nul);
    }
    let mut depth = path.components().count().saturating_sub(1);
    let mut named = false;
    for part in Path::new(OsStr::from_bytes(target)).components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if named => return Err(Rule::LinkWinding(text)),
            Component::ParentDir => {
                depth = depth.checked_sub(1).ok_or_else(|| Rule::LinkOut(text.clone()))?;
            }
            Component::RootDir | Component::Prefix(_) => return Err(Rule::LinkAbsolute(text)),
        }
    }
    Ok(())
}

fn target<R: Read>(entry: &tar::Entry<'_, R>) -> Vec<u8> {
    entry.link_name_bytes().map_or_else(Vec::new, |name| name.into_owned())
}

fn found(path: &Path) -> io::Result<Option<Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(it) => Ok(Some(it)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn special(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Block => "block device",
        EntryType::Char => "character device",
        EntryType::Fifo => "fifo",
        _ => "special entry",
    }
}
