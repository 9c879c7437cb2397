//! The pure core of Rota: decides what a rollout does next, and does nothing itself.
//!
//! Start with [`step`]: it takes a [`Rollout`] as it is and one [`Event`], and answers with what changes, what to order
//! of whom, and what to write down. There is no clock, no chance, no I/O and no async in this crate; the engine around
//! it commits the changes and only then carries out the orders.
//!
//! - [`names`]: what things are called, checked once.
//! - [`strategy`]: what the operator asked for.
//! - [`event`] and [`order`]: what the world tells us; what we ask of the world.
//! - [`node`]: one node's phases and the table of their transitions.
//! - [`rollout`]: the whole state: head and nodes.
//! - [`batches`]: targets and strategy make batches.
//! - [`forecast`]: what a plan comes to: capacity, approvals, holds.
//! - [`gate`]: may the next update start, and if not, why not ([`hold`]).
//! - [`rehearsal`] and [`rollback`]: the way back, tried early and taken.
//! - [`newcomers`]: nodes that a rollout takes in while it runs.
//! - [`shut`]: freezes and windows of the environment.
//! - [`step`]: the only place where a rollout changes its mind.
//! - [`claim`]: which controller takes a rollout whose owner is gone.
//! - [`verbs`]: what operators may ask in which state, and the refusals.
//! - [`invariants`]: what must hold after every step.

pub mod batches;
pub mod claim;
mod draft;
pub mod event;
pub mod forecast;
pub mod gate;
pub mod hold;
pub mod invariants;
pub mod names;
pub mod newcomers;
pub mod node;
pub mod open;
pub mod order;
pub mod rehearsal;
pub mod rollback;
pub mod rollout;
pub mod shut;
pub mod step;
pub mod strategy;
#[cfg(test)]
mod tests;
pub mod verbs;

pub use draft::{Note, Step};
pub use event::{Event, What};
pub use gate::Hold;
pub use names::*;
pub use order::Order;
pub use rollout::{Change, Rollout};
pub use step::{outstanding, outstanding_of, step};
