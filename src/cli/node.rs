//! `gossipctl node update|promote|demote|rm`: what operators decide about nodes, one after the other as they are named.
//!
//! A node that cannot be decided about does not keep the others from it: it is told at the end. Not here: the arguments
//! (`args`).

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::args::{MetadataArgs, NodesArgs, RmArgs, UpdateArgs, Why};
use super::exit::{Exit, Failure, Outcome, printable};
use crate::api::{MemberFilter, Metadata, RemoveRequest, UpdateRequest, WAIT_MAX};
use crate::client::{Client, ClientError};
use crate::record::{NodeId, Role};

/// What `node update` decides.
pub(super) async fn update(socket: &Path, args: UpdateArgs) -> Result<Outcome, Failure> {
    let UpdateArgs { availability, role, label_add, label_rm, why, nodes } = args;
    let request = UpdateRequest {
        availability,
        role,
        labels_add: label_add.into_iter().collect::<BTreeMap<_, _>>(),
        labels_rm: label_rm,
        ..UpdateRequest::default()
    };
    if request == UpdateRequest::default() {
        let what = "nothing to change: give --availability, --role, --label-add or --label-rm";
        return Err(Failure::new(Exit::Usage, what));
    }
    decide(socket, &nodes, &request, &why, |node| format!("{node}\n")).await
}

/// What `node promote` decides.
pub(super) async fn promote(socket: &Path, args: NodesArgs) -> Result<Outcome, Failure> {
    let request = UpdateRequest { role: Some(Role::Manager), ..UpdateRequest::default() };
    decide(socket, &args.nodes, &request, &args.why, |node| {
        format!("Node {node} promoted to a manager in the cluster.\n")
    })
    .await
}

/// What `node demote` decides.
pub(super) async fn demote(socket: &Path, args: NodesArgs) -> Result<Outcome, Failure> {
    let request = UpdateRequest { role: Some(Role::Worker), ..UpdateRequest::default() };
    let mut outcome =
        decide(socket, &args.nodes, &request, &args.why, |node| format!("Manager {node} demoted in the cluster.\n"))
            .await?;
    if !outcome.out.is_empty() {
        outcome.warnings.push(
            "a former manager has held the cluster's CA key, and forgets it; if its machine is not to be trusted, change the CA: gossipctl ca --rotate"
                .to_owned(),
        );
    }
    Ok(outcome)
}

/// What `node rm` decides.
pub(super) async fn rm(socket: &Path, args: RmArgs) -> Result<Outcome, Failure> {
    let RmArgs { force, reason, wait, nodes } = args;
    let client = Client::connect(socket).await?;
    let mut outcome = Outcome::default();
    for node in &nodes {
        let request = RemoveRequest { force, reason: reason.clone(), wait: None };
        match client.remove_member(node, &request, wait).await {
            Ok(answer) => {
                outcome.out.push_str(&format!("{node}\n"));
                outcome.failures.extend(unconfirmed(&client, node, &answer.unconfirmed).await);
            }
            Err(error) => note(&mut outcome, error)?,
        }
    }
    Ok(outcome)
}

async fn decide(
    socket: &Path,
    nodes: &[String],
    request: &UpdateRequest,
    why: &Why,
    done: impl Fn(&str) -> String,
) -> Result<Outcome, Failure> {
    super::ctl::refuse_duration(nodes, why.wait)?;
    let Why { reason, deadline, wait } = why;
    let request = UpdateRequest { reason: reason.clone(), deadline: deadline.clone(), ..request.clone() };
    let client = Client::connect(socket).await?;
    let mut outcome = Outcome::default();
    for node in nodes {
        match client.update_member(node, &request, *wait).await {
            Ok(answer) => {
                outcome.out.push_str(&done(node));
                outcome.failures.extend(unconfirmed(&client, node, &answer.unconfirmed).await);
            }
            Err(error) => note(&mut outcome, error)?,
        }
    }
    Ok(outcome)
}

/// The daemon's own trouble ends the command; a refusal is one node's matter.
pub(super) fn note(outcome: &mut Outcome, error: ClientError) -> Result<(), Failure> {
    match error {
        ClientError::Problem(_) => outcome.failures.push(error.into()),
        // What was decided so far has to be said.
        other if outcome.out.is_empty() => return Err(other.into()),
        other => outcome.failures.push(other.into()),
    }
    Ok(())
}

/// What people call these nodes, with their ids.
pub(super) async fn names(client: &Client, nodes: &[NodeId]) -> String {
    // Only names are missing then.
    let members = client.members(&MemberFilter::default()).await.map(|listed| listed.members).unwrap_or_default();
    let name = |id: &NodeId| {
        let member = members.iter().find(|member| member.id == *id);
        match member.and_then(|member| member.hostname.as_ref().map(|name| (name, member.status))) {
            Some((hostname, status)) => format!("{} ({id}, {status})", printable(hostname)),
            None => id.to_string(),
        }
    };
    nodes.iter().map(name).collect::<Vec<_>>().join(", ")
}

async fn unconfirmed(client: &Client, node: &str, missing: &[NodeId]) -> Option<Failure> {
    if missing.is_empty() {
        return None;
    }
    let names = names(client, missing).await;
    let what = format!(
        "the decision about {node} is in force and spreads on, but these nodes have not confirmed it yet: {names}"
    );
    Some(Failure::new(Exit::Failed, what))
}

/// Shows or changes what is attached to this node.
pub(super) async fn metadata(socket: &Path, args: MetadataArgs) -> Result<Outcome, Failure> {
    let MetadataArgs { rm, entries } = args;
    let client = Client::connect(socket).await?;
    let id = client.self_info().await?.id;
    let mut metadata = client.member(&id.to_string()).await?.metadata;
    let before = metadata.clone();
    for key in &rm {
        if metadata.remove(key).is_none() {
            return Err(Failure::new(Exit::Failed, format!("there is no entry {key:?}")));
        }
    }
    metadata.extend(entries);
    if metadata != before {
        client.set_metadata(&Metadata { metadata: metadata.clone() }).await?;
    }
    Ok(Outcome::data(metadata.iter().map(|(key, value)| format!("{key}={}\n", printable(value))).collect::<String>()))
}

/// Reads `KEY=VALUE` of metadata, whose values may be longer than a label's.
pub(super) fn entry(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    crate::record::decision::validate_label(key, "").map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads `KEY=VALUE`; the value may be empty.
pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    crate::record::decision::validate_label(key, value).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Reads how long to wait for confirmations.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    let wait =
        humantime::parse_duration(text).map_err(|error| format!("{error} (a duration is written like 30s or 2m)"))?;
    if wait > WAIT_MAX {
        return Err(format!("{text} is too long: at most {} is waited", humantime::format_duration(WAIT_MAX)));
    }
    Ok(wait)
}
