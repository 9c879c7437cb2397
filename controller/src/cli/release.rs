//! `rota release`: immutable versions of an app.

use std::path::PathBuf;

use clap::Subcommand;
use rota_proto::operator::{RemoveRelease, change};
use rota_rollout::names::{AppName, Version};
use serde::Deserialize;

use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::talk::{self, Page};
use super::{deploy, render};
use crate::view::ReleaseView;

/// Push, list and remove releases
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// Pack the artifact and make a release of it, without starting a rollout
    #[command(after_help = "Examples:\n  rota release push --version 1.1.0\n  \
                            rota release push -f shop/rota.toml --version 1.1.0")]
    Push {
        /// The manifest
        #[arg(short, long, default_value = "rota.toml")]
        file: PathBuf,
        /// The app's version
        #[arg(long)]
        version: Version,
    },
    /// List releases
    #[command(after_help = "Examples:\n  rota release ls\n  rota release ls shop")]
    Ls {
        /// Only of this app
        app: Option<AppName>,
    },
    /// Show a release and its manifest
    #[command(after_help = "Examples:\n  rota release inspect shop 1.1.0")]
    Inspect {
        /// The app
        app: AppName,
        /// The version
        version: Version,
    },
    /// Remove a release that no environment uses
    #[command(after_help = "Examples:\n  rota release rm shop 1.0.1 --yes")]
    Rm {
        /// The app
        app: AppName,
        /// The version
        version: Version,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

/// A release as `releases/APP/VERSION` has it.
#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(flatten)]
    release: ReleaseView,
    /// The text of its manifest, where the controller sends it.
    #[serde(default)]
    manifest: Option<String>,
}

/// Carries out `rota release`.
pub async fn run(desk: &Desk, command: ReleaseCommand) -> Result<Exit, Failure> {
    match command {
        ReleaseCommand::Push { file, version } => push(desk, file, version).await,
        ReleaseCommand::Ls { app } => {
            let path = app.map_or("releases".to_owned(), |app| format!("releases/{app}"));
            desk.list(&path, &render::RELEASES).await
        }
        ReleaseCommand::Inspect { app, version } => {
            desk.show(&format!("releases/{app}/{version}"), in_full).await
        }
        ReleaseCommand::Rm { app, version, yes } => {
            desk.talk.confirm(&format!("remove release {app} {version}?"), yes)?;
            let done = format!("release {app} {version} is removed");
            let (app, version) = (app.to_string(), version.to_string());
            let change = change::Change::RemoveRelease(RemoveRelease { app, version });
            desk.apply(change, &done).await
        }
    }
}

fn in_full(detail: &Detail, page: &Page) -> String {
    let mut text = render::release(&detail.release, page);
    if let Some(manifest) = &detail.manifest {
        text.push('\n');
        text.push_str(manifest.trim_end());
        text.push('\n');
    }
    text
}

async fn push(desk: &Desk, file: PathBuf, version: Version) -> Result<Exit, Failure> {
    let json = deploy::push(desk, &file, &version).await?;
    match desk.talk.format {
        talk::Format::Json => desk.talk.data(&talk::pretty(&json)?)?,
        talk::Format::Table => {
            let release: ReleaseView = talk::parse(&json)?;
            desk.talk.data(&format!("{} {}\n", release.app, release.version))?;
        }
    }
    Ok(Exit::Done)
}
