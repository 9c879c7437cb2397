//! The list of documents, which is a document itself: what `GET /api/v1` answers, and what docs/api.md says.

use serde::Serialize;

/// A document: its path without `/api/v1/`, with names in capitals, and what it shows.
#[derive(Debug, Serialize)]
pub struct Listed {
    path: &'static str,
    shows: &'static str,
}

/// All of them, in the order of the router.
pub fn documents() -> Vec<Listed> {
    DOCUMENTS.iter().map(|(path, shows)| Listed { path, shows }).collect()
}

const DOCUMENTS: [(&str, &str); 24] = [
    ("/api/v1", "this list"),
    ("/api/v1/status", "everything at a glance"),
    ("/api/v1/nodes", "the nodes and what runs there"),
    ("/api/v1/nodes/NODE", "one node"),
    ("/api/v1/edges", "the edges and the pools that they serve"),
    ("/api/v1/pools", "the pools with their members"),
    ("/api/v1/pools/POOL", "one pool"),
    ("/api/v1/releases", "the releases of all apps"),
    ("/api/v1/releases/APP", "the releases of one app"),
    ("/api/v1/releases/APP/VERSION", "one release with its manifest"),
    ("/api/v1/releases/APP/VERSION/files", "the files of a release"),
    ("/api/v1/rollouts", "the newest rollouts"),
    ("/api/v1/rollouts/APP/ENV", "the newest rollout of an app in an environment"),
    ("/api/v1/rollouts/APP/ENV/REVISION", "one rollout"),
    ("/api/v1/rollouts/APP/ENV/REVISION/traces", "what every attempt did and printed"),
    ("/api/v1/rollouts/APP/ENV/REVISION/traces/NODE", "the same of one node"),
    ("/api/v1/rollouts/APP/ENV/REVISION/events", "the events of one rollout"),
    ("/api/v1/history/APP/ENV", "all rollouts of an app in an environment, a line each"),
    ("/api/v1/drains/NODE", "how far a node is out of traffic"),
    ("/api/v1/controllers", "the controllers"),
    ("/api/v1/envs", "the environments, their freezes and windows"),
    ("/api/v1/events", "the newest events"),
    ("/api/v1/tokens", "the tokens; only for the `rota` command"),
    ("/api/v1/audit", "who changed what; only for the `rota` command"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The arms of the router, as paths: `["nodes", node]` is `/api/v1/nodes/NODE`.
    fn routed() -> BTreeSet<String> {
        let code = include_str!("mod.rs");
        let arms = code.lines().filter_map(|line| {
            let (arm, _) = line.trim_start().strip_prefix('[')?.split_once("] =>")?;
            let part = |part: &str| match part.trim().strip_prefix('"') {
                Some(word) => word.trim_end_matches('"').to_owned(),
                None => part.trim().to_uppercase(),
            };
            let path: Vec<String> = arm.split(',').map(part).collect();
            Some(format!("/api/v1/{}", path.join("/")).trim_end_matches('/').to_owned())
        });
        arms.collect()
    }

    #[test]
    fn the_list_and_the_page_name_what_the_router_knows() {
        let listed: BTreeSet<String> =
            DOCUMENTS.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(listed, routed());
        let page = include_str!("../../../docs/api.md");
        let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
        let told: BTreeSet<String> = rows
            .filter_map(|row| row.split_once('`'))
            .map(|(path, _)| path.to_owned())
            .filter(|path| path.starts_with("/api/v1"))
            .collect();
        assert_eq!(listed, told);
    }
}
