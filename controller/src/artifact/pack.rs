//! Makes the one file that is uploaded. The same content gives the same bytes and the same digest.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use rota_rollout::names::Digest;
use sha2::{Digest as _, Sha256};

use super::contents;
pub use super::error::PackError;
use super::tree::{self, Entry, Kind};
use crate::manifest::Artifact;

/// How hard zstd tries: its own default, as fast as a disk writes.
const ZSTD_LEVEL: i32 = 3;

/// The largest artifact, unpacked: as much as an agent accepts by default.
pub const UNPACKED_BYTES_MAX: u64 = 8 << 30;

/// Bytes that are read at once.
const READ_BYTES: usize = 128 * 1024;

/// An artifact, ready to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The archive.
    pub path: PathBuf,
    /// Its SHA-256.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// How it is packed.
    pub format: Format,
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Plain.
    Tar,
    /// With gzip.
    TarGz,
    /// With zstd.
    TarZst,
}

impl Format {
    /// As a file's name says.
    pub fn of_name(name: &str) -> Option<Self> {
        if name.ends_with(".tar.zst") {
            Some(Self::TarZst)
        } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
            Some(Self::TarGz)
        } else {
            name.ends_with(".tar").then_some(Self::Tar)
        }
    }

    /// As the wire writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::TarGz => "tar.gz",
            Self::TarZst => "tar.zst",
        }
    }
}

/// Makes an uploadable file of an artifact with `path`, relative to the manifest's folder `base`.
/// A folder is packed into `out`; an archive is checked and taken as it is.
pub fn pack(artifact: &Artifact, base: &Path, out: &Path) -> Result<Packed, PackError> {
    let given = match artifact {
        Artifact::Path(given) => given,
        Artifact::Url { .. } => return Err(PackError::NotAPath("url")),
        Artifact::Image(_) => return Err(PackError::NotAPath("image")),
    };
    match look(given, base)? {
        Found::Folder(path) => pack_folder(&path, out),
        Found::File(path) => inspect(&path),
    }
}

/// What an artifact's `path` leads to.
#[derive(Debug)]
enum Found {
    /// To be packed.
    Folder(PathBuf),
    /// An archive, if it is any good.
    File(PathBuf),
}

/// Looks for an artifact with `path`, relative to the manifest's folder `base`.
fn look(given: &str, base: &Path) -> Result<Found, PackError> {
    let path = base.join(given);
    let meta = fs::metadata(&path).map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => {
            PackError::Missing { given: given.to_owned(), path: path.clone() }
        }
        _ => PackError::Read { path: path.clone(), cause },
    })?;
    if meta.is_dir() {
        Ok(Found::Folder(path))
    } else if meta.is_file() {
        Ok(Found::File(path))
    } else {
        Err(PackError::Neither(path))
    }
}

/// Would [`pack`] take an artifact with `path`? Nothing is written.
pub fn check(given: &str, base: &Path) -> Result<(), PackError> {
    match look(given, base)? {
        Found::Folder(path) => check_content(&path, &tree::walk(&path)?),
        Found::File(path) => inspect(&path).map(drop),
    }
}

fn pack_folder(root: &Path, out: &Path) -> Result<Packed, PackError> {
    let entries = tree::walk(root)?;
    check_content(root, &entries)?;
    let part = out.join(format!("{}.part", std::process::id()));
    let written = write_archive(root, &entries, &part).and_then(|(digest, size)| {
        let path = out.join(format!("{digest}.tar.zst"));
        let cause = |cause| PackError::Write { path: path.clone(), cause };
        fs::rename(&part, &path).map_err(cause)?;
        Ok(Packed { path, digest, size, format: Format::TarZst })
    });
    if written.is_err()
        && let Err(cause) = fs::remove_file(&part)
        && cause.kind() != io::ErrorKind::NotFound
    {
        // The first error says more; what is left lies in a folder for temporary files.
        tracing::debug!(%cause, part = %part.display(), "cannot remove a half-made archive");
    }
    written
}

fn check_content(root: &Path, entries: &[Entry]) -> Result<(), PackError> {
    let size = |entry: &Entry| match entry.kind {
        Kind::File { size } => size,
        Kind::Folder | Kind::Link { .. } => 0,
    };
    if !entries.iter().any(|entry| matches!(entry.kind, Kind::File { .. })) {
        return Err(PackError::Empty(root.to_owned()));
    }
    if entries.iter().map(size).fold(0, u64::saturating_add) > UNPACKED_BYTES_MAX {
        return Err(PackError::TooLarge { path: root.to_owned(), limit: UNPACKED_BYTES_MAX });
    }
    Ok(())
}

/// Writes the archive and returns its digest and size.
fn write_archive(root: &Path, entries: &[Entry], part: &Path) -> Result<(Digest, u64), PackError> {
    let deed = |cause| PackError::Write { path: part.to_owned(), cause };
    let file = File::create(part).map_err(deed)?;
    let hashed = Hashed::new(BufWriter::new(file));
    let mut zstd = zstd::Encoder::new(hashed, ZSTD_LEVEL).map_err(deed)?;
    zstd.include_checksum(true).map_err(deed)?;
    let mut tar = tar::Builder::new(zstd);
    for entry in entries {
        append(&mut tar, root, entry, part)?;
    }
    let mut hashed = tar.into_inner().and_then(zstd::Encoder::finish).map_err(deed)?;
    hashed.flush().map_err(deed)?;
    hashed.finish().map_err(deed)
}

/// Adds one entry. What differs between two builds of the same content is left out: times, owners.
fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    root: &Path,
    entry: &Entry,
    part: &Path,
) -> Result<(), PackError> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(entry.mode);
    header.set_size(0);
    let written = match &entry.kind {
        Kind::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            let mut path = entry.path.clone().into_os_string();
            path.push("/");
            tar.append_data(&mut header, path, io::empty())
        }
        Kind::Link { to } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            tar.append_link(&mut header, &entry.path, to)
        }
        Kind::File { size } => {
            header.set_size(*size);
            let full = root.join(&entry.path);
            let mut reader = Exactly { inner: tree::open(&full, *size)?.take(*size), left: *size };
            tar.append_data(&mut header, &entry.path, &mut reader)
        }
    };
    written.map_err(|cause| PackError::Write { path: part.to_owned(), cause })
}

/// A file that must give as many bytes as its header promised.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.left = self.left.saturating_sub(read as u64);
        if read == 0 && self.left > 0 && !into.is_empty() {
            return Err(io::Error::other("a file became shorter while it was packed"));
        }
        Ok(read)
    }
}

/// Checks an archive that is there already: it can be read to its end, and holds nothing that an
/// agent would refuse. It stays as it is.
pub fn inspect(path: &Path) -> Result<Packed, PackError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let format = Format::of_name(&name).ok_or_else(|| PackError::Ending(path.to_owned()))?;
    contents::check(path, format)?;
    let deed = |cause| PackError::Read { path: path.to_owned(), cause };
    let mut file = File::open(path).map_err(deed)?;
    let mut hashed = Hashed::new(io::sink());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer).map_err(deed)? {
            0 => break,
            read => hashed.write_all(&buffer[..read]).map_err(deed)?,
        }
    }
    let (digest, size) = hashed.finish().map_err(deed)?;
    Ok(Packed { path: path.to_owned(), digest, size, format })
}

/// Counts and hashes what is written through it.
pub(super) struct Hashed<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, hash: Sha256::new(), size: 0 }
    }

    pub(super) fn finish(self) -> io::Result<(Digest, u64)> {
        let hex: String = self.hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((Digest::try_from(hex).map_err(io::Error::other)?, self.size))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
