//! The clocks that the protocol core is driven by.

use std::time::{Duration, Instant, SystemTime};

use super::unix_ms;
use crate::node::Now;

/// Both clocks of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Both clocks, now.
    pub(super) fn now(&self) -> Now {
        Now {
            mono_us: u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX),
            unix_ms: unix_ms(SystemTime::now()),
        }
    }

    /// The instant of a monotonic time.
    pub(super) fn instant(&self, mono_us: u64) -> Instant {
        self.origin + Duration::from_micros(mono_us)
    }
}
