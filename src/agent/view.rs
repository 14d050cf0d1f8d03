//! From what the node knows to what the API says: this node, its health, the nodes it lists, changes, filters and names.
//!
//! Not here: routes and permissions (`http`).

use super::daemon::Membership;
use super::rfc3339;
use crate::api::watch::{Cause, Change, Values};
use crate::api::{
    Capacity, ClusterInfo, Decision, Degraded, ManagerStatus, Member, MemberFilter, Members, Platform, Problem,
    ProblemKind,
};
use crate::node;
use crate::record::decision::{self as record, Subject, Verdict};
use crate::record::{Availability, NodeId, Role, Status, base36_encode};
use crate::wire::credential::ca_digest;

/// What is wrong with a node, in the API's words.
pub(super) fn degraded(reasons: &[node::Degraded]) -> Vec<Degraded> {
    let word = |reason: &node::Degraded| match reason {
        node::Degraded::Isolated => Degraded::Isolated,
        node::Degraded::UdpBlocked => Degraded::UdpBlocked,
        node::Degraded::Slow => Degraded::Slow,
        node::Degraded::ClockSkew => Degraded::ClockSkew,
    };
    reasons.iter().map(word).collect()
}

/// The cluster as this node is in it.
///
/// # Errors
/// The protocol task has stopped.
pub(super) async fn cluster_info(membership: &Membership) -> Result<ClusterInfo, Problem> {
    let stored = membership.trust.stored();
    let addresses = membership.addresses();
    let (generation, revision, managers, nodes, health) = membership
        .engine
        .query(|node| {
            let counts = node.count_by_status();
            let nodes = counts.iter().filter(|(status, _)| **status != Status::Left).map(|(_, count)| count).sum();
            (node.identity().generation, node.revision(), node.managers().len(), nodes, node.health())
        })
        .await?;
    Ok(ClusterInfo {
        id: stored.cluster_id,
        ca_digest: base36_encode(&membership.trust.ca_digest(), 50),
        role: stored.role,
        generation,
        listen_addr: addresses.listen,
        advertise_addr: addresses.advertise,
        data_path_addr: addresses.data_path,
        certificate_expires_at: rfc3339(stored.certificate_expires_at_ms),
        joined: membership.is_joined(),
        managers: managers + usize::from(stored.role == Role::Manager),
        nodes,
        revision,
        health_score: health.score,
        degraded: degraded(&health.reasons),
    })
}

/// All nodes that this one knows, by host name.
///
/// # Errors
/// The protocol task has stopped.
pub(super) async fn members(membership: &Membership) -> Result<Members, Problem> {
    let (revision, me, listed, health) =
        membership.engine.query(|node| (node.revision(), node.identity().id, node.members(), node.health())).await?;
    let now_us = membership.engine.clock.now().mono_us;
    let mut members: Vec<_> = listed.into_iter().map(|member| view(member, me, &health, now_us)).collect();
    let leads = |member: &Member| member.manager_status == Some(ManagerStatus::Leader);
    let leader = members.iter().filter(|member| leads(member)).max_by_key(|member| (member.leader_term, member.id));
    let leader = leader.map(|member| member.id);
    // Two lead for a moment, when one takes over: the later term counts.
    for member in members.iter_mut().filter(|member| leads(member) && Some(member.id) != leader) {
        member.manager_status = Some(ManagerStatus::Reachable);
    }
    members.sort_by(|a, b| (&a.hostname, a.id).cmp(&(&b.hostname, b.id)));
    Ok(Members { revision, members })
}

fn view(member: node::Member, me: NodeId, health: &node::Health, now_us: u64) -> Member {
    let (role, availability, manager_status) = (member.role(), member.availability(), manager_status(&member));
    let node::Member { swim, status, since_ms, record, heard_us, rtt_us, tcp_only, decided } = member;
    let is_self = swim.identity.id == me;
    let reasons = match (is_self, tcp_only) {
        (true, _) => health.reasons.as_slice(),
        (false, true) => &[node::Degraded::UdpBlocked],
        (false, false) => &[],
    };
    let record = record.as_deref();
    let details = record.map(|record| &record.details);
    Member {
        id: swim.identity.id,
        hostname: record.map(|record| record.hostname.clone()),
        address: swim.identity.addr,
        status,
        since: rfc3339(since_ms),
        availability,
        role,
        manager_status,
        leader_term: details.and_then(|details| details.leader_term),
        labels: decided.labels.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect(),
        decisions: decided.all().map(decision_view).collect(),
        data_path_addr: record.map(|record| record.data_path_addr),
        version: record.map(|record| record.agent_version.clone()),
        platform: record.map(|record| Platform { os: record.os.clone(), arch: record.arch.clone() }),
        joined_at: record.map(|record| rfc3339(record.joined_at_ms)),
        certificate_expires_at: details.map(|d| d.certificate_expires_at_ms).filter(|ms| *ms > 0).map(rfc3339),
        capacity: details.filter(|d| d.cpus > 0).map(|d| Capacity { cpus: d.cpus, memory_bytes: d.memory_bytes }),
        daemon_labels: details.map(|details| details.labels.clone()).unwrap_or_default(),
        metadata: details.map(|details| details.metadata.clone()).unwrap_or_default(),
        generation: swim.identity.generation,
        incarnation: swim.incarnation,
        last_heard_ms: (heard_us > 0).then(|| now_us.saturating_sub(heard_us) / 1_000),
        rtt_us,
        degraded: degraded(reasons),
        away_s: record.map(|record| record.away_s).filter(|away_s| *away_s > 0),
        is_self,
    }
}

