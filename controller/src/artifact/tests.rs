//! What is packed, what is refused, and that the same content has the same digest.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::pack::{Format, PackError, Packed, pack};
use crate::manifest::Artifact;

/// Makes a tree of `PATH` (folder when it ends with `/`), `PATH=content` and `PATH->target`.
fn plant(root: &Path, entries: &[&str]) {
    fs::create_dir_all(root).unwrap();
    for entry in entries {
        let path = |text: &str| {
            let path = root.join(text);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            path
        };
        if let Some((link, to)) = entry.split_once("->") {
            symlink(to, path(link)).unwrap();
        } else if let Some((file, content)) = entry.split_once('=') {
            let file = path(file);
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        } else {
            fs::create_dir_all(root.join(entry)).unwrap();
        }
    }
    for folder in walk(root) {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The root and all folders in it.
fn walk(root: &Path) -> Vec<std::path::PathBuf> {
    let mut folders = vec![root.to_owned()];
    for item in fs::read_dir(root).unwrap() {
        let item = item.unwrap();
        if item.file_type().unwrap().is_dir() {
            folders.extend(walk(&item.path()));
        }
    }
    folders
}

fn pack_dist(base: &Path) -> Result<Packed, PackError> {
    let out = base.join("out");
    fs::create_dir_all(&out).unwrap();
    pack(&Artifact::Path("dist".to_owned()), base, &out)
}

/// The entries of a `.tar.zst`: kind, mode, time, owner, path, target.
fn listing(packed: &Packed) -> Vec<String> {
    let file = fs::File::open(&packed.path).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(file).unwrap());
    let line = |entry: tar::Entry<'_, _>| {
        let (header, path) = (entry.header(), entry.path().unwrap().display().to_string());
        let to = entry.link_name().unwrap().map(|to| format!(" -> {}", to.display()));
        format!(
            "{:?} {:o} {} {}:{} {path}{}",
            header.entry_type(),
            header.mode().unwrap(),
            header.mtime().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            to.unwrap_or_default()
        )
    };
    archive.entries().unwrap().map(|entry| line(entry.unwrap())).collect()
}

#[test]
fn the_same_content_has_the_same_digest() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = format!("{}/{}=x", "d".repeat(90), "f".repeat(90));
    let content = ["shop=#!/bin/sh\n", "web/a.css=a", "web-b/c=c", "now->web", "empty/", &long];
    plant(&one.path().join("dist"), &content);
    let reversed: Vec<&str> = content.iter().rev().copied().collect();
    plant(&two.path().join("dist"), &reversed);
    let shop = fs::File::options().write(true).open(two.path().join("dist/shop")).unwrap();
    shop.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();

    let (one_packed, two_packed) = (pack_dist(one.path()).unwrap(), pack_dist(two.path()).unwrap());
    assert_eq!(one_packed.digest, two_packed.digest);
    assert_eq!(one_packed.size, fs::metadata(&one_packed.path).unwrap().len());
    assert_eq!(one_packed.format, Format::TarZst);
    // The name says what it is, and nothing half-made lies beside it.
    let names: Vec<_> = fs::read_dir(one.path().join("out")).unwrap().map(Result::unwrap).collect();
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].file_name().to_str().unwrap(), format!("{}.tar.zst", one_packed.digest));

    // Packed again, and inspected as an archive: still the same.
    assert_eq!(pack_dist(one.path()).unwrap(), one_packed);
    let as_archive = Artifact::Path(one_packed.path.display().to_string());
    assert_eq!(pack(&as_archive, one.path(), one.path()).unwrap(), one_packed);

    fs::write(two.path().join("dist/web/a.css"), "b").unwrap();
    assert_ne!(pack_dist(two.path()).unwrap().digest, one_packed.digest);
}

#[test]
fn what_an_archive_holds() {
    let base = tempfile::tempdir().unwrap();
    let dist = base.path().join("dist");
    plant(&dist, &["b/shop=x", "b/now->../a", "a=y", "b-c=z"]);
    fs::set_permissions(dist.join("b/shop"), fs::Permissions::from_mode(0o755)).unwrap();
    let packed = pack_dist(base.path()).unwrap();
    assert_eq!(
        listing(&packed),
        [
            "Regular 644 0 0:0 a",
            "Directory 755 0 0:0 b/",
            "Regular 644 0 0:0 b-c",
            "Symlink 777 0 0:0 b/now -> ../a",
            "Regular 755 0 0:0 b/shop",
        ]
    );
}

#[test]
fn what_is_refused() {
    for (entries, expected) in [
        (&["a/"][..], "`artifact.path`: BASE/dist is empty; was the app built?"),
        (&[], "`artifact.path`: BASE/dist is empty; was the app built?"),
        (
            &["f=x", "a/l->../../etc"],
            "the link BASE/dist/a/l leads to ../../etc, outside the artifact",
        ),
        (
            &["f=x", "l->/etc/passwd"],
            "the link BASE/dist/l leads to /etc/passwd, outside the artifact",
        ),
        (
            &["d/f=x", "l->d/../d/f"],
            "the link BASE/dist/l leads to d/../d/f, with `..` after a name; \
             write the target without the detour",
        ),
    ] {
        let base = tempfile::tempdir().unwrap();
        plant(&base.path().join("dist"), entries);
        check_refused(base.path(), expected);
    }
}

