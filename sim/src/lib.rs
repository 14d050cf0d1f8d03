//! A deterministic simulator of gossipd: real [`gossipd::node::Node`]s, production bytes, virtual time.
//!
//! One seed decides everything. The same seed and the same commit give the same run bit for bit; a hash over the whole
//! trace ([`World::trace`]) proves it.
//!
//! * [`world`]: the event loop, and what may be done to the machines in it;
//! * [`net`]: what the network does to a datagram or a connection: delay, loss, cuts;
//! * [`host`]: one machine: its disk, its clock, and the node that lives on it now;
//! * [`view`]: what one node's events amount to, checked step by step;
//! * [`checks`], [`trace`], [`luck`]: the book of what was checked, the hash, the random streams;
//! * [`plan`], [`report`]: a run as the command line describes it, and its figures.
//!
//! Not here: anything of the protocol. Where a scenario fails, the node is wrong or the expectation is.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

pub mod baseline;
pub mod checks;
pub mod compare;
pub mod host;
pub mod luck;
pub mod net;
#[doc(hidden)]
pub mod old_report;
pub mod outcome;
pub mod plan;
pub mod report;
pub mod trace;
pub mod view;
pub mod world;

pub use checks::Checks;
pub use host::HostId;
pub use net::{CutId, Link};
pub use old_report::Report;
pub use plan::Plan;
pub use view::Sighting;
pub use world::{Setup, World};
