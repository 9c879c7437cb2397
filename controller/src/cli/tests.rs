//! The command line itself: every example of every `--help` parses, and every mistake has its exit.

use clap::CommandFactory;

use super::*;

/// Splits a line as a shell does, as far as our examples need it.
fn shell_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(!quoted, "an open quote: {line}");
    words.extend(word);
    words
}

fn examples(command: &clap::Command) -> Vec<String> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines = help.lines().filter(|line| line.starts_with("  rota "));
    lines.map(|line| line.trim().to_owned()).collect()
}

/// Calls `see` with every command and every group of commands, and its full name.
fn each(command: &clap::Command, name: &str, see: &mut dyn FnMut(&clap::Command, &str)) {
    for child in command.get_subcommands() {
        each(child, &format!("{name} {}", child.get_name()), see);
    }
    see(command, name);
}

#[test]
fn clap_finds_nothing_wrong() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_examples_and_every_example_parses() {
    let mut all = examples(&Cli::command());
    each(&Cli::command(), "rota", &mut |command, name| {
        let own = examples(command);
        assert!(!own.is_empty(), "`{name}` has no example");
        for example in &own {
            assert!(example.starts_with(name), "`{example}` is not about `{name}`");
        }
        assert!(command.get_about().is_some(), "`{name}` says nothing about itself");
        all.extend(own);
    });
    assert!(all.len() > 50, "only {} examples", all.len());
    for example in all {
        let (ours, _to_a_file) = example.split_once(" > ").unwrap_or((example.as_str(), ""));
        if let Err(error) = Cli::try_parse_from(shell_words(ours)) {
            panic!("`{example}`: {error}");
        }
    }
}

#[test]
fn every_argument_is_explained() {
    each(&Cli::command(), "rota", &mut |command, name| {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            assert!(arg.get_help().is_some(), "`{name}`: {} is not explained", arg.get_id());
        }
    });
}

/// The commands of the contract, as it writes them.
#[test]
fn the_contract_parses() {
    for line in [
        "rota deploy --version V --env e",
        "rota deploy -f x/rota.toml --version V --env e -m WHY --detach --supersede --yes",
        "rota plan -f rota.toml --version V --env e",
        "rota check -f rota.toml",
        "rota release push --version V",
        "rota rollout start app --release V --env e",
        "rota rollout ls",
        "rota rollout status a/e/1 -w",
        "rota rollout status a/e",
        "rota rollout inspect a/e/1",
        "rota rollout history app --env e",
        "rota rollout pause a/e/1",
        "rota rollout resume a/e/1",
        "rota rollout promote a/e/1",
        "rota rollout abort a/e/1",
        "rota rollout rollback a/e/1",
        "rota rollout retry a/e/1",
        "rota rollout undo app --env e --to-revision 3",
        "rota restart app --env e",
        "rota node ls",
        "rota node inspect n",
        "rota node drain n",
        "rota node undrain n",
        "rota node label n k=v l=w",
        "rota node rm n",
        "rota edge ls",
        "rota pool ls",
        "rota pool inspect p",
        "rota controller ls",
        "rota controller drain c --handover --wait",
        "rota controller undrain c",
        "rota env freeze e --until 2026-11-25T06:00:00Z -m WHY",
        "rota env unfreeze e",
        "rota token create --for operator --role viewer --name n --ttl 1h --uses 1",
        "rota token ls",
        "rota token rm x",
        "rota login h:7400 --token t --context name",
        "rota events -f --app a --env e",
        "rota audit",
        "rota status",
        "rota completions zsh",
        "rota --context x -o json --no-color -v status",
        "rota status --context x -o table -q",
        "rota serve --data d --name c1 --listen 0.0.0.0:7400 --http 127.0.0.1:7401 \
         --advertise h:1 --store sqlite --join h:7400 --token t",
    ] {
        if let Err(error) = Cli::try_parse_from(shell_words(line)) {
            panic!("`{line}`: {error}");
        }
    }
}

#[test]
fn mistakes_and_questions() {
    for (line, kind) in [
        ("rota", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
        ("rota --help", ErrorKind::DisplayHelp),
        ("rota --version", ErrorKind::DisplayVersion),
        ("rota deploy --help", ErrorKind::DisplayHelp),
        ("rota deploy --env prod", ErrorKind::MissingRequiredArgument),
        ("rota deploy --version 1 --env Prod", ErrorKind::ValueValidation),
        ("rota deploy --version ../x --env prod", ErrorKind::ValueValidation),
        ("rota rollout pause shop", ErrorKind::ValueValidation),
        ("rota rollout undo shop --env prod --to-revision 0", ErrorKind::ValueValidation),
        ("rota token create --for nobody", ErrorKind::InvalidValue),
        ("rota token create --for agent --uses 0", ErrorKind::ValueValidation),
        ("rota token create --for agent --ttl 0s", ErrorKind::ValueValidation),
        ("rota env freeze prod", ErrorKind::MissingRequiredArgument),
        ("rota node label web-01", ErrorKind::MissingRequiredArgument),
        ("rota completions powershell", ErrorKind::InvalidValue),
        ("rota status -o yaml", ErrorKind::InvalidValue),
        ("rota status -q -v", ErrorKind::ArgumentConflict),
        ("rota serve --data d --join h:1", ErrorKind::MissingRequiredArgument),
        ("rota frobnicate", ErrorKind::InvalidSubcommand),
    ] {
        let error = Cli::try_parse_from(shell_words(line)).err();
        assert_eq!(error.map(|error| error.kind()), Some(kind), "{line}");
    }
}

#[test]
fn usage_errors_as_json() {
    for (line, json) in [
        ("rota -o json deploy", true),
        ("rota deploy -ojson", true),
        ("rota deploy --output=json", true),
        ("rota deploy -o table", false),
        ("rota deploy json", false),
    ] {
        let words: Vec<OsString> = shell_words(line).into_iter().map(OsString::from).collect();
        assert_eq!(wants_json(&words), json, "{line}");
    }
    let error = Cli::try_parse_from(["rota", "deploy", "--env", "prod"]).unwrap_err();
    let failure = usage_failure(&error);
    assert_eq!(failure.exit, Exit::Usage);
    assert_eq!(failure.kind, "usage");
    assert_eq!(
        failure.message,
        "the following required arguments were not provided: --version <VERSION>"
    );
    assert_eq!(failure.hint, "write `rota deploy --version <VERSION> --env <ENV>`");
    for (line, hint) in [
        ("rota nodee", "a similar subcommand exists: 'node'; write `rota [OPTIONS] <COMMAND>`"),
        ("rota deploy --version v --env Prod", "`--help` says more"),
    ] {
        let error = Cli::try_parse_from(shell_words(line)).unwrap_err();
        assert_eq!(usage_failure(&error).hint, hint, "{line}");
    }
}
