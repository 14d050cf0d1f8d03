//! gossipd: membership and node discovery for a fleet.
//!
//! The crate is cut in layers, each behind a feature; dependencies run one way:
//!
//! ```text
//! record, wire <- node <- agent        the daemon          features `node`, `agent`
//! record <- api <- client <- cli       its clients         features `client`, `cli`
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod record;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "node")]
pub mod node;
#[cfg(feature = "node")]
pub mod wire;
