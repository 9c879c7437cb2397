//! The clean environment of apps, hooks and tests: nothing of the agent's own, and nothing by
//! accident.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::StartSpec;
use super::users::User;
use crate::template::TemplateError;

/// Where programs are looked for, unless the manifest says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is taken over from the agent: what the machine's owner set for all programs.
const INHERITED: [&str; 2] = ["TZ", "LANG"];
/// Bytes of an `env_file`.
const ENV_FILE_BYTES_MAX: u64 = 256 * 1024;

/// An environment that cannot be made. Values are never shown: they may be secrets.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// The file cannot be read.
    #[error("cannot read the env_file {path}")]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// The file is not a list of variables.
    #[error("{path}:{line}: expected NAME=value")]
    Line { path: PathBuf, line: usize },
    /// The file is far too long.
    #[error("the env_file {path} is larger than {ENV_FILE_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    /// A name or value that no environment can hold.
    #[error(
        "the variable `{name}` cannot be set: names have no `=` and neither part has NUL bytes"
    )]
    Variable { name: String },
    /// A substitution.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// What the process of this instance finds in its environment.
pub(super) fn of(
    start: &StartSpec,
    user: &User,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
    set("PATH", PATH.into());
    set("HOME", user.home.clone());
    set("USER", user.name.clone());
    set("LOGNAME", user.name.clone());
    for name in INHERITED {
        if let Ok(value) = std::env::var(name) {
            set(name, value);
        }
    }
    all.extend(told(start)?);
    Ok(all)
}

/// What the manifest says of it, and what Rota tells.
pub(super) fn told(start: &StartSpec) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: String| drop(all.insert(name.to_owned(), value));
    if let Some(file) = &start.spec.run.env_file {
        for (name, value) in from_file(file)? {
            set(&name, value);
        }
    }
    for (name, value) in &start.spec.run.env {
        set(name, start.values().render(value)?);
    }
    if let Some(port) = start.port {
        set("PORT", port.to_string());
    }
    set("ROTA_APP", start.spec.app.clone());
    set("ROTA_VERSION", start.spec.version.clone());
    set("ROTA_NODE", start.node.clone());
    set("ROTA_ENV", start.spec.env.clone());
    let impossible = |(name, value): &(&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match all.iter().find(impossible) {
        Some((name, _)) => Err(EnvironmentError::Variable { name: name.clone() }),
        None => Ok(all),
    }
}

fn from_file(file: &str) -> Result<Vec<(String, String)>, EnvironmentError> {
    let (path, optional) = match file.strip_prefix('-') {
        Some(path) => (Path::new(path), true),
        None => (Path::new(file), false),
    };
    match std::fs::metadata(path) {
        Err(cause) if optional && cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Ok(it) if it.len() > ENV_FILE_BYTES_MAX => {
            return Err(EnvironmentError::TooLarge { path: path.into() });
        }
        Ok(_) | Err(_) => {}
    }
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map_err(|line| EnvironmentError::Line { path: path.into(), line }),
        Err(cause) => Err(EnvironmentError::Read { path: path.into(), cause }),
    }
}

/// `NAME=value` lines; empty lines and `#` comments are skipped, one pair of quotes is taken off.
/// Or the wrong line's number.
fn parse(text: &str) -> Result<Vec<(String, String)>, usize> {
    let mut variables = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line);
        let (name, value) = line.split_once('=').ok_or(index + 1)?;
        let name = name.trim();
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(valid) {
            return Err(index + 1);
        }
        variables.push((name.to_owned(), unquoted(value.trim()).to_owned()));
    }
    Ok(variables)
}

fn unquoted(value: &str) -> &str {
    let inside = |quote| value.strip_prefix(quote).and_then(|it| it.strip_suffix(quote));
    inside('"').or_else(|| inside('\'')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files() {
        let rows = [
            ("", "[]"),
            ("# c\n\nA=1\n  B = two words \n", r#"[("A", "1"), ("B", "two words")]"#),
            ("A=\"q = #1\"\nB='x'\nC='", r##"[("A", "q = #1"), ("B", "x"), ("C", "'")]"##),
            ("export A=1\nE=", r#"[("A", "1"), ("E", "")]"#),
            ("A=1\nsecret", "line 2"),
            ("A=1\n\n=x", "line 3"),
            ("A B=1", "line 1"),
        ];
        for (text, expected) in rows {
            let got = match parse(text) {
                Ok(variables) => format!("{variables:?}"),
                Err(line) => format!("line {line}"),
            };
            assert_eq!(got, expected, "{text:?}");
        }
    }

    #[test]
    fn a_missing_file_is_an_error_unless_it_is_optional() {
        assert_eq!(from_file("-/no/such/file").expect("optional"), []);
        let error = from_file("/no/such/file").unwrap_err();
        assert_eq!(error.to_string(), "cannot read the env_file /no/such/file");
    }
}
