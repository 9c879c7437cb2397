//! What a shell asks at the TAB key: the commands and options, and the names that are there now.
//!
//! The scripts of `rota completions` call the hidden `rota complete` with the words typed so far.
//! Which argument takes which names is one table, so that a new verb needs nothing but its usual
//! names. No controller, no context, too slow: then there are no names, and never a word of it.

use std::ffi::OsString;
use std::sync::Arc;

use clap::{Args, Command, CommandFactory};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate, complete};
use rota_rollout::names::Span;
use tokio::runtime::Runtime;

use super::shell::KnownShell;
use super::{Cli, Global, args};
use names::{Names, Wanted};

mod names;

/// The candidates for one word, one a line
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota complete bash 2 -- rota node\n\n\
    The scripts of `rota completions` call this.")]
pub struct CompleteArgs {
    /// Whose notation
    #[arg(value_enum)]
    shell: KnownShell,
    /// Which word, from 0
    index: usize,
    /// The words up to the cursor
    #[arg(last = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
    /// How long a controller may take to name what it has
    #[arg(
        long,
        env = "ROTA_COMPLETION_TIMEOUT",
        default_value = "500ms",
        value_parser = args::some_duration
    )]
    timeout: Span,
}

/// The script for a shell.
pub fn script(shell: KnownShell) -> &'static str {
    match shell {
        KnownShell::Bash => include_str!("complete/rota.bash"),
        KnownShell::Zsh => include_str!("complete/rota.zsh"),
        KnownShell::Fish => include_str!("complete/rota.fish"),
    }
}

/// Carries out `rota complete`. A word that nothing is known about has no candidates.
pub fn run(runtime: Runtime, global: &Global, args: CompleteArgs) {
    let CompleteArgs { shell, index, mut words, timeout } = args;
    words.truncate(index + 1);
    words.resize(index + 1, OsString::new());
    let typed: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let names = Arc::new(Names::new(
        runtime,
        global.context.clone().or(global.env_context.clone()),
        typed.clone(),
        timeout,
    ));
    let mut command = with_names(Cli::command(), &[], &names);
    let here = std::env::current_dir().ok();
    let found = complete(&mut command, words, index, here.as_deref()).unwrap_or_default();
    let last = typed.last().map_or("", String::as_str);
    let lines: String = offered(found, last).iter().map(|it| line(shell, it)).collect();
    // A shell that went away needs no answer.
    super::talk::write_data(&lines).ok();
}

/// Options are offered where nothing else fits, or where somebody began one; then by their long names.
fn offered(mut found: Vec<CompletionCandidate>, last: &str) -> Vec<CompletionCandidate> {
    let option = |it: &CompletionCandidate| it.get_value().to_string_lossy().starts_with('-');
    if last.is_empty() && found.iter().any(|it| !option(it)) {
        found.retain(|it| !option(it));
    }
    if found.iter().any(|it| it.get_value().to_string_lossy().starts_with("--")) {
        found.retain(|it| !option(it) || it.get_value().to_string_lossy().starts_with("--"));
    }
    found
}

/// A candidate as a shell's script reads it.
fn line(shell: KnownShell, candidate: &CompletionCandidate) -> String {
    let value = candidate.get_value().to_string_lossy();
    let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.lines().next().unwrap_or_default();
    match shell {
        KnownShell::Bash => format!("{value}\n"),
        KnownShell::Fish if help.is_empty() => format!("{value}\n"),
        KnownShell::Fish => format!("{value}\t{help}\n"),
        KnownShell::Zsh => {
            let escaped = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
            let help = if help.is_empty() { String::new() } else { format!(":{}", escaped(help)) };
            format!("{}{help}\n", escaped(&value))
        }
    }
}

/// The command with candidates at every argument that takes names.
fn with_names(command: Command, path: &[&str], names: &Arc<Names>) -> Command {
    let command = command.mut_args(|arg| match Wanted::by(path, arg.get_id().as_str()) {
        Some(wanted) => {
            let names = Arc::clone(names);
            arg.add(ArgValueCandidates::new(move || candidates(&names, wanted)))
        }
        None => arg,
    });
    let inner: Vec<String> =
        command.get_subcommands().map(|child| child.get_name().to_owned()).collect();
    inner.into_iter().fold(command, |command, name| {
        let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
        command.mut_subcommand(&name, |child| with_names(child, &path, names))
    })
}

fn candidates(names: &Names, wanted: Wanted) -> Vec<CompletionCandidate> {
    let found = names.find(wanted).into_iter().enumerate();
    let candidate = |(at, (name, help)): (usize, (String, String))| {
        let help = if help.is_empty() { None } else { Some(super::words::clean(&help).into()) };
        CompletionCandidate::new(name).help(help).display_order(Some(at))
    };
    found.map(candidate).collect()
}

#[cfg(test)]
mod tests;
