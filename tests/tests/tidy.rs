//! The tree keeps the rules of its style: each rule is a row, and every breach is told with its line and the way out.
//!
//! What a compiler can tell is left to rustfmt, clippy (`clippy.toml`) and cargo (which crate may name which). Here are
//! the rest: what a file may be, what it may name, and which way its imports point.

#[path = "tidy/arms.rs"]
mod arms;
#[path = "tidy/examples.rs"]
mod examples;
#[path = "tidy/paths.rs"]
mod paths;
#[path = "tidy/rows.rs"]
mod rows;
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use rows::{IGNORED, LAYERS, PURE, WIRE, WORDS, Where};
use source::{Line, Source, Tree};

/// A file longer than this, without its tests, holds more than one story.
const FILE_LINES_MAX: usize = 400;

/// Code ends here; rustfmt sees to it but where a string or a macro stops it.
const CODE_COLUMNS_MAX: usize = 100;

/// Comments end here: prose is read, not scanned.
const COMMENT_COLUMNS_MAX: usize = 120;

/// Every rule.
const RULES: [(&str, Rule); 12] = [
    ("a file begins with its reason", reason),
    ("files are short", length),
    ("lines are short", columns),
    ("what is left to do has an issue", left_to_do),
    ("some words are not ours", forbidden),
    ("tests do not sleep", sleeps),
    ("tests are not skipped", ignored),
    ("no new variant is passed over in silence", wildcards),
    ("what decides has no clock, no chance and no I/O", pure),
    ("the wire is named only at the border", wire),
    ("imports point one way", imports),
    ("a dependency says why", dependencies),
];

type Rule = fn(&Tree) -> Vec<Breach>;

/// Where a rule is broken, what is wrong there, and what would be right.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    file: String,
    line: usize,
    wrong: String,
    right: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}; {}", self.file, self.line, self.wrong, self.right)
    }
}

fn breach(source: &Source, line: usize, wrong: impl fmt::Display, right: &str) -> Breach {
    let (file, wrong) = (source.path.clone(), wrong.to_string());
    Breach { file, line, wrong, right: right.to_owned() }
}

/// Says of every line what `rule` says of it.
fn each_line(tree: &Tree, rule: impl Fn(&Source, usize, &Line) -> Option<Breach>) -> Vec<Breach> {
    let sources = tree.sources.iter();
    let lines = sources.flat_map(|s| s.numbered().map(move |(number, line)| (s, number, line)));
    lines.filter_map(|(source, number, line)| rule(source, number, line)).collect()
}

fn says(line: &str, word: &str) -> bool {
    paths::words(line, word).next().is_some()
}

fn reason(tree: &Tree) -> Vec<Breach> {
    let begins = |s: &&Source| s.lines.first().is_some_and(|l| l.raw.starts_with("//! "));
    let bare = tree.sources.iter().filter(|source| !begins(source));
    bare.map(|s| breach(s, 1, "no reason", "begin with `//! ` and what the file is for")).collect()
}

fn length(tree: &Tree) -> Vec<Breach> {
    let long = tree.sources.iter().filter_map(|source| {
        let lines = source.lines.iter().filter(|line| !line.test).count();
        let wrong = format!("{lines} lines without tests, and the limit is {FILE_LINES_MAX}");
        let right = "give the part that is a story of its own a file of its own";
        (lines > FILE_LINES_MAX).then(|| breach(source, lines, wrong, right))
    });
    long.collect()
}

fn columns(tree: &Tree) -> Vec<Breach> {
    each_line(tree, |source, number, line| {
        let all = line.raw.chars().count();
        let code = if line.comment.is_empty() { all } else { line.code.trim_end().chars().count() };
        let wrong = |is, max| format!("{is} columns, and the limit is {max}");
        if code > CODE_COLUMNS_MAX {
            let right = "break it; a string goes on after a `\\` at the end of its line";
            return Some(breach(source, number, wrong(code, CODE_COLUMNS_MAX), right));
        }
        (all > COMMENT_COLUMNS_MAX)
            .then(|| breach(source, number, wrong(all, COMMENT_COLUMNS_MAX), "break the comment"))
    })
}

