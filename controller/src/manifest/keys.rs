//! Every table and key that a manifest may have; all others are errors, with the nearest known one.

use super::problem::Finding;
use super::tree::{Entry, Table};

/// The tables and their keys. `smoke` is a list of tables; `run.env` and `target.labels` have
/// keys of the operator's own, and `run.limits` is looked at where it is read.
const TABLES: &[(&str, &[&str])] = &[
    ("artifact", &["path", "url", "sha256", "image"]),
    (
        "run",
        &[
            "driver",
            "command",
            "user",
            "env",
            "env_file",
            "port",
            "stop_signal",
            "stop_timeout",
            "notify",
            "socket",
            "limits",
        ],
    ),
    ("health", &["http", "tcp", "command", "interval", "timeout", "healthy_for", "deadline"]),
    (
        "traffic",
        &[
            "via",
            "pool",
            "edges",
            "leave",
            "join",
            "in_flight",
            "settle",
            "drain_timeout",
            "on_drain_timeout",
        ],
    ),
    ("smoke", &["name", "http", "command", "status", "contains", "matches", "timeout", "retries"]),
    ("hooks", &["before_drain", "before_start", "after_join", "on_failure"]),
    ("once", &["command", "timeout"]),
    (
        "strategy",
        &[
            "mode",
            "batch",
            "order",
            "max_unavailable",
            "delay",
            "monitor",
            "max_failures",
            "on_failure",
            "on_node_failure",
            "offline",
            "approve_after",
            "spread_by",
            "deadline",
            "rehearse_rollback",
            "catch_up",
        ],
    ),
    ("target", &["roles", "labels"]),
    ("compatibility", &["schema", "rollback_to"]),
];

/// Every key with its table, for the test of the documents.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = String> {
    TABLES.iter().flat_map(|(table, keys)| keys.iter().map(move |key| format!("{table}.{key}")))
}

/// Letters that two words begin with alike when one is probably meant for the other.
const COMMON_START: usize = 5;

/// The known word that was probably meant: a typing error away, a part of it, or the same start.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = word.to_lowercase().replace('-', "_");
    let typo = known
        .iter()
        .map(|name| (strsim::osa_distance(&lower, &name.replace('-', "_")), *name))
        .min()
        .filter(|(distance, name)| *distance <= (name.len().min(word.len()) / 3).max(1));
    if let Some((_, name)) = typo {
        return Some(name);
    }
    let start = |name: &str| name.chars().zip(lower.chars()).take_while(|(a, b)| a == b).count();
    let alike = |name: &&&str| {
        word.len() >= 3
            && (name.contains(&lower) || lower.contains(**name) || start(name) >= COMMON_START)
    };
    let mut parts = known.iter().filter(alike);
    let first = parts.next()?;
    if parts.next().is_none() { Some(first) } else { None }
}

/// Looks at all keys of the file, those of the environments too.
pub(super) fn check(root: &Table) -> Vec<Finding> {
    let mut found = Vec::new();
    check_tables(root, "", &mut found);
    let Some(envs) = root.get("env") else { return found };
    let Some(table) = envs.table() else {
        let hint = "the environment comes from the command line; to override something there, \
                    write [env.prod.strategy]";
        let message = format!("`env` holds overrides: it is a table, not {}", envs.value.kind());
        found.push(Finding::key(envs, message).hint(hint));
        return found;
    };
    for (name, env) in &table.0 {
        match env.table() {
            Some(table) => check_tables(table, &format!("env.{name}."), &mut found),
            None => {
                let example = format!("[env.{name}.strategy]");
                found.push(
                    Finding::key(env, format!("`env.{name}` is an environment: a table"))
                        .hint(format!("to override a table there, write {example}")),
                );
            }
        }
    }
    found
}

