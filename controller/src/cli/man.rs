//! Man pages: what `--help` says, with the sections that `man` readers look for.

use std::io;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

/// What every page says about exits, as the contract has it.
const EXITS: [(&str, &str); 8] = [
    ("0", "done"),
    ("1", "refused, or an internal error"),
    ("2", "a mistake in the command line or the manifest"),
    ("3", "the rollout failed, is held or was aborted"),
    ("4", "the rollout was rolled back"),
    ("5", "no controller could be reached"),
    ("6", "the caller's role does not allow it"),
    ("130", "detached by Ctrl-C; the rollout goes on"),
];

/// What is read beside the command line.
const ENVIRONMENT: [(&str, &str); 5] = [
    ("ROTA_CONTEXT", "the context that is used when --context does not say another"),
    ("ROTA_ETCD_PASSWORD", "the password of the user that a store's URL names"),
    ("NO_COLOR", "no colours when it is set and not empty"),
    ("ROTA_TOKEN", "the token of `rota login` and `rota serve --join`"),
    ("ROTA_COMPLETION_TIMEOUT", "how long completions wait for a controller (500ms)"),
];

/// Writes a page for every command: `rota.1`, `rota-deploy.1` and so on.
pub fn write_all(command: Command, dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut command = command.disable_help_subcommand(true);
    command.build();
    write(&command, dir)
}

fn write(command: &Command, dir: &Path) -> io::Result<()> {
    for child in command.get_subcommands().filter(|child| !child.is_hide_set()) {
        write(child, dir)?;
    }
    std::fs::write(dir.join(format!("{}.1", name(command))), page(command)?)
}

fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

/// One page.
pub fn page(command: &Command) -> io::Result<String> {
    let name = name(command);
    let man = Man::new(command.clone());
    let (title, version) = (name.to_uppercase(), env!("CARGO_PKG_VERSION"));
    let title = format!(".TH \"{title}\" \"1\" \"\" \"rota {version}\" \"Rota\"\n");
    let mut drawn = title.into_bytes();
    man.render_name_section(&mut drawn)?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim().trim_start_matches("Usage:").trim();
    drawn.extend(section("SYNOPSIS", usage).into_bytes());
    man.render_description_section(&mut drawn)?;
    man.render_options_section(&mut drawn)?;
    if command.get_subcommands().any(|child| !child.is_hide_set()) {
        man.render_subcommands_section(&mut drawn)?;
    }
    let mut text = String::from_utf8_lossy(&drawn).into_owned();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for part in after.split("\n\n").filter(|part| !part.starts_with("Exit codes: 0 done;")) {
        match part.strip_prefix("Examples:\n") {
            Some(examples) => text += &section("EXAMPLES", examples),
            None => text += &section("NOTES", part),
        }
    }
    text += &list("EXIT STATUS", &EXITS);
    text += &list("ENVIRONMENT", &ENVIRONMENT);
    if let Some((parent, _)) = name.rsplit_once('-') {
        text += &section("SEE ALSO", &format!("{parent}(1)"));
    }
    // Blank space after blank space is one too many.
    Ok(text.replace("\n\n", "\n").replace(".br\n.br\n", ".br\n"))
}

/// Lines as they are.
fn section(title: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("{}\n", roff(line.trim_end()))).collect();
    format!(".SH \"{title}\"\n.nf\n{lines}.fi\n")
}

/// Words and what they mean.
fn list(title: &str, entries: &[(&str, &str)]) -> String {
    let entry = |(word, meaning): &(&str, &str)| {
        format!(".TP\n\\fB{}\\fR\n{}\n", roff(word), roff(meaning))
    };
    format!(".SH \"{title}\"\n{}", entries.iter().map(entry).collect::<String>())
}

/// A line that roff prints as it is.
fn roff(line: &str) -> String {
    let line = line.replace('\\', "\\e").replace('-', "\\-");
    if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_page_has_what_its_readers_look_for() {
        let mut command = crate::cli::Cli::command().disable_help_subcommand(true);
        command.build();
        let retry = command.find_subcommand("rollout").and_then(|it| it.find_subcommand("retry"));
        let page = page(retry.unwrap()).unwrap();
        for line in [
            r#".TH "ROTA-ROLLOUT-RETRY" "1" "" "rota 0.1.0" "Rota""#,
            r"rota rollout retry [OPTIONS] <ID> [NODES]...",
            r#".SH "EXAMPLES""#,
            r"  rota rollout retry shop/prod/14 web\-03 web\-04",
            r#".SH "EXIT STATUS""#,
            r"rota\-rollout(1)",
        ] {
            assert!(page.contains(line), "{line} is missing:\n{page}");
        }
        assert!(!page.contains("EXTRA"), "{page}");
    }
}