/// What a manager's listing says of it; none for a worker.
fn manager_status(member: &node::Member) -> Option<ManagerStatus> {
    let holds_the_key = member.record.as_ref().is_some_and(|record| record.role == Role::Manager);
    if !holds_the_key || member.role() != Some(Role::Manager) {
        return None;
    }
    let leads = member.record.as_ref().is_some_and(|record| record.details.leader_term.is_some());
    Some(match member.status {
        Status::Ready | Status::Suspect if leads => ManagerStatus::Leader,
        Status::Ready | Status::Suspect => ManagerStatus::Reachable,
        Status::Down | Status::Left => ManagerStatus::Unreachable,
    })
}

/// A decision in the API's words.
pub(super) fn decision_view(decision: &record::Decision) -> Decision {
    let record::Decision { subject, verdict, reason, deadline_ms, stamp } = decision;
    let (register, key, value) = match verdict {
        Verdict::Availability(availability) => ("availability", None, Some(availability.to_string())),
        Verdict::Role(role) => ("role", None, Some(role.to_string())),
        Verdict::Label(key, value) => ("label", Some(key.clone()), value.clone()),
        Verdict::Removed => ("removed", None, None),
        Verdict::Token(role, _) => ("join-token", Some(role.to_string()), None),
        Verdict::Ca(record::CaStep { certificate, phase }) => {
            ("ca", Some(phase.word().to_owned()), Some(base36_encode(&ca_digest(certificate), 50)))
        }
        Verdict::Other(..) => ("other", None, None),
    };
    Decision {
        node: match subject {
            Subject::Node(node) => Some(*node),
            Subject::Cluster => None,
        },
        register: register.to_owned(),
        key,
        value,
        by: stamp.signer,
        at: rfc3339(stamp.at.ms()),
        reason: reason.clone(),
        deadline: deadline_ms.map(rfc3339),
    }
}

/// A node as the stream tells it: without all that changes unseen (see `api::watch`).
pub(super) fn told(member: node::Member, me: NodeId) -> Member {
    let member = view(member, me, &node::Health::default(), 0);
    Member { incarnation: 0, last_heard_ms: None, rtt_us: None, degraded: Vec::new(), ..member }
}

/// A change as the stream tells it.
pub(super) fn change(
    revision: u64,
    time_ms: u64,
    cause: node::Cause,
    (old, new): (Option<node::Member>, Option<node::Member>),
    me: NodeId,
) -> Change {
    let value = |member: Option<node::Member>| member.map(|member| Box::new(told(member, me)));
    told_change(revision, time_ms, cause, Values::Members { old: value(old), new: value(new) })
}

/// A change of what is decided, as the stream tells it.
pub(super) fn decided(
    revision: u64,
    time_ms: u64,
    cause: node::Cause,
    (old, new): (Option<&record::Decision>, Option<&record::Decision>),
) -> Change {
    let value = |decision: Option<&record::Decision>| decision.map(|decision| Box::new(decision_view(decision)));
    told_change(revision, time_ms, cause, Values::Decisions { old: value(old), new: value(new) })
}

/// A change whose values are in the API's words already.
pub(super) fn told_change(revision: u64, time_ms: u64, cause: node::Cause, what: Values) -> Change {
    let (cause, by) = reason(cause);
    Change { revision, time: rfc3339(time_ms), cause, by, what }
}

/// The cause in the API's words, and who was it.
const fn reason(cause: node::Cause) -> (Cause, Option<NodeId>) {
    let cause = match cause {
        node::Cause::Gossip => Cause::Gossip,
        node::Cause::Contact => Cause::Contact,
        node::Cause::Exchange => Cause::Exchange,
        node::Cause::ProbeTimeout => Cause::ProbeTimeout,
        node::Cause::Left => Cause::Left,
        node::Cause::Record => Cause::Record,
        node::Cause::Refuted => Cause::Refuted,
        node::Cause::Returned => Cause::Returned,
        node::Cause::Retention => Cause::Retention,
        node::Cause::Own => Cause::Own,
        node::Cause::Replaced(by) => return (Cause::Replaced, Some(by)),
        node::Cause::Decision(by) => return (Cause::Decision, Some(by)),
    };
    (cause, None)
}

/// The comma-separated words of one key of a query.
///
/// # Errors
/// A word that there is not. Nothing is none: whoever asks for no status must not be given all of them.
pub(super) fn words<T: std::str::FromStr<Err: ToString>>(key: &str, text: Option<&String>) -> Result<Vec<T>, Problem> {
    let bad = |reason: String| ProblemKind::BadRequest.problem(format!("filter {key}: {reason}"));
    let parse = |word: &str| match word {
        "" => Err(bad("a value is empty; leave the filter out to have all".to_owned())),
        word => word.parse().map_err(|error: T::Err| bad(error.to_string())),
    };
    text.into_iter().flat_map(|text| text.split(',')).map(parse).collect()
}

