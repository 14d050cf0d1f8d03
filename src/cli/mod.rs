//! The command lines: what people type, what they read, and what scripts get as exit code.
//!
//! One file for each program's arguments and commands (`args` and `ctl` for `gossipctl`, `daemon` and `dev` for
//! `gossipd`), and beside them what they share:
//! texts and tables (`render`), filters of listings (`filter`), exit codes (`exit`), the event stream (`watch`) and the
//! commands that are run for its changes (`hook`). `doctor` looks at this machine too. `node` and `networks` have families of commands of their own.
//!
//! Not here: the API's types (`api`), the way to the daemon (`client`).

mod args;
mod ca;
mod ctl;
#[cfg(feature = "agent")]
mod daemon;
#[cfg(feature = "agent")]
mod dev;
mod doctor;
mod exit;
mod filter;
mod hook;
mod networks;
mod node;
mod render;
mod watch;

pub use self::ctl::{gossipctl, gossipctl_command};
#[cfg(feature = "agent")]
pub use self::daemon::{gossipd, gossipd_command};
pub use self::exit::Exit;

/// A command that takes no notice of environment variables that are set to nothing, as `VARIABLE=` in a unit file does.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if is_empty(&arg) { arg.env(None::<&'static str>) } else { arg })
        .mut_subcommands(without_empty_variables)
}
