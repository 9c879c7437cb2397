//! The tree as the rules read it: every file in lines, each split into what the compiler and what people read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// One line of a file.
pub struct Line {
    /// As it is written.
    pub raw: String,
    /// What the compiler reads: comments and the insides of literals are blanks, columns are kept.
    pub code: String,
    /// What people read.
    pub comment: String,
    /// Is it part of a test?
    pub test: bool,
}

/// One file of Rust.
pub struct Source {
    /// From the root of the workspace, with `/`.
    pub path: String,
    /// Its lines; line 1 is the first.
    pub lines: Vec<Line>,
}

/// Everything that the rules look at.
pub struct Tree {
    /// The files of Rust, by path.
    pub sources: Vec<Source>,
    /// The manifests of Cargo: path and text.
    pub manifests: Vec<(String, String)>,
}

impl Tree {
    /// Reads the workspace, without hidden folders and what cargo makes.
    pub fn read(root: &Path) -> io::Result<Self> {
        let (mut sources, mut manifests) = (Vec::new(), Vec::new());
        for path in files(root)? {
            let name = path.strip_prefix(root).map_err(io::Error::other)?.to_string_lossy();
            let name = name.replace('\\', "/");
            if name.ends_with(".rs") {
                sources.push((name, fs::read_to_string(&path)?));
            } else if name.ends_with("Cargo.toml") {
                manifests.push((name, fs::read_to_string(&path)?));
            }
        }
        Ok(Self::new(sources, manifests))
    }

    /// The tree of these files.
    pub fn new(sources: Vec<(String, String)>, manifests: Vec<(String, String)>) -> Self {
        let sources = sources.into_iter().map(|(path, text)| Source::new(path, &text)).collect();
        let mut tree = Self { sources, manifests };
        tree.sources.sort_by(|one, other| one.path.cmp(&other.path));
        tree.mark_tests();
        tree
    }

    /// Files that only a test build compiles are tests, and so is what they are made of.
    fn mark_tests(&mut self) {
        let mut tests = BTreeSet::new();
        loop {
            let before = tests.len();
            for source in &self.sources {
                let is_test = source.is_test() || tests.contains(&source.path);
                let children = source.children().into_iter();
                tests.extend(children.filter(|child| is_test || child.test).flat_map(|c| c.paths));
            }
            if tests.len() == before {
                break;
            }
        }
        let tests = self.sources.iter_mut().filter(|source| tests.contains(&source.path));
        tests.flat_map(|source| &mut source.lines).for_each(|line| line.test = true);
    }
}

/// A module declared in another file.
struct Child {
    /// Where it may be.
    paths: Vec<String>,
    /// Is it there in test builds only?
    test: bool,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let folder_of_tests = path.split('/').any(|part| part == "tests");
        let mut lines: Vec<Line> = text
            .lines()
            .zip(read(text))
            .map(|(raw, (code, comment))| Line {
                raw: raw.to_owned(),
                code,
                comment,
                test: folder_of_tests,
            })
            .collect();
        let inline = lines.windows(2).position(|pair| {
            pair[0].code == "#[cfg(test)]"
                && pair[1].code.starts_with("mod ")
                && pair[1].code.ends_with('{')
        });
        let from = inline.unwrap_or(lines.len());
        lines[from..].iter_mut().for_each(|line| line.test = true);
        Self { path, lines }
    }

    /// Is all of it test code?
    pub fn is_test(&self) -> bool {
        self.lines.first().is_some_and(|line| line.test)
    }

    /// The lines with their numbers.
    pub fn numbered(&self) -> impl Iterator<Item = (usize, &Line)> {
        self.lines.iter().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// What the compiler reads outside tests.
    pub fn code(&self) -> String {
        let lines = self.lines.iter().take_while(|line| !line.test);
        lines.flat_map(|line| [line.code.as_str(), "\n"]).collect()
    }

    /// The modules that it declares in files of their own.
    fn children(&self) -> Vec<Child> {
        let (folder, name) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = name.trim_end_matches(".rs");
        let own = if ["mod", "lib", "main"].contains(&stem) {
            folder.to_owned()
        } else {
            format!("{folder}/{stem}")
        };
        let mut children = Vec::new();
        for (index, line) in self.lines.iter().enumerate() {
            let words = line.code.trim().trim_end_matches(';');
            let Some((before, module)) = words.rsplit_once("mod ") else { continue };
            if !line.code.ends_with(';') || !(before.is_empty() || before.starts_with("pub")) {
                continue;
            }
            let above = self.lines[..index].iter().rev();
            let marks: Vec<&str> =
                above.map(|l| l.raw.trim()).take_while(|l| l.starts_with("#[")).collect();
            let elsewhere =
                marks.iter().find_map(|mark| mark.strip_prefix("#[path = \"")?.strip_suffix("\"]"));
            let paths = match elsewhere {
                Some(path) => vec![format!("{folder}/{path}")],
                None => vec![format!("{own}/{module}.rs"), format!("{own}/{module}/mod.rs")],
            };
            children.push(Child { paths, test: marks.contains(&"#[cfg(test)]") });
        }
        children
    }
}

