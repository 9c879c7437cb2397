//! What listens: enrolment, agents and operators (gRPC); documents, health and metrics (HTTP).

mod agents;
mod authority;
mod changes;
mod copies;
pub mod enrol;
mod forward;
mod front;
mod http;
pub mod listen;
mod operators;
mod others;
mod run;
mod stores;
#[cfg(test)]
mod tests;
mod told;
mod upkeep;

pub use run::{ServeError, run};
