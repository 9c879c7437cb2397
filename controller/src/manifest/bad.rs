//! Manifests that are refused, and every word that the operator then reads: `bad.txt`.
//!
//! Each case is a name, a manifest and the expected text. `run:` before the name puts [`RUN`] above
//! the manifest, `app:` puts [`APP`] there, `all:` nothing. After a change of wording, run the test
//! with `ROTA_BLESS=1`, which rewrites the file, and review the difference like code.

use super::Manifest;

const APP: &str = "app = \"shop\"\nartifact.path = \"dist\"\n";

/// A good manifest, its `[run]` still open.
const RUN: &str = "app = \"shop\"\nartifact.path = \"dist\"\n\
                   [run]\ncommand = [\"./shop\"]\nport = 9000\n";

const CASES: &str = include_str!("bad.txt");

#[test]
fn every_mistake_has_its_message() {
    let cases: Vec<&str> = CASES.split("=== ").skip(1).collect();
    assert!(cases.len() >= 45, "{} cases", cases.len());
    let now: Vec<String> = cases.iter().map(|case| transcript(case)).collect();
    if std::env::var_os("ROTA_BLESS").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manifest/bad.txt");
        std::fs::write(path, now.concat()).unwrap();
        return;
    }
    for (case, now) in cases.iter().zip(&now) {
        assert_eq!(format!("=== {case}"), *now);
    }
}

/// The case as it should stand in the file.
fn transcript(case: &str) -> String {
    let input = case.split("\n---\n").next().unwrap().trim_end();
    let (name, body) = input.split_once('\n').unwrap_or((input, ""));
    let head = match name.split_once(": ").unwrap().0 {
        "all" => "",
        "app" => APP,
        "run" => RUN,
        other => panic!("{other}: is not all, app or run"),
    };
    let problems = match Manifest::parse(&format!("{head}{body}\n"), "rota.toml") {
        Ok(_) => panic!("accepted: {input}"),
        Err(problems) => problems,
    };
    let fields: Vec<&str> = problems.list().iter().map(|problem| problem.field.as_str()).collect();
    for problem in problems.list() {
        assert!(problem.line > 0 && problem.column > 0, "{problem:?}");
    }
    let rendered = problems.render(false);
    let rendered: Vec<&str> = rendered.lines().map(str::trim_end).collect();
    let rendered = rendered.join("\n");
    format!("=== {input}\n---\n{rendered}\nfields: {}\n\n", fields.join(", "))
}
