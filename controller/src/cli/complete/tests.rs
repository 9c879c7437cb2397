//! Which argument takes which names, and how candidates are written for each shell.

use super::*;
use crate::cli::complete::names::Verb;

/// Arguments whose values nobody can name beforehand.
const FREE: [&str; 21] = [
    "message",
    "version",
    "until",
    "ttl",
    "uses",
    "max_hold",
    "token",
    "address",
    "name",
    "index",
    "words",
    "timeout",
    "batch",
    "max_failures",
    "command",
    "listen",
    "http",
    "window",
    "from",
    "to",
    "store",
];

fn each<'a>(command: &'a Command, path: &[&'a str], see: &mut dyn FnMut(&[&str], &clap::Arg)) {
    command.get_arguments().for_each(|arg| see(path, arg));
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        let path: Vec<&str> = path.iter().copied().chain([child.get_name()]).collect();
        each(child, &path, see);
    }
}

/// A new argument is either completed, or known to be free text.
#[test]
fn every_argument_is_completed_or_free() {
    let mut command = Cli::command();
    command.build();
    let mut open = Vec::new();
    each(&command, &[], &mut |path, arg| {
        let takes = arg.get_action().takes_values();
        let known = !arg.get_possible_values().is_empty()
            || !matches!(arg.get_value_hint(), clap::ValueHint::Unknown)
            || Wanted::by(path, arg.get_id().as_str()).is_some()
            || FREE.contains(&arg.get_id().as_str())
            || path.first().is_some_and(|first| matches!(*first, "serve" | "help"));
        if takes && !known {
            open.push(format!("{} {}", path.join(" "), arg.get_id()));
        }
    });
    assert!(open.is_empty(), "give them names in `Wanted::by`, or list them as free: {open:?}");
}

#[test]
fn arguments_and_their_names() {
    for (path, arg, wanted) in [
        (&[][..], "context", Some(Wanted::Context)),
        (&["deploy"], "env", Some(Wanted::Env)),
        (&["deploy"], "version", None),
        (&["env", "unfreeze"], "env", Some(Wanted::FrozenEnv)),
        (&["rollout", "start"], "release", Some(Wanted::Release)),
        (&["rollout", "status"], "id", Some(Wanted::Rollout)),
        (&["rollout", "promote"], "id", Some(Wanted::Running(Verb::Promote))),
        (&["rollout", "abort"], "id", Some(Wanted::Running(Verb::Other))),
        (&["rollout", "skip"], "nodes", Some(Wanted::Target(Verb::Skip))),
        (&["release", "rm"], "version", Some(Wanted::Release)),
        (&["node", "undrain"], "name", Some(Wanted::Drained)),
        (&["controller", "drain"], "name", Some(Wanted::Controller)),
        (&["token", "rm"], "id", Some(Wanted::Token)),
        (&["token", "create"], "name", None),
        (&["token", "create"], "env", Some(Wanted::Env)),
    ] {
        assert_eq!(Wanted::by(path, arg), wanted, "{path:?} {arg}");
    }
}

#[test]
fn candidates_in_each_notation() {
    let plain = CompletionCandidate::new("web-01");
    let told = CompletionCandidate::new("a:b").help(Some("held: why\nmore".into()));
    for (shell, first, second) in [
        (KnownShell::Bash, "web-01\n", "a:b\n"),
        (KnownShell::Zsh, "web-01\n", "a\\:b:held\\: why\n"),
        (KnownShell::Fish, "web-01\n", "a:b\theld: why\n"),
    ] {
        assert_eq!((line(shell, &plain), line(shell, &told)), (first.into(), second.into()));
    }
}

#[test]
fn options_come_last() {
    let all = || ["web-01", "--env", "-m"].map(CompletionCandidate::new).into();
    let values = |found: Vec<CompletionCandidate>| -> Vec<String> {
        found.iter().map(|it| it.get_value().to_string_lossy().into_owned()).collect()
    };
    assert_eq!(values(offered(all(), "")), ["web-01"]);
    assert_eq!(values(offered(all(), "-")), ["web-01", "--env"]);
    let short = vec![CompletionCandidate::new("-m")];
    assert_eq!(values(offered(short, "-m")), ["-m"]);
}
