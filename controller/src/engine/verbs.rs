//! What operators change: rollouts, nodes, environments, releases. Refusals name what is in the way and the right verb.

use std::collections::BTreeMap;

use rota_rollout::names::{AppName, EnvName, NodeName, Revision, RolloutId, Timestamp, Version};
use rota_rollout::rollout::{Once, Stage};
use rota_rollout::verbs::{Verb, allow, with_glass};
use rota_rollout::{Rollout, What};
use serde_json::json;

use super::batch::Answer;
use super::carry::NewEvent;
use super::nodes::Drain;
use super::own::Service;
use super::records::{EnvRecord, Freeze, ReleaseRecord, WindowRecord, keys};
use super::state::AgentKey;
use super::{Start, Turn};
use crate::calendar::Window;
use crate::errors::Sort;
use crate::manifest::Manifest;
use crate::view::{AppliedView, ErrorView};

/// What an operator wants, and who he is.
#[derive(Clone)]
pub struct Asked {
    /// The name in his certificate.
    pub who: String,
    /// What.
    pub ask: Ask,
    /// Another controller sent it here.
    pub forwarded: bool,
}

/// What an operator wants.
#[derive(Clone)]
pub enum Ask {
    /// A new rollout.
    Start(Start),
    /// What a new rollout would do.
    Plan(Start),
    /// Something of a rollout, and why.
    Act { id: RolloutId, verb: Verb, why: String, break_fence: bool },
    /// The same, although the environment is frozen or its windows are closed.
    ActWithGlass { id: RolloutId, verb: Verb, why: String, break_fence: bool },
    /// A new release.
    Push(ReleaseRecord),
    /// No more than so many releases of each app, beside those that something needs.
    PruneReleases(usize),
    /// Of these rollouts only the history tells.
    SummedUp { app: AppName, env: EnvName, upto: Revision },
    /// No more of a release.
    RemoveRelease { app: AppName, version: Version },
    /// A node out of traffic.
    DrainNode { name: NodeName, asked: Drain },
    /// The node back into traffic.
    UndrainNode { name: NodeName },
    /// Other labels.
    LabelNode { name: NodeName, labels: BTreeMap<String, String> },
    /// Whether a node or edge may be removed; changes nothing.
    MayRemove(AgentKey),
    /// A node or edge that was revoked is forgotten.
    ForgetAgent(AgentKey),
    /// Nothing moves in an environment, and why.
    Freeze { env: EnvName, why: String, until: Option<Timestamp> },
    /// It moves again.
    Unfreeze { env: EnvName },
    /// One more time in which updates may start there.
    AddWindow { env: EnvName, window: Window, why: String },
    /// One less, by its number or its text.
    RemoveWindow { env: EnvName, which: String },
    /// A controller out of service, or back.
    Serve(Service),
}

fn not_found(what: impl Into<String>, hint: impl Into<String>) -> ErrorView {
    Sort::NotFound.error(what, hint)
}

/// What was done and what stands now, in one line.
pub(crate) fn applied(text: String) -> Answer {
    serde_json::to_value(AppliedView { text })
        .map_err(|error| Sort::Internal.error(error.to_string(), ""))
}

