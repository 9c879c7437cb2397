//! Where words go: data to stdout, talk to stderr, each as its reader can take it.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use rota_rollout::names::Timestamp;
use serde::de::DeserializeOwned;

use super::Global;
use super::outcome::{Exit, Failure};
use super::table::{Ink, Tone, fitted, wrap};

/// A terminal that does not say its size, or says nonsense, is taken for this wide.
const COLUMNS_DEFAULT: usize = 80;
/// And for this high.
const ROWS_DEFAULT: usize = 24;

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The documents of the contract.
    Json,
}

/// What a rendering may know about its reader, as plain data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Colours or none.
    pub ink: Ink,
    /// The terminal's width; `None` where it is no terminal and nothing may be shortened.
    pub columns: Option<usize>,
    /// Its height, likewise.
    pub rows: Option<usize>,
    /// The wall clock, for "3m ago".
    pub now: Timestamp,
}

/// The two streams and the wishes of the command line.
#[derive(Debug, Clone)]
pub struct Talk {
    /// How data is printed.
    pub format: Format,
    quiet: bool,
    verbose: bool,
    colour: bool,
}

impl Talk {
    /// Reads the wishes from the command line and `NO_COLOR`.
    pub fn new(global: &Global) -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            format: global.output,
            quiet: global.quiet,
            verbose: global.verbose,
            colour: !(global.no_color || unwanted || dumb),
        }
    }

    /// For whoever must not say a word: only what is asked for goes out.
    pub fn silent() -> Self {
        Self { format: Format::Table, quiet: true, verbose: false, colour: false }
    }

    /// The reader of stdout.
    pub fn page(&self) -> Page {
        self.page_of(io::stdout().is_terminal())
    }

    /// The reader of stderr.
    pub fn side_page(&self) -> Page {
        self.page_of(io::stderr().is_terminal())
    }

    fn page_of(&self, terminal: bool) -> Page {
        let ink = if terminal && self.colour { Ink::Colour } else { Ink::Plain };
        let size = terminal.then(terminal_size);
        let (columns, rows) = (size.map(|size| size.0), size.map(|size| size.1));
        Page { ink, columns, rows, now: now() }
    }

    /// May a live block be drawn on stderr?
    pub fn live(&self) -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        io::stderr().is_terminal() && !dumb && !self.quiet
    }

    /// Prints data; a reader that went away has seen enough.
    pub fn data(&self, text: &str) -> Result<(), Failure> {
        match write_data(text) {
            Ok(()) => Ok(()),
            Err(gone) if gone.kind() == io::ErrorKind::BrokenPipe => Err(reader_gone()),
            Err(error) => Err(Failure::internal("cannot write to stdout", &error)),
        }
    }

    /// Prints a document of the contract: as JSON as it came, or as `draw` shows it.
    pub fn document<T: DeserializeOwned>(
        &self,
        json: &str,
        draw: impl FnOnce(&T, &Page) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.data(&pretty(json)?),
            Format::Table => self.screen(&draw(&parse(json)?, &self.page())),
        }
    }

    /// Prints what was drawn for people; on a terminal no word is broken.
    pub fn screen(&self, text: &str) -> Result<(), Failure> {
        self.data(&fitted(text, self.page().columns))
    }

    /// Says what goes on. Silent with `-q`, and with `-o json` unless a person is watching, so
    /// that stderr then holds nothing but the error document.
    pub fn say(&self, text: &str) {
        if self.talks() {
            write_side(&format!("{text}\n"));
        }
    }

    /// Answers somebody who pressed a key: also with `-o json`, for a person is there.
    pub fn answer(&self, text: &str) {
        if !self.quiet {
            write_side(&format!("{text}\n"));
        }
    }

    /// Says what only somebody who asked with `-v` wants to know.
    pub fn detail(&self, text: &str) {
        if self.verbose {
            write_side(&format!("{}\n", self.side_page().ink.paint(Tone::Dim, text)));
        }
    }

    /// Does anybody read what goes on?
    pub fn talks(&self) -> bool {
        let machine = self.format == Format::Json && !io::stderr().is_terminal();
        !self.quiet && (!machine || self.verbose)
    }

    /// Says the error, as `-o` wants it.
    pub fn error(&self, failure: &Failure) {
        if failure.exit == Exit::Done {
            return;
        }
        match self.format {
            Format::Json => write_side(&failure.in_json()),
            Format::Table => {
                let page = self.side_page();
                let (ink, words) = (page.ink, wrapped(failure, page.columns));
                let painted = match words.strip_prefix("error:") {
                    Some(rest) => format!("{}{rest}", ink.paint(Tone::Bad, "error:")),
                    None => words,
                };
                write_side(&painted);
            }
        }
    }

    /// Asks before something that cannot be taken back. Off a terminal nobody can be asked, and
    /// the command line is the answer.
    pub fn confirm(&self, question: &str, yes: bool) -> Result<(), Failure> {
        if yes || !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(());
        }
        write_side(&format!("{question} [y/N] "));
        let mut answer = String::new();
        io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|error| Failure::internal("cannot read the answer", &error))?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Failure::new("refused", "you did not say yes: nothing was changed")
                .hint("`--yes` answers beforehand")),
        }
    }
}

