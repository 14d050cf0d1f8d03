//! The state directory: what must outlive the process, and nothing else.
//!
//! ```text
//! lock           held (flock) by the daemon that uses the directory
//! node.json      node id, generation
//! cluster.json   membership: CA, certificate, keys, and on managers the CA key and tokens. Its presence *is* membership
//! contacts.json  where others were last seen
//! metadata.json  what local programs have attached to this node
//! store.redb     what operators have decided, and this node's own tables (see `vault`)
//! ```
//! Every other file is replaced as a whole: written beside its place, synced, renamed over it, and the directory synced. So a
//! crash or a full disk at any instant leaves the old content or the new one. All files are 0600, the directory 0700.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::hex;
use super::vault::Vault;
use crate::api::NodeOptions;
use crate::record::{ClusterId, NodeId, Role};
use crate::wire::admission::TokenRecord;

const NODE_FILE: &str = "node.json";
const CLUSTER_FILE: &str = "cluster.json";
const CONTACTS_FILE: &str = "contacts.json";
const METADATA_FILE: &str = "metadata.json";
const LOCK_FILE: &str = "lock";
/// Written into each file; another number is refused rather than misread.
const FORMAT: u32 = 1;

/// The state directory cannot be used. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or a file cannot be read or written.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error("state directory {} is in use by another gossipd; give each its own --state-dir", .0.display())]
    InUse(PathBuf),
    /// A file's content is not what this version writes.
    #[error("{} is damaged or of another version: {reason}; restore it from a backup, or remove it and join again", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct NodeFile {
    format: u32,
    id: NodeId,
    generation: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct ContactsFile {
    format: u32,
    contacts: Vec<SocketAddr>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct MetadataFile {
    format: u32,
    metadata: BTreeMap<String, String>,
}

/// A datagram key on the disk.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredKey {
    /// Its id in the ring.
    pub id: u8,
    /// The key.
    #[serde(with = "hex::array")]
    pub key: [u8; 32],
}

/// A CA that is trusted.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredAnchor {
    /// DER.
    #[serde(with = "hex::bytes")]
    pub certificate: Vec<u8>,
}

/// A CA with its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredCa {
    /// DER.
    #[serde(with = "hex::bytes")]
    pub certificate: Vec<u8>,
    /// PKCS#8 DER.
    #[serde(with = "hex::bytes")]
    pub key: Vec<u8>,
}

/// A certificate of a new CA, to be shown when all others have one too.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredReserve {
    /// The CA's certificate, DER.
    #[serde(with = "hex::bytes")]
    pub ca_certificate: Vec<u8>,
    /// This node's certificate, DER.
    #[serde(with = "hex::bytes")]
    pub certificate: Vec<u8>,
    /// Its private key, PKCS#8 DER.
    #[serde(with = "hex::bytes")]
    pub private_key: Vec<u8>,
    /// When it was got, in milliseconds since the Unix epoch.
    pub issued_at_ms: u64,
    /// End of its validity, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// What only a manager stores.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredManager {
    /// The cluster's CAs whose keys this manager has.
    pub cas: Vec<StoredCa>,
    /// The join tokens.
    pub tokens: Vec<TokenRecord>,
    /// Validity of certificates that it issues, in seconds.
    pub cert_expiry_s: u64,
}

/// Membership of a cluster: everything needed to come back after a reboot.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredCluster {
    /// Layout of this file.
    pub format: u32,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// This node's role.
    pub role: Role,
    /// When it joined, in milliseconds since the Unix epoch.
    pub joined_at_ms: u64,
    /// What `init` or `join` was told, kept as it was typed: an interface may have another address tomorrow.
    pub options: NodeOptions,
    /// The CAs that are trusted, the oldest first: one, except while it is changed.
    pub trusted: Vec<StoredAnchor>,
    /// While the CA is changed: this node's certificate of the new one.
    pub reserve: Option<StoredReserve>,
    /// The certificate of the CA that has issued this node's, DER.
    #[serde(with = "hex::bytes")]
    pub ca_certificate: Vec<u8>,
    /// This node's certificate, DER.
    #[serde(with = "hex::bytes")]
    pub certificate: Vec<u8>,
    /// This node's private key, PKCS#8 DER.
    #[serde(with = "hex::bytes")]
    pub private_key: Vec<u8>,
    /// When the certificate was got, in milliseconds since the Unix epoch.
    pub certificate_issued_at_ms: u64,
    /// End of the certificate's validity, in milliseconds since the Unix epoch.
    pub certificate_expires_at_ms: u64,
    /// This node's data-path address when its attachments were written.
    pub data_path: Option<IpAddr>,
    /// Id of the key that seals.
    pub primary_key: u8,
    /// The datagram keys.
    pub keys: Vec<StoredKey>,
    /// On managers.
    pub manager: Option<StoredManager>,
}

