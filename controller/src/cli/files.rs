//! Which files of a release are others than those of the current one: for `rota plan`.

use std::path::Path;

use rota_rollout::names::AppName;

use super::content::Content;
use super::desk::Desk;
use super::outcome::Failure;
use super::talk;
use crate::artifact::{Listing, compare, list};
use crate::client::Client;
use crate::view::{FilesView, PlanView, ReleaseView};

/// Compares the planned release with the current one; absent: there is none.
pub async fn different(
    desk: &Desk,
    app: &AppName,
    plan: &PlanView,
    content: Option<&Content>,
) -> Result<Option<FilesView>, Failure> {
    let Some(from) = &plan.from else { return Ok(None) };
    let mut client = desk.client()?;
    let now: ReleaseView = talk::parse(&client.read(&format!("releases/{app}/{from}")).await?)?;
    let same = match content {
        Some(content) => content.digest() == now.digest,
        None => *from == plan.to,
    };
    if same {
        return Ok(Some(FilesView::default()));
    }
    let new = match content.and_then(Content::packed) {
        Some(packed) => {
            let (path, format) = (packed.path.clone(), packed.format);
            let listing = tokio::task::spawn_blocking(move || list(Path::new(&path), format));
            listing.await.map_err(|error| Failure::internal("comparing ended early", &error))?
        }
        None => there(&mut client, app, &plan.to).await?,
    };
    let old = there(&mut client, app, from).await?;
    Ok(Some(match (old, new) {
        (Ok(old), Ok(new)) => compare(&old, &new),
        (Err(why), _) | (_, Err(why)) => FilesView { not_compared: why, ..FilesView::default() },
    }))
}

/// The files of a release that the controller has; else why they are not known.
async fn there(
    client: &mut Client,
    app: &AppName,
    version: &str,
) -> Result<Result<Listing, String>, Failure> {
    match client.read(&format!("releases/{app}/{version}/files")).await {
        Ok(json) => talk::parse(&json).map(Ok),
        Err(error) => {
            let failure = Failure::from(error);
            match failure.kind.as_str() {
                "not_found" | "refused" => Ok(Err(failure.message)),
                _ => Err(failure),
            }
        }
    }
}
