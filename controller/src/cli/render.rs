//! Lists and single things as text: documents of the contract in, columns out. Pure.

use std::fmt::Write as _;

use super::table::{Cell, Table, Tone, tone_of, wrap};
use super::talk::Page;
use super::{window, words};
use crate::view::{
    AppView, AuditView, ControllerView, EdgeView, EnvView, EventView, HistoryEntry, MemberView,
    NodeView, PoolView, ReleaseView, RolloutView, TokenView,
};

mod plan;
mod rollout;

pub use plan::{plan, warning};
pub use rollout::{rollout, rollout_in_full, rollouts};

/// A list of the contract: how it is drawn, and what is said where it is empty. The table is data, the sentence talk.
pub struct List<T> {
    /// The table.
    pub draw: fn(&[T], &Page) -> String,
    /// The sentence.
    pub nothing: &'static str,
}

/// `rota node ls`.
pub const NODES: List<NodeView> = List {
    draw: nodes,
    nothing: "no node has joined yet: `rota token create --for agent` invites one",
};

/// `rota edge ls`.
pub const EDGES: List<EdgeView> = List {
    draw: edges,
    nothing: "no edge has joined yet: `rota token create --for edge` invites one",
};

/// `rota pool ls`.
pub const POOLS: List<PoolView> =
    List { draw: pools, nothing: "no pool is served yet: an agent with --edge serves one" };

/// `rota env ls`.
pub const ENVS: List<EnvView> =
    List { draw: envs, nothing: "there is no environment yet: the first node brings its own" };

/// `rota controller ls`.
pub const CONTROLLERS: List<ControllerView> =
    List { draw: controllers, nothing: "no controller is known" };

/// `rota token ls`.
pub const TOKENS: List<TokenView> =
    List { draw: tokens, nothing: "no token can be used now: `rota token create` makes one" };

/// `rota release ls`.
pub const RELEASES: List<ReleaseView> =
    List { draw: releases, nothing: "there is no release: `rota release push` makes one" };

/// `rota audit`.
pub const AUDIT: List<AuditView> = List { draw: audit, nothing: "nothing was changed yet" };

/// `rota rollout ls`.
pub const ROLLOUTS: List<RolloutView> =
    List { draw: rollouts, nothing: "there is no rollout: `rota deploy` starts one" };

/// `rota rollout history`.
pub const HISTORY: List<HistoryEntry> =
    List { draw: rollout::history, nothing: "nothing was rolled out here yet" };

/// A table inside of a document, or a sentence where it is empty.
fn listing(table: &Table, page: &Page, nothing: &str) -> String {
    if table.is_empty() { format!("{nothing}\n") } else { table.text(page.ink, page.columns) }
}

/// `label: value` lines; the labels are aligned.
fn facts(page: &Page, facts: &[(&str, String)]) -> String {
    let shown = facts.iter().filter(|(_, value)| !value.is_empty());
    let pad = shown.clone().map(|(label, _)| label.len() + 1).max().unwrap_or(0);
    let mut text = String::new();
    for (label, value) in shown {
        let label = page.ink.paint(Tone::Dim, &format!("{:pad$}", format!("{label}:")));
        let lines = folded(value, page.columns.map(|columns| columns.saturating_sub(pad + 2)));
        let between = format!("\n{}", " ".repeat(pad + 2));
        writeln!(text, "{label}  {}", lines.join(&between)).expect("strings take everything");
    }
    text
}

/// A text as lines that fit.
fn folded(text: &str, columns: Option<usize>) -> Vec<String> {
    let Some(columns) = columns else { return vec![text.to_owned()] };
    wrap(text, columns.max(10)).lines().map(|line| line.trim_start().to_owned()).collect()
}

fn foreign(text: &str) -> Cell {
    Cell::from(words::clean(text))
}

fn nodes(nodes: &[NodeView], page: &Page) -> String {
    let mut table = Table::new(&["NAME", "ENV", "STATE", "SEEN", "AGENT", "ROLES", "RUNS"])
        .sparing(&["AGENT", "ROLES"]);
    for node in nodes {
        let runs: Vec<String> = node.apps.iter().map(app_in_words).collect();
        table.row([
            Cell::from(node.name.as_str()),
            Cell::from(node.env.as_str()),
            Cell::state(&node.state),
            seen(node.last_seen.as_deref(), page),
            Cell::or_dash(Some(&node.version)),
            Cell::or_dash(Some(&node.roles.join(","))),
            Cell::or_dash(Some(&runs.join(", "))),
        ]);
    }
    table.text(page.ink, page.columns)
}

fn seen(time: Option<&str>, page: &Page) -> Cell {
    match time {
        Some(time) => Cell::from(words::ago(time, page.now)),
        None => Cell::toned(Tone::Dim, "never"),
    }
}

