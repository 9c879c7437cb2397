//! What operators' requests come to: checked here once, decided by the engine, written into the audit log.

use rota_identity::Kind as IdentityKind;
use rota_proto::operator::change::Change as Wanted;
use rota_proto::operator::{
    Change, ControllerVerb, Document, Kind as WireKind, NodeVerb, PushRequest, RolloutVerb,
    StartRequest, UploadPart, UploadReply, upload_part,
};
use rota_rollout::names::{
    AppName, BadName, Digest, EnvName, NodeName, Revision, RolloutId, Timestamp,
};
use rota_rollout::rollout::Kind;
use rota_rollout::verbs::Verb;
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tonic::{Response, Status, Streaming};

use super::operators::{OperatorService, document};
use crate::access::audit::Deed;
use crate::access::{Action, Caller, now, rfc3339};
use crate::api::fleet::release_view;
use crate::artifact::store::{ArtifactError, ArtifactStore};
use crate::engine::records::ReleaseRecord;
use crate::engine::{AgentKey, Answer, Ask, Asked, Given, Service, Start};
use crate::errors::{Sort, status};
use crate::manifest::Manifest;
use crate::view::{ErrorView, NewTokenView};

fn bad_name(bad: BadName) -> ErrorView {
    Sort::Usage.error(bad.to_string(), "")
}

/// Reads a digest.
pub(super) fn digest(text: &str) -> Result<Digest, ErrorView> {
    text.parse().map_err(bad_name)
}

/// An artifact's error on its way out.
pub(super) fn artifact(error: ArtifactError) -> Status {
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    status(Sort::Refused.error(format!("{error}{}", cause.unwrap_or_default()), ""))
}

