//! What operators' requests come to: checked here once, decided by the engine, written into the audit log.

mod asked;
mod controller;
mod late;
mod release;

use rota_identity::Kind as IdentityKind;
use rota_proto::operator::change::Change as Wanted;
use rota_proto::operator::{
    Change, CreateToken, Document, Kind, NodeVerb, RolloutVerb, StartRequest,
};
use rota_rollout::names::{AppName, EnvName, NodeName, RolloutId, Span};
use serde_json::Value;
use tonic::{Response, Status};

use super::operators::{OperatorService, document};
use crate::access::audit::Deed;
use crate::access::{Action, Caller, now, rfc3339};
use crate::engine::place::ELSEWHERE;
use crate::engine::records::CommandRecord;
use crate::engine::{AgentKey, Answer, Ask, Asked, Drain};
use crate::errors::{Sort, status};
use crate::view::{ErrorView, NewTokenView};
use crate::words;
use asked::{act_of, bad_name, env, invited, start_of};

pub(super) use asked::digest;
pub(super) use release::{artifact, push, upload};

/// What a start would do.
pub(super) async fn plan(
    service: &OperatorService,
    caller: &Caller,
    asked: StartRequest,
) -> Result<Response<Document>, Status> {
    if asked.break_glass {
        // Told before anything is pushed.
        service.access.permit(caller, Action::BreakGlass, Some(&asked.env), &asked.app).await?;
    }
    let start = start_of(asked).map_err(status)?;
    document(ask(service, caller, Ask::Plan(start)).await)
}

/// Begins a rollout.
pub(super) async fn start(
    service: &OperatorService,
    caller: &Caller,
    asked: StartRequest,
) -> Result<Response<Document>, Status> {
    let command = CommandRecord { argv: asked.run_command.clone(), timeout: Span::ZERO };
    let thing = if asked.kind() == Kind::Run { command.line() } else { asked.release.clone() };
    let target = format!("{}/{} {thing}", asked.app, asked.env).trim_end().to_owned();
    let message = why(&asked.message)?;
    let what = with_flag(deed(&asked), asked.break_glass);
    if asked.break_glass {
        service.access.permit(caller, Action::BreakGlass, Some(&asked.env), &target).await?;
    }
    let answer = match start_of(asked) {
        Ok(start) => ask(service, caller, Ask::Start(start)).await,
        Err(error) => Err(error),
    };
    let done = Done { what: &what, target, message: &message };
    write_down(service, caller, done, &answer).await;
    document(answer)
}

/// What the audit log calls it.
fn deed(asked: &StartRequest) -> String {
    let what = match asked.kind() {
        Kind::Undo => "rollout undo",
        Kind::Restart => "restart",
        Kind::Converge => "node converge",
        Kind::Run => "run",
        Kind::Deploy | Kind::Unspecified => "rollout start",
    };
    format!("{what}{}", broken(asked.break_fence))
}

fn broken(fence: bool) -> &'static str {
    if fence { " --break-fence" } else { "" }
}

