//! The built-in load balancer.
