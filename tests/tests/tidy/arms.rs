//! Finds `_ =>` arms over our own enums: where a new variant would be passed over in silence.

use std::collections::BTreeSet;

use super::paths::{imports, is_word, line, words};
use super::source::{Source, Tree};

/// The lines of such arms outside tests.
pub fn wildcards(tree: &Tree) -> Vec<(&Source, usize)> {
    let enums: BTreeSet<String> = tree.sources.iter().flat_map(|s| declared(&s.code())).collect();
    let mut found = Vec::new();
    for source in tree.sources.iter().filter(|source| !source.is_test()) {
        let code = source.code();
        let ours = Ours::of(&code, &enums);
        for at in words(&code, "_") {
            let is_arm = code[at + 1..].trim_start().starts_with("=>");
            let begins = code[..at].trim_end().ends_with(['{', '}', ',']);
            if is_arm && begins && arms(&code, at).iter().any(|pattern| ours.named_in(pattern)) {
                found.push((source, line(&code, at)));
            }
        }
    }
    found
}

/// The enums that a file declares.
fn declared(code: &str) -> Vec<String> {
    let names = words(code, "enum").map(|at| code[at + 4..].trim_start());
    names.map(|rest| rest.chars().take_while(|char| is_word(*char)).collect()).collect()
}

/// What of the names in one file are our enums.
struct Ours<'a> {
    /// Every enum of the workspace.
    enums: &'a BTreeSet<String>,
    /// Names by which the file means something of ours.
    roots: BTreeSet<String>,
    /// Variants that it imported by name.
    variants: BTreeSet<String>,
}

impl<'a> Ours<'a> {
    fn of(code: &str, enums: &'a BTreeSet<String>) -> Self {
        let mut roots: BTreeSet<String> = declared(code).into_iter().collect();
        roots.extend(["Self", "crate", "super", "self"].map(str::to_owned));
        let mut variants = BTreeSet::new();
        let paths = imports(code);
        for _ in 0..2 {
            // Twice: `use Task::{…}` may stand above what brings in `Task`.
            for path in &paths {
                let [first, .., last] = &path[..] else { continue };
                let wire = first == "rota_proto";
                if wire || !(roots.contains(first) || first.starts_with("rota")) {
                    continue;
                }
                roots.insert(last.clone());
                if enums.contains(&path[path.len() - 2]) {
                    variants.insert(last.clone());
                }
            }
        }
        Self { enums, roots, variants }
    }

    /// Does a pattern name a variant of ours?
    fn named_in(&self, pattern: &str) -> bool {
        let pattern = pattern.split(" if ").next().unwrap_or_default();
        let paths = pattern.split(|char: char| !is_word(char) && char != ':');
        paths.map(|path| path.split("::").collect::<Vec<_>>()).any(|path| match &path[..] {
            [variant] => self.variants.contains(*variant),
            [first, .., _] => {
                let owner = path[path.len() - 2];
                self.roots.contains(*first) && (owner == "Self" || self.enums.contains(owner))
            }
            [] => false,
        })
    }
}

/// The patterns of the match that has an arm at this place.
fn arms(code: &str, at: usize) -> Vec<&str> {
    let mut patterns = Vec::new();
    let Some(mut from) = opening(code, at) else { return patterns };
    while let Some(arrow) = ends(code, from, "=>") {
        patterns.push(&code[from..arrow]);
        let body = arrow + 2 + code[arrow + 2..].len() - code[arrow + 2..].trim_start().len();
        let end = if code[body..].starts_with('{') {
            ends(code, body + 1, "}").map(|end| end + 1)
        } else {
            ends(code, body, ",").map(|end| end + 1)
        };
        let Some(end) = end else { break };
        from = end + usize::from(code[end..].starts_with(','));
    }
    patterns
}

/// The place after the brace that is open at a place.
fn opening(code: &str, at: usize) -> Option<usize> {
    let mut depth = 0;
    for (index, char) in code[..at].char_indices().rev() {
        match char {
            '}' | ')' | ']' => depth += 1,
            '{' if depth == 0 => return Some(index + 1),
            '{' | '(' | '[' if depth == 0 => return None,
            '{' | '(' | '[' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Where a sign comes next, within the same brackets.
fn ends(code: &str, from: usize, sign: &str) -> Option<usize> {
    let mut depth = 0;
    for (index, char) in code[from..].char_indices() {
        let at = from + index;
        match char {
            _ if depth == 0 && code[at..].starts_with(sign) => return Some(at),
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' if depth == 0 => return None,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
    }
    None
}
