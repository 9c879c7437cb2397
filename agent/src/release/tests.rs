//! Releases from download to removal, and archives that mean harm.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::*;
use crate::health::chain;
use crate::journal::hex;
use crate::spec::{Check, Driver, Format, Health, Hooks, OnDrainTimeout, Port, Run, Traffic, Via};

fn spec(version: &str, artifact: &[u8], format: Format) -> Spec {
    let second = Duration::from_secs(1);
    Spec {
        app: "shop".into(),
        env: "prod".into(),
        version: version.into(),
        digest: hex(&Sha256::digest(artifact)),
        size: artifact.len() as u64,
        format,
        run: Run {
            driver: Driver::Exec,
            command: vec!["./shop".into()],
            user: None,
            env: BTreeMap::new(),
            env_file: None,
            port: Port::None,
            stop_signal: 15,
            stop_timeout: second,
            notify: false,
            socket: false,
            limits: crate::spec::Limits::default(),
        },
        health: Health {
            check: Check::Alive,
            interval: second,
            timeout: second,
            healthy_for: Duration::ZERO,
            deadline: second,
        },
        traffic: Traffic {
            via: Via::None,
            drain_timeout: second,
            on_drain_timeout: OnDrainTimeout::Cut,
            edges: Default::default(),
        },
        smoke: Vec::new(),
        hooks: Hooks::default(),
        image: None,
    }
}

/// One entry, with exactly these bytes in its name fields: nothing of the tar crate's own caution.
fn entry(kind: EntryType, name: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    let raw = header.as_ustar_mut().expect("ustar");
    raw.name[..name.len()].copy_from_slice(name);
    raw.linkname[..link.len()].copy_from_slice(link);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(EntryType::Regular, name.as_bytes(), b"", 0o644, content.as_bytes())
}

fn link(name: &str, target: &str) -> Vec<u8> {
    entry(EntryType::Symlink, name.as_bytes(), target.as_bytes(), 0o777, b"")
}

fn hard(name: &str, target: &str) -> Vec<u8> {
    entry(EntryType::Link, name.as_bytes(), target.as_bytes(), 0o644, b"")
}

