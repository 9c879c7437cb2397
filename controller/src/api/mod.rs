//! What can be read: one router for `/api/v1`, the `Read` and `Follow` calls and `-o json`.
//!
//! Paths are those of the public contract, without `/api/v1/`. Nothing here changes anything.

mod documents;
pub mod drains;
pub mod envs;
pub mod fleet;
pub mod glance;
mod known;
pub mod rollouts;
pub mod traces;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rota_rollout::names::{AppName, EnvName, NodeName, Revision, RolloutId, Version};
use serde::Serialize;

use crate::access::{Access, Action, Caller};
use crate::artifact::Format;
use crate::artifact::peers::Artifacts;
use crate::engine::{self, Handle, State};
use crate::errors::Sort;
use crate::store::Store;
use crate::view::{ErrorView, RolloutView};

/// Entries of logs that one answer has at the most.
const LOG_PAGE: usize = 500;

/// Rollouts of one app in one environment that a list has at the most; `rota rollout history` has all.
const ROLLOUTS_LISTED_MAX: usize = 20;

/// Everything that answers are made of.
#[derive(Clone)]
pub struct Api {
    /// The engine.
    pub engine: Handle,
    /// For what is over: history, logs.
    pub store: Arc<dyn Store>,
    /// For tokens and the audit log.
    pub access: Arc<Access>,
    /// For what is in releases.
    pub artifacts: Artifacts,
}

/// Who reads: an operator sees what his role shows, the local dashboard everything but the audit log and tokens.
#[derive(Clone, Copy)]
pub enum Reader<'a> {
    /// An operator.
    Operator(&'a Caller),
    /// Somebody on the controller's host.
    Local,
}

impl Reader<'_> {
    /// May it see what belongs to this environment?
    pub fn sees(&self, env: &str) -> bool {
        match self {
            Self::Operator(caller) => caller.sees(env),
            Self::Local => true,
        }
    }

    fn may(&self, action: Action) -> Result<(), ErrorView> {
        match self {
            Self::Operator(caller) => {
                crate::access::allow(caller, action, None).map_err(ErrorView::from)
            }
            Self::Local => Err(Sort::NotPermitted.error(
                "this is not shown without a certificate",
                "use the `rota` command with an operator's context",
            )),
        }
    }
}

/// What a query says of a key; nothing where it is empty.
fn asked<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(of, _)| *of == key).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// One document, written out.
#[derive(Debug)]
pub struct Page {
    /// Its text.
    pub json: String,
    /// It will never be another one: a rollout that is over.
    pub last: bool,
    /// How long it took to make, without waiting until what it shows was durable.
    pub took: Duration,
}

/// Writes a document out: straight into its text, and never while the state is held, for one of a large fleet takes
/// long.
fn json(value: impl Serialize) -> Result<Page, ErrorView> {
    let json = serde_json::to_string(&value);
    let json = json.map_err(|error| Sort::Internal.error(error.to_string(), ""))?;
    Ok(Page { json, last: false, took: Duration::ZERO })
}

/// For a path that leads nowhere.
pub fn no_document(path: &str) -> ErrorView {
    Sort::NotFound.error(format!("there is no document `{path}`"), "`GET /api/v1` lists them")
}

fn name<T: std::str::FromStr<Err = rota_rollout::names::BadName>>(
    text: &str,
) -> Result<T, ErrorView> {
    text.parse()
        .map_err(|error: rota_rollout::names::BadName| Sort::Usage.error(error.to_string(), ""))
}

impl Api {
    /// One document, of what is durable.
    pub async fn read(&self, path: &str, reader: Reader<'_>) -> Result<Page, ErrorView> {
        self.engine.catch_up().await;
        self.again(path, reader).await
    }

    /// The same for whoever has read it before: what other controllers did comes by itself.
    pub async fn again(&self, path: &str, reader: Reader<'_>) -> Result<Page, ErrorView> {
        loop {
            let (mark, began) = (self.engine.mark(), Instant::now());
            let seen = self.look(path, reader).await;
            let took = began.elapsed();
            if self.engine.is_durable(mark).await {
                return seen.map(|page| Page { took, ..page });
            }
        }
    }