/// Every other change.
pub(super) async fn apply(
    service: &OperatorService,
    caller: &Caller,
    change: Change,
) -> Result<Response<Document>, Status> {
    let missing = || {
        let hint = "a newer `rota` asked for it: upgrade the controllers first";
        status(Sort::Usage.error("this controller does not know what is asked for", hint))
    };
    let wanted = change.change.ok_or_else(missing)?;
    why(reason(&wanted))?;
    match wanted {
        Wanted::Rollout(verb) => rollout(service, caller, verb).await,
        Wanted::Node(verb) => node(service, caller, verb).await,
        Wanted::Env(verb) => {
            let action = Action::Freeze;
            service.access.permit(caller, action, Some(&verb.env), &verb.env).await?;
            let what = format!("env {}", verb.verb.replace('-', " "));
            let target = format!("{} {}", verb.env, verb.window).trim_end().to_owned();
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
            let target = invited(&wanted);
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
        Wanted::Controller(verb) => controller::apply(service, caller, verb).await,
    }
}

/// A reason that can be kept and shown.
fn why(message: &str) -> Result<String, Status> {
    let kept = words::why(message);
    kept.map_err(|why| {
        status(Sort::Usage.error(format!("the message (-m) is not kept: {why}"), ""))
    })
}

fn reason(wanted: &Wanted) -> &str {
    match wanted {
        Wanted::Rollout(verb) => &verb.message,
        Wanted::Node(verb) => &verb.message,
        Wanted::Env(verb) => &verb.message,
        Wanted::CreateToken(_)
        | Wanted::RemoveToken(_)
        | Wanted::RemoveRelease(_)
        | Wanted::Controller(_) => "",
    }
}

async fn rollout(
    service: &OperatorService,
    caller: &Caller,
    verb: RolloutVerb,
) -> Result<Response<Document>, Status> {
    let id = newest(service, &verb.id).map_err(status)?;
    let (env, target) = (id.env.to_string(), id.to_string());
    service.access.permit(caller, Action::ActOnRollout, Some(&env), &target).await?;
    if verb.break_glass {
        service.access.permit(caller, Action::BreakGlass, Some(&env), &target).await?;
    }
    let what =
        with_flag(format!("rollout {}{}", verb.verb, broken(verb.break_fence)), verb.break_glass);
    let answer = match act_of(id.clone(), &verb) {
        Ok(wanted) => late::answer(service, (&id, &verb), ask(service, caller, wanted).await).await,
        Err(error) => Err(error),
    };
    let done = Done { what: &what, target, message: &verb.message };
    write_down(service, caller, done, &answer).await;
    document(answer)
}

/// The deed as the audit log names it.
fn with_flag(mut what: String, broke_glass: bool) -> String {
    if broke_glass {
        what.push_str(" --break-glass");
    }
    what
}

/// `APP/ENV/REVISION`.
pub(super) fn rollout_of(id: &str) -> Result<RolloutId, ErrorView> {
    id.parse().map_err(bad_name)
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
        let hint = "`rota deploy` starts one; `rota rollout ls` lists those there are";
        Sort::NotFound.error(format!("{app} has no rollout in {env}"), hint)
    })?;
    Ok(RolloutId { app, env, revision })
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
        "drain" => {
            let asked = Drain { why: verb.message.clone(), force: verb.force };
            Ok(Ask::DrainNode { name: name.clone(), asked })
        }
        "undrain" => Ok(Ask::UndrainNode { name: name.clone() }),
        "label" => {
            Ok(Ask::LabelNode { name: name.clone(), labels: verb.labels.into_iter().collect() })
        }
        "rm" => {
            // Also where it is forced: whoever decides it revokes the certificate, too.
            let may = ask(service, caller, Ask::MayRemove(key.clone())).await;
            match may {
                Err(error) if !verb.force || error.kind == ELSEWHERE => Err(error),
                Ok(_) | Err(_) => {
                    let revoked = revoke(service, &key, &name, &verb.message).await;
                    revoked.map(|()| Ask::ForgetAgent(key))
                }
            }
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
    let what = format!("node {}{}", verb.verb, if verb.force { " --force" } else { "" });
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

async fn create_token(service: &OperatorService, by: &str, wanted: &CreateToken) -> Answer {
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
    if answer.as_ref().is_err_and(|error| error.kind == ELSEWHERE) {
        return; // whoever decides it writes it down
    }
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
        let at = rfc3339(now());
        tracing::error!(%error, at, what = done.what, "cannot write to the audit log");
    }
}

async fn ask(service: &OperatorService, caller: &Caller, ask: Ask) -> Answer {
    let (who, forwarded) = (caller.identity.name().to_owned(), caller.forwarded);
    service.api.engine.ask(Asked { who, ask, forwarded }).await
}
