//! What the shells offer at the TAB key: real shells, the scripts of `rota completions`, live names.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rota_tests::farm::{App, ENV, Farm};

use super::{deploy, run};

/// Defines `offers WORD...`: what is offered for the last word, in one line.
const BASH: &str = r#"
source <(rota completions bash)
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
offers() {
    COMP_WORDS=("$@")
    COMP_CWORD=$(($# - 1))
    _rota "$1" "${@: -1}"
    echo "${COMPREPLY[*]}"
}
"#;

/// A shell inside of a terminal, as a person has it: only there does zsh complete.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty inner zsh -f -i
tell() { zpty -w -n inner $1; zpty -r -m inner out "*$2*"; print -r -- "$out"; }
tell $'PROMPT="> "; LISTMAX=999; autoload -Uz compinit; compinit -u -D; print set\'\'up\n' setup
tell $'source <(rota completions zsh); print rea\'\'dy\n' ready
tell $'rota node inspect web-0\t\t' web-02
tell $'\x15rota rollout status sh\t/\t' 'shop/prod/1'
tell $'\x15rota env freeze p\t-m x --until 1h; print fr\'\'ozen\n' frozen
"#;

fn shell(farm: &Farm, program: &str, args: &[&str]) -> Option<Output> {
    let known = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    if known.is_err() {
        eprintln!("SKIPPED: there is no {program} here, so its completions were not tried");
        return None;
    }
    let mut command = Command::new(program);
    let bin = farm.programs.rota.parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    command.args(args).env("PATH", path).env("ROTA_COMPLETION_TIMEOUT", "60s");
    command.env("ROTA_CONTEXT", farm.path("controller/admin.toml"));
    command.env("HOME", farm.path("")).env("TERM", "xterm").current_dir(farm.path("app"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    Some(output)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn offered(farm: &Farm, line: &str) -> String {
    let script = format!("{BASH}\noffers {line}");
    let args = ["--norc", "--noprofile", "-c", &script];
    told(&shell(farm, "bash", &args).unwrap()).trim_end().to_owned()
}

#[test]
fn shells_offer_the_names_that_are_there_now() {
    let farm = Farm::start(2).unwrap();
    let app = App { strategy: "batch = 1\nmonitor = \"0s\"", ..App::default() };
    deploy(&farm, "1.0.0", app, 0);
    deploy(&farm, "1.1.0", app, 0);
    run(&farm, &["node", "drain", "web-02"], 0);
    let token = run(&farm, &["token", "ls", "--all", "-o", "json"], 0);
    let tokens: serde_json::Value = serde_json::from_str(&token).unwrap();
    for (line, names) in [
        ("rota roll", "rollout"),
        ("rota rollout res", "resume"),
        ("rota deploy --env p", "prod"),
        ("rota deploy --env = p", "prod"),
        ("rota deploy --det", "--detach"),
        ("rota deploy -f ro", "rota.toml"),
        ("rota deploy -f ../a", "../app/"),
        ("rota restart ''", "shop"),
        ("rota rollout start shop --release ''", "1.1.0 1.0.0"),
        ("rota release inspect shop 1.0", "1.0.0"),
        ("rota rollout status ''", "shop/prod shop/prod/2 shop/prod/1"),
        ("rota rollout inspect shop/prod/", "shop/prod/2 shop/prod/1"),
        ("rota rollout undo shop --env prod --to-revision ''", "2 1"),
        ("rota node inspect ''", "web-01 web-02"),
        ("rota node drain w", "web-01"),
        ("rota node undrain ''", "web-02"),
        ("rota pool inspect ''", "shop"),
        ("rota controller drain ''", "c1"),
        ("rota token rm ''", tokens[0]["id"].as_str().unwrap()),
        ("rota node ls -o ''", "table json"),
        // Nothing is paused, so nothing can be resumed.
        ("rota rollout resume sh", ""),
        ("rota node inspect x", ""),
    ] {
        let found = offered(&farm, line);
        let first =
            if line.contains("token rm") { found.split(' ').next().unwrap() } else { &found };
        assert_eq!(first, names, "{line}");
    }
    if let Some(output) = shell(&farm, "zsh", &["-f", "-c", ZSH]) {
        let said = told(&output);
        for word in ["web-02", "prod, ready", "shop/prod/1", "1.0.0, completed"] {
            assert!(said.contains(word), "{word} is not offered: {said}");
        }
        let frozen = farm.wait("/api/v1/envs", |envs| envs[0]["frozen"].is_object()).unwrap();
        assert_eq!(frozen[0]["env"], ENV, "what zsh completed was carried out");
    }
    let line = "rota completions fish | source; complete --do-complete 'rota rollout status shop/'";
    if let Some(output) = shell(&farm, "fish", &["--no-config", "-c", line]) {
        assert_eq!(
            told(&output),
            "shop/prod\tthe latest\nshop/prod/2\t1.1.0, completed\nshop/prod/1\t1.0.0, completed\n"
        );
    }
}

#[test]
fn without_a_controller_nothing_is_offered_and_nothing_said() {
    let mut farm = Farm::start(0).unwrap();
    let complete = |context: &Path| {
        let begun = Instant::now();
        let mut rota = farm.rota();
        rota.env("ROTA_CONTEXT", context).args(["complete", "bash", "3", "--"]);
        let output = rota.args(["rota", "node", "inspect", "w"]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert_eq!(told(&output), "");
        begun.elapsed()
    };
    complete(Path::new("/nowhere.toml"));
    let context = farm.path("controller/admin.toml");
    // Stopped, it takes the connection and does not answer: that is waited for, but not for long.
    let pid = farm.controller.pid().to_string();
    Command::new("kill").args(["-STOP", &pid]).status().unwrap();
    assert!(complete(&context) < Duration::from_secs(10), "a shell must not hang");
    farm.controller.kill().unwrap();
}

#[test]
fn man_pages_are_what_roff_takes() {
    let dir = tempfile::tempdir().unwrap();
    for (program, count) in [("rota", 40), ("rota-agent", 5)] {
        let programs = rota_tests::processes::Programs::build().unwrap();
        let path = if program == "rota" { programs.rota } else { programs.agent };
        let told = Command::new(path).args(["man", "--dir"]).arg(dir.path()).output().unwrap();
        assert!(told.status.success(), "{told:?}");
        let pages = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let pages: Vec<_> = pages.filter(|page| page.is_file()).collect();
        assert!(pages.len() > count, "only {} pages", pages.len());
        let Ok(lint) = Command::new("groff").args(["-ww", "-man", "-z"]).args(&pages).output()
        else {
            eprintln!("SKIPPED: there is no groff here, so the man pages were not read");
            continue;
        };
        let said = String::from_utf8_lossy(&lint.stderr).into_owned();
        assert!(lint.status.success() && said.is_empty(), "{program}: {said}");
    }
}
