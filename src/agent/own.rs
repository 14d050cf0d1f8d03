//! What this node says of itself, and what local programs attach to it.

use std::collections::BTreeMap;

use super::addr::Addresses;
use super::capacity;
use super::daemon::Daemon;
use super::state::StoredCluster;
use super::trust::lock;
use crate::api::{Problem, ProblemKind};
use crate::node::Command;
use crate::record::{Details, NodeRecord};
use crate::wire::credential::ca_tag;

impl Daemon {
    /// What this node says of itself beside what gossip needs.
    fn details(&self, stored: &StoredCluster) -> Details {
        let (cpus, memory_bytes) = capacity::read();
        Details {
            certificate_expires_at_ms: stored.certificate_expires_at_ms,
            leader_term: None,
            cpus,
            memory_bytes,
            labels: self.settings.labels.clone(),
            metadata: lock(&self.state).metadata(),
            certificate_ca: ca_tag(&stored.ca_certificate),
            reserve_ca: stored.reserve.as_ref().map_or(0, |reserve| ca_tag(&reserve.ca_certificate)),
        }
    }

    /// Replaces what programs attach to this node: on the disk first, then told to all.
    ///
    /// # Errors
    /// A problem; the old metadata stays then.
    pub(super) async fn set_metadata(&self, metadata: BTreeMap<String, String>) -> Result<(), Problem> {
        let _changing = self.changing.lock().await;
        let details = Details { labels: self.settings.labels.clone(), metadata, ..Details::default() };
        details.validate().map_err(|error| ProblemKind::BadRequest.problem(error.to_string()))?;
        lock(&self.state)
            .save_metadata(details.metadata.clone())
            .map_err(|error| ProblemKind::Internal.problem(error.to_string()))?;
        if let Some(membership) = self.membership() {
            let mut said = membership.engine.query(|node| node.details()).await?;
            said.metadata = details.metadata;
            membership.engine.command(Command::Describe(Box::new(said))).await?;
        }
        Ok(())
    }

    /// What this node says of itself in a new life.
    pub(super) fn own_record(&self, stored: &StoredCluster, addresses: Addresses, generation: u64) -> NodeRecord {
        NodeRecord {
            hostname: self.settings.hostname.clone(),
            role: stored.role,
            availability: stored.options.availability.unwrap_or(self.settings.availability),
            data_path_addr: addresses.data_path,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            joined_at_ms: stored.joined_at_ms,
            started_generation: generation,
            left: false,
            away_s: 0,
            details: self.details(stored),
        }
    }
}