/// The words of a failure, broken where the terminal ends; pictures are drawn as they are.
fn wrapped(failure: &Failure, columns: Option<usize>) -> String {
    let words = failure.in_words();
    match columns {
        Some(columns) if failure.picture.is_none() => {
            words.lines().map(|line| wrap(line, columns) + "\n").collect()
        }
        Some(_) | None => words,
    }
}

/// Not an error of ours: `rota events | head` ends like this.
fn reader_gone() -> Failure {
    Failure { exit: Exit::Done, ..Failure::new("internal", "the reader of stdout went away") }
}

/// Writes data.
pub fn write_data(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes talk. When stderr is gone there is nobody left to tell, so its errors are dropped.
pub fn write_side(text: &str) {
    let mut stderr = io::stderr().lock();
    if stderr.write_all(text.as_bytes()).is_ok() {
        stderr.flush().ok();
    }
}

/// Columns and rows of the terminal behind stderr or stdout.
pub fn terminal_size() -> (usize, usize) {
    let size = rustix::termios::tcgetwinsize(io::stderr())
        .or_else(|_| rustix::termios::tcgetwinsize(io::stdout()));
    match size {
        Ok(size) if size.ws_col >= 20 && size.ws_row >= 5 => {
            (usize::from(size.ws_col), usize::from(size.ws_row))
        }
        Ok(_) | Err(_) => (COLUMNS_DEFAULT, ROWS_DEFAULT),
    }
}

/// The wall clock; the pure parts get it as data.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Reads a document of the contract.
pub fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|error| {
        Failure::internal("the controller's answer is not what this `rota` understands", &error)
            .hint("`rota --version` and `rota controller ls` show both versions")
    })
}

/// The same document over several lines, its fields in the order in which they came.
pub fn pretty(json: &str) -> Result<String, Failure> {
    let _checked: serde::de::IgnoredAny = parse(json)?;
    Ok(indented(json))
}

/// Breaks lines between the parts of a document that is known to be one. A tree of a large fleet's document would take
/// ten times as long.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth = 0;
    let mut rest = json;
    let next = |text: &mut String, depth: usize| {
        text.push('\n');
        (0..depth).for_each(|_| text.push_str("  "));
    };
    while let Some(at) = rest.find(['"', '{', '[', '}', ']', ',', ':']) {
        let (before, from) = rest.split_at(at);
        text.push_str(before.trim());
        let mut length = 1;
        match &from[..1] {
            "\"" => {
                length = string_length(from);
                text.push_str(&from[..length]);
            }
            opens @ ("{" | "[") => {
                text.push_str(opens);
                let inside = from[1..].trim_start();
                if let Some(closes) = inside.chars().next().filter(|c| matches!(c, '}' | ']')) {
                    text.push(closes);
                    length = from.len() - inside.len() + 1;
                } else {
                    depth += 1;
                    next(&mut text, depth);
                }
            }
            closes @ ("}" | "]") => {
                depth -= 1;
                next(&mut text, depth);
                text.push_str(closes);
            }
            "," => {
                text.push(',');
                next(&mut text, depth);
            }
            _ => text.push_str(": "),
        }
        rest = &from[length..];
    }
    text.push_str(rest.trim());
    text.push('\n');
    text
}

/// How long the string is that begins here, with both its quotes.
fn string_length(from: &str) -> usize {
    let mut escaped = false;
    let end = from.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(from.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pretty_is_as_serde_makes_it() {
        for json in [
            "{}",
            "[]",
            "null",
            "-1.5",
            r#""one\"two\\""#,
            r#"{"a":[],"b":{},"c":[{"d":1},{"e":[[]]}]}"#,
            r#"{ "a" : [ 1 , true,null ] , "b" : "x, {y}: [z] \u00e4ä" , "c" : [ ] }"#,
            r#"[["\\"],["\\\""],{"k\"":{"l":""}}]"#,
        ] {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            let expected = serde_json::to_string_pretty(&value).unwrap() + "\n";
            assert_eq!(pretty(json).unwrap().replace("\\u00e4", "ä"), expected, "{json}");
        }
        assert!(pretty("{\"a\":").is_err());
    }
}
