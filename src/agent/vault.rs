//! Decisions on the disk: an embedded store (redb) beside the files of `state`, as there may be thousands of them and each
//! must survive on its own.
//!
//! Every write is one transaction, synced before it counts. Not here: what is in a decision, or whether it stands.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use super::state::StateError;
use super::trust::lock;
use crate::wire::decision::SignedDecision;

const FILE: &str = "decisions.redb";
/// Memory for pages: decisions are read once, at the start.
const CACHE_BYTES: usize = 256 << 10;
/// Layout of what is stored; another one is refused rather than misread.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const DECISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("decisions");

/// What is to be done to one slot: keep that, or nothing.
pub(super) type Write = (u64, Option<Vec<u8>>);

/// The store.
#[derive(Debug)]
pub(super) struct Vault {
    /// None after an error, from which a database does not recover by itself: the next use opens it again.
    database: Mutex<Option<Database>>,
    path: PathBuf,
}

impl Vault {
    /// Opens the store in the state directory, which must be locked; makes it if there is none.
    ///
    /// # Errors
    /// [`StateError`]; nothing was changed then.
    pub(super) fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(FILE);
        let vault = Self { database: Mutex::new(None), path: path.clone() };
        let format = vault.with("open", prepare)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(|source| StateError::Io {
            action: "restrict",
            path: path.clone(),
            source,
        })?;
        if format != FORMAT {
            let reason = format!("format {format}, this version reads format {FORMAT}");
            return Err(StateError::Damaged { path, reason });
        }
        Ok(vault)
    }

    fn with<T>(
        &self,
        action: &'static str,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StateError> {
        let mut place = lock(&self.database);
        // Closed before it is opened again; put back only if all went well.
        let opened = match place.take() {
            Some(database) => Ok(database),
            None => Database::builder().set_cache_size(CACHE_BYTES).create(&self.path).map_err(redb::Error::from),
        };
        let done = opened.and_then(|database| work(&database).map(|value| (database, value)));
        match done {
            Ok((database, value)) => {
                *place = Some(database);
                Ok(value)
            }
            Err(error) => Err(failed(action, &self.path, error)),
        }
    }

    /// All that is kept. What cannot be read is left out and said.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn load(&self) -> Result<Vec<SignedDecision>, StateError> {
        self.with("read", |database| {
            let read = database.begin_read()?;
            let table = read.open_table(DECISIONS)?;
            let mut out = Vec::new();
            for entry in table.iter()? {
                let (slot, bytes) = entry?;
                match SignedDecision::from_bytes(bytes.value()) {
                    Ok(decision) => out.push(decision),
                    Err(error) => tracing::warn!(slot = slot.value(), %error, "a stored decision cannot be read"),
                }
            }
            Ok(out)
        })
    }

    /// Does all of it, or nothing.
    ///
    /// # Errors
    /// [`StateError`]; nothing was changed then.
    pub(super) fn write(&self, writes: &[Write]) -> Result<(), StateError> {
        self.with("write", |database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(DECISIONS)?;
                for (slot, bytes) in writes {
                    match bytes {
                        Some(bytes) => drop(table.insert(slot, bytes.as_slice())?),
                        None => drop(table.remove(slot)?),
                    }
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// Forgets everything: another cluster's decisions are of no use.
    ///
    /// # Errors
    /// [`StateError`]; nothing was changed then.
    pub(super) fn clear(&self) -> Result<(), StateError> {
        self.with("clear", |database| {
            let transaction = database.begin_write()?;
            transaction.delete_table(DECISIONS)?;
            transaction.open_table(DECISIONS)?;
            Ok(transaction.commit()?)
        })
    }
}

/// The format of what is there; makes the tables if there are none.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let read = database.begin_read()?;
    match read.open_table(META) {
        Ok(meta) => return Ok(meta.get("format")?.map_or(0, |format| format.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    drop(read);
    let write = database.begin_write()?;
    write.open_table(META)?.insert("format", FORMAT)?;
    write.open_table(DECISIONS)?;
    write.commit()?;
    Ok(FORMAT)
}

fn failed(action: &'static str, path: &Path, error: redb::Error) -> StateError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) => StateError::Io { action, path, source },
        redb::Error::DatabaseAlreadyOpen => StateError::InUse(path),
        other => StateError::Damaged { path, reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::fixture;
    use crate::record::decision::{Decision, Hlc, Stamp, Subject, Verdict};
    use crate::record::{ClusterId, NodeId, Role};

    fn signed(n: u8) -> SignedDecision {
        let id = NodeId::from_bytes([n; 16]);
        let cluster = ClusterId::from_bytes([1; 16]);
        let stamp = Stamp { at: Hlc::from_ms(1_700_000_000_000), signer: id };
        let verdict = Verdict::Role(Role::Manager);
        let decision = Decision { subject: Subject::Node(id), verdict, reason: None, deadline_ms: None, stamp };
        let credential = fixture::credential(cluster, id, Role::Manager, 1_700_000_000_000);
        SignedDecision::sign(&decision, cluster, &credential)
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::open(dir.path()).unwrap();
        assert!(vault.load().unwrap().is_empty());
        let keep = |slot, n| (slot, Some(signed(n).to_bytes()));
        vault.write(&[keep(1, 1), keep(2, 2), keep(u64::MAX, 3)]).unwrap();
        vault.write(&[(2, None), keep(1, 4)]).unwrap();
        drop(vault);
        let vault = Vault::open(dir.path()).unwrap();
        assert_eq!(vault.load().unwrap(), [signed(4), signed(3)]);
        vault.clear().unwrap();
        assert!(vault.load().unwrap().is_empty());
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"not a database, and long enough to look like one to nobody").unwrap();
        let error = Vault::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("decisions.redb"), "{error}");
    }
}
