//! Reads a backup: all of it is checked before anything of it is used.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rota_identity::certificate::hex;
use rota_identity::write_private;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::{
    ARTIFACTS, BackupError, CA, CA_KEY, CA_SEALED, ENTRIES, HEAD, Head, Line, Passphrase, SUMS,
    Summed, VERSION, artifact_path, file, is_digest, seal,
};
use crate::store::snapshot::Snapshot;

/// Bytes of what is held in memory: all members but artifacts. The state of a large fleet, compressed.
const HELD_BYTES_MAX: u64 = 4 << 30;

/// The authority's key as the backup has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// As it is.
    Open(String),
    /// Under a passphrase.
    Sealed(Vec<u8>),
}

/// A backup whose sums are right.
#[derive(Debug)]
pub struct Backup {
    /// What it says of itself.
    pub head: Head,
    /// The state.
    pub snapshot: Snapshot,
    /// Certificate and key of the authority.
    pub ca: Option<(String, Key)>,
    path: PathBuf,
    /// Where each artifact begins in the file, and its size.
    artifacts: BTreeMap<String, (u64, u64)>,
}

#[derive(Deserialize)]
struct Layout {
    v: u32,
    #[serde(default)]
    rota: String,
}

impl Backup {
    /// Reads and checks all of it.
    pub fn read(path: &Path) -> Result<Self, BackupError> {
        let open = File::open(path).map_err(file("read", path))?;
        let damaged = |why: String| BackupError::Damaged { path: path.to_owned(), why };
        let mut found = Found::default();
        let mut archive = tar::Archive::new(BufReader::new(open));
        let no_tar = |cause: io::Error| damaged(format!("it is no whole tar: {cause}"));
        for member in archive.entries().map_err(no_tar)? {
            found.take(member.map_err(no_tar)?).map_err(damaged)?;
        }
        found.check_sums().map_err(damaged)?;
        let head = found.held.remove(HEAD).ok_or_else(|| damaged(format!("{HEAD} is missing")))?;
        let layout: Layout = serde_json::from_slice(&head)
            .map_err(|cause| damaged(format!("{HEAD} cannot be read: {cause}")))?;
        if layout.v != VERSION {
            let (path, found) = (path.to_owned(), layout.v);
            return Err(BackupError::Newer { path, found, by: layout.rota });
        }
        let head: Head = serde_json::from_slice(&head)
            .map_err(|cause| damaged(format!("{HEAD} cannot be read: {cause}")))?;
        let packed = found.held.remove(ENTRIES);
        let packed = packed.ok_or_else(|| damaged(format!("{ENTRIES} is missing")))?;
        let entries = entries(&packed).map_err(|why| damaged(format!("{ENTRIES}: {why}")))?;
        if entries.len() != head.keys || found.artifacts.len() != head.artifacts {
            return Err(damaged(format!("it has not what {HEAD} says")));
        }
        let snapshot = Snapshot { revision: head.revision, entries, alive: Vec::new() };
        let ca = found.authority().map_err(damaged)?;
        Ok(Self { head, snapshot, ca, path: path.to_owned(), artifacts: found.artifacts })
    }

    /// The authority's key; a sealed one needs its passphrase.
    pub fn open_key(key: &Key, passphrase: Option<&Passphrase>) -> Result<String, BackupError> {
        match (key, passphrase) {
            (Key::Open(key), _) => Ok(key.clone()),
            (Key::Sealed(sealed), Some(passphrase)) => seal::open(sealed, passphrase),
            (Key::Sealed(_), None) => Err(BackupError::Seal(
                "the authority's key is sealed: name the file of its passphrase with \
                 --passphrase-file",
            )),
        }
    }

    /// Refuses a data directory with another authority.
    pub fn check_place(&self, data: &Path) -> Result<(), BackupError> {
        let place = data.join(CA);
        match (&self.ca, fs::read_to_string(&place)) {
            (Some((ours, _)), Ok(there)) if *ours != there => Err(BackupError::AnotherCa(place)),
            (_, Err(cause)) if cause.kind() != io::ErrorKind::NotFound => {
                Err(file("read", &place)(cause))
            }
            (Some(_) | None, Ok(_) | Err(_)) => Ok(()),
        }
    }

    /// Puts authority and artifacts into a data directory; what is there already stays.
    pub fn put_files(
        &self,
        data: &Path,
        passphrase: Option<&Passphrase>,
    ) -> Result<(), BackupError> {
        self.check_place(data)?;
        let folder = |dir: &Path| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(file("make the folder", dir))
        };
        folder(data)?;
        if let Some((pem, key)) = &self.ca
            && !data.join(CA).exists()
        {
            let key = Self::open_key(key, passphrase)?;
            folder(&data.join("identity"))?;
            // As a controller makes them: a key alone has never signed anything.
            for (name, text) in [(CA_KEY, key.as_str()), (CA, pem.as_str())] {
                let path = data.join(name);
                let failed = |cause| file("write", &path)(io::Error::other(cause));
                write_private(&path, text.as_bytes()).map_err(failed)?;
            }
        }
        for (digest, (start, size)) in &self.artifacts {
            let path = artifact_path(data, digest);
            if path.exists() {
                continue;
            }
            let fan = path.parent().map(Path::to_owned).unwrap_or_default();
            folder(&fan)?;
            self.put_artifact(&path, *start, *size)?;
            File::open(&fan).and_then(|fan| fan.sync_all()).map_err(file("sync", &fan))?;
        }
        Ok(())
    }

    fn put_artifact(&self, path: &Path, start: u64, size: u64) -> Result<(), BackupError> {
        let mut from = File::open(&self.path).map_err(file("read", &self.path))?;
        from.seek(SeekFrom::Start(start)).map_err(file("read", &self.path))?;
        let part = path.with_extension("part");
        let failed = file("write", &part);
        let mut to = File::create(&part).map_err(&failed)?;
        io::copy(&mut from.take(size), &mut to).map_err(&failed)?;
        to.flush().and_then(|()| to.sync_all()).map_err(&failed)?;
        fs::rename(&part, path).map_err(file("name", path))
    }
}

