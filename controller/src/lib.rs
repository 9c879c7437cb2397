//! The controller and the operator's command line.

pub mod access;
pub mod api;
pub mod artifact;
pub mod backup;
pub mod calendar;
pub mod cli;
pub mod client;
pub mod context;
pub mod engine;
pub mod errors;
pub mod manifest;
pub mod members;
pub mod metrics;
pub mod serve;
pub mod serve_args;
pub mod store;
pub mod view;
pub mod wire;
pub mod words;
