//! Aligned columns without borders, and colour that only repeats what the words say.

/// What colour adds to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    Plain,
    /// As it should be.
    Good,
    /// Under way.
    Busy,
    /// Waits, or wants a look.
    Warn,
    /// Failed.
    Bad,
    /// Of less interest.
    Dim,
    /// A title.
    Bold,
}

/// Whether words may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Words only.
    Plain,
    /// ANSI colours.
    Colour,
}

impl Ink {
    /// The text in this tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Busy => "36",
            Tone::Warn => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
            Tone::Bold => "1",
        };
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// The tone of a state of the contract, whatever it is the state of.
pub fn tone_of(state: &str) -> Tone {
    match state {
        "completed" | "done" | "ready" | "active" | "healthy" | "in" => Tone::Good,
        "preparing" | "rolling" | "rolling_back" | "updating" | "running" | "joining" => Tone::Busy,
        "draining" | "drained" | "paused" | "held" | "partial" | "skipped" | "restored" => {
            Tone::Warn
        }
        "rolled_back" | "aborted" | "out" | "stopped" => Tone::Warn,
        "failed" | "offline" | "revoked" | "lost" | "unhealthy" => Tone::Bad,
        "pending" => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// A state as people read it: `rolling_back` is "rolling back".
pub fn state_words(state: &str) -> String {
    state.replace('_', " ")
}

/// How wide `text` is on a terminal; every character of ours takes one column, and colours take none.
pub fn width(text: &str) -> usize {
    if text.contains('\x1b') { uncoloured(text).chars().count() } else { text.chars().count() }
}

/// The text without its colours.
pub fn uncoloured(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

/// `text`, or as much of it as fits in `columns` and an ellipsis.
pub fn fit(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(3)).collect();
    let dots = &"..."[..columns.min(3)];
    format!("{}{dots}", kept.trim_end())
}

/// A name, or as much of its two ends as fits: what tells it from its neighbours is mostly at its end.
pub fn fit_name(name: &str, columns: usize) -> String {
    let length = width(name);
    if length <= columns || columns < 8 {
        return fit(name, columns);
    }
    let end = (columns - 3) / 2;
    let start: String = name.chars().take(columns - 3 - end).collect();
    let end: String = name.chars().skip(length - end).collect();
    format!("{start}...{end}")
}

/// A line broken between words so that it fits; what follows is moved in a little further. A word
/// that is too long stays whole: nobody could copy it otherwise.
pub fn wrap(line: &str, columns: usize) -> String {
    let indent = width(line) - width(line.trim_start());
    let hang = " ".repeat(indent + 2);
    let mut text = String::new();
    let mut at = 0;
    for word in line.trim_start().split(' ') {
        if at == 0 {
            text.push_str(&line[..indent]);
            at = indent;
        } else if at + 1 + width(word) > columns {
            text.push('\n');
            text.push_str(&hang);
            at = hang.len();
        } else {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += width(word);
    }
    text
}

/// A screen of which no line is broken in the middle of a word. What apps printed stays as it is.
pub fn fitted(text: &str, columns: Option<usize>) -> String {
    let Some(columns) = columns else { return text.to_owned() };
    let fits = |line: &&str| width(line) <= columns || line.trim_start().starts_with('|');
    let lines = text.split('\n').map(|line| match fits(&line) {
        true => line.to_owned(),
        false => wrap(line, columns),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// One word or phrase of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    text: String,
    tone: Tone,
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: Tone::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl Cell {
    /// A phrase in a tone.
    pub fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: text.into(), tone }
    }

    /// A state of the contract, in its words and its tone.
    pub fn state(state: &str) -> Self {
        Self::toned(tone_of(state), state_words(state))
    }

    /// A value that may be absent: then `-`.
    pub fn or_dash(text: Option<&str>) -> Self {
        match text {
            Some(text) if !text.is_empty() => Self::from(text),
            Some(_) | None => Self::toned(Tone::Dim, "-"),
        }
    }
}

/// Columns are not made narrower than this on a small terminal.
const CELL_MIN: usize = 7;

/// Nor is the first one, which has the names.
const NAME_MIN: usize = 14;

/// In a pipe no column is padded further than this: one long cell sticks out of its row, instead of moving every other
/// row apart. It is as wide as a name mostly is.
const PADDED_MAX: usize = 40;

/// Rows under a heading.
#[derive(Debug, Clone)]
pub struct Table {
    heads: Vec<&'static str>,
    right: Vec<usize>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
    /// Columns that a small terminal can do without.
    spare: Vec<&'static str>,
}

/// The last column mostly says why: before it has less room than this, spare columns are left out.
const LAST_MIN: usize = 24;

impl Table {
    /// A table with these headings; a heading that begins with `>` is aligned to the right.
    pub fn new(heads: &[&'static str]) -> Self {
        let right = (0..heads.len()).filter(|at| heads[*at].starts_with('>')).collect();
        let heads = heads.iter().map(|head| head.trim_start_matches('>')).collect();
        Self { heads, right, rows: Vec::new(), indent: 0, spare: Vec::new() }
    }

    /// The same, without these columns where there is no room for them; the first goes first.
    pub fn sparing(mut self, heads: &[&'static str]) -> Self {
        self.spare = heads.to_vec();
        self
    }

    /// The same, moved to the right.
    pub fn indented(mut self, columns: usize) -> Self {
        self.indent = columns;
        self
    }

    /// One more row, with a cell for each heading.
    pub fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.heads.len(), "a cell for each heading");
        self.rows.push(cells.into());
    }

    /// Is there no row?
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, by the one rule for every table. On a terminal it fits: the last column is shortened first, then the
    /// widest ones; where even that is too wide, each row becomes a few lines. In a pipe nothing is shortened, each
    /// row stays one line, and columns are aligned up to a width of [`PADDED_MAX`].
    pub fn text(&self, ink: Ink, terminal: Option<usize>) -> String {
        let natural = self.natural();
        if let Some(smaller) = terminal.and_then(|columns| self.without_spare(&natural, columns)) {
            return smaller.text(ink, terminal);
        }
        let widths = match terminal {
            None => natural.into_iter().map(|width| width.min(PADDED_MAX)).collect(),
            Some(columns) => match self.shrunk(natural, columns) {
                Some(widths) => widths,
                None => return self.stacked(ink, columns),
            },
        };
        let heads = self.heads.iter().map(|head| Cell::toned(Tone::Dim, *head)).collect();
        let mut text = String::new();
        for row in [&heads].into_iter().chain(&self.rows) {
            text.push_str(&self.line(row, &widths, (ink, terminal.is_some())));
            text.push('\n');
        }
        text
    }

    /// As wide as what is in them.
    fn natural(&self) -> Vec<usize> {
        let widest = |at: usize| {
            let cells = self.rows.iter().map(|row| width(&row[at].text));
            cells.chain([width(self.heads[at])]).max().unwrap_or(0)
        };
        (0..self.heads.len()).map(widest).collect()
    }

    /// The table without its next spare column, where that makes room.
    fn without_spare(&self, natural: &[usize], columns: usize) -> Option<Self> {
        let (next, rest) = self.spare.split_first()?;
        let (last, others) = natural.split_last()?;
        let needed = others.iter().map(|width| width + 2).sum::<usize>() + (*last).min(LAST_MIN);
        if self.indent + needed <= columns {
            return None;
        }
        let mut table = Self { spare: rest.to_vec(), ..self.clone() };
        let at = self.heads.iter().position(|head| head == next)?;
        table.heads.remove(at);
        table.right = self
            .right
            .iter()
            .filter(|it| **it != at)
            .map(|it| it - usize::from(*it > at))
            .collect();
        table.rows.iter_mut().for_each(|row| drop(row.remove(at)));
        Some(table)
    }

    /// Widths that fit; `None` where nothing readable would be left.
    fn shrunk(&self, mut widths: Vec<usize>, columns: usize) -> Option<Vec<usize>> {
        let last = widths.len() - 1;
        let least =
            |at: usize| width(self.heads[at]).max(if at == 0 { NAME_MIN } else { CELL_MIN });
        loop {
            let over = (widths.iter().map(|width| width + 2).sum::<usize>() + self.indent)
                .saturating_sub(2 + columns);
            if over == 0 {
                return Some(widths);
            }
            let room = |at: usize| widths[at].saturating_sub(least(at));
            // Names last: who cannot read them cannot name the thing.
            let middle = (1..last).max_by_key(|at| if room(*at) > 0 { widths[*at] } else { 0 });
            let candidates = [Some(last), middle, Some(0)].into_iter().flatten();
            let at = candidates.into_iter().find(|at| room(*at) > 0)?;
            let step = if at == last { over } else { 1 };
            widths[at] -= step.min(room(at));
        }
    }

    /// Each row as its first cell, and below it the others with their headings.
    fn stacked(&self, ink: Ink, columns: usize) -> String {
        let pad = self.heads.iter().skip(1).map(|head| width(head)).max().unwrap_or(0);
        let before = self.indent + 2 + pad + 2;
        let mut text = String::new();
        for row in &self.rows {
            let indent = " ".repeat(self.indent);
            let name = fit_name(&row[0].text, columns.saturating_sub(self.indent));
            text.push_str(&format!("{indent}{}\n", ink.paint(row[0].tone, &name)));
            for (head, cell) in self.heads.iter().zip(row).skip(1) {
                if cell.text.is_empty() || cell.text == "-" {
                    continue;
                }
                let value = fit(&cell.text, columns.saturating_sub(before));
                let head = ink.paint(Tone::Dim, &format!("{head:pad$}"));
                text.push_str(&format!("{indent}  {head}  {}\n", ink.paint(cell.tone, &value)));
            }
        }
        text
    }

    fn line(&self, row: &[Cell], widths: &[usize], (ink, fits): (Ink, bool)) -> String {
        let mut line = " ".repeat(self.indent);
        let filled = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |at| at + 1);
        for (at, cell) in row.iter().take(filled).enumerate() {
            let words = match at {
                _ if !fits => cell.text.clone(),
                0 => fit_name(&cell.text, widths[at]),
                _ => fit(&cell.text, widths[at]),
            };
            let gap = " ".repeat(widths[at].saturating_sub(width(&words)));
            let painted = ink.paint(cell.tone, &words);
            match (self.right.contains(&at), at + 1 == filled) {
                (true, _) => line.extend([gap.as_str(), &painted]),
                (false, true) => line.push_str(&painted),
                (false, false) => line.extend([painted.as_str(), &gap]),
            }
            if at + 1 < filled {
                line.push_str("  ");
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", ">SIZE", "WHY"]);
        table.row(["web-01".into(), "7".into(), "a long story about a node".into()]);
        table.row(["db-1".into(), "1200".into(), "".into()]);
        table
    }

    #[test]
    fn columns_are_aligned_and_pipes_get_everything() {
        let expected = "\
NAME    SIZE  WHY
web-01     7  a long story about a node
db-1    1200
";
        assert_eq!(table().text(Ink::Plain, None), expected);
    }

    /// One long cell in the middle moves only its own row.
    #[test]
    fn pipes_get_no_seas_of_blanks() {
        let mut table = table();
        let long = "shop/prod sh -c 'find . -name \"*.log\" -mtime +7 -delete'";
        table.row(["web-02".into(), long.into(), "cleaned".into()]);
        let text = table.text(Ink::Plain, None);
        assert!(text.contains(&format!("web-02  {long}  cleaned\n")), "{text}");
        assert!(text.lines().take(3).all(|line| line.len() < 80), "{text}");
    }

    #[test]
    fn a_small_terminal_does_without_what_it_can_spare() {
        let table = table().sparing(&["SIZE"]);
        let expected = "\
NAME    WHY
web-01  a long story about...
db-1
";
        assert_eq!(table.text(Ink::Plain, Some(30)), expected);
        assert!(table.text(Ink::Plain, Some(40)).contains("SIZE"));
        assert!(table.text(Ink::Plain, None).contains("SIZE"));
    }

    #[test]
    fn screens_are_broken_between_words_and_output_is_not() {
        let text = "a hint that is long\n  | what an app has printed\n";
        let fits = "a hint\n  that is\n  long\n  | what an app has printed\n";
        assert_eq!(fitted(text, Some(10)), fits);
        assert_eq!(fitted(text, None), text);
    }

    #[test]
    fn a_terminal_gets_what_fits() {
        let expected = "\
NAME    SIZE  WHY
web-01     7  a long story...
db-1    1200
";
        assert_eq!(table().text(Ink::Plain, Some(29)), expected);
    }

    #[test]
    fn a_small_terminal_gets_lines() {
        let expected = "\
web-01
  SIZE  7
  WHY   a long s...
db-1
  SIZE  1200
";
        assert_eq!(table().text(Ink::Plain, Some(19)), expected);
    }

    #[test]
    fn colour_changes_no_column() {
        let coloured = table().text(Ink::Colour, None);
        let mut plain = String::new();
        let mut parts = coloured.split("\x1b[");
        plain.push_str(parts.next().unwrap());
        for part in parts {
            plain.push_str(part.split_once('m').unwrap().1);
        }
        assert_eq!(plain, table().text(Ink::Plain, None));
    }

    #[test]
    fn wrapping() {
        for (line, columns, wrapped) in [
            ("short", 10, "short"),
            ("one two three", 8, "one two\n  three"),
            ("  one two three", 9, "  one two\n    three"),
            ("averyverylongword and more", 10, "averyverylongword\n  and more"),
            ("", 10, ""),
            ("a  b", 10, "a  b"),
        ] {
            assert_eq!(wrap(line, columns), wrapped, "{line}");
        }
    }

    #[test]
    fn fitting() {
        for (text, columns, fitted) in
            [("abc", 3, "abc"), ("abcd", 3, "..."), ("abcdef", 5, "ab..."), ("abc", 1, ".")]
        {
            assert_eq!(fit(text, columns), fitted);
        }
    }
}
