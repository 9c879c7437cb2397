//! Where a file is not TOML at all. The parser goes on after a mistake; so do we, as far as what
//! follows can still be believed.

use toml::de::DeTable;

use super::problem::{Finding, PROBLEMS_SHOWN_MAX};
use super::tree::Table;

/// Reads TOML. Mistakes that end on their own line come beside the tree; anything worse comes
/// alone, because all that follows it would be guessed.
pub(super) fn parse(text: &str) -> Result<(Table, Vec<Finding>), Vec<Finding>> {
    let (parsed, errors) = DeTable::parse_recoverable(text);
    let mut errors: Vec<Mistake> = errors
        .iter()
        .map(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let end = error.span().map_or(0, |span| span.end);
            let start = floor(text, start);
            Mistake { start, end: floor(text, end).max(start), message: error.message() }
        })
        .collect();
    errors.sort_by_key(|mistake| mistake.start);
    let root = Table::new(parsed.get_ref(), "");
    let worst = errors.iter().position(|mistake| !mistake.is_local());
    let believed = worst.map_or(errors.len(), |worst| worst + 1);
    let believed = believed.min(PROBLEMS_SHOWN_MAX);
    let found: Vec<Finding> =
        errors.iter().take(believed).map(|mistake| mistake.finding(text, &root)).collect();
    match worst {
        Some(_) => Err(found),
        None => Ok((root, found)),
    }
}

/// The nearest boundary of a character at or before a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

struct Mistake<'a> {
    start: usize,
    end: usize,
    message: &'a str,
}

impl Mistake<'_> {
    /// Does it leave the rest of the file readable?
    fn is_local(&self) -> bool {
        self.message == DUPLICATE || self.message.starts_with(UNQUOTED)
    }

    fn finding(&self, text: &str, root: &Table) -> Finding {
        let at = self.start..self.end;
        let written = text.get(at.clone()).unwrap_or_default();
        if self.message == DUPLICATE {
            // The tree keeps the first of the two.
            let first = root.last(&|entry| entry.key.end <= at.start && entry.name() == written);
            let field = first.map_or(written, |entry| &entry.field).to_owned();
            let finding = Finding::at(at, field, format!("`{written}` is written twice"));
            let finding = match first {
                Some(first) => Finding { also: Some(first.key.clone()), ..finding },
                None => finding,
            };
            return finding.hint("keep one of the two");
        }
        let unquoted = self.message.starts_with(UNQUOTED);
        let entry = root.last(&|entry| entry.span == at);
        let field = entry.filter(|_| unquoted).map_or("", |entry| &entry.field).to_owned();
        match (unquoted, written) {
            (true, "") => Finding::at(at, field, "a value is missing after `=`"),
            (true, _) => Finding::at(at, field, format!("`{written}` is not in quotes"))
                .hint(format!("write \"{written}\"")),
            (false, _) => Finding::at(at, field, format!("this is not TOML: {}", self.message)),
        }
    }
}

/// What the parser says of a second key or table of the same name.
const DUPLICATE: &str = "duplicate key";

/// How it begins when a text has no quotes, or a value is missing.
const UNQUOTED: &str = "string values must be quoted";
