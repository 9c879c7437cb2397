//! The addresses of the controllers: from the settings, and as learned, kept over restarts.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// The form of `controllers.json`.
const FORM: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Book {
    v: u32,
    controllers: Vec<String>,
}

fn place(data: &Path) -> PathBuf {
    data.join("controllers.json")
}

/// All addresses to hold sessions with. The settings' stay in the list: when all learned ones have
/// moved, one of them is the way back. Two addresses of one controller share one session.
pub(super) fn targets(seeds: &[String], learned: &[String]) -> Vec<String> {
    let mut all = learned.to_vec();
    all.extend(seeds.iter().filter(|seed| !learned.contains(seed)).cloned());
    all
}

/// The learned addresses. A file that cannot be used costs only the detour by the seeds.
pub(super) fn load(data: &Path) -> Vec<String> {
    let path = place(data);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            warn!("cannot read {}: {error}; asking the controllers again", path.display());
            return Vec::new();
        }
    };
    match serde_json::from_str::<Book>(&text) {
        Ok(book) if book.v == FORM => book.controllers,
        Ok(book) => {
            warn!("{} has the form {}; asking the controllers again", path.display(), book.v);
            Vec::new()
        }
        Err(error) => {
            warn!("{} is damaged: {error}; asking the controllers again", path.display());
            Vec::new()
        }
    }
}

/// Keeps the learned addresses: the whole list or the one before. Not synced, because losing it
/// only costs the detour by the seeds.
pub(super) fn save(data: &Path, learned: &[String]) -> io::Result<()> {
    let book = Book { v: FORM, controllers: learned.to_vec() };
    let path = place(data);
    let fresh = path.with_extension("json.new");
    let mut file = fs::File::create(&fresh)?;
    serde_json::to_writer_pretty(&mut file, &book)?;
    file.write_all(b"\n")?;
    fs::rename(&fresh, &path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_and_a_damaged_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(load(folder.path()).is_empty());
        let learned = ["c1:7400".to_owned(), "c2:7400".to_owned()];
        save(folder.path(), &learned).unwrap();
        assert_eq!(load(folder.path()), learned);
        for text in ["{", "{\"v\":2,\"controllers\":[]}", "[]"] {
            fs::write(place(folder.path()), text).unwrap();
            assert!(load(folder.path()).is_empty(), "{text}");
        }
    }

    #[test]
    fn the_settings_addresses_stay_in_the_list() {
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        for (seeds, learned, all) in [
            (list(&["a:1"]), list(&[]), list(&["a:1"])),
            (list(&["a:1"]), list(&["b:1", "a:1"]), list(&["b:1", "a:1"])),
            (list(&["a:1"]), list(&["b:1"]), list(&["b:1", "a:1"])),
        ] {
            assert_eq!(targets(&seeds, &learned), all);
        }
    }
}
