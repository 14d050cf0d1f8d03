//! gossipd: membership and node discovery for a fleet.
//!
//! The crate is cut in layers, each behind a feature; dependencies run one way:
//!
//! ```text
//! record, wire <- node, ca <- session <- agent    the daemon      features `node`, `ca`, `agent`
//! record <- api <- client <- cli                  its clients     features `client`, `cli`
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod record;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "ca")]
pub mod ca;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
pub mod session;
#[cfg(feature = "node")]
pub mod wire;