/// Takes an upload: the header, then bytes until the end. Nothing is visible before the digest was verified.
pub(super) async fn upload(
    artifacts: &ArtifactStore,
    mut parts: Streaming<UploadPart>,
) -> Result<Response<UploadReply>, Status> {
    let usage = |why: &str| status(Sort::Usage.error(why, ""));
    let first = parts.next().await.transpose()?.and_then(|part| part.part);
    let Some(upload_part::Part::Header(header)) = first else {
        return Err(usage("an upload begins with its header"));
    };
    let digest = digest(&header.digest).map_err(status)?;
    let begun = artifacts.begin(&digest, header.size, header.offset).await;
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

fn manifest(text: &str, name: &str) -> Result<Manifest, ErrorView> {
    Manifest::parse(text, name).map_err(|problems| {
        Sort::Manifest.error(problems.render(false), problems.hint().unwrap_or_default())
    })
}

/// Makes a release of an uploaded artifact.
pub(super) async fn push(
    service: &OperatorService,
    caller: &Caller,
    push: PushRequest,
) -> Result<Response<Document>, Status> {
    let target = push.version.clone();
    let answer = match release(service, caller, push).await {
        Ok(release) => {
            let key = (release.app.clone(), release.version.clone());
            let pushed = ask(service, caller, Ask::Push(release)).await;
            let state = service.api.engine.read();
            // A repeat is answered with the release as it was pushed first.
            let kept = state.releases.get(&key).map(|release| json!(release_view(&state, release)));
            pushed.map(|answer| kept.unwrap_or(answer))
        }
        Err(error) => Err(error),
    };
    write_down(service, caller, Done { what: "release push", target, message: "" }, &answer).await;
    document(answer)
}

async fn release(
    service: &OperatorService,
    caller: &Caller,
    push: PushRequest,
) -> Result<ReleaseRecord, ErrorView> {
    let parsed = manifest(&push.manifest, &push.manifest_name)?;
    let digest = digest(&push.digest)?;
    let state = service.artifacts.state(&digest).await;
    let state = state.map_err(|error| Sort::Internal.error(error.to_string(), ""))?;
    if !state.complete {
        let message = format!("the artifact {} is not here", digest.short());
        return Err(Sort::Refused.error(message, "upload it first: `rota release push` does"));
    }
    if !["tar", "tar.gz", "tar.zst"].contains(&push.format.as_str()) {
        let message = format!("`{}` is not a format of artifacts", push.format);
        return Err(Sort::Usage.error(message, "use tar, tar.gz or tar.zst"));
    }
    Ok(ReleaseRecord {
        app: parsed.base().app.clone(),
        version: push.version.parse().map_err(bad_name)?,
        digest,
        size: state.have,
        format: push.format,
        manifest: push.manifest,
        manifest_name: push.manifest_name,
        created: now(),
        who: caller.identity.name().to_owned(),
    })
}

/// What a start would do.
pub(super) async fn plan(
    service: &OperatorService,
    caller: &Caller,
    asked: StartRequest,
) -> Result<Response<Document>, Status> {
    let start = start_of(asked).map_err(status)?;
    document(ask(service, caller, Ask::Plan(start)).await)
}

/// Begins a rollout.
pub(super) async fn start(
    service: &OperatorService,
    caller: &Caller,
    asked: StartRequest,
) -> Result<Response<Document>, Status> {
    let target = format!("{}/{} {}", asked.app, asked.env, asked.release);
    let message = asked.message.clone();
    let answer = match start_of(asked) {
        Ok(start) => ask(service, caller, Ask::Start(start)).await,
        Err(error) => Err(error),
    };
    let done = Done { what: "rollout start", target, message: &message };
    write_down(service, caller, done, &answer).await;
    document(answer)
}

fn start_of(asked: StartRequest) -> Result<Start, ErrorView> {
    let kind = match WireKind::try_from(asked.kind).unwrap_or(WireKind::Unspecified) {
        WireKind::Unspecified => {
            return Err(Sort::Usage.error("the kind of rollout is missing", ""));
        }
        WireKind::Deploy => Kind::Deploy,
        WireKind::Undo => Kind::Undo,
        WireKind::Restart => Kind::Restart,
    };
    let given = match asked.manifest.as_str() {
        "" => None,
        text => Some(Given {
            manifest: manifest(text, &asked.manifest_name)?,
            text: text.to_owned(),
            name: asked.manifest_name.clone(),
        }),
    };
    let app: AppName = asked.app.parse().map_err(bad_name)?;
    if let Some(given) = &given
        && given.manifest.base().app != app
    {
        let message = format!("the manifest is of {}, not of {app}", given.manifest.base().app);
        return Err(Sort::Usage.error(message, ""));
    }
    Ok(Start {
        app,
        env: asked.env.parse().map_err(bad_name)?,
        version: match asked.release.as_str() {
            "" => None,
            version => Some(version.parse().map_err(bad_name)?),
        },
        manifest: given,
        kind,
        to_revision: (asked.to_revision > 0).then_some(Revision(asked.to_revision)),
        message: asked.message,
        supersede: asked.supersede,
        digest: match asked.digest.as_str() {
            "" => None,
            text => Some(digest(text)?),
        },
    })
}

/// Every other change.
pub(super) async fn apply(
    service: &OperatorService,
    caller: &Caller,
    change: Change,
) -> Result<Response<Document>, Status> {
    let missing = || status(Sort::Usage.error("the change says nothing", ""));
    match change.change.ok_or_else(missing)? {
        Wanted::Rollout(verb) => rollout(service, caller, verb).await,
        Wanted::Node(verb) => node(service, caller, verb).await,
        Wanted::Env(verb) => {
            let action = Action::Freeze;
            service.access.permit(caller, action, Some(&verb.env), &verb.env).await?;
            let (what, target) = (format!("env {}", verb.verb), verb.env.clone());
            let message = verb.message.clone();
            let answer = match env(verb) {
                Ok(wanted) => ask(service, caller, wanted).await,
                Err(error) => Err(error),
            };
            let done = Done { what: &what, target, message: &message };
            write_down(service, caller, done, &answer).await;
            document(answer)
        }
        Wanted::CreateToken(wanted) => {
            service.access.permit(caller, Action::Tokens, None, &wanted.kind).await?;
            let target = format!("{} {}", wanted.kind, wanted.name);
            let answer = create_token(service, caller.identity.name(), &wanted).await;
            let done = Done { what: "token create", target, message: "" };
            write_down(service, caller, done, &answer).await;
            document(answer)
        }
        Wanted::RemoveToken(id) => {
            service.access.permit(caller, Action::Tokens, None, &id).await?;
            let removed = service.access.remove_token(&id).await.map_err(ErrorView::from);
            let answer =
                removed.and_then(|()| crate::engine::applied(format!("token {id} is removed")));
            let done = Done { what: "token rm", target: id, message: "" };
            write_down(service, caller, done, &answer).await;
            document(answer)
        }
        Wanted::RemoveRelease(wanted) => {
            let target = format!("{} {}", wanted.app, wanted.version);
            service.access.permit(caller, Action::RemoveRelease, None, &target).await?;
            let parsed = wanted.app.parse().and_then(|app| Ok((app, wanted.version.parse()?)));
            let answer = match parsed {
                Ok((app, version)) => {
                    ask(service, caller, Ask::RemoveRelease { app, version }).await
                }
                Err(bad) => Err(bad_name(bad)),
            };
            let done = Done { what: "release rm", target, message: "" };
            write_down(service, caller, done, &answer).await;
            document(answer)
        }
        Wanted::Controller(verb) => {
            service.access.permit(caller, Action::DrainController, None, &verb.name).await?;
            let what = format!("controller {}", verb.verb);
            let target = verb.name.clone();
            let answer = match controller(verb) {
                Ok(wanted) => ask(service, caller, wanted).await,
                Err(error) => Err(error),
            };
            write_down(service, caller, Done { what: &what, target, message: "" }, &answer).await;
            document(answer)
        }
    }
}

fn controller(verb: ControllerVerb) -> Result<Ask, ErrorView> {
    let draining = match verb.verb.as_str() {
        "drain" => true,
        "undrain" => false,
        other => {
            let message = format!("a controller has no verb `{other}`");
            return Err(Sort::Usage.error(message, "use drain or undrain"));
        }
    };
    Ok(Ask::Serve(Service {
        name: verb.name.parse().map_err(bad_name)?,
        draining,
        force: verb.force,
        handover: verb.handover,
    }))
}

async fn rollout(
    service: &OperatorService,
    caller: &Caller,
    verb: RolloutVerb,
) -> Result<Response<Document>, Status> {
    let id = newest(service, &verb.id).map_err(status)?;
    let (env, target) = (id.env.to_string(), id.to_string());
    service.access.permit(caller, Action::ActOnRollout, Some(&env), &target).await?;
    let what = format!("rollout {}", verb.verb);
    let answer = match verb_of(&verb) {
        Ok(wanted) => ask(service, caller, Ask::Act { id, verb: wanted }).await,
        Err(error) => Err(error),
    };
    let done = Done { what: &what, target, message: &verb.message };
    write_down(service, caller, done, &answer).await;
    document(answer)
}

/// `APP/ENV/REVISION`, or `APP/ENV` for the newest.
fn newest(service: &OperatorService, text: &str) -> Result<RolloutId, ErrorView> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let bad = || {
        let message = format!("`{text}` is not a rollout");
        Sort::Usage.error(message, "write APP/ENV/REVISION, or APP/ENV for the newest")
    };
    let (app, env) = text.split_once('/').ok_or_else(bad)?;
    let (app, env): (AppName, EnvName) =
        (app.parse().map_err(|_| bad())?, env.parse().map_err(|_| bad())?);
    let state = service.api.engine.read();
    let fleet = state.fleets.get(&(app.clone(), env.clone()));
    let revision = fleet.map(|fleet| fleet.revision).ok_or_else(|| {
        Sort::NotFound.error(format!("{app} has no rollout in {env}"), "`rota rollout ls`")
    })?;
    Ok(RolloutId { app, env, revision })
}