impl StoredCluster {
    /// The layout written today.
    pub(super) const FORMAT: u32 = FORMAT;
}

/// The state directory, locked.
#[derive(Debug)]
pub(super) struct StateDir {
    path: PathBuf,
    node: NodeFile,
    vault: Arc<Vault>,
    _lock: File,
}

impl StateDir {
    /// Opens and locks the directory; makes it, and a node id from `new_id`, where there is none yet.
    ///
    /// # Errors
    /// [`StateError`]; nothing was changed then.
    pub(super) fn open(path: &Path, new_id: NodeId) -> Result<Self, StateError> {
        let io = |action, source| StateError::Io { action, path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| io("create state directory", e))?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|e| io("restrict state directory", e))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = super::lock_file(&lock_path)
            .map_err(|source| StateError::Io { action: "lock", path: lock_path, source })?
            .ok_or_else(|| StateError::InUse(path.to_owned()))?;
        let node = match read(&path.join(NODE_FILE))? {
            Some(node) => node,
            None => {
                let node = NodeFile { format: FORMAT, id: new_id, generation: 0 };
                write(path, NODE_FILE, &node)?;
                node
            }
        };
        let vault = Arc::new(Vault::open(path)?);
        Ok(Self { path: path.to_owned(), node, vault, _lock: lock })
    }

    /// Where decisions are kept.
    pub(super) fn vault(&self) -> Arc<Vault> {
        Arc::clone(&self.vault)
    }

    /// Takes the id of a new membership.
    ///
    /// # Errors
    /// [`StateError`]; the old id stays.
    pub(super) fn take_id(&mut self, id: NodeId) -> Result<(), StateError> {
        let node = NodeFile { id, ..self.node.clone() };
        write(&self.path, NODE_FILE, &node)?;
        self.node = node;
        Ok(())
    }

    /// This node's id in its membership, or in the last one.
    pub(super) fn node_id(&self) -> NodeId {
        self.node.id
    }

    /// A generation for a new life: above any earlier one, and not below `unix_s`, so that a restored older disk does
    /// not fall behind. Persisted before it is returned.
    ///
    /// # Errors
    /// [`StateError`]; the old generation stays.
    pub(super) fn next_generation(&mut self, unix_s: u64) -> Result<u64, StateError> {
        let next = self.node.generation.checked_add(1).ok_or_else(|| StateError::Damaged {
            path: self.path.join(NODE_FILE),
            reason: "no generation is left".to_owned(),
        })?;
        let generation = next.max(unix_s);
        self.persist_generation(generation)?;
        Ok(generation)
    }

    /// Makes sure that later lives start above `generation`.
    ///
    /// # Errors
    /// [`StateError`]; the old generation stays.
    pub(super) fn persist_generation(&mut self, generation: u64) -> Result<(), StateError> {
        if generation <= self.node.generation {
            return Ok(());
        }
        let node = NodeFile { generation, ..self.node.clone() };
        write(&self.path, NODE_FILE, &node)?;
        self.node = node;
        Ok(())
    }

    /// Where the membership is stored.
    pub(super) fn cluster_path(&self) -> PathBuf {
        self.path.join(CLUSTER_FILE)
    }

    /// The membership, if this node is in a cluster.
    ///
    /// # Errors
    /// [`StateError`] when the file is there and cannot be used.
    pub(super) fn cluster(&self) -> Result<Option<StoredCluster>, StateError> {
        read(&self.path.join(CLUSTER_FILE))
    }

    /// Stores the membership: the instant at which a node has joined.
    ///
    /// # Errors
    /// [`StateError`]; the old membership, or none, stays.
    pub(super) fn save_cluster(&self, cluster: &StoredCluster) -> Result<(), StateError> {
        write(&self.path, CLUSTER_FILE, cluster)
    }

    /// Forgets the membership. The generation stays, and the node id until there is another one.
    ///
    /// # Errors
    /// [`StateError`]; the membership stays.
    pub(super) fn remove_cluster(&self) -> Result<(), StateError> {
        remove(&self.path.join(CLUSTER_FILE))?;
        remove(&self.path.join(CONTACTS_FILE))?;
        // Without its cluster none of them verifies any more: what cannot be removed does no harm.
        if let Err(error) = self.vault.clear() {
            tracing::warn!(%error, "decisions of the former cluster are still on the disk");
        }
        sync_dir(&self.path)
    }

    /// What local programs have attached to this node. A damaged file counts as nothing, and is said.
    pub(super) fn metadata(&self) -> BTreeMap<String, String> {
        match read::<MetadataFile>(&self.path.join(METADATA_FILE)) {
            Ok(file) => file.map(|file| file.metadata).unwrap_or_default(),
            Err(error) => {
                tracing::error!(%error, "this node's metadata is lost: set it again");
                BTreeMap::new()
            }
        }
    }

    /// Stores what local programs attach to this node.
    ///
    /// # Errors
    /// [`StateError`]; the old metadata stays.
    pub(super) fn save_metadata(&self, metadata: BTreeMap<String, String>) -> Result<(), StateError> {
        write(&self.path, METADATA_FILE, &MetadataFile { format: FORMAT, metadata })
    }

    /// Where others were last seen. A damaged file counts as none: it only speeds things up.
    pub(super) fn contacts(&self) -> Vec<SocketAddr> {
        let file: Result<Option<ContactsFile>, _> = read(&self.path.join(CONTACTS_FILE));
        file.ok().flatten().map(|file| file.contacts).unwrap_or_default()
    }

    /// Stores where others are seen.
    ///
    /// # Errors
    /// [`StateError`]; the old ones stay.
    pub(super) fn save_contacts(&self, contacts: Vec<SocketAddr>) -> Result<(), StateError> {
        write(&self.path, CONTACTS_FILE, &ContactsFile { format: FORMAT, contacts })
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { action: "read", path: path.to_owned(), source }),
    };
    let damaged = |reason: String| StateError::Damaged { path: path.to_owned(), reason };
    // The values are secrets: only the place of an error is told.
    let place = |e: &serde_json::Error| format!("line {} column {}", e.line(), e.column());
    let Format { format } = serde_json::from_slice(&bytes).map_err(|e| damaged(place(&e)))?;
    if format != FORMAT {
        return Err(damaged(format!("format {format}, this version reads format {FORMAT}")));
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|e| damaged(place(&e)))
}

