//! Uploads that break, lie, collide and crash: what is visible is whole.

use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio_stream::StreamExt;

use super::*;

/// A little more than two chunks of a download.
const SIZE: usize = 600 * 1024;

struct Rig {
    dir: TempDir,
    store: ArtifactStore,
    content: Bytes,
    digest: Digest,
}

fn digest_of(bytes: &[u8]) -> Digest {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    hex.parse().unwrap()
}

impl Rig {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ArtifactStore::open(dir.path()).await.unwrap();
        let content: Bytes = (0..SIZE).map(|n| (n % 251) as u8).collect();
        let digest = digest_of(&content);
        Self { dir, store, content, digest }
    }

    async fn upload(&self, from: usize, to: usize) -> Result<Upload, ArtifactError> {
        let mut upload = self.store.begin(&self.digest, SIZE as u64, from as u64).await?;
        for start in (from..to).step_by(100 * 1024) {
            upload.write(self.content.slice(start..to.min(start + 100 * 1024))).await?;
        }
        Ok(upload)
    }

    async fn state(&self) -> (u64, bool) {
        let UploadState { have, complete } = self.store.state(&self.digest).await.unwrap();
        (have, complete)
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join("uploads").join(format!("{}.part", self.digest))
    }

    async fn content_from(&self, offset: u64) -> Vec<u8> {
        let mut all = Vec::new();
        let mut chunks = self.store.read(&self.digest, offset).await.unwrap().into_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.unwrap();
            assert!(chunk.len() <= 256 * 1024);
            all.extend_from_slice(&chunk);
        }
        all
    }
}

