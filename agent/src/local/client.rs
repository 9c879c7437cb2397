//! The asking side: `rota-agent status | apps | rollback | release`, and how answers are printed.

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::{Question, place};
use crate::cli::Output;

/// The longest answer, in bytes.
const ANSWER_MAX: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Nobody listens.
    #[error(
        "no agent answers on {}", path.display()
    )]
    NoAgent {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    /// It went away.
    #[error("the agent broke off before it answered")]
    BrokeOff(#[source] io::Error),
    /// What came is no answer.
    #[error("the agent answered something that this version does not understand")]
    Odd(#[source] serde_json::Error),
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

impl LocalError {
    /// In the words of the public contract.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoAgent { .. } => "unreachable",
            Self::BrokeOff(_) | Self::Odd(_) => "internal",
            Self::Refused(_) => "refused",
        }
    }

    /// What to do about it; may be empty.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoAgent { .. } => "is it running, and is this its `--data` folder?",
            Self::BrokeOff(_) => "`rota-agent status` shows whether it is back",
            Self::Odd(_) => "`rota-agent --version` and `rota-agent status` show both versions",
            Self::Refused(_) => "",
        }
    }
}

/// Asks the agent of this folder. A rollback is answered when it is done, so there is no limit.
pub async fn ask(data: &Path, question: &Question) -> Result<Value, LocalError> {
    let path = place(data);
    let stream = UnixStream::connect(&path).await;
    let stream = stream.map_err(|cause| LocalError::NoAgent { path, cause })?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_string(question).map_err(LocalError::Odd)?;
    line.push('\n');
    writer.write_all(line.as_bytes()).await.map_err(LocalError::BrokeOff)?;
    let mut answer = String::new();
    let mut reader = BufReader::new(reader.take(ANSWER_MAX));
    reader.read_line(&mut answer).await.map_err(LocalError::BrokeOff)?;
    if answer.is_empty() {
        return Err(LocalError::BrokeOff(io::ErrorKind::UnexpectedEof.into()));
    }
    let mut answer: Value = serde_json::from_str(&answer).map_err(LocalError::Odd)?;
    match answer.get("error").and_then(Value::as_str) {
        Some(message) => Err(LocalError::Refused(message.to_owned())),
        None => Ok(answer["ok"].take()),
    }
}

/// An answer, for people or for programs.
pub fn print(question: &Question, answer: &Value, output: Output) -> String {
    match (output, question) {
        (Output::Json, _) => format!("{answer:#}\n"),
        (Output::Table, Question::Status) => status(answer),
        (Output::Table, Question::Apps) => apps(answer),
        (Output::Table, Question::Rollback(app)) => {
            format!("{app} runs {} again\n", text(answer, "release"))
        }
        (Output::Table, Question::Release(_)) => {
            format!("{} {}\n", text(answer, "release"), text(answer, "digest"))
        }
    }
}

/// A field as text; `-` when there is nothing.
fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn rows(list: &Value, fields: &[&str]) -> Vec<Vec<String>> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|row| fields.iter().map(|field| text(row, field)).collect()).collect()
}

fn status(answer: &Value) -> String {
    let days = answer["certificate_seconds"].as_u64().unwrap_or_default() / 86_400;
    let mut out = format!(
        "{} {} in {}, agent {}, certificate ends in {days} days\n\n",
        text(answer, "kind"),
        text(answer, "name"),
        text(answer, "env"),
        text(answer, "version"),
    );
    let controllers = rows(&answer["controllers"], &["address", "name", "state", "error"]);
    out += &table(&["CONTROLLER", "NAME", "STATE", "ERROR"], &controllers);
    let updates = rows(&answer["updates"], &["rollout", "attempt", "to", "step"]);
    if updates.is_empty() {
        out += "\nno update under way\n";
    } else {
        out.push('\n');
        out += &table(&["UPDATE", "ATTEMPT", "TO", "STEP"], &updates);
    }
    let pollers = rows(&answer["pollers"], &["app", "told", "every_ms", "from"]);
    if !pollers.is_empty() {
        out.push('\n');
        out += &table(&["POLLED APP", "TOLD", "EVERY MS", "FROM"], &pollers);
    }
    out
}

fn apps(answer: &Value) -> String {
    let fields = ["app", "release", "health", "traffic", "in_flight", "port", "step"];
    let apps = rows(answer, &fields);
    if apps.is_empty() {
        return "no apps on this node yet\n".to_owned();
    }
    table(&["APP", "RELEASE", "HEALTH", "TRAFFIC", "IN FLIGHT", "PORT", "STEP"], &apps)
}

/// Columns as wide as their widest cell, the last one open.
fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0).max(heads[column].len())
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let heads: Vec<String> = heads.iter().map(|head| (*head).to_owned()).collect();
    let mut out = String::new();
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing into a String cannot fail.
            if write!(line, "{cell:width$}  ").is_err() {
                unreachable!("a String takes all text");
            }
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_tables() {
        let apps = serde_json::json!([
            { "app": "shop", "release": "1.1.0", "health": "healthy", "traffic": "in",
              "in_flight": 3, "port": 9000, "step": null },
        ]);
        assert_eq!(
            print(&Question::Apps, &apps, Output::Table),
            "APP   RELEASE  HEALTH   TRAFFIC  IN FLIGHT  PORT  STEP\n\
             shop  1.1.0    healthy  in       3          9000  -\n"
        );
        let status = serde_json::json!({
            "name": "web-01", "kind": "node", "env": "prod", "version": "0.1.0",
            "certificate_seconds": 86_400 * 29 + 5,
            "controllers": [
                { "address": "c1:7400", "name": "c1", "state": "up", "error": null },
                { "address": "c2:7400", "name": null, "state": "down", "error": "cannot reach c2" },
            ],
            "updates": [],
            "pollers": [
                { "app": "shop", "told": "ready", "every_ms": 1002,
                  "from": "10.0.0.5 (/ready/shop)" },
            ],
        });
        assert_eq!(
            print(&Question::Status, &status, Output::Table),
            "node web-01 in prod, agent 0.1.0, certificate ends in 29 days\n\n\
             CONTROLLER  NAME  STATE  ERROR\n\
             c1:7400     c1    up     -\n\
             c2:7400     -     down   cannot reach c2\n\n\
             no update under way\n\n\
             POLLED APP  TOLD   EVERY MS  FROM\n\
             shop        ready  1002      10.0.0.5 (/ready/shop)\n"
        );
    }
}
