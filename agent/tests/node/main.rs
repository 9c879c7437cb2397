//! A node's hands on real processes, sockets and folders, through the real program.

mod checks;
mod common;
mod processes;