fn special(kind: EntryType) -> Vec<u8> {
    entry(kind, b"it", b"", 0o644, b"")
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

struct Node {
    folder: tempfile::TempDir,
    releases: Releases,
}

impl Node {
    fn new() -> Node {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("makes it");
        fs::write(folder.path().join("outside"), "untouched").expect("writes");
        let releases = Releases::new(&data);
        Node { folder, releases }
    }

    async fn fetch(&self, spec: &Spec, artifact: &[u8]) {
        let mut partial = self.releases.partial(spec).await.expect("opens");
        let from = usize::try_from(partial.have()).expect("small");
        partial.append(Bytes::copy_from_slice(&artifact[from..])).await.expect("appends");
        partial.finish().await.expect("is right");
    }

    async fn install(&self, version: &str, artifact: &[u8]) -> Spec {
        let spec = spec(version, artifact, Format::Tar);
        self.fetch(&spec, artifact).await;
        self.releases.install(&spec).await.expect("installs");
        spec
    }

    /// Everything below `releases`, as `find` would print it.
    fn tree(&self) -> Vec<String> {
        fn walk(root: &Path, at: &Path, found: &mut Vec<String>) {
            let Ok(listing) = fs::read_dir(at) else { return };
            for entry in listing {
                let path = entry.expect("lists").path();
                found.push(path.strip_prefix(root).expect("is below").display().to_string());
                if fs::symlink_metadata(&path).expect("is there").is_dir() {
                    walk(root, &path, found);
                }
            }
        }
        let root = self.releases.app_folder("shop").join("releases");
        let mut found = Vec::new();
        walk(&root, &root, &mut found);
        found.sort();
        found
    }

    /// Nothing was written beside the data folder, and nothing half done is left in it.
    #[track_caller]
    fn assert_untouched(&self, what: &str) {
        let outside = fs::read_to_string(self.folder.path().join("outside")).expect("is there");
        assert_eq!(outside, "untouched", "{what}");
        let beside = fs::read_dir(self.folder.path()).expect("lists").count();
        assert_eq!(beside, 2, "{what}: nothing new beside the data folder");
        assert_eq!(self.tree(), [""; 0], "{what}");
    }
}

async fn refused(entries: &[Vec<u8>]) -> String {
    refused_with(entries, Limits::default()).await
}

async fn refused_with(entries: &[Vec<u8>], limits: Limits) -> String {
    let mut node = Node::new();
    node.releases = node.releases.with_limits(limits);
    let artifact = archive(entries);
    let spec = spec("1.0.0", &artifact, Format::Tar);
    node.fetch(&spec, &artifact).await;
    let error = node.releases.install(&spec).await.expect_err("hostile");
    node.assert_untouched(&error.to_string());
    assert!(!node.releases.is_installed(&spec));
    chain(&error).replace("cannot unpack shop 1.0.0: ", "")
}

#[tokio::test]
async fn paths_and_links_that_leave_the_release_are_refused() {
    let absolute = format!("/{}", "tmp/rota-test-absolute");
    let rows: Vec<(Vec<Vec<u8>>, String)> = vec![
        (vec![file("../outside", "x")], "`../outside` is refused: its path has `..`".into()),
        (
            vec![file("a/../../outside", "x")],
            "`a/../../outside` is refused: its path has `..`".into(),
        ),
        (vec![file(&absolute, "x")], format!("`{absolute}` is refused: its path is absolute")),
        (
            vec![link("a", "../../../../../outside")],
            "`a` is refused: it is a link to `../../../../../outside`, which leaves the release"
                .into(),
        ),
        (
            vec![link("d/a", "../..")],
            "`d/a` is refused: it is a link to `../..`, which leaves the release".into(),
        ),
        (
            vec![link("a", "/etc/passwd")],
            "`a` is refused: it is a link to `/etc/passwd`, which is absolute".into(),
        ),
        (
            // s is the root, so s/.. would be outside: both targets look harmless letter by letter.
            vec![link("t", "d/s/.."), link("d/s", "..")],
            "`t` is refused: it is a link to `d/s/..`, which has `..` after a name".into(),
        ),
        (
            vec![file("d/x", ""), link("a", "d"), file("a/file", "x")],
            "`a/file` is refused: it lies below `a`, which is a link".into(),
        ),
        (
            vec![file("d/x", ""), link("a", "d"), file("a/b/c/file", "x")],
            "`a/b/c/file` is refused: it lies below `a`, which is a link".into(),
        ),
        (
            vec![link("a", "d"), entry(EntryType::Directory, b"a", b"", 0o755, b"")],
            "`a` is refused: there is a file or link of that name already".into(),
        ),
        (
            vec![file("a", ""), file("a/b", "")],
            "`a/b` is refused: it lies below `a`, which is a file".into(),
        ),
        (
            vec![file("a/b", ""), file("a", "")],
            "`a` is refused: there is a folder of that name already".into(),
        ),
    ];
    check_refused(rows).await;
    assert!(!Path::new(&absolute).exists());
}

#[tokio::test]
async fn hard_links_devices_and_special_bits_are_refused() {
    let rows: Vec<(Vec<Vec<u8>>, String)> = vec![
        (
            vec![hard("a", "../outside")],
            "`a` is refused: it is a hard link to `../outside`, which is no file of this archive"
                .into(),
        ),
        (
            vec![hard("a", "/etc/passwd")],
            "`a` is refused: it is a hard link to `/etc/passwd`, which is no file of this archive"
                .into(),
        ),
        (
            vec![file("d/f", ""), link("l", "d"), hard("a", "l/f")],
            "`a` is refused: it is a hard link to `l/f`, which is no file of this archive".into(),
        ),
        (
            vec![special(EntryType::Char)],
            "`it` is refused: it is a character device; only files, folders and links are allowed"
                .into(),
        ),
        (
            vec![special(EntryType::Block)],
            "`it` is refused: it is a block device; only files, folders and links are allowed"
                .into(),
        ),
        (
            vec![special(EntryType::Fifo)],
            "`it` is refused: it is a fifo; only files, folders and links are allowed".into(),
        ),
        (
            vec![special(EntryType::new(b'Z'))],
            "`it` is refused: it is a special entry; only files, folders and links are allowed"
                .into(),
        ),
        (
            vec![entry(EntryType::Regular, b"su", b"", 0o4755, b"")],
            "`su` is refused: its mode 4755 has setuid, setgid or the sticky bit".into(),
        ),
        (
            vec![entry(EntryType::Directory, b"d/", b"", 0o2755, b"")],
            "`d/` is refused: its mode 2755 has setuid, setgid or the sticky bit".into(),
        ),
        (vec![file("", "x")], "`` is refused: its path is empty".into()),
    ];
    check_refused(rows).await;
}

/// Each archive is refused with its text, and nothing is written outside.
async fn check_refused(rows: Vec<(Vec<Vec<u8>>, String)>) {
    for (entries, expected) in rows {
        assert_eq!(refused(&entries).await, format!("the archive's entry {expected}"));
    }
}

#[tokio::test]
async fn long_and_strange_names_are_refused() {
    // Names of more than 100 bytes, or with NUL, come in an extension: `path` in a pax header, or
    // GNU's long name.
    let pax = |name: &[u8]| {
        let body_len = name.len() + b" path=\n".len();
        let mut length = body_len + 2;
        while length != body_len + length.to_string().len() {
            length = body_len + length.to_string().len();
        }
        let record = [length.to_string().as_bytes(), b" path=", name, b"\n"].concat();
        let header = entry(EntryType::XHeader, b"pax", b"", 0o644, &record);
        [header, file("short", "x")].concat()
    };
    let gnu = |name: &[u8]| {
        let header = entry(EntryType::GNULongName, b"././@LongLink", b"", 0o644, name);
        [header, file("short", "x")].concat()
    };
    let long = "d/".repeat(600);
    let rows = [
        (pax(b"a\0b"), "`a\0b` is refused: its path has a NUL byte".to_owned()),
        (pax(b"../outside"), "`../outside` is refused: its path has `..`".to_owned()),
        (gnu(b"/etc/x\0"), "`/etc/x` is refused: its path is absolute".to_owned()),
        (gnu(long.as_bytes()), format!("`{long}` is refused: its path is longer than 1024 bytes")),
    ];
    for (entries, expected) in rows {
        assert_eq!(refused(&[entries]).await, format!("the archive's entry {expected}"));
    }
}

#[tokio::test]
async fn archives_that_are_too_much_are_refused() {
    let few = Limits { entries: 3, ..Limits::default() };
    let names = ["a", "b", "c", "d"].map(|name| file(name, ""));
    assert_eq!(
        refused_with(&names, few).await,
        "the archive is refused: it has more than 3 entries"
    );
    let deep = [file("a/b/c/d/e", "")];
    assert_eq!(
        refused_with(&deep, few).await,
        "the archive is refused: it has more than 3 entries"
    );
    let small = Limits { unpacked_bytes: 4096, ..Limits::default() };
    let large = [file("a", &"x".repeat(5000))];
    let expected = "the archive is refused: it unpacks to more than 4096 bytes";
    assert_eq!(refused_with(&large, small).await, expected);
    let header = entry(EntryType::GNULongName, b"././@LongLink", b"", 0o644, &[b'a'; 70_000]);
    let limits = Limits { header_bytes: 65_536, ..Limits::default() };
    let expected =
        "the archive is refused: an entry's names and attributes take more than 65536 bytes";
    assert_eq!(refused_with(&[[header, file("x", "")].concat()], limits).await, expected);
}

#[tokio::test]
async fn bombs_are_refused() {
    let zeros = "\0".repeat(4 * 1024 * 1024);
    let tar = archive(&[file("zeros", &zeros)]);
    let limits = Limits { ratio_from_bytes: 1024 * 1024, ..Limits::default() };
    for format in [Format::TarGz, Format::TarZst] {
        let artifact = pack(&tar, format);
        assert!(artifact.len() < 10_000);
        let mut node = Node::new();
        let spec = spec("1.0.0", &artifact, format);
        node.fetch(&spec, &artifact).await;
        node.releases = node.releases.with_limits(limits);
        let error = node.releases.install(&spec).await.expect_err("a bomb");
        let expected = "cannot unpack shop 1.0.0: the archive is refused: \
                        it unpacks to more than 200 times its size";
        assert_eq!(chain(&error), expected);
        node.assert_untouched("bomb");
        node.releases = node.releases.with_limits(Limits::default());
        node.releases.install(&spec).await.expect("4 MiB of zeros harm nobody");
    }
}

fn pack(tar: &[u8], format: Format) -> Vec<u8> {
    match format {
        Format::Tar => tar.to_vec(),
        Format::TarGz => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(tar).expect("packs");
            encoder.finish().expect("packs")
        }
        Format::TarZst => zstd::encode_all(tar, 3).expect("packs"),
    }
}

