//! The API's Unix socket file: made with the right mode and group, never stolen from a live daemon.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use tokio::net::UnixListener;

/// The group that the socket is given to when nobody names one, if there is such a group.
const DEFAULT_GROUP: &str = "gossipd";

/// The socket cannot be made. The operator's to mend; what stood there still stands.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon answers there.
    #[error("another daemon serves {}; stop it or choose another --socket", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{} exists and is not a socket; remove it or choose another --socket", .0.display())]
    NotASocket(PathBuf),
    /// The configured group is unknown.
    #[error("api.group = {0:?}: there is no such group on this machine")]
    Group(String),
    /// The system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A bound socket; its file goes when this is dropped.
#[derive(Debug)]
pub(super) struct ApiSocket {
    path: PathBuf,
    _lock: File,
}

impl ApiSocket {
    /// Binds `path`. A file left by a daemon that died is replaced; a lock beside it keeps two daemons from doing that
    /// to each other.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(super) fn bind(path: &Path, group: Option<&str>, mode: u32) -> Result<(Self, UnixListener), SocketError> {
        let io = |action, source| SocketError::Io { action, path: path.to_owned(), source };
        let gid = gid_of(group)?;
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(|e| io("create the directory of", e))?;
        }
        let lock = lock_beside(path)?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("look at", error)),
            Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
            Ok(_) if StdStream::connect(path).is_ok() => return Err(SocketError::InUse(path.to_owned())),
            Ok(_) => fs::remove_file(path).map_err(|e| io("remove the stale", e))?,
        }
        let listener = StdListener::bind(path).map_err(|e| io("bind", e))?;
        let socket = Self { path: path.to_owned(), _lock: lock };
        if let Some(gid) = gid {
            chown(path, None, Some(gid)).map_err(|e| io("give to its group", e))?;
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| io("set the mode of", e))?;
        listener.set_nonblocking(true).map_err(|e| io("prepare", e))?;
        let listener = UnixListener::from_std(listener).map_err(|e| io("prepare", e))?;
        Ok((socket, listener))
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        // A file that stays is found stale by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

fn lock_beside(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    super::lock_file(&lock_path)
        .map_err(|source| SocketError::Io { action: "lock", path: lock_path, source })?
        .ok_or_else(|| SocketError::InUse(path.to_owned()))
}

fn gid_of(group: Option<&str>) -> Result<Option<u32>, SocketError> {
    let found = Group::from_name(group.unwrap_or(DEFAULT_GROUP)).ok().flatten();
    match (found, group) {
        (Some(found), _) => Ok(Some(found.gid.as_raw())),
        (None, None) => Ok(None),
        (None, Some(name)) => Err(SocketError::Group(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_files_go_and_live_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/gossipd.sock");
        let (first, listener) = ApiSocket::bind(&path, None, 0o660).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(ApiSocket::bind(&path, None, 0o660), Err(SocketError::InUse(_))));
        drop((first, listener));
        assert!(!path.exists());
        // A daemon that was killed leaves its file behind.
        drop(StdListener::bind(&path).unwrap());
        let (second, _listener) = ApiSocket::bind(&path, None, 0o600).unwrap();
        drop(second);
        // A stranger's live socket, without a lock.
        let stranger = StdListener::bind(&path).unwrap();
        assert!(matches!(ApiSocket::bind(&path, None, 0o660), Err(SocketError::InUse(_))));
        drop(stranger);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "data").unwrap();
        assert!(matches!(ApiSocket::bind(&path, None, 0o660), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
        assert!(matches!(ApiSocket::bind(&path, Some("no-such-group"), 0o660), Err(SocketError::Group(_))));
    }
}
