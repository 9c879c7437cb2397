//! Runs every example of `docs/coming-from/`: what an operator who comes from elsewhere reads there is so.
//!
//! - `toml` blocks are manifests: whole ones as they are, parts of one merged into the page's own. So is each
//!   `strategy.batch = 1` in the prose, and each bare `strategy.batch` must be a key.
//! - `console` blocks are run in order, against a fleet of the page's own, and must print what stands there.
//! - `sh` blocks and each `rota …` and `rota-agent …` in the prose are read by the real command lines.
//! - "10 % of 37 = 3" and "`strategy.batch = 2` on 5 nodes: 2, 2, 1" are compared with the real planner.
//! - Blocks in other languages are the other tools' own.

mod console;
mod planned;

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use rota::manifest::Manifest;
use rota_tests::pages::{Page, What, words};

/// The languages of blocks that are not ours and not run.
const FOREIGN: [&str; 5] = ["yaml", "hcl", "ini", "json", "ruby"];

/// The tables of a manifest.
const TABLES: [&str; 11] = [
    "artifact",
    "run",
    "health",
    "traffic",
    "smoke",
    "hooks",
    "once",
    "strategy",
    "target",
    "compatibility",
    "env",
];

/// Tables of which a part that is shown stands for all: some keys exclude each other.
const WHOLE: [&str; 3] = ["artifact", "health", "smoke"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/coming-from")
}

fn pages() -> Vec<Page> {
    Page::all(&folder()).unwrap()
}

/// The page's own manifest: the first whole one.
fn own_manifest(page: &Page) -> Option<String> {
    page.pieces.iter().find_map(|piece| match &piece.what {
        What::Block { language, lines } if language == "toml" && is_whole(lines) => {
            Some(lines.join("\n"))
        }
        What::Block { .. } | What::Code(_) | What::Prose(_) | What::Told(_) => None,
    })
}

fn is_whole(lines: &[String]) -> bool {
    lines.iter().any(|line| line.starts_with("app = "))
}

/// A manifest with a part of one merged in.
fn merged(base: &str, part: &str) -> Result<String, String> {
    let read = |text: &str| text.parse::<toml::Table>().map_err(|error| error.to_string());
    let (mut whole, part) = (read(base)?, read(part)?);
    for (name, value) in part {
        match (whole.get_mut(&name), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new))
                if !WHOLE.contains(&name.as_str()) =>
            {
                merge(old, new);
            }
            (_, value) => {
                whole.insert(name, value);
            }
        }
    }
    toml::to_string(&whole).map_err(|error| error.to_string())
}

fn merge(old: &mut toml::Table, new: toml::Table) {
    for (key, value) in new {
        match (old.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                old.insert(key, value);
            }
        }
    }
}

/// What is wrong with a part of a manifest, if anything.
fn part_is_wrong(base: &str, part: &str) -> Option<String> {
    let whole = match merged(base, part) {
        Ok(whole) => whole,
        Err(error) => return Some(error),
    };
    Manifest::parse(&whole, "rota.toml").err().map(|problems| problems.to_string())
}

/// `strategy.batch = 1` or `strategy.batch` in the prose as a part of a manifest, and whether its value counts.
fn manifest_code(code: &str) -> Option<(String, bool)> {
    let (table, rest) = code.split_once('.')?;
    let (key, value) = match rest.split_once(" = ") {
        Some((key, value)) => (key, Some(value)),
        None => (rest, None),
    };
    let is_key = !key.is_empty() && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    if !TABLES.contains(&table) || !(is_key || value.is_some()) {
        return None;
    }
    let line = format!("{key} = {}", value.unwrap_or("1"));
    // What a table must have beside it.
    let part = match (table, key) {
        ("smoke", "http" | "command") => format!("[[smoke]]\n{line}"),
        ("smoke", _) => format!("[[smoke]]\nhttp = \"/\"\n{line}"),
        ("once", "timeout") => format!("[once]\ncommand = [\"true\"]\n{line}"),
        (_, _) => format!("{table}.{line}"),
    };
    Some((part, value.is_some()))
}