impl Turn<'_> {
    pub(super) fn asked(&mut self, asked: Asked) -> Answer {
        let who = asked.who;
        if let Ask::Act { id, verb: Verb::Rollback, why, break_fence }
        | Ask::ActWithGlass { id, verb: Verb::Rollback, why, break_fence } = &asked.ask
        {
            self.past_fence(id, &who, break_fence.then_some(why.as_str()))?;
        }
        match asked.ask {
            Ask::Start(start) => self.start(start, &who),
            Ask::Plan(start) => self.plan_only(start),
            Ask::Act { id, verb, why, .. } if verb == Verb::Pause && !why.is_empty() => {
                self.act(&id, verb, &format!("{who}: {why}"))
            }
            Ask::Act { id, verb, .. } => self.act(&id, verb, &who),
            Ask::ActWithGlass { id, verb, why, .. } => self.act_with_glass(&id, verb, &who, &why),
            Ask::AddWindow { env, window, why } => {
                let (text, since) = (window.to_string(), self.at);
                self.add_window(&env, WindowRecord { text, why, who, since })
            }
            Ask::RemoveWindow { env, which } => self.remove_window(&env, &which, &who),
            Ask::Push(release) => self.push(release),
            Ask::PruneReleases(keep) => self.prune_releases(keep),
            Ask::SummedUp { app, env, upto } => self.summed_up(app, env, upto),
            Ask::RemoveRelease { app, version } => self.remove_release(&app, &version),
            Ask::DrainNode { name, asked } => self.drain_node(&name, &asked, &who),
            Ask::UndrainNode { name } => self.undrain_node(&name, &who),
            Ask::MayRemove(key) => self.may_remove(&key),
            Ask::LabelNode { name, labels } => self.label_node(&name, labels),
            Ask::ForgetAgent(key) => self.forget_agent(&key),
            Ask::Freeze { env, why, until } => {
                self.freeze(&env, Freeze { why, who, since: self.at, until })
            }
            Ask::Unfreeze { env } => self.unfreeze(&env, &who),
            Ask::Serve(service) => self.serve_on(&service, &who),
        }
    }

    pub(super) fn act(&mut self, id: &RolloutId, verb: Verb, who: &str) -> Answer {
        let Some(active) = self.state.rollouts.get(id) else {
            return Err(self.no_such_rollout(id, &verb));
        };
        allow(&active.rollout, &verb)
            .map_err(|refusal| Sort::Refused.error(refusal.reason, refusal.hint))?;
        let deed = verb.to_string();
        if accepts_once(&active.rollout, &verb) {
            self.once_succeeded(id);
        }
        self.step(id, What::Asked { verb, who: who.to_owned() });
        applied(format!("rollout {id}: {deed} accepted; {}", self.outcome(id)))
    }

    /// How a rollout stands now. Where nothing is left to do it is over only when its edges have said their last word,
    /// and until then it is shown as going on.
    fn outcome(&self, id: &RolloutId) -> String {
        let Some(active) = self.state.rollouts.get(id) else { return "it is over".to_owned() };
        let is = if active.last_words.is_some() { "it ends as" } else { "it is" };
        format!("{is} {}", active.rollout.state().replace('_', " "))
    }

    fn act_with_glass(&mut self, id: &RolloutId, verb: Verb, who: &str, why: &str) -> Answer {
        let Some(active) = self.state.rollouts.get(id) else {
            return Err(self.no_such_rollout(id, &verb));
        };
        let deed = verb.to_string();
        let verbs = with_glass(&active.rollout, verb)
            .map_err(|refusal| Sort::Refused.error(refusal.reason, refusal.hint))?;
        for verb in verbs {
            let who =
                if verb == Verb::BreakGlass { format!("{who}: {why}") } else { who.to_owned() };
            self.step(id, What::Asked { verb, who });
        }
        applied(format!("rollout {id}: {deed} with the glass broken; {}", self.outcome(id)))
    }

    fn no_such_rollout(&self, id: &RolloutId, verb: &Verb) -> ErrorView {
        let fleet = self.state.fleets.get(&(id.app.clone(), id.env.clone()));
        match fleet {
            Some(fleet) if id.revision <= fleet.revision && id.revision.0 > 0 => {
                let over = rota_rollout::verbs::over(id, verb);
                Sort::Refused.error(over.reason, over.hint)
            }
            Some(_) | None => not_found(
                format!("there is no rollout {id}"),
                format!("`rota rollout history {} --env {}` lists them", id.app, id.env),
            ),
        }
    }

    fn push(&mut self, release: ReleaseRecord) -> Answer {
        let key = (release.app.clone(), release.version.clone());
        let answer = json!({
            "app": release.app, "version": release.version, "digest": release.digest,
        });
        if let Some(old) = self.state.releases.get(&key) {
            same_release(old, &release)?;
            return Ok(answer);
        }
        self.put_shared(keys::release(&release.app, &release.version), &release);
        let text = format!(
            "release {} {} ({}) pushed by {}",
            release.app,
            release.version,
            release.digest.short(),
            release.who
        );
        let app = Some(release.app.to_string());
        self.event(NewEvent { app, ..NewEvent::new("release", text) });
        self.state.releases.insert(key, release);
        Ok(answer)
    }

    fn remove_release(&mut self, app: &AppName, version: &Version) -> Answer {
        let key = (app.clone(), version.clone());
        let Some(release) = self.state.releases.get(&key) else {
            return Err(not_found(
                format!("there is no release {version} of {app}"),
                format!("`rota release ls {app}` lists them"),
            ));
        };
        let release = release.release();
        if let Some(user) = self.user_of(app, &release) {
            let hint = format!(
                "only what nothing runs and nothing may return to can be removed: \
                 `rota release ls {app}`"
            );
            return Err(Sort::Refused.error(format!("release {version} of {app} is {user}"), hint));
        }
        self.forget_release(app, version);
        applied(format!("release {version} of {app} is removed"))
    }

    /// Nobody may have begun to move to it meanwhile.
    pub(super) fn forget_release(&mut self, app: &AppName, version: &Version) {
        let fleets = self.state.fleets.keys().filter(|(of, _)| of == app);
        let fleets: Vec<String> = fleets.map(|(app, env)| keys::fleet(app, env)).collect();
        fleets.iter().for_each(|key| self.rely_on(key));
        self.rely_on(&keys::release(app, version));
        self.batch.delete(keys::release(app, version));
        self.state.releases.remove(&(app.clone(), version.clone()));
    }

    /// Who still needs a release?
    pub(super) fn user_of(&self, app: &AppName, release: &rota_rollout::Release) -> Option<String> {
        for ((of, env), fleet) in self.state.fleets.iter().filter(|((of, _), _)| of == app) {
            let current = fleet.currents.last().map(|current| &current.release);
            if current == Some(release) {
                return Some(format!("current in {env}"));
            }
            // As an undo looks for it: revisions that brought the same release again lie between.
            let mut earlier = fleet.currents.iter().rev().map(|it| Some(&it.release));
            if earlier.find(|it| *it != current) == Some(Some(release)) {
                return Some(format!("the way back in {env}"));
            }
            if self.state.open(of, env).any(|active| {
                active.rollout.spec.to == *release
                    || active.rollout.spec.from.as_ref() == Some(release)
            }) {
                return Some(format!("part of the rollout that runs in {env}"));
            }
        }
        if let Some(id) = self.state.may_return_to(app, release) {
            return Some(format!("what nodes of rollout {id} may return to"));
        }
        let on = self.state.nodes().find(|(_, agent)| {
            agent.record.apps.iter().any(|a| a.app == *app && a.release.as_ref() == Some(release))
        });
        on.map(|(name, _)| format!("on {name}"))
    }

    fn freeze(&mut self, env: &EnvName, freeze: Freeze) -> Answer {
        let why = format!("{} (by {})", freeze.why, freeze.who);
        let before = super::admission::refusals::frozen(self.state, env);
        let until = freeze.until.map(crate::access::rfc3339);
        let until = until.unwrap_or_else(|| format!("`rota env unfreeze {env}`"));
        self.set_frozen(env, Some(freeze), Some(why.clone()));
        let text = format!("environment {env} frozen: {why}");
        self.event(NewEvent { env: Some(env.to_string()), ..NewEvent::new("controller", text) });
        let empty = !self.state.nodes().any(|(_, agent)| agent.record.env == env.as_str());
        let empty = if empty { "; no node is in it" } else { "" };
        let before = before.map(|why| format!("; in place of: {why}"));
        let before = before.unwrap_or_default();
        applied(format!("environment {env} is frozen until {until}{empty}{before}"))
    }

    fn unfreeze(&mut self, env: &EnvName, who: &str) -> Answer {
        if self.state.envs.get(env).is_none_or(|record| record.frozen.is_none()) {
            let hint = "there is nothing to unfreeze: `rota env ls` shows which environments are";
            return Err(Sort::Refused.error(format!("environment {env} is not frozen"), hint));
        }
        self.set_frozen(env, None, None);
        let text = format!("environment {env} unfrozen by {who}");
        self.event(NewEvent { env: Some(env.to_string()), ..NewEvent::new("controller", text) });
        applied(format!("environment {env} is not frozen any more"))
    }

    fn set_frozen(&mut self, env: &EnvName, freeze: Option<Freeze>, frozen: Option<String>) {
        let mut record = self.state.envs.get(env).cloned().unwrap_or_default();
        record.frozen = freeze;
        self.keep_env(env, record);
        self.guard(env);
        let there: Vec<RolloutId> = self.state.own().filter(|id| id.env == *env).cloned().collect();
        for id in there {
            self.step(&id, What::Frozen(frozen.clone()));
        }
    }

    /// What is said of an environment; nothing is kept of one of which nothing is said.
    pub(super) fn keep_env(&mut self, env: &EnvName, record: EnvRecord) {
        let key = format!("{}{env}", keys::ENVS);
        if record.is_empty() {
            self.state.envs.remove(env);
            return self.batch.delete(key);
        }
        let written = self.batch.put(key, &record);
        self.written(written);
        self.state.envs.insert(env.clone(), record);
    }

    /// Freezes that have an end, end.
    pub(super) fn thaw(&mut self) {
        let at = self.at;
        let over = |record: &EnvRecord| {
            record.frozen.as_ref().and_then(|freeze| freeze.until).is_some_and(|until| until <= at)
        };
        let due: Vec<EnvName> = self
            .state
            .envs
            .iter()
            .filter(|(_, record)| over(record))
            .map(|(env, _)| env.clone())
            .collect();
        for env in due {
            if let Err(error) = self.unfreeze(&env, "the clock") {
                tracing::error!(%env, message = error.message, "cannot end a freeze");
            }
        }
    }
}