/// Every file below a folder, but for hidden ones and what cargo makes.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') || name == "target" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// What a stretch of text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Comment,
    Literal,
}

/// Every line as code and comment.
fn read(text: &str) -> Vec<(String, String)> {
    let chars: Vec<char> = text.chars().collect();
    let mut lines = vec![(String::new(), String::new())];
    let mut at = 0;
    while at < chars.len() {
        let (piece, length) = piece(&chars[at..]);
        for (index, &char) in chars[at..at + length].iter().enumerate() {
            let edge = index == 0 || index + 1 == length;
            let last = lines.len() - 1;
            let (code, comment) = &mut lines[last];
            match piece {
                _ if char == '\n' => lines.push((String::new(), String::new())),
                Piece::Code => code.push(char),
                Piece::Literal => code.push(if edge { '"' } else { ' ' }),
                Piece::Comment => comment.push(char),
            }
        }
        at += length;
    }
    lines
}

/// The piece that a text begins with, and its length; never 0.
fn piece(text: &[char]) -> (Piece, usize) {
    let name = text.iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
    let after = &text[name..];
    let hashes = after.iter().take_while(|c| **c == '#').count();
    match (text[0], text.get(1)) {
        ('/', Some('/')) => (Piece::Comment, text.iter().take_while(|c| **c != '\n').count()),
        ('/', Some('*')) => (Piece::Comment, block(text)),
        ('"', _) => (Piece::Literal, quoted(text, '"')),
        ('\'', Some('\\')) => (Piece::Literal, quoted(text, '\'')),
        ('\'', _) if text.get(2) == Some(&'\'') => (Piece::Literal, 3),
        ('r' | 'b' | 'c', _) if is_raw(&text[..name]) && after.get(hashes) == Some(&'"') => {
            let begin = name + hashes + 1;
            let end: Vec<char> =
                std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let inside = text[begin..].windows(end.len()).position(|window| window == end);
            (Piece::Literal, inside.map_or(text.len(), |inside| begin + inside + end.len()))
        }
        _ => (Piece::Code, name.max(1)),
    }
}

/// Do these letters, before quotes, make a raw string?
fn is_raw(name: &[char]) -> bool {
    matches!(name, ['r'] | ['b' | 'c', 'r'])
}

/// The length of a literal that ends with the first quote that is not escaped.
fn quoted(text: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

/// The length of a comment that may hold others.
fn block(text: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < text.len() {
        match [text[at], text[at + 1]] {
            ['/', '*'] => depth += 1,
            ['*', '/'] if depth == 1 => return at + 2,
            ['*', '/'] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
    }
    text.len()
}
