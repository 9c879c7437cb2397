//! Makes a backup: the state first, then what lies beside it, then what it is and the sums of all; under its name only
//! when it is whole and on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rota_identity::certificate::hex;
use rota_identity::{Fingerprint, tls};
use sha2::{Digest as _, Sha256};

use super::{
    ARTIFACTS, BackupError, CA, CA_KEY, CA_SEALED, ENTRIES, HEAD, Head, Line, Passphrase, SUMS,
    Summed, VERSION, artifact_path, file, is_digest, seal,
};
use crate::store::snapshot::Snapshot;

/// What goes into a backup.
pub struct Making<'a> {
    /// The state.
    pub snapshot: &'a Snapshot,
    /// Where it came from, in words.
    pub from: String,
    /// When, as RFC 3339.
    pub made_at: String,
    /// The data directory, whose authority and artifacts go along.
    pub data: Option<&'a Path>,
    /// Leaves the artifacts out.
    pub without_artifacts: bool,
    /// Seals the authority's key.
    pub passphrase: Option<Passphrase>,
}

/// Writes a backup, and says what is in it. What is at `path` stays as it is.
pub fn write(path: &Path, making: &Making<'_>) -> Result<Head, BackupError> {
    if path.exists() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let part = part_of(path);
    let done = write_part(&part, making).and_then(|head| {
        fs::rename(&part, path).map_err(file("name the backup", path))?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(file("sync", dir))?;
        Ok(head)
    });
    if done.is_err()
        && let Err(cause) = fs::remove_file(&part)
    {
        tracing::debug!(%cause, part = %part.display(), "a half backup stays");
    }
    done
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    PathBuf::from(name)
}

fn write_part(part: &Path, making: &Making<'_>) -> Result<Head, BackupError> {
    let open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(part);
    let failed = file("write", part);
    let mut tar = Tar {
        builder: tar::Builder::new(BufWriter::new(open.map_err(&failed)?)),
        path: part,
        sums: String::new(),
    };
    tar.add(ENTRIES, &entries(making.snapshot).map_err(&failed)?)?;
    let ca = making.data.map(authority).transpose()?.flatten();
    if let Some((pem, key)) = &ca {
        tar.add(CA, pem.as_bytes())?;
        match &making.passphrase {
            Some(passphrase) => tar.add(CA_SEALED, &seal::seal(key, passphrase)?)?,
            None => tar.add(CA_KEY, key.as_bytes())?,
        }
    }
    let mut here = Vec::new();
    let wanted = making.data.filter(|_| !making.without_artifacts);
    for digest in wanted.map(kept_artifacts).transpose()?.into_iter().flatten() {
        // One that was removed since it was listed is nobody's any more.
        if let Some(data) = wanted
            && tar.add_artifact(data, &digest)?
        {
            here.push(digest);
        }
    }
    let releases = artifacts_of(making.snapshot).into_iter().filter(|_| wanted.is_some());
    let missing = releases.filter(|digest| !here.contains(digest)).collect();
    let fingerprint = |pem: &str| tls::certificates("CA", pem).ok()?.first().map(Fingerprint::of);
    let head = Head {
        v: VERSION,
        rota: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: making.made_at.clone(),
        from: making.from.clone(),
        revision: making.snapshot.revision,
        keys: making.snapshot.entries.len(),
        ca: ca.as_ref().and_then(|(pem, _)| fingerprint(pem)).map(|print| hex(&print.0)),
        artifacts: here.len(),
        missing,
    };
    tar.add(HEAD, &serde_json::to_vec_pretty(&head).map_err(|e| failed(e.into()))?)?;
    tar.finish()?;
    Ok(head)
}

/// The keys, one a line, compressed.
fn entries(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut packed = zstd::Encoder::new(Vec::new(), 3)?;
    for (key, value) in &snapshot.entries {
        let (value, base64) = match std::str::from_utf8(value) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(STANDARD.encode(value))),
        };
        serde_json::to_writer(&mut packed, &Line { key: key.clone(), value, base64 })?;
        packed.write_all(b"\n")?;
    }
    packed.finish()
}

/// The digests of the artifacts of all releases.
fn artifacts_of(snapshot: &Snapshot) -> Vec<String> {
    let releases = snapshot.entries.iter().filter(|(key, _)| key.starts_with("/releases/"));
    let digest = |(_, value): &(String, Vec<u8>)| {
        let record: serde_json::Value = serde_json::from_slice(value).ok()?;
        let digest = record.get("digest")?.as_str()?;
        is_digest(digest).then(|| digest.to_owned())
    };
    let mut digests: Vec<String> = releases.filter_map(digest).collect();
    digests.sort();
    digests.dedup();
    digests
}

/// The digests of the artifacts that lie in a data directory, in order.
fn kept_artifacts(data: &Path) -> Result<Vec<String>, BackupError> {
    let root = data.join(ARTIFACTS);
    let mut digests = Vec::new();
    for fan in list(&root)? {
        digests.extend(list(&fan)?.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            is_digest(name).then(|| name.to_owned())
        }));
    }
    digests.sort();
    Ok(digests)
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, BackupError> {
    match fs::read_dir(dir) {
        Ok(found) => found
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()
            .map_err(file("list", dir)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(file("list", dir)(cause)),
    }
}

/// Certificate and key of the authority; `None`: there is none.
fn authority(data: &Path) -> Result<Option<(String, String)>, BackupError> {
    let read = |name: &str| {
        let path = data.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(file("read", &path)(cause)),
        }
    };
    Ok(read(CA)?.zip(read(CA_KEY)?))
}

/// The file as it grows.
struct Tar<'a> {
    builder: tar::Builder<BufWriter<File>>,
    path: &'a Path,
    sums: String,
}

impl Tar<'_> {
    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), BackupError> {
        self.put(name, content.len() as u64, content)?;
        self.note(name, &hex(&Sha256::digest(content)));
        Ok(())
    }

    /// An artifact, whose name is its sum; `false`: it is gone.
    fn add_artifact(&mut self, data: &Path, digest: &str) -> Result<bool, BackupError> {
        let path = artifact_path(data, digest);
        let open = match File::open(&path) {
            Ok(open) => open,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(cause) => return Err(file("read", &path)(cause)),
        };
        let size = open.metadata().map_err(file("read", &path))?.len();
        let mut summed = Summed::new(open.take(size));
        let name = format!("{ARTIFACTS}{}/{digest}", &digest[..2]);
        self.put(&name, size, &mut summed)?;
        if summed.sum() != digest {
            return Err(BackupError::Spoiled(path));
        }
        self.note(&name, digest);
        Ok(true)
    }

    fn put(&mut self, name: &str, size: u64, content: impl Read) -> Result<(), BackupError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_cksum();
        let put = self.builder.append_data(&mut header, name, content);
        put.map_err(file("write", self.path))
    }

    fn note(&mut self, name: &str, sum: &str) {
        self.sums += &format!("{sum}  {name}\n");
    }

    fn finish(mut self) -> Result<(), BackupError> {
        let sums = std::mem::take(&mut self.sums);
        self.put(SUMS, sums.len() as u64, sums.as_bytes())?;
        let failed = file("write", self.path);
        let buffered = self.builder.into_inner().map_err(&failed)?;
        let written = buffered.into_inner().map_err(|error| failed(error.into_error()))?;
        written.sync_all().map_err(failed)
    }
}
