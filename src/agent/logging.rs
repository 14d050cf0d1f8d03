//! Log lines on stderr: text or JSON, with levels that mean something.
//!
//! | level | meaning |
//! |---|---|
//! | ERROR | the daemon cannot do its work, or an operator must act |
//! | WARN | worth waking somebody: it goes on, but something is lost or will be |
//! | INFO | a change that a user notices: a member's status, a join, a token, an address |
//! | DEBUG | one line for each exchange, connection or suspicion |
//! | TRACE | one line for each packet |
//!
//! No keys, tokens or whole records at any level.

use std::io::IsTerminal as _;
use std::sync::Arc;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::config::LogFormat;

/// Checks a filter such as `info` or `gossipd=debug,warn`.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn parse_filter(text: &str) -> Result<Targets, String> {
    text.parse().map_err(|error| format!("{error}; expected for example info or gossipd=debug,warn"))
}

/// Changes the filter of the running process.
#[derive(Clone)]
pub struct Reload(Arc<reload::Handle<Targets, Registry>>);

impl Reload {
    /// Puts another filter in force.
    ///
    /// # Errors
    /// A text that says what is wrong with it; the old one stays.
    pub fn set(&self, text: &str) -> Result<(), String> {
        self.0.reload(parse_filter(text)?).map_err(|error| error.to_string())
    }
}

/// Starts logging. Once in a process.
///
/// # Errors
/// A text when the filter is malformed or logging was started before.
pub fn start(filter: &str, format: LogFormat) -> Result<Reload, String> {
    let (filter, handle) = reload::Layer::new(parse_filter(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Text => registry
            .with(
                fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false),
            )
            .try_init(),
        LogFormat::Json => {
            registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init()
        }
    };
    started.map_err(|error| error.to_string())?;
    Ok(Reload(Arc::new(handle)))
}
