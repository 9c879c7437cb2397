//! What packages and shells want of us: completions and man pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;
use super::desk::Desk;
use super::outcome::{Exit, Failure};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota completions bash\n  rota completions zsh\n  \
    rota completions fish\n\nFor bash, now and for good: \
    rota completions bash > /etc/bash_completion.d/rota")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: KnownShell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum KnownShell {
    Bash,
    Zsh,
    Fish,
}

/// Print the manual page, or write one for every command
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota man\n  rota man --dir target/man")]
pub struct ManArgs {
    /// Write rota.1, rota-deploy.1 and so on there
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Carries out `rota completions`.
pub fn completions(desk: &Desk, args: &CompletionsArgs) -> Result<Exit, Failure> {
    let shell = match args.shell {
        KnownShell::Bash => Shell::Bash,
        KnownShell::Zsh => Shell::Zsh,
        KnownShell::Fish => Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rota", &mut script);
    desk.talk.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// Carries out `rota man`.
pub fn man(desk: &Desk, args: &ManArgs) -> Result<Exit, Failure> {
    if let Some(dir) = &args.dir {
        let failed = |error| Failure::internal("cannot write the man pages", &error);
        std::fs::create_dir_all(dir).map_err(failed)?;
        clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
        desk.talk.say(&format!("man pages are in {}", dir.display()));
        return Ok(Exit::Done);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Failure::internal("cannot draw the man page", &error))?;
    desk.talk.data(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Done)
}
