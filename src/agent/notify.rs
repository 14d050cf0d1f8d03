//! What the service manager is told (`sd_notify(3)`): that the daemon is ready, that it stops, and that it is alive.
//!
//! Alive means that the protocol task answers, not that this process has a thread: whoever hangs in there is silent, and
//! systemd starts it again. Outside systemd nobody listens, and nothing is done.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::daemon::Daemon;
use super::engine::Stopped;

/// Signs of life within the time that the service manager waits: one may be late or lost.
const SIGNS_PER_LIMIT: u32 = 3;

/// The API listens, and the membership that was stored is in force.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// It ends.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Gives signs of life, if the service manager waits for any, until the daemon stops.
pub(super) async fn signs_of_life(daemon: Arc<Daemon>, mut stop: watch::Receiver<bool>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let period = limit / SIGNS_PER_LIMIT;
    tracing::debug!(?limit, "the service manager waits for signs of life");
    loop {
        // In no cluster there is no protocol task: that this one runs is all there is to say.
        let is_alive = match daemon.membership() {
            Some(membership) => answers(membership.engine.query(|_| ()), period).await,
            None => true,
        };
        if is_alive {
            tell(NotifyState::Watchdog);
        } else {
            tracing::warn!(?period, "the protocol task does not answer: no sign of life");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = sleep(period) => {}
        }
    }
}

async fn answers(question: impl Future<Output = Result<(), Stopped>>, patience: Duration) -> bool {
    matches!(timeout(patience, question).await, Ok(Ok(())))
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_task_that_hangs_or_has_ended_is_not_alive() {
        let patience = Duration::from_millis(1);
        assert!(answers(ready(Ok(())), patience).await);
        assert!(!answers(ready(Err(Stopped)), patience).await);
        assert!(!answers(pending(), patience).await);
    }
}
