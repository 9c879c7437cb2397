//! What a file names: the paths it imports, and the modules of its crate that it mentions anywhere.

use super::source::Source;

/// Is this part of a name?
pub fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Where a word stands in a text; parts of longer words do not count.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let open = |word: Option<char>, edge: Option<char>| {
            !(word.is_some_and(is_word) && edge.is_some_and(is_word))
        };
        open(word.chars().next(), before) && open(word.chars().next_back(), after)
    })
}

/// The line of a place in a text, from 1.
pub fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Every path that `use` brings in, one by one; with `as`, under its new name.
pub fn imports(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for at in words(code, "use") {
        let statement = code[at + 3..].split(';').next().unwrap_or_default();
        spread(statement, &[], &mut found);
    }
    found
}

/// Spreads `a::{b, c::{self, d as e}}` into a::b, a::c, a::c::e.
fn spread(tree: &str, before: &[String], found: &mut Vec<Vec<String>>) {
    let tree = tree.trim();
    let mut path = before.to_vec();
    let Some((head, group)) = tree.split_once('{') else {
        let (names, alias) = tree.split_once(" as ").map_or((tree, None), |(n, a)| (n, Some(a)));
        path.extend(names.split("::").map(|name| name.trim().to_owned()));
        if path.last().is_some_and(|name| name == "self") {
            path.pop();
        }
        if let (Some(alias), Some(last)) = (alias, path.last_mut()) {
            alias.trim().clone_into(last);
        }
        return found.push(path);
    };
    path.extend(head.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned));
    let inside = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let (mut depth, mut from) = (0, 0);
    for (at, char) in inside.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                spread(&inside[from..at], &path, found);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !inside[from..].trim().is_empty() {
        spread(&inside[from..], &path, found);
    }
}

/// The modules at the root of its crate that a file mentions, in imports or anywhere, with their lines.
pub fn modules(source: &Source, depth: usize) -> Vec<(usize, String)> {
    let code = source.code();
    let mut found = Vec::new();
    let up = "super::".repeat(depth);
    for root in ["crate::", &up] {
        for at in words(&code, root) {
            let above = code[..at].ends_with("::"); // part of a longer path
            if above {
                continue;
            }
            let rest = &code[at + root.len()..];
            let names: Vec<(usize, &str)> = match rest.strip_prefix('{') {
                None => vec![(0, rest)],
                Some(group) => {
                    let end = group.find(';').unwrap_or(group.len());
                    firsts(&group[..end])
                }
            };
            for (offset, name) in names {
                let name: String = name.chars().take_while(|char| is_word(*char)).collect();
                if name != "super" {
                    found.push((line(&code, at + root.len() + offset), name));
                }
            }
        }
    }
    found
}

/// The beginnings of the members of a group.
fn firsts(group: &str) -> Vec<(usize, &str)> {
    let (mut depth, mut fresh, mut found) = (0, true, Vec::new());
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => fresh = true,
            char if fresh && is_word(char) => {
                found.push((at, &group[at..]));
                fresh = false;
            }
            _ => {}
        }
    }
    found
}
