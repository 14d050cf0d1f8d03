//! Looks at whole nodes: their listings against events, against the SWIM core, against what was ever born; their queues.
//!
//! Not here: what is looked at when a single row changes (`truth`).

use std::collections::BTreeMap;

use gossipd::record::NodeId;
use gossipd::record::decision::{Decided, Register, Subject};

use super::World;
use crate::brain::Brain;
use crate::host::HostId;
use crate::view::{Row, View};

/// How long an observer may list two active nodes at one address, in microseconds.
const DOUBLE_US: u64 = 2_000_000;

impl World {
    /// The checks that look at whole listings: against events, against foca, against what was ever born.
    pub fn check_all(&mut self) {
        for id in self.hosts() {
            self.check_mirror(id);
            self.check_listing(id);
        }
    }

    /// The checks that look at the whole listing of one node.
    pub fn check_listing(&mut self, id: HostId) {
        let host = self.host(id);
        let Some(node) = &host.node else { return };
        let members = node.members();
        let has_decisions = host.view.decisions().next().is_some();
        let own = members.iter().find(|member| member.swim.identity.id == host.node_id).map(|own| own.status);
        let theirs: BTreeMap<_, _> = members
            .iter()
            .filter(|member| member.swim.identity.id != host.node_id)
            .filter_map(|member| Some((*self.truth.ids.get(&member.swim.identity.id)?, Row::from(member))))
            .collect();
        let wrong = theirs.iter().find(|(number, row)| host.view.get(**number).map(Row::told) != Some(row.told()));
        let folded =
            wrong.is_none() && host.view.iter().count() == theirs.len() && host.view.folds_to(&node.decisions());
        let odd = members.iter().find(|member| *member.decided != decided_by(&host.view, member.swim.identity.id));
        let odd = odd.map(|member| format!("{}: {:?}", member.swim.identity.id, member.decided));
        let (born, members, swim_errors) = (self.truth.born.len(), members.len(), host.totals().swim_errors);
        self.checks.own(id, own);
        if has_decisions {
            self.checks.listed_as_decided(id, odd.as_deref());
        }
        self.checks.listing(id, folded, born, members, swim_errors);
        self.check_tables_of(id);
    }

    /// The checks of what one node holds, and of what it sent since they were made last.
    pub(crate) fn check_resources(&mut self, id: HostId) {
        let Some(node) = &self.host(id).node else { return };
        let depths = node.queue_depths();
        let born = self.truth.born.len();
        let bytes = std::mem::take(&mut self.host_mut(id).second_bytes);
        for (_, depth) in &depths {
            self.book.queue_max = self.book.queue_max.max(*depth);
        }
        self.checks.resources(id, &depths, born, bytes);
    }

    pub(super) fn check_mirror(&mut self, id: HostId) {
        let Some(errors) = self.brain(id).map(Brain::mirror_errors) else { return };
        self.checks.mirror(id, self.now_us, &errors);
    }

    /// Looks for pairs at one address that should be told apart by now: a newcomer may have taken the address of a node
    /// whose death is not known yet.
    pub(crate) fn check_doubles(&mut self) {
        let now_us = self.now_us;
        let (late, fresh) = std::mem::take(&mut self.truth.doubles)
            .into_iter()
            .partition(|(_, since_us)| now_us - since_us > DOUBLE_US);
        self.truth.doubles = fresh;
        let late: BTreeMap<_, _> = late;
        for ((observer, one, other), since_us) in late {
            let place = |number: usize| self.truth.born.get(number).map(|born| born.host);
            if let (Some(one), Some(other), true) =
                (place(one), place(other), self.lives(observer) && self.is_healthy(observer))
            {
                self.checks.doubled(observer, [one, other], now_us - since_us);
            }
        }
    }
}

/// What a view's decisions amount to for one node; nothing for one that was removed.
fn decided_by(view: &View, node: NodeId) -> Decided {
    let about = view.decisions().filter(|(key, _)| key.subject == Subject::Node(node));
    let all: Vec<_> = about.map(|(_, told)| &told.decision).collect();
    let is_removed = all.iter().any(|decision| decision.key().register == Register::Removed);
    if is_removed { Decided::default() } else { Decided::collect(all) }
}
