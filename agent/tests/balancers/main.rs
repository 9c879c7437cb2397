//! Load balancers that are not ours, as edges drive them: real processes on loopback, with real requests through them.

mod common;
mod haproxy;
mod nginx;
