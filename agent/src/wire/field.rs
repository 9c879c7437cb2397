//! Checks of single fields. An error says which field of the order, what it holds and what would
//! be right.

use std::time::Duration;

use crate::names::{DIGEST_RULE, LABEL_RULE, VERSION_RULE, is_digest, is_label, is_version};

/// The longest time an order may ask for, in hours. Nothing that a node does takes a week; a
/// larger number is a mistake of units.
const HOURS_MAX: u64 = 24 * 7;

/// The longest command line, in words. The kernel's own limit is in bytes and far higher.
const ARGV_MAX: usize = 1024;

/// A field of an order that cannot be carried out as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the order cannot be carried out: its field `{field}` {problem}")]
pub struct BadField {
    /// The path of the field, as in the .proto file.
    pub field: String,
    /// What it holds, and what would be right.
    pub problem: String,
}

/// Where we are in the message; grows a name with every level.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    parent: Option<&'a At<'a>>,
    name: &'a str,
}

impl<'a> At<'a> {
    pub(super) const fn root() -> Self {
        Self { parent: None, name: "" }
    }

    pub(super) const fn field(&'a self, name: &'a str) -> Self {
        Self { parent: Some(self), name }
    }

    /// The path: `update.release.run.port`.
    fn path(&self) -> String {
        match self.parent.map(At::path) {
            None => self.name.to_owned(),
            Some(parent) if parent.is_empty() => self.name.to_owned(),
            Some(parent) => format!("{parent}.{}", self.name),
        }
    }

    pub(super) fn bad(&self, problem: impl Into<String>) -> BadField {
        BadField { field: self.path(), problem: problem.into() }
    }

    pub(super) fn present<T>(&self, value: Option<T>) -> Result<T, BadField> {
        value.ok_or_else(|| self.bad("is absent"))
    }

    fn named(
        &self,
        text: String,
        is_right: fn(&str) -> bool,
        rule: &str,
    ) -> Result<String, BadField> {
        if is_right(&text) {
            return Ok(text);
        }
        Err(self.bad(format!("is {text:?}: {rule}")))
    }

    pub(super) fn label(&self, text: String) -> Result<String, BadField> {
        self.named(text, is_label, LABEL_RULE)
    }

    pub(super) fn version(&self, text: String) -> Result<String, BadField> {
        self.named(text, is_version, VERSION_RULE)
    }

    pub(super) fn digest(&self, text: String) -> Result<String, BadField> {
        self.named(text, is_digest, DIGEST_RULE)
    }

    /// HOST:PORT with a port that can be dialled.
    pub(super) fn address(&self, text: String) -> Result<String, BadField> {
        let port = text.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
            Some(port) if port > 0 => Ok(text),
            Some(_) | None => Err(self.bad(format!("is {text:?}: write HOST:PORT"))),
        }
    }

    pub(super) fn duration(&self, ms: u64) -> Result<Duration, BadField> {
        if ms > HOURS_MAX * 3_600_000 {
            return Err(self.bad(format!("is {ms} ms: at most {HOURS_MAX} hours")));
        }
        Ok(Duration::from_millis(ms))
    }

    pub(super) fn nonzero_duration(&self, ms: u64) -> Result<Duration, BadField> {
        if ms == 0 {
            return Err(self.bad("is 0: it would never get any time"));
        }
        self.duration(ms)
    }

    /// A path of a request on the app, such as `/healthz`.
    pub(super) fn http_path(&self, text: String) -> Result<String, BadField> {
        let plain = |c: char| c.is_ascii_graphic();
        if text.starts_with('/') && text.chars().all(plain) {
            return Ok(text);
        }
        Err(self.bad(format!("is {text:?}: a path begins with `/` and has no spaces")))
    }

    /// A command line that can be executed.
    pub(super) fn argv(&self, argv: Vec<String>) -> Result<Vec<String>, BadField> {
        if argv.first().is_none_or(String::is_empty) {
            return Err(self.bad("is empty: a command has at least a program"));
        }
        if argv.len() > ARGV_MAX {
            return Err(self.bad(format!("has {} words: at most {ARGV_MAX}", argv.len())));
        }
        if argv.iter().any(|word| word.contains('\0')) {
            return Err(self.bad("has a NUL in a word"));
        }
        Ok(argv)
    }

    /// A text for the operating system: no NUL.
    pub(super) fn plain(&self, text: String) -> Result<String, BadField> {
        if text.contains('\0') { Err(self.bad("has a NUL in it")) } else { Ok(text) }
    }
}
