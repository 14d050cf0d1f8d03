//! Comparing tables with another member: when, and what follows.
//!
//! Greetings carry a digest over what both nodes hold ([`Tables::digest_with`]); a difference that lasts leads to a
//! comparison, which is at most three exchanges: where do we differ, what is lacking on either side, and, if it was much,
//! the rest. A node that joins compares before it says that it has joined, with one member for each of its networks; one
//! that attaches itself compares at once and once more a moment later, as what was on its way did not go to it yet.
//!
//! [`Tables::digest_with`]: super::tables::Tables::digest_with

use std::collections::BTreeSet;

use super::holdings::Difference;
use super::mutant::Mutant;
use super::stats::Kind;
use super::timers::Timer;
use super::{Cause, Identity, Node, Now, Peer, Purpose};
use crate::record::network::NetworkId;
use crate::record::{NodeId, Version};
use crate::wire::datagram::Writer;
use crate::wire::exchange::{Digest, Request};
use crate::wire::table::{Listing, Scope, Step, TableReply, TableRequest, Want};

/// How long one exchange may take, in milliseconds.
const PATIENCE_MS: u64 = 10_000;
/// Time from the attachment to a network to the second comparison, in microseconds: everybody knows of it by then.
const ATTENDED_AGAIN_US: u64 = 300_000;
/// How long a difference may last that greetings have shown, in microseconds: steps arrive within less.
const LASTING_US: u64 = 800_000;
/// How long others are believed to lack what was handed to them of an owner that is down, in milliseconds: longer than news
/// takes to get about.
const HANDED_OVER_MS: u64 = 10_000;
/// Longest time between two comparisons that bring nothing, in microseconds: another member may have what is lacking.
const FUTILE_WAIT_MAX_US: u64 = 8_000_000;
/// Tables that differ at one version, of which the owners are asked at a time.
const DISPUTES_MAX: usize = 4;

impl Node {
    /// The digest over what both nodes hold.
    pub(super) fn tables_digest(&self, peer: NodeId) -> Digest {
        self.holdings.tables.digest_with(peer).to_be_bytes()
    }

    /// Another node says what it holds, hashed. What differs may be on its way: it is compared if nobody has shown within a
    /// second that it has arrived. Others who agree show that only if they hold all that is in doubt. Does this node hold the
    /// same, as far as it can tell?
    pub(super) fn tables_greeted(&mut self, now: Now, sender: NodeId, digest: [u8; 8]) -> bool {
        if self.config.has(Mutant::NoTableComparison) {
            return true;
        }
        let agrees = self.tables_digest(sender).starts_with(&digest);
        if agrees {
            self.holdings.agreement.agreed(now);
            let tables = &self.holdings.tables;
            let covers =
                |peer: NodeId| tables.scopes_with(peer).all(|scope| tables.scopes_with(sender).any(|s| s == scope));
            if self.holdings.difference.is_some_and(|Difference { peer, .. }| peer == sender || covers(peer)) {
                self.holdings.difference = None;
            }
        } else if self.holdings.difference.is_none() {
            let difference = Difference { peer: sender, since_us: now.mono_us, ours: self.tables_digest(sender) };
            self.holdings.difference = Some(difference);
            self.timers.submit(now.mono_us + LASTING_US, Timer::Differ);
        }
        self.look_into_difference(now);
        agrees
    }

    /// Nobody has greeted meanwhile. What came since may have been all that was lacking: then the next greeting tells.
    pub(super) fn difference_timer(&mut self, now: Now) {
        if self.holdings.difference.is_some_and(|Difference { peer, ours, .. }| self.tables_digest(peer) == ours) {
            self.look_into_difference(now);
        }
    }

    fn look_into_difference(&mut self, now: Now) {
        if let Some(Difference { peer, since_us, .. }) = self.holdings.difference
            && now.mono_us >= since_us + LASTING_US
            && self.holdings.agreement.is_due(now)
        {
            self.holdings.difference = None;
            self.compare_tables(peer);
        }
    }

    /// Greets somebody in networks that few take part in: those who are greeted with probes are mostly others.
    pub(super) fn greet_attached(&mut self, now: Now) {
        let members = self.audience(Scope::Attachments).len();
        let networks: Vec<_> = self.holdings.tables.networks().collect();
        for network in networks {
            let audience = self.audience(Scope::Network(network));
            if audience.len() * 2 > members {
                continue;
            }
            for to in self.choose_of(audience, 1) {
                self.greet(now, to.id);
            }
        }
    }

    /// Says what this node holds, hashed, in a datagram of its own.
    pub(super) fn greet(&mut self, now: Now, to: NodeId) {
        let Some(to) = self.table.swim(to).map(|swim| swim.identity) else { return };
        let mut writer = Writer::new(self.config.payload_bytes_max());
        self.write_greeting(now, to, &mut writer);
        self.send_payload(to, Kind::Tables, writer);
    }

    pub(super) fn write_greeting(&self, now: Now, to: Identity, writer: &mut Writer) {
        writer.hello(&self.hello(now));
        if let Some(digest) = self.tables_digest(to.id).first_chunk().filter(|digest| **digest != [0; 8]) {
            writer.tables(*digest);
        }
    }

    /// This node is attached to a network from now on.
    pub(super) fn attached(&mut self, now: Now, network: NetworkId) {
        if self.joined {
            self.attend(network);
            self.timers.submit(now.mono_us + ATTENDED_AGAIN_US, Timer::Attend(network));
        }
    }

    /// Compares with a random member that is attached to a network, if there is one.
    pub(super) fn attend(&mut self, network: NetworkId) -> bool {
        let audience = self.audience(Scope::Network(network));
        let chosen = self.choose_of(audience, 1);
        chosen.first().is_some_and(|peer| self.compare_tables(peer.id))
    }