#[test]
fn what_is_no_file() {
    let base = tempfile::tempdir().unwrap();
    let dist = base.path().join("dist");
    check_refused(
        base.path(),
        "`artifact.path` in the manifest is \"dist\", and BASE/dist does not exist",
    );
    plant(&dist, &["f=x"]);
    let socket = std::os::unix::net::UnixListener::bind(dist.join("s")).unwrap();
    check_refused(
        base.path(),
        "BASE/dist/s is a socket: an artifact holds files, folders and links",
    );
    drop(socket);
    fs::remove_file(dist.join("s")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, dist.join("p"), mode).unwrap();
    check_refused(
        base.path(),
        "BASE/dist/p is a named pipe: an artifact holds files, folders and links",
    );
    fs::remove_file(dist.join("p")).unwrap();
    fs::set_permissions(dist.join("f"), fs::Permissions::from_mode(0o4755)).unwrap();
    check_refused(
        base.path(),
        "BASE/dist/f is set-user-ID or set-group-ID; remove that with `chmod ug-s`",
    );
}

fn check_refused(base: &Path, expected: &str) {
    let error = pack_dist(base).unwrap_err().to_string();
    assert_eq!(error.replace(&base.display().to_string(), "BASE"), expected);
    assert_eq!(fs::read_dir(base.join("out")).unwrap().count(), 0, "something was left behind");
}

/// An archive with these entries: path, kind, mode, target.
fn archive(entries: &[(&str, tar::EntryType, u32, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, mode, to) in entries {
        let mut header = tar::Header::new_gnu();
        // Written into the header by hand: the builder itself refuses hostile paths.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..to.len()].copy_from_slice(to.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_size(0);
        header.set_cksum();
        tar.append(&header, std::io::empty()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn archives_that_are_there_already() {
    use tar::EntryType::{Char, Directory, Regular, Symlink};
    let base = tempfile::tempdir().unwrap();
    let good = archive(&[("./", Directory, 0o755, ""), ("./shop", Regular, 0o755, "")]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&good).unwrap();
    let gz = gz.finish().unwrap();
    let zst = zstd::encode_all(&good[..], 1).unwrap();
    let ok = |name: &str| Ok(name.to_owned());
    let bad = |text: &str| Err(text.to_owned());
    for (name, bytes, expected) in [
        ("a.tar", good.clone(), ok("tar")),
        ("a.tar.gz", gz.clone(), ok("tar.gz")),
        ("a.tgz", gz.clone(), ok("tar.gz")),
        ("a.tar.zst", zst.clone(), ok("tar.zst")),
        (
            "a.zip",
            good.clone(),
            bad("`artifact.path`: BASE/a.zip is not .tar, .tar.gz, .tgz or .tar.zst"),
        ),
        ("b.tar.gz", zst.clone(), bad("BASE/b.tar.gz cannot be read as tar.gz")),
        ("b.tar", b"hello".to_vec(), bad("BASE/b.tar cannot be read as tar")),
        (
            "b.tar.zst",
            zst[..zst.len() - 3].to_vec(),
            bad("BASE/b.tar.zst cannot be read as tar.zst"),
        ),
        ("c.tgz", gz[..gz.len() - 9].to_vec(), bad("BASE/c.tgz cannot be read as tar.gz")),
        ("c.tar", archive(&[]), bad("`artifact.path`: BASE/c.tar is empty; was the app built?")),
        (
            "d.tar",
            archive(&[("../x", Regular, 0o644, "")]),
            bad("BASE/d.tar contains `../x`, whose path has `..`"),
        ),
        (
            "e.tar",
            archive(&[("/x", Regular, 0o644, "")]),
            bad("BASE/e.tar contains `/x`, whose path is absolute"),
        ),
        (
            "f.tar",
            archive(&[("x", Regular, 0o4755, "")]),
            bad("BASE/f.tar contains `x`, which is set-user-ID or set-group-ID"),
        ),
        (
            "g.tar",
            archive(&[("x", Symlink, 0o777, "../y")]),
            bad("BASE/g.tar contains `x`, a link that leaves the archive"),
        ),
        ("h.tar", archive(&[("x", Char, 0o666, "")]), bad("BASE/h.tar contains `x`, a device")),
    ] {
        fs::write(base.path().join(name), bytes).unwrap();
        let packed = pack(&Artifact::Path(name.to_owned()), base.path(), base.path());
        let result = packed
            .map(|packed| packed.format.as_str().to_owned())
            .map_err(|error| error.to_string().replace(&base.path().display().to_string(), "BASE"));
        assert_eq!(result, expected, "{name}");
    }
}

#[test]
fn other_artifacts_are_not_packed_here() {
    let error = pack(&Artifact::Image("shop:1".to_owned()), Path::new("/"), Path::new("/"));
    assert_eq!(
        error.unwrap_err().to_string(),
        "an artifact with `image` is not packed here: only one with `path` is"
    );
}