fn left_to_do(tree: &Tree) -> Vec<Breach> {
    each_line(tree, |source, number, line| {
        let in_comment = ["TODO", "FIXME"].iter().find(|word| says(&line.comment, word));
        let in_code = ["todo!", "unimplemented!"].iter().find(|word| says(&line.code, word));
        let word = in_comment.or(in_code)?;
        let issue =
            line.comment.split('#').skip(1).any(|s| s.starts_with(|c: char| c.is_ascii_digit()));
        (!issue)
            .then(|| breach(source, number, format!("`{word}`"), "do it, or name its issue: `#7`"))
    })
}

fn forbidden(tree: &Tree) -> Vec<Breach> {
    each_line(tree, |source, number, line| {
        let at_home = |place: Where| place == Where::Everywhere || !line.test;
        let row = WORDS.iter().find(|(place, word, _)| at_home(*place) && says(&line.code, word));
        row.map(|(_, word, right)| breach(source, number, format!("`{word}`"), right))
    })
}

/// Does a comment say why it is so? Documentation says what it is.
fn is_said(line: &Line) -> bool {
    line.comment.starts_with("// ")
}

fn sleeps(tree: &Tree) -> Vec<Breach> {
    each_line(tree, |source, number, line| {
        let sleeps = says(&line.code, "sleep(") || says(&line.code, "sleep_until(");
        let above = number.checked_sub(2).map(|index| &source.lines[index]);
        let said = is_said(line) || above.is_some_and(is_said);
        let right = "wait for what must come; or say in a comment there whose pace it is";
        (line.test && sleeps && !said).then(|| breach(source, number, "a test sleeps", right))
    })
}

fn ignored(tree: &Tree) -> Vec<Breach> {
    let known = |source: &Source| IGNORED.iter().any(|(path, _)| source.path == *path);
    let mut broken = each_line(tree, |source, number, line| {
        let right = "make it pass, or remove it";
        (line.code.contains("#[ignore") && !known(source))
            .then(|| breach(source, number, "a test that nobody runs", right))
    });
    let ignores = |s: &Source| s.lines.iter().filter(|l| l.code.contains("#[ignore")).count();
    for source in tree.sources.iter().filter(|source| known(source) && ignores(source) > 1) {
        broken.push(breach(source, 1, "more than one ignored test", "one is known in rows.rs"));
    }
    broken
}

fn wildcards(tree: &Tree) -> Vec<Breach> {
    let right = "name every variant, so that a new one is not passed over";
    let found = arms::wildcards(tree).into_iter();
    found.map(|(source, line)| breach(source, line, "`_ =>` over an enum of ours", right)).collect()
}

fn pure(tree: &Tree) -> Vec<Breach> {
    each_line(tree, |source, number, line| {
        let of = PURE.iter().filter(|row| source.path.starts_with(row.place) && !line.test);
        let found = of.flat_map(|row| row.never).find(|word| says(&line.code, word))?;
        let right = "let the shell look, and tell it in an event";
        Some(breach(source, number, format!("`{found}` where things are decided"), right))
    })
}

fn wire(tree: &Tree) -> Vec<Breach> {
    each_line(tree, |source, number, line| {
        let crosses = says(&line.code, "rota_proto") && !line.test;
        let may = WIRE.iter().any(|(place, _)| source.path.starts_with(place));
        let right = "let wire.rs translate; the border has its rows in rows.rs";
        (crosses && !may).then(|| breach(source, number, "names types of the wire", right))
    })
}

fn imports(tree: &Tree) -> Vec<Breach> {
    let sources = tree.sources.iter().filter(|source| !source.is_test());
    sources.flat_map(|source| LAYERS.iter().flat_map(|layers| layers.of(source))).collect()
}

