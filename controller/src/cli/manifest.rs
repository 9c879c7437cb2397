//! Reading `rota.toml` for the commands that need one; its mistakes are all shown at once.

use std::path::{Path, PathBuf};

use rota_rollout::names::Version;

use super::desk::Desk;
use super::outcome::Failure;
use super::table::Ink;
use crate::manifest::{Manifest, Problems};

/// A manifest as it lies on this machine.
#[derive(Debug)]
pub struct Source {
    /// Its text, which the controller reads again.
    pub text: String,
    /// Its path as the operator wrote it, for errors.
    pub name: String,
    /// What paths in it are relative to.
    pub dir: PathBuf,
    /// What it says.
    pub manifest: Manifest,
}

/// Reads and checks a manifest.
pub fn read(desk: &Desk, file: &Path) -> Result<Source, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::usage(format!("cannot read the manifest {name}: {error}"))
            .hint("`-f FILE` names another one")
    })?;
    let ink = desk.talk.side_page().ink;
    let manifest = Manifest::parse(&text, &name).map_err(|found| problems(&found, ink))?;
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    Ok(Source { text, name, dir, manifest })
}

impl Source {
    /// Can a release of this version be made of it?
    pub fn fits(&self, desk: &Desk, version: &Version) -> Result<(), Failure> {
        let ink = desk.talk.side_page().ink;
        let found = self.manifest.fits(version, &self.text, &self.name);
        found.map_err(|found| problems(&found, ink))
    }
}

/// All problems: people get the pictures, programs the lines.
fn problems(found: &Problems, ink: Ink) -> Failure {
    let lines: Vec<String> = found.list().iter().map(ToString::to_string).collect();
    let first = lines.first().cloned().unwrap_or_default();
    let message = match lines.len() {
        0 | 1 => first,
        all => format!("{first} (and {} more)", all - 1),
    };
    let hint = found.hint().unwrap_or_default().to_owned();
    let picture = format!("{}\n", found.render(ink == Ink::Colour).trim_end());
    Failure {
        picture: Some(picture.into()),
        ..Failure::new("manifest", message).stands(lines).hint(hint)
    }
}
