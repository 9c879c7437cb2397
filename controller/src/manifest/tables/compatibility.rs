//! `[compatibility]`: which way back the makers of a release allow.

use semver::VersionReq;

use crate::manifest::compatibility::{Compatibility, Fence};
use crate::manifest::problem::Finding;
use crate::manifest::read::Reader;
use crate::manifest::tree::{Entry, Table, Value};

/// A schema is counted; nobody has more migrations.
const SCHEMA_MAX: u32 = 1_000_000_000;

/// How a fence is written.
const FORM: &str = "write a requirement such as \">=1.0.0\", or the least schema such as 6";

pub(super) fn read(root: &Table, reader: &mut Reader) -> Compatibility {
    let Some(table) = root.table("compatibility") else { return Compatibility::default() };
    let number = |entry: &Entry, reader: &mut Reader| reader.whole(entry, 0, SCHEMA_MAX);
    let schema = table.get("schema").and_then(|entry| number(entry, reader));
    let fence = table.get("rollback_to").and_then(|entry| match &entry.value {
        Value::Integer(_) => {
            let least = number(entry, reader)?;
            check(entry, least, schema, table, reader).then_some(Fence::Schema(least))
        }
        Value::Text(text) => requirement(entry, text, reader).map(Fence::Version),
        other => {
            let message =
                format!("`rollback_to` is a requirement or a number, not {}", other.kind());
            reader.note(Finding::value(entry, message).hint(FORM));
            None
        }
    });
    Compatibility { schema, rollback_to: fence }
}

fn requirement(entry: &Entry, text: &str, reader: &mut Reader) -> Option<VersionReq> {
    let bad = match text.parse::<VersionReq>() {
        // `*` and the like let everything through: then the key has no use.
        Ok(wanted) if !wanted.comparators.is_empty() => return Some(wanted),
        Ok(_) => "it lets everything through".to_owned(),
        Err(bad) => bad.to_string(),
    };
    let message = format!("`rollback_to` cannot be \"{text}\": {bad}");
    let hint = match text.parse::<u32>() {
        Ok(number) => format!("a schema is written without quotes: {number}"),
        Err(_) => FORM.to_owned(),
    };
    reader.note(Finding::value(entry, message).hint(hint));
    None
}

/// Does a least schema fit the schema of the release itself?
fn check(
    entry: &Entry,
    least: u32,
    schema: Option<u32>,
    table: &Table,
    reader: &mut Reader,
) -> bool {
    let other = table.get("schema");
    match (schema, other) {
        (Some(schema), Some(other)) if least > schema => {
            let message =
                format!("`rollback_to` {least} is above this release's `schema` {schema}");
            let hint = "an older release has a lower schema, or the same";
            reader.note(Finding::value(entry, message).also(other).hint(hint));
            false
        }
        (None, None) => {
            let message = format!("`rollback_to = {least}` is a schema, and there is no `schema`");
            let hint = "write beside it which schema this release has, for example `schema = 7`";
            reader.note(Finding::value(entry, message).hint(hint));
            false
        }
        (_, _) => true,
    }
}
