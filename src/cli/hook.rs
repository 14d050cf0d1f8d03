//! `watch --exec`: one shell command for each change, one at a time and in order.
//!
//! The command runs in a task of its own behind a bounded queue: when it is slow or fails, that is told and delays nobody.
//! Not here: where changes come from (`watch`).

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::mpsc;

use super::exit::warn;
use crate::api::Member;
use crate::api::watch::{Change, Values};
use crate::record::Status;

/// Changes that may wait for a slow command: about half a minute of one that takes a tenth of a second. What is beyond that
/// would be told too late to be of use.
pub(super) const QUEUE_MAX: usize = 256;

/// A command, and the changes that wait for it.
pub(super) struct Hook {
    queue: mpsc::Sender<Change>,
    /// Changes passed over since the last one that found room.
    passed_over: u64,
}

impl Hook {
    /// For a command line of `sh`.
    pub(super) fn start(command: String, socket: &Path) -> Self {
        let (queue, mut changes) = mpsc::channel::<Change>(QUEUE_MAX);
        let socket = socket.to_owned();
        tokio::spawn(async move {
            while let Some(change) = changes.recv().await {
                let revision = change.revision;
                match run(&command, &socket, &change).await {
                    Ok(status) if status.success() => {}
                    Ok(status) => warn(&format!("the command for revision {revision} ended with {status}")),
                    Err(error) => warn(&format!("the command for revision {revision} cannot be run: {error}")),
                }
            }
        });
        Self { queue, passed_over: 0 }
    }

    /// Has the command run for `change`, unless too many wait already.
    pub(super) fn offer(&mut self, change: &Change) {
        if self.queue.try_send(change.clone()).is_ok() {
            if self.passed_over > 0 {
                warn(&format!("the command was not run for {} changes: it is too slow", self.passed_over));
            }
            self.passed_over = 0;
        } else {
            if self.passed_over == 0 {
                let revision = change.revision;
                warn(&format!("{QUEUE_MAX} changes wait for the command: it is not run for those from {revision} on"));
            }
            self.passed_over += 1;
        }
    }

    /// Changes that the command has not been run for.
    pub(super) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

/// Runs it to its end.
async fn run(command: &str, socket: &Path, change: &Change) -> io::Result<ExitStatus> {
    let mut text = serde_json::to_vec(change)?;
    text.push(b'\n');
    let mut process = Command::new("sh");
    process.arg("-c").arg(command).stdin(Stdio::piped()).env("GOSSIPD_SOCKET", socket).envs(variables(change));
    let mut child = process.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command need not read it.
        let _ = stdin.write_all(&text).await;
    }
    child.wait().await
}

/// What a command finds in its environment; empty where there is nothing to tell.
fn variables(change: &Change) -> Vec<(&'static str, String)> {
    let (old, new) = match &change.what {
        Values::Members { old, new } => (old.as_deref(), new.as_deref()),
        _ => (None, None),
    };
    let node = new.or(old);
    let owner = match &change.what {
        Values::Decisions { old, new } => new.as_ref().or(old.as_ref()).and_then(|decision| decision.node),
        Values::Networks { old, new } => new.as_ref().or(old.as_ref()).map(|attachment| attachment.node),
        Values::Endpoints { old, new } => new.as_ref().or(old.as_ref()).map(|endpoint| endpoint.node),
        Values::Members { .. } | Values::Conflicts { .. } | Values::Other => None,
    };
    let of_node = |text: fn(&Member) -> String| node.map(text).unwrap_or_default();
    let status = |member: Option<&Member>| member.map_or("", |member| Status::word(member.status)).to_owned();
    vec![
        ("GOSSIPD_REVISION", change.revision.to_string()),
        ("GOSSIPD_TOPIC", change.what.topic().map_or("other", |topic| topic.word()).to_owned()),
        ("GOSSIPD_CAUSE", change.cause.word().to_owned()),
        ("GOSSIPD_TIME", change.time.clone()),
        ("GOSSIPD_NODE_ID", owner.or(node.map(|node| node.id)).map(|id| id.to_string()).unwrap_or_default()),
        ("GOSSIPD_NODE_NAME", of_node(|node| node.hostname.clone().unwrap_or_default())),
        ("GOSSIPD_NODE_ADDRESS", of_node(|node| node.address.to_string())),
        ("GOSSIPD_OLD_STATUS", status(old)),
        ("GOSSIPD_NEW_STATUS", status(new)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::watch::Cause;
    use crate::cli::render::tests::members;

    fn change(revision: u64) -> Change {
        let [new, old, _] = members().try_into().unwrap();
        let what = Values::Members { old: Some(Box::new(old)), new: Some(Box::new(new)) };
        Change { revision, time: "2026-03-12T14:11:27.000Z".into(), cause: Cause::Refuted, by: None, what }
    }

    /// Waits until the file has so many lines.
    async fn lines(path: &Path, count: usize) -> Vec<String> {
        let read = async {
            loop {
                let text = std::fs::read_to_string(path).unwrap_or_default();
                if text.matches('\n').count() >= count {
                    return text.lines().map(str::to_owned).collect();
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), read).await.expect("the command runs")
    }

    #[tokio::test]
    async fn a_command_gets_the_change_and_its_failure_is_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let command = format!(
            "echo $GOSSIPD_REVISION $GOSSIPD_NODE_NAME $GOSSIPD_OLD_STATUS $GOSSIPD_NEW_STATUS $GOSSIPD_CAUSE >>{0}; cat >>{0}; false",
            path.display()
        );
        let mut hook = Hook::start(command, Path::new("/s"));
        (1..=3).for_each(|revision| hook.offer(&change(revision)));
        let lines = lines(&path, 6).await;
        for (revision, pair) in (1..=3).zip(lines.chunks(2)) {
            assert_eq!(pair[0], format!("{revision} swarm1 down ready refuted"));
            assert_eq!(serde_json::from_str::<Change>(&pair[1]).unwrap(), change(revision));
        }
    }

    #[tokio::test]
    async fn a_slow_command_delays_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (gate, path) = (dir.path().join("gate"), dir.path().join("out"));
        let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", gate.display());
        let mut hook = Hook::start(format!("{wait}; echo $GOSSIPD_REVISION >>{}", path.display()), Path::new("/s"));
        hook.offer(&change(1));
        while hook.waiting() > 0 {
            tokio::task::yield_now().await;
        }
        // The first one runs, so many wait, and the rest is passed over.
        let last = u64::try_from(QUEUE_MAX).unwrap() + 1;
        (2..=last + 3).for_each(|revision| hook.offer(&change(revision)));
        assert_eq!((hook.waiting(), hook.passed_over), (QUEUE_MAX, 3));
        std::fs::write(&gate, "").unwrap();
        let expected: Vec<String> = (1..=last).map(|revision| revision.to_string()).collect();
        assert_eq!(lines(&path, expected.len()).await, expected);
        hook.offer(&change(last + 4));
        assert_eq!(lines(&path, expected.len() + 1).await.last(), Some(&(last + 4).to_string()));
    }
}
