//! What can go wrong between a program and its daemon, and how it is put to people.

use std::fs::Metadata;
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
            io::ErrorKind::PermissionDenied => permitted(path),
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

/// Who may use the socket, as far as this user can see it.
fn permitted(path: &Path) -> String {
    /// The group may connect: write to the socket.
    const GROUP_WRITES: u32 = 0o020;
    /// The group may enter a directory.
    const GROUP_ENTERS: u32 = 0o010;
    match std::fs::metadata(path) {
        Ok(socket) => format!("you must be {}", root_or_group(&socket, GROUP_WRITES)),
        // Some directory on the way is closed: the last one that can be looked at.
        Err(_) => match path.ancestors().skip(1).find_map(|dir| Some((dir, std::fs::metadata(dir).ok()?))) {
            None => "you must be root".to_owned(),
            Some((dir, found)) => {
                let who = root_or_group(&found, GROUP_ENTERS);
                format!("you may not look into the directory {}: you must be {who}", dir.display())
            }
        },
    }
}

fn root_or_group(found: &Metadata, right: u32) -> String {
    if found.mode() & right == 0 {
        return "root".to_owned();
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = group_name(&groups, found.gid()).map_or_else(|| found.gid().to_string(), str::to_owned);
    format!("root or a member of group {name}")
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
    fn a_forbidden_socket_names_its_group() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let gid = std::fs::metadata(&path).unwrap().gid();
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let group = group_name(&groups, gid).map_or_else(|| gid.to_string(), str::to_owned);
        for (mode, who) in [(0o660, format!("root or a member of group {group}")), (0o600, "root".to_owned())] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(permitted(&path), format!("you must be {who}"));
        }
        // What cannot be seen from here, and may be closed.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let beyond = dir.path().join("closed").join("sock");
        let said = format!("you may not look into the directory {}: you must be root", dir.path().display());
        assert_eq!(permitted(&beyond), said);
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
