//! What two keys of different tables ask of each other. The key of an override is to blame first.

use super::duration;
use super::problem::Finding;
use super::read::Reader;
use super::tree::{Entry, Table, Value};

/// Notes every pair that does not fit.
pub(super) fn check(root: &Table, reader: &mut Reader) {
    start_first_needs_auto(root, reader);
    image_needs_docker(root, reader);
    notify_needs_systemd(root, reader);
    socket_needs(root, reader);
    deadline_beyond_healthy_for(root, reader);
    if root.get("run").is_some() && !reader.has_port {
        needs_port(root, reader);
    }
}

fn get<'t>(root: &'t Table, table: &str, key: &str) -> Option<&'t Entry> {
    root.table(table)?.get(key)
}

fn is_text(entry: &Entry, text: &str) -> bool {
    entry.text() == Some(text)
}

/// The two in the order in which they are to blame: an override before the base.
fn blame<'t>(usual: &'t Entry, other: &'t Entry) -> (&'t Entry, &'t Entry) {
    if other.is_override() && !usual.is_override() { (other, usual) } else { (usual, other) }
}

fn start_first_needs_auto(root: &Table, reader: &mut Reader) {
    let Some(order) = get(root, "strategy", "order").filter(|o| is_text(o, "start-first")) else {
        return;
    };
    let needs = "`order = \"start-first\"` needs `port = \"auto\"`";
    let hint = "two instances run side by side and cannot share a port: write `port = \"auto\"`";
    let Some(run) = root.table("run") else { return };
    let Some(port) = run.get("port") else {
        let message = format!("{needs}, and [run] has no `port`");
        return reader.note(Finding::value(order, message).hint(hint));
    };
    if let Some(number) = port.integer() {
        let (at, also) = blame(order, port);
        let message = format!("{needs}, not {number}");
        reader.note(Finding::value(at, message).also(also).hint(hint));
    }
}

fn image_needs_docker(root: &Table, reader: &mut Reader) {
    let (artifact, driver) = (root.table("artifact"), get(root, "run", "driver"));
    let Some(image) = artifact.and_then(|artifact| artifact.get("image")) else { return };
    let needs = "`image` needs `driver = \"docker\"`";
    let hint = "write `driver = \"docker\"` in [run], or give `path` or `url` in [artifact]";
    match driver {
        Some(driver) if is_text(driver, "docker") => {}
        Some(driver) => {
            let (at, also) = blame(image, driver);
            reader.note(Finding::value(at, needs).also(also).hint(hint));
        }
        None if root.table("run").is_some() => {
            reader.note(Finding::value(image, format!("{needs} in [run]")).hint(hint));
        }
        None => {}
    }
}

fn is_true(entry: &Entry) -> bool {
    matches!(entry.value, Value::Boolean(true))
}

fn notify_needs_systemd(root: &Table, reader: &mut Reader) {
    let Some(notify) = get(root, "run", "notify").filter(|entry| is_true(entry)) else { return };
    let Some(driver) = get(root, "run", "driver") else { return };
    if is_text(driver, "systemd") {
        return;
    }
    let (at, also) = blame(notify, driver);
    let message = "`notify = true` needs `driver = \"systemd\"`";
    let hint = "only systemd listens for READY=1; elsewhere [health] says when the app is ready";
    reader.note(Finding::value(at, message).also(also).hint(hint));
}

/// A socket that is handed over has one port, is no container's, and accepts also while nobody answers.
fn socket_needs(root: &Table, reader: &mut Reader) {
    let Some(socket) = get(root, "run", "socket").filter(|entry| is_true(entry)) else { return };
    let fixed = "a socket that outlives the app has one port: write for example `port = 9000`";
    match get(root, "run", "port") {
        None => {
            let message = "`socket = true` needs a `port`, and [run] has none";
            reader.note(Finding::value(socket, message).hint(fixed));
        }
        Some(port) if is_text(port, "auto") => {
            let (at, also) = blame(socket, port);
            let message = "`socket = true` needs a fixed `port`, not \"auto\"";
            reader.note(Finding::value(at, message).also(also).hint(fixed));
        }
        Some(_) => {}
    }
    if let Some(driver) = get(root, "run", "driver").filter(|driver| is_text(driver, "docker")) {
        let (at, also) = blame(socket, driver);
        let message = "`socket = true` does not go with `driver = \"docker\"`";
        let hint = "a container cannot be given a socket; use exec or systemd";
        reader.note(Finding::value(at, message).also(also).hint(hint));
    }
    if let Some(tcp) = get(root, "health", "tcp").filter(|entry| is_true(entry)) {
        let (at, also) = blame(tcp, socket);
        let message = "`tcp` says nothing about an app with `socket = true`";
        let hint = "its socket accepts also when the app does not: use `http` or `command`";
        reader.note(Finding::value(at, message).also(also).hint(hint));
    }
}

fn deadline_beyond_healthy_for(root: &Table, reader: &mut Reader) {
    let Some(healthy_for) = get(root, "health", "healthy_for") else { return };
    let span = |entry: &Entry| duration::parse(entry.text()?).ok();
    let Some(needed) = span(healthy_for) else { return };
    let hint = "healthy_for counts within the deadline, so the deadline must be longer";
    match get(root, "health", "deadline") {
        Some(deadline) => {
            let Some(limit) = span(deadline).filter(|limit| *limit <= needed) else { return };
            let (at, also) = blame(deadline, healthy_for);
            let message = format!("`deadline` {limit} is not longer than `healthy_for` {needed}");
            reader.note(Finding::value(at, message).also(also).hint(hint));
        }
        None if super::tables::HEALTH_DEADLINE <= needed => {
            let message = format!(
                "`healthy_for` {needed} needs a `deadline` longer than that; it is {} by default",
                super::tables::HEALTH_DEADLINE
            );
            reader.note(Finding::value(healthy_for, message).hint(hint));
        }
        None => {}
    }
}

/// Notes everything that asks the app on a port that it has not.
fn needs_port(root: &Table, reader: &mut Reader) {
    let hint = "write `port = 9000` or `port = \"auto\"` in [run]";
    let mut note = |entry: &Entry, what: &str| {
        let message = format!("{what} needs a port, and [run] has no `port`");
        reader.note(Finding::value(entry, message).hint(hint));
    };
    if let Some(traffic) = root.get("traffic") {
        let via = traffic.table().and_then(|table| table.get("via"));
        match via {
            Some(via) if is_text(via, "edge") => note(via, "`via = \"edge\"`"),
            Some(_) => {}
            None => note(traffic, "`via = \"edge\"` (the default in [traffic])"),
        }
    }
    for key in ["http", "tcp"] {
        if let Some(entry) = get(root, "health", key) {
            note(entry, &format!("a health check with `{key}`"));
        }
    }
    let tests = root.get("smoke").and_then(Entry::list).unwrap_or_default();
    for http in tests.iter().filter_map(|test| test.table()?.get("http")) {
        note(http, "a smoke test with `http`");
    }
}
