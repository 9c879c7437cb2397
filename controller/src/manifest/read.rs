//! Reads single values and notes every mistake. What is wrong reads as `None`, so that the rest of
//! the file is still looked at.

use std::str::FromStr;

use rota_rollout::names::Span;

use super::duration;
use super::keys::nearest;
use super::problem::Finding;
use super::template::{BadTemplate, Piece, pieces};
use super::tree::{Entry, Table, Value};

/// A command line: the program, then its arguments.
pub type Argv = Vec<String>;

/// What may not be substituted in a value, and why.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// On a node everything is known; `{port}` if the app has one.
    OnNode,
    /// When a release is packed, only its app and version.
    WhenPacked,
}

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) found: Vec<Finding>,
    /// Does the app listen somewhere? Known once `[run]` was read.
    pub(super) has_port: bool,
}

impl Reader {
    pub(super) fn note(&mut self, finding: Finding) {
        self.found.push(finding);
    }

    fn wrong_kind(&mut self, entry: &Entry, wanted: &str) -> Finding {
        let (name, kind) = (entry.name(), entry.value.kind());
        Finding::value(entry, format!("`{name}` must be {wanted}, not {kind}"))
    }

    /// A text that is not empty.
    pub(super) fn text<'t>(&mut self, entry: &'t Entry) -> Option<&'t str> {
        let Some(text) = entry.text() else {
            let finding = self.wrong_kind(entry, "a string").hint(in_quotes(entry));
            self.note(finding);
            return None;
        };
        let problem = if text.is_empty() {
            "must not be empty"
        } else if text.contains('\0') {
            "contains a zero byte, which no program can be given"
        } else {
            return Some(text);
        };
        let message = format!("`{}` {problem}", entry.name());
        self.note(Finding::value(entry, message).hint("write a text, or remove the key"));
        None
    }

    /// A text whose form its type knows.
    pub(super) fn parsed<T: FromStr>(&mut self, entry: &Entry) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(entry)?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(bad) => {
                self.note(Finding::value(entry, format!("`{}`: {bad}", entry.name())));
                None
            }
        }
    }

    /// A text with substitutions.
    pub(super) fn template(&mut self, entry: &Entry, known: Known) -> Option<String> {
        let text = self.text(entry)?.to_owned();
        self.substitutions(entry, pieces(&text), known)?;
        Some(text)
    }

    /// Checks the substitutions of a text that was taken apart.
    pub(super) fn substitutions(
        &mut self,
        entry: &Entry,
        pieces: Result<Vec<Piece>, BadTemplate>,
        known: Known,
    ) -> Option<Vec<Piece>> {
        let pieces = match pieces {
            Ok(pieces) => pieces,
            Err(bad) => {
                self.note(Finding::value(entry, bad.message).hint(bad.hint));
                return None;
            }
        };
        let problem = pieces.iter().find_map(|piece| match (piece, known) {
            (Piece::Plain(_) | Piece::Version | Piece::App, _) => None,
            (Piece::Port, Known::OnNode) if !self.has_port => Some((
                "`{port}` is used, but the app has no port",
                "write `port = 9000` or `port = \"auto\"` in [run]",
            )),
            (Piece::Env | Piece::Port | Piece::Node | Piece::Label(_), Known::OnNode) => None,
            (Piece::Env | Piece::Port | Piece::Node | Piece::Label(_), Known::WhenPacked) => {
                Some((
                    "only {version} and {app} are known when a release is made",
                    "a release is the same in every environment and on every node",
                ))
            }
        });
        match problem {
            None => Some(pieces),
            Some((message, hint)) => {
                self.note(Finding::value(entry, message).hint(hint));
                None
            }
        }
    }

    /// A path of a URL on the node.
    pub(super) fn http_path(&mut self, entry: &Entry) -> Option<String> {
        let text = self.template(entry, Known::OnNode)?;
        let graphic = text.bytes().all(|c| c.is_ascii_graphic());
        if text.starts_with('/') && graphic {
            return Some(text);
        }
        let hint = if text.contains("://") {
            "write only the path: the agent asks the app on its own node".to_owned()
        } else if graphic {
            format!("write \"/{text}\"")
        } else {
            "write blanks and letters outside ASCII as %20 and so on".to_owned()
        };
        let message = format!("`{}` is a path such as \"/healthz\", not \"{text}\"", entry.name());
        self.note(Finding::value(entry, message).hint(hint));
        None
    }

    /// A duration of at least `least`.
    pub(super) fn duration(&mut self, entry: &Entry, least: Span) -> Option<Span> {
        let name = entry.name();
        let text = match (entry.text(), entry.integer()) {
            (Some(text), _) => text,
            (None, Some(number)) if number >= 0 => {
                let message = format!("`{name}` needs a unit: {number} of what?");
                self.note(
                    Finding::value(entry, message)
                        .hint(format!("write \"{number}s\" or \"{number}ms\", in quotes")),
                );
                return None;
            }
            (None, _) => {
                let finding = self.wrong_kind(entry, "a duration").hint(duration::FORM);
                self.note(finding);
                return None;
            }
        };
        match duration::parse(text) {
            Err(bad) => {
                let message = format!("`{name}`: {}", bad.message);
                self.note(Finding::value(entry, message).hint(bad.hint));
                None
            }
            Ok(span) if span < least => {
                let message = format!("`{name}` is too short: \"{text}\"");
                let hint = format!("write at least \"{least}\"");
                self.note(Finding::value(entry, message).hint(hint));
                None
            }
            Ok(span) => Some(span),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, entry: &Entry, choices: &[(&str, T)]) -> Option<T> {
        let quoted: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let all = match quoted.split_last() {
            Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
            None => String::new(),
        };
        let Some(given) = entry.text() else {
            let message = format!("`{}` is {all}, not {}", entry.name(), entry.value.kind());
            self.note(Finding::value(entry, message));
            return None;
        };
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == given) {
            return Some(*value);
        }
        let message = format!("`{}` is {all}, not \"{given}\"", entry.name());
        let finding = Finding::value(entry, message);
        self.note(match nearest(given, choices.iter().map(|(word, _)| *word)) {
            Some(word) => finding.hint(format!("did you mean \"{word}\"?")),
            None => finding,
        });
        None
    }

    /// `true` or `false`.
    pub(super) fn yes_or_no(&mut self, entry: &Entry) -> Option<bool> {
        if let Value::Boolean(value) = entry.value {
            return Some(value);
        }
        let hint = match entry.text() {
            Some(text @ ("true" | "false")) => format!("write {text} without quotes"),
            Some(_) | None => "write true or false".to_owned(),
        };
        let finding = self.wrong_kind(entry, "true or false").hint(hint);
        self.note(finding);
        None
    }

    /// A whole number between two others.
    pub(super) fn whole(&mut self, entry: &Entry, least: u32, most: u32) -> Option<u32> {
        let Value::Integer(number) = entry.value else {
            let number = entry.text().filter(|text| text.parse::<u32>().is_ok());
            let hint = match number {
                Some(text) => format!("write {text} without quotes"),
                None => format!("write a number from {least} to {most}"),
            };
            let finding = self.wrong_kind(entry, "a whole number").hint(hint);
            self.note(finding);
            return None;
        };
        let number = number.and_then(|number| u32::try_from(number).ok());
        let good = number.filter(|number| (least..=most).contains(number));
        if good.is_none() {
            let message = format!("`{}` must be from {least} to {most}", entry.name());
            self.note(Finding::value(entry, message));
        }
        good
    }

    /// The items of a list; what is none is noted.
    pub(super) fn items<'t>(&mut self, entry: &'t Entry, hint: &str) -> Option<&'t [Entry]> {
        let Some(items) = entry.list() else {
            let finding = self.wrong_kind(entry, "a list").hint(hint);
            self.note(finding);
            return None;
        };
        Some(items)
    }

    /// A command: a list of texts, the first of which is the program.
    pub(super) fn command(&mut self, entry: &Entry) -> Option<Argv> {
        if let Some(text) = entry.text() {
            let words: Vec<String> =
                text.split_whitespace().map(|word| format!("\"{word}\"")).collect();
            let finding = self.wrong_kind(entry, "a list of strings").hint(format!(
                "no shell is involved; write [{}]",
                if words.is_empty() { "\"./program\"".to_owned() } else { words.join(", ") }
            ));
            self.note(finding);
            return None;
        }
        let items = self.items(entry, "write [\"./program\", \"argument\"]")?;
        if items.is_empty() {
            let message = format!("`{}` is empty", entry.name());
            let hint = "write the program and its arguments: [\"./program\", \"argument\"]";
            self.note(Finding::value(entry, message).hint(hint));
            return None;
        }
        let words: Vec<Option<String>> =
            items.iter().enumerate().map(|(n, item)| self.word(item, n)).collect();
        words.into_iter().collect()
    }

    /// One word of a command; only the program must not be empty.
    fn word(&mut self, item: &Entry, number: usize) -> Option<String> {
        match item.text() {
            Some("") if number > 0 => Some(String::new()),
            Some("") => {
                let hint = "write the program first: [\"./program\", \"argument\"]";
                self.note(Finding::value(item, "the program of this command is empty").hint(hint));
                None
            }
            Some(_) => self.template(item, Known::OnNode),
            None => {
                let kind = item.value.kind();
                let message = format!("a command is a list of strings, and this is {kind}");
                self.note(Finding::value(item, message).hint(in_quotes(item)));
                None
            }
        }
    }

    /// Exactly one of several keys: the one that is there.
    pub(super) fn one_of<'t>(&mut self, table: &'t Table, keys: &[&str]) -> Option<&'t Entry> {
        let mut given: Vec<&Entry> = keys.iter().filter_map(|key| table.get(key)).collect();
        given.sort_by_key(|entry| (entry.is_override(), entry.key.start));
        let [first, second, ..] = given[..] else { return given.first().copied() };
        let (one, other) = (first.name(), second.name());
        let message = format!("`{other}` and `{one}` exclude each other");
        self.note(Finding::key(second, message).also(first).hint("keep one of the two"));
        Some(first)
    }
}

/// What to do about a value that should have been a text.
fn in_quotes(entry: &Entry) -> String {
    match (entry.integer(), &entry.value) {
        (Some(number), _) => format!("put it in quotes: \"{number}\""),
        (None, Value::Boolean(value)) => format!("put it in quotes: \"{value}\""),
        (None, _) => "write one text in quotes".to_owned(),
    }
}
