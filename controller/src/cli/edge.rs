//! `rota edge`: the agents on load-balancer hosts.

use clap::Subcommand;

use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::render;

/// Look at the edges
#[derive(Debug, Subcommand)]
pub enum EdgeCommand {
    /// List the edges and the pools that they serve
    #[command(after_help = "Examples:\n  rota edge ls\n  rota edge ls -o json")]
    Ls,
}

/// Carries out `rota edge`.
pub async fn run(desk: &Desk, command: &EdgeCommand) -> Result<Exit, Failure> {
    match command {
        EdgeCommand::Ls => desk.list("edges", &render::EDGES).await,
    }
}