#[tokio::test]
async fn all_formats_are_unpacked_with_plain_modes_and_links() {
    let tar = archive(&[
        entry(EntryType::Directory, b"./", b"", 0o700, b""),
        entry(EntryType::Regular, b"./bin/shop", b"", 0o700, b"#!/bin/sh\n"),
        file("conf/a b.toml", "x = 1"),
        file("conf/a b.toml", "x = 2"),
        link("bin/conf", "../conf/./a b.toml"),
        link("dangling", "later/on"),
        hard("copy", "./conf/a b.toml"),
        entry(EntryType::Directory, b"empty/", b"", 0o700, b""),
        entry(EntryType::XGlobalHeader, b"git", b"", 0o644, b"13 comment=x\n"),
    ]);
    for format in [Format::Tar, Format::TarGz, Format::TarZst] {
        let node = Node::new();
        let artifact = pack(&tar, format);
        let spec = spec("1.0.0", &artifact, format);
        node.fetch(&spec, &artifact).await;
        assert!(node.releases.is_fetched(&spec));
        let installed = node.releases.install(&spec).await.expect("installs");
        assert!(node.releases.is_installed(&spec));
        assert!(!node.releases.is_fetched(&spec), "the artifact is not needed any more");
        let again = node.releases.install(&spec).await.expect("a repeat is fine");
        assert_eq!(again, installed);
        let mode = |name: &str| {
            let path = installed.folder.join(name);
            fs::metadata(path).expect("is there").permissions().mode() & 0o7777
        };
        let modes = ["", "bin", "bin/shop", "empty", "conf/a b.toml"].map(mode);
        assert_eq!(modes, [0o755, 0o755, 0o755, 0o755, 0o644], "{format:?}");
        for name in ["bin/conf", "copy", "conf/a b.toml"] {
            let text = fs::read_to_string(installed.folder.join(name)).expect("reads");
            assert_eq!(text, "x = 2", "{name}");
        }
    }
}

