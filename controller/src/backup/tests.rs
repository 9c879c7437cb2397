//! What is written is read again; what is not whole is refused, wherever it is broken.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::store::snapshot::Snapshot;

struct Rig {
    dir: TempDir,
    snapshot: Snapshot,
    digest: String,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let ca = rcgen::generate_simple_self_signed(vec!["ca".to_owned()]).unwrap();
        fs::create_dir_all(data.join("identity")).unwrap();
        fs::write(data.join(CA), ca.cert.pem()).unwrap();
        fs::write(data.join(CA_KEY), "the key").unwrap();
        let content = b"an artifact";
        let digest =
            rota_identity::certificate::hex(&<sha2::Sha256 as sha2::Digest>::digest(content));
        let place = artifact_path(&data, &digest);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, content).unwrap();
        let gone = "0".repeat(64);
        let release = |digest: &str| format!(r#"{{"v":1,"digest":"{digest}"}}"#).into_bytes();
        let entries = vec![
            ("/a".to_owned(), b"{\"v\":1}".to_vec()),
            ("/b".to_owned(), vec![0xff, 0, 1]),
            ("/c".to_owned(), Vec::new()),
            ("/releases/shop/1.0.0".to_owned(), release(&digest)),
            ("/releases/shop/1.1.0".to_owned(), release(&gone)),
        ];
        let snapshot = Snapshot { revision: 42, entries, alive: vec!["c1".to_owned()] };
        Self { dir, snapshot, digest }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, passphrase: Option<Passphrase>) -> Result<Head, BackupError> {
        let data = self.path("data");
        let making = Making {
            snapshot: &self.snapshot,
            from: "sqlite:/data".to_owned(),
            made_at: "2026-11-26T06:00:00Z".to_owned(),
            data: Some(&data),
            without_artifacts: false,
            passphrase,
        };
        write(&self.path(name), &making)
    }

    fn refusal(&self, name: &str) -> String {
        let error = Backup::read(&self.path(name)).map(|_| ()).unwrap_err();
        crate::errors::chain(&error)
    }
}

#[test]
fn there_and_back() {
    let rig = Rig::new();
    let head = rig.write("b", None).unwrap();
    assert_eq!((head.revision, head.keys, head.artifacts), (42, 5, 1));
    assert_eq!(head.missing, ["0".repeat(64)], "a release whose artifact is not here is named");
    let mode = fs::metadata(rig.path("b")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let backup = Backup::read(&rig.path("b")).unwrap();
    assert_eq!(backup.head, head);
    assert_eq!(backup.snapshot.entries, rig.snapshot.entries);
    let fresh = rig.path("fresh");
    backup.put_files(&fresh, None).unwrap();
    for name in [CA, CA_KEY] {
        let read = |dir: &str| fs::read(rig.path(dir).join(name)).unwrap();
        assert_eq!(read("fresh"), read("data"), "{name}");
    }
    let mode = fs::metadata(fresh.join(CA_KEY)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(fs::read(artifact_path(&fresh, &rig.digest)).unwrap(), b"an artifact");
    backup.put_files(&fresh, None).unwrap();
    fs::write(fresh.join(CA), "another").unwrap();
    let told = backup.put_files(&fresh, None).unwrap_err().to_string();
    assert!(told.contains("another authority"), "{told}");
}

#[test]
fn a_sealed_key_needs_its_passphrase() {
    let rig = Rig::new();
    rig.write("b", Some(Passphrase::of("correct horse"))).unwrap();
    let raw = fs::read(rig.path("b")).unwrap();
    assert!(!raw.windows(7).any(|window| window == b"the key"), "it does not stand in the file");
    let backup = Backup::read(&rig.path("b")).unwrap();
    let (_, key) = backup.ca.as_ref().unwrap();
    let told = |passphrase: Option<&Passphrase>| {
        Backup::open_key(key, passphrase).map_err(|error| error.to_string())
    };
    assert!(told(None).unwrap_err().contains("--passphrase-file"));
    assert!(told(Some(&Passphrase::of("battery"))).unwrap_err().contains("not the passphrase"));
    assert_eq!(told(Some(&Passphrase::of("correct horse"))).unwrap(), "the key");
}

#[test]
fn whatever_is_broken_is_refused() {
    let rig = Rig::new();
    rig.write("b", None).unwrap();
    let whole = fs::read(rig.path("b")).unwrap();
    // Every 97th byte turned, and every 97th length: all members and all headers have their turn.
    for at in (0..whole.len()).step_by(97) {
        let mut turned = whole.clone();
        turned[at] ^= 0x20;
        fs::write(rig.path("turned"), &turned).unwrap();
        // What nothing depends on is padding and the fields of a header that no one reads.
        if let Ok(backup) = Backup::read(&rig.path("turned")) {
            assert_eq!(backup.snapshot.entries, rig.snapshot.entries, "at {at}");
            backup.put_files(&rig.path(&format!("turned-{at}")), None).unwrap();
            let place = artifact_path(&rig.path(&format!("turned-{at}")), &rig.digest);
            assert_eq!(fs::read(place).unwrap(), b"an artifact", "at {at}");
        }
        fs::write(rig.path("cut"), &whole[..at]).unwrap();
        if at < whole.len() - 1024 {
            rig.refusal("cut");
        }
    }
    fs::write(rig.path("letter"), "a letter to my aunt").unwrap();
    assert!(rig.refusal("letter").contains("cannot be used as a backup"));
    fs::write(rig.path("empty"), "").unwrap();
    assert!(rig.refusal("empty").contains("SHA256SUMS is missing"));
    assert!(rig.refusal("nowhere").contains("No such file"));
}

#[test]
fn nothing_is_overwritten_and_nothing_false_is_kept() {
    let rig = Rig::new();
    fs::write(rig.path("b"), "precious").unwrap();
    let told = rig.write("b", None).unwrap_err().to_string();
    assert!(told.contains("exists already"), "{told}");
    assert_eq!(fs::read(rig.path("b")).unwrap(), b"precious");
    let artifact = artifact_path(&rig.path("data"), &rig.digest);
    fs::write(artifact, "something else").unwrap();
    let told = rig.write("c", None).unwrap_err().to_string();
    assert!(told.contains("has not the digest"), "{told}");
    let left: Vec<_> =
        fs::read_dir(rig.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with('c')), "{left:?}");
}

#[test]
fn a_newer_layout_is_named() {
    let rig = Rig::new();
    let head = br#"{"v":9,"rota":"7.0.0","something":"new"}"#;
    let sum = rota_identity::certificate::hex(&<sha2::Sha256 as sha2::Digest>::digest(head));
    let mut builder = tar::Builder::new(fs::File::create(rig.path("new")).unwrap());
    for (name, content) in [(HEAD, head.to_vec()), (SUMS, format!("{sum}  {HEAD}\n").into_bytes())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, &*content).unwrap();
    }
    builder.finish().unwrap();
    let told = rig.refusal("new");
    assert!(told.contains("layout 9") && told.contains("rota 7.0.0 made it"), "{told}");
}
