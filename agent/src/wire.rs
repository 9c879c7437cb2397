//! The one place that knows both proto and agent types. What comes in is checked here, field by
//! field; afterwards the types vouch for it.

mod field;
mod order;
mod out;
mod spec;
mod traffic;

pub use field::BadField;
pub use order::{directory, heartbeat, order, standing};
pub use out::{app, happening, inventory, piece, refusal, report};
pub use traffic::{intent, intent_out, member_report, member_report_out, pool_state, refused};

#[cfg(test)]
mod tests;
