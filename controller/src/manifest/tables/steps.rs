//! `[hooks]` and `[once]`: the operator's own commands.

use rota_rollout::names::Span;

use crate::manifest::problem::Finding;
use crate::manifest::read::{Argv, Reader};
use crate::manifest::resolved::{Hooks, Once};
use crate::manifest::tree::{Entry, Table};

/// Commands of one hook. They run one after the other on every node.
const HOOK_COMMANDS_MAX: usize = 32;

const ONCE_TIMEOUT: Span = Span::seconds(600);

pub(super) fn hooks(root: &Table, reader: &mut Reader) -> Hooks {
    let none = Table::default();
    let table = root.table("hooks").unwrap_or(&none);
    let mut read = |key: &str| table.get(key).map(|entry| hook(entry, reader)).unwrap_or_default();
    Hooks {
        before_drain: read("before_drain"),
        before_start: read("before_start"),
        after_join: read("after_join"),
        on_failure: read("on_failure"),
    }
}

/// One command `["./x", "y"]`, or a list of commands `[["./x"], ["./y"]]`; `[]` is none.
fn hook(entry: &Entry, reader: &mut Reader) -> Vec<Argv> {
    let Some(items) = entry.list() else {
        return reader.command(entry).into_iter().collect();
    };
    if items.is_empty() {
        return Vec::new();
    }
    let is_list = |item: &&Entry| item.list().is_some();
    if !items.iter().any(|item| is_list(&item)) {
        return reader.command(entry).into_iter().collect();
    }
    if let Some(odd) = items.iter().find(|item| !is_list(item)) {
        let message = format!("`{}` mixes words and commands", entry.name());
        let hint = "write one command [\"./x\", \"y\"] or several [[\"./x\", \"y\"], [\"./z\"]]";
        reader.note(Finding::value(odd, message).hint(hint));
        return Vec::new();
    }
    if items.len() > HOOK_COMMANDS_MAX {
        let message = format!("{} commands, and the limit is {HOOK_COMMANDS_MAX}", items.len());
        reader.note(Finding::value(entry, message).hint("put them into one script"));
    }
    items.iter().filter_map(|item| reader.command(item)).collect()
}

pub(super) fn once(root: &Table, reader: &mut Reader) -> Option<Once> {
    let header = root.get("once")?;
    let table = header.table()?;
    let timeout = table
        .get("timeout")
        .and_then(|entry| reader.duration(entry, Span(1)))
        .unwrap_or(ONCE_TIMEOUT);
    let Some(entry) = table.get("command") else {
        let field = format!("{}.command", header.field);
        reader.note(
            Finding::at(header.span.clone(), field, "`command` is missing in [once]")
                .hint("write `command = [\"./migrate\", \"up\"]`, or remove the table"),
        );
        return None;
    };
    Some(Once { command: reader.command(entry)?, timeout })
}