fn verb_of(verb: &RolloutVerb) -> Result<Verb, ErrorView> {
    let nodes = || crate::wire::nodes(&verb.nodes).map_err(bad_name);
    Ok(match verb.verb.as_str() {
        "pause" => Verb::Pause,
        "resume" => Verb::Resume,
        "promote" => Verb::Promote,
        "abort" => Verb::Abort,
        "rollback" => Verb::Rollback,
        "retry" => Verb::Retry(nodes()?),
        "skip" => Verb::Skip(nodes()?),
        other => {
            let hint = "use pause, resume, promote, abort, rollback, retry or skip";
            return Err(Sort::Usage.error(format!("a rollout has no verb `{other}`"), hint));
        }
    })
}

async fn node(
    service: &OperatorService,
    caller: &Caller,
    verb: NodeVerb,
) -> Result<Response<Document>, Status> {
    let name: NodeName = verb.name.parse().map_err(|bad| status(bad_name(bad)))?;
    let (key, env) = agent(service, &name).map_err(status)?;
    let action = match verb.verb.as_str() {
        "drain" | "undrain" => Action::DrainNode,
        "label" => Action::LabelNode,
        _ => Action::RemoveNode,
    };
    service.access.permit(caller, action, Some(&env), name.as_str()).await?;
    let wanted = match verb.verb.as_str() {
        "drain" => Ok(Ask::DrainNode { name: name.clone(), drained: true }),
        "undrain" => Ok(Ask::DrainNode { name: name.clone(), drained: false }),
        "label" => {
            Ok(Ask::LabelNode { name: name.clone(), labels: verb.labels.into_iter().collect() })
        }
        "rm" => {
            let revoked = revoke(service, &key, &name, &verb.message).await;
            revoked.map(|()| Ask::ForgetAgent(key))
        }
        other => {
            let hint = "use drain, undrain, label or rm";
            Err(Sort::Usage.error(format!("a node has no verb `{other}`"), hint))
        }
    };
    let answer = match wanted {
        Ok(wanted) => ask(service, caller, wanted).await,
        Err(error) => Err(error),
    };
    let what = format!("node {}", verb.verb);
    let done = Done { what: &what, target: name.to_string(), message: &verb.message };
    write_down(service, caller, done, &answer).await;
    document(answer)
}