#[tokio::test]
async fn a_damaged_archive_is_an_error_and_leaves_nothing() {
    let tar = archive(&[file("a", &"x".repeat(4000))]);
    let rows = [
        (Format::Tar, b"not a tar file".repeat(100)),
        (Format::TarGz, tar.clone()),
        (Format::TarZst, tar.clone()),
        (Format::Tar, tar[..2048].to_vec()),
    ];
    for (format, artifact) in rows {
        let node = Node::new();
        let spec = spec("1.0.0", &artifact, format);
        node.fetch(&spec, &artifact).await;
        let error = chain(&node.releases.install(&spec).await.expect_err("is damaged"));
        assert!(
            error.starts_with("cannot unpack shop 1.0.0: the archive cannot be read as tar"),
            "{error}"
        );
        node.assert_untouched(&error);
    }
}

#[tokio::test]
async fn downloads_resume_and_are_verified() {
    let node = Node::new();
    let artifact = archive(&[file("a", "content")]);
    let wanted = spec("1.0.0", &artifact, Format::Tar);
    let mut partial = node.releases.partial(&wanted).await.expect("opens");
    assert_eq!(partial.have(), 0);
    partial.append(Bytes::copy_from_slice(&artifact[..700])).await.expect("appends");
    let busy = node.releases.partial(&wanted).await.expect_err("is open already");
    assert!(matches!(busy, ReleaseError::Busy { .. }), "{busy}");
    drop(partial);
    let mut partial = node.releases.partial(&wanted).await.expect("opens again");
    assert_eq!((partial.have(), partial.is_whole()), (700, false));
    let error = partial.append(Bytes::from(vec![0; artifact.len()])).await.expect_err("too much");
    assert!(matches!(error, ReleaseError::Size { .. }), "{error}");
    let early = partial.finish().await.expect_err("not whole");
    assert_eq!(
        early.to_string(),
        format!("artifact {} has {} bytes, but 700 came", wanted.digest, artifact.len())
    );
    let mut partial = node.releases.partial(&wanted).await.expect("what came is kept");
    let mut wrong = artifact[700..].to_vec();
    wrong[0] ^= 1;
    partial.append(Bytes::from(wrong.clone())).await.expect("appends");
    let error = partial.finish().await.expect_err("is wrong").to_string();
    let got = hex(&Sha256::digest([&artifact[..700], &wrong].concat()));
    let expected = &wanted.digest;
    assert_eq!(
        error,
        format!("the artifact that came has the digest {got}, but {expected} was ordered")
    );
    assert_eq!(node.releases.partial(&wanted).await.expect("opens").have(), 0, "begins anew");
    let error = node.releases.install(&wanted).await.expect_err("not fetched");
    assert!(matches!(error, ReleaseError::NotFetched { .. }), "{error}");
    node.fetch(&wanted, &artifact).await;
    node.releases.install(&wanted).await.expect("installs");
}