/// Does an operator say that the once-per-release job took effect? Then it never runs again for this release.
fn accepts_once(rollout: &Rollout, verb: &Verb) -> bool {
    let unknown = matches!(rollout.head.stage, Stage::Once(Once::Unknown { .. }));
    *verb == Verb::Resume && unknown && rollout.head.paused.is_none()
}

/// A version that is pushed again must be the same release.
fn same_release(old: &ReleaseRecord, new: &ReleaseRecord) -> Result<(), ErrorView> {
    if old.digest != new.digest {
        return Err(Sort::Refused.error(
            format!(
                "release {} {} exists with another artifact: {} there, {} here",
                new.app,
                new.version,
                old.digest.short(),
                new.digest.short()
            ),
            "a release never changes: choose another --version",
        ));
    }
    let parse = |record: &ReleaseRecord| Manifest::parse(&record.manifest, &record.manifest_name);
    let (Ok(before), Ok(now)) = (parse(old), parse(new)) else { return Ok(()) };
    before.same_release(&now).map_err(|difference| {
        Sort::Refused.error(
            format!(
                "release {} {} exists with another manifest: {difference}",
                new.app, new.version
            ),
            "a release never changes: choose another --version \
             ([strategy] and [target] may differ)",
        )
    })
}

#[cfg(test)]
mod matrix;
