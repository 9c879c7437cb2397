//! A command on the nodes that run an app: a rollout that moves nothing.

use rota_rollout::batches::{Target, plan};
use rota_rollout::names::{NodeName, Span};
use rota_rollout::rollout::Limits;
use rota_rollout::strategy::{Amount, Mode, Offline, OnFailure, StartOrder, Strategy, Tolerance};

use super::State;
use super::admission::{Fences, Found, Start, refusals};
use super::records::{CommandRecord, ReleaseRecord};
use crate::errors::Sort;
use crate::manifest::Resolved;
use crate::view::ErrorView;

/// Beside its time limit: for the process's start, and its end when it is killed.
const RUN_SLACK: Span = Span::seconds(60);

/// A command on the nodes that run an app, as asked.
#[derive(Debug, Clone)]
pub struct RunAsked {
    /// Its command line.
    pub argv: Vec<String>,
    /// Then it is killed.
    pub timeout: Span,
    /// Only on these; none: on all that run the app.
    pub on: Vec<NodeName>,
    /// How many nodes at once.
    pub batch: Amount,
    /// It goes no further when more nodes failed.
    pub max_failures: u32,
}

impl CommandRecord {
    /// In one line, for people.
    pub fn line(&self) -> String {
        let quoted = |word: &String| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+{}".contains(c);
            match !word.is_empty() && word.chars().all(plain) {
                true => word.clone(),
                false => format!("'{}'", word.replace('\'', "'\\''")),
            }
        };
        self.argv.iter().map(quoted).collect::<Vec<_>>().join(" ")
    }
}

impl RunAsked {
    /// As the rollout remembers it.
    pub(super) fn record(&self) -> CommandRecord {
        CommandRecord { argv: self.argv.clone(), timeout: self.timeout }
    }

    /// Nothing is prepared, watched or taken out of traffic.
    pub(super) fn limits(&self) -> Limits {
        let update = Span(self.timeout.0 + RUN_SLACK.0);
        Limits { prepare: RUN_SLACK, update, monitor: RUN_SLACK, once: RUN_SLACK }
    }

    fn strategy(&self) -> Strategy {
        Strategy {
            mode: Mode::Batches,
            batch: vec![self.batch],
            order: StartOrder::StartFirst, // it takes no capacity
            monitor: Span::ZERO,
            max_failures: Tolerance::Number(self.max_failures),
            on_failure: OnFailure::Pause,
            offline: Offline::Skip,
            ..Strategy::default()
        }
    }

    /// The nodes, in batches, and why it would not be right.
    pub(super) fn find(
        &self,
        state: &State,
        start: &Start,
        release: ReleaseRecord,
        resolved: Resolved,
    ) -> Result<Found, ErrorView> {
        let resolved = Resolved { strategy: self.strategy(), ..resolved };
        let targets = self.targets(state, start)?;
        let mut plan = plan(&targets, &resolved.strategy, &release.release(), true);
        plan.refusals.clear(); // they speak of movements
        let (app, env) = (&start.app, &start.env);
        if targets.is_empty() {
            plan.refusals.push(format!("no node runs {app} in {env} (`rota node ls --env {env}`)"));
        } else if plan.batches.is_empty() {
            let all = format!("every node that runs {app} in {env} is offline");
            plan.refusals.push(format!("{all} (`rota node ls --env {env}`)"));
        }
        plan.refusals.extend(refusals::frozen_here(state, start));
        plan.refusals.extend(refusals::drained(state));
        Ok(Found { release, resolved, targets, plan, fences: Fences::default() })
    }

    fn targets(&self, state: &State, start: &Start) -> Result<Vec<Target>, ErrorView> {
        let (app, env) = (&start.app, &start.env);
        let runs = |name: &NodeName| {
            let node = state.node(name).filter(|node| node.record.env == env.as_str());
            node.is_some() && state.runs(name, app).is_some()
        };
        if let Some(stranger) = self.on.iter().find(|name| !runs(name)) {
            let what = match state.node(stranger) {
                None => format!("there is no node {stranger}"),
                Some(_) => format!("node {stranger} does not run {app} in {env}"),
            };
            return Err(Sort::Refused.error(what, format!("`rota node ls --env {env}` lists all")));
        }
        let wanted =
            |name: &&NodeName| runs(name) && (self.on.is_empty() || self.on.contains(name));
        let names = state.nodes().map(|(name, _)| name).filter(wanted);
        let target = |name: &NodeName| {
            let mut observed = state.observed(name, app, None);
            observed.drained = false; // who is kept out of traffic runs the app all the same
            Target {
                name: name.clone(),
                observed,
                runs: state.runs(name, app),
                spread: None,
                left_alone: false,
            }
        };
        Ok(names.map(target).collect())
    }
}
