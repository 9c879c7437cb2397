//! What is wanted of each member of a pool, on the edge's disk: a load balancer that is not ours forgets it when it
//! restarts, and an agent that restarts must not believe what it finds there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Change, Key, Want};
use crate::journal::{Journal, JournalError};

/// The name of the record.
const RECORD: &str = "members";

/// The members of one pool. Every change is on disk before the load balancer hears of it.
#[derive(Debug)]
pub struct Book {
    journal: Journal,
    members: BTreeMap<Key, Wanted>,
}

/// What is wanted of one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Where the app is reached.
    pub address: SocketAddr,
    /// In or out; `Gone` until the load balancer has forgotten it.
    pub want: Want,
    /// What runs there, for people.
    pub version: String,
    /// Requests ended by us since it last joined.
    pub cut: u64,
    /// Its server in each process of the load balancer, by the process's socket.
    #[serde(default)]
    pub servers: BTreeMap<String, Name>,
}

/// Under which name a process of the load balancer knows a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The name.
    pub name: String,
    /// It is not in the operator's configuration: we added it, and take it away again.
    pub added: bool,
}

/// A member as it is written: JSON has no keys with parts.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    node: String,
    instance: String,
    #[serde(flatten)]
    wanted: Wanted,
}

impl Book {
    /// Reads what was wanted before the agent started. A damaged record counts as none: every node repeats what it
    /// wants of its members as soon as it is connected.
    pub async fn open(folder: &Path) -> Result<Self, JournalError> {
        let journal = Journal::open(folder)?;
        let lines: Vec<Line> = match journal.get(RECORD).await {
            Ok(lines) => lines.unwrap_or_default(),
            Err(error @ (JournalError::Corrupt { .. } | JournalError::Foreign { .. })) => {
                tracing::warn!("{error}: the nodes will repeat what they want");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        let members = lines.into_iter().map(|line| {
            let Line { node, instance, wanted } = line;
            (Key { node, instance }, wanted)
        });
        Ok(Self { journal, members: members.collect() })
    }

    /// Everyone.
    pub fn members(&self) -> &BTreeMap<Key, Wanted> {
        &self.members
    }

    /// Notes a change; it is durable when this returns. What fails leaves the book as it was.
    pub async fn take(&mut self, change: &Change) -> Result<(), JournalError> {
        let old = self.members.get(&change.key);
        let joins = change.want == Want::In && old.is_none_or(|old| old.want != Want::In);
        let new = Wanted {
            address: change.address,
            want: change.want,
            version: change.version.clone(),
            cut: old.filter(|_| !joins).map_or(0, |old| old.cut),
            servers: old.map(|old| old.servers.clone()).unwrap_or_default(),
        };
        if old.is_none() && change.want == Want::Gone || old == Some(&new) {
            return Ok(());
        }
        let mut members = self.members.clone();
        members.insert(change.key.clone(), new);
        self.replace(members).await
    }

    /// Replaces everyone, durably.
    pub async fn replace(&mut self, members: BTreeMap<Key, Wanted>) -> Result<(), JournalError> {
        if members == self.members {
            return Ok(());
        }
        let line = |(key, wanted): (&Key, &Wanted)| {
            let Key { node, instance } = key.clone();
            Line { node, instance, wanted: wanted.clone() }
        };
        let lines: Vec<Line> = members.iter().map(line).collect();
        self.journal.put(RECORD, &lines).await?;
        self.members = members;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(want: Want) -> Change {
        Change {
            key: Key { node: "web-01".to_owned(), instance: String::new() },
            address: "10.0.0.1:9000".parse().expect("an address"),
            want,
            cut: false,
            health_path: None,
            version: "1.0.0".to_owned(),
        }
    }

    #[tokio::test]
    async fn it_is_read_back_and_counts_cuts_from_the_last_join_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut book = Book::open(folder.path()).await.expect("a book");
        book.take(&change(Want::Gone)).await.expect("nobody is forgotten");
        assert!(book.members().is_empty());
        for (want, cut_after) in [(Want::In, 0), (Want::Out, 3), (Want::Out, 3), (Want::In, 0)] {
            book.take(&change(want)).await.expect("noted");
            let mut members = book.members().clone();
            for wanted in members.values_mut() {
                wanted.cut = wanted.cut.max(cut_after);
            }
            book.replace(members).await.expect("noted");
            let again = Book::open(folder.path()).await.expect("a book");
            assert_eq!(again.members(), book.members());
            assert_eq!(book.members().values().map(|it| it.cut).sum::<u64>(), cut_after);
        }
    }
}
