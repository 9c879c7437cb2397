//! The controller and the operator's command line.

pub mod store;
pub mod view;
