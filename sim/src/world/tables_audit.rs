//! Looks at the tables of whole nodes: against their events, against what owners have, and against each other.
//!
//! Not here: what is looked at with each change (`tables`).

use std::collections::BTreeMap;

use gossipd::node::Node;
use gossipd::record::{Status, Version};
use gossipd::wire::table::Scope;

use super::World;
use super::registry::Burial;
use super::tables::down_since_ms;
use crate::host::HostId;
use crate::shown::Place;
use crate::writing::{self, ATTACHMENTS};

/// A table that is not as it should be: whose and which, at whom.
type Odd = (HostId, Place);

impl World {
    /// Whether each of `hosts` that runs shows of each other one exactly what is on its disk.
    pub fn are_tabled(&mut self, hosts: &[HostId]) -> bool {
        if self.registry.tables.is_empty() || self.protocol != crate::outcome::Protocol::Gossipd {
            return true;
        }
        let changes = self.registry.changes;
        if let Some((_, agreed)) = self.registry.agreed.filter(|(at, _)| *at == changes) {
            return agreed;
        }
        let agreed = self.odd_table(hosts).is_none();
        self.registry.agreed = Some((changes, agreed));
        agreed
    }

    fn odd_table(&self, hosts: &[HostId]) -> Option<Odd> {
        let living: Vec<_> = hosts.iter().copied().filter(|host| self.lives(*host)).collect();
        let owners: Vec<_> = living.iter().map(|host| self.owner(*host)).collect();
        let owners: Vec<_> = owners.into_iter().filter(|owner| !self.registry.doubtful.contains(owner)).collect();
        living.iter().find_map(|observer| {
            let odd = owners.iter().find_map(|owner| self.odd_at(*observer, *owner))?;
            Some((*observer, odd))
        })
    }

    fn odd_at(&self, observer: HostId, owner: u32) -> Option<Place> {
        let shown = &self.host(observer).view.shown;
        let me = self.owner(observer);
        let networks = self.registry.networks(owner).filter(|network| self.registry.is_attached(me, *network));
        let places = std::iter::once(ATTACHMENTS).chain(networks).map(|scope| (owner, scope));
        places.into_iter().find(|place| shown.sum(*place).content() != self.registry.content(*place))
    }

    /// Up to `count` of the tables that are not as they should be, in words.
    pub(crate) fn odd_tables(&self, count: usize) -> Vec<String> {
        let all: Vec<_> = self.living().collect();
        if self.protocol != crate::outcome::Protocol::Gossipd {
            return Vec::new();
        }
        let pairs = all.iter().flat_map(|observer| all.iter().map(move |owner| (*observer, *owner)));
        let odd = pairs.filter_map(|(observer, host)| {
            let place = self.odd_at(observer, self.owner(host))?;
            let shown = self.host(observer).view.shown.sum(place);
            let table = self.registry.table(place)?;
            Some(format!(
                "{observer} shows {} records of {host} in network {} at {:?}, there are {} at {:?}",
                shown.records, place.1, shown.version, table.content.1, table.last
            ))
        });
        odd.take(count).collect()
    }

    /// The checks of tables once all is calm.
    pub(crate) fn check_tabled(&mut self, hosts: &[HostId]) {
        if self.registry.tables.is_empty() {
            return;
        }
        let odd = self.odd_table(hosts);
        let words = self.odd_tables(4).join("; ");
        self.checks.same_tables(odd.is_none(), || words);
        // Whoever stays cut off may not know.
        let is_late = |burial: &&Burial| burial.left.iter().any(|host| hosts.contains(host));
        let unburied = self.registry.burials.iter().filter(is_late).count();
        let buried = self.registry.buried_us.len();
        self.checks.buried(unburied, buried);
        self.check_conflicts(hosts);
        self.check_digests(1, usize::MAX);
    }

    /// Whoever holds the same tells of the same conflicts.
    fn check_conflicts(&mut self, hosts: &[HostId]) {
        let told = |node: &Node| {
            let is_down =
                |id| node.members().iter().any(|one| one.swim.identity.id == id && one.status == Status::Down);
            let network = writing::network_id(writing::NETWORK);
            node.tables().conflicts(network, is_down)
        };
        let network = writing::NETWORK;
        let attached = |host: &&HostId| self.registry.is_attached(self.owner(**host), network);
        let all: Vec<_> =
            hosts.iter().filter(attached).filter_map(|host| Some((*host, told(self.node(*host)?)))).collect();
        let Some((first, conflicts)) = all.first().filter(|_| self.registry.doubtful.is_empty()) else { return };
        // Of those that are down some may have been told less.
        if self.book.changes.iter().any(|change| change.new == Some(Status::Down)) {
            return;
        }
        for (host, theirs) in all.iter().skip(1) {
            self.checks.same_conflicts([*first, *host], conflicts == theirs);
        }
    }

