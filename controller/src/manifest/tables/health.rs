//! `[health]`: when an instance counts as healthy. Without a check, alive is healthy.

use rota_rollout::names::Span;

use crate::manifest::problem::Finding;
use crate::manifest::read::Reader;
use crate::manifest::resolved::{Check, Health};
use crate::manifest::tree::{Entry, Table, Value};

/// More often than this, checking would be what the node is busy with.
const INTERVAL_MIN: Span = Span(10);

const INTERVAL: Span = Span(100);
const TIMEOUT: Span = Span::seconds(1);
/// How long an app may take to become healthy.
pub(in crate::manifest) const DEADLINE: Span = Span::seconds(60);

pub(super) fn read(root: &Table, reader: &mut Reader) -> Health {
    let none = Table::default();
    let table = root.table("health").unwrap_or(&none);
    let check = match reader.one_of(table, &["http", "tcp", "command"]) {
        Some(entry) => check(entry, reader).unwrap_or(Check::Alive),
        None => Check::Alive,
    };
    let mut duration = |key: &str, least: Span, default: Span| {
        table.get(key).and_then(|entry| reader.duration(entry, least)).unwrap_or(default)
    };
    Health {
        check,
        interval: duration("interval", INTERVAL_MIN, INTERVAL),
        timeout: duration("timeout", Span(1), TIMEOUT),
        healthy_for: duration("healthy_for", Span::ZERO, Span::ZERO),
        deadline: duration("deadline", Span(1), DEADLINE),
    }
}

fn check(entry: &Entry, reader: &mut Reader) -> Option<Check> {
    match entry.name() {
        "http" => reader.http_path(entry).map(Check::Http),
        "command" => reader.command(entry).map(Check::Command),
        _ if matches!(entry.value, Value::Boolean(true)) => Some(Check::Tcp),
        _ => {
            reader.note(
                Finding::value(entry, "`tcp` can only be true")
                    .hint("write `tcp = true`, or remove the key"),
            );
            None
        }
    }
}
