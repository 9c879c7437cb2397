//! `[run.limits]`: the most that an instance may use of its host.

use crate::manifest::keys::{list, nearest};
use crate::manifest::problem::Finding;
use crate::manifest::read::Reader;
use crate::manifest::resolved::Limits;
use crate::manifest::tree::{Entry, Value};

const KEYS: [&str; 4] = ["memory", "cpu", "tasks", "open_files"];

/// The units of memory.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// With less no program starts.
const MEMORY_MIN: u64 = 1 << 20;

/// Percent of one core: 1024 cores are more than any host has.
const CPU_MAX: u32 = 102_400;

/// As many processes as Linux can number.
const TASKS_MAX: u32 = 1 << 22;

/// The kernel's own limit of open files in a process, unless somebody raised it.
const OPEN_FILES_MAX: u32 = 1 << 20;

pub(super) fn read(entry: &Entry, reader: &mut Reader) -> Limits {
    let Some(table) = entry.table() else {
        let message = format!("`limits` is a table, not {}", entry.value.kind());
        reader.note(Finding::value(entry, message).hint("write [run.limits] on a line of its own"));
        return Limits::default();
    };
    for (name, unknown) in table.0.iter().filter(|(name, _)| !KEYS.contains(&name.as_str())) {
        let hint = match nearest(name, KEYS) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("[run.limits] knows {}", list(&KEYS)),
        };
        let message = format!("unknown key `{name}` in [run.limits]");
        reader.note(Finding::key(unknown, message).hint(hint));
    }
    Limits {
        memory: table.get("memory").and_then(|entry| memory(entry, reader)),
        cpu: table.get("cpu").and_then(|entry| cpu(entry, reader)),
        tasks: table.get("tasks").and_then(|entry| reader.whole(entry, 1, TASKS_MAX)),
        open_files: table
            .get("open_files")
            .and_then(|entry| reader.whole(entry, 16, OPEN_FILES_MAX)),
    }
}

fn memory(entry: &Entry, reader: &mut Reader) -> Option<u64> {
    let hint = "write for example \"512MiB\" or \"2GiB\"";
    if let Some(number) = entry.integer() {
        let message = format!("`memory` needs a unit: {number} of what?");
        reader.note(Finding::value(entry, message).hint(hint));
        return None;
    }
    let text = reader.text(entry)?;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, bytes)| *bytes);
    let bytes = number.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
    match bytes {
        None => {
            let message = format!("`memory` is a number and a unit, not \"{text}\"");
            reader.note(Finding::value(entry, message).hint(hint));
            None
        }
        Some(bytes) if bytes < MEMORY_MIN => {
            let message = format!("`memory` is too little: \"{text}\"");
            reader.note(Finding::value(entry, message).hint("write at least \"1MiB\""));
            None
        }
        Some(bytes) => Some(bytes),
    }
}

fn cpu(entry: &Entry, reader: &mut Reader) -> Option<u32> {
    let percent = match (&entry.value, entry.text()) {
        (Value::Integer(cores), _) => {
            cores.and_then(|it| u32::try_from(it).ok()).and_then(|it| it.checked_mul(100))
        }
        (_, Some(text)) => text.strip_suffix('%').and_then(|it| it.parse().ok()),
        (_, None) => None,
    };
    let percent = percent.filter(|percent| (1..=CPU_MAX).contains(percent));
    if percent.is_none() {
        let message = "`cpu` is a percentage of one core, or a whole number of cores";
        let hint = "write for example \"150%\" for one and a half, or 2";
        reader.note(Finding::value(entry, message).hint(hint));
    }
    percent
}
