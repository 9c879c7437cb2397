//! `[[smoke]]`: what must work on a node before it rejoins.

use regex_lite::Regex;
use rota_rollout::names::Span;

use crate::manifest::problem::Finding;
use crate::manifest::read::{Known, Reader};
use crate::manifest::resolved::{Body, Smoke, SmokeTest};
use crate::manifest::template::{Piece, regex_pieces};
use crate::manifest::tree::{Entry, Table};

/// Smoke tests of one app. They run one after the other on every node, out of traffic.
const SMOKES_MAX: usize = 64;

/// Tries after the first. Who needs more wants `[health]`, which waits.
const RETRIES_MAX: u32 = 100;

const TIMEOUT: Span = Span::seconds(5);

/// Keys that look at an answer, which a command has not.
const OF_HTTP: [&str; 3] = ["status", "contains", "matches"];

pub(super) fn read(root: &Table, reader: &mut Reader) -> Vec<Smoke> {
    let tests = root.get("smoke").and_then(Entry::list).unwrap_or_default();
    if tests.len() > SMOKES_MAX {
        let message = format!("{} smoke tests, and the limit is {SMOKES_MAX}", tests.len());
        reader.note(
            Finding::value(&tests[SMOKES_MAX], message).hint("put several checks into one command"),
        );
    }
    tests.iter().filter_map(|test| smoke(test, reader)).collect()
}

fn smoke(entry: &Entry, reader: &mut Reader) -> Option<Smoke> {
    let table = entry.table()?;
    let Some(chosen) = reader.one_of(table, &["http", "command"]) else {
        reader.note(
            Finding::at(entry.span.clone(), entry.field.clone(), "this smoke test tests nothing")
                .hint("write `http = \"/\"` or `command = [\"./smoke.sh\"]`"),
        );
        return None;
    };
    let name = table.get("name").map(|name| reader.text(name).map(str::to_owned));
    let timeout = table.get("timeout").and_then(|entry| reader.duration(entry, Span(1)));
    let retries = table.get("retries").and_then(|entry| reader.whole(entry, 0, RETRIES_MAX));
    let test = match chosen.name() {
        "http" => http(chosen, table, reader)?,
        _ => command(chosen, table, reader)?,
    };
    let name = match name {
        Some(name) => name?,
        None => default_name(&test),
    };
    Some(Smoke {
        name,
        test,
        timeout: timeout.unwrap_or(TIMEOUT),
        retries: retries.unwrap_or_default(),
    })
}

fn default_name(test: &SmokeTest) -> String {
    match test {
        SmokeTest::Http { path, .. } => format!("GET {path}"),
        SmokeTest::Command(argv) => argv.join(" "),
    }
}

fn command(chosen: &Entry, table: &Table, reader: &mut Reader) -> Option<SmokeTest> {
    for stray in OF_HTTP.iter().filter_map(|key| table.get(key)) {
        let message = format!("`{}` goes with `http`, not with `command`", stray.name());
        let hint = "a command passes when it ends with 0";
        reader.note(Finding::key(stray, message).also(chosen).hint(hint));
    }
    reader.command(chosen).map(SmokeTest::Command)
}

fn http(chosen: &Entry, table: &Table, reader: &mut Reader) -> Option<SmokeTest> {
    let path = reader.http_path(chosen);
    let status = match table.get("status") {
        Some(entry) => reader.whole(entry, 100, 599).and_then(|code| u16::try_from(code).ok()),
        None => Some(200),
    };
    let body = match reader.one_of(table, &["contains", "matches"]) {
        None => Some(Body::Any),
        Some(entry) if entry.name() == "contains" => {
            reader.template(entry, Known::OnNode).map(Body::Contains)
        }
        Some(entry) => regex(entry, reader).map(Body::Matches),
    };
    Some(SmokeTest::Http { path: path?, status: status?, body: body? })
}

/// A regular expression; what is substituted in it stands for itself.
fn regex(entry: &Entry, reader: &mut Reader) -> Option<String> {
    let text = reader.text(entry)?;
    let pieces = reader.substitutions(entry, regex_pieces(text), Known::OnNode)?;
    let plain = |piece: Piece| match piece {
        Piece::Plain(text) => text,
        Piece::Version | Piece::App | Piece::Env | Piece::Port | Piece::Node | Piece::Label(_) => {
            "x".to_owned()
        }
    };
    let pattern: String = pieces.into_iter().map(plain).collect();
    match Regex::new(&pattern) {
        Ok(_) => Some(text.to_owned()),
        Err(bad) => {
            let message = format!("`matches` is not a regular expression: {}", last_line(&bad));
            let hint = "see https://docs.rs/regex-lite/latest/regex_lite/#syntax; for plain text \
                        use `contains`";
            reader.note(Finding::value(entry, message).hint(hint));
            None
        }
    }
}

/// The crate draws a picture; its last line says what is wrong.
fn last_line(bad: &regex_lite::Error) -> String {
    let text = bad.to_string();
    let line = text.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}
