//! What can be read: one router for `/api/v1`, the `Read` and `Follow` calls and `-o json`.
//!
//! Paths are those of the public contract, without `/api/v1/`. Nothing here changes anything.

pub mod fleet;
pub mod rollouts;

use std::sync::Arc;

use rota_rollout::names::{AppName, EnvName, NodeName, Revision, RolloutId, Version};
use serde::Serialize;
use serde_json::Value;

use crate::access::{Access, Action, Caller};
use crate::engine::{self, Handle};
use crate::errors::Sort;
use crate::store::Store;
use crate::view::ErrorView;

/// Entries of logs that one answer has at the most.
const LOG_PAGE: usize = 500;

/// Everything that answers are made of.
#[derive(Clone)]
pub struct Api {
    /// The engine.
    pub engine: Handle,
    /// For what is over: history, logs.
    pub store: Arc<dyn Store>,
    /// For tokens and the audit log.
    pub access: Arc<Access>,
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

fn json(value: impl Serialize) -> Result<Value, ErrorView> {
    serde_json::to_value(value).map_err(|error| Sort::Internal.error(error.to_string(), ""))
}

fn name<T: std::str::FromStr<Err = rota_rollout::names::BadName>>(
    text: &str,
) -> Result<T, ErrorView> {
    text.parse()
        .map_err(|error: rota_rollout::names::BadName| Sort::Usage.error(error.to_string(), ""))
}

impl Api {
    /// One document.
    pub async fn read(&self, path: &str, reader: Reader<'_>) -> Result<Value, ErrorView> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            ["status"] => json(fleet::status(&self.engine.read(), reader)),
            ["nodes"] => json(fleet::nodes(&self.engine.read(), reader)),
            ["nodes", node] => self.node(&name(node)?, reader),
            ["edges"] => json(fleet::edges(&self.engine.read(), reader)),
            ["pools"] => json(fleet::pools(&self.engine.read(), reader)),
            ["pools", pool] => self.pool(pool, reader),
            ["releases"] => json(fleet::releases(&self.engine.read(), None)),
            ["releases", app] => {
                json(fleet::releases(&self.engine.read(), Some(&name::<AppName>(app)?)))
            }
            ["releases", app, version] => self.release(&name(app)?, &name(version)?),
            ["rollouts"] => self.rollouts(reader).await,
            ["rollouts", app, env] => self.rollout(name(app)?, name(env)?, None, reader).await,
            ["rollouts", app, env, revision] => {
                let revision = revision.parse().map(Revision).map_err(|_| {
                    Sort::Usage.error(format!("`{revision}` is not a revision"), "use a number")
                })?;
                self.rollout(name(app)?, name(env)?, Some(revision), reader).await
            }
            ["history", app, env] => self.history(&name(app)?, &name(env)?, reader).await,
            ["controllers"] => json(fleet::controllers(&self.engine.read())),
            ["envs"] => json(fleet::envs(&self.engine.read(), reader)),
            ["events"] => json(fleet::events(&self.engine.read(), query, reader)),
            ["tokens"] => {
                reader.may(Action::Tokens)?;
                json(self.access.tokens().await?)
            }
            ["audit"] => {
                reader.may(Action::ReadAudit)?;
                json(self.access.audit().last(LOG_PAGE).await?)
            }
            _ => Err(Sort::NotFound.error(format!("there is no document `{path}`"), "")),
        }
    }

    fn node(&self, node: &NodeName, reader: Reader<'_>) -> Result<Value, ErrorView> {
        let found = fleet::nodes(&self.engine.read(), reader)
            .into_iter()
            .find(|view| view.name == node.as_str());
        match found {
            Some(view) => json(view),
            None => Err(Sort::NotFound
                .error(format!("there is no node {node}"), "`rota node ls` lists them")),
        }
    }

    fn pool(&self, pool: &str, reader: Reader<'_>) -> Result<Value, ErrorView> {
        let found =
            fleet::pools(&self.engine.read(), reader).into_iter().find(|view| view.pool == pool);
        match found {
            Some(view) => json(view),
            None => Err(Sort::NotFound
                .error(format!("there is no pool {pool}"), "`rota pool ls` lists them")),
        }
    }

    fn release(&self, app: &AppName, version: &Version) -> Result<Value, ErrorView> {
        let state = self.engine.read();
        match state.releases.get(&(app.clone(), version.clone())) {
            Some(release) => json(fleet::release_details(&state, release)),
            None => Err(Sort::NotFound.error(
                format!("there is no release {version} of {app}"),
                format!("`rota release ls {app}` lists them"),
            )),
        }
    }

    /// One rollout, running or over; without a revision the newest.
    pub async fn rollout(
        &self,
        app: AppName,
        env: EnvName,
        revision: Option<Revision>,
        reader: Reader<'_>,
    ) -> Result<Value, ErrorView> {
        let missing = |what: String| {
            let hint = format!("`rota rollout history {app} --env {env}` lists them");
            Sort::NotFound.error(what, hint)
        };
        if !reader.sees(env.as_str()) {
            return Err(missing(format!("{app} has no rollout in {env}")));
        }
        let id = {
            let state = self.engine.read();
            let newest = state.fleets.get(&(app.clone(), env.clone())).map(|f| f.revision);
            let revision = revision
                .or(newest)
                .ok_or_else(|| missing(format!("{app} has no rollout in {env}")))?;
            let id = RolloutId { app: app.clone(), env: env.clone(), revision };
            if let Some(active) = state.rollouts.get(&id) {
                return json(rollouts::of_active(&state, active));
            }
            id
        };
        match engine::load_ended(self.store.as_ref(), &id).await? {
            Some(ended) => json(rollouts::of_ended(&ended)),
            None => Err(missing(format!("there is no rollout {id}"))),
        }
    }

    /// The newest rollout of every app in every environment.
    async fn rollouts(&self, reader: Reader<'_>) -> Result<Value, ErrorView> {
        let ids: Vec<RolloutId> = {
            let state = self.engine.read();
            let seen = state.fleets.iter().filter(|((_, env), _)| reader.sees(env.as_str()));
            seen.map(|((app, env), fleet)| RolloutId {
                app: app.clone(),
                env: env.clone(),
                revision: fleet.revision,
            })
            .collect()
        };
        let mut views = Vec::new();
        for id in ids {
            let RolloutId { app, env, revision } = id;
            views.push(self.rollout(app, env, Some(revision), reader).await?);
        }
        Ok(Value::Array(views))
    }

    async fn history(
        &self,
        app: &AppName,
        env: &EnvName,
        reader: Reader<'_>,
    ) -> Result<Value, ErrorView> {
        if !reader.sees(env.as_str()) {
            return json(Vec::<Value>::new());
        }
        json(engine::history(self.store.as_ref(), app, env).await?)
    }
}
