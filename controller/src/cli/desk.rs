//! What every command works with: its streams, and a client of the chosen context.

use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::SystemTime;

use rota_proto::operator::{Change, change};
use rota_rollout::names::{AppName, EnvName};
use serde::de::DeserializeOwned;

use super::outcome::{Exit, Failure};
use super::render::List;
use super::talk::{self, Format, Page, Talk};
use crate::client::{Client, ClientError, Learner};
use crate::context::{self, Context};
use crate::view::AppliedView;

/// The streams and the context of one command.
#[derive(Debug)]
pub struct Desk {
    /// Where words go.
    pub talk: Talk,
    /// What the command line says of it, and what ROTA_CONTEXT says when that says nothing.
    context: Option<String>,
    env_context: Option<String>,
    /// Which controllers are asked is said once, however many calls a command makes.
    introduced: Once,
}

impl Desk {
    /// What the command line says; nothing is read or dialled yet.
    pub fn new(talk: Talk, context: Option<String>, env_context: Option<String>) -> Self {
        let said = |name: Option<String>| name.filter(|name| !name.is_empty());
        let (context, env_context) = (said(context), said(env_context));
        Self { talk, context, env_context, introduced: Once::new() }
    }

    /// What `--context` or `ROTA_CONTEXT` says.
    pub fn context_name(&self) -> Option<&str> {
        self.context.as_deref().or(self.env_context.as_deref())
    }

    /// What `--context` says.
    pub fn context_asked(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// A client of the context.
    pub fn client(&self) -> Result<Client, Failure> {
        let context = Context::find(self.context_name(), &default_contexts()?)
            .map_err(|error| Failure::usage(super::outcome::chain(&error)))?;
        let config = context.client_config().map_err(|error| {
            let deed = format!("cannot use the certificate of context {}", context.name);
            Failure::internal(&deed, &error)
        })?;
        let controllers = list(&context.controllers);
        let introduce = || self.talk.detail(&format!("context {}: {controllers}", context.name));
        self.introduced.call_once(introduce);
        // Several controllers are equals: begin anywhere.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let first = usize::try_from(now.subsec_nanos()).unwrap_or(0);
        let (path, name) =
            (context::file_of(self.context_name(), &default_contexts()?), context.name);
        let keep = move |said: &[String]| {
            if let Err(error) = context::learn(&path, &name, said) {
                // A context that cannot be written still works with what it has.
                tracing::debug!(%error, "the addresses of the controllers are not kept");
            }
        };
        let learner = Learner(Arc::new(keep));
        Ok(Client::new(context.controllers, config, first).learning(learner))
    }

    /// Reads a document and prints it.
    pub async fn show<T: DeserializeOwned>(
        &self,
        path: &str,
        draw: impl FnOnce(&T, &Page) -> String,
    ) -> Result<Exit, Failure> {
        let json = self.client()?.read(path).await?;
        self.talk.document(&json, draw)?;
        Ok(Exit::Done)
    }

    /// Reads a list and prints it. Where it is empty, stdout stays empty too: that is said aside.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        list: &List<T>,
    ) -> Result<Exit, Failure> {
        self.list_some(path, list, |_| true).await
    }

    /// Reads a list and prints those of it that are wanted.
    pub async fn list_some<T: DeserializeOwned>(
        &self,
        path: &str,
        list: &List<T>,
        keep: impl Fn(&T) -> bool,
    ) -> Result<Exit, Failure> {
        let json = self.client()?.read(path).await?;
        let documents: Vec<serde_json::Value> = talk::parse(&json)?;
        let (mut kept, mut shown) = (Vec::new(), Vec::new());
        for document in documents {
            let view: T = talk::parse(&document.to_string())?;
            if keep(&view) {
                kept.push(document);
                shown.push(view);
            }
        }
        match self.talk.format {
            Format::Json => {
                self.talk.data(&talk::pretty(&serde_json::Value::from(kept).to_string())?)?
            }
            Format::Table if shown.is_empty() => self.talk.say(list.nothing),
            Format::Table => self.talk.screen(&(list.draw)(&shown, &self.talk.page()))?,
        }
        Ok(Exit::Done)
    }

    /// Makes a change, and says what was done: in the controller's words, else in ours.
    pub async fn apply(&self, change: change::Change, done: &str) -> Result<Exit, Failure> {
        let json = self.client()?.apply(self::change(change)).await?;
        match self.talk.format {
            Format::Json => self.talk.data(&talk::pretty(&json)?)?,
            Format::Table => {
                let answer: Result<AppliedView, _> = serde_json::from_str(&json);
                let said = answer.map(|answer| answer.text).unwrap_or_default();
                self.talk.say(if said.is_empty() { done } else { &said });
            }
        }
        Ok(Exit::Done)
    }
}

/// The file of the contexts that have names.
pub fn default_contexts() -> Result<PathBuf, Failure> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = set("XDG_CONFIG_HOME");
    match (set("HOME"), &config) {
        (Some(home), _) => Ok(context::default_path(config.as_deref(), &home)),
        (None, Some(config)) => Ok(context::default_path(Some(config), config)),
        (None, None) => Err(Failure::usage("HOME is not set, so there is no default context")
            .hint("`--context FILE` names a context's file")),
    }
}

/// A document of only one app or environment, where they are named.
pub fn only(path: &str, app: Option<&AppName>, env: Option<&EnvName>) -> String {
    let app = app.map(|app| format!("app={app}"));
    let env = env.map(|env| format!("env={env}"));
    let query: Vec<String> = app.into_iter().chain(env).collect();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) }
}

/// A change as the wire wraps it.
pub fn change(change: change::Change) -> Change {
    Change { change: Some(change) }
}

/// `a, b and c`, or `nothing`.
pub fn list(things: &[String]) -> String {
    match things.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Answered(error) => error.into(),
            ClientError::Unreachable { tried } => {
                let causes =
                    tried.into_iter().map(|(address, cause)| format!("{address}: {cause}"));
                Self::new("unreachable", "no controller could be reached")
                    .stands(causes)
                    .hint("`--context` or ROTA_CONTEXT chooses other controllers")
            }
            ClientError::Broken { address, cause } => {
                let message = format!("the connection to {address} broke before the answer came");
                Self::new("unreachable", format!("{message}: {cause}"))
                    .stands(["whether it was done is not known".to_owned()])
                    .hint("`rota status` and `rota rollout ls` show what stands now")
            }
        }
    }
}
