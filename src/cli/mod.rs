//! The command lines: what people type, what they read, and what scripts get as exit code.
//!
//! One file for each program's arguments and commands (`args` and `ctl` for `gossipctl`, `daemon` and `dev` for
//! `gossipd`), and beside them what they share:
//! texts and tables (`render`), filters of listings (`filter`), exit codes (`exit`).
//!
//! Not here: the API's types (`api`), the way to the daemon (`client`).

mod args;
mod ctl;
#[cfg(feature = "agent")]
mod daemon;
#[cfg(feature = "agent")]
mod dev;
mod exit;
mod filter;
mod render;

pub use self::ctl::gossipctl;
#[cfg(feature = "agent")]
pub use self::daemon::gossipd;
pub use self::exit::Exit;