    /// Begins to compare with a member; `false` when that is not possible now.
    pub(super) fn compare_tables(&mut self, peer: NodeId) -> bool {
        let Some(to) = self.table.get(peer).map(|member| member.swim.identity) else { return false };
        let request = Request::Tables(TableRequest::Compare(self.holdings.tables.summaries(peer)));
        let scopes = self.holdings.tables.scopes_with(peer).count();
        self.exchange(to.addr, Some(peer), Purpose::Tables(scopes), &request, PATIENCE_MS)
    }

    /// Another node asks about tables.
    pub(super) fn answer_tables(&mut self, now: Now, peer: Peer, request: TableRequest) -> TableReply {
        match request {
            TableRequest::Compare(summaries) => {
                TableReply::Differences(self.holdings.tables.differences(peer.id, &summaries))
            }
            TableRequest::Fetch { wants, steps } => {
                let owners: BTreeSet<_> = steps.iter().map(|step| step.owner).collect();
                let took = self.take_steps(now, peer, steps);
                let tables = &self.holdings.tables;
                let uncompared = owners.into_iter().filter(|owner| !tables.is_compared(*owner)).collect();
                let (steps, more) = tables.serve(&wants);
                TableReply::Steps { steps, more, took, uncompared }
            }
            TableRequest::Seen(sight) => {
                TableReply::Seen(self.holdings.tables.has_seen(sight.scope, sight.owner, sight.version))
            }
        }
    }

    /// The answer to [`Node::compare_tables`], or to what followed from it.
    pub(super) fn tables_answered(&mut self, now: Now, peer: Peer, scopes: usize, reply: TableReply) {
        match reply {
            TableReply::Differences(listings) => self.tables_differ(now, peer, scopes, &listings),
            TableReply::Steps { steps, more, took, uncompared } => {
                let any = self.take_steps(now, peer, steps);
                // What is left of those that are gone is soon compared by nobody, or the two would never agree.
                for owner in uncompared {
                    if self.down_since_ms(owner).is_some_and(|since_ms| now.unix_ms >= since_ms + HANDED_OVER_MS) {
                        self.holdings.tables.set_compared(owner, false);
                    }
                }
                let agreement = &mut self.holdings.agreement;
                if any || took {
                    agreement.mended()
                } else {
                    agreement.failed(FUTILE_WAIT_MAX_US)
                }
                // Without progress the rest would be refused too.
                if !(any && more && self.compare_tables(peer.id)) {
                    self.tables_compared(peer, scopes);
                }
            }
            TableReply::Seen(_) => {}
        }
    }

    fn tables_differ(&mut self, now: Now, peer: Peer, scopes: usize, listings: &[Listing]) {
        let resolved = self.holdings.tables.resolve(listings);
        for (scope, heard) in resolved.foreign {
            self.reassert(now, scope, heard);
        }
        for (scope, owner) in resolved.disputed.into_iter().take(DISPUTES_MAX) {
            let Some(to) = self.table.get(owner).map(|member| member.swim).filter(super::Swim::is_active) else {
                continue;
            };
            let everything = Want { scope, owner, since: Version::NONE };
            self.fetch_steps(to.identity, vec![everything], Vec::new());
        }
        let to = self.table.get(peer.id).map(|member| member.swim.identity);
        let is_nothing = resolved.wants.is_empty() && resolved.steps.is_empty();
        if is_nothing {
            self.holdings.agreement.failed(FUTILE_WAIT_MAX_US);
        }
        let follows = !is_nothing && to.is_some_and(|to| self.fetch_steps(to, resolved.wants, resolved.steps));
        if !follows {
            self.tables_compared(peer, scopes);
        }
    }

    /// Asks over TLS for steps, and hands over others.
    fn fetch_steps(&mut self, to: Identity, wants: Vec<Want>, steps: Vec<Step>) -> bool {
        let scopes = self.holdings.tables.scopes_with(to.id).count();
        let request = Request::Tables(TableRequest::Fetch { wants, steps });
        self.exchange(to.addr, Some(to.id), Purpose::Tables(scopes), &request, PATIENCE_MS)
    }

    pub(super) fn take_steps(&mut self, now: Now, peer: Peer, steps: Vec<Step>) -> bool {
        let mut any = false;
        for step in steps {
            any |= self.take_step(now, peer.id, step, Cause::Exchange) == Ok(true);
        }
        any
    }

    /// All that could be had from `peer` is here: what it does not hold, somebody else has to say before this node has
    /// joined.
    fn tables_compared(&mut self, peer: Peer, scopes: usize) {
        // An attachment may have shown that there is more to compare.
        let is_more = self.holdings.tables.scopes_with(peer.id).count() > scopes;
        if is_more && self.compare_tables(peer.id) || self.joined {
            return;
        }
        let tables = &self.holdings.tables;
        self.holdings.unmet.retain(|network| !tables.is_attached(*network, peer.id));
        while let Some(network) = self.holdings.unmet.pop_first() {
            if self.attend(network) {
                return;
            }
        }
        self.has_joined(peer);
    }

    /// Everything else has been compared with `peer`, whose digest over tables was `theirs`.
    pub(super) fn tables_synced(&mut self, now: Now, peer: Peer, theirs: Digest) {
        let differ = theirs != self.tables_digest(peer.id) && !self.config.has(Mutant::NoTableComparison);
        if self.joined {
            if !differ {
                self.holdings.agreement.agreed(now);
            } else if self.holdings.agreement.is_due(now) {
                self.compare_tables(peer.id);
            }
            return;
        }
        self.holdings.unmet = self.holdings.tables.networks().collect();
        if !(differ && self.compare_tables(peer.id)) {
            self.tables_compared(peer, usize::MAX);
        }
    }
}
