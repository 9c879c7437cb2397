//! Why an artifact cannot be packed, in words for the operator.

use std::io;
use std::path::PathBuf;

use super::pack::Format;

/// Why an artifact cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The manifest names something that is not there.
    #[error(
        "`artifact.path` in the manifest is \"{given}\", and {} does not exist",
        path.display()
    )]
    Missing {
        /// As the manifest says.
        given: String,
        /// Where that is.
        path: PathBuf,
    },
    /// It does not come from a path.
    #[error("an artifact with `{0}` is not packed here: only one with `path` is")]
    NotAPath(&'static str),
    /// Neither a folder nor a file.
    #[error("`artifact.path`: {} is neither a folder nor an archive", .0.display())]
    Neither(PathBuf),
    /// Nothing to deploy.
    #[error("`artifact.path`: {} is empty; was the app built?", .0.display())]
    Empty(PathBuf),
    /// The file has another ending.
    #[error("`artifact.path`: {} is not .tar, .tar.gz, .tgz or .tar.zst", .0.display())]
    Ending(PathBuf),
    /// The file is not what its ending says.
    #[error("{} cannot be read as {}", path.display(), format.as_str())]
    NotAnArchive {
        /// The file.
        path: PathBuf,
        /// What its name says.
        format: Format,
        /// What the reader said.
        #[source]
        cause: io::Error,
    },
    /// An archive with something that every agent would refuse.
    #[error("{} contains `{}`, {what}", path.display(), entry.display())]
    Foreign {
        /// The archive.
        path: PathBuf,
        /// What is in it.
        entry: PathBuf,
        /// Why it cannot stay.
        what: &'static str,
    },
    /// A link that only the file system can follow.
    #[error(
        "the link {} leads to {}, with `..` after a name; write the target without the detour",
        path.display(), to.display()
    )]
    Winding {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// A link out of the tree.
    #[error("the link {} leads to {}, outside the artifact", path.display(), to.display())]
    Leaves {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        to: PathBuf,
    },
    /// A device, socket or pipe.
    #[error("{} is {what}: an artifact holds files, folders and links", path.display())]
    Special {
        /// Where.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file that would run as another user.
    #[error("{} is set-user-ID or set-group-ID; remove that with `chmod ug-s`", path.display())]
    SetId {
        /// Which file.
        path: PathBuf,
    },
    /// Too many files.
    #[error("{} holds more than {limit} files; is it the right folder?", path.display())]
    TooMany {
        /// The artifact.
        path: PathBuf,
        /// [`super::tree::ENTRIES_MAX`]
        limit: usize,
    },
    /// Too many folders in folders.
    #[error("{} lies more than {limit} folders deep", path.display())]
    TooDeep {
        /// The folder.
        path: PathBuf,
        /// How deep they may lie.
        limit: usize,
    },
    /// Too much data.
    #[error("{} holds more than {limit} bytes; is it the right folder?", path.display())]
    TooLarge {
        /// The artifact.
        path: PathBuf,
        /// [`super::pack::UNPACKED_BYTES_MAX`]
        limit: u64,
    },
    /// The file system said no.
    #[error("cannot read {}", path.display())]
    Read {
        /// What was read.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
    /// The file system said no.
    #[error("cannot write the archive {}", path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}
