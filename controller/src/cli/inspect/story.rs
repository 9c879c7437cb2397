//! When each node was under way and out of traffic, read from the rollout's events: what the page's drawings show.

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
    /// How many targets were in traffic from each moment on.
    pub capacity: Vec<(u64, usize)>,
}

/// What an event means for whether its node is in traffic.
fn turns(text: &str) -> Option<bool> {
    let goes = ["drain: ", "broke after it was done", "failed: the agent", "failed: it went"];
    if goes.iter().any(|begin| text.starts_with(begin)) {
        return Some(false);
    }
    let back = text.starts_with("joined after ") || text.ends_with("; restored");
    let untouched = text.ends_with("; not touched");
    (back || untouched || text.starts_with("done, out of traffic")).then_some(true)
}

impl Story {
    pub(super) fn of(dossier: &Dossier, now: Timestamp) -> Self {
        let view = &dossier.view;
        let start = words::moment(&view.started_at).unwrap_or(now);
        let end = view.finished_at.as_deref().and_then(words::moment).unwrap_or(now);
        let mut story = Self { length: end.since(start).0.max(1), ..Self::default() };
        let mut out: BTreeMap<&str, bool> =
            view.nodes.iter().map(|node| (node.name.as_str(), false)).collect();
        story.capacity.push((0, view.evidence.targets));
        for event in &dossier.events {
            let (Some(node), Some(at)) = (event.node.as_deref(), words::moment(&event.at)) else {
                continue;
            };
            let at = at.since(start).0.min(story.length);
            if event.text.starts_with("ordered: ") || story.under_way.contains_key(node) {
                let fresh = Stretch { from: at, to: at };
                story.under_way.entry(node.to_owned()).or_insert(fresh).to = at;
            }
            if let (Some(inside), Some(is_out)) = (turns(&event.text), out.get_mut(node))
                && *is_out == inside
            {
                *is_out = !inside;
                let serving = view.evidence.targets - out.values().filter(|out| **out).count();
                story.capacity.push((at, serving));
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
