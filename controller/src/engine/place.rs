//! Where something that is asked is decided: a rollout's verbs by its owner, everything else by the lead. An operator
//! may ask any controller: it asks the right one for him.

use rota_rollout::claim::Nobody;

use super::cluster::Owner;
use super::verbs::{Ask, Asked};
use super::{State, own::Service};
use crate::view::ErrorView;

/// The kind of an answer that names the controller that decides.
pub const ELSEWHERE: &str = "elsewhere";

/// The kind of an answer to a change that was refused because something else had changed: it is to be asked again.
pub const AGAIN: &str = "again";

/// What to do where nobody can run a rollout.
pub(super) const NO_HOST: &str =
    "`rota controller ls` shows them; `rota controller undrain C` lets one work again";

/// The answer that names the controller that decides; empty: nobody does just now.
pub(super) fn elsewhere(name: &str) -> ErrorView {
    let hint = "`rota controller ls` shows the controllers".to_owned();
    ErrorView { kind: ELSEWHERE.to_owned(), message: name.to_owned(), hint }
}

/// The answer to a change that must be decided anew.
pub(super) fn again() -> ErrorView {
    let message = "something else changed at the same moment; nothing was done".to_owned();
    ErrorView { kind: AGAIN.to_owned(), message, hint: "try again".to_owned() }
}

impl State {
    /// The controller that decides it; `None`: this one.
    pub(super) fn place_of(&self, asked: &Asked) -> Result<Option<String>, Nobody> {
        let Some(cluster) = &self.cluster else { return Ok(None) };
        match &asked.ask {
            Ask::Plan(_) => Ok(None),
            Ask::Start(start) => {
                let gone = |active: &super::Active| match &active.owner {
                    Owner::Us => false,
                    Owner::Other(name) => !cluster.members.contains_key(name),
                };
                if self.open(&start.app, &start.env).any(gone) {
                    return Ok(Some(String::new())); // it must be taken over before it can give way
                }
                let host = self.host(&start.app, &start.env)?;
                let runs_here = self.running(&start.app, &start.env).is_some();
                // Whoever sent it here knew a little more or less than we do: it is not sent on.
                Ok(host.filter(|_| !asked.forwarded || runs_here || self.draining))
            }
            Ask::Act { id, .. } | Ask::ActWithGlass { id, .. } => {
                let active = self.rollouts.get(id);
                Ok(active.and_then(|active| match &active.owner {
                    Owner::Us => None,
                    Owner::Other(name) => Some(name.clone()),
                }))
            }
            Ask::Serve(Service { name, .. }) => {
                let there = cluster.members.contains_key(name.as_str());
                Ok((there && name.as_str() != self.name).then(|| name.to_string()))
            }
            Ask::Push(_)
            | Ask::PruneReleases(_)
            | Ask::SummedUp { .. }
            | Ask::RemoveRelease { .. }
            | Ask::DrainNode { .. }
            | Ask::UndrainNode { .. }
            | Ask::LabelNode { .. }
            | Ask::MayRemove(_)
            | Ask::ForgetAgent(_)
            | Ask::Freeze { .. }
            | Ask::Unfreeze { .. }
            | Ask::AddWindow { .. }
            | Ask::RemoveWindow { .. } => Ok(match &cluster.lead {
                Some((name, _)) if *name == self.name => None,
                Some((name, _)) => Some(name.clone()),
                None => Some(String::new()),
            }),
        }
    }
}
