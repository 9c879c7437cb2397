//! The names that are there now, by what an argument takes. Every reading ends at one deadline.

use rota_rollout::names::Span;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;
use tokio::time::{Duration, Instant, timeout_at};

use crate::cli::args::RolloutRef;
use crate::cli::desk::{Desk, default_contexts};
use crate::cli::talk::Talk;
use crate::context::{Contexts, file_of};
use crate::view::{
    ControllerView, EnvView, HistoryEntry, NodeView, PoolView, ReleaseView, RolloutView,
    StatusView, TokenView,
};

/// Revisions of one app in one environment that are offered, the newest.
const REVISIONS_OFFERED_MAX: usize = 10;

/// With more apps and environments than these, their revisions are offered once one is typed.
const FLEETS_WITH_REVISIONS_MAX: usize = 3;

/// A name, and what there is to say about it.
type Named = (String, String);

/// What an argument takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    App,
    Env,
    FrozenEnv,
    /// Any rollout.
    Rollout,
    /// One that has not ended, for a verb.
    Running(Verb),
    /// Nodes of the rollout on the line.
    Target(Verb),
    Node,
    InTraffic,
    Drained,
    Release,
    Pool,
    Controller,
    Context,
    Token,
    /// Numbers of earlier rollouts.
    Revision,
    /// `KEY=` of labels.
    Label,
}

/// A verb that fits only where a rollout waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Pause,
    Resume,
    Promote,
    Retry,
    Skip,
    /// Any state will do.
    Other,
}

impl Wanted {
    /// By the command and the argument's name.
    pub fn by(path: &[&str], arg: &str) -> Option<Self> {
        Some(match (path, arg) {
            (_, "context") => Self::Context,
            (["token", "create"], _) if arg != "env" => return None,
            (["env", "unfreeze"], "env") => Self::FrozenEnv,
            (_, "app") => Self::App,
            (_, "env") => Self::Env,
            (_, "release") | (["release", "inspect" | "rm"], "version") => Self::Release,
            (["rollout", "status" | "inspect"], "id") => Self::Rollout,
            (["rollout", "pause"], "id") => Self::Running(Verb::Pause),
            (["rollout", "resume"], "id") => Self::Running(Verb::Resume),
            (["rollout", "promote"], "id") => Self::Running(Verb::Promote),
            (["rollout", "retry"], "id") => Self::Running(Verb::Retry),
            (["rollout", ..], "id") => Self::Running(Verb::Other),
            (["rollout", "retry"], "nodes") => Self::Target(Verb::Retry),
            (["rollout", "skip"], "nodes") => Self::Target(Verb::Skip),
            (["rollout", ..] | ["plan"], "to_revision") => Self::Revision,
            (["node", "drain"], "name") => Self::InTraffic,
            (["node", "undrain"], "name") => Self::Drained,
            (["node", "label"], "labels") => Self::Label,
            (["node", ..], "name" | "names" | "nodes") | (_, "node" | "nodes") => Self::Node,
            (["run"], "on") => Self::Node,
            (["pool", ..], "pool") => Self::Pool,
            (["controller", ..], "name") => Self::Controller,
            (["token", "rm"], "id") => Self::Token,
            _ => return None,
        })
    }
}

/// Where the names come from.
pub struct Names {
    runtime: Runtime,
    desk: Desk,
    typed: Vec<String>,
    deadline: Instant,
}

impl Names {
    /// Nothing is read before somebody asks for it.
    pub fn new(runtime: Runtime, context: Option<String>, typed: Vec<String>, most: Span) -> Self {
        let said = option(&typed, "--context").map(str::to_owned);
        let desk = Desk::new(Talk::silent(), said.or(context), None);
        Self { runtime, desk, typed, deadline: Instant::now() + Duration::from_millis(most.0) }
    }

