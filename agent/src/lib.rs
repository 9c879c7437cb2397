//! One node's hands.

pub mod spec;
pub mod update;
