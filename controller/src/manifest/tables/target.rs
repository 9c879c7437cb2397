//! `[target]`: which nodes of the environment.

use std::collections::{BTreeMap, BTreeSet};

use rota_rollout::names::{LABEL_RULE, is_label};

use crate::manifest::problem::Finding;
use crate::manifest::read::Reader;
use crate::manifest::resolved::Target;
use crate::manifest::tree::{Entry, Table};

/// The longest value of a label, as for its name.
const LABEL_VALUE_BYTES_MAX: usize = 63;

pub(super) fn read(root: &Table, reader: &mut Reader) -> Target {
    let none = Table::default();
    let table = root.table("target").unwrap_or(&none);
    Target {
        roles: table.get("roles").map(|entry| roles(entry, reader)).unwrap_or_default(),
        labels: table.get("labels").map(|entry| labels(entry, reader)).unwrap_or_default(),
    }
}

fn roles(entry: &Entry, reader: &mut Reader) -> BTreeSet<String> {
    let mut roles = BTreeSet::new();
    for item in reader.items(entry, "write for example [\"web\"]").unwrap_or_default() {
        match reader.text(item) {
            Some(role) if !is_label(role) => {
                let message = format!("`{role}` is not a role");
                reader.note(Finding::value(item, message).hint(LABEL_RULE));
            }
            role => roles.extend(role.map(str::to_owned)),
        }
    }
    roles
}

fn labels(entry: &Entry, reader: &mut Reader) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(table) = entry.table() else {
        let message = format!("`labels` must be a table, not {}", entry.value.kind());
        reader.note(Finding::value(entry, message).hint("write labels = { tier = \"front\" }"));
        return labels;
    };
    for (name, entry) in &table.0 {
        if !is_label(name) {
            let message = format!("`{name}` is not the name of a label");
            reader.note(Finding::key(entry, message).hint(LABEL_RULE));
        }
        let Some(value) = reader.text(entry) else { continue };
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if value.len() > LABEL_VALUE_BYTES_MAX || !value.chars().all(fits) {
            let message = format!("\"{value}\" is not the value of a label");
            let hint = "use 1 to 63 letters, digits, `.`, `_` and `-`";
            reader.note(Finding::value(entry, message).hint(hint));
        }
        labels.insert(name.clone(), value.to_owned());
    }
    labels
}
