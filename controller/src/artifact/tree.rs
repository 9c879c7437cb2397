//! Walks a folder in one fixed order and refuses what no release may contain.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use super::pack::PackError;

/// Files, folders and links of one artifact. More of them make every node's disk slow.
pub const ENTRIES_MAX: usize = 200_000;

/// Folders in folders. Deeper trees are loops or accidents.
const DEPTH_MAX: usize = 64;

/// Set-user-ID and set-group-ID.
pub(super) const SET_ID: u32 = 0o6000;

/// One thing in the folder.
#[derive(Debug)]
pub(super) struct Entry {
    /// Relative to the folder.
    pub(super) path: PathBuf,
    /// Permissions only.
    pub(super) mode: u32,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Folder,
    File { size: u64 },
    Link { to: PathBuf },
}

/// Everything below `root`, sorted by path, each folder before what is in it.
pub(super) fn walk(root: &Path) -> Result<Vec<Entry>, PackError> {
    let mut entries = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let at = root.join(&folder);
        let deed = |cause| PackError::Read { path: at.clone(), cause };
        for item in fs::read_dir(&at).map_err(deed)? {
            let path = folder.join(item.map_err(deed)?.file_name());
            let entry = entry(root, path)?;
            if matches!(entry.kind, Kind::Folder) {
                if entry.path.components().count() >= DEPTH_MAX {
                    return Err(PackError::TooDeep {
                        path: root.join(entry.path),
                        limit: DEPTH_MAX,
                    });
                }
                folders.push(entry.path.clone());
            }
            entries.push(entry);
            if entries.len() > ENTRIES_MAX {
                return Err(PackError::TooMany { path: root.to_owned(), limit: ENTRIES_MAX });
            }
        }
    }
    entries.sort_by(|a, b| a.path.as_os_str().as_bytes().cmp(b.path.as_os_str().as_bytes()));
    Ok(entries)
}

fn entry(root: &Path, path: PathBuf) -> Result<Entry, PackError> {
    let full = root.join(&path);
    let deed = |cause| PackError::Read { path: full.clone(), cause };
    let meta = fs::symlink_metadata(&full).map_err(deed)?;
    let kind = if meta.is_dir() {
        Kind::Folder
    } else if meta.is_file() {
        Kind::File { size: meta.size() }
    } else if meta.is_symlink() {
        let to = fs::read_link(&full).map_err(deed)?;
        match way(&path, &to) {
            Way::Inside => {}
            Way::Winding => return Err(PackError::Winding { path: full, to }),
            Way::Outside => return Err(PackError::Leaves { path: full, to }),
        }
        Kind::Link { to }
    } else {
        return Err(PackError::Special { what: special(&meta), path: full });
    };
    if meta.is_file() && meta.mode() & SET_ID != 0 {
        return Err(PackError::SetId { path: full });
    }
    Ok(Entry { path, mode: meta.mode() & 0o777, kind })
}

fn special(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a named pipe"
    } else {
        "a device"
    }
}

/// Where a link leads, by its text alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To something in the tree.
    Inside,
    /// `..` after a name: where that is depends on other links, so agents refuse it.
    Winding,
    /// Out of the tree.
    Outside,
}

/// Where this link leads.
pub(super) fn way(link: &Path, to: &Path) -> Way {
    let mut folders = link.parent().into_iter().flat_map(Path::components).count();
    let mut named = false;
    for part in to.components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if named => return Way::Winding,
            Component::ParentDir if folders == 0 => return Way::Outside,
            Component::ParentDir => folders -= 1,
            Component::RootDir | Component::Prefix(_) => return Way::Outside,
        }
    }
    Way::Inside
}

/// Reads a file of the tree, which must still be a plain file of the size that was seen.
pub(super) fn open(path: &Path, size: u64) -> Result<fs::File, PackError> {
    let deed = |cause| PackError::Read { path: path.to_owned(), cause };
    let file = fs::File::open(path).map_err(deed)?;
    let meta = file.metadata().map_err(deed)?;
    if meta.is_file() && meta.size() == size {
        return Ok(file);
    }
    Err(deed(io::Error::other("it changed while it was packed")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_links_lead() {
        for (link, to, expected) in [
            ("a", "b", Way::Inside),
            ("a", "./b/c", Way::Inside),
            ("d/a", "../b", Way::Inside),
            ("d/a", "..", Way::Inside),
            ("d/e/a", "../../b", Way::Inside),
            ("a", "b/../c", Way::Winding),
            ("d/a", "x/../../../b", Way::Winding),
            ("a", "..", Way::Outside),
            ("a", "../tree/b", Way::Outside),
            ("d/a", "../../b", Way::Outside),
            ("a", "/etc/passwd", Way::Outside),
        ] {
            assert_eq!(way(Path::new(link), Path::new(to)), expected, "{link} -> {to}");
        }
    }
}