    /// What is to be seen of the state, which is held no longer than that takes.
    fn see<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.engine.read())
    }

    /// One document, of what may become durable a moment later.
    async fn look(&self, path: &str, reader: Reader<'_>) -> Result<Page, ErrorView> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        self.known_in(query, reader)?;
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] => json(documents::documents()),
            ["status"] => json(self.see(|state| glance::status(state, query, reader))),
            ["nodes"] => json(self.see(|state| fleet::nodes_and_removed(state, query, reader))),
            ["nodes", node] => self.node(&name(node)?, reader),
            ["edges"] => json(self.see(|state| fleet::edges(state, reader))),
            ["pools"] => json(self.see(|state| fleet::pools(state, reader))),
            ["pools", pool] => self.pool(pool, reader),
            ["releases"] => json(self.see(|state| fleet::releases(state, None))),
            ["releases", app] => {
                let app = name(app)?;
                self.known_app(&app)?;
                json(self.see(|state| fleet::releases(state, Some(&app))))
            }
            ["releases", app, version] => self.release(&name(app)?, &name(version)?),
            ["releases", app, version, "files"] => self.files(&name(app)?, &name(version)?).await,
            ["rollouts"] => self.rollouts(query, reader).await,
            ["rollouts", app, env] => self.rollout(name(app)?, name(env)?, None, reader).await,
            ["rollouts", app, env, revision] => {
                let revision = revision.parse().map(Revision).map_err(|_| {
                    Sort::Usage.error(format!("`{revision}` is not a revision"), "use a number")
                })?;
                self.rollout(name(app)?, name(env)?, Some(revision), reader).await
            }
            ["rollouts", app, env, revision, "traces"] => {
                self.traces((app, env, revision), None, reader).await
            }
            ["rollouts", app, env, revision, "traces", node] => {
                self.traces((app, env, revision), Some(&name(node)?), reader).await
            }
            ["rollouts", app, env, revision, "events"] => {
                self.events_of((app, env, revision), reader).await
            }
            ["history", app, env] => self.history(&name(app)?, &name(env)?, reader).await,
            ["drains", node] => {
                let node = name(node)?;
                match self.see(|state| drains::drain(state, &node, reader)) {
                    Some(view) => json(view),
                    None => Err(Sort::NotFound
                        .error(format!("there is no node {node}"), "`rota node ls` lists them")),
                }
            }
            ["controllers"] => json(self.see(fleet::controllers)),
            ["envs"] => json(self.see(|state| envs::envs(state, reader))),
            ["events"] => json(self.see(|state| fleet::events(state, query, reader))),
            ["tokens"] => {
                reader.may(Action::Tokens)?;
                json(self.access.tokens().await?)
            }
            ["audit"] => {
                reader.may(Action::ReadAudit)?;
                json(self.access.audit().last(LOG_PAGE).await?)
            }
            _ => Err(no_document(path)),
        }
    }

    fn node(&self, node: &NodeName, reader: Reader<'_>) -> Result<Page, ErrorView> {
        match self.see(|state| fleet::node(state, node, reader)) {
            Some(view) => json(view),
            None => Err(Sort::NotFound
                .error(format!("there is no node {node}"), "`rota node ls` lists them")),
        }
    }

    /// The events of one rollout, oldest first, as far as the log goes back.
    async fn events_of(
        &self,
        (app, env, revision): (&str, &str, &str),
        reader: Reader<'_>,
    ) -> Result<Page, ErrorView> {
        let id: RolloutId = name(&format!("{app}/{env}/{revision}"))?;
        if !reader.sees(env) {
            return json([(); 0]);
        }
        json(traces::events(self.store.as_ref(), &id).await?)
    }

    /// What the attempts of a rollout's nodes left behind.
    async fn traces(
        &self,
        (app, env, revision): (&str, &str, &str),
        node: Option<&NodeName>,
        reader: Reader<'_>,
    ) -> Result<Page, ErrorView> {
        let missing =
            || Sort::NotFound.error(format!("there is no rollout {app}/{env}/{revision}"), "");
        if !reader.sees(env) {
            return Err(missing());
        }
        let id: RolloutId = name(&format!("{app}/{env}/{revision}"))?;
        json(traces::traces(self.store.as_ref(), &id, node).await?)
    }

    fn pool(&self, pool: &str, reader: Reader<'_>) -> Result<Page, ErrorView> {
        let pools = self.see(|state| fleet::pools(state, reader));
        match pools.into_iter().find(|view| view.pool == pool) {
            Some(view) => json(view),
            None => Err(Sort::NotFound
                .error(format!("there is no pool {pool}"), "`rota pool ls` lists them")),
        }
    }

    fn release(&self, app: &AppName, version: &Version) -> Result<Page, ErrorView> {
        let state = self.engine.read();
        match state.releases.get(&(app.clone(), version.clone())) {
            Some(release) => json(fleet::release_details(&state, release)),
            None => Err(Sort::NotFound.error(
                format!("there is no release {version} of {app}"),
                format!("`rota release ls {app}` lists them"),
            )),
        }
    }

    /// What is in a release, file by file.
    async fn files(&self, app: &AppName, version: &Version) -> Result<Page, ErrorView> {
        let (digest, format) = {
            let state = self.engine.read();
            let key = (app.clone(), version.clone());
            let release = state.releases.get(&key).ok_or_else(|| {
                Sort::NotFound.error(
                    format!("there is no release {version} of {app}"),
                    format!("`rota release ls {app}` lists them"),
                )
            })?;
            let format = Format::of_name(&format!("artifact.{}", release.format));
            (release.digest.clone(), format.unwrap_or(Format::Tar))
        };
        self.artifacts.brought(&digest).await?;
        let known = self.artifacts.here.files(&digest, format).await;
        let refused = |why: String| Sort::Refused.error(format!("release {version}: {why}"), "");
        match known {
            Ok(Ok(listing)) => json(listing),
            Ok(Err(why)) => Err(refused(why)),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// One rollout, running or over; without a revision the newest.
    pub async fn rollout(
        &self,
        app: AppName,
        env: EnvName,
        revision: Option<Revision>,
        reader: Reader<'_>,
    ) -> Result<Page, ErrorView> {
        let missing = |what: String| {
            let hint = format!("`rota rollout history {app} --env {env}` lists them");
            Sort::NotFound.error(what, hint)
        };
        if !reader.sees(env.as_str()) {
            return Err(missing(format!("{app} has no rollout in {env}")));
        }
        let none = || {
            Sort::NotFound.error(
                format!("{app} has no rollout in {env}"),
                "`rota deploy` starts one; `rota rollout ls` lists those there are",
            )
        };
        let newest =
            || self.engine.read().fleets.get(&(app.clone(), env.clone())).map(|f| f.revision);
        let revision = revision.or_else(newest).ok_or_else(none)?;
        let id = RolloutId { app: app.clone(), env: env.clone(), revision };
        match self.found(id.clone()).await? {
            Some(view) => Ok(Page { last: view.finished_at.is_some(), ..json(view)? }),
            None if self.is_summed_up(&id) => {
                Err(missing(format!("of rollout {id} only its line in the history is kept")))
            }
            None => Err(missing(format!("there is no rollout {id}"))),
        }
    }

    /// A rollout, running or over, if there is one.
    async fn found(&self, id: RolloutId) -> Result<Option<RolloutView>, ErrorView> {
        {
            let state = self.engine.read();
            if let Some(active) = state.rollouts.get(&id) {
                return Ok(Some(rollouts::of_active(&state, active)));
            }
        }
        let ended = engine::load_ended(self.store.as_ref(), &id).await?;
        Ok(ended.map(|ended| rollouts::of_ended(&ended)))
    }

    fn is_summed_up(&self, id: &RolloutId) -> bool {
        let state = self.engine.read();
        let fleet = state.fleets.get(&(id.app.clone(), id.env.clone()));
        fleet.is_some_and(|fleet| id.revision.0 > 0 && id.revision.0 <= fleet.summed_up)
    }

    /// The newest rollouts of every app in every environment that `app=` and `env=` of the query leave: those that
    /// run first, then by their start. The nodes are listed of the newest of each only.
    async fn rollouts(&self, query: &str, reader: Reader<'_>) -> Result<Page, ErrorView> {
        let (only_app, only_env) = (asked(query, "app"), asked(query, "env"));
        let newest: Vec<(AppName, EnvName, u64)> = {
            let state = self.engine.read();
            let wanted = |(app, env): &(AppName, EnvName)| {
                reader.sees(env.as_str())
                    && only_app.is_none_or(|only| only == app.as_str())
                    && only_env.is_none_or(|only| only == env.as_str())
            };
            let fleets = state.fleets.iter().filter(|(key, _)| wanted(key));
            fleets.map(|((app, env), f)| (app.clone(), env.clone(), f.revision.0)).collect()
        };
        let mut views: Vec<RolloutView> = Vec::new();
        for (app, env, newest) in newest {
            for revision in (1..=newest).rev().take(ROLLOUTS_LISTED_MAX) {
                let id =
                    RolloutId { app: app.clone(), env: env.clone(), revision: Revision(revision) };
                if revision != newest
                    && let Some(view) = rollouts::summary(self.store.as_ref(), &id).await?
                {
                    views.push(view);
                    continue;
                }
                let Some(view) = self.found(id).await? else { continue };
                let whole = revision == newest || view.finished_at.is_none();
                views.push(if whole { view } else { rollouts::summed_up(view) });
            }
        }
        let started = |view: &RolloutView| view.started_at.parse::<jiff::Timestamp>().ok();
        views.sort_by_key(|view| (view.finished_at.is_some(), Reverse(started(view))));
        json(views)
    }

    async fn history(
        &self,
        app: &AppName,
        env: &EnvName,
        reader: Reader<'_>,
    ) -> Result<Page, ErrorView> {
        self.known_app(app)?;
        self.known_env(env.as_str(), reader)?;
        json(engine::history(self.store.as_ref(), app, env).await?)
    }
}