/// What was found on the way through the file.
#[derive(Default)]
struct Found {
    /// Members by name, but artifacts.
    held: BTreeMap<String, Vec<u8>>,
    artifacts: BTreeMap<String, (u64, u64)>,
    /// The sums as they are.
    sums: BTreeMap<String, String>,
    /// The sums as they should be; nothing comes behind them.
    told: Option<String>,
}

impl Found {
    fn take(&mut self, mut member: tar::Entry<'_, BufReader<File>>) -> Result<(), String> {
        let name = member.path().map_err(|cause| cause.to_string())?;
        let name = name.to_str().ok_or("a name in it is not text")?.to_owned();
        if self.told.is_some() {
            return Err(format!("{name} stands behind {SUMS}"));
        }
        let (start, size) = (member.raw_file_position(), member.size());
        let short = |cause: io::Error| format!("{name} is cut off: {cause}");
        if let Some(digest) = artifact_of(&name) {
            let mut summed = Summed::new(&mut member);
            io::copy(&mut summed, &mut io::sink()).map_err(short)?;
            let sum = summed.sum();
            self.artifacts.insert(digest.to_owned(), (start, size));
            self.sums.insert(name, sum);
            return Ok(());
        }
        if ![HEAD, ENTRIES, CA, CA_KEY, CA_SEALED, SUMS].contains(&name.as_str()) {
            return Err(format!("it holds {name}, which is not part of a backup"));
        }
        if size > HELD_BYTES_MAX {
            return Err(format!("{name} has {size} bytes"));
        }
        let mut content = Vec::new();
        member.read_to_end(&mut content).map_err(short)?;
        if content.len() as u64 != size {
            return Err(format!("{name} is cut off"));
        }
        if name == SUMS {
            self.told =
                Some(String::from_utf8(content).map_err(|_| format!("{SUMS} is not text"))?);
            return Ok(());
        }
        self.sums.insert(name.clone(), hex(&Sha256::digest(&content)));
        self.held.insert(name, content);
        Ok(())
    }

    fn check_sums(&self) -> Result<(), String> {
        let told = self.told.as_deref();
        let told = told.ok_or_else(|| format!("it is cut off: {SUMS} is missing"))?;
        let told: BTreeMap<&str, &str> =
            told.lines().filter_map(|line| line.split_once("  ")).map(|(s, n)| (n, s)).collect();
        for (name, sum) in &self.sums {
            match told.get(name.as_str()) {
                Some(right) if right == sum => {}
                Some(_) => return Err(format!("{name} has another sum than {SUMS} says")),
                None => return Err(format!("{SUMS} does not know {name}")),
            }
        }
        match told.keys().find(|name| !self.sums.contains_key(**name)) {
            Some(name) => Err(format!("{name} is missing")),
            None => Ok(()),
        }
    }

    fn authority(&mut self) -> Result<Option<(String, Key)>, String> {
        let text = |bytes: Vec<u8>, name| {
            String::from_utf8(bytes).map_err(|_| format!("{name} is not text"))
        };
        let Some(pem) = self.held.remove(CA) else { return Ok(None) };
        let key = match (self.held.remove(CA_KEY), self.held.remove(CA_SEALED)) {
            (Some(key), None) => Key::Open(text(key, CA_KEY)?),
            (None, Some(sealed)) => Key::Sealed(sealed),
            (Some(_), Some(_)) | (None, None) => {
                return Err(format!("{CA} needs either {CA_KEY} or {CA_SEALED}"));
            }
        };
        Ok(Some((text(pem, CA)?, key)))
    }
}

/// The digest in the name of an artifact.
fn artifact_of(name: &str) -> Option<&str> {
    let (fan, digest) = name.strip_prefix(ARTIFACTS)?.split_once('/')?;
    (is_digest(digest) && digest.starts_with(fan) && fan.len() == 2).then_some(digest)
}

fn entries(packed: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let unpacked = zstd::Decoder::new(packed).map_err(|cause| cause.to_string())?;
    let mut entries = Vec::new();
    for (number, line) in BufReader::new(unpacked).lines().enumerate() {
        let number = number + 1;
        let line = line.map_err(|cause| format!("line {number}: {cause}"))?;
        let line: Line =
            serde_json::from_str(&line).map_err(|cause| format!("line {number}: {cause}"))?;
        let value = match (line.value, line.base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => {
                STANDARD.decode(text).map_err(|cause| format!("line {number}: {cause}"))?
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(format!("line {number}: it needs either `value` or `base64`"));
            }
        };
        if !line.key.starts_with('/') {
            return Err(format!("line {number}: `{}` is no key", line.key));
        }
        entries.push((line.key, value));
    }
    Ok(entries)
}