#[tokio::test]
async fn whole_or_not_there() {
    let rig = Rig::new().await;
    assert_eq!(rig.state().await, (0, false));
    let upload = rig.upload(0, SIZE).await.unwrap();
    assert_eq!(upload.have(), SIZE as u64);
    assert_eq!(rig.state().await, (SIZE as u64, false), "not before it was verified");
    let read = rig.store.read(&rig.digest, 0).await;
    assert!(matches!(read, Err(ArtifactError::Missing { .. })));
    assert_eq!(rig.store.list().await.unwrap(), []);
    upload.finish().await.unwrap();
    assert_eq!(rig.state().await, (SIZE as u64, true));
    assert_eq!(rig.store.list().await.unwrap(), [(rig.digest.clone(), SIZE as u64)]);
    assert!(!rig.part().exists());
    let name = rig.digest.as_str();
    let blob = rig.dir.path().join("artifacts/sha256").join(&name[..2]).join(name);
    assert_eq!(blob.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let again = rig.store.begin(&rig.digest, SIZE as u64, 0).await;
    assert!(matches!(again, Err(ArtifactError::Complete { .. })));
    assert!(rig.store.remove(&rig.digest).await.unwrap());
    assert!(!rig.store.remove(&rig.digest).await.unwrap());
    assert_eq!(rig.state().await, (0, false));
}

#[tokio::test]
async fn a_download_begins_anywhere_and_outlives_its_artifact() {
    let rig = Rig::new().await;
    rig.upload(0, SIZE).await.unwrap().finish().await.unwrap();
    for offset in [0, 1, 256 * 1024 - 1, 256 * 1024, SIZE - 1, SIZE] {
        let content = rig.content_from(offset as u64).await;
        assert!(content == rig.content[offset..], "from {offset}");
    }
    let beyond = rig.store.read(&rig.digest, SIZE as u64 + 1).await;
    assert!(matches!(beyond, Err(ArtifactError::BeyondEnd { .. })));
    let mut begun = rig.store.read(&rig.digest, 0).await.unwrap();
    assert_eq!(begun.size(), SIZE as u64);
    let first = begun.next().await.unwrap().unwrap();
    assert!(rig.store.remove(&rig.digest).await.unwrap());
    let second = begun.next().await.unwrap().unwrap();
    assert!([first, second].concat() == rig.content[..512 * 1024]);
}

#[tokio::test]
async fn a_broken_upload_goes_on() {
    let mut rig = Rig::new().await;
    drop(rig.upload(0, 250_000).await.unwrap());
    assert_eq!(rig.state().await, (250_000, false));
    for wrong in [0, 249_999, 250_001] {
        let begun = rig.store.begin(&rig.digest, SIZE as u64, wrong).await.unwrap_err();
        assert!(begun.to_string().contains("goes on at byte 250000"), "{begun}");
    }
    let early = rig.upload(250_000, 300_000).await.unwrap().finish().await.unwrap_err();
    assert!(early.to_string().contains("ended at byte 300000 of 614400"), "{early}");
    // A controller that restarts knows nothing but the file.
    rig.store = ArtifactStore::open(rig.dir.path()).await.unwrap();
    rig.upload(300_000, SIZE).await.unwrap().finish().await.unwrap();
    assert!(rig.content_from(0).await == rig.content);
}

#[tokio::test]
async fn a_crash_before_the_rename_loses_nothing() {
    let rig = Rig::new().await;
    std::fs::write(rig.part(), &rig.content).unwrap();
    assert_eq!(rig.state().await, (SIZE as u64, false));
    rig.upload(SIZE, SIZE).await.unwrap().finish().await.unwrap();
    assert!(rig.content_from(0).await == rig.content);
}

#[tokio::test]
async fn one_uploader_at_a_time() {
    let rig = Rig::new().await;
    let first = rig.upload(0, 10).await.unwrap();
    let second = rig.upload(10, 20).await.unwrap_err();
    assert!(matches!(second, ArtifactError::Busy { .. }), "{second}");
    let other = digest_of(b"other");
    let mut beside = rig.store.begin(&other, 5, 0).await.unwrap();
    beside.write(Bytes::from_static(b"other")).await.unwrap();
    beside.finish().await.unwrap();
    drop(first);
    rig.upload(10, SIZE).await.unwrap().finish().await.unwrap();
    assert_eq!(rig.store.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_crowd_of_uploaders_makes_one_artifact() {
    let rig = Arc::new(Rig::new().await);
    let one = |rig: Arc<Rig>| async move {
        loop {
            let UploadState { have, complete } = rig.store.state(&rig.digest).await.unwrap();
            if complete {
                return;
            }
            let have = usize::try_from(have).unwrap();
            match rig.upload(have, (have + 150_000).min(SIZE)).await {
                Ok(upload) if upload.have() == SIZE as u64 => upload.finish().await.unwrap(),
                Ok(broken) => drop(broken),
                Err(
                    ArtifactError::Busy { .. }
                    | ArtifactError::Offset { .. }
                    | ArtifactError::Complete { .. },
                ) => tokio::task::yield_now().await,
                Err(why) => panic!("{why}"),
            }
        }
    };
    let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(one(Arc::clone(&rig)))).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert!(rig.content_from(0).await == rig.content);
}

#[tokio::test]
async fn lies_are_removed_and_named() {
    let rig = Rig::new().await;
    let mut upload = rig.store.begin(&rig.digest, 5, 0).await.unwrap();
    upload.write(Bytes::from_static(b"wrong")).await.unwrap();
    let told = upload.finish().await.unwrap_err().to_string();
    let found = digest_of(b"wrong");
    assert!(told.contains(found.as_str()) && told.contains("upload again"), "{told}");
    assert_eq!(rig.state().await, (0, false));

    let mut upload = rig.store.begin(&rig.digest, 5, 0).await.unwrap();
    upload.write(Bytes::from_static(b"more")).await.unwrap();
    let told = upload.write(Bytes::from_static(b"than")).await.unwrap_err().to_string();
    assert!(told.contains("announced with 5 bytes and has at least 8"), "{told}");
    let broken = upload.write(Bytes::from_static(b"x")).await.unwrap_err();
    assert!(matches!(broken, ArtifactError::Broken { .. }), "{broken}");
    assert_eq!(rig.state().await, (0, false));

    std::fs::write(rig.part(), b"too much").unwrap();
    let told = rig.store.begin(&rig.digest, 5, 8).await.unwrap_err();
    assert!(matches!(told, ArtifactError::TooMuch { have: 8, .. }), "{told}");
    assert_eq!(rig.state().await, (0, false));
    rig.upload(0, SIZE).await.unwrap().finish().await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_refused_before_it_is_sent() {
    let rig = Rig::new().await;
    for size in [0, (8 << 30) + 1, u64::MAX] {
        let told = rig.store.begin(&rig.digest, size, 0).await.unwrap_err().to_string();
        assert!(told.contains("1 to 8589934592 bytes"), "{told}");
    }
    let limits = Limits { kept_free: u64::MAX / 2, ..Limits::default() };
    let store = ArtifactStore::open_with(rig.dir.path(), limits).await.unwrap();
    let told = store.begin(&rig.digest, 5, 0).await.unwrap_err().to_string();
    assert!(told.contains("bytes free") && told.contains("remove old releases"), "{told}");
    assert!(!rig.part().exists());
}

#[tokio::test]
async fn parts_that_nobody_goes_on_with_are_swept() {
    let rig = Rig::new().await;
    let (old, young) = (rig.part(), rig.dir.path().join("uploads").join("young.part"));
    let notes = rig.dir.path().join("uploads").join("notes.txt");
    for path in [&old, &young, &notes] {
        std::fs::write(path, b"x").unwrap();
    }
    let long_ago = SystemTime::now() - Duration::from_secs(8 * 24 * 3600);
    for path in [&old, &notes] {
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    ArtifactStore::open(rig.dir.path()).await.unwrap();
    let left = [&old, &young, &notes].map(|path| path.exists());
    assert_eq!(left, [false, true, true], "only old parts");
}

#[test]
fn no_path_is_a_digest() {
    let long = format!("../{}", "a".repeat(61));
    for text in ["..", "../../etc/passwd", "/etc/passwd", "", &long, &"A".repeat(64)] {
        assert!(text.parse::<Digest>().is_err(), "{text:?}");
    }
}
