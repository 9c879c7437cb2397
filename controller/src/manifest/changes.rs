//! What one manifest says otherwise than another, key by key, as their writers wrote it.

use std::collections::BTreeMap;

use rota_rollout::names::EnvName;

use super::syntax;
use super::tree::{Entry, Table, Value};
use crate::view::KeyChange;

/// Values of the app's environment may be secrets: that they differ is said, not how.
const SECRET: &str = "run.env.";

/// What is written for such a value.
const HIDDEN: &str = "(hidden)";

/// Every key whose value differs, with the overrides of the environment in place.
pub fn changes(old: &str, new: &str, env: &EnvName) -> Vec<KeyChange> {
    let (old, new) = (flat(old, env), flat(new, env));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    let differs = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    differs
        .map(|key| {
            let shown = |value: Option<&String>| match key.starts_with(SECRET) {
                true => value.map(|_| HIDDEN.to_owned()),
                false => value.cloned(),
            };
            KeyChange { key: key.clone(), old: shown(old.get(key)), new: shown(new.get(key)) }
        })
        .collect()
}

/// Every value by the full name of its key. A text that is no manifest has none.
fn flat(text: &str, env: &EnvName) -> BTreeMap<String, String> {
    let Ok((root, _)) = syntax::parse(text) else { return BTreeMap::new() };
    let there = root.table("env").and_then(|envs| envs.table(env.as_str()));
    let mut whole = there.map_or_else(|| root.clone(), |over| root.overridden(over));
    whole.0.remove("env");
    let mut values = BTreeMap::new();
    spread(&whole, "", &mut values);
    values
}

fn spread(table: &Table, under: &str, values: &mut BTreeMap<String, String>) {
    for (name, entry) in &table.0 {
        let key = if under.is_empty() { name.clone() } else { format!("{under}.{name}") };
        match &entry.value {
            Value::Table(inner) => spread(inner, &key, values),
            Value::List(items) if items.iter().any(|item| item.table().is_some()) => {
                for (number, item) in items.iter().enumerate() {
                    if let Some(inner) = item.table() {
                        spread(inner, &format!("{key}[{number}]"), values);
                    }
                }
            }
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float
            | Value::Boolean(_)
            | Value::Datetime
            | Value::List(_) => {
                values.insert(key, literal(entry));
            }
        }
    }
}

/// A value as TOML writes it.
fn literal(entry: &Entry) -> String {
    match &entry.value {
        Value::Text(text) => format!("{text:?}"),
        Value::Integer(number) => number.map_or_else(|| "?".to_owned(), |it| it.to_string()),
        Value::Boolean(value) => value.to_string(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(literal).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Float | Value::Datetime => "?".to_owned(),
        Value::Table(_) => "{…}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs() {
        let old = r#"
app = "shop"
[run]
command = ["./shop"]
env = { KEY = "a", LOG = "x" }
[[smoke]]
http = "/"
[strategy]
batch = 1
[env.prod.strategy]
batch = [1, "10%"]
"#;
        let new = r#"
app = "shop"
[run]
command = ["./shop", "-v"]
env = { KEY = "b", LOG = "x" }
[[smoke]]
http = "/a"
[strategy]
batch = 2
delay = "5s"
[env.prod.strategy]
batch = [1, "10%"]
"#;
        let told = |env: &str| -> Vec<String> {
            changes(old, new, &env.parse().unwrap())
                .into_iter()
                .map(|it| {
                    let or = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
                    format!("{}: {} -> {}", it.key, or(it.old), or(it.new))
                })
                .collect()
        };
        let shared = [
            "run.command: [\"./shop\"] -> [\"./shop\", \"-v\"]",
            "run.env.KEY: (hidden) -> (hidden)",
            "smoke[0].http: \"/\" -> \"/a\"",
        ];
        assert_eq!(told("prod"), [&shared[..], &["strategy.delay: - -> \"5s\""]].concat());
        let test = ["strategy.batch: 1 -> 2", "strategy.delay: - -> \"5s\""];
        assert_eq!(told("test"), [&shared[..], &test].concat());
        assert_eq!(changes(old, old, &"prod".parse().unwrap()), []);
    }
}
