//! What operators' requests say, checked here once: afterwards the types vouch. Nothing is done here.

use rota_proto::operator::{
    ControllerVerb, CreateToken, EnvVerb, Kind as WireKind, RolloutVerb, StartRequest,
};
use rota_rollout::names::{
    AppName, BadName, Digest, EnvName, Revision, RolloutId, Span, Timestamp,
};
use rota_rollout::rollout::Kind;
use rota_rollout::strategy::Amount;
use rota_rollout::verbs::Verb;

use crate::access::now;
use crate::calendar::BadWindow;
use crate::engine::{Ask, Given, RunAsked, Service, Start};
use crate::errors::Sort;
use crate::manifest::{Manifest, Problems};
use crate::view::ErrorView;

/// A command line that is longer belongs into a file; the kernel would take more, people read it in the audit log.
const COMMAND_BYTES_MAX: usize = 16 * 1024;

pub(super) fn bad_name(bad: BadName) -> ErrorView {
    Sort::Usage.error(bad.to_string(), "")
}

/// Reads a digest.
pub(in crate::serve) fn digest(text: &str) -> Result<Digest, ErrorView> {
    text.parse().map_err(bad_name)
}

pub(super) fn manifest(text: &str, name: &str) -> Result<Manifest, ErrorView> {
    Manifest::parse(text, name).map_err(problems)
}

pub(super) fn problems(problems: Problems) -> ErrorView {
    Sort::Manifest.error(problems.render(false), problems.hint().unwrap_or_default())
}

pub(super) fn start_of(asked: StartRequest) -> Result<Start, ErrorView> {
    let kind = match WireKind::try_from(asked.kind).unwrap_or(WireKind::Unspecified) {
        WireKind::Unspecified => {
            return Err(Sort::Usage.error("the kind of rollout is missing", ""));
        }
        WireKind::Deploy => Kind::Deploy,
        WireKind::Undo => Kind::Undo,
        WireKind::Restart => Kind::Restart,
        WireKind::Converge if asked.nodes.is_empty() => {
            return Err(Sort::Usage.error("no node is named", "`rota node converge NODE`"));
        }
        WireKind::Converge => Kind::Deploy,
        WireKind::Run => Kind::Run,
    };
    let run = (kind == Kind::Run).then(|| run_of(&asked)).transpose()?;
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
        message: asked.message.clone(),
        supersede: asked.supersede,
        break_fence: asked.break_fence,
        only: match asked.nodes.as_slice() {
            [] => None,
            nodes => Some(crate::wire::nodes(nodes).map_err(bad_name)?.into_iter().collect()),
        },
        by_itself: false,
        break_glass: match (asked.break_glass, asked.message.as_str()) {
            (false, _) => None,
            (true, "") => return Err(no_reason("--break-glass")),
            (true, why) => Some(why.to_owned()),
        },
        run,
        digest: match asked.digest.as_str() {
            "" => None,
            text => Some(digest(text)?),
        },
    })
}

/// The command of a run.
fn run_of(asked: &StartRequest) -> Result<RunAsked, ErrorView> {
    let bytes: usize = asked.run_command.iter().map(String::len).sum();
    if asked.run_command.first().is_none_or(String::is_empty) {
        return Err(Sort::Usage.error("there is no command to run", "`rota run APP -- CMD ARGS`"));
    }
    if bytes > COMMAND_BYTES_MAX {
        let message = format!("the command has {bytes} bytes; at most {COMMAND_BYTES_MAX} are run");
        return Err(Sort::Usage.error(message, "put it into a script of the release"));
    }
    if asked.run_timeout_ms == 0 {
        return Err(Sort::Usage.error("a command needs a time limit", "`--timeout 10m`"));
    }
    let bad = |error: &dyn std::fmt::Display| {
        Sort::Usage.error(format!("--batch {}: {error}", asked.run_batch), "for example 3 or 25%")
    };
    let batch = match asked.run_batch.parse::<i64>() {
        Ok(number) => Amount::try_from(number).map_err(|error| bad(&error))?,
        Err(_) => asked.run_batch.parse::<Amount>().map_err(|error| bad(&error))?,
    };
    Ok(RunAsked {
        argv: asked.run_command.clone(),
        timeout: Span(asked.run_timeout_ms),
        on: crate::wire::nodes(&asked.run_on).map_err(bad_name)?,
        batch,
        max_failures: asked.run_max_failures,
    })
}

pub(super) fn verb_of(verb: &RolloutVerb) -> Result<Verb, ErrorView> {
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

/// What breaks a rule says why.
pub(super) fn no_reason(what: &str) -> ErrorView {
    Sort::Usage.error(format!("{what} needs a reason"), "`-m WHY`")
}

/// What a verb with `--break-glass` comes to.
pub(super) fn act_of(id: RolloutId, verb: &RolloutVerb) -> Result<Ask, ErrorView> {
    let (wanted, why) = (verb_of(verb)?, verb.message.clone());
    let break_fence = verb.break_fence;
    if !verb.break_glass {
        return Ok(Ask::Act { id, verb: wanted, why, break_fence });
    }
    if why.is_empty() {
        return Err(no_reason("--break-glass"));
    }
    match wanted {
        Verb::Resume | Verb::Rollback | Verb::Retry(_) => {
            Ok(Ask::ActWithGlass { id, verb: wanted, why, break_fence })
        }
        Verb::Pause | Verb::Promote | Verb::Abort | Verb::Skip(_) | Verb::BreakGlass => {
            let message = format!("{wanted} starts no update: there is no glass to break");
            Err(Sort::Usage.error(message, "resume, rollback and retry take --break-glass"))
        }
    }
}

pub(super) fn controller(verb: ControllerVerb) -> Result<Ask, ErrorView> {
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

pub(super) fn env(verb: EnvVerb) -> Result<Ask, ErrorView> {
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
        "window-add" => {
            let window = verb.window.parse().map_err(|error: BadWindow| {
                Sort::Usage.error(error.to_string(), "several windows are added one by one")
            })?;
            Ok(Ask::AddWindow { env, window, why: verb.message })
        }
        "window-rm" => Ok(Ask::RemoveWindow { env, which: verb.window }),
        other => {
            let message = format!("an environment has no verb `{other}`");
            Err(Sort::Usage.error(message, "use freeze, unfreeze, window-add or window-rm"))
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
        let hint = "say a later one, or how long from now: 2h";
        return Err(Sort::Usage.error(format!("`{text}` is past already"), hint));
    }
    Ok(Timestamp(millis))
}

/// Whom a token is for: `operator vera as viewer in prod`.
pub(super) fn invited(wanted: &CreateToken) -> String {
    let mut words = vec![wanted.kind.clone()];
    for (before, word) in [("", &wanted.name), ("as ", &wanted.role), ("in ", &wanted.env)] {
        if !word.is_empty() {
            words.push(format!("{before}{word}"));
        }
    }
    words.join(" ")
}
