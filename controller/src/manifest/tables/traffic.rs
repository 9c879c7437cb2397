//! `[traffic]`: how an app leaves and enters traffic. Without the table it serves none.

use rota_rollout::names::{LABEL_RULE, Span, is_label};

use crate::manifest::problem::Finding;
use crate::manifest::read::Reader;
use crate::manifest::resolved::{Needed, OnDrainTimeout, Scripts, Traffic, Via};
use crate::manifest::tree::{Entry, Table};

const DRAIN_TIMEOUT: Span = Span::seconds(30);

/// As often HAProxy must hear that a server is not well, unless it is told otherwise; most others need fewer.
const SETTLE: u32 = 3;

/// Nobody's load balancer needs more.
const SETTLE_MAX: u32 = 100;

/// `via`, before its pool is known.
#[derive(Clone, Copy)]
enum Way {
    Edge,
    Endpoint,
    Command,
    None,
}

const WAYS: [(&str, Way); 4] = [
    ("edge", Way::Edge),
    ("endpoint", Way::Endpoint),
    ("command", Way::Command),
    ("none", Way::None),
];

const LATE: [(&str, OnDrainTimeout); 2] =
    [("cut", OnDrainTimeout::Cut), ("fail", OnDrainTimeout::Fail)];

const NEEDED: [(&str, Needed); 2] = [("all", Needed::All), ("reachable", Needed::Reachable)];

pub(super) fn read(root: &Table, reader: &mut Reader) -> Option<Traffic> {
    let Some(header) = root.get("traffic") else {
        return Some(Traffic {
            via: Via::None,
            drain_timeout: DRAIN_TIMEOUT,
            on_drain_timeout: OnDrainTimeout::Cut,
            edges: Needed::All,
        });
    };
    let table = header.table()?;
    let drain_timeout = table
        .get("drain_timeout")
        .and_then(|entry| reader.duration(entry, Span(1)))
        .unwrap_or(DRAIN_TIMEOUT);
    let on_drain_timeout = table
        .get("on_drain_timeout")
        .and_then(|entry| reader.choice(entry, &LATE))
        .unwrap_or(OnDrainTimeout::Cut);
    let edges = match table.get("edges") {
        Some(entry) => reader.choice(entry, &NEEDED)?,
        None => Needed::All,
    };
    let settle = match table.get("settle") {
        Some(entry) => reader.whole(entry, 1, SETTLE_MAX)?,
        None => SETTLE,
    };
    let pool = table.get("pool").map(|entry| pool(entry, reader));
    let way = match table.get("via") {
        Some(entry) => reader.choice(entry, &WAYS)?,
        None => Way::Edge,
    };
    let via = match (way, pool) {
        (Way::Edge, Some(pool)) => Via::Edge(pool?),
        (Way::Edge, None) => {
            no_pool(root, header, reader);
            return None;
        }
        (Way::Endpoint, _) => Via::Endpoint { settle },
        (Way::Command, _) => Via::Command(scripts(header, table, reader)?),
        (Way::None, _) => Via::None,
    };
    Some(Traffic { via, drain_timeout, on_drain_timeout, edges })
}

fn pool(entry: &Entry, reader: &mut Reader) -> Option<String> {
    let text = reader.text(entry)?;
    if is_label(text) {
        return Some(text.to_owned());
    }
    let message = format!("`pool`: `{text}` is not a pool's name");
    reader.note(Finding::value(entry, message).hint(LABEL_RULE));
    None
}

/// What `via = "command"` runs.
fn scripts(header: &Entry, table: &Table, reader: &mut Reader) -> Option<Scripts> {
    let mut needed = |key: &str| {
        if let Some(entry) = table.get(key) {
            return reader.command(entry);
        }
        let message = format!("`via = \"command\"` needs `{key}`: the script that does it");
        let (at, field) = match table.get("via") {
            Some(via) => (via.span.clone(), via.beside(key)),
            None => (header.span.clone(), format!("{}.{key}", header.field)),
        };
        let hint = format!("write `{key} = [\"./lb\", \"{key}\", \"{{node}}\"]`");
        reader.note(Finding::at(at, field, message).hint(hint));
        None
    };
    let (leave, join) = (needed("leave"), needed("join"));
    let in_flight = match table.get("in_flight") {
        Some(entry) => Some(reader.command(entry)?),
        None => None,
    };
    Some(Scripts { leave: leave?, join: join?, in_flight })
}

fn no_pool(root: &Table, header: &Entry, reader: &mut Reader) {
    let app = root.get("app").and_then(Entry::text);
    let example = app.filter(|app| is_label(app)).unwrap_or("shop");
    let (at, field, message) = match header.table().and_then(|table| table.get("via")) {
        Some(via) => (
            via.span.clone(),
            via.beside("pool"),
            "`via = \"edge\"` needs `pool`: which one do the edges serve?",
        ),
        None => (
            header.span.clone(),
            format!("{}.pool", header.field),
            "`pool` is missing in [traffic], and `via` is \"edge\" unless you say otherwise",
        ),
    };
    let hint = format!("write `pool = \"{example}\"`, or `via = \"none\"` if no edge serves it");
    reader.note(Finding::at(at, field, message).hint(hint));
}