#[test]
fn every_manifest_can_be_used() {
    let programs = rota_tests::processes::Programs::build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rota.toml");
    std::fs::create_dir(dir.path().join("dist")).unwrap();
    std::fs::write(dir.path().join("dist/app"), "an app").unwrap();
    let mut wrong = Vec::new();
    for page in pages() {
        let base = own_manifest(&page).unwrap_or_else(|| SMALL.to_owned());
        for piece in &page.pieces {
            let told = match &piece.what {
                What::Block { language, lines } if language == "toml" => {
                    let text = lines.join("\n");
                    let whole = if is_whole(lines) { Ok(text) } else { merged(&base, &text) };
                    whole.and_then(|whole| checked(&programs.rota, &file, &whole)).err()
                }
                What::Code(code) => manifest_code(code).and_then(|(part, whole)| {
                    let told = part_is_wrong(&base, &part);
                    told.filter(|told| whole || told.contains("unknown"))
                }),
                What::Block { .. } | What::Prose(_) | What::Told(_) => None,
            };
            wrong.extend(told.map(|told| format!("{}: {told}", page.place(piece.line))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What parts are merged into on a page without a manifest of its own.
const SMALL: &str = "app = \"shop\"\n[artifact]\npath = \"dist\"\n[run]\n\
                     command = [\"./shop\", \"--port\", \"{port}\"]\nport = \"auto\"\n[health]\n\
                     http = \"/healthz\"\n[traffic]\npool = \"shop\"\n";

/// Runs the real `rota check`.
fn checked(rota: &Path, file: &Path, manifest: &str) -> Result<(), String> {
    std::fs::write(file, manifest).unwrap();
    let output =
        std::process::Command::new(rota).arg("check").arg("-f").arg(file).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(super::text(&output)) }
}

/// What is wrong with a command line of ours; `None` also if it is not ours, or only names a command.
fn command_is_wrong(line: &str) -> Option<String> {
    if names_a_command(line) {
        return None;
    }
    let words = match words(line) {
        Ok(words) => words,
        Err(wrong) => return Some(wrong),
    };
    let told = match words.first().map(String::as_str) {
        Some("rota") => rota::cli::parse(words.into_iter().map(Into::into).collect())
            .err()
            .map(|exit| format!("exit code {}", exit as i32)),
        Some("rota-agent") => {
            rota_agent::cli::Cli::try_parse_from(words).err().map(|error| error.to_string())
        }
        _ => None,
    };
    told.map(|told| format!("`{line}`: {told}"))
}

/// Only a command's name, such as `rota rollout undo`.
fn names_a_command(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let mut command = match words.next() {
        Some("rota") => rota::cli::Cli::command(),
        _ => rota_agent::cli::Cli::command(),
    };
    words.all(|word| match command.find_subcommand(word).cloned() {
        Some(found) => {
            command = found;
            true
        }
        None => false,
    })
}

#[test]
fn every_command_can_be_read() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        for piece in &page.pieces {
            let lines = match &piece.what {
                What::Code(code) => vec![code.clone()],
                What::Block { language, lines } if language == "sh" => whole_lines(lines),
                What::Block { language, lines } if language == "console" => {
                    lines.iter().filter_map(|line| console::command(line)).collect()
                }
                What::Block { language, .. } => {
                    if language != "toml" && !FOREIGN.contains(&language.as_str()) {
                        let place = page.place(piece.line);
                        wrong.push(format!("{place}: blocks of `{language}` are not known"));
                    }
                    continue;
                }
                What::Prose(_) | What::Told(_) => continue,
            };
            for line in lines.iter().filter(|line| line.starts_with("rota")) {
                seen += 1;
                let told = command_is_wrong(line);
                wrong.extend(told.map(|told| format!("{}: {told}", page.place(piece.line))));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 20, "only {seen} commands were found");
}

/// Lines of a shell, those that go on after a `\` joined; comments are none.
fn whole_lines(lines: &[String]) -> Vec<String> {
    let text = lines.join("\n").replace("\\\n", " ");
    text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn what_is_said_of_the_plan_is_so() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let base = own_manifest(&page).unwrap_or_else(|| SMALL.to_owned());
        for piece in &page.pieces {
            let What::Prose(prose) = &piece.what else { continue };
            let (claims, told) = planned::check(prose, &base);
            seen += claims;
            wrong
                .extend(told.into_iter().map(|told| format!("{}: {told}", page.place(piece.line))));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 5, "only {seen} claims were found");
}

/// Each page with consoles has its own test, so that they run side by side and a failure has a name.
macro_rules! pages {
    ($($test:ident $page:literal)*) => {
        const PAGES: &[&str] = &[$($page),*];
        $(#[test]
        fn $test() {
            console::run(&Page::read(&folder().join(concat!($page, ".md"))).unwrap());
        })*
    };
}

pages! {
    consoles_of_ansible "ansible"
    consoles_of_aws_codedeploy "aws-codedeploy"
    consoles_of_docker_swarm "docker-swarm"
    consoles_of_kamal "kamal"
    consoles_of_kubernetes "kubernetes"
    consoles_of_nomad "nomad"
    consoles_of_octopus_deploy "octopus-deploy"
}

#[test]
fn every_page_is_run() {
    let consoles = |page: &Page| {
        let mut pieces = page.pieces.iter();
        pieces.any(
            |piece| matches!(&piece.what, What::Block { language, .. } if language == "console"),
        )
    };
    let all = pages();
    let with: Vec<&str> = all.iter().filter(|page| consoles(page)).map(Page::name).collect();
    let mut run = PAGES.to_vec();
    run.sort_unstable();
    assert_eq!(with, run);
}
