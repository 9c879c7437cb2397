//! Runs a page's consoles in order, against a fleet that serves under load, and compares what they print.
//!
//! `ROTA_BLESS=1` writes what was printed into the page where it is another. A line `…` stands for any lines, a `…` in
//! a line for any text; times, addresses and counts of requests are not compared. What only looks is asked again until
//! it shows what stands on the page. An exit code that is not 0 must be shown: `$ echo $?`.

use std::fs;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex_lite::Regex;
use rota_tests::farm::{ENV, Farm};
use rota_tests::load::Load;
use rota_tests::pages::{Page, What};

use super::{is_whole, merged, own_manifest};

/// How long a look may take to show what the page says.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that ask all the time; none of them may see a failure on any page.
const CLIENTS: usize = 2;

/// The nodes of a page that does not say how many.
const NODES: usize = 4;

/// Verbs that only look.
const LOOKS: [&str; 11] = [
    "plan", "status", "ls", "inspect", "history", "check", "audit", "events", "apps", "release",
    "show",
];

/// A page that is being run.
struct Stage {
    farm: Farm,
    manifest: String,
}

/// One command of a console, and what must come of it.
#[derive(Debug, Default)]
struct Step {
    /// With its prompt.
    command: String,
    told: Vec<String>,
    /// What `$ echo $?` must say.
    code: i32,
}

/// What came of a command.
#[derive(Debug)]
struct Said {
    code: i32,
    /// What it said beside the data.
    talk: Vec<String>,
    data: Vec<String>,
}

/// The command of a console's line, if it is one: after `$ `, or after `web-01$ ` on a node.
pub fn command(line: &str) -> Option<String> {
    prompt(line).map(|(_, command)| command.to_owned())
}

fn prompt(line: &str) -> Option<(&str, &str)> {
    let (host, command) = line.split_once("$ ")?;
    let is_host = host.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
    is_host.then_some((host, command))
}

/// Runs a page.
pub fn run(page: &Page) {
    let mut stage = Stage::set(page);
    let load = Load::start(stage.farm.pool().unwrap(), CLIENTS);
    let mut blessed = Vec::new();
    let mut use_next = false;
    for piece in &page.pieces {
        match &piece.what {
            What::Told(told) if told == "use" => use_next = true,
            What::Told(told) => stage.arrange(told, &page.place(piece.line)),
            What::Block { language, lines } if language == "toml" => {
                let text = lines.join("\n");
                if is_whole(lines) {
                    stage.manifest = text;
                } else if std::mem::take(&mut use_next) {
                    stage.manifest = merged(&stage.manifest, &text).unwrap();
                }
            }
            What::Block { language, lines } if language == "console" => {
                let steps = steps(lines);
                let now = steps.iter().flat_map(|step| stage.carry_out(step, page, piece.line));
                let now: Vec<String> = now.collect();
                blessed.push((piece.line, lines.len(), now));
            }
            What::Block { .. } | What::Code(_) | What::Prose(_) => {}
        }
    }
    let (good, failed) = load.stop();
    assert!(good > 0 && failed == 0, "{good} requests were answered and {failed} failed");
    if blessing() {
        bless(page, &blessed);
    }
}

fn blessing() -> bool {
    std::env::var_os("ROTA_BLESS").is_some()
}

