//! The manifest as written: every value with its place and the full name of its key.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key and its value, where they stand, and how the key is called in full.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The bytes of the key.
    pub(super) key: Range<usize>,
    /// The bytes of the value; of the header for a table with one.
    pub(super) span: Range<usize>,
    /// For example `env.prod.strategy.batch` or `smoke[0].http`.
    pub(super) field: String,
    pub(super) value: Value,
}

/// A value of TOML, as far as a manifest needs them apart.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(String),
    /// `None` when it does not fit.
    Integer(Option<i64>),
    Float,
    Boolean(bool),
    Datetime,
    List(Vec<Entry>),
    Table(Table),
}

/// A table.
#[derive(Debug, Clone, Default)]
pub(super) struct Table(pub(super) BTreeMap<String, Entry>);

/// If an override says the first key of this table, the others no longer come from the base: they
/// answer the same question.
const ONE_OF: &[(&str, &str, &[&str])] = &[
    ("artifact", "path", &["url", "sha256", "image"]),
    ("artifact", "url", &["path", "image"]),
    ("artifact", "image", &["path", "url", "sha256"]),
    ("health", "http", &["tcp", "command"]),
    ("health", "tcp", &["http", "command"]),
    ("health", "command", &["http", "tcp"]),
];

impl Entry {
    /// The last part of the key's name.
    pub(super) fn name(&self) -> &str {
        self.field.rsplit('.').next().unwrap_or(&self.field)
    }

    /// The full name of the key `name` beside this one.
    pub(super) fn beside(&self, name: &str) -> String {
        match self.field.rsplit_once('.') {
            Some((table, _)) => format!("{table}.{name}"),
            None => name.to_owned(),
        }
    }

    /// Was it written in an override?
    pub(super) fn is_override(&self) -> bool {
        self.field.starts_with("env.")
    }

    fn last(&self, fits: &dyn Fn(&Entry) -> bool) -> Option<&Entry> {
        let in_table = self.table().and_then(|table| table.last(fits));
        let items = self.list().unwrap_or_default().iter();
        let in_list = items.filter_map(|item| item.last(fits)).max_by_key(|entry| entry.key.start);
        let inner = in_table.or(in_list);
        inner.or(Some(self)).filter(|entry| inner.is_some() || fits(entry))
    }

    pub(super) fn table(&self) -> Option<&Table> {
        let Value::Table(table) = &self.value else { return None };
        Some(table)
    }

    pub(super) fn list(&self) -> Option<&[Entry]> {
        let Value::List(items) = &self.value else { return None };
        Some(items)
    }

    pub(super) fn text(&self) -> Option<&str> {
        let Value::Text(text) = &self.value else { return None };
        Some(text)
    }

    /// A whole number that fits.
    pub(super) fn integer(&self) -> Option<i64> {
        let Value::Integer(number) = &self.value else { return None };
        *number
    }
}

impl Value {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "a whole number",
            Self::Float => "a number with a fraction",
            Self::Boolean(_) => "true or false",
            Self::Datetime => "a date or time",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Table {
    /// Reads what the parser gave.
    pub(super) fn new(parsed: &DeTable<'_>, field: &str) -> Self {
        let entries = parsed.iter().map(|(key, value)| {
            let name = key.get_ref().to_string();
            let field = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
            (name, entry(key.span(), value, field))
        });
        Self(entries.collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        self.0.get(key)
    }

    /// The table under this key; `None` too when it is something else, which `keys.rs` reports.
    pub(super) fn table(&self, key: &str) -> Option<&Table> {
        self.get(key)?.table()
    }

    /// The entry at any depth that fits and stands furthest down.
    pub(super) fn last(&self, fits: &dyn Fn(&Entry) -> bool) -> Option<&Entry> {
        self.0.values().filter_map(|entry| entry.last(fits)).max_by_key(|entry| entry.key.start)
    }

    /// This manifest with an environment's overrides: table by table, key by key.
    pub(super) fn overridden(&self, overrides: &Table) -> Self {
        let mut merged = self.clone();
        for (key, entry) in &overrides.0 {
            merged.set(key, entry);
        }
        merged
    }

    fn set(&mut self, key: &str, over: &Entry) {
        let (Some(Entry { value: Value::Table(base), .. }), Some(table)) =
            (self.0.get_mut(key), over.table())
        else {
            self.0.insert(key.to_owned(), over.clone());
            return;
        };
        for (_, _, rivals) in
            ONE_OF.iter().filter(|(of, chosen, _)| *of == key && table.get(chosen).is_some())
        {
            base.0.retain(|name, _| !rivals.contains(&name.as_str()));
        }
        for (inner, entry) in &table.0 {
            base.set(inner, entry);
        }
    }
}

fn entry(key: Range<usize>, value: &Spanned<DeValue<'_>>, field: String) -> Entry {
    let span = value.span();
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Float(_) => Value::Float,
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Table(table) => Value::Table(Table::new(table, &field)),
        DeValue::Array(items) => Value::List(
            items
                .iter()
                .enumerate()
                .map(|(n, item)| entry(item.span(), item, format!("{field}[{n}]")))
                .collect(),
        ),
    };
    Entry { key, span, field, value }
}
