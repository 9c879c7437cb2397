//! Every command that a hint names is one: with all its arguments, as it could be typed.

use clap::Parser;
use rota::cli::Cli;

/// These take what only the operator knows: a manifest, a version, a command.
const NAMES: [&str; 3] = ["rota deploy", "rota plan", "rota run"];

/// Splits as a shell would, for what stands in hints. Which node is meant only the operator knows.
fn typed(command: &str) -> Vec<&str> {
    let word = |word| if word == "NODE" || word == "EDGE" { "web-01" } else { word };
    command.split_whitespace().map(word).collect()
}

#[test]
fn what_a_hint_names_can_be_typed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verbs.md");
    let page = std::fs::read_to_string(path).unwrap();
    let said = page.lines().filter(|line| line.starts_with("    ") || line.starts_with("It says"));
    let mut seen = std::collections::BTreeSet::new();
    for line in said {
        let quoted = line.split('`').skip(1).step_by(2);
        for command in quoted.filter(|quoted| quoted.starts_with("rota ")) {
            if NAMES.contains(&command) {
                continue;
            }
            if let Err(error) = Cli::try_parse_from(typed(command)) {
                panic!("`{command}` is no command: {error}\nin: {line}");
            }
            seen.insert(typed(command)[1..].iter().take(2).copied().collect::<Vec<_>>().join(" "));
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
}