fn bless(page: &Page, blessed: &[(usize, usize, Vec<String>)]) {
    let text = fs::read_to_string(&page.path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (line, length, now) in blessed.iter().rev() {
        lines.splice(*line..line + length, now.iter().cloned());
    }
    fs::write(&page.path, lines.join("\n") + "\n").unwrap();
}

/// A console's lines as steps; a command may go on after a `\`.
fn steps(lines: &[String]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut code_next = false;
    for line in lines {
        let open = steps.last_mut();
        match open {
            Some(step) if code_next => {
                step.code = line.parse().unwrap();
                code_next = false;
            }
            Some(_) if line == "$ echo $?" => code_next = true,
            Some(step) if step.command.ends_with('\\') => {
                step.command += "\n";
                step.command += line;
            }
            _ if prompt(line).is_some() => {
                steps.push(Step { command: line.clone(), ..Step::default() });
            }
            Some(step) => step.told.push(line.clone()),
            None => panic!("a console begins with a command: {line}"),
        }
    }
    steps
}

impl Stage {
    /// A fleet of the page's own, which runs 1.0.0.
    fn set(page: &Page) -> Self {
        let mut sizes = page.pieces.iter().filter_map(|piece| match &piece.what {
            What::Told(told) => told.strip_prefix("fleet of ")?.parse().ok(),
            What::Block { .. } | What::Code(_) | What::Prose(_) => None,
        });
        let farm = Farm::start(sizes.next().unwrap_or(NODES)).unwrap();
        let manifest = own_manifest(page).expect("a page with consoles has a manifest");
        fs::create_dir_all(farm.path("app/dist")).unwrap();
        fs::copy(&farm.programs.app, farm.path("app/dist/sample-app")).unwrap();
        let shop = farm.path("app/dist/shop");
        fs::write(&shop, "#!/bin/sh\nexec ./sample-app $(cat mood) \"$@\"\n").unwrap();
        let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&shop, runs).unwrap();
        let mut stage = Self { farm, manifest: without_approvals(&manifest) };
        stage.mood("");
        let deploy = "rota deploy --version 1.0.0 --env prod -m \"first release\" --yes";
        let said = stage.shell("", deploy);
        assert_eq!(said.code, 0, "{said:?}");
        stage.manifest = manifest;
        stage
    }

    /// How the app is from now on.
    fn mood(&self, mood: &str) {
        fs::write(self.farm.path("app/dist/mood"), mood).unwrap();
    }

    /// Does what a comment tells.
    fn arrange(&mut self, told: &str, place: &str) {
        let number = |node: &str| node.strip_prefix("web-").unwrap().parse::<usize>().unwrap();
        let is = |farm: &Farm, node: &str, state: &str| {
            let path = format!("/api/v1/nodes/{node}");
            farm.wait(&path, |view| view["state"] == state).unwrap();
        };
        let words: Vec<&str> = told.split(' ').collect();
        match words[..] {
            ["fleet", "of", _] => {}
            ["the", "app", "is", "good"] => self.mood(""),
            ["the", "app", "is", mood] => self.mood(&format!("--{mood}")),
            [node, "goes", "away"] => {
                self.farm.nodes[number(node) - 1].terminate().unwrap();
                is(&self.farm, node, "offline");
            }
            [node, "is", "back"] => {
                let process = self.farm.start_node(number(node)).unwrap();
                is(&self.farm, node, "ready");
                self.farm.nodes[number(node) - 1] = process;
            }
            _ => panic!("{place}: nobody knows how to do `{told}`"),
        }
    }

    /// Runs a step; gives back its lines as they should stand on the page.
    fn carry_out(&self, step: &Step, page: &Page, line: usize) -> Vec<String> {
        let (host, command) = prompt(&step.command).unwrap();
        let looks = !command.contains(" -w")
            && command.split_whitespace().take(3).any(|word| LOOKS.contains(&word));
        let begun = Instant::now();
        let said = loop {
            let said = self.shell(host, command);
            if said.code == step.code && same(&step.told, &said.all()) {
                return written(step, said.code, &step.told);
            }
            let patience = if blessing() { PATIENCE / 10 } else { PATIENCE };
            if !looks || begun.elapsed() > patience {
                break said;
            }
        };
        let now = written(step, said.code, &said.folded());
        if blessing() {
            return now;
        }
        let (place, then) = (page.place(line), written(step, step.code, &step.told));
        panic!("{place}: the page says\n{}\n\nand now it is\n{}", then.join("\n"), now.join("\n"));
    }

    /// Runs a command line in the app's folder, or on a node: its exit code, and all that it said.
    fn shell(&self, host: &str, line: &str) -> Said {
        let manifest = self.farm.path("app/rota.toml");
        let looks = ["check", "plan"].iter().any(|verb| line.starts_with(&format!("rota {verb}")));
        let text = if looks { self.manifest.clone() } else { quick(&self.manifest) };
        fs::write(manifest, text).unwrap();
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(line).current_dir(self.farm.path("app"));
        let mut path = vec![self.farm.programs.rota.parent().map(PathBuf::from).unwrap()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
        command.env("PATH", std::env::join_paths(path).unwrap());
        command.env("ROTA_CONTEXT", self.farm.path("controller/admin.toml"));
        if !host.is_empty() {
            command.env("ROTA_AGENT_DATA", self.farm.path(host));
        }
        let output = command.output().unwrap();
        let lines = |bytes: &[u8]| -> Vec<String> {
            String::from_utf8_lossy(bytes).lines().map(|line| line.trim_end().to_owned()).collect()
        };
        let (talk, data) = (lines(&output.stderr), lines(&output.stdout));
        Said { code: output.status.code().unwrap_or(-1), talk, data }
    }
}

impl Said {
    /// As a terminal shows it.
    fn all(&self) -> Vec<String> {
        [self.talk.as_slice(), &self.data].concat()
    }

    /// The same without its progress line by line.
    fn folded(&self) -> Vec<String> {
        let progress = Regex::new(&format!(r"^(uploading |web-\d+  |shop/{ENV}/\d+  )")).unwrap();
        let mut lines: Vec<String> = Vec::new();
        for line in &self.talk {
            if !progress.is_match(line) {
                lines.push(line.clone());
            } else if lines.last().is_none_or(|last| last != "…") {
                lines.push("…".to_owned());
            }
        }
        [lines.as_slice(), &self.data].concat()
    }
}

/// Waits that a page recommends, short enough for a test. Nothing else differs.
fn quick(manifest: &str) -> String {
    let waits = Regex::new(r#"(?m)^(monitor|delay) *= *"[^"]*""#).unwrap();
    waits.replace_all(manifest, "$1 = \"100ms\"").into_owned()
}

/// For the first rollout, which nobody is asked about.
fn without_approvals(manifest: &str) -> String {
    let approvals = Regex::new(r"(?m)^approve_after *=.*$").unwrap();
    approvals.replace_all(manifest, "").into_owned()
}

/// A step's lines: the command, what it said, and its exit code.
fn written(step: &Step, code: i32, told: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = step.command.lines().map(str::to_owned).collect();
    lines.extend_from_slice(told);
    if code != 0 {
        lines.extend(["$ echo $?".to_owned(), code.to_string()]);
    }
    lines
}

/// What is another each time, and what it is compared as.
static CHANGING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rows = [
        (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?(\.\d+)?Z?", "TIME"),
        (r"\d[\d.]* (ms|s|min|h)\b", "SPAN"),
        (r"\b(now|SPAN ago)\b", "SEEN"),
        (r"\d[\d,]* requests?\b", "N requests"),
        (r"\b[2-6]\d{4}\b", "PORT"),
        (r"longest web-\d+", "longest NODE"),
        (r"127\.0\.0\.1:\d+", "ADDRESS"),
        (r"[0-9a-f]{12,}", "DIGEST"),
        (r"\d[\d.]* [KMG]iB", "SIZE"),
        (r"\s+", " "),
    ];
    rows.map(|(what, name)| (Regex::new(what).unwrap(), name)).into()
});

/// A line without what is another each time.
fn plain(line: &str) -> String {
    let mut line = line.to_owned();
    for (what, name) in CHANGING.iter() {
        line = what.replace_all(&line, *name).into_owned();
    }
    line.trim_end().to_owned()
}

/// Do the lines on the page say this?
fn same(page: &[String], told: &[String]) -> bool {
    let page: Vec<String> = page.iter().map(|line| plain(line)).collect();
    let told: Vec<String> = told.iter().map(|line| plain(line)).collect();
    lines_match(&page, &told)
}

fn lines_match(page: &[String], told: &[String]) -> bool {
    match (page.split_first(), told.split_first()) {
        (None, _) => told.is_empty(),
        (Some((first, rest)), _) if first == "…" => {
            (0..=told.len()).any(|skipped| lines_match(rest, &told[skipped..]))
        }
        (Some(_), None) => false,
        (Some((first, rest)), Some((line, more))) => {
            text_matches(first, line) && lines_match(rest, more)
        }
    }
}

/// `a … c` is any text that begins with `a ` and ends with ` c`.
fn text_matches(page: &str, told: &str) -> bool {
    let mut parts = page.split('…');
    let Some(mut rest) = parts.next().and_then(|first| told.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn what_counts_as_the_same() {
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    for (page, told, right) in [
        ("a\nb", "a\nb", true),
        ("a\nb", "a", false),
        ("a", "a\nb", false),
        ("a\n…", "a", true),
        ("…\nc\n…\ne", "a\nb\nc\nd\ne", true),
        ("…\nc", "a\nb", false),
        ("took 1.0 s; 12 requests", "took 812 ms; 3,412 requests", true),
        ("a … c", "a b b c", true),
        ("a … c", "a b b d", false),
        ("web-01  done   -", "web-01  done  -", true),
        ("5 nodes", "6 nodes", false),
    ] {
        assert_eq!(same(&lines(page), &lines(told)), right, "{page:?} and {told:?}");
    }
}
