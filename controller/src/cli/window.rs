//! `rota env window`: the recurring times in which updates may start.

use clap::Subcommand;
use rota_proto::operator::{EnvVerb, change};
use rota_rollout::names::EnvName;

use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::render::List;
use super::table::{Cell, Table, Tone};
use super::talk::{self, Format, Page};
use super::words;
use crate::calendar::{BadWindow, Window};
use crate::view::{EnvView, WindowView};

/// `rota env window ls`.
const WINDOWS: List<WindowView> =
    List { draw: windows, nothing: "it has no window: updates may start at any time" };

/// Add, list and remove the times in which updates may start in an environment
#[derive(Debug, Subcommand)]
pub enum WindowCommand {
    /// Add a recurring time; an environment without any is always open
    #[command(after_help = "A window is DAYS FROM-TO ZONE. Times over midnight belong to the day \
        on which they begin.\n\nExamples:\n  \
        rota env window add prod \"Mon-Fri 22:00-05:00 Europe/Berlin\" -m \"at night\"\n  \
        rota env window add prod \"Sat,Sun 00:00-24:00 UTC\"\n  \
        rota env window add prod \"daily 03:00-04:30 America/New_York\"")]
    Add {
        /// The environment
        env: EnvName,
        /// For example "Mon-Fri 22:00-05:00 Europe/Berlin"
        #[arg(value_parser = window)]
        window: Window,
        /// Why, for everyone who waits
        #[arg(short, long, value_name = "WHY", default_value = "", hide_default_value = true)]
        #[arg(value_parser = words::why)]
        message: String,
    },
    /// List the windows of an environment, and when each opens or closes next
    #[command(after_help = "Examples:\n  rota env window ls prod\n  \
                            rota env window ls prod -o json")]
    Ls {
        /// The environment
        env: EnvName,
    },
    /// Remove a window
    #[command(after_help = "Examples:\n  rota env window rm prod 1\n  \
                            rota env window rm prod \"Sat,Sun 00:00-24:00 UTC\"")]
    Rm {
        /// The environment
        env: EnvName,
        /// Its number in `rota env window ls`, or its text
        #[arg(value_name = "N")]
        window: String,
    },
}

/// The command line names the text already.
fn window(text: &str) -> Result<Window, String> {
    text.parse().map_err(|bad: BadWindow| bad.why().to_owned())
}

/// Carries out `rota env window`.
pub async fn run(desk: &Desk, command: WindowCommand) -> Result<Exit, Failure> {
    let (env, verb, window, message) = match command {
        WindowCommand::Ls { env } => return ls(desk, &env).await,
        WindowCommand::Add { env, window, message } => {
            (env, "window-add", window.to_string(), message)
        }
        WindowCommand::Rm { env, window } => (env, "window-rm", window, String::new()),
    };
    let done = format!("the windows of {env} are changed");
    let verb = EnvVerb {
        env: env.to_string(),
        verb: verb.to_owned(),
        until: String::new(),
        message,
        window,
    };
    desk.apply(change::Change::Env(verb), &done).await
}

async fn ls(desk: &Desk, env: &EnvName) -> Result<Exit, Failure> {
    let json = desk.client()?.read("envs").await?;
    let all: Vec<EnvView> = talk::parse(&json)?;
    let Some(found) = all.into_iter().find(|view| view.env == env.as_str()) else {
        return Err(Failure::new("not_found", format!("there is no environment {env}"))
            .hint("`rota env ls` lists them"));
    };
    match desk.talk.format {
        Format::Json => {
            let json = serde_json::to_string(&found.windows)
                .map_err(|error| Failure::internal("cannot print the answer", &error))?;
            desk.talk.data(&talk::pretty(&json)?)?;
        }
        Format::Table if found.windows.is_empty() => desk.talk.say(WINDOWS.nothing),
        Format::Table => {
            desk.talk.screen(&(WINDOWS.draw)(&found.windows, &desk.talk.page()))?;
            desk.talk.say(&format!("{env} {}", standing(&found, &desk.talk.page())));
        }
    }
    Ok(Exit::Done)
}

fn windows(windows: &[WindowView], page: &Page) -> String {
    let mut table = Table::new(&[">N", "WINDOW", "STATE", "CHANGES", "BY", "WHY"]);
    for window in windows {
        let changes = window.changes_at.as_deref().map(|at| words::until(at, page.now));
        table.row([
            Cell::from(window.number.to_string()),
            Cell::from(window.window.as_str()),
            state(window.open),
            Cell::or_dash(changes.as_deref()),
            Cell::or_dash(Some(&window.who)),
            Cell::from(words::clean(&window.message)),
        ]);
    }
    table.text(page.ink, page.columns)
}

/// Open or closed, as a cell.
pub fn state(open: bool) -> Cell {
    if open { Cell::from("open") } else { Cell::toned(Tone::Warn, "closed") }
}

/// `is closed: opens Mon 22:00 Europe/Berlin (in 5h 2m)`; of an environment with windows.
pub fn standing(env: &EnvView, page: &Page) -> String {
    let (state, changes) = match env.open {
        true => ("open".to_owned(), "closes"),
        false => (page.ink.paint(Tone::Warn, "closed"), "opens"),
    };
    match &env.changes_at {
        Some(at) => {
            let ahead = words::until(at, page.now);
            format!("is {state}: {changes} {} ({ahead})", words::clean(&env.changes))
        }
        None => format!("is {state}"),
    }
}
