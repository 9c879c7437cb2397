//! What a release is made of: files of this machine, packed, or an archive that lies elsewhere.

use std::sync::atomic::Ordering;

use rota_rollout::names::{Digest, Version};
use tempfile::TempDir;
use tokio::time::interval;

use super::desk::Desk;
use super::manifest::Source;
use super::outcome::{Failure, chain};
use super::progress::{Progress, REDRAW_EVERY};
use super::{upload, words};
use crate::artifact::download::{self, DownloadError, ImageName, Moved};
use crate::artifact::{self, Format, IMAGE, PackError, Packed};
use crate::client::Client;
use crate::manifest::Artifact;

/// What a release is made of.
pub enum Content {
    /// A file here. The folder holds it until it is sent.
    Here { packed: Packed, _folder: TempDir },
    /// Elsewhere; the manifest says what it must be.
    There { url: String, digest: Digest, format: Format },
    /// An image in a registry, from which the nodes pull it.
    Image { pinned: String, digest: Digest },
}

impl Content {
    /// Packs the artifact, off the thread that talks; one that is elsewhere stays there.
    pub async fn of(desk: &Desk, source: &Source, version: &Version) -> Result<Self, Failure> {
        let base = source.manifest.base();
        let artifact = base.artifact.filled(&base.app, version);
        match &artifact {
            Artifact::Path(_) => {}
            Artifact::Url { url, sha256 } => {
                let format = download::format_of(url).map_err(|error| not_fetched(&error))?;
                return Ok(Self::There { url: url.clone(), digest: sha256.clone(), format });
            }
            Artifact::Image(image) => {
                let name = ImageName::of(image);
                let digest = download::resolve(&name).await.map_err(|error| {
                    let hint = "with the digest in its name, `IMAGE@sha256:…`, nobody is asked";
                    not_fetched(&error).hint(hint)
                })?;
                return Ok(Self::Image { pinned: name.pinned(&digest), digest });
            }
        }
        let folder = folder()?;
        let (dir, out) = (source.dir.clone(), folder.path().to_owned());
        let packing = tokio::task::spawn_blocking(move || artifact::pack(&artifact, &dir, &out));
        let packed = match packing.await {
            Ok(packed) => packed.map_err(|error| not_packed(source, &error))?,
            Err(error) => return Err(Failure::internal("packing ended early", &error)),
        };
        let (size, digest) = (words::bytes(packed.size), packed.digest.short());
        desk.talk.detail(&format!("packed {size}, sha256 {digest}"));
        Ok(Self::Here { packed, _folder: folder })
    }

    /// SHA-256 of the archive.
    pub fn digest(&self) -> &str {
        match self {
            Self::Here { packed, .. } => packed.digest.as_str(),
            Self::There { digest, .. } | Self::Image { digest, .. } => digest.as_str(),
        }
    }

    /// The archive, when it is here.
    pub fn packed(&self) -> Option<&Packed> {
        match self {
            Self::Here { packed, .. } => Some(packed),
            Self::There { .. } | Self::Image { .. } => None,
        }
    }

    /// How it is packed.
    pub fn format(&self) -> &'static str {
        match self {
            Self::Here { packed, .. } => packed.format.as_str(),
            Self::There { format, .. } => format.as_str(),
            Self::Image { .. } => IMAGE,
        }
    }

    /// Brings it to the controller, unless it is there.
    pub async fn bring(&self, desk: &Desk, client: &mut Client) -> Result<(), Failure> {
        let (url, digest, format) = match self {
            Self::Here { packed, .. } => return upload::upload(desk, client, packed).await,
            Self::There { url, digest, format } => (url, digest, *format),
            Self::Image { pinned, .. } => {
                desk.talk.say(&format!("nodes pull {pinned}: nothing to upload"));
                return Ok(());
            }
        };
        if client.upload_state(digest.as_str()).await?.complete {
            let short = digest.short();
            desk.talk.say(&format!("the controller has sha256 {short} already: nothing to fetch"));
            return Ok(());
        }
        let folder = folder()?;
        let path = folder.path().join(format!("artifact.{}", format.as_str()));
        let shown = path.display().to_string();
        fetch(desk, url, (&path, digest)).await?;
        let checking = tokio::task::spawn_blocking(move || artifact::inspect(&path));
        let packed = match checking.await {
            Ok(packed) => packed.map_err(|error| {
                let what = chain(&error).replace(&shown, "it");
                let url = download::shown(url);
                Failure::new("refused", format!("what lies at {url} cannot be used: {what}"))
            })?,
            Err(error) => return Err(Failure::internal("checking ended early", &error)),
        };
        upload::upload(desk, client, &packed).await
    }
}

/// Fetches an archive into a new file, shows how far it is, and compares its digest.
async fn fetch(
    desk: &Desk,
    url: &str,
    (to, wanted): (&std::path::Path, &Digest),
) -> Result<(), Failure> {
    let moved = Moved::default();
    let progress = Progress::new(desk, "fetching", 0, 0);
    let mut clock = interval(REDRAW_EVERY);
    let fetched = {
        let mut fetching = std::pin::pin!(download::download(url, to, &moved));
        loop {
            tokio::select! {
                fetched = &mut fetching => break fetched,
                _ = clock.tick() => {
                    let size = moved.size.load(Ordering::Relaxed);
                    progress.draw(moved.have.load(Ordering::Relaxed), size);
                }
            }
        }
    };
    progress.end();
    let digest = fetched.map_err(|error| not_fetched(&error))?;
    if digest == *wanted {
        return Ok(());
    }
    let message = format!("what lies at {} is not what the manifest says", download::shown(url));
    Err(Failure::new("refused", message)
        .stands([format!("there:    sha256 {digest}"), format!("manifest: sha256 {wanted}")])
        .hint("if it was built anew, write its `sha256sum` into the manifest"))
}

fn folder() -> Result<TempDir, Failure> {
    let folder = tempfile::Builder::new().prefix("rota-").tempdir();
    folder.map_err(|error| Failure::internal("cannot make a folder", &error))
}

/// Why an artifact's files cannot be packed.
pub fn not_packed(source: &Source, error: &PackError) -> Failure {
    Failure::usage(format!("{}: {}", source.name, chain(error)))
}

fn not_fetched(error: &DownloadError) -> Failure {
    let (kind, hint) = match error {
        DownloadError::Url { .. } | DownloadError::Ending(_) => ("usage", "see `artifact.url`"),
        DownloadError::NotFound { .. } => ("not_found", "see `artifact.url` and the --version"),
        DownloadError::Reach { .. }
        | DownloadError::Silent { .. }
        | DownloadError::BrokeOff { .. } => ("refused", "nothing was pushed; try again"),
        DownloadError::NoRoots(_) => ("refused", "SSL_CERT_FILE names a list of certificates"),
        DownloadError::Status { .. }
        | DownloadError::Redirects(_)
        | DownloadError::TooLarge { .. }
        | DownloadError::Write { .. } => ("refused", "nothing was pushed"),
    };
    Failure::new(kind, chain(error)).hint(hint)
}