    /// The checks of the tables that one node holds.
    pub(super) fn check_tables_of(&mut self, host: HostId) {
        let Some(node) = self.node(host).filter(|_| !self.registry.tables.is_empty()) else { return };
        let held = self.held(node);
        let view = &self.host(host).view;
        let odd =
            held.iter().find(|(place, name, hash)| view.shown.get(*place, name).map(|one| one.hash) != Some(*hash));
        let odd = odd.map(|(place, ..)| *place);
        let folds = odd.is_none() && view.shown.iter().count() == held.len();
        let marked = view.shown.iter().find(|(place, _, record)| {
            let row = view.get(place.0 as usize);
            row.is_some() && record.down_since_ms != down_since_ms(row)
        });
        let marked = marked.map(|(place, ..)| place);
        let me = self.owner(host);
        let is_strange =
            |network: &u8| !self.registry.is_attached(me, *network) && node.tables().holds(writing::scope(*network));
        let networks: std::collections::BTreeSet<_> =
            self.registry.tables.keys().map(|(_, scope)| *scope).filter(|scope| *scope != ATTACHMENTS).collect();
        let strange = networks.iter().find(|network| is_strange(network)).copied();
        let is_certain = !self.registry.doubtful.contains(&me);
        self.checks.tables_fold(host, folds, odd);
        self.checks.marked(host, marked.is_none(), &marked.unwrap_or_default());
        if is_certain {
            self.checks.attached(host, strange.is_none(), strange.unwrap_or_default());
        }
    }

    /// Compares digests of pairs that are `apart`: equal ones mean equal content, and equal versions equal digests.
    pub(crate) fn check_digests(&mut self, apart: usize, pairs_max: usize) {
        if self.registry.tables.is_empty() {
            return;
        }
        let living: Vec<_> = self.living().collect();
        let others = living.iter().cycle().skip(apart % living.len().max(1));
        let pairs: Vec<_> = living.iter().copied().zip(others.copied()).take(pairs_max).collect();
        for (one, other) in pairs.into_iter().filter(|(one, other)| one != other) {
            self.check_pair(one, other);
        }
    }

    pub(super) fn check_pair(&mut self, one: HostId, other: HostId) {
        let (Some(here), Some(there)) = (self.node(one), self.node(other)) else { return };
        let common: Vec<_> = std::iter::once(Scope::Attachments)
            .chain(
                here.tables()
                    .networks()
                    .filter(|network| there.tables().holds(Scope::Network(*network)))
                    .map(Scope::Network),
            )
            .collect();
        let mut found = Vec::new();
        for scope in common {
            let same_digest = here.tables().digest(scope) == there.tables().digest(scope);
            let [mine, theirs] = [one, other].map(|host| self.listed_in(host, scope));
            let both: Vec<_> = mine
                .iter()
                .filter_map(|(owner, (sum, is_up))| {
                    let (other, is_up_there) = theirs.get(owner)?;
                    (*is_up && *is_up_there).then_some((*sum, *other))
                })
                .collect();
            let is_whole = both.len() == mine.len() && both.len() == theirs.len();
            let same = both.iter().all(|(one, other)| one == other);
            found.push((scope, !same_digest || same, same_digest || !same || !is_whole));
        }
        for (scope, means_equal, follows) in found {
            self.checks.digests([one, other], means_equal, follows, scope);
        }
    }

    /// What `host` shows in a scope, by owner: content and version, and whether the owner is listed as running.
    #[expect(clippy::type_complexity, reason = "a digest with its version, and whether the owner runs")]
    fn listed_in(&self, host: HostId, scope: Scope) -> BTreeMap<u32, (((u64, u32), Version), bool)> {
        let number = writing::scope_number(scope);
        let view = &self.host(host).view;
        let Some(node) = self.node(host) else { return BTreeMap::new() };
        let known = self
            .registry
            .tables
            .keys()
            .filter(|(owner, in_scope)| *in_scope == number && !self.registry.doubtful.contains(owner));
        known
            .filter_map(|(owner, _)| {
                let held = node.tables().version(scope, self.id_of(*owner)?);
                let row = view.get(*owner as usize);
                let is_up = *owner == self.owner(host)
                    || row.is_some_and(|row| matches!(row.status, Status::Ready | Status::Suspect));
                let is_shown = number == ATTACHMENTS || view.shown.get((*owner, ATTACHMENTS), &[number; 16]).is_some();
                let content = view.shown.sum((*owner, number)).content();
                (held != Version::NONE && is_shown).then_some((*owner, ((content, held), is_up)))
            })
            .collect()
    }
}