/// The agent of this name: a node, or else an edge.
fn agent(service: &OperatorService, name: &NodeName) -> Result<(AgentKey, String), ErrorView> {
    let state = service.api.engine.read();
    [AgentKey::Node(name.clone()), AgentKey::Edge(name.clone())]
        .into_iter()
        .find_map(|key| state.agents.get(&key).map(|agent| (key, agent.record.env.clone())))
        .ok_or_else(|| {
            Sort::NotFound.error(format!("there is no node {name}"), "`rota node ls` lists them")
        })
}

async fn revoke(
    service: &OperatorService,
    key: &AgentKey,
    name: &NodeName,
    why: &str,
) -> Result<(), ErrorView> {
    let kind = match key {
        AgentKey::Node(_) => IdentityKind::Node,
        AgentKey::Edge(_) => IdentityKind::Edge,
    };
    let identity = rota_identity::Identity::new(kind, name.as_str())
        .map_err(|bad| Sort::Usage.error(bad.to_string(), ""))?;
    let revoked = service.access.revoke(&identity, why, &[], now()).await;
    revoked.map(|_| ()).map_err(ErrorView::from)
}

fn env(verb: rota_proto::operator::EnvVerb) -> Result<Ask, ErrorView> {
    let env: EnvName = verb.env.parse().map_err(bad_name)?;
    match verb.verb.as_str() {
        "unfreeze" => Ok(Ask::Unfreeze { env }),
        "freeze" => {
            let until = match verb.until.as_str() {
                "" => None,
                text => Some(until(text)?),
            };
            if verb.message.is_empty() {
                return Err(Sort::Usage.error("a freeze needs a reason", "`-m WHY`"));
            }
            Ok(Ask::Freeze { env, why: verb.message, until })
        }
        other => {
            let message = format!("an environment has no verb `{other}`");
            Err(Sort::Usage.error(message, "use freeze or unfreeze"))
        }
    }
}

fn until(text: &str) -> Result<Timestamp, ErrorView> {
    let bad = |why: String| {
        let hint = "write RFC 3339, for example 2026-12-24T06:00:00Z";
        Sort::Usage.error(format!("`{text}` is not a time: {why}"), hint)
    };
    let time: jiff::Timestamp = text.parse().map_err(|error| bad(format!("{error}")))?;
    let millis = u64::try_from(time.as_millisecond()).map_err(|_| bad("it is long past".into()))?;
    if millis <= now().0 {
        return Err(bad("it is past already".to_owned()));
    }
    Ok(Timestamp(millis))
}

async fn create_token(
    service: &OperatorService,
    by: &str,
    wanted: &rota_proto::operator::CreateToken,
) -> Answer {
    let invitation = super::enrol::invitation(wanted).map_err(ErrorView::from)?;
    let at = now();
    let token = service.access.create_token(&invitation, by, at).await.map_err(ErrorView::from)?;
    let expires_at = rfc3339(at.after(invitation.ttl));
    let view = NewTokenView { token: token.reveal(), id: token.id.clone(), expires_at };
    serde_json::to_value(view).map_err(|error| Sort::Internal.error(error.to_string(), ""))
}

/// What was asked, for the audit log.
struct Done<'a> {
    what: &'a str,
    target: String,
    message: &'a str,
}

async fn write_down(
    service: &OperatorService,
    caller: &Caller,
    done: Done<'_>,
    answer: &Result<Value, ErrorView>,
) {
    let (who, peer) = (caller.identity.to_string(), caller.peer_text());
    let deed = Deed {
        who: &who,
        peer: &peer,
        what: done.what,
        target: &done.target,
        message: done.message,
        result: answer.as_ref().map(|_| ()).map_err(|error| error.message.as_str()),
    };
    if let Err(error) = service.access.audit().record(&deed, now()).await {
        tracing::error!(%error, at = rfc3339(now()), what = done.what, "cannot write to the audit log");
    }
}

async fn ask(service: &OperatorService, caller: &Caller, ask: Ask) -> Answer {
    service.api.engine.ask(Asked { who: caller.identity.name().to_owned(), ask }).await
}
