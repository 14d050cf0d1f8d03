//! `gossipd`: the daemon's arguments, and how it ends.

use std::io::stdin;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{dev, without_empty_variables};
use crate::agent::config::Overrides;
use crate::agent::{self, RunError};

const EXIT_CODES: &str = "\
Exit codes:
   0  stopped by SIGTERM or SIGINT
   2  wrong usage, nothing was started
  65  the state directory is damaged
  69  an address, the socket or the state directory is in use
  70  internal error
  73  the state directory or the socket cannot be created or written
  78  the configuration is not valid

Signals:
  SIGTERM, SIGINT  stop, or leave first (on_terminate)
  SIGHUP           read the log filter again";

/// Membership and node discovery for a fleet: the daemon.
#[derive(Debug, Parser)]
#[command(name = "gossipd", version, after_help = EXIT_CODES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon.
    ///
    /// A daemon that is in no cluster waits for `gossipctl init` or `gossipctl join`; one that was a member comes back
    /// by itself.
    #[command(after_help = EXIT_CODES)]
    Run(Box<RunArgs>),
    /// Run a small cluster on loopback, to try things out: N daemons on 127.0.0.1 to 127.0.0.N, joined by token.
    ///
    /// Everything is in a temporary directory, which Ctrl-C removes.
    Dev(DevArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Configuration file (TOML); without it /etc/gossipd/gossipd.toml is read if it is there
    #[arg(long, value_name = "FILE", env = "GOSSIPD_CONFIG")]
    config: Option<PathBuf>,
    /// Where node id, keys and membership are kept [default: /var/lib/gossipd]
    #[arg(long, value_name = "DIR", env = "GOSSIPD_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// The local API's Unix socket [default: /run/gossipd/gossipd.sock]
    #[arg(long, value_name = "PATH", env = "GOSSIPD_SOCKET")]
    socket: Option<PathBuf>,
    /// What this node calls itself [default: the machine's host name]
    #[arg(long, value_name = "NAME", env = "GOSSIPD_HOSTNAME")]
    hostname: Option<String>,
    /// Where gossip listens, UDP and TCP: address or interface, optional port [default: all addresses]
    #[arg(long, value_name = "ADDR|IFACE[:PORT]", env = "GOSSIPD_LISTEN_ADDR")]
    listen_addr: Option<String>,
    /// What others are told [default: the address listened on, or the machine's only one]
    #[arg(long, value_name = "ADDR|IFACE[:PORT]", env = "GOSSIPD_ADVERTISE_ADDR")]
    advertise_addr: Option<String>,
    /// Where overlay traffic goes [default: the advertised address]
    #[arg(long, value_name = "ADDR|IFACE", env = "GOSSIPD_DATA_PATH_ADDR")]
    data_path_addr: Option<String>,
    /// Port where an address has none; 0 lets the system choose [default: 7946]
    #[arg(long, value_name = "PORT", env = "GOSSIPD_PORT")]
    port: Option<u16>,
    /// Constants of the protocol: lan, wan or local [default: lan]
    #[arg(long, value_name = "NAME", env = "GOSSIPD_PROFILE")]
    profile: Option<String>,
    /// What SIGTERM means: stop (to be started again) or leave (say goodbye first) [default: stop]
    #[arg(long, value_name = "stop|leave", env = "GOSSIPD_ON_TERMINATE")]
    on_terminate: Option<String>,
    /// How long others wait for a daemon that stops to be back before they call it down; 0s: it stops without a word
    /// [default: 10s]
    #[arg(long, value_name = "DURATION", env = "GOSSIPD_RESTART_GRACE")]
    restart_grace: Option<String>,
    /// Which log lines are written, such as info or gossipd=debug,warn [default: info]
    #[arg(long, value_name = "FILTER", env = "GOSSIPD_LOG")]
    log: Option<String>,
    /// How they look: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "GOSSIPD_LOG_FORMAT")]
    log_format: Option<String>,
    /// Stop when stdin ends: so that no daemon outlives the program that started it
    #[arg(long, hide = true)]
    stop_at_end_of_stdin: bool,
}

/// Arguments of `gossipd dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    pub(super) nodes: u8,
    /// Port of every node; 0 lets the system choose one for each
    #[arg(long, default_value_t = crate::api::DEFAULT_PORT)]
    pub(super) port: u16,
    /// Which log lines of the nodes are shown
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(super) log: String,
}

/// Runs `gossipd` with the arguments of this process.
pub fn gossipd() -> ExitCode {
    let matches = without_empty_variables(Cli::command()).get_matches();
    match Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()).command {
        Command::Run(args) => run(*args),
        Command::Dev(args) => dev::dev(&args),
    }
}

/// The command line of `gossipd`, for manual pages.
pub fn gossipd_command() -> clap::Command {
    Cli::command()
}

fn run(args: RunArgs) -> ExitCode {
    let RunArgs {
        config,
        state_dir,
        socket,
        hostname,
        listen_addr,
        advertise_addr,
        data_path_addr,
        port,
        profile,
        on_terminate,
        restart_grace,
        log,
        log_format,
        stop_at_end_of_stdin,
    } = args;
    if stop_at_end_of_stdin {
        std::thread::spawn(|| {
            // Whatever is read is not looked at; its end is.
            let _ = std::io::copy(&mut stdin().lock(), &mut std::io::sink());
            let _ = kill(Pid::this(), Signal::SIGTERM);
        });
    }
    let overrides = Overrides {
        config,
        state_dir,
        socket,
        hostname,
        listen_addr,
        advertise_addr,
        data_path_addr,
        port,
        profile,
        on_terminate,
        restart_grace,
        log_filter: log,
        log_format,
    };
    match agent::run(&overrides) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn failed(error: &RunError) -> ExitCode {
    use std::io::Write as _;
    // Where should a failure to write to stderr be told?
    let _ = writeln!(std::io::stderr(), "Error: {error}");
    ExitCode::from(error.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_run() {
        // Environment variables set where the test runs would show in the help.
        let mut command = Cli::command();
        let run = command.find_subcommand_mut("run").unwrap().clone().mut_args(|arg| arg.hide_env_values(true));
        insta::assert_snapshot!(run.term_width(100).render_help().to_string());
    }
}
