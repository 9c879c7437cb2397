//! Images: how they come to a node, and go again.
//!
//! On a node an image that Rota brought is called `rota/APP:VERSION-DIGEST12` and nothing else, so that it goes when
//! its release goes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bollard::query_parameters::{
    CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptions, TagImageOptionsBuilder,
};
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::{Docker, DockerError};
use crate::runtime::LaunchError;
use crate::spec::{Format, IMAGE_FILE, Spec};

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 128 * 1024;

/// Blocks that wait for dockerd.
const BLOCKS_MAX: usize = 4;

/// An image that did not come.
#[derive(Debug, Error)]
pub enum ImageError {
    /// The artifact cannot be read.
    #[error("cannot read the artifact")]
    Read(#[from] io::Error),
    /// The artifact is none, or the registry did not give it.
    #[error("cannot {deed} the image of {app} {version}")]
    Docker {
        deed: &'static str,
        app: String,
        version: String,
        #[source]
        cause: DockerError,
    },
    /// dockerd loaded nothing, or more than one.
    #[error(
        "the artifact of {app} {version} has {count} images, and must have one: \
         make it with `docker save IMAGE -o image.tar`"
    )]
    Count { app: String, version: String, count: usize },
}

/// The image of an installed release.
pub(super) fn image_of(folder: &Path) -> Result<String, LaunchError> {
    let path = folder.join(IMAGE_FILE);
    let read = std::fs::read_to_string(&path).map(|text| text.trim().to_owned());
    read.map_err(|cause| LaunchError::Disk { deed: "read the image's name in", path, cause })
}

/// A release's image, as this node calls it.
fn local(spec: &Spec) -> (String, String) {
    (format!("rota/{}", spec.app), spec.folder().replace('+', "_"))
}

impl Docker {
    /// Is the image of this installed release here?
    pub(crate) async fn has(&self, folder: &Path) -> bool {
        let Ok(image) = image_of(folder) else { return false };
        match self.client().await {
            Ok(client) => client.inspect_image(&image).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Brings a release's image here, from its artifact or its registry; says which it is.
    pub(crate) async fn bring(&self, spec: &Spec, artifact: &Path) -> Result<String, ImageError> {
        let Spec { app, version, .. } = spec;
        let failed = |deed| {
            let (app, version) = (app.clone(), version.clone());
            move |cause| ImageError::Docker { deed, app, version, cause }
        };
        let image = match &spec.image {
            Some(reference) => self.pull(reference).await.map_err(failed("pull"))?,
            None => {
                let file = File::open(artifact)?;
                let loaded = self.load(file, spec.format).await.map_err(failed("load"))?;
                let [image] = &loaded[..] else {
                    let (app, version, count) = (app.clone(), version.clone(), loaded.len());
                    return Err(ImageError::Count { app, version, count });
                };
                image.clone()
            }
        };
        self.call(spec, &image).await.map_err(failed("name"))
    }

    /// Loads what an artifact has; the names or numbers of its images.
    async fn load(&self, file: File, format: Format) -> Result<Vec<String>, DockerError> {
        let (blocks, stream) = mpsc::channel(BLOCKS_MAX);
        tokio::task::spawn_blocking(move || {
            // Whoever reads is gone when dockerd refuses; it says why.
            if let Err(cause) = unpacked(file, format).and_then(|it| send_blocks(it, &blocks))
                && blocks.blocking_send(Err(cause)).is_err()
            {
                tracing::debug!("dockerd does not read the artifact to its end");
            }
        });
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let client = self.client().await?;
        let mut said = client.import_image_stream(options, ReceiverStream::new(stream), None);
        let mut loaded = Vec::new();
        while let Some(line) = said.next().await {
            let text = line?.stream.unwrap_or_default();
            let name = text.strip_prefix("Loaded image ID: ");
            let name = name.or_else(|| text.strip_prefix("Loaded image: "));
            loaded.extend(name.map(|name| name.trim().to_owned()));
        }
        Ok(loaded)
    }

    async fn pull(&self, reference: &str) -> Result<String, DockerError> {
        if self.client().await?.inspect_image(reference).await.is_ok() {
            return Ok(reference.to_owned());
        }
        let options = CreateImageOptionsBuilder::default().from_image(reference).build();
        let client = self.client().await?;
        let mut said = client.create_image(Some(options), None, None);
        while let Some(line) = said.next().await {
            line?;
        }
        Ok(reference.to_owned())
    }

    /// Gives an image the name that Rota knows it by; a name that came with it is taken away.
    async fn call(&self, spec: &Spec, image: &str) -> Result<String, DockerError> {
        let client = self.client().await?;
        let id = client.inspect_image(image).await?.id.unwrap_or_else(|| image.to_owned());
        let (repo, tag) = local(spec);
        let options = TagImageOptionsBuilder::default().repo(&repo).tag(&tag).build();
        client.tag_image(&id, Some(options)).await?;
        if !image.starts_with("sha256:") && spec.image.is_none() {
            client.remove_image(image, None::<RemoveImageOptions>, None).await?;
        }
        Ok(id)
    }

    /// Removes the images of this app's releases that are not among these folders. Nothing if no image was ever needed.
    pub(crate) async fn prune(&self, app: &str, kept: &[String]) -> Result<(), DockerError> {
        let Some(client) = self.client.get() else { return Ok(()) };
        let repo = format!("rota/{app}");
        let filters = HashMap::from([("reference".to_owned(), vec![repo.clone()])]);
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        for image in client.list_images(Some(options)).await? {
            let ours = |tag: &&String| {
                let tag = tag.strip_prefix(&repo).and_then(|it| it.strip_prefix(':'));
                tag.is_some_and(|tag| !kept.iter().any(|folder| folder.replace('+', "_") == tag))
            };
            let gone: Vec<&String> = image.repo_tags.iter().filter(ours).collect();
            let all = gone.len() == image.repo_tags.len();
            let digests = image.repo_digests.iter().filter(|_| all);
            for name in gone.into_iter().chain(digests) {
                match client.remove_image(name, None::<RemoveImageOptions>, None).await {
                    Ok(_) => tracing::info!(app, name, "removed an image that nothing returns to"),
                    Err(error) => tracing::info!(app, name, %error, "an image stays"),
                }
            }
        }
        Ok(())
    }
}

/// dockerd of 20.10 knows gzip and no zstd, so both are undone here.
fn unpacked(file: File, format: Format) -> io::Result<Box<dyn Read + Send>> {
    Ok(match format {
        Format::Tar => Box::new(file),
        Format::TarGz => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Format::TarZst => Box::new(zstd::Decoder::new(file)?),
    })
}

fn send_blocks(mut from: impl Read, to: &mpsc::Sender<io::Result<Bytes>>) -> io::Result<()> {
    loop {
        let mut block = vec![0; BLOCK_BYTES];
        let read = from.read(&mut block)?;
        block.truncate(read);
        if read == 0 || to.blocking_send(Ok(block.into())).is_err() {
            return Ok(());
        }
    }
}
