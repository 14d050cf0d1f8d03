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

/// The levels, from none to all.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Checks a filter such as `info` or `gossipd=debug,warn`.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn parse_filter(text: &str) -> Result<Targets, String> {
    let expected = format!(
        "expected LEVEL or MODULE=LEVEL, several separated by commas, such as info or gossipd=debug,warn; levels are {}",
        LEVELS.join(", ")
    );
    for directive in text.split(',').map(str::trim) {
        // `Targets` would take any word for a module, and then be silent about everything else.
        let (module, level) = directive.rsplit_once('=').unwrap_or(("gossipd", directive));
        let is_module = !module.is_empty() && module.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
        if !is_module || !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
            return Err(format!("{directive:?} is no directive; {expected}"));
        }
    }
    let compact: String = text.chars().filter(|character| !character.is_whitespace()).collect();
    compact.parse().map_err(|error| format!("{error}; {expected}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_and_is_not_a_filter() {
        for good in ["info", "off", "INFO", "gossipd=debug,warn", "gossipd=debug, info", "gossipd::agent::http=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in
            ["", "inf", "!!", "gossipd", "gossipd=", "gossipd=loud", "=info", "!!=info", "info,", "info,wran", "3"]
        {
            let error = parse_filter(bad).unwrap_err();
            assert!(error.contains("expected LEVEL or MODULE=LEVEL"), "{bad}: {error}");
            let wrong = bad.rsplit(',').next().unwrap();
            assert!(error.starts_with(&format!("{wrong:?} is no directive; ")), "{bad}: {error}");
        }
    }
}
