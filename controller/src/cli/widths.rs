//! Every screen on every terminal: no line is longer than it is wide, and colours say nothing that the words do not.

use super::live::{Frame, block};
use super::render;
use super::sample::{broken, held, node, now, pipe, rollout, with_nodes};
use super::table::{Ink, uncoloured, width};
use super::talk::Page;
use super::watch::Watch;
use crate::view::{NodeProgress, NodeView, RolloutView};
use rota_rollout::names::Span;

const COLUMNS: [usize; 4] = [40, 60, 80, 120];

/// As long as a name may be.
fn long(number: usize) -> String {
    format!("{}-{number:04}", "a-very-long-name-of-a-web-server-in-the-north-of-eu-west-a1")
}

fn thousand() -> RolloutView {
    let nodes = (1..=1000).map(|number| match number {
        7 | 8 => broken(&format!("web-{number:04} restored"), "smoke: 500", "a\nb"),
        9 => broken(&format!("{} failed", long(9)), &"an endless story ".repeat(9), ""),
        10..=60 => node(&format!("web-{number:04} updating drain")),
        61..=90 => node(&format!("web-{number:04} updating health")),
        91..=600 => node(&format!("web-{number:04} done")),
        _ => node(&format!("web-{number:04} pending")),
    });
    with_nodes("rolling", nodes.collect::<Vec<NodeProgress>>())
}

fn samples() -> Vec<(&'static str, RolloutView)> {
    let few = ["web-01 done", "web-02 updating drain", "web-03 updating smoke", "web-04 pending"];
    let mut names = rollout("rolling", &["a done"]);
    names.nodes = (1..=4).map(|n| node(&format!("{} updating drain", long(n)))).collect();
    names.id = format!("{0}/{0}/14", &long(1)[..30]);
    let hold = "2 nodes are out of traffic (web-01, web-02) and the limit is 2";
    let hint = "it goes on when they serve again: `rota status` shows why they do not";
    vec![
        ("few nodes", rollout("rolling", &few)),
        ("waits", held(rollout("held", &few), "capacity", hold, hint)),
        ("long names", names),
        ("a thousand nodes", thousand()),
    ]
}

fn screens(view: &RolloutView, size: (usize, usize), ink: Ink) -> Vec<(&'static str, String)> {
    let page = Page { ink, columns: Some(size.0), rows: Some(size.1), ..pipe() };
    let mut watch = Watch::new(Span::seconds(30));
    watch.see(now(), view.clone());
    let frame =
        Frame { size, ink, at: now(), began: now(), notice: "connection lost: broken pipe" };
    let nodes: Vec<NodeView> = view
        .nodes
        .iter()
        .take(9)
        .map(|node| NodeView {
            name: node.name.clone(),
            env: "prod".to_owned(),
            roles: vec!["web".to_owned()],
            labels: [("zone".to_owned(), "a".to_owned())].into(),
            state: "ready".to_owned(),
            version: "0.1.0".to_owned(),
            apps: Vec::new(),
            last_seen: None,
        })
        .collect();
    vec![
        ("progress", block(&watch, frame).join("\n")),
        ("rollout status", render::rollout(view, &page)),
        ("rollout ls", render::rollouts(std::slice::from_ref(view), &page)),
        ("node ls", (render::NODES.draw)(&nodes, &page)),
    ]
}

#[test]
fn no_line_is_longer_than_the_terminal() {
    for (name, view) in samples() {
        for columns in COLUMNS {
            for (screen, text) in screens(&view, (columns, 24), Ink::Plain) {
                for line in text.lines() {
                    let told = format!("{screen} of {name} at {columns}: {line}\n\n{text}");
                    // A word that is too long stays whole: nobody could copy it otherwise.
                    let one_word = line.split_whitespace().count() == 2 && line.contains(": ");
                    assert!(width(line) <= columns || one_word, "{told}");
                }
            }
        }
    }
}

#[test]
fn colours_add_nothing_but_colour() {
    for (name, view) in samples() {
        for columns in COLUMNS {
            let plain = screens(&view, (columns, 24), Ink::Plain);
            let coloured = screens(&view, (columns, 24), Ink::Colour);
            for ((screen, plain), (_, coloured)) in plain.iter().zip(&coloured) {
                let same = |text: &str| -> Vec<String> {
                    text.lines().map(|line| line.trim_end().to_owned()).collect()
                };
                let told = format!("{screen} of {name} at {columns}");
                assert_eq!(same(&uncoloured(coloured)), same(plain), "{told}");
            }
        }
    }
}

/// The page `docs/messages/progress.md`: what a terminal of 80 columns shows, and of 40.
#[test]
fn the_page_of_progress() {
    let mut text = String::from(
        "# Progress\n\nWhat a terminal shows while a rollout is followed, redrawn in place; \
         elsewhere there is a line for each event\n(see [deploy.md](deploy.md)). Written by a \
         test: `ROTA_BLESS=1 cargo test -p rota --lib widths`.\n",
    );
    for (name, view) in samples() {
        for columns in [80, 40] {
            let screen = &screens(&view, (columns, 24), Ink::Plain)[0].1;
            let lines: String = screen
                .lines()
                .map(|line| format!("    {line}").trim_end().to_owned() + "\n")
                .collect();
            text.push_str(&format!("\n## {name}, {columns} columns\n\n{lines}"));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/messages/progress.md");
    if std::env::var_os("ROTA_BLESS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), text, "ROTA_BLESS=1 writes it anew");
}