fn write(dir: &Path, name: &str, value: &impl Serialize) -> Result<(), StateError> {
    let path = dir.join(name);
    let beside = dir.join(format!("{name}.new"));
    let attempt = || -> io::Result<()> {
        let mut bytes = serde_json::to_vec_pretty(value)?;
        bytes.push(b'\n');
        // What a crash may have left there.
        remove_file(&beside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &path)
    };
    if let Err(source) = attempt() {
        // Nothing more can be done about a file that cannot be removed; the next write tries again.
        let _ = remove_file(&beside);
        return Err(StateError::Io { action: "write", path, source });
    }
    // The new content is in place. If the directory cannot be synced, a power cut may bring the old one back; to say that
    // the write failed would be worse: memory and disk would differ from now on.
    if let Err(error) = sync_dir(dir) {
        tracing::warn!(%error, "a write may not survive a power cut");
    }
    Ok(())
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> Result<(), StateError> {
    remove_file(path).map_err(|source| StateError::Io { action: "remove", path: path.to_owned(), source })
}

fn sync_dir(dir: &Path) -> Result<(), StateError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| StateError::Io {
        action: "sync",
        path: dir.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    #[test]
    fn identity_is_made_once_and_generations_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut state = StateDir::open(&path, id(1)).unwrap();
        assert_eq!(state.next_generation(1000).unwrap(), 1000);
        assert_eq!(state.next_generation(1000).unwrap(), 1001);
        assert_eq!(state.next_generation(5).unwrap(), 1002, "the clock was stepped back");
        state.persist_generation(2000).unwrap();
        state.persist_generation(3).unwrap();
        drop(state);
        let mut state = StateDir::open(&path, id(2)).unwrap();
        assert_eq!(state.node_id(), id(1));
        assert_eq!(state.next_generation(0).unwrap(), 2001);
    }

    #[test]
    fn everything_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = StateDir::open(&path, id(1)).unwrap();
        state.save_contacts(vec![([127, 0, 0, 1], 1).into()]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for entry in fs::read_dir(&path).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn one_daemon_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = StateDir::open(dir.path(), id(1)).unwrap();
        let error = StateDir::open(dir.path(), id(1)).unwrap_err();
        assert!(matches!(error, StateError::InUse(_)), "{error}");
        drop(first);
        assert!(StateDir::open(dir.path(), id(1)).is_ok());
    }

    #[test]
    fn a_torn_write_is_never_read_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::open(dir.path(), id(1)).unwrap();
        let generation = state.next_generation(7).unwrap();
        drop(state);
        // A crash in the middle of a write leaves half a file beside the real one.
        fs::write(dir.path().join("node.json.new"), b"{\"format\":1,\"id\":\"tor").unwrap();
        let mut state = StateDir::open(dir.path(), id(2)).unwrap();
        assert_eq!(state.node_id(), id(1));
        assert_eq!(state.next_generation(0).unwrap(), generation + 1);
        drop(state);
        fs::write(dir.path().join("node.json"), b"{\"format\":1,").unwrap();
        let error = StateDir::open(dir.path(), id(2)).unwrap_err().to_string();
        assert!(error.contains("node.json is damaged or of another version: line 1"), "{error}");
        fs::write(dir.path().join("node.json"), b"{\"format\":9}").unwrap();
        let error = StateDir::open(dir.path(), id(2)).unwrap_err().to_string();
        assert!(error.contains("format 9, this version reads format 1"), "{error}");
    }
}
