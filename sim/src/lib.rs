//! A deterministic simulator of gossipd: real [`gossipd::node::Node`]s, production bytes, virtual time.
//!
//! One seed decides everything. The same seed and the same commit give the same run bit for bit; a hash over the whole
//! trace ([`World::trace`]) proves it.
//!
//! * [`scenario`]: scenarios as TOML, the catalogue, and how one becomes a plan;
//! * [`plan`]: everything that decides a run, spelled out; [`run`] carries it out;
//! * [`world`]: the event loop, and what may be done to the machines in it;
//! * [`net`]: what the network does to a packet: delay, loss, faults on paths;
//! * [`host`]: one machine: its disk, its clock, its buffer, and the node that runs on it now;
//! * [`view`]: what one node's events amount to, checked step by step;
//! * [`checks`], [`trace`], [`luck`]: the properties, the hash, the random streams;
//! * [`aggregate`]: what many runs amount to;
//! * [`figures`], [`outcome`]: what a run amounts to; [`report`], [`compare`]: how it is shown;
//! * [`shrink`]: less of a plan that fails; [`baseline`]: foca as it comes, to compare with.
//!
//! Not here: anything of the protocol. Where a scenario fails, the node is wrong or the expectation is.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod aggregate;
pub mod authority;
pub mod baseline;
mod brain;
pub mod checks;
pub mod compare;
pub mod figures;
pub mod host;
pub mod luck;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod net;
pub mod outcome;
pub mod plan;
pub mod reading;
pub mod real;
pub mod report;
pub mod run;
pub mod scenario;
mod shown;
pub mod shrink;
pub mod trace;
pub mod view;
pub mod world;
pub mod writing;

pub use checks::Checks;
pub use host::HostId;
pub use plan::Plan;
pub use run::run_plan;
pub use world::{Setup, World};
