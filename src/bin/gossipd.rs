//! The daemon's command line: see `gossipd::cli`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    gossipd::cli::gossipd()
}