/// Those that fit.
///
/// # Errors
/// A word that the filter does not have.
pub(super) fn filtered(all: Members, filter: &MemberFilter) -> Result<Members, Problem> {
    let MemberFilter { status, role, availability, name, id } = filter;
    let statuses: Vec<Status> = words("status", status.as_ref())?;
    let roles: Vec<Role> = words("role", role.as_ref())?;
    let availabilities: Vec<Availability> = words("availability", availability.as_ref())?;
    let names: Vec<String> = words("name", name.as_ref())?;
    let ids: Vec<String> = words("id", id.as_ref())?;
    let fits = |member: &Member| {
        (statuses.is_empty() || statuses.contains(&member.status))
            && (roles.is_empty() || member.role.is_some_and(|role| roles.contains(&role)))
            && (availabilities.is_empty() || member.availability.is_some_and(|a| availabilities.contains(&a)))
            && (names.is_empty() || member.hostname.as_ref().is_some_and(|h| names.iter().any(|n| h.starts_with(n))))
            && (ids.is_empty() || ids.iter().any(|id| member.id.to_string().starts_with(id)))
    };
    Ok(Members { members: all.members.into_iter().filter(fits).collect(), ..all })
}

/// The keys of [`MemberFilter`].
pub(super) const FILTER_KEYS: [&str; 5] = ["status", "role", "availability", "name", "id"];

/// serde's own message for an unknown key would not say what the keys are.
///
/// # Errors
/// A key that there is not, or that is given twice.
pub(super) fn refuse_unknown_keys(query: Option<&str>, known: &[&str]) -> Result<(), Problem> {
    let keys: Vec<&str> = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').map_or(pair, |(key, _)| key))
        .collect();
    for (place, key) in keys.iter().enumerate() {
        if !known.contains(key) {
            let known = known.join(", ");
            return Err(ProblemKind::BadRequest.problem(format!("there is no filter {key:?}; filters are {known}")));
        }
        if keys.iter().take(place).any(|before| before == key) {
            return Err(ProblemKind::BadRequest.problem(format!(
                "filter {key} is given twice; alternatives are separated by commas: {key}=VALUE,VALUE"
            )));
        }
    }
    Ok(())
}

/// The one node that a reference names.
///
/// # Errors
/// None fits, or several do.
pub(super) fn find(members: Vec<Member>, reference: &str) -> Result<Member, Problem> {
    let matching = |fits: &dyn Fn(&Member) -> bool| members.iter().filter(|member| fits(member)).collect::<Vec<_>>();
    let by_id = matching(&|member| member.id.to_string() == reference || (reference == "self" && member.is_self));
    // A machine that has left and joined again is its name's bearer, not what it was before.
    let mut by_name = matching(&|member| member.hostname.as_deref() == Some(reference));
    if by_name.iter().any(|member| member.status != Status::Left) {
        by_name.retain(|member| member.status != Status::Left);
    }
    let by_prefix = matching(&|member| !reference.is_empty() && member.id.to_string().starts_with(reference));
    let found = [by_id, by_name, by_prefix].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    match found.as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err(ProblemKind::NotFound
            .problem(format!("there is no node {reference:?}; 'gossipctl members' lists the nodes"))),
        several => {
            let row = |member: &&Member| {
                format!("{} {} {}", member.id, member.hostname.as_deref().unwrap_or("-"), member.status)
            };
            Err(ProblemKind::Ambiguous
                .problem(format!("{reference:?} fits {} nodes; use an id", several.len()))
                .with_candidates(several.iter().map(row).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_no_word() {
        let read = |text: &str| words::<Status>("status", Some(&text.to_owned())).map_err(|problem| problem.detail);
        assert_eq!(read("ready,down"), Ok(vec![Status::Ready, Status::Down]));
        assert_eq!(words::<Status>("status", None), Ok(Vec::new()));
        for text in ["", ",", "ready,", ",ready"] {
            assert_eq!(read(text), Err("filter status: a value is empty; leave the filter out to have all".to_owned()));
        }
    }

    #[test]
    fn keys_of_a_query_are_those_of_the_filter() {
        let word = || Some("x".to_owned());
        let all = MemberFilter { status: word(), role: word(), availability: word(), name: word(), id: word() };
        let all = serde_json::to_value(all).unwrap();
        let keys: std::collections::BTreeSet<_> = all.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, FILTER_KEYS.into_iter().collect());
        for good in ["", "status=ready,down&role=worker", "name="] {
            assert!(refuse_unknown_keys(Some(good), &FILTER_KEYS).is_ok(), "{good}");
        }
        let detail = |query| refuse_unknown_keys(Some(query), &FILTER_KEYS).unwrap_err().detail;
        assert_eq!(
            detail("status=ready&colour=red"),
            "there is no filter \"colour\"; filters are status, role, availability, name, id"
        );
        assert!(detail("status=ready&status=down").starts_with("filter status is given twice"));
    }
}
