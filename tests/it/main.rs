//! Real daemons on loopback: formed, refused, killed, restarted and attacked through the doors that users have, the
//! two programs and the sockets.
//!
//! Each node has a state directory, a configuration, an API socket and an address in 127.0.0.0/8 of its own, and a port
//! that the system chose; so tests run beside each other and beside daemons of the machine. What needs root says so
//! and is skipped without; with `GOSSIPD_TEST_REQUIRE=all` it fails instead.
#![cfg(all(feature = "agent", feature = "cli"))]
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails where it stands"
)]

mod api;
mod boot;
mod ca;
mod cloud_init;
mod cluster;
mod decisions;
mod detector;
mod dev;
#[path = "../../examples/dist.rs"]
#[allow(dead_code, reason = "its `main` is for the example")]
mod dist;
mod doctor;
mod document;
mod fleet;
mod fleet_faults;
mod fleet_plans;
mod harness;
mod hostile;
mod lab;
mod networks;
mod openapi;
mod package;
mod refusals;
mod relay;
mod restart;
mod systemd;
mod tokens;
mod ufw;
mod vxlan;
mod watch;
