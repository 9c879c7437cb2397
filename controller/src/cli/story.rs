//! What happens to one rollout, a line for each event: for whoever reads a log, where a screen shows but what is now.

use std::collections::BTreeMap;
use std::future::pending;

use tokio::sync::mpsc;

use super::desk::Desk;
use super::events::{Events, newest};
use super::follow::{self, Feed};
use super::{talk, words};
use crate::view::{EventView, NodeProgress, RolloutView};

/// How the event begins that sums a rollout up: whoever follows it reads that at the end.
const SUM: &str = "took ";

/// From when on a rollout is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It was started just now.
    ItsStart,
    /// It runs; somebody came to look.
    Now,
}

/// The events of one rollout.
pub struct Story {
    id: String,
    path: String,
    feed: mpsc::Receiver<Feed>,
    /// The number of the last event that was told, or that is older than the story.
    last: u64,
    /// What happened before the first look.
    before: Vec<EventView>,
    /// The step that each node was shown in at the first look, until an event says another one.
    seen: BTreeMap<String, String>,
}

impl Story {
    /// Begins to listen. `None`: nobody reads lines here, or the controller has no events to tell.
    pub async fn begin(desk: &Desk, id: &str, since: Since) -> Option<Self> {
        let parts: Vec<&str> = id.split('/').collect();
        let &[app, env, _] = parts.as_slice() else { return None };
        if desk.talk.live() || !desk.talk.talks() {
            return None;
        }
        let path = format!("events?app={app}&env={env}");
        let client = desk.client().ok()?;
        let json = client.clone().read(&path).await.ok()?;
        let last = newest(&json);
        let events = talk::parse::<Events>(&json).ok()?.list();
        let own = |event: &EventView| event.rollout.as_deref() == Some(id);
        let mut before: Vec<EventView> = events.into_iter().filter(own).collect();
        if since == Since::Now {
            before.clear();
        }
        let feed = follow::feed(client, path.clone(), last, newest);
        Some(Self { id: id.to_owned(), path, feed, last, before, seen: BTreeMap::new() })
    }

    /// The lines for what happened before the first look.
    pub fn opening(&mut self, view: &RolloutView) -> Vec<String> {
        let before = std::mem::take(&mut self.before);
        let pad = pad(view);
        let told = before.iter().filter(|event| !sums_up(event));
        told.map(|event| line(event, &self.id, pad)).collect()
    }

    /// The first look has shown where each node is.
    pub fn has_seen(&mut self, view: &RolloutView) {
        let doing = |node: &NodeProgress| Some((node.name.clone(), node.doing()?.to_owned()));
        self.seen = view.nodes.iter().filter_map(doing).collect();
    }

    /// The lines for what happened since, when something did.
    pub async fn next(story: &mut Option<Self>, view: Option<&RolloutView>) -> Vec<String> {
        let (Some(story), Some(view)) = (story, view) else { return pending().await };
        loop {
            match story.feed.recv().await {
                Some(Feed::Document(json)) => return story.told(&json, view),
                Some(Feed::Lost(_)) => {} // the stream of the rollout says so
                // So does its end; what is missing is read then.
                Some(Feed::Over(_)) | None => return pending().await,
            }
        }
    }

    /// The lines for what happened up to now, once it is over.
    pub async fn rest(mut self, desk: &Desk, view: &RolloutView) -> Vec<String> {
        let Ok(mut client) = desk.client() else { return Vec::new() };
        match client.read(&self.path).await {
            Ok(json) => self.told(&json, view),
            // How it ended is on its way to the reader anyway.
            Err(_) => Vec::new(),
        }
    }

    /// Has the first look shown this already?
    fn was_seen(&mut self, event: &EventView) -> bool {
        let Some(step) = event.node.as_ref().and_then(|node| self.seen.remove(node)) else {
            return false;
        };
        says_only(&event.text, &step)
    }

    fn told(&mut self, json: &str, view: &RolloutView) -> Vec<String> {
        let Ok(events) = talk::parse::<Events>(json) else { return Vec::new() };
        let (mut lines, pad) = (Vec::new(), pad(view));
        for event in events.list() {
            let own = event.rollout.as_deref() == Some(self.id.as_str());
            if own && !sums_up(&event) && event.seq > self.last && !self.was_seen(&event) {
                lines.push(line(&event, &self.id, pad));
            }
            self.last = self.last.max(event.seq);
        }
        lines
    }
}

fn sums_up(event: &EventView) -> bool {
    event.node.is_none() && event.text.starts_with(SUM)
}

/// Does an event say no more than that a node is at this step?
fn says_only(text: &str, step: &str) -> bool {
    text.strip_prefix(step).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
}

/// How wide the longest name is.
fn pad(view: &RolloutView) -> usize {
    view.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0)
}

/// `web-01  drain: 14 in flight`, or what happened to the rollout as a whole.
fn line(event: &EventView, id: &str, pad: usize) -> String {
    let text = words::clean(&event.text);
    match &event.node {
        Some(node) => format!("{node:pad$}  {text}"),
        None => format!("{id}  {text}"),
    }
}
