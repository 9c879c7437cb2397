//! `[run]`: the process.

use std::collections::BTreeMap;

use rota_rollout::names::Span;

use super::{limits, missing_table};
use crate::manifest::keys::nearest;
use crate::manifest::problem::Finding;
use crate::manifest::read::{Argv, Known, Reader};
use crate::manifest::resolved::{Driver, EnvFile, Port, Run, Signal};
use crate::manifest::tree::{Entry, Table};

/// The longest name that Linux' `useradd` accepts.
const USER_BYTES_MAX: usize = 32;

/// The app's time to end by itself, if the manifest does not say.
const STOP_TIMEOUT: Span = Span::seconds(10);

pub(super) fn read(root: &Table, reader: &mut Reader) -> Option<Run> {
    let Some(header) = root.get("run") else {
        missing_table("run", "command = [\"./shop\"]", reader);
        return None;
    };
    let table = header.table()?;
    let port = port(table, reader);
    reader.has_port = table.get("port").is_some();
    let drivers =
        [("exec", Driver::Exec), ("systemd", Driver::Systemd), ("docker", Driver::Docker)];
    Some(Run {
        driver: table.get("driver").and_then(|entry| reader.choice(entry, &drivers)),
        command: command(root, header, reader)?,
        user: table.get("user").and_then(|entry| user(entry, reader)),
        env: table.get("env").map(|entry| env(entry, reader)).unwrap_or_default(),
        env_file: table.get("env_file").and_then(|entry| env_file(entry, reader)),
        port,
        stop_signal: table
            .get("stop_signal")
            .and_then(|entry| signal(entry, reader))
            .unwrap_or(Signal::Term),
        stop_timeout: table
            .get("stop_timeout")
            .and_then(|entry| reader.duration(entry, Span(1)))
            .unwrap_or(STOP_TIMEOUT),
        notify: table.get("notify").and_then(|entry| reader.yes_or_no(entry)).unwrap_or(false),
        socket: table.get("socket").and_then(|entry| reader.yes_or_no(entry)).unwrap_or(false),
        limits: table.get("limits").map(|entry| limits::read(entry, reader)).unwrap_or_default(),
    })
}

/// Only an image knows its own command.
fn command(root: &Table, header: &Entry, reader: &mut Reader) -> Option<Argv> {
    if let Some(entry) = header.table()?.get("command") {
        return Some(reader.command(entry).unwrap_or_default());
    }
    let image = root.table("artifact").is_some_and(|artifact| artifact.get("image").is_some());
    if !image {
        let field = format!("{}.command", header.field);
        reader.note(
            Finding::at(header.span.clone(), field, "`command` is missing in [run]")
                .hint("write `command = [\"./program\", \"argument\"]`"),
        );
    }
    Some(Argv::new())
}

fn port(table: &Table, reader: &mut Reader) -> Port {
    let Some(entry) = table.get("port") else { return Port::None };
    let number = entry.integer().and_then(|number| u16::try_from(number).ok());
    let hint = match (entry.text(), number) {
        (Some("auto"), _) => return Port::Auto,
        (None, Some(0)) => "for a free port write `port = \"auto\"`".to_owned(),
        (None, Some(number)) => return Port::Fixed(number),
        (Some(text), _) if text.parse::<u16>().is_ok() => format!("write {text} without quotes"),
        (_, _) => "write for example `port = 9000` or `port = \"auto\"`".to_owned(),
    };
    let message = "`port` is a number from 1 to 65535, or \"auto\"";
    reader.note(Finding::value(entry, message).hint(hint));
    Port::None
}

fn user(entry: &Entry, reader: &mut Reader) -> Option<String> {
    let text = reader.text(entry)?;
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let good = text.len() <= USER_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(inner);
    if good {
        return Some(text.to_owned());
    }
    let message = format!("\"{text}\" is not the name of a user");
    let hint = if text.bytes().all(|c| c.is_ascii_digit()) {
        "write the user's name, not its number"
    } else {
        "use at most 32 letters, digits, `_`, `.` and `-`, beginning with a letter or `_`"
    };
    reader.note(Finding::value(entry, message).hint(hint));
    None
}

fn env(entry: &Entry, reader: &mut Reader) -> BTreeMap<String, String> {
    let Some(table) = entry.table() else {
        let message = format!("`env` must be a table, not {}", entry.value.kind());
        reader.note(Finding::value(entry, message).hint("write env = { LOG = \"info\" }"));
        return BTreeMap::new();
    };
    let mut env = BTreeMap::new();
    for (name, value) in &table.0 {
        if let Err((message, hint)) = check_variable(name) {
            reader.note(Finding::key(value, message).hint(hint));
        }
        let text = match value.text() {
            Some("") => Some(String::new()),
            Some(_) | None => reader.template(value, Known::OnNode),
        };
        env.extend(text.map(|text| (name.clone(), text)));
    }
    env
}

fn check_variable(name: &str) -> Result<(), (String, String)> {
    let form = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !form {
        let message = format!("`{name}` is not the name of an environment variable");
        let hint = "use letters, digits and `_`, beginning with a letter or `_`";
        return Err((message, hint.to_owned()));
    }
    if name == "PORT" || name.starts_with("ROTA_") {
        let message = format!("`{name}` is set by Rota itself");
        let hint = match name {
            "PORT" => "remove it; its value comes from `port` in [run]",
            _ => "names that begin with ROTA_ are reserved: choose another",
        };
        return Err((message, hint.to_owned()));
    }
    Ok(())
}

fn env_file(entry: &Entry, reader: &mut Reader) -> Option<EnvFile> {
    let text = reader.template(entry, Known::OnNode)?;
    let (path, optional) = match text.strip_prefix('-') {
        Some(path) => (path, true),
        None => (text.as_str(), false),
    };
    if path.starts_with('/') {
        return Some(EnvFile { path: path.to_owned(), optional });
    }
    let message = format!("`env_file` is an absolute path on the node, not \"{text}\"");
    let hint = "write \"/etc/shop.env\", or \"-/etc/shop.env\" if it may be missing";
    reader.note(Finding::value(entry, message).hint(hint));
    None
}

fn signal(entry: &Entry, reader: &mut Reader) -> Option<Signal> {
    let names = Signal::ALL.map(|(name, _)| name);
    let all = names.join(", ");
    if let Some(number) = entry.integer() {
        let known = Signal::ALL.iter().find(|(_, signal)| i64::from(signal.number()) == number);
        let hint =
            known.map_or(format!("use one of {all}"), |(name, _)| format!("write \"{name}\""));
        reader.note(Finding::value(entry, "`stop_signal` is a name, not a number").hint(hint));
        return None;
    }
    let text = reader.text(entry)?;
    let short = text.strip_prefix("SIG").unwrap_or(text);
    if let Some((_, signal)) = Signal::ALL.iter().find(|(name, _)| *name == short) {
        return Some(*signal);
    }
    let upper = short.to_ascii_uppercase();
    let upper = upper.strip_prefix("SIG").unwrap_or(&upper);
    let near = names.into_iter().find(|name| *name == upper).or_else(|| nearest(upper, names));
    let hint = near.map_or(format!("use one of {all}"), |name| format!("did you mean \"{name}\"?"));
    let message = format!("\"{text}\" is not a signal that stops an app");
    reader.note(Finding::value(entry, message).hint(hint));
    None
}
