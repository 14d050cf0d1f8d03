//! What can go wrong between a program and its daemon, and how it is put to people.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::api::Problem;

/// Why a request has no answer. The message is complete: there is no chain of sources to print.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody could be asked: the daemon does not run, listens elsewhere, or the caller may not use its socket.
    /// The caller's or the machine's fault; nothing has changed.
    #[error("cannot connect to the daemon at {}: {}; {hint}", path.display(), reason(error))]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
        /// What to do about it.
        hint: String,
    },
    /// The daemon refused or failed, and says why; whose fault it was is in [`Problem::known_kind`].
    /// Nothing has changed, unless its detail says otherwise.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The daemon closed the connection early, or its answer is not one of this API. The daemon's fault (stopped in
    /// mid-request, a different version, another program behind the socket). A request that changes something may
    /// have been carried out.
    #[error("{0}")]
    Protocol(String),
    /// The daemon has not answered in time. Its fault, or that of the network when it had to ask other nodes. A
    /// request that changes something may still be carried out.
    #[error("the daemon at {} has not answered within {} s; the request may still be carried out", path.display(), after.as_secs_f32())]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The deadline that has passed.
        after: Duration,
    },
}

impl ClientError {
    pub(super) fn connect(path: &Path, error: io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => format!("you must be {}", permitted(path)),
            // Too long a path, for example: no daemon could listen there.
            io::ErrorKind::InvalidInput => "set GOSSIPD_SOCKET or --socket to another path".to_owned(),
            _ => "is gossipd running? (set GOSSIPD_SOCKET or --socket)".to_owned(),
        };
        Self::Connect { path: path.to_owned(), error, hint }
    }
}

/// The system's words without the number that Rust adds.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}

/// Who may use the socket: its group, or the group of the nearest folder above it that can be looked at.
fn permitted(path: &Path) -> String {
    let group = path.ancestors().find_map(|ancestor| std::fs::metadata(ancestor).ok()).map(|found| found.gid());
    match group {
        None | Some(0) => "root".to_owned(),
        Some(gid) => {
            let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
            let name = group_name(&groups, gid).map_or_else(|| gid.to_string(), str::to_owned);
            format!("root or in the group {name}")
        }
    }
}

/// The name of a group in the text of `/etc/group`.
fn group_name(groups: &str, gid: u32) -> Option<&str> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOENT: i32 = 2;

    #[test]
    fn a_missing_socket_is_told_with_what_to_do() {
        let error = ClientError::connect(Path::new("/run/gossipd/gossipd.sock"), io::Error::from_raw_os_error(ENOENT));
        assert_eq!(
            error.to_string(),
            "cannot connect to the daemon at /run/gossipd/gossipd.sock: No such file or directory; \
             is gossipd running? (set GOSSIPD_SOCKET or --socket)"
        );
    }

    #[test]
    fn a_forbidden_socket_names_who_may() {
        let error = ClientError::connect(Path::new("/"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!(error.to_string(), "cannot connect to the daemon at /: permission denied; you must be root");
    }

    #[test]
    fn groups_are_found_by_number() {
        let groups = "root:x:0:\n# nonsense\ngossipd:x:998:alice,bob\n";
        assert_eq!(group_name(groups, 998), Some("gossipd"));
        assert_eq!(group_name(groups, 7), None);
    }
}
