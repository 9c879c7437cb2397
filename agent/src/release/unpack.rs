//! Unpacks an archive that may be hostile: nothing is written, linked or reachable outside the
//! folder.
//!
//! Links are safe by three rules: nothing is ever placed below a link; a link's target is relative
//! and has `..` only at its beginning; and those `..`, counted from the real folder that the link
//! is in, stay inside. Every name after them is either real or again such a link, so no chain of
//! links leads out, whatever the order of the entries.

mod meter;
mod place;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use thiserror::Error;

use self::meter::{Budgeted, Meter, Shared};
use self::place::Tree;
use crate::spec::Format;

/// How much an archive may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub unpacked_bytes: u64,
    /// Files, folders and links together.
    pub entries: u64,
    /// Unpacked bytes per packed byte; real programs and texts stay below 20.
    pub ratio: u64,
    /// Unpacked bytes below which the ratio is not looked at: sparse small archives are harmless.
    pub ratio_from_bytes: u64,
    /// Bytes of one path; Linux ends at 4096 for the path with all folders above.
    pub path_bytes: usize,
    /// Bytes of the names and attributes before one entry, which are held in memory.
    pub header_bytes: u64,
    /// Bytes that must stay free on the disk, for logs and the journal.
    pub reserve_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        const MIB: u64 = 1024 * 1024;
        Limits {
            unpacked_bytes: 8 * 1024 * MIB,
            entries: 200_000,
            ratio: 200,
            ratio_from_bytes: 64 * MIB,
            path_bytes: 1024,
            header_bytes: MIB,
            reserve_bytes: 64 * MIB,
        }
    }
}

/// An archive that was not unpacked.
#[derive(Debug, Error)]
pub enum UnpackError {
    /// One entry breaks a rule.
    #[error("the archive's entry `{name}` is refused: {rule}")]
    Refused { name: String, rule: Rule },
    /// It is too much.
    #[error("the archive is refused: {rule}")]
    TooMuch { rule: Rule },
    /// It is damaged, or not of the format that was ordered.
    #[error("the archive cannot be read as {format}")]
    Read {
        format: &'static str,
        #[source]
        cause: io::Error,
    },
    /// The disk refused.
    #[error("cannot write the archive's entry `{name}`")]
    Write {
        name: String,
        #[source]
        cause: io::Error,
    },
}

/// The rules.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rule {
    #[error("its path is absolute")]
    Absolute,
    #[error("its path has `..`")]
    Parent,
    #[error("its path is empty")]
    Empty,
    #[error("its path has a NUL byte")]
    Nul,
    #[error("its path is longer than {0} bytes")]
    LongPath(usize),
    #[error("it lies below `{0}`, which is a link")]
    BelowLink(String),
    #[error("it lies below `{0}`, which is a file")]
    BelowFile(String),
    #[error("there is a {0} of that name already")]
    Clash(&'static str),
    #[error("it is a link to `{0}`, which is absolute")]
    LinkAbsolute(String),
    #[error("it is a link to `{0}`, which leaves the release")]
    LinkOut(String),
    #[error("it is a link to `{0}`, which has `..` after a name")]
    LinkWinding(String),
    #[error("it is a hard link to `{0}`, which is no file of this archive")]
    HardLink(String),
    #[error("it is a {0}; only files, folders and links are allowed")]
    Special(&'static str),
    #[error("its mode {0:o} has setuid, setgid or the sticky bit")]
    Bits(u32),
    #[error("it unpacks to more than {0} bytes")]
    Bytes(u64),
    #[error("it has more than {0} entries")]
    Entries(u64),
    #[error("it unpacks to more than {0} times its size")]
    Ratio(u64),
    #[error("an entry's names and attributes take more than {0} bytes")]
    Headers(u64),
}

/// zstd's window in bits: 32 MiB. Levels up to 19 need 8 MiB, and the agent's unit has a memory
/// limit of 64 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 25;

/// Unpacks into the folder, which is empty; returns the SHA-256 of the whole artifact as it was
/// read.
pub(super) fn unpack(
    artifact: File,
    format: Format,
    into: &Path,
    limits: &Limits,
) -> Result<String, UnpackError> {
    let meter = Shared::new(Meter::new(artifact, format, limits));
    let unreadable = |cause| UnpackError::Read { format: name(format), cause };
    let stream: Box<dyn Read> = match format {
        Format::Tar => Box::new(meter.clone()),
        Format::TarGz => Box::new(flate2::read::MultiGzDecoder::new(meter.clone())),
        Format::TarZst => {
            let mut decoder = zstd::Decoder::new(meter.clone()).map_err(unreadable)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(unreadable)?;
            Box::new(decoder)
        }
    };
    // An error that the meter made is the rule it found broken, not a damaged archive.
    let explain = |cause| match meter.broken() {
        Some(rule) => UnpackError::TooMuch { rule },
        None => unreadable(cause),
    };
    let mut archive = tar::Archive::new(Budgeted::new(stream, meter.clone()));
    let mut tree = Tree::new(into, limits);
    let mut entries = archive.entries().map_err(explain)?;
    loop {
        meter.begin_header();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(explain)?;
        meter.begin_content();
        tree.place(&mut entry, &meter, &explain)?;
    }
    meter.finish().map_err(unreadable)
}

fn name(format: Format) -> &'static str {
    match format {
        Format::Tar => "tar",
        Format::TarGz => "tar.gz",
        Format::TarZst => "tar.zst",
    }
}
