//! Decisions and this node's own tables on the disk: an embedded store (redb) beside the files of `state`, as there may be
//! thousands of them and each must survive on its own.
//!
//! A table is its lives' tips and its records, each under the scope's key; what a step does to it is
//! [`Effect::KeepTable`](crate::node::Effect::KeepTable)'s to say. Every write is one transaction, synced before it counts.
//! Not here: what is in a decision or a record, or whether it stands.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction};

use super::state::StateError;
use super::trust::lock;
use crate::node::KeptTable;
use crate::record::Version;
use crate::record::network::NetworkId;
use crate::wire::decision::SignedDecision;
use crate::wire::table::{Body, Key, Scope, Step};

const FILE: &str = "store.redb";
/// Memory for pages: decisions are read once, at the start.
const CACHE_BYTES: usize = 256 << 10;
/// Layout of what is stored; another one is refused rather than misread.
const FORMAT: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const DECISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("decisions");
/// The tips of an own table's lives, by scope.
const LIVES: TableDefinition<'_, ScopeKey, &[u8]> = TableDefinition::new("lives");
/// The records of own tables.
const RECORDS: TableDefinition<'_, (ScopeKey, [u8; 16]), &[u8]> = TableDefinition::new("records");
/// Endpoints that are tied to a program's connection: how long they outlive it, in milliseconds.
const LEASES: TableDefinition<'_, ([u8; 16], [u8; 16]), u64> = TableDefinition::new("leases");

/// 0 for attachments; 1 and the network's id.
type ScopeKey = (u8, [u8; 16]);

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) enum Write {
    /// To one decision's slot: keep that, or nothing.
    Decision(u64, Option<Vec<u8>>),
    /// To an own table.
    Table {
        /// What changes.
        step: Arc<Step>,
        /// The tips of its lives from now on.
        lives: Vec<Version>,
    },
}

/// An endpoint that is tied to a connection.
pub(super) type Lease = (NetworkId, Key, u64);

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
            for write in writes {
                match write {
                    Write::Decision(slot, Some(bytes)) => {
                        transaction.open_table(DECISIONS)?.insert(slot, bytes.as_slice())?;
                    }
                    Write::Decision(slot, None) => drop(transaction.open_table(DECISIONS)?.remove(slot)?),
                    Write::Table { step, lives } => keep_step(&transaction, step, lives)?,
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
            transaction.open_table(DECISIONS)?.retain(|_, _| false)?;
            transaction.open_table(LIVES)?.retain(|_, _| false)?;
            transaction.open_table(RECORDS)?.retain(|_, _| false)?;
            transaction.open_table(LEASES)?.retain(|_, _| false)?;
            Ok(transaction.commit()?)
        })
    }

    /// This node's own tables, attachments first.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn tables(&self) -> Result<Vec<KeptTable>, StateError> {
        self.with("read", |database| {
            let read = database.begin_read()?;
            let (all_lives, all_records) = (read.open_table(LIVES)?, read.open_table(RECORDS)?);
            let mut out = Vec::new();
            for entry in all_lives.iter()? {
                let (key, tips) = entry?;
                let lives = tips.value().chunks_exact(16).filter_map(read_version).collect();
                let mut records = Vec::new();
                for record in all_records.range((key.value(), [0; 16])..=(key.value(), [u8::MAX; 16]))? {
                    let (key, body) = record?;
                    records.push((Key::from_bytes(key.value().1), Body::from_bytes(body.value())));
                }
                out.push(KeptTable { scope: scope_of(key.value()), lives, records });
            }
            Ok(out)
        })
    }

    /// The endpoints that are tied to a connection.
    ///
    /// # Errors
    /// [`StateError`].
    pub(super) fn leases(&self) -> Result<Vec<Lease>, StateError> {
        self.with("read", |database| {
            let mut out = Vec::new();
            for entry in database.begin_read()?.open_table(LEASES)?.iter()? {
                let (key, grace_ms) = entry?;
                let (network, endpoint) = key.value();
                out.push((NetworkId::from_bytes(network), Key::from_bytes(endpoint), grace_ms.value()));
            }
            Ok(out)
        })
    }

    /// Ties endpoints to a connection, and unties others.
    ///
    /// # Errors
    /// [`StateError`]; nothing was changed then.
    pub(super) fn lease(&self, tied: &[Lease], untied: &[(NetworkId, Key)]) -> Result<(), StateError> {
        self.with("write", |database| {
            let transaction = database.begin_write()?;
            {
                let mut leases = transaction.open_table(LEASES)?;
                for (network, key) in untied {
                    leases.remove((*network.as_bytes(), *key.as_bytes()))?;
                }
                for (network, key, grace_ms) in tied {
                    leases.insert((*network.as_bytes(), *key.as_bytes()), grace_ms)?;
                }
            }
            Ok(transaction.commit()?)
        })
    }
}

const fn scope_key(scope: Scope) -> ScopeKey {
    match scope {
        Scope::Attachments => (0, [0; 16]),
        Scope::Network(network) => (1, *network.as_bytes()),
    }
}

const fn scope_of(key: ScopeKey) -> Scope {
    match key {
        (0, _) => Scope::Attachments,
        (_, network) => Scope::Network(NetworkId::from_bytes(network)),
    }
}

fn read_version(bytes: &[u8]) -> Option<Version> {
    let (generation, seq) = bytes.split_first_chunk()?;
    Some(Version { generation: u64::from_be_bytes(*generation), seq: u64::from_be_bytes(*seq.first_chunk()?) })
}

/// Keeps a step of an own table. With an attachment that goes, its network's table goes too.
fn keep_step(transaction: &WriteTransaction, step: &Step, lives: &[Version]) -> Result<(), redb::Error> {
    let scope = scope_key(step.scope);
    let tips: Vec<u8> =
        lives.iter().flat_map(|tip| [tip.generation.to_be_bytes(), tip.seq.to_be_bytes()]).flatten().collect();
    let mut all_lives = transaction.open_table(LIVES)?;
    let mut records = transaction.open_table(RECORDS)?;
    let all_of = |scope| (scope, [0; 16])..=(scope, [u8::MAX; 16]);
    let mut before = Vec::new();
    if step.scope == Scope::Attachments {
        for record in records.range(all_of(scope))? {
            before.push(record?.0.value().1);
        }
    }
    if step.is_whole() {
        records.retain_in(all_of(scope), |_, _| false)?;
    }
    all_lives.insert(scope, tips.as_slice())?;
    for change in &step.changes {
        let key = (scope, *change.key.as_bytes());
        match &change.body {
            Some(body) => drop(records.insert(key, body.as_bytes())?),
            None => drop(records.remove(key)?),
        }
    }
    for network in before {
        if records.get((scope, network))?.is_none() {
            let gone = (1, network);
            all_lives.remove(gone)?;
            records.retain_in(all_of(gone), |_, _| false)?;
        }
    }
    Ok(())
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
    write.open_table(LIVES)?;
    write.open_table(RECORDS)?;
    write.open_table(LEASES)?;
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
        let keep = |slot, n| Write::Decision(slot, Some(signed(n).to_bytes()));
        vault.write(&[keep(1, 1), keep(2, 2), keep(u64::MAX, 3)]).unwrap();
        vault.write(&[Write::Decision(2, None), keep(1, 4)]).unwrap();
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
        assert!(error.contains("store.redb"), "{error}");
    }
}
