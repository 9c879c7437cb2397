//! Sessions as text: what was typed, what was said, and how it exited; with named rules for what differs from run to
//! run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use regex_lite::Regex;
use rota_tests::farm::Farm;

/// What differs from run to run, and what stands for it. Applied in this order.
const RULES: [(&str, &str, &str); 15] = [
    ("a token's secret", r"rota-[a-z]+-[A-Za-z0-9_-]{20,}", "TOKEN"),
    ("a digest", r"\b[0-9a-f]{64}\b", "DIGEST"),
    ("a token's id", r"\b[0-9a-f]{16}\b", "TOKEN-ID"),
    ("a short digest", r"\b[0-9a-f]{12}\b", "DIGEST"),
    ("a time", r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "DATE"),
    ("a time for programs", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "DATE"),
    ("how long ago", r"\b(now|\d+[smhd] ago)($|  )", "AGO$2"),
    ("a port", r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    ("a length of time", r#"(^|[^"\w.])\d+(\.\d+)? ?(ms|s)\b"#, "${1}TIME"),
    ("a size", r"\b\d+\.\d (KiB|MiB)\b", "SIZE"),
    ("a number of requests", r"\b\d[\d ]* requests?\b", "N requests"),
    ("a process", r"\bpid \d+", "pid N"),
    ("the first look", r"(nodes?|batch|batches), (preparing|rolling|completed)$", "$1, STATE"),
    ("columns of different widths", r"([^|\s]) {2,}", "$1  "),
    ("the end of a line", r" +$", ""),
];

/// Nodes that do the same at once say so in any order: such lines are sorted.
const AT_ONCE: [&str; 2] = ["prepared", "left traffic"];

/// A page of `docs/messages` while it is written.
pub struct Session<'a> {
    farm: &'a Farm,
    name: &'static str,
    text: String,
    context: PathBuf,
    rules: Vec<(Regex, &'static str)>,
}

impl<'a> Session<'a> {
    /// An empty page.
    pub fn new(farm: &'a Farm, name: &'static str, about: &str) -> Self {
        let text = format!(
            "# {}\n\nReal sessions, written by a test \
             (`ROTA_BLESS=1 cargo test -p rota-tests --test end_to_end messages`). Words in\n\
             capitals stand for what differs from run to run. stdout and stderr are shown \
             together, as on a terminal without live\nprogress.\n",
            about.trim_end_matches('.')
        );
        let rule = |(name, pattern, stands): (&str, &str, &'static str)| {
            (
                Regex::new(&format!("(?m){pattern}")).unwrap_or_else(|e| panic!("{name}: {e}")),
                stands,
            )
        };
        let rules = RULES.into_iter().map(rule).collect();
        Self { farm, name, text, context: farm.path("controller/admin.toml"), rules }
    }

    /// A heading.
    pub fn part(&mut self, title: &str) {
        self.text += &format!("\n## {title}\n");
    }

    /// As whom from now on.
    pub fn context(&mut self, path: &Path) {
        self.context = path.to_owned();
    }

    /// As somebody who may only look.
    pub fn viewer(&mut self) {
        let args =
            ["token", "create", "-q", "--for", "operator", "--role", "viewer", "--name", "vic"];
        let token = String::from_utf8(self.farm.run(&args).unwrap().stdout).unwrap();
        let address = self.farm.controller.told("grpc").unwrap();
        let mut rota = Command::new(&self.farm.programs.rota);
        rota.args(["login", address, "--token", token.trim()]);
        let home = self.farm.path("home");
        let login = rota.env_remove("ROTA_CONTEXT").env("HOME", &home).output().unwrap();
        assert!(login.status.success(), "{login:?}");
        self.context = home.join(".config/rota/context.toml");
    }

    /// Does something that is shown on another page.
    pub fn quietly(&mut self, line: &str) {
        let (said, exit) = self.run(line);
        assert_eq!(exit, 0, "{line}: {said}");
    }

    /// Types a line, and writes down what is said.
    pub fn rota(&mut self, line: &str) {
        let (said, exit) = self.run(line);
        self.text += &format!("\n    $ {line}\n");
        for line in self.normal(&said).lines() {
            self.text += format!("    {line}").trim_end();
            self.text.push('\n');
        }
        if exit != 0 {
            self.text += &format!("    [exit code {exit}]\n");
        }
    }

    /// Types some lines.
    pub fn all(&mut self, lines: &[&str]) {
        lines.iter().for_each(|line| self.rota(line));
    }

    fn run(&self, line: &str) -> (String, i32) {
        let words = words(line);
        let path = self.farm.path("said");
        let file = File::create(&path).unwrap();
        let mut rota = Command::new(&self.farm.programs.rota);
        rota.args(&words[1..]).env("ROTA_CONTEXT", &self.context);
        rota.env("HOME", self.farm.path("home")).env_remove("XDG_CONFIG_HOME");
        rota.current_dir(self.farm.path("app")).stdout(file.try_clone().unwrap()).stderr(file);
        let status = rota.status().unwrap();
        (fs::read_to_string(path).unwrap(), status.code().unwrap_or(-1))
    }

    fn normal(&self, said: &str) -> String {
        let here = self.farm.path("");
        let mut text = said.replace(here.to_str().unwrap().trim_end_matches('/'), "/DIR");
        for (pattern, stands) in &self.rules {
            text = pattern.replace_all(&text, *stands).into_owned();
        }
        let mut lines: Vec<&str> = text.lines().collect();
        let kind = |line: &str| AT_ONCE.iter().find(|word| line.ends_with(**word)).copied();
        for chunk in lines.chunk_by_mut(|a, b| kind(a).is_some() && kind(a) == kind(b)) {
            chunk.sort_unstable();
        }
        lines.join("\n")
    }

    /// Compares the page with what is written down, or writes it.
    pub fn compare(self) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/messages");
        let path = path.join(format!("{}.md", self.name));
        if std::env::var_os("ROTA_BLESS").is_some() {
            fs::write(&path, &self.text).unwrap();
            return;
        }
        let there = fs::read_to_string(&path).unwrap_or_default();
        let first = there.lines().zip(self.text.lines()).position(|(a, b)| a != b);
        let at = first.unwrap_or(0);
        let line = |text: &str| {
            text.lines().skip(at.saturating_sub(3)).take(8).collect::<Vec<_>>().join("\n")
        };
        assert!(
            there == self.text,
            "{} says another thing from line {}; ROTA_BLESS=1 writes it anew\nthere:\n{}\nnow:\n{}",
            path.display(),
            at + 1,
            line(&there),
            line(&self.text)
        );
    }
}

/// Splits a line as a shell does, as far as our lines need it.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}
