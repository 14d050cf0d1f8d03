//! The operator's command line: see `gossipd::cli`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    gossipd::cli::gossipctl()
}