#[tokio::test]
async fn an_artifact_that_changed_on_the_disk_is_not_installed() {
    let node = Node::new();
    let artifact = archive(&[file("a", "content")]);
    let spec = spec("1.0.0", &artifact, Format::Tar);
    node.fetch(&spec, &artifact).await;
    let cached = node.folder.path().join("data/cache").join(&spec.digest);
    fs::write(&cached, archive(&[file("a", "CONTENT")])).expect("writes");
    let error = node.releases.install(&spec).await.expect_err("is another");
    assert!(matches!(error, ReleaseError::Digest { .. }), "{error}");
    node.assert_untouched("changed");
}

#[tokio::test]
async fn a_full_disk_is_told_before_anything_is_written() {
    let mut node = Node::new();
    let artifact = archive(&[file("a", "content")]);
    let spec = spec("1.0.0", &artifact, Format::Tar);
    node.fetch(&spec, &artifact).await;
    let reserve_bytes = u64::MAX / 2;
    node.releases = node.releases.with_limits(Limits { reserve_bytes, ..Limits::default() });
    let error = node.releases.install(&spec).await.expect_err("no room").to_string();
    let need = (artifact.len() as u64 + reserve_bytes).div_ceil(1 << 20);
    assert!(error.starts_with("no room for shop 1.0.0: the disk of "), "{error}");
    assert!(error.ends_with(&format!(" MiB free and {need} MiB are needed")), "{error}");
    node.assert_untouched("full");
}

#[tokio::test]
async fn current_points_at_complete_releases_only() {
    let node = Node::new();
    let releases = &node.releases;
    let one = node.install("1.0.0", &archive(&[file("a", "1")])).await;
    let two = node.install("2.0.0", &archive(&[file("a", "2")])).await;
    let current = async || {
        let current = releases.current("shop").await.expect("reads");
        current.map(|it| (it.folder.ends_with(it.spec.folder()), it.spec.version))
    };
    assert_eq!(current().await, None);
    releases.point_current(&one).await.expect("points");
    assert_eq!(current().await, Some((true, "1.0.0".into())));
    releases.point_current(&two).await.expect("points");
    releases.point_current(&two).await.expect("points again");
    let link = releases.app_folder("shop").join("current");
    assert_eq!(fs::read_to_string(link.join("a")).expect("reads"), "2");
    assert_eq!(fs::read_link(&link).expect("a link"), Path::new("releases").join(two.folder()));
    let missing = spec("3.0.0", b"3", Format::Tar);
    let error = releases.point_current(&missing).await.expect_err("is not there");
    assert!(matches!(error, ReleaseError::Incomplete { .. }), "{error}");
    fs::create_dir(releases.folder(&missing)).expect("makes half a release");
    assert!(releases.point_current(&missing).await.is_err(), "has no marker");
    assert_eq!(current().await, Some((true, "2.0.0".into())), "as before");
    releases.clear_current("shop").await.expect("clears");
    releases.clear_current("shop").await.expect("clears nothing");
    assert_eq!(current().await, None);
    assert!(releases.is_installed(&two));
}

#[tokio::test]
async fn the_same_artifact_with_another_configuration_is_remembered_when_pointed_at() {
    let node = Node::new();
    let one = node.install("1.0.0", &archive(&[file("a", "1")])).await;
    node.releases.point_current(&one).await.expect("points");
    let mut changed = one.clone();
    changed.run.env.insert("LOG".into(), "debug".into());
    node.releases.install(&changed).await.expect("is there");
    let spec = async || node.releases.current("shop").await.expect("reads").expect("is set").spec;
    assert_eq!(spec().await, one);
    node.releases.point_current(&changed).await.expect("points");
    assert_eq!(spec().await, changed);
}

