//! What is in an archive, file by file, without unpacking it: to compare two releases.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Format;
use crate::view::{FileChange, FilesView};

/// Files of an archive that are compared. What has more is not looked through while somebody waits.
pub const FILES_MAX: usize = 20_000;

/// Bytes, unpacked, of an archive that is compared: a few seconds of reading.
pub const BYTES_MAX: u64 = 1 << 30;

/// Bytes that are read at once.
const READ_BYTES: usize = 128 * 1024;

/// Changes that are named; the others are counted.
const CHANGES_NAMED: usize = 20;

/// One file or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its bytes.
    pub size: u64,
    /// SHA-256 of its content, of a link's target, and of its permissions.
    pub digest: String,
}

/// Everything in an archive, by path.
pub type Listing = BTreeMap<String, Listed>;

/// Reads an archive through. `Err`: why it is not compared.
pub fn list(path: &Path, format: Format) -> Result<Listing, String> {
    let broken = |cause: io::Error| format!("the archive cannot be read: {cause}");
    let file = BufReader::new(File::open(path).map_err(broken)?);
    let stream: Box<dyn Read> = match format {
        Format::Tar => Box::new(file),
        Format::TarGz => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        Format::TarZst => Box::new(zstd::Decoder::with_buffer(file).map_err(broken)?),
    };
    let too_large = || format!("an archive has more than {} MiB unpacked", BYTES_MAX >> 20);
    let mut archive = tar::Archive::new(stream.take(BYTES_MAX));
    let mut found = Listing::new();
    let mut bytes = 0;
    let mut buffer = vec![0; READ_BYTES];
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(|cause| match bytes + 1024 * 1024 > BYTES_MAX {
            true => too_large(),
            false => broken(cause),
        })?;
        bytes += entry.size();
        if bytes > BYTES_MAX {
            return Err(too_large());
        }
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let name = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        let mut hash = Sha256::new();
        hash.update(entry.header().mode().map_err(broken)?.to_le_bytes());
        if let Some(link) = entry.link_name_bytes() {
            hash.update(link.as_ref());
        }
        let mut size = 0;
        loop {
            let read = entry.read(&mut buffer).map_err(broken)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            size += read as u64;
        }
        let digest: String =
            hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        found.insert(name.trim_start_matches("./").to_owned(), Listed { size, digest });
        if found.len() > FILES_MAX {
            return Err(format!("an archive has more than {FILES_MAX} files"));
        }
    }
    Ok(found)
}

/// What is different in the second.
pub fn compare(old: &Listing, new: &Listing) -> FilesView {
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort();
    paths.dedup();
    let differ: Vec<&String> =
        paths.into_iter().filter(|path| old.get(*path) != new.get(*path)).collect();
    let change = |path: &&String| FileChange {
        path: (*path).clone(),
        old: old.get(*path).map(|file| file.size),
        new: new.get(*path).map(|file| file.size),
    };
    FilesView {
        changed: differ.iter().take(CHANGES_NAMED).map(change).collect(),
        total: differ.len(),
        not_compared: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str, u32)]) -> Listing {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        for (name, text, mode) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(*mode);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().sync_all().unwrap();
        list(&path, Format::Tar).unwrap()
    }

    #[test]
    fn what_two_archives_differ_in() {
        let old = archive(&[("a", "same", 0o644), ("b", "old", 0o644), ("c", "gone", 0o644)]);
        let new = archive(&[("a", "same", 0o644), ("b", "newer", 0o644), ("d", "", 0o755)]);
        let told = |view: FilesView| {
            let told = |it: &FileChange| format!("{} {:?} {:?}", it.path, it.old, it.new);
            view.changed.iter().map(told).collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told(compare(&old, &new)), "b Some(3) Some(5); c Some(4) None; d None Some(0)");
        assert_eq!(compare(&old, &old), FilesView::default());
        let executable = archive(&[("a", "same", 0o755)]);
        assert_eq!(compare(&archive(&[("a", "same", 0o644)]), &executable).total, 1);
    }

    #[test]
    fn what_is_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.gz");
        std::fs::write(&path, "no gzip").unwrap();
        assert!(list(&path, Format::TarGz).unwrap_err().starts_with("the archive cannot be read"));
    }
}
