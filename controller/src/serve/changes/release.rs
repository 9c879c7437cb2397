//! Releases on their way in: an artifact's bytes, then the release that is made of it.

use rota_proto::operator::{Document, PushRequest, UploadPart, UploadReply, upload_part};
use rota_rollout::names::Digest;
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::{Response, Status, Streaming};

use super::asked::{bad_name, digest, manifest, problems};
use super::{Done, ask, write_down};
use crate::access::{Caller, now};
use crate::api::fleet::release_view;
use crate::artifact::IMAGE;
use crate::artifact::peers::{Artifacts, Pace, Spread};
use crate::artifact::store::ArtifactError;
use crate::engine::Ask;
use crate::engine::records::ReleaseRecord;
use crate::errors::{Sort, status};
use crate::manifest::Artifact;
use crate::serve::operators::{OperatorService, document};
use crate::view::ErrorView;

/// An artifact's error on its way out.
pub(in crate::serve) fn artifact(error: ArtifactError) -> Status {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    status(Sort::Refused.error(format!("{error}{}", cause.unwrap_or_default()), ""))
}

/// Takes an upload: the header, then bytes until the end. Nothing is visible before the digest was verified.
pub(in crate::serve) async fn upload(
    artifacts: &Artifacts,
    mut parts: Streaming<UploadPart>,
) -> Result<Response<UploadReply>, Status> {
    let usage = |why: &str| status(Sort::Usage.error(why, ""));
    let first = parts.next().await.transpose()?.and_then(|part| part.part);
    let Some(upload_part::Part::Header(header)) = first else {
        return Err(usage("an upload begins with its header"));
    };
    let digest = digest(&header.digest).map_err(status)?;
    if let Some(copying) = artifacts.running(&digest)
        && copying.end().await.is_ok()
    {
        // It came from another controller meanwhile: what is sent here is not needed.
        return Ok(Response::new(UploadReply { have: header.size, complete: true }));
    }
    let begun = artifacts.here.begin(&digest, header.size, header.offset).await;
    let mut upload = begun.map_err(artifact)?;
    while let Some(part) = parts.next().await.transpose()? {
        match part.part {
            Some(upload_part::Part::Data(data)) => {
                upload.write(data.into()).await.map_err(artifact)?;
            }
            Some(upload_part::Part::Header(_)) | None => {
                return Err(usage("an upload has one header, then bytes"));
            }
        }
    }
    let have = upload.have();
    if have < header.size {
        return Ok(Response::new(UploadReply { have, complete: false }));
    }
    upload.finish().await.map_err(artifact)?;
    Ok(Response::new(UploadReply { have, complete: true }))
}

/// Makes a release of an uploaded artifact.
pub(in crate::serve) async fn push(
    service: &OperatorService,
    caller: &Caller,
    push: PushRequest,
) -> Result<Response<Document>, Status> {
    let target = push.version.clone();
    let alone = spread(service, &push).await;
    let _kept = service.artifacts.here.pushing.read().await;
    let answer = match release(service, caller, push).await {
        Ok(release) => {
            let key = (release.app.clone(), release.version.clone());
            let pushed = ask(service, caller, Ask::Push(release)).await;
            let state = service.api.engine.read();
            // A repeat is answered with the release as it was pushed first.
            let kept = state.releases.get(&key).map(|release| json!(release_view(&state, release)));
            pushed.map(|answer| warned(kept.unwrap_or(answer), alone.as_deref()))
        }
        Err(error) => Err(error),
    };
    let message = alone.as_deref().unwrap_or_default();
    write_down(service, caller, Done { what: "release push", target, message }, &answer).await;
    document(answer)
}

/// Brings the artifact here from the controller that took its upload, and sees to it that another one has it, too.
/// Says why none has; what is not here at all is refused later, with its reason.
async fn spread(service: &OperatorService, push: &PushRequest) -> Option<String> {
    let (artifacts, digest) = (&service.artifacts, push.digest.parse().ok()?);
    if push.format == IMAGE || artifacts.bring(&digest, Pace::Hurried).await.is_err() {
        return None;
    }
    // The lead makes the release, and would copy it while it is waited for.
    let lead = service.api.engine.read().cluster.as_ref().and_then(|all| all.lead.clone());
    let lead = lead.map(|(name, _)| name);
    match artifacts.spread(&digest, lead.as_deref()).await {
        Spread::Alone | Spread::On(_) => None,
        Spread::Nowhere(said) => {
            Some(format!("its artifact is on one controller only: {}", said.join("; ")))
        }
    }
}

/// The answer to a push, with what its operator should know.
fn warned(mut answer: Value, warning: Option<&str>) -> Value {
    if let (Some(warning), Some(fields)) = (warning, answer.as_object_mut()) {
        fields.insert("warning".to_owned(), json!(warning));
    }
    answer
}

async fn release(
    service: &OperatorService,
    caller: &Caller,
    push: PushRequest,
) -> Result<ReleaseRecord, ErrorView> {
    let parsed = manifest(&push.manifest, &push.manifest_name)?;
    let version = push.version.parse().map_err(bad_name)?;
    parsed.fits(&version, &push.manifest, &push.manifest_name).map_err(problems)?;
    let digest = digest(&push.digest)?;
    let is_image = matches!(parsed.base().artifact, Artifact::Image(_));
    if is_image != (push.format == IMAGE) {
        let message = format!("`{}` is not what the manifest's [artifact] says", push.format);
        return Err(Sort::Usage.error(message, "`rota release push` says it right"));
    }
    let size = match is_image {
        // It stays in its registry.
        true => 0,
        false => uploaded(service, &digest, &push.format).await?,
    };
    Ok(ReleaseRecord {
        app: parsed.base().app.clone(),
        version,
        digest,
        size,
        format: push.format,
        manifest: push.manifest,
        manifest_name: push.manifest_name,
        created: now(),
        who: caller.identity.name().to_owned(),
    })
}

/// The bytes of an artifact that is here.
async fn uploaded(
    service: &OperatorService,
    digest: &Digest,
    format: &str,
) -> Result<u64, ErrorView> {
    let state = service.artifacts.here.state(digest).await;
    let state = state.map_err(|error| Sort::Internal.error(error.to_string(), ""))?;
    if !state.complete {
        let message = format!("the artifact {} is not here", digest.short());
        return Err(Sort::Refused.error(message, "upload it first: `rota release push` does"));
    }
    if !["tar", "tar.gz", "tar.zst"].contains(&format) {
        let message = format!("`{format}` is not a format of artifacts");
        return Err(Sort::Usage.error(message, "use tar, tar.gz or tar.zst"));
    }
    Ok(state.have)
}