/// `shop 1.1.0`, and whatever is not as it should be.
fn app_in_words(app: &AppView) -> String {
    let mut text = format!("{} {}", app.app, app.release);
    if app.health != "healthy" {
        write!(text, " {}", app.health).expect("strings take everything");
    }
    match app.traffic.as_str() {
        "in" => {}
        "out" => text.push_str(" out of traffic"),
        other => write!(text, " {other}").expect("strings take everything"),
    }
    text
}

/// `rota node inspect`.
pub fn node(node: &NodeView, page: &Page) -> String {
    let labels: Vec<String> = node.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let seen = node.last_seen.as_deref();
    let mut text = facts(
        page,
        &[
            ("node", node.name.clone()),
            ("environment", node.env.clone()),
            ("state", page.ink.paint(tone_of(&node.state), &node.state)),
            ("last seen", seen.map_or("never".to_owned(), |seen| words::ago(seen, page.now))),
            ("agent", node.version.clone()),
            ("roles", node.roles.join(", ")),
            ("labels", labels.join(", ")),
        ],
    );
    let mut table = Table::new(&["APP", "RELEASE", "HEALTH", "TRAFFIC"]);
    for app in &node.apps {
        table.row([
            Cell::from(app.app.as_str()),
            Cell::from(app.release.as_str()),
            Cell::state(&app.health),
            Cell::state(&app.traffic),
        ]);
    }
    text.push('\n');
    text.push_str(&listing(&table, page, "nothing runs here"));
    text
}

fn edges(edges: &[EdgeView], page: &Page) -> String {
    let mut table = Table::new(&["NAME", "ENV", "STATE", "SEEN", "AGENT", "ADDRESS", "POOLS"]);
    for edge in edges {
        table.row([
            Cell::from(edge.name.as_str()),
            Cell::from(edge.env.as_str()),
            Cell::state(&edge.state),
            seen(edge.last_seen.as_deref(), page),
            Cell::or_dash(Some(&edge.version)),
            Cell::or_dash(Some(&edge.address)),
            Cell::or_dash(Some(&edge.pools.join(", "))),
        ]);
    }
    table.text(page.ink, page.columns)
}

fn pools(pools: &[PoolView], page: &Page) -> String {
    let heads = ["POOL", "ENV", "EDGES", ">IN", ">OF", ">REQUESTS", ">FAILED", ">CUT"];
    let mut table = Table::new(&heads);
    for pool in pools {
        let into = pool.members.iter().filter(|member| member.state == "in").count();
        table.row([
            Cell::from(pool.pool.as_str()),
            Cell::from(pool.env.as_str()),
            Cell::or_dash(Some(&pool.edges.join(","))),
            Cell::from(into.to_string()),
            Cell::from(pool.members.len().to_string()),
            Cell::from(words::thousands(pool.requests)),
            alarming(pool.failed),
            alarming(pool.cut),
        ]);
    }
    table.text(page.ink, page.columns)
}

fn alarming(count: u64) -> Cell {
    let tone = if count > 0 { Tone::Warn } else { Tone::Plain };
    Cell::toned(tone, words::thousands(count))
}

/// `rota pool inspect`.
pub fn pool(pool: &PoolView, page: &Page) -> String {
    let counts = format!(
        "{}, {} failed, {} cut",
        words::count(pool.requests, "request"),
        words::thousands(pool.failed),
        words::thousands(pool.cut)
    );
    let mut text = facts(
        page,
        &[
            ("pool", pool.pool.clone()),
            ("environment", pool.env.clone()),
            ("edges", pool.edges.join(", ")),
            ("served", counts),
        ],
    );
    let mut table = Table::new(&["NODE", "EDGE", "STATE", ">IN FLIGHT", "VERSION", "ADDRESS"]);
    for MemberView { node, edge, address, state, in_flight, version } in &pool.members {
        table.row([
            Cell::from(node.as_str()),
            Cell::from(edge.as_str()),
            Cell::state(state),
            Cell::from(words::thousands(*in_flight)),
            Cell::or_dash(Some(version)),
            Cell::from(address.as_str()),
        ]);
    }
    text.push('\n');
    text.push_str(&listing(&table, page, "it has no members"));
    text
}

