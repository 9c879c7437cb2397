//! `rota status`: one screen that says whether somebody has to get up.

use std::fmt::Write as _;

use clap::Args;
use rota_rollout::names::EnvName;

use super::desk::{self, Desk};
use super::outcome::{Exit, Failure};
use super::render;
use super::table::{Cell, Table, Tone};
use super::talk::Page;
use super::{window, words};
use crate::view::{CareView, FleetView, RolloutView, StatusView};

/// Nodes that need care and are listed one by one; `rota node ls` shows all.
const CARE_LISTED_MAX: usize = 15;

/// However low the terminal, so many of each sort are listed.
const LISTED_MIN: usize = 4;

/// How many are listed where a part of the terminal's height is theirs. A pipe gets everything.
fn room(page: &Page, part: usize) -> usize {
    page.rows.map_or(usize::MAX, |rows| (rows / part).max(LISTED_MIN))
}

/// One screen: apps, environments, rollouts, holds, and nodes that need care
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rota status\n  rota status --env prod\n  \
    rota status -o json")]
pub struct StatusArgs {
    /// Only this environment
    #[arg(long)]
    env: Option<EnvName>,
}

/// Carries out `rota status`.
pub async fn run(desk: &Desk, args: &StatusArgs) -> Result<Exit, Failure> {
    desk.show(&desk::only("status", None, args.env.as_ref()), screen).await
}

/// The whole screen.
fn screen(status: &StatusView, page: &Page) -> String {
    let mut text = fleets(status, page);
    text.push('\n');
    text.push_str(&rollouts(&status.rollouts, page));
    for env in &status.envs {
        text.push_str(&env.frozen.as_ref().map_or(String::new(), |freeze| {
            let until = freeze.until.as_deref().map(words::date);
            let until = until.map_or("until unfrozen".to_owned(), |until| format!("until {until}"));
            let (word, why) = (page.ink.paint(Tone::Warn, "frozen"), words::clean(&freeze.message));
            format!("\n{} is {word} {until} by {}: {why}\n", env.env, freeze.who)
        }));
        if !env.windows.is_empty() {
            writeln!(text, "\n{} {}", env.env, window::standing(env, page))
                .expect("strings take everything");
        }
    }
    text.push('\n');
    text.push_str(&care(&status.care, page));
    for controller in status.controllers.iter().filter(|view| view.state != "active") {
        let state = page.ink.paint(Tone::Warn, &controller.state);
        writeln!(text, "\ncontroller {} is {state}", controller.name)
            .expect("strings take everything");
    }
    text
}

/// Those that wait for somebody come first.
fn rollouts(rollouts: &[RolloutView], page: &Page) -> String {
    if rollouts.is_empty() {
        return "no rollout is under way\n".to_owned();
    }
    let mut all: Vec<RolloutView> = rollouts.to_vec();
    all.sort_by_key(|rollout| rollout.hold.is_none() && rollout.paused.is_none());
    let more = all.len().saturating_sub(room(page, 6));
    all.truncate(room(page, 6));
    let mut text = render::rollouts(&all, page);
    if more > 0 {
        writeln!(text, "and {more} more: `rota rollout ls`").expect("strings take everything");
    }
    for rollout in &all {
        // Whole, where the table had to shorten it.
        if let Some(by) = &rollout.paused {
            writeln!(text, "{} is paused by {}", rollout.id, words::clean(by))
                .expect("strings take everything");
        }
        if let Some(by) = &rollout.break_glass {
            writeln!(text, "{}: glass broken by {}", rollout.id, words::clean(by))
                .expect("strings take everything");
        }
        let shortened = |why: &str| !text.contains(words::clean(why).as_str());
        if let Some(hold) = rollout.hold.as_ref().filter(|hold| shortened(&hold.text)) {
            writeln!(text, "{} waits: {}", rollout.id, words::clean(&hold.text))
                .expect("strings take everything");
        }
        if let Some(hold) = rollout.hold.as_ref().filter(|hold| !hold.hint.is_empty()) {
            writeln!(text, "hint: {}: {}", rollout.id, words::clean(&hold.hint))
                .expect("strings take everything");
        }
    }
    text
}

/// Each app in each environment. Where there are too many for the screen, those to look at come first, and the others
/// are counted.
fn fleets(status: &StatusView, page: &Page) -> String {
    let mut table = Table::new(&["APP", "ENV", "RELEASE", ">REV", "IN TRAFFIC"]);
    let moves = |fleet: &FleetView| {
        status.rollouts.iter().any(|it| it.app == fleet.app && it.env == fleet.env)
    };
    let well = |fleet: &&FleetView| fleet.in_traffic == fleet.targets && fleet.on_another == 0;
    let mut all: Vec<&FleetView> = status.fleets.iter().collect();
    let listed = room(page, 2);
    if all.len() > listed {
        all.sort_by_key(|fleet| (well(fleet), !moves(fleet)));
    }
    let left_out = all.split_off(all.len().min(listed));
    for fleet in all {
        let FleetView { targets, in_traffic, .. } = fleet;
        let tone = if well(&fleet) { Tone::Good } else { Tone::Warn };
        let another = match fleet.on_another {
            0 => String::new(),
            more => format!(", {more} on another release"),
        };
        table.row([
            Cell::from(fleet.app.as_str()),
            Cell::from(fleet.env.as_str()),
            Cell::or_dash(fleet.release.as_deref()),
            Cell::or_dash(fleet.revision.map(|revision| revision.to_string()).as_deref()),
            Cell::toned(tone, format!("{in_traffic} of {targets}{another}")),
        ]);
    }
    if table.is_empty() {
        return "nothing is deployed yet: `rota deploy` starts\n".to_owned();
    }
    let mut text = table.text(page.ink, page.columns);
    if !left_out.is_empty() {
        let (more, bad) = (left_out.len(), left_out.iter().filter(|it| !well(it)).count());
        let bad = match bad {
            0 => "all of their nodes in traffic".to_owned(),
            bad => format!("{bad} of them with nodes out of traffic"),
        };
        writeln!(text, "and {more} more, {bad}: `rota status --env ENV`, or `rota status | less`")
            .expect("strings take everything");
    }
    text
}

fn care(all: &[CareView], page: &Page) -> String {
    if all.is_empty() {
        return "no node needs care\n".to_owned();
    }
    let mut table = Table::new(&["NEEDS CARE", "ENV", "WHAT"]);
    let listed = CARE_LISTED_MAX.min(room(page, 4));
    for care in all.iter().take(listed) {
        let hint = words::clean(&care.hint);
        let hint = match hint.as_str() {
            "" => String::new(),
            command if command.starts_with("rota ") => format!(": `{command}`"),
            words => format!("; {words}"),
        };
        table.row([
            Cell::toned(Tone::Warn, care.name.as_str()),
            Cell::from(care.env.as_str()),
            Cell::from(format!("{}{hint}", words::clean(&care.text))),
        ]);
    }
    let mut text = table.text(page.ink, page.columns);
    let more = all.len().saturating_sub(listed);
    if more > 0 {
        writeln!(text, "and {more} more: `rota node ls`").expect("strings take everything");
    }
    text
}

#[cfg(test)]
mod tests;