    /// All names that fit, in the order in which they are offered.
    pub fn find(&self, wanted: Wanted) -> Vec<Named> {
        match wanted {
            Wanted::App => self.apps(),
            Wanted::Env => self.envs(|_| true),
            Wanted::FrozenEnv => self.envs(|env| env.frozen.is_some()),
            Wanted::Rollout => self.rollouts(),
            Wanted::Running(verb) => self.running(verb),
            Wanted::Target(verb) => self.targets(verb),
            Wanted::Node => self.nodes(|_| true),
            Wanted::InTraffic => self.nodes(|node| node.state != "drained"),
            Wanted::Drained => self.nodes(|node| node.state == "drained"),
            Wanted::Release => self.releases(),
            Wanted::Pool => {
                self.list("pools", |pool: &PoolView| (pool.pool.clone(), pool.env.clone()))
            }
            Wanted::Controller => {
                self.list("controllers", |it: &ControllerView| (it.name.clone(), it.state.clone()))
            }
            Wanted::Context => self.contexts(),
            Wanted::Token => self.tokens(),
            Wanted::Revision => self.revisions(),
            Wanted::Label => self.labels(),
        }
    }

    /// A document; nothing when there is none in time.
    fn read<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let mut client = self.desk.client().ok()?;
        let read = async { timeout_at(self.deadline, client.read(path)).await.ok()?.ok() };
        serde_json::from_str(&self.runtime.block_on(read)?).ok()
    }

    fn list<T: DeserializeOwned>(&self, path: &str, named: impl Fn(&T) -> Named) -> Vec<Named> {
        self.read::<Vec<T>>(path).unwrap_or_default().iter().map(named).collect()
    }

    fn apps(&self) -> Vec<Named> {
        let mut apps = self.list("releases", |it: &ReleaseView| (it.app.clone(), String::new()));
        apps.sort();
        apps.dedup();
        apps
    }

    fn envs(&self, keep: impl Fn(&EnvView) -> bool) -> Vec<Named> {
        let envs: Vec<EnvView> = self.read("envs").unwrap_or_default();
        let named = |it: &EnvView| {
            let nodes = crate::cli::words::count(it.nodes as u64, "node");
            (it.env.clone(), if it.frozen.is_some() { format!("{nodes}, frozen") } else { nodes })
        };
        envs.iter().filter(|env| keep(env)).map(named).collect()
    }

    fn nodes(&self, keep: impl Fn(&NodeView) -> bool) -> Vec<Named> {
        let mut nodes: Vec<NodeView> = self.read("nodes").unwrap_or_default();
        nodes.retain(|node| node.state != "revoked");
        let named = |it: &NodeView| (it.name.clone(), format!("{}, {}", it.env, it.state));
        nodes.iter().filter(|node| keep(node)).map(named).collect()
    }

    /// Those of the app on the line; of all apps before one is typed.
    fn releases(&self) -> Vec<Named> {
        let all: Vec<ReleaseView> = self.read("releases").unwrap_or_default();
        let app = self.typed.iter().skip(1).find(|word| all.iter().any(|it| it.app == **word));
        let fits = |it: &&ReleaseView| app.is_none_or(|app| it.app == *app);
        let named = |it: &ReleaseView| {
            let envs = it.current_in.join(", ");
            let now = if envs.is_empty() { envs } else { format!(", current in {envs}") };
            (it.version.clone(), format!("{}{now}", it.app))
        };
        all.iter().filter(fits).map(named).collect()
    }

    /// `shop/prod` for the latest, and the newest numbers where that is not too much.
    fn rollouts(&self) -> Vec<Named> {
        let Some(status) = self.read::<StatusView>("status") else { return Vec::new() };
        let typed = self.typed.last().map_or("", String::as_str);
        let fleets = status.fleets.iter().map(|it| (&it.app, &it.env));
        let fitting: Vec<(&String, &String)> = fleets
            .filter(|(app, env)| {
                let id = format!("{app}/{env}/");
                id.starts_with(typed) || typed.starts_with(&id)
            })
            .collect();
        let with_revisions = fitting.len() <= FLEETS_WITH_REVISIONS_MAX;
        let mut found = Vec::new();
        for (app, env) in fitting {
            found.push((format!("{app}/{env}"), "the latest".to_owned()));
            if with_revisions {
                let history = self.history(app, env);
                let revision = |(number, help)| (format!("{app}/{env}/{number}"), help);
                found.extend(history.into_iter().map(revision));
            }
        }
        found
    }

    /// The newest first.
    fn history(&self, app: &str, env: &str) -> Vec<Named> {
        let mut all: Vec<HistoryEntry> =
            self.read(&format!("history/{app}/{env}")).unwrap_or_default();
        all.sort_by_key(|entry| std::cmp::Reverse(entry.revision));
        let named = |it: &HistoryEntry| {
            let state = crate::cli::table::state_words(&it.state);
            (it.revision.to_string(), format!("{}, {state}", it.release))
        };
        all.iter().take(REVISIONS_OFFERED_MAX).map(named).collect()
    }

    fn running(&self, verb: Verb) -> Vec<Named> {
        let Some(status) = self.read::<StatusView>("status") else { return Vec::new() };
        let held = |it: &RolloutView, kind| it.hold.as_ref().is_some_and(|hold| hold.kind == kind);
        let fits = |it: &&RolloutView| match verb {
            Verb::Pause => it.paused.is_none(),
            Verb::Resume => it.paused.is_some() || it.hold.is_some(),
            Verb::Promote => held(it, "approval"),
            Verb::Retry => it.nodes.iter().any(|node| node.error.is_some()) || held(it, "once"),
            Verb::Skip | Verb::Other => true,
        };
        let named = |it: &RolloutView| {
            let state = crate::cli::table::state_words(&it.state);
            let why = it.hold.as_ref().map_or(String::new(), |hold| format!(": {}", hold.text));
            (it.id.clone(), format!("{}, {state}{why}", it.to))
        };
        status.rollouts.iter().filter(fits).map(named).collect()
    }

    /// The nodes of the rollout on the line that the verb is for and that are not named yet.
    fn targets(&self, verb: Verb) -> Vec<Named> {
        let before = &self.typed[..self.typed.len().saturating_sub(1)];
        let Some(id) = before.iter().find_map(|word| word.parse::<RolloutRef>().ok()) else {
            return Vec::new();
        };
        let Some(view) = self.read::<RolloutView>(&format!("rollouts/{id}")) else {
            return Vec::new();
        };
        let fits = |state: &str| match verb {
            Verb::Retry => matches!(state, "failed" | "restored"),
            Verb::Skip => matches!(state, "failed" | "restored" | "pending"),
            Verb::Pause | Verb::Resume | Verb::Promote | Verb::Other => true,
        };
        let nodes = view.nodes.iter().filter(|it| fits(&it.state) && !before.contains(&it.name));
        nodes
            .map(|it| {
                let state = crate::cli::table::state_words(&it.state);
                let why = it.error.as_ref().map_or(String::new(), |error| format!(": {error}"));
                (it.name.clone(), format!("{state}{why}"))
            })
            .collect()
    }

    /// Of the app and the environment on the line.
    fn revisions(&self) -> Vec<Named> {
        let apps = self.apps();
        let app = self.typed.iter().find(|word| apps.iter().any(|(app, _)| app == *word));
        match (app, option(&self.typed, "--env")) {
            (Some(app), Some(env)) => self.history(app, env),
            (_, None) | (None, _) => Vec::new(),
        }
    }

    fn tokens(&self) -> Vec<Named> {
        self.list("tokens", |it: &TokenView| {
            let name = it.name.as_ref().map_or(String::new(), |name| format!(" {name}"));
            (it.id.clone(), format!("for {}{name}", it.kind))
        })
    }

    fn labels(&self) -> Vec<Named> {
        let mut nodes: Vec<NodeView> = self.read("nodes").unwrap_or_default();
        nodes.retain(|node| node.state != "revoked");
        let keys = nodes.iter().flat_map(|node| node.labels.keys());
        let mut keys: Vec<Named> = keys.map(|key| (format!("{key}="), String::new())).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn contexts(&self) -> Vec<Named> {
        let Ok(default) = default_contexts() else { return Vec::new() };
        let file = file_of(None, &default);
        let contexts = Contexts::load_or_empty(&file).unwrap_or_default();
        contexts.names().map(|name| (name.to_owned(), String::new())).collect()
    }
}

/// What an option on the line is set to: `--env prod` or `--env=prod`.
fn option<'a>(typed: &'a [String], name: &str) -> Option<&'a str> {
    let apart = typed.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    let mut joined = typed.iter().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    apart.or_else(|| joined.next()).filter(|value| !value.is_empty())
}