impl rows::Layers {
    /// What is wrong with the imports of a file, if it is one of this crate's.
    fn of(&self, source: &Source) -> Vec<Breach> {
        let Some(inside) = source.path.strip_prefix(self.root) else { return Vec::new() };
        let parts: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
        let depth = parts.len() - usize::from(parts.last() == Some(&"mod"));
        if ["lib", "main"].contains(&parts[0]) {
            return Vec::new();
        }
        let Some(own) = self.level(parts[0]) else {
            let right = "give it its place among the layers in rows.rs";
            return vec![breach(source, 1, format!("module {} has no layer", parts[0]), right)];
        };
        let above = paths::modules(source, depth).into_iter();
        let above = above.filter(|(_, module)| self.level(module).is_some_and(|other| other > own));
        let told = above.map(|(line, module)| {
            let wrong = format!("{} names {module}, which stands above it", parts[0]);
            breach(source, line, wrong, "send it an event, or move what both need below both")
        });
        told.collect::<BTreeSet<_>>().into_iter().collect()
    }

    fn level(&self, module: &str) -> Option<usize> {
        self.upwards.iter().position(|(modules, _)| modules.contains(&module))
    }
}

fn dependencies(tree: &Tree) -> Vec<Breach> {
    let mut broken = Vec::new();
    for (path, text) in &tree.manifests {
        let (mut listed, mut grouped, mut fresh) = (false, false, true);
        for (index, line) in text.lines().enumerate() {
            match line.trim() {
                header if header.starts_with('[') => {
                    listed = header.ends_with("dependencies]");
                    (grouped, fresh) = (false, true);
                }
                "" => (grouped, fresh) = (false, true),
                comment if comment.starts_with('#') => grouped |= fresh,
                dependency => {
                    fresh = false;
                    let said = grouped
                        || dependency.contains(" # ")
                        || dependency.contains("workspace = true");
                    if listed && !said {
                        let name = dependency.split([' ', '.', '=']).next().unwrap_or_default();
                        broken.push(Breach {
                            file: path.clone(),
                            line: index + 1,
                            wrong: format!("{name} costs something, and nothing says why"),
                            right: "a comment beside it or above its group".to_owned(),
                        });
                    }
                }
            }
        }
    }
    broken
}

/// Rows that allow nothing any more would allow something new one day.
fn idle_rows(tree: &Tree) -> Vec<String> {
    let uses = |place: &str, word: &str| {
        let files = tree.sources.iter().filter(|source| source.path.starts_with(place));
        files.flat_map(|source| &source.lines).any(|line| line.code.contains(word))
    };
    let wire = WIRE.iter().filter(|(place, _)| !uses(place, "rota_proto"));
    let ignored = IGNORED.iter().filter(|(place, _)| !uses(place, "#[ignore"));
    let pure = PURE.iter().filter(|row| !uses(row.place, "")).map(|row| row.place);
    let is = |module: &str| {
        let inside = tree.sources.iter().filter_map(|source| source.path.strip_prefix(module));
        inside.into_iter().any(|rest| rest == ".rs" || rest.starts_with('/'))
    };
    let modules = LAYERS.iter().flat_map(|layers| {
        let rows = layers.upwards.iter().flat_map(|(modules, _)| *modules);
        rows.map(|module| format!("{}{module}", layers.root))
    });
    let gone = modules.filter(|module| !is(module));
    let idle = wire.chain(ignored).map(|(place, _)| *place).chain(pure).map(str::to_owned);
    idle.chain(gone)
        .map(|place| format!("rows.rs: the row of {place} is of no use any more; remove it"))
        .collect()
}

#[test]
fn the_tree_keeps_the_rules() {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the workspace");
    let tree = Tree::read(root).expect("the tree can be read");
    assert!(tree.sources.len() > 100, "only {} files below {}", tree.sources.len(), root.display());
    let broken = RULES.map(|(name, rule)| (name, rule(&tree)));
    let rules = broken.iter().filter(|(_, breaches)| !breaches.is_empty());
    let rules: Vec<&str> = rules.map(|(name, _)| *name).collect();
    let breaches: BTreeSet<&Breach> = broken.iter().flat_map(|(_, breaches)| breaches).collect();
    let told: Vec<String> =
        breaches.into_iter().map(Breach::to_string).chain(idle_rows(&tree)).collect();
    let (count, rules, told_all) = (told.len(), rules.join("; "), told.join("\n"));
    assert!(told.is_empty(), "{count} breaches ({rules}):\n{told_all}");
}
