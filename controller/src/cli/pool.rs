//! `rota pool`: members as the edges see them.

use clap::Subcommand;

use super::desk::Desk;
use super::outcome::{Exit, Failure};
use super::render;

/// Look at the pools
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// List the pools with their members and their counts of requests
    #[command(after_help = "Examples:\n  rota pool ls")]
    Ls,
    /// Show every member of a pool at every edge
    #[command(after_help = "Examples:\n  rota pool inspect shop")]
    Inspect {
        /// The pool
        pool: String,
    },
}

/// Carries out `rota pool`.
pub async fn run(desk: &Desk, command: PoolCommand) -> Result<Exit, Failure> {
    match command {
        PoolCommand::Ls => desk.list("pools", &render::POOLS).await,
        PoolCommand::Inspect { pool } => desk.show(&format!("pools/{pool}"), render::pool).await,
    }
}
