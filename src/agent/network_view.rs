//! Attachments and endpoints in the API's words, and back.

use std::sync::Arc;

use super::rfc3339;
use crate::api::watch::Values;
use crate::api::{Attachment, Conflict, Endpoint, EndpointRef, EndpointSpec, Port, Problem, ProblemKind, Service};
use crate::node::tables::{self, Changed};
use crate::record::NodeId;
use crate::record::network::{
    self as record, Cidr, EndpointId, EndpointName, Mac, NetworkError, NetworkId, PublishedPort,
};

/// An attachment in the API's words.
pub(super) fn attachment_view(
    node: NodeId,
    network: NetworkId,
    attachment: &record::Attachment,
    down_since_ms: Option<u64>,
) -> Attachment {
    let record::Attachment { name, vtep, mac, epoch: _ } = attachment;
    Attachment {
        network,
        name: name.clone(),
        node,
        data_path_addr: *vtep,
        mac: mac.map(|mac| mac.to_string()),
        owner_down_since: down_since_ms.map(rfc3339),
    }
}

/// An endpoint in the API's words.
pub(super) fn endpoint_view(name: EndpointName, endpoint: &record::Endpoint, down_since_ms: Option<u64>) -> Endpoint {
    let EndpointName { network, owner, id } = name;
    let record::Endpoint { service, task, state, addresses, mac, ports, aliases, task_aliases, labels } =
        endpoint.clone();
    let port = |PublishedPort { protocol, published, target, mode }| Port { protocol, published, target, mode };
    Endpoint {
        id,
        network,
        node: owner,
        service: service.map(|record::Service { id, name, vip_v4, vip_v6 }| Service {
            id: Some(id),
            name,
            vip_v4,
            vip_v6,
        }),
        task,
        state,
        addresses: addresses.iter().map(ToString::to_string).collect(),
        mac: mac.map(|mac| mac.to_string()),
        ports: ports.into_iter().map(port).collect(),
        aliases,
        task_aliases,
        labels,
        owner_down_since: down_since_ms.map(rfc3339),
    }
}

/// An endpoint as it is to be written. Limits are checked where it is.
///
/// # Errors
/// A text that is none of what it should be.
pub(super) fn read_spec(spec: EndpointSpec) -> Result<(Option<EndpointId>, record::Endpoint), Problem> {
    let EndpointSpec { id, service, task, state, addresses, mac, ports, aliases, task_aliases, labels } = spec;
    let bad = |error: NetworkError| ProblemKind::BadRequest.problem(error.to_string());
    let addresses: Result<Vec<Cidr>, _> = addresses.iter().map(|text| text.parse().map_err(bad)).collect();
    let port = |Port { protocol, published, target, mode }| PublishedPort { protocol, published, target, mode };
    let service = service.map(|Service { id, name, vip_v4, vip_v6 }| {
        let id = id.unwrap_or_else(|| name.clone());
        record::Service { id, name, vip_v4, vip_v6 }
    });
    let endpoint = record::Endpoint {
        service,
        task,
        state,
        addresses: addresses?,
        mac: mac.as_deref().map(write_mac).transpose()?,
        ports: ports.into_iter().map(port).collect(),
        aliases,
        task_aliases,
        labels,
    };
    Ok((id, endpoint))
}

/// A hardware address.
///
/// # Errors
/// It is none.
pub(super) fn write_mac(text: &str) -> Result<Mac, Problem> {
    text.parse().map_err(|error: NetworkError| ProblemKind::BadRequest.problem(error.to_string()))
}

/// A conflict in the API's words.
pub(super) fn conflict_view(conflict: &tables::Conflict) -> Conflict {
    let tables::Conflict { network, addr, services, endpoints } = conflict;
    let endpoints = endpoints.iter().map(|(node, id)| EndpointRef { node: *node, id: *id }).collect();
    Conflict { network: *network, address: *addr, endpoints, services: services.clone() }
}

/// A change of a table in the API's words.
pub(super) fn changed(change: &Changed, (was_down, is_down): (Option<u64>, Option<u64>)) -> Values {
    match change {
        Changed::Attachment { owner, network, old, new } => {
            let value = |one: &Option<Arc<record::Attachment>>, down| {
                one.as_ref().map(|one| Box::new(attachment_view(*owner, *network, one, down)))
            };
            Values::Networks { old: value(old, was_down), new: value(new, is_down) }
        }
        Changed::Endpoint { name, old, new } => {
            let value = |one: &Option<Arc<record::Endpoint>>, down| {
                one.as_ref().map(|one| Box::new(endpoint_view(*name, one, down)))
            };
            Values::Endpoints { old: value(old, was_down), new: value(new, is_down) }
        }
    }
}

/// A conflict's change in the API's words.
pub(super) fn conflicted(old: Option<&tables::Conflict>, new: Option<&tables::Conflict>) -> Values {
    let value = |one: Option<&tables::Conflict>| one.map(|one| Box::new(conflict_view(one)));
    Values::Conflicts { old: value(old), new: value(new) }
}