fn envs(envs: &[EnvView], page: &Page) -> String {
    let mut table = Table::new(&["ENV", ">NODES", "STATE", "UNTIL", "BY", "WHY"]);
    for env in envs {
        let frozen = env.frozen.as_ref();
        let until = match frozen.map(|freeze| &freeze.until) {
            Some(Some(until)) => Some(words::date(until)),
            Some(None) => Some("unfrozen by hand".to_owned()),
            None => env.changes_at.as_ref().map(|_| words::clean(&env.changes)),
        };
        table.row([
            Cell::from(env.env.as_str()),
            Cell::from(env.nodes.to_string()),
            match frozen {
                Some(_) => Cell::toned(Tone::Warn, "frozen"),
                None => window::state(env.open),
            },
            Cell::or_dash(until.as_deref()),
            Cell::or_dash(frozen.map(|freeze| freeze.who.as_str())),
            foreign(frozen.map_or("", |freeze| &freeze.message)),
        ]);
    }
    let mut text = table.text(page.ink, page.columns);
    for env in envs.iter().filter(|env| !env.windows.is_empty()) {
        writeln!(text, "\n{} {}", env.env, window::standing(env, page))
            .expect("strings take everything");
        for window in &env.windows {
            writeln!(text, "  window {}: {}", window.number, words::clean(&window.window))
                .expect("strings take everything");
        }
    }
    text
}

fn controllers(controllers: &[ControllerView], page: &Page) -> String {
    let mut table = Table::new(&["NAME", "STATE", "VERSION", "ROLLOUTS"]);
    for controller in controllers {
        table.row([
            Cell::from(controller.name.as_str()),
            Cell::state(&controller.state),
            Cell::or_dash(Some(&controller.version)),
            Cell::or_dash(Some(&controller.rollouts.join(", "))),
        ]);
    }
    table.text(page.ink, page.columns)
}

fn tokens(tokens: &[TokenView], page: &Page) -> String {
    let mut table = Table::new(&["ID", "FOR", "ROLE", "NAME", ">USES LEFT", "ENDS"]);
    for token in tokens {
        table.row([
            Cell::from(token.id.as_str()),
            Cell::from(token.kind.as_str()),
            Cell::or_dash(token.role.as_deref()),
            Cell::or_dash(token.name.as_deref()),
            Cell::from(token.uses_left.to_string()),
            Cell::from(words::until(&token.expires_at, page.now)),
        ]);
    }
    table.text(page.ink, page.columns)
}

fn releases(releases: &[ReleaseView], page: &Page) -> String {
    let mut table =
        Table::new(&["APP", "VERSION", "DIGEST", ">SIZE", "PUSHED", "BY", "CURRENT IN"])
            .sparing(&["BY", "PUSHED"]);
    for release in releases {
        table.row([
            Cell::from(release.app.as_str()),
            Cell::from(release.version.as_str()),
            Cell::from(short(&release.digest)),
            Cell::from(words::bytes(release.size)),
            Cell::from(words::ago(&release.created_at, page.now)),
            Cell::or_dash(Some(&release.who)),
            Cell::or_dash(Some(&release.current_in.join(", "))),
        ]);
    }
    table.text(page.ink, page.columns)
}

/// The first digits of a digest, as on the nodes.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// `rota release inspect`, before the manifest.
pub fn release(release: &ReleaseView, page: &Page) -> String {
    facts(
        page,
        &[
            ("release", format!("{} {}", release.app, release.version)),
            ("digest", release.digest.clone()),
            ("size", words::bytes(release.size)),
            ("pushed", format!("{} by {}", words::date(&release.created_at), release.who)),
            ("current in", release.current_in.join(", ")),
        ],
    )
}

/// One event in one line.
pub fn event(event: &EventView, page: &Page) -> String {
    let at = page.ink.paint(Tone::Dim, &words::date(&event.at));
    let about = match (&event.rollout, &event.app, &event.env) {
        (Some(rollout), _, _) => rollout.clone(),
        (None, Some(app), Some(env)) => format!("{app}/{env}"),
        (None, app, env) => app.as_ref().or(env.as_ref()).cloned().unwrap_or_default(),
    };
    let about = if about.is_empty() { event.kind.clone() } else { about };
    let node = event.node.as_ref().map_or(String::new(), |node| format!("  {node}"));
    format!("{at}  {about}{node}  {}\n", words::clean(&event.text))
}

fn audit(entries: &[AuditView], page: &Page) -> String {
    let mut table =
        Table::new(&["AT", "WHO", "FROM", "DID", "TO", "RESULT", "WHY"]).sparing(&["FROM"]);
    for entry in entries {
        let tone = if entry.result == "done" { Tone::Plain } else { Tone::Warn };
        let who = words::clean(&entry.who);
        // Where there is little room: most are operators.
        let who = match page.columns {
            Some(_) => who.strip_prefix("operator ").unwrap_or(&who),
            None => &who,
        };
        table.row([
            Cell::from(words::date(&entry.at)),
            Cell::from(who),
            Cell::from(words::clean(&entry.peer)),
            Cell::from(words::clean(&entry.what)),
            Cell::from(words::clean(&entry.target)),
            Cell::toned(tone, words::clean(&entry.result)),
            foreign(&entry.message),
        ]);
    }
    table.text(page.ink, page.columns)
}

#[cfg(test)]
mod tests;
