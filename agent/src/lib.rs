//! One node's hands.

pub mod spec;
