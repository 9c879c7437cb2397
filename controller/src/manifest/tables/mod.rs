//! One file for each table of the manifest: from what is written to what is meant.

mod artifact;
mod compatibility;
mod health;
mod limits;
mod run;
mod smoke;
mod steps;
mod strategy;
mod target;
mod traffic;

pub(super) use health::DEADLINE as HEALTH_DEADLINE;

use rota_rollout::names::AppName;

use super::across;
use super::problem::Finding;
use super::read::Reader;
use super::resolved::Resolved;
use super::tree::Table;

/// Reads a whole manifest, its overrides already merged, and notes everything that is wrong.
/// `None` only when something was noted.
pub(super) fn read(root: &Table, reader: &mut Reader) -> Option<Resolved> {
    let app = app(root, reader);
    let artifact = artifact::read(root, reader);
    let run = run::read(root, reader);
    let health = health::read(root, reader);
    let traffic = traffic::read(root, reader);
    let smoke = smoke::read(root, reader);
    let hooks = steps::hooks(root, reader);
    let once = steps::once(root, reader);
    let strategy = strategy::read(root, reader);
    let target = target::read(root, reader);
    let compatibility = compatibility::read(root, reader);
    across::check(root, reader);
    if !reader.found.is_empty() {
        return None;
    }
    Some(Resolved {
        app: app?,
        artifact: artifact?,
        run: run?,
        health,
        traffic: traffic?,
        smoke,
        hooks,
        once,
        strategy,
        target,
        compatibility,
    })
}

fn app(root: &Table, reader: &mut Reader) -> Option<AppName> {
    match root.get("app") {
        Some(entry) => reader.parsed(entry),
        None => {
            let message = "`app` is missing: what is it called?";
            reader.note(
                Finding::at(0..0, "app".to_owned(), message)
                    .hint("begin the file with `app = \"shop\"`"),
            );
            None
        }
    }
}

/// Notes that a table is missing that every manifest needs.
fn missing_table(name: &str, example: &str, reader: &mut Reader) {
    reader.note(
        Finding::at(0..0, name.to_owned(), format!("the table [{name}] is missing"))
            .hint(format!("write [{name}], and below it `{example}`")),
    );
}
