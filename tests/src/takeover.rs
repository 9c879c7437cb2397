//! What a rollout goes through when something happens to its owner, or to etcd, in the middle of it; and how long it
//! takes until somebody goes on.

use std::fmt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::Trouble;
use crate::farm::App;
use crate::several::{Several, until};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// The owner is killed.
    Kill,
    /// The owner stands still, and wakes up.
    Pause(Duration),
    /// The owner is cut off from etcd.
    NoStore(Duration),
    /// The owner is cut off from agents, operators and the other controllers.
    NoAgents(Duration),
    /// Both.
    Alone(Duration),
    /// The member of etcd that leads is killed.
    Leader,
    /// Etcd has no quorum.
    NoQuorum(Duration),
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill => write!(f, "kill -9 of the owner"),
            Self::Pause(time) => write!(f, "SIGSTOP of the owner for {} s", time.as_secs()),
            Self::NoStore(time) => write!(f, "owner cut from etcd for {} s", time.as_secs()),
            Self::NoAgents(time) => write!(f, "owner cut from agents for {} s", time.as_secs()),
            Self::Alone(time) => write!(f, "owner cut from both for {} s", time.as_secs()),
            Self::Leader => write!(f, "kill -9 of etcd's leader"),
            Self::NoQuorum(time) => write!(f, "no quorum for {} s", time.as_secs()),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Row {
    /// What happened.
    pub harm: Harm,
    /// When: after so many events of the rollout.
    pub after: usize,
    /// Who owned it, and who at the end.
    pub owners: (String, String),
    /// Until another one owned it.
    pub claimed: Option<Duration>,
    /// Until the next update was ordered.
    pub ordered: Option<Duration>,
    /// From the harm to the rollout's end.
    pub ended: Duration,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: Option<Duration>| {
            time.map_or_else(|| "-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
        };
        write!(
            f,
            "| {} | {} | {} | {} | {} | {} | {} |",
            self.harm,
            self.after,
            self.owners.0,
            self.owners.1,
            seconds(self.claimed),
            seconds(self.ordered),
            seconds(Some(self.ended)),
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "\
| harm | after events | owner | owner at the end | claimed | next order | over |
|---|---|---|---|---|---|---|";

/// Rolls a version out, and lets it suffer after so many events; it has to complete, with no node updated twice.
pub fn suffer(
    farm: &mut Several,
    version: &str,
    app: App<'_>,
    harm: (Harm, usize),
) -> Result<Row, Trouble> {
    let (harm, after) = harm;
    farm.begin(0, version, app)?;
    let begun = |view: &Value| view["to"] == version;
    let owner = farm.owner(0)?;
    let watcher = (owner + 1) % farm.controllers.len();
    farm.wait(watcher, "/api/v1/rollouts/shop/prod", begun)?;
    let events = |farm: &Several| newest_events(farm, watcher);
    let moment = until(|| (events(farm)?.len() >= after).then_some(()));
    moment.ok_or("the moment did not come")?;
    let before = orders(&events(farm).unwrap_or_default());
    let (at, lasts) = (Instant::now(), begin(farm, owner, harm)?);
    let (mut claimed, mut ordered, mut healed) = (None, None, lasts.is_none());
    let name = farm.controllers[owner].name.clone();
    let mut seen = Value::Null;
    let view = until(|| {
        if !healed && lasts.is_some_and(|lasts| at.elapsed() >= lasts) {
            heal(farm, owner, harm).ok()?;
            healed = true;
        }
        let text = farm.read(watcher, "/api/v1/rollouts/shop/prod")?;
        let view: Value = serde_json::from_str(&text).ok()?;
        seen.clone_from(&view);
        if claimed.is_none() && view["controller"].is_string() && view["controller"] != *name {
            claimed = Some(at.elapsed());
        }
        if ordered.is_none() && orders(&events(farm)?) > before {
            ordered = Some(at.elapsed());
        }
        (view["to"] == version && !view["finished_at"].is_null()).then_some(view)
    });
    let view = view.ok_or_else(|| format!("{harm} after {after} events, no end: {seen}"))?;
    let ended = at.elapsed();
    if view["state"] != "completed" {
        return Err(format!("{harm} after {after} events: {view}").into());
    }
    for node in view["nodes"].as_array().into_iter().flatten() {
        if node["attempt"] != 1 {
            return Err(format!("{harm} after {after} events: asked twice: {node}").into());
        }
    }
    if !healed {
        let rest = lasts.unwrap_or_default().saturating_sub(at.elapsed());
        until(|| (at.elapsed() >= rest).then_some(()));
        heal(farm, owner, harm)?;
    }
    recover(farm, owner, harm)?;
    let last = view["controller"].as_str().unwrap_or_default().to_owned();
    Ok(Row { harm, after, owners: (name, last), claimed, ordered, ended })
}

fn newest_events(farm: &Several, at: usize) -> Option<Vec<Value>> {
    let text = farm.read(at, "/api/v1/rollouts/shop/prod")?;
    let view: Value = serde_json::from_str(&text).ok()?;
    let path = format!("/api/v1/rollouts/shop/prod/{}/events", view["revision"]);
    serde_json::from_str(&farm.read(at, &path)?).ok()
}

fn orders(events: &[Value]) -> usize {
    let is_order =
        |event: &&Value| event["text"].as_str().unwrap_or_default().starts_with("ordered");
    events.iter().filter(is_order).count()
}

/// Does the harm; answers how long it lasts, if it ends.
fn begin(farm: &mut Several, owner: usize, harm: Harm) -> Result<Option<Duration>, Trouble> {
    match harm {
        Harm::Kill => farm.kill(owner).map(|()| None),
        Harm::Pause(time) => farm.signal(owner, Signal::STOP).map(|()| Some(time)),
        Harm::NoStore(time) | Harm::NoAgents(time) | Harm::Alone(time) => {
            wires(farm, owner, harm).for_each(crate::relay::Relay::cut);
            Ok(Some(time))
        }
        Harm::Leader => {
            let leader = farm.etcd.leader();
            farm.etcd.kill(leader);
            farm.broken.push(leader);
            Ok(None)
        }
        Harm::NoQuorum(time) => {
            for member in [0, 1] {
                farm.etcd.kill(member);
                farm.broken.push(member);
            }
            Ok(Some(time))
        }
    }
}

fn wires(farm: &Several, owner: usize, harm: Harm) -> impl Iterator<Item = &crate::relay::Relay> {
    let controller = &farm.controllers[owner];
    let store = !matches!(harm, Harm::NoAgents(_));
    let others = !matches!(harm, Harm::NoStore(_));
    let to_store = controller.to_store.iter().filter(move |_| store);
    to_store.chain(others.then_some(&controller.from_others))
}

fn heal(farm: &mut Several, owner: usize, harm: Harm) -> Result<(), Trouble> {
    match harm {
        Harm::Pause(_) => farm.signal(owner, Signal::CONT)?,
        Harm::NoStore(_) | Harm::NoAgents(_) | Harm::Alone(_) => {
            wires(farm, owner, harm).for_each(crate::relay::Relay::heal);
        }
        Harm::NoQuorum(_) => restore_etcd(farm),
        Harm::Kill | Harm::Leader => {}
    }
    Ok(())
}

fn restore_etcd(farm: &mut Several) {
    for member in std::mem::take(&mut farm.broken) {
        farm.etcd.spawn(member);
    }
    farm.etcd.wait_ready();
}

/// Everything is as it was before, for the next one.
fn recover(farm: &mut Several, owner: usize, harm: Harm) -> Result<(), Trouble> {
    match harm {
        Harm::Kill => farm.start_controller(owner)?,
        Harm::Leader => restore_etcd(farm),
        Harm::Pause(_)
        | Harm::NoStore(_)
        | Harm::NoAgents(_)
        | Harm::Alone(_)
        | Harm::NoQuorum(_) => {}
    }
    for at in 0..farm.controllers.len() {
        farm.wait(at, "/api/v1/controllers", |list| {
            let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
            all.len() == farm.controllers.len() && all.iter().all(|it| it["state"] == "active")
        })?;
        farm.all_here(at, farm.nodes.len())?;
    }
    Ok(())
}