#[tokio::test]
async fn pruning_keeps_what_is_named_and_what_is_current() {
    let node = Node::new();
    let mut specs = Vec::new();
    for version in ["1.0.0", "2.0.0", "3.0.0", "4.0.0"] {
        specs.push(node.install(version, &archive(&[file("a", version)])).await);
    }
    node.releases.point_current(&specs[1]).await.expect("points");
    let keep = [specs[3].digest.clone()];
    let gone = node.releases.prune("shop", &keep).await.expect("prunes");
    assert_eq!(gone, ["1.0.0", "3.0.0"]);
    let left = node.releases.installed("shop").await.expect("lists");
    let versions: Vec<_> = left.iter().map(|it| it.spec.version.as_str()).collect();
    assert_eq!(versions, ["2.0.0", "4.0.0"]);
    // Versions of one artifact are told apart.
    let same = node.install("4.0.1", &archive(&[file("a", "4.0.0")])).await;
    assert_eq!(same.digest, specs[3].digest);
    let gone = node.releases.prune("shop", &[same.folder()]).await.expect("prunes");
    assert_eq!(gone, ["4.0.0"]);
    assert_eq!(node.releases.apps().await.expect("lists"), ["shop"]);
    assert_eq!(node.releases.prune("other", &[]).await.expect("nothing there"), [""; 0]);
}

#[tokio::test]
async fn a_crash_leaves_nothing_that_counts() {
    let node = Node::new();
    let one = node.install("1.0.0", &archive(&[file("a", "1")])).await;
    node.releases.point_current(&one).await.expect("points");
    let artifact = archive(&[file("a", "2")]);
    let two = spec("2.0.0", &artifact, Format::Tar);
    // As if the power went after the rename and before the marker, and in the middle of other
    // things.
    let app = node.releases.app_folder("shop");
    fs::create_dir(node.releases.folder(&two)).expect("makes it");
    fs::write(node.releases.folder(&two).join("half"), "x").expect("writes");
    fs::create_dir(app.join("releases/.tmp-1-1")).expect("makes it");
    symlink("releases/x", app.join(".tmp-current-1-2")).expect("links");
    assert!(!node.releases.is_installed(&two));
    let before = node.tree();
    node.releases.tidy().await.expect("tidies");
    assert_ne!(node.tree(), before);
    assert!(!app.join(".tmp-current-1-2").exists());
    assert!(node.releases.is_installed(&one));
    // Also without the tidying, the half release is replaced.
    fs::create_dir(node.releases.folder(&two)).expect("makes it");
    fs::write(node.releases.folder(&two).join("half"), "x").expect("writes");
    node.fetch(&two, &artifact).await;
    let installed = node.releases.install(&two).await.expect("installs");
    assert!(!installed.folder.join("half").exists());
    assert_eq!(fs::read_to_string(installed.folder.join("a")).expect("reads"), "2");
    assert!(!node.tree().iter().any(|it| it.starts_with(".tmp")), "{:?}", node.tree());
}

#[tokio::test]
async fn two_digests_that_begin_alike_are_not_confused() {
    let node = Node::new();
    let one = node.install("1.0.0", &archive(&[file("a", "1")])).await;
    let mut other = one.clone();
    other.digest = format!("{}{}", &one.digest[..12], "0".repeat(52));
    assert!(!node.releases.is_installed(&other));
    let error = node.releases.install(&other).await.expect_err("is another's");
    assert!(matches!(error, ReleaseError::Taken { .. }), "{error}");
}

#[tokio::test]
async fn the_cache_is_pruned() {
    let node = Node::new();
    let artifact = archive(&[file("a", "1")]);
    let kept = spec("1.0.0", &artifact, Format::Tar);
    node.fetch(&kept, &artifact).await;
    let dropped = spec("2.0.0", b"other", Format::Tar);
    drop(node.releases.partial(&dropped).await.expect("opens"));
    node.releases.prune_cache(std::slice::from_ref(&kept.digest)).await.expect("prunes");
    let left: Vec<_> = fs::read_dir(node.folder.path().join("data/cache"))
        .expect("lists")
        .map(|it| it.expect("lists").file_name().into_string().expect("text"))
        .collect();
    assert_eq!(left, [kept.digest]);
}
