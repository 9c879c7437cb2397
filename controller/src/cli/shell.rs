//! What packages and shells want of us: completions and man pages.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::{Cli, complete, man};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota completions bash\n  rota completions zsh\n  \
    rota completions fish\n\nFor good:\n  \
    bash  rota completions bash > /etc/bash_completion.d/rota\n  \
    zsh   rota completions zsh > /usr/local/share/zsh/site-functions/_rota\n  \
    fish  rota completions fish > ~/.config/fish/completions/rota.fish\n\n\
    Names of apps, environments, rollouts, nodes, releases and so on come from the controller of\n\
    the context, and are left out when it does not answer within ROTA_COMPLETION_TIMEOUT \
    (500ms).")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: KnownShell,
}

/// The shells that are helped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum KnownShell {
    /// GNU bash.
    Bash,
    /// Zsh.
    Zsh,
    /// Fish.
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
    desk.talk.data(complete::script(args.shell))?;
    Ok(Exit::Done)
}

/// Carries out `rota man`.
pub fn man(desk: &Desk, args: &ManArgs) -> Result<Exit, Failure> {
    if let Some(dir) = &args.dir {
        man::write_all(Cli::command(), dir)
            .map_err(|error| Failure::internal("cannot write the man pages", &error))?;
        desk.talk.say(&format!("man pages are in {}", dir.display()));
        return Ok(Exit::Done);
    }
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let page = man::page(&command)
        .map_err(|error| Failure::internal("cannot draw the man page", &error))?;
    desk.talk.data(&page)?;
    Ok(Exit::Done)
}
