//! What the protocol core tells, passed on: to the log, to those who wait, and to the stream's history.

use super::Task;
use crate::agent::{network_view, view};
use crate::node::{Cause, Degraded, Event, Health, Member};
use crate::record::Status;
use crate::record::decision::Words;

impl Task {
    pub(super) fn tell(&self, event: Event) {
        match event {
            Event::Member { revision, cause, old, new } => {
                let Some(member) = new.as_deref().or(old.as_deref()) else { return };
                let hostname = member.record.as_ref().map_or("-", |record| record.hostname.as_str());
                let place = |member: &Member| (member.status, member.swim.identity);
                if old.as_deref().map(place) != new.as_deref().map(place) {
                    self.progress.send_modify(|progress| progress.changes += 1);
                }
                let before = old.as_ref().map_or("unknown", |old| old.status.word());
                let after = new.as_ref().map_or("forgotten", |new| new.status.word());
                let id = member.swim.identity.id;
                let address = member.swim.identity.addr;
                let (why, cause) = (cause, cause.word());
                if before == after {
                    tracing::debug!(node = %id, hostname, %address, status = after, cause, "member changed");
                } else if member.status == Status::Suspect {
                    tracing::debug!(node = %id, hostname, %address, before, after, cause, "member suspected");
                } else {
                    tracing::info!(node = %id, hostname, %address, before, after, cause, "member status");
                }
                self.publish(revision, why, old, new);
            }
            Event::Decision { revision, cause, old, new } => {
                if let Some(decision) = new.as_ref().or(old.as_ref()) {
                    tracing::info!(decision = %Words(decision), stands = new.is_some(), "decided");
                }
                let values = (old.as_deref(), new.as_deref());
                self.hub.publish(view::decided(revision, self.clock.now().unix_ms, cause, values));
                self.progress.send_modify(|progress| progress.decisions += 1);
            }
            Event::Table { revision, cause, change, down_since_ms } => {
                tracing::trace!(revision, cause = cause.word(), ?change, "table changed");
                let what = network_view::changed(&change, down_since_ms);
                self.hub.publish(view::told_change(revision, self.clock.now().unix_ms, cause, what));
            }
            Event::Conflict { revision, network, addr, old, new } => {
                match &new {
                    Some(conflict) => {
                        tracing::warn!(%network, %addr, claims = %conflict, "an address is claimed by several; the first has it");
                    }
                    None => tracing::info!(%network, %addr, "an address is not claimed by several any more"),
                }
                let what = network_view::conflicted(old.as_ref(), new.as_ref());
                self.hub.publish(view::told_change(revision, self.clock.now().unix_ms, Cause::Record, what));
            }
            Event::Removed(decision) => {
                // The first one counts.
                let _ = self.removed.try_send(decision);
            }
            Event::Confirmed { .. } | Event::Examined { .. } => {
                self.progress.send_modify(|progress| progress.confirmations += 1)
            }
            Event::Joined { with } => {
                tracing::info!(%with, "state exchanged with a member");
                self.progress.send_modify(|progress| progress.joined = true);
            }
            Event::LeaveDone { acknowledged } => {
                self.progress.send_modify(|progress| progress.left = Some(acknowledged));
            }
            Event::Health(health) => tell_health(&health),
            Event::IdentityConflict { addr, generation, gives_way } => tracing::error!(
                addr = addr.map(tracing::field::display),
                generation,
                gives_way,
                "another node uses this node's id, perhaps from a cloned disk: remove the state directory of one of them and join it again"
            ),
        }
    }

    /// Appends to the history. Whoever watches takes it from there in its own time.
    fn publish(&self, revision: u64, cause: Cause, old: Option<Box<Member>>, new: Option<Box<Member>>) {
        let values = (old.map(|old| *old), new.map(|new| *new));
        let me = self.node.identity().id;
        self.hub.publish(view::change(revision, self.clock.now().unix_ms, cause, values, me));
    }
}

fn tell_health(health: &Health) {
    let reasons: Vec<_> = health.reasons.iter().map(|reason| reason.word()).collect();
    let (score, reasons) = (health.score, reasons.join(","));
    if health.reasons.contains(&Degraded::Isolated) {
        tracing::warn!(score, reasons, "own health: nobody is heard, and the listing stays as it was");
    } else {
        tracing::info!(score, reasons, "own health");
    }
}
