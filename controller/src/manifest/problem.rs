//! What is wrong with a manifest: where, why, and what would be right; and how people see it.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::tree::Entry;

/// Problems that are kept and shown. Whoever has more fixes these first; a broken file of
/// [`super::MANIFEST_BYTES_MAX`] must not fill a terminal's history or cost a controller seconds.
pub const PROBLEMS_SHOWN_MAX: usize = 50;

/// One problem while it is found: still a range of bytes, not yet a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) at: Range<usize>,
    /// A second place that contradicts the first.
    pub(super) also: Option<Range<usize>>,
    pub(super) field: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    /// A problem of the value of `entry`.
    pub(super) fn value(entry: &Entry, message: impl Into<String>) -> Self {
        Self::at(entry.span.clone(), entry.field.clone(), message)
    }

    /// A problem of the key of `entry`.
    pub(super) fn key(entry: &Entry, message: impl Into<String>) -> Self {
        Self::at(entry.key.clone(), entry.field.clone(), message)
    }

    /// A problem of `field`, shown at these bytes.
    pub(super) fn at(at: Range<usize>, field: String, message: impl Into<String>) -> Self {
        Self { at, also: None, field, message: message.into(), hint: None }
    }

    /// And what would be right.
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// And the other place that it contradicts.
    pub(super) fn also(self, entry: &Entry) -> Self {
        Self { also: Some(entry.span.clone()), ..self }
    }
}

/// One problem of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file, as the operator wrote its name.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The key it is about, for example `env.prod.strategy.batch`; empty for the file as a whole.
    pub field: String,
    /// What is wrong, in one line.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    #[serde(skip)]
    span: Range<usize>,
    #[serde(skip)]
    also: Option<Range<usize>>,
}

impl fmt::Display for Problem {
    /// `FILE:LINE:COLUMN: MESSAGE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
    }
}

/// Everything that is wrong with one manifest, in the order of its lines. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    /// How many were found besides.
    more: usize,
    text: String,
}

impl std::error::Error for Problems {}

impl fmt::Display for Problems {
    /// Without pictures: one line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.list.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Problems {
    /// Turns findings into problems: ordered, each once, with lines.
    pub(super) fn new(file: &str, text: &str, mut findings: Vec<Finding>) -> Self {
        findings.sort_by(|a, b| (a.at.start, &a.message).cmp(&(b.at.start, &b.message)));
        findings.dedup_by(|a, b| a.at == b.at && a.message == b.message);
        let more = findings.len().saturating_sub(PROBLEMS_SHOWN_MAX);
        findings.truncate(PROBLEMS_SHOWN_MAX);
        let list = findings.into_iter().map(|found| problem(file, text, found)).collect();
        Self { list, more, text: text.to_owned() }
    }

    /// The first [`PROBLEMS_SHOWN_MAX`] of them.
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// What to do about the first one that has a hint; for `-o json`.
    pub fn hint(&self) -> Option<&str> {
        self.list.iter().find_map(|problem| problem.hint.as_deref())
    }

    /// All problems for people: `error: FILE:LINE:COLUMN: MESSAGE`, the line, the hint.
    pub fn render(&self, color: bool) -> String {
        let mut shown: Vec<String> =
            self.list.iter().map(|problem| problem.render(&self.text, color)).collect();
        if self.more > 0 {
            shown.push(format!("and at least {} more problems", self.more));
        }
        shown.join("\n\n")
    }
}

impl Problem {
    fn render(&self, text: &str, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut out = renderer.render(&[self.picture(text)]);
        if let Some(hint) = &self.hint {
            out.push_str(if color { "\n\u{1b}[1mhint\u{1b}[0m: " } else { "\nhint: " });
            out.push_str(hint);
        }
        out
    }

    fn picture<'a>(&'a self, text: &'a str) -> Group<'a> {
        let title = Level::ERROR.primary_title(self.to_string());
        if text.is_empty() {
            return Group::with_title(title);
        }
        let primary = AnnotationKind::Primary.span(first_line(text, &self.span));
        let mut snippet = Snippet::source(text).annotation(primary);
        if let Some(also) = &self.also {
            snippet = snippet.annotation(AnnotationKind::Context.span(first_line(text, also)));
        }
        title.element(snippet)
    }
}

/// The part of `span` that lies on its first line: a picture of one line says enough.
fn first_line(text: &str, span: &Range<usize>) -> Range<usize> {
    let part = text.get(span.clone()).unwrap_or_default();
    let end = part.find(['\r', '\n']).unwrap_or(part.len());
    span.start..span.start + end
}

fn problem(file: &str, text: &str, found: Finding) -> Problem {
    let (line, column) = line_and_column(text, found.at.start);
    let message = match &found.also {
        Some(also) => {
            format!("{} (see line {})", found.message, line_and_column(text, also.start).0)
        }
        None => found.message,
    };
    Problem {
        file: file.to_owned(),
        line,
        column,
        field: found.field,
        message,
        hint: found.hint,
        span: found.at,
        also: found.also,
    }
}

/// Where a byte is, both from 1; a byte order mark is not counted.
pub(super) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before[start..].chars().filter(|c| *c != '\u{feff}').count() + 1;
    (line, column)
}
