//! Reads the examples of a page: fenced blocks, what stands in backticks, and what comments tell the tests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Trouble;

/// What a comment for the tests begins with; nobody sees it on the page.
const COMMENT: &str = "<!-- test: ";

/// A page, taken apart.
#[derive(Debug)]
pub struct Page {
    /// Where it lies.
    pub path: PathBuf,
    /// Its pieces in order.
    pub pieces: Vec<Piece>,
}

/// Something on a page.
#[derive(Debug)]
pub struct Piece {
    /// The line where it begins, from 1.
    pub line: usize,
    /// What it is.
    pub what: What,
}

/// What a piece is.
#[derive(Debug)]
pub enum What {
    /// A fenced block: its language, and its lines without the fences.
    Block {
        /// What follows the fence.
        language: String,
        /// The lines between.
        lines: Vec<String>,
    },
    /// Something in backticks.
    Code(String),
    /// A line of prose, the codes in it included.
    Prose(String),
    /// A comment for the tests.
    Told(String),
}

impl Page {
    /// Reads a page; a fence that is not closed or a lone backtick is a mistake.
    pub fn read(path: &Path) -> Result<Self, Trouble> {
        let text = fs::read_to_string(path)?;
        let pieces = pieces(&text).map_err(|wrong| format!("{}:{wrong}", path.display()))?;
        Ok(Self { path: path.to_owned(), pieces })
    }

    /// All pages of a folder, by name.
    pub fn all(folder: &Path) -> Result<Vec<Self>, Trouble> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(folder)? {
            paths.push(entry?.path());
        }
        paths.retain(|path| path.extension().is_some_and(|end| end == "md"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// `swarm` of `docs/coming-from/swarm.md`.
    pub fn name(&self) -> &str {
        self.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }

    /// `FILE:LINE`, for what is wrong there.
    pub fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((line, text)) = lines.next() {
        if let Some(language) = text.strip_prefix("```") {
            let mut block = Vec::new();
            loop {
                let (_, text) = lines.next().ok_or(format!("{line}: this block has no end"))?;
                if text == "```" {
                    break;
                }
                block.push(text.to_owned());
            }
            let what = What::Block { language: language.to_owned(), lines: block };
            pieces.push(Piece { line, what });
        } else if let Some(told) = text.strip_prefix(COMMENT) {
            let told = told.strip_suffix(" -->").ok_or(format!("{line}: no ` -->`"))?;
            pieces.push(Piece { line, what: What::Told(told.to_owned()) });
        } else {
            let parts: Vec<&str> = text.split('`').collect();
            if parts.len().is_multiple_of(2) {
                return Err(format!("{line}: a backtick without its other half"));
            }
            let codes = parts.iter().skip(1).step_by(2).map(|code| code.replace("\\|", "|"));
            pieces.extend(codes.map(|code| Piece { line, what: What::Code(code) }));
            pieces.push(Piece { line, what: What::Prose(text.to_owned()) });
        }
    }
    Ok(pieces)
}

/// A command line as words, as a shell would cut it.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut quote): (Option<String>, Option<char>) = (None, None);
    for c in line.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            Some(_) | None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err(format!("a quote without its other half: {line}")) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_in_pieces() {
        let text =
            "<!-- test: fleet of 3 -->\nSay `rota check` or `a \\| b`.\n```toml\na = 1\n\n```\n";
        let told: Vec<String> = pieces(text)
            .unwrap()
            .into_iter()
            .map(|piece| format!("{} {:?}", piece.line, piece.what))
            .collect();
        assert_eq!(
            told,
            [
                r#"1 Told("fleet of 3")"#,
                r#"2 Code("rota check")"#,
                r#"2 Code("a | b")"#,
                r#"2 Prose("Say `rota check` or `a \\| b`.")"#,
                r#"3 Block { language: "toml", lines: ["a = 1", ""] }"#,
            ]
        );
        assert_eq!(pieces("a\n```sh\nb").unwrap_err(), "2: this block has no end");
        assert_eq!(pieces("a `b").unwrap_err(), "1: a backtick without its other half");
    }

    #[test]
    fn words_of_a_line() {
        for (line, cut) in [
            ("rota status", Ok(vec!["rota", "status"])),
            ("a -m \"b c\" 'd  e'  f", Ok(vec!["a", "-m", "b c", "d  e", "f"])),
            ("a \"\"", Ok(vec!["a", ""])),
            ("a 'b", Err("a quote without its other half: a 'b".to_owned())),
        ] {
            assert_eq!(
                words(line),
                cut.map(|words| words.into_iter().map(str::to_owned).collect())
            );
        }
    }
}
