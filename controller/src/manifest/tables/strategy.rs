//! `[strategy]`: how the fleet is moved. The core's types say what is possible.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::str::FromStr;

use rota_rollout::names::{LABEL_RULE, Span, is_label};
use rota_rollout::strategy::{
    Amount, BadAmount, Deadline, Mode, Offline, OnFailure, OnNodeFailure, StartOrder, Strategy,
    Tolerance,
};

use crate::manifest::problem::Finding;
use crate::manifest::read::Reader;
use crate::manifest::tree::{Entry, Table, Value};

/// Sizes in turn, and approvals. A rollout of more different batches is not one that anybody plans.
const ENTRIES_MAX: usize = 100;

const MODES: [(&str, Mode); 2] = [("batches", Mode::Batches), ("window", Mode::Window)];
const ORDERS: [(&str, StartOrder); 2] =
    [("stop-first", StartOrder::StopFirst), ("start-first", StartOrder::StartFirst)];
const ON_FAILURE: [(&str, OnFailure); 3] = [
    ("pause", OnFailure::Pause),
    ("rollback", OnFailure::Rollback),
    ("continue", OnFailure::Continue),
];
const ON_NODE_FAILURE: [(&str, OnNodeFailure); 2] =
    [("restore", OnNodeFailure::Restore), ("leave", OnNodeFailure::Leave)];
const OFFLINE: [(&str, Offline); 3] =
    [("skip", Offline::Skip), ("wait", Offline::Wait), ("fail", Offline::Fail)];

pub(super) fn read(root: &Table, reader: &mut Reader) -> Strategy {
    let mut strategy = Strategy::default();
    let Some(table) = root.table("strategy") else { return strategy };
    set(&mut strategy.mode, table.get("mode"), |entry| reader.choice(entry, &MODES));
    set(&mut strategy.batch, table.get("batch"), |entry| batch(entry, reader));
    set(&mut strategy.order, table.get("order"), |entry| reader.choice(entry, &ORDERS));
    set(&mut strategy.max_unavailable, table.get("max_unavailable"), |entry| {
        amount::<Amount>(entry, reader).map(Some)
    });
    set(&mut strategy.delay, table.get("delay"), |entry| reader.duration(entry, Span::ZERO));
    set(&mut strategy.monitor, table.get("monitor"), |entry| reader.duration(entry, Span::ZERO));
    set(&mut strategy.max_failures, table.get("max_failures"), |entry| amount(entry, reader));
    set(&mut strategy.on_failure, table.get("on_failure"), |entry| {
        reader.choice(entry, &ON_FAILURE)
    });
    set(&mut strategy.on_node_failure, table.get("on_node_failure"), |entry| {
        reader.choice(entry, &ON_NODE_FAILURE)
    });
    set(&mut strategy.offline, table.get("offline"), |entry| reader.choice(entry, &OFFLINE));
    set(&mut strategy.approve_after, table.get("approve_after"), |entry| {
        approve_after(entry, reader)
    });
    set(&mut strategy.spread_by, table.get("spread_by"), |entry| spread_by(entry, reader));
    set(&mut strategy.deadline, table.get("deadline"), |entry| {
        let span = reader.duration(entry, Span::ZERO)?;
        Some(if span == Span::ZERO { Deadline::None } else { Deadline::After(span) })
    });
    set(&mut strategy.rehearse_rollback, table.get("rehearse_rollback"), |entry| {
        reader.yes_or_no(entry)
    });
    set(&mut strategy.catch_up, table.get("catch_up"), |entry| reader.yes_or_no(entry));
    strategy
}

/// A key that is there and right replaces the default.
fn set<T>(place: &mut T, entry: Option<&Entry>, read: impl FnOnce(&Entry) -> Option<T>) {
    if let Some(value) = entry.and_then(read) {
        *place = value;
    }
}

/// What is written as a number or as a percentage.
trait Quantity: FromStr<Err = BadAmount> {
    fn of_number(number: i64) -> Result<Self, BadAmount>;
}

