//! `rota.toml` -> checked types, and errors that point at the line.
//!
//! The text becomes a tree that knows where everything stands (`tree`); the keys are compared with
//! the known ones (`keys`); an environment's overrides are merged in; then each table is read
//! (`tables`) and what they ask of each other is checked (`across`). Every mistake of the file is
//! collected on the way, so that an operator sees them all at once.

mod across;
mod changes;
mod compatibility;
mod duration;
mod keys;
mod problem;
mod read;
mod resolved;
mod syntax;
mod tables;
mod template;
mod tree;

#[cfg(test)]
mod bad;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use rota_rollout::names::{EnvName, Version};

pub use changes::changes;
pub use compatibility::{Compatibility, Fence};
pub use problem::{PROBLEMS_SHOWN_MAX, Problem, Problems};
pub use resolved::{
    Argv, Artifact, Body, Check, Driver, EnvFile, Health, Hooks, Limits, Needed, OnDrainTimeout,
    Once, Port, Resolved, Run, Scripts, Signal, Smoke, SmokeTest, Target, Traffic, Via,
};
pub use template::{BadTemplate, Piece, pieces, regex_pieces};

use problem::Finding;
use read::Reader;
use tree::{Entry, Table, Value};

/// The largest manifest, in bytes. Real ones have a few kilobytes; what is larger is another file.
pub const MANIFEST_BYTES_MAX: usize = 256 * 1024;

/// Environments with overrides. Each is checked in full, and nobody keeps more apart.
pub const ENVIRONMENTS_MAX: usize = 100;

/// A checked manifest, good in every environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    base: Resolved,
    overridden: BTreeMap<EnvName, Resolved>,
}

impl Manifest {
    /// Reads and checks a manifest: as it is, and with the overrides of each environment.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, Problems> {
        read(text).map_err(|found| Problems::new(file_name, text, found))
    }

    /// Can a release of this version be made of it? A requirement needs a version that can be compared with others'.
    pub fn fits(&self, version: &Version, text: &str, file_name: &str) -> Result<(), Problems> {
        let found: Vec<Finding> = match (compatibility::semantic(version), syntax::parse(text)) {
            (None, Ok((root, _))) => fences(&root)
                .filter(|fence| fence.text().is_some())
                .map(|fence| {
                    let message = format!("`rollback_to` asks for versions, and {version} is none");
                    Finding::value(fence, message)
                        .hint("use semantic versions such as 1.2.3, or a schema's number here")
                })
                .collect(),
            (_, _) => Vec::new(),
        };
        if found.is_empty() { Ok(()) } else { Err(Problems::new(file_name, text, found)) }
    }

    /// The line of the fence that holds in this environment.
    pub fn fence_line(text: &str, env: &EnvName) -> Option<usize> {
        let (root, _) = syntax::parse(text).ok()?;
        let there = |table: &Table| table.table("compatibility")?.get("rollback_to").cloned();
        let own = root.table("env").and_then(|envs| there(envs.table(env.as_str())?));
        let at = own.or_else(|| there(&root))?.key.start;
        Some(text.as_bytes()[..at.min(text.len())].iter().filter(|c| **c == b'\n').count() + 1)
    }

    /// What holds in this environment.
    pub fn resolve(&self, env: &EnvName) -> Resolved {
        self.overridden.get(env).unwrap_or(&self.base).clone()
    }

    /// What holds where nothing is overridden.
    pub fn base(&self) -> &Resolved {
        &self.base
    }

    /// The environments that override something.
    pub fn environments(&self) -> impl Iterator<Item = &EnvName> {
        self.overridden.keys()
    }

    /// May `other` be pushed under the version of this one? Everything but `[strategy]` and
    /// `[target]` must be the same in every environment; says which table is not.
    pub fn same_release(&self, other: &Self) -> Result<(), String> {
        if let Some(table) = different_table(&self.base, &other.base) {
            return Err(format!("[{table}] differs"));
        }
        for env in self.environments().chain(other.environments()) {
            if let Some(table) = different_table(&self.resolve(env), &other.resolve(env)) {
                return Err(format!("[{table}] differs in environment `{env}`"));
            }
        }
        Ok(())
    }
}

