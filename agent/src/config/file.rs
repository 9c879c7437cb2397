//! Reads agent.toml. A mistake is named with its file, line and the nearest known key.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use crate::cli::{LogFormat, RunArgs, Volume};
use crate::names::nearest;

/// The largest agent.toml, in bytes; a larger file is some other file.
const BYTES_MAX: u64 = 256 * 1024;

/// The keys, each the flag of the same name.
const KEYS: [&str; 14] = [
    "data",
    "controller",
    "token",
    "name",
    "env",
    "role",
    "label",
    "edge",
    "traffic_listen",
    "endpoint_listen",
    "address",
    "log_format",
    "verbose",
    "quiet",
];

/// Why agent.toml cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        cause: std::io::Error,
    },
    /// It is not the right file.
    #[error("{} has more than {BYTES_MAX} bytes: this is no agent.toml", path.display())]
    TooLarge { path: PathBuf },
    /// It says something wrong.
    #[error("{}:{line}: {problem}", path.display())]
    Wrong { path: PathBuf, line: usize, problem: String },
}

/// The keys' types; what they mean is checked where flags are.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    data: Option<PathBuf>,
    controller: OneOrMore,
    token: Option<String>,
    name: Option<String>,
    env: Option<String>,
    role: OneOrMore,
    label: Labels,
    edge: OneOrMore,
    #[serde(alias = "traffic-listen")]
    traffic_listen: Option<String>,
    #[serde(alias = "endpoint-listen")]
    endpoint_listen: Option<String>,
    address: Option<String>,
    #[serde(alias = "log-format")]
    log_format: Option<LogFormat>,
    verbose: u8,
    quiet: bool,
}

/// `role = "web"` or `role = ["web", "api"]`.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// `label = { zone = "a" }`, or as the flag writes it.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a table such as { zone = \"a\" }")]
enum Labels {
    Table(BTreeMap<String, String>),
    Flags(OneOrMore),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::Table(BTreeMap::new())
    }
}

impl From<OneOrMore> for Vec<String> {
    fn from(given: OneOrMore) -> Self {
        match given {
            // As the flag: `controller = "c1:7400,c2:7400"`.
            OneOrMore::One(text) => text.split(',').map(str::to_owned).collect(),
            OneOrMore::More(list) => list,
        }
    }
}

impl From<Labels> for Vec<String> {
    fn from(given: Labels) -> Self {
        match given {
            Labels::Flags(list) => list.into(),
            Labels::Table(table) => {
                table.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
            }
        }
    }
}

/// The settings of a file, as if they had been flags.
pub(super) fn read(path: &Path) -> Result<RunArgs, FileError> {
    let text = text(path)?;
    let wrong = |span: Option<Range<usize>>, problem: String| FileError::Wrong {
        path: path.to_owned(),
        line: line(&text, span.map_or(0, |span| span.start)),
        problem,
    };
    let of_toml = |error: toml::de::Error| {
        wrong(error.span(), error.message().lines().next().unwrap_or_default().to_owned())
    };
    let table: BTreeMap<Spanned<String>, IgnoredAny> = toml::from_str(&text).map_err(of_toml)?;
    for key in table.keys() {
        let name = key.get_ref().replace('-', "_");
        if !KEYS.contains(&name.as_str()) {
            let near = nearest(&name, KEYS).map(|near| format!(", did you mean `{near}`?"));
            let near = near.unwrap_or_else(|| format!("; known are {}", KEYS.join(", ")));
            let problem = format!("unknown key `{}`{near}", key.get_ref());
            return Err(wrong(Some(key.span()), problem));
        }
    }
    let keys: Keys = toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = table.keys().filter(|key| key.span().start <= at);
        let key =
            before.max_by_key(|key| key.span().start).map_or("", |key| key.get_ref().as_str());
        let problem = error.message().lines().next().unwrap_or_default();
        let problem = problem.replace("expected u8", "expected a number");
        wrong(error.span(), format!("`{key}`: {problem}"))
    })?;
    Ok(keys.into())
}

impl From<Keys> for RunArgs {
    fn from(keys: Keys) -> Self {
        Self {
            config: None,
            data: keys.data,
            controller: keys.controller.into(),
            token: keys.token,
            name: keys.name,
            env: keys.env,
            role: keys.role.into(),
            label: keys.label.into(),
            edge: keys.edge.into(),
            traffic_listen: keys.traffic_listen,
            endpoint_listen: keys.endpoint_listen,
            address: keys.address,
            log_format: keys.log_format,
            volume: Volume { verbose: keys.verbose, quiet: keys.quiet },
        }
    }
}

fn text(path: &Path) -> Result<String, FileError> {
    let read = |cause| FileError::Read { path: path.to_owned(), cause };
    let file = std::fs::File::open(path).map_err(read)?;
    let mut text = String::new();
    file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// The number of the line that holds this byte, from 1.
fn line(text: &str, byte: usize) -> usize {
    let before = &text.as_bytes()[..byte.min(text.len())];
    1 + before.iter().filter(|c| **c == b'\n').count()
}