impl Quantity for Amount {
    fn of_number(number: i64) -> Result<Self, BadAmount> {
        Self::try_from(number)
    }
}

impl Quantity for Tolerance {
    fn of_number(number: i64) -> Result<Self, BadAmount> {
        u32::try_from(number).map(Self::Number).map_err(|_| BadAmount::Form)
    }
}

fn amount<T: Quantity>(entry: &Entry, reader: &mut Reader) -> Option<T> {
    let (read, shown) = match &entry.value {
        Value::Integer(Some(number)) => (T::of_number(*number), number.to_string()),
        Value::Integer(None) => (Err(BadAmount::Form), "this number".to_owned()),
        Value::Text(text) => (text.parse(), format!("\"{text}\"")),
        value => (Err(BadAmount::Form), value.kind().to_owned()),
    };
    let bad = match read {
        Ok(amount) => return Some(amount),
        Err(bad) => bad,
    };
    let name = entry.name().split('[').next().unwrap_or_default();
    let hint = match (entry.text(), entry.integer()) {
        (Some(text), _) if text.parse::<u32>().is_ok_and(|number| number > 0) => {
            format!("write {text} without quotes, or \"{text}%\"")
        }
        (None, _) if bad == BadAmount::Zero && name == "max_unavailable" => {
            "write at least 1; without this key it is as large as the batch".to_owned()
        }
        (None, Some(number)) if number < 0 && name == "max_failures" => {
            "write 0 to bear no failure, or a percentage such as \"5%\"".to_owned()
        }
        (_, _) => bad.to_string(),
    };
    reader.note(Finding::value(entry, format!("`{name}` cannot be {shown}")).hint(hint));
    None
}

fn batch(entry: &Entry, reader: &mut Reader) -> Option<Vec<Amount>> {
    let Value::List(items) = &entry.value else {
        return amount(entry, reader).map(|amount| vec![amount]);
    };
    if items.is_empty() || items.len() > ENTRIES_MAX {
        let message = match items.len() {
            0 => "`batch` is an empty list: how many nodes at once?".to_owned(),
            many => format!("`batch` has {many} entries, and the limit is {ENTRIES_MAX}"),
        };
        let hint = "write for example 3, \"25%\" or [1, \"10%\"], where the last one repeats";
        reader.note(Finding::value(entry, message).hint(hint));
        return None;
    }
    let amounts: Vec<Option<Amount>> = items.iter().map(|item| amount(item, reader)).collect();
    amounts.into_iter().collect()
}

fn approve_after(entry: &Entry, reader: &mut Reader) -> Option<Vec<NonZeroU32>> {
    let items = reader.items(entry, "write the numbers of batches, for example [1]")?;
    if items.len() > ENTRIES_MAX {
        let message = format!("`approve_after` has more than {ENTRIES_MAX} entries");
        reader.note(Finding::value(entry, message).hint("name fewer batches"));
    }
    let mut numbers = BTreeSet::new();
    for item in items {
        let number = item.integer().and_then(|number| u32::try_from(number).ok());
        let number = number.and_then(NonZeroU32::new);
        match number {
            Some(number) => {
                numbers.insert(number);
            }
            None => reader.note(
                Finding::value(item, "`approve_after` holds the numbers of batches, from 1")
                    .hint("write for example [1]: wait for approval after the first batch"),
            ),
        }
    }
    Some(numbers.into_iter().collect())
}

/// Written `""`, it is none.
fn spread_by(entry: &Entry, reader: &mut Reader) -> Option<Option<String>> {
    if entry.text() == Some("") {
        return Some(None);
    }
    let text = reader.text(entry)?;
    if is_label(text) {
        return Some(Some(text.to_owned()));
    }
    let message = format!("`spread_by`: `{text}` is not the name of a label");
    reader.note(Finding::value(entry, message).hint(LABEL_RULE));
    None
}