/// The first table, besides strategy and target, in which two manifests differ.
fn different_table(one: &Resolved, two: &Resolved) -> Option<&'static str> {
    let Resolved { app, artifact, run, health, traffic, smoke, hooks, once, compatibility, .. } =
        one;
    [
        ("app", *app == two.app),
        ("artifact", *artifact == two.artifact),
        ("run", *run == two.run),
        ("health", *health == two.health),
        ("traffic", *traffic == two.traffic),
        ("smoke", *smoke == two.smoke),
        ("hooks", *hooks == two.hooks),
        ("once", *once == two.once),
        ("compatibility", *compatibility == two.compatibility),
    ]
    .into_iter()
    .find_map(|(table, same)| (!same).then_some(table))
}

fn read(text: &str) -> Result<Manifest, Vec<Finding>> {
    if text.len() > MANIFEST_BYTES_MAX {
        let message = format!(
            "the file has {} bytes, and a manifest at most {MANIFEST_BYTES_MAX}",
            text.len()
        );
        return Err(vec![
            Finding::at(0..0, String::new(), message).hint("is this the right file?"),
        ]);
    }
    let (root, syntax) = syntax::parse(text)?;
    let mut found = keys::check(&root);
    let mut reader = Reader::default();
    let base = tables::read(&root, &mut reader);
    let of_base = reader.found;
    if of_base.len() > PROBLEMS_SHOWN_MAX {
        // Nobody would read what else is wrong in some environment.
        found.extend(of_base);
        return Err(found);
    }
    let mut overridden = BTreeMap::new();
    for (entry, name, table) in environments(&root, &mut found) {
        let mut reader = Reader::default();
        let resolved = tables::read(&root.overridden(table), &mut reader);
        found.extend(only_there(reader.found, &of_base, entry));
        overridden.extend(name.zip(resolved));
    }
    found.extend(of_base);
    found.retain(|finding| syntax.iter().all(|other| other.at.start != finding.at.start));
    found.extend(syntax);
    match base {
        Some(base) if found.is_empty() => Ok(Manifest { base, overridden }),
        _ => Err(found),
    }
}

/// Every `rollback_to`, those of environments too.
fn fences(root: &Table) -> impl Iterator<Item = &Entry> {
    fn of(table: &Table) -> Option<&Entry> {
        table.table("compatibility")?.get("rollback_to")
    }
    let envs = root.table("env").into_iter().flat_map(|envs| envs.0.values());
    std::iter::once(root).chain(envs.filter_map(Entry::table)).filter_map(of)
}

/// The environments with overrides, the names of which are checked here.
fn environments<'t>(
    root: &'t Table,
    found: &mut Vec<Finding>,
) -> Vec<(&'t Entry, Option<EnvName>, &'t Table)> {
    let Some(envs) = root.table("env") else { return Vec::new() };
    if envs.0.len() > ENVIRONMENTS_MAX
        && let Some(entry) = root.get("env")
    {
        let message = format!("{} environments, and the limit is {ENVIRONMENTS_MAX}", envs.0.len());
        found.push(Finding::key(entry, message).hint("use one manifest for each group"));
        return Vec::new();
    }
    let mut list = Vec::new();
    for (name, entry) in &envs.0 {
        let Value::Table(table) = &entry.value else { continue };
        let name = match name.parse() {
            Ok(name) => Some(name),
            Err(bad) => {
                let bad: rota_rollout::names::BadName = bad;
                let message = format!("`{name}` is not {}", bad.what);
                found.push(Finding::key(entry, message).hint(bad.rule));
                None
            }
        };
        list.push((entry, name, table));
    }
    list
}

/// What is wrong with an environment besides what is wrong everywhere.
fn only_there(found: Vec<Finding>, of_base: &[Finding], env: &Entry) -> Vec<Finding> {
    found
        .into_iter()
        .filter(|finding| !of_base.contains(finding))
        .map(|finding| {
            let by_itself = finding.field.starts_with("env.");
            let message = if by_itself {
                finding.message
            } else {
                format!("{} (in environment `{}`)", finding.message, env.name())
            };
            Finding { message, ..finding }
        })
        .collect()
}
