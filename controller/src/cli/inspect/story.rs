//! When each node was under way, and how many targets were in traffic: what the page's drawings show. Each event of a
//! rollout carries both as data.

use std::collections::BTreeMap;

use rota_rollout::names::Timestamp;

use super::Dossier;
use crate::words;

/// From one moment to another, in milliseconds since the rollout's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub from: u64,
    pub to: u64,
}

/// What the events tell.
#[derive(Debug, Default)]
pub(super) struct Story {
    /// How long the rollout took, or has taken so far.
    pub length: u64,
    /// From the first order to the last word, by node.
    pub under_way: BTreeMap<String, Stretch>,
    /// How many targets were in traffic from each moment on; nothing, where the events of an older controller do not
    /// say.
    pub capacity: Vec<(u64, usize)>,
}

impl Story {
    pub(super) fn of(dossier: &Dossier, now: Timestamp) -> Self {
        let view = &dossier.view;
        let start = words::moment(&view.started_at).unwrap_or(now);
        let end = view.finished_at.as_deref().and_then(words::moment).unwrap_or(now);
        let mut story = Self { length: end.since(start).0.max(1), ..Self::default() };
        for event in &dossier.events {
            let Some(at) = words::moment(&event.at) else { continue };
            let at = at.since(start).0.min(story.length);
            if let Some(serving) = event.in_traffic
                && story.capacity.last().is_none_or(|(_, last)| *last != serving)
            {
                story.capacity.push((at, serving));
            }
            let Some(node) = event.node.as_deref() else { continue };
            let under_way = event.state.as_deref() == Some("updating");
            if under_way || story.under_way.contains_key(node) {
                let fresh = Stretch { from: at, to: at };
                story.under_way.entry(node.to_owned()).or_insert(fresh).to = at;
            }
        }
        story
    }

    /// From the first order in a batch to the last word of its nodes.
    pub(super) fn batch(&self, nodes: &[String]) -> Option<Stretch> {
        let stretches = nodes.iter().filter_map(|node| self.under_way.get(node));
        stretches.copied().reduce(|one, other| Stretch {
            from: one.from.min(other.from),
            to: one.to.max(other.to),
        })
    }
}