/// The tables under one prefix: `` or `env.NAME.`.
fn check_tables(tables: &Table, prefix: &str, found: &mut Vec<Finding>) {
    for (name, entry) in &tables.0 {
        let known = TABLES.iter().find(|(table, _)| table == name);
        match (known, name.as_str(), prefix.is_empty()) {
            (Some((_, keys)), "smoke", _) => check_smoke(entry, prefix, keys, found),
            (Some((_, keys)), ..) => match entry.table() {
                Some(table) => check_keys(table, (prefix, name), keys, found),
                None => found.push(not_a_table(entry, &format!("[{prefix}{name}]"))),
            },
            (None, "app" | "env", true) => {}
            (None, "app", false) => found.push(
                Finding::key(entry, "`app` cannot be overridden")
                    .hint("an app has the same name in every environment; remove this line"),
            ),
            (None, ..) => found.push(unknown_table(entry, name, prefix)),
        }
    }
}

fn check_smoke(entry: &Entry, prefix: &str, keys: &[&str], found: &mut Vec<Finding>) {
    let example = format!("write [[{prefix}smoke]] for each test");
    let Some(tests) = entry.list() else {
        let message = format!("`{prefix}smoke` is a list of tables, not {}", entry.value.kind());
        found.push(Finding::key(entry, message).hint(example));
        return;
    };
    for test in tests {
        match test.table() {
            Some(table) => {
                check_keys(table, (prefix, "smoke"), keys, found);
            }
            None => {
                let message = format!("a smoke test is a table, not {}", test.value.kind());
                found.push(Finding::value(test, message).hint(&example));
            }
        }
    }
}

/// The keys of one table, which has this prefix and name.
fn check_keys(table: &Table, (prefix, of): (&str, &str), keys: &[&str], found: &mut Vec<Finding>) {
    let header =
        if of == "smoke" { format!("[[{prefix}{of}]]") } else { format!("[{prefix}{of}]") };
    for (name, entry) in &table.0 {
        if keys.contains(&name.as_str()) {
            continue;
        }
        let hint = match (nearest(name, keys.iter().copied()), home(name)) {
            (Some(known), _) => format!("did you mean `{known}`?"),
            (None, Some(table)) => format!("`{name}` belongs in [{prefix}{table}]"),
            (None, None) => format!("{header} knows {}", list(keys)),
        };
        found.push(Finding::key(entry, format!("unknown key `{name}` in {header}")).hint(hint));
    }
}

/// The one table that knows this key.
fn home(key: &str) -> Option<&'static str> {
    let mut homes = TABLES.iter().filter(|(_, keys)| keys.contains(&key));
    let (table, _) = homes.next()?;
    if homes.next().is_none() { Some(table) } else { None }
}

fn unknown_table(entry: &Entry, name: &str, prefix: &str) -> Finding {
    let tables = TABLES.iter().map(|(table, _)| *table);
    let top = ["app", "env"].into_iter().filter(|_| prefix.is_empty());
    let hint = match (nearest(name, tables.clone().chain(top)), home(name)) {
        (Some("app"), _) => "did you mean `app`?".to_owned(),
        (Some(table), _) => format!("did you mean [{prefix}{table}]?"),
        (None, Some(table)) => format!("`{name}` belongs in [{prefix}{table}]"),
        (None, None) => format!("the tables are {}", list(&tables.collect::<Vec<_>>())),
    };
    let place = match prefix.trim_end_matches('.') {
        "" => "at the top of the file".to_owned(),
        env => format!("in [{env}]"),
    };
    let is_table = entry.table().is_some() || entry.list().is_some();
    let kind = if is_table { "table" } else { "key" };
    let message = format!("unknown {kind} `{name}` {place}");
    Finding::key(entry, message).hint(hint)
}

fn not_a_table(entry: &Entry, header: &str) -> Finding {
    let message = format!("`{}` is a table, not {}", entry.field, entry.value.kind());
    Finding::key(entry, message).hint(format!("write {header} on a line of its own"))
}

/// `a`, `b` and `c`.
pub(super) fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key() {
        let keys = ["via", "pool", "drain_timeout", "on_drain_timeout"];
        for (word, expected) in [
            ("drain_timout", Some("drain_timeout")),
            ("drain-timeout", Some("drain_timeout")),
            ("Pool", Some("pool")),
            ("pol", Some("pool")),
            ("pools", Some("pool")),
            ("drain", None),
            ("on_drain", Some("on_drain_timeout")),
            ("port", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, keys), expected, "{word}");
        }
    }
}
