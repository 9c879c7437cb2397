//! Looks through an archive that somebody else made, before it is uploaded.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Component, Path};

use tar::EntryType;

use super::pack::{Format, PackError, UNPACKED_BYTES_MAX};
use super::tree::{ENTRIES_MAX, SET_ID, Way, way};

/// Reads the whole archive and refuses what every agent would refuse.
pub(super) fn check(path: &Path, format: Format) -> Result<(), PackError> {
    let broken = |cause| PackError::NotAnArchive { path: path.to_owned(), format, cause };
    let file = File::open(path)
        .map(BufReader::new)
        .map_err(|cause| PackError::Read { path: path.to_owned(), cause })?;
    let stream: Box<dyn Read> = match format {
        Format::Tar => Box::new(file),
        Format::TarGz => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Format::TarZst => Box::new(zstd::Decoder::with_buffer(file).map_err(broken)?),
    };
    let mut archive = tar::Archive::new(stream.take(UNPACKED_BYTES_MAX));
    let (mut count, mut files) = (0, 0);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?.into_owned();
        let target = entry.link_name().map_err(broken)?.map(Cow::into_owned);
        let mode = entry.header().mode().map_err(broken)?;
        if let Some(what) = refusal(&name, entry.header().entry_type(), target.as_deref(), mode) {
            return Err(PackError::Foreign { path: path.to_owned(), entry: name, what });
        }
        // The end of the archive is only reached, and its checksum only checked, by reading it.
        io::copy(&mut entry, &mut io::sink()).map_err(broken)?;
        count += 1;
        files += usize::from(entry.header().entry_type().is_file());
        if count > ENTRIES_MAX {
            return Err(PackError::TooMany { path: path.to_owned(), limit: ENTRIES_MAX });
        }
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(broken)?;
    if rest.limit() == 0 {
        return Err(PackError::TooLarge { path: path.to_owned(), limit: UNPACKED_BYTES_MAX });
    }
    if files == 0 { Err(PackError::Empty(path.to_owned())) } else { Ok(()) }
}

/// Why this entry cannot stay.
fn refusal(name: &Path, kind: EntryType, to: Option<&Path>, mode: u32) -> Option<&'static str> {
    if name.components().any(|part| matches!(part, Component::RootDir | Component::Prefix(_))) {
        return Some("whose path is absolute");
    }
    if name.components().any(|part| part == Component::ParentDir) {
        return Some("whose path has `..`");
    }
    match kind {
        EntryType::Symlink => match to.map(|to| way(name, to)) {
            Some(Way::Inside) => None,
            Some(Way::Winding) => Some("a link with `..` after a name"),
            Some(Way::Outside) | None => Some("a link that leaves the archive"),
        },
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse if mode & SET_ID != 0 => {
            Some("which is set-user-ID or set-group-ID")
        }
        EntryType::Char | EntryType::Block => Some("a device"),
        EntryType::Fifo => Some("a named pipe"),
        _ => None,
    }
}
