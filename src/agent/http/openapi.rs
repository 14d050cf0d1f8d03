//! What the API's document says beyond what the types say: the problems of each operation, and what holds for all replies.
//!
//! That the daemon keeps to it is checked by `tests/it/openapi.rs` and `.ci/schemathesis`.

use std::collections::BTreeMap;

use utoipa::openapi::path::Operation;
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AdditionalProperties, AllOfBuilder, Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{Content, ContentBuilder, KnownFormat, OpenApi, Ref, RefOr, Required, SchemaFormat};
use utoipa::{IntoResponses, Modify, ToSchema as _};

use crate::api::{PROBLEM_JSON, Problem, ProblemKind};

/// Fields of replies that are left out when there is nothing to say. All others are always there, null at least.
const LEFT_OUT: [&str; 1] = ["candidates"];
/// What readers make of a word that they do not know. This daemon does not say it.
const UNKNOWN_WORD: &str = "other";
/// The status of a body that is longer than the daemon reads.
const TOO_LARGE: u16 = 413;

/// The problems that an operation may answer with, by status.
fn responses(takes_body: bool, kinds: &[ProblemKind]) -> BTreeMap<String, RefOr<Response>> {
    let mut by_status = BTreeMap::<u16, Vec<ProblemKind>>::new();
    for kind in kinds {
        by_status.entry(kind.status()).or_default().push(*kind);
    }
    if takes_body {
        by_status.insert(TOO_LARGE, vec![ProblemKind::BadRequest]);
    }
    by_status.into_iter().map(|(status, kinds)| (status.to_string(), response(status, &kinds).into())).collect()
}

fn response(status: u16, kinds: &[ProblemKind]) -> Response {
    let types: Vec<String> = kinds.iter().map(|kind| kind.problem("").kind).collect();
    let codes: Vec<String> = kinds.iter().map(|kind| format!("`{}`", kind.code())).collect();
    let string = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).enum_values(Some(types));
    let number = ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)).enum_values(Some([status]));
    let narrowed = ObjectBuilder::new().property("type", string).property("status", number);
    let schema = AllOfBuilder::new().item(Ref::from_schema_name(Problem::name())).item(narrowed);
    ResponseBuilder::new()
        .description(format!("A problem (RFC 9457): {}.", codes.join(", ")))
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident($takes_body:literal) = [$($kind:ident),+ $(,)?];)+) => {
        $(
            $(#[$doc])*
            pub(super) enum $name {}

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    responses($takes_body, &[$(ProblemKind::$kind),+])
                }
            }
        )+
    };
}

problems! {
    /// Of what is told in a cluster or without.
    OfSelf(false) = [Internal];
    /// Of a question with a query that needs no cluster.
    OfQuery(false) = [BadRequest];
    /// Of a list that only a member has.
    OfMember(false) = [NotInCluster, Internal];
    /// Of such a list with a query.
    OfList(false) = [BadRequest, NotInCluster, Internal];
    /// Of a question about one node.
    OfNode(false) = [BadRequest, NotFound, Ambiguous, NotInCluster, Internal];
    /// Of the stream.
    OfWatch(false) = [BadRequest, NotInCluster, Gone, Busy, Internal];
    /// Of an examination.
    OfDoctor(true) = [BadRequest, Forbidden, NotFound, Ambiguous, NotInCluster, Busy, Internal];
    /// Of `init`.
    OfInit(true) = [BadRequest, Forbidden, AlreadyInCluster, Conflict, Internal];
    /// Of `join`.
    OfJoin(true) = [BadRequest, Forbidden, AlreadyInCluster, Conflict, Refused, Unreachable, Internal];
    /// Of `leave`.
    OfLeave(true) = [BadRequest, Forbidden, NotInCluster, Conflict, Internal];
    /// Of both join tokens.
    OfTokens(false) = [Forbidden, NotInCluster, NotManager, Conflict, Internal];
    /// Of one join token.
    OfToken(false) = [BadRequest, Forbidden, NotFound, NotInCluster, NotManager, Conflict, Internal];
    /// Of a change of one join token.
    OfRotation(true) = [BadRequest, Forbidden, NotFound, NotInCluster, NotManager, Conflict, Internal];
    /// Of the CA.
    OfCa(false) = [NotInCluster, Internal];
    /// Of a change of the CA.
    OfCaRotation(true) = [BadRequest, Forbidden, NotInCluster, NotManager, Conflict, Internal];
    /// Of a change of what this node says of itself.
    OfOwn(true) = [BadRequest, Forbidden, Internal];
    /// Of the scheduler that leads.
    OfLeader(true) = [BadRequest, Forbidden, NotInCluster, NotManager, Conflict, Internal];
    /// Of a list of tables.
    OfTables(false) = [NotInCluster, Internal];
    /// Of a question about networks or endpoints.
    OfNetwork(false) = [BadRequest, NotFound, Ambiguous, NotInCluster, Internal];
    /// Of a question that others are asked.
    OfSeen(false) = [BadRequest, NotFound, Ambiguous, NotInCluster, Busy, Internal];
    /// Of a list of endpoints.
    OfEndpoints(false) = [BadRequest, NotFound, Ambiguous, NotInCluster, Conflict, Internal];
    /// Of an attachment.
    OfAttach(true) = [BadRequest, Forbidden, Ambiguous, NotInCluster, Conflict, Busy, Internal];
    /// Of a write into this node's tables.
    OfNetworkWrite(true) = [BadRequest, Forbidden, NotFound, Ambiguous, NotInCluster, Conflict, Busy, Internal];
    /// Of a lease.
    OfLease(true) = [BadRequest, Forbidden, NotFound, Ambiguous, NotInCluster, Conflict, Internal];
    /// Of a write without a body.
    OfTurn(false) = [BadRequest, Forbidden, NotFound, Ambiguous, NotInCluster, Conflict, Busy, Internal];
    /// Of a decision about a node.
    OfDecision(true) = [BadRequest, Forbidden, NotFound, Ambiguous, NotInCluster, NotManager, Conflict, Busy, Internal];
}

/// What the derived document leaves open.
pub(super) struct Precise;

impl Modify for Precise {
    fn modify(&self, document: &mut OpenApi) {
        let Some(components) = &mut document.components else { return };
        for schema in components.schemas.values_mut() {
            complete(schema);
        }
        let optional: Vec<String> = components
            .schemas
            .iter()
            .filter(|(_, schema)| matches!(schema, RefOr::T(Schema::Object(object)) if object.required.is_empty()))
            .map(|(name, _)| Ref::from_schema_name(name).ref_location)
            .collect();
        let items = document.paths.paths.values_mut();
        for operation in items.flat_map(|item| [&mut item.get, &mut item.put, &mut item.post]).flatten() {
            may_be_empty(operation, &optional);
            let schemas = operation.parameters.iter_mut().flatten().filter_map(|parameter| match parameter {
                RefOr::T(parameter) => parameter.schema.as_mut(),
                RefOr::Ref(_) => None,
            });
            schemas.for_each(complete);
        }
    }
}

/// In replies all fields are there, and no word is used that the reader is not to know.
fn complete(schema: &mut RefOr<Schema>) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            let is_request =
                matches!(object.additional_properties.as_deref(), Some(AdditionalProperties::FreeForm(false)));
            if !is_request {
                object.required =
                    object.properties.keys().filter(|field| !LEFT_OUT.contains(&field.as_str())).cloned().collect();
            }
            bound(object);
            if let Some(words) = &mut object.enum_values {
                words.retain(|word| word != UNKNOWN_WORD);
            }
            object.properties.values_mut().for_each(complete);
        }
        Schema::Array(_) => {}
        Schema::OneOf(of) => {
            of.items.iter_mut().for_each(complete);
            // A variant whose tag has no word left.
            of.items.retain(|item| !matches!(item, RefOr::T(Schema::Object(object)) if is_wordless(object)));
        }
        Schema::AllOf(of) => of.items.iter_mut().for_each(complete),
        Schema::AnyOf(of) => of.items.iter_mut().for_each(complete),
        _ => {}
    }
}

/// An integer's format by its registered name, and as bounds that every reader understands. (As a double, the largest 64-bit
/// number is another one: it has none.)
fn bound(object: &mut Object) {
    let (name, maximum) = match object.format {
        Some(SchemaFormat::KnownFormat(KnownFormat::UInt16)) => ("uint16", Some(u32::from(u16::MAX))),
        Some(SchemaFormat::KnownFormat(KnownFormat::UInt32)) => ("uint32", Some(u32::MAX)),
        Some(SchemaFormat::KnownFormat(KnownFormat::UInt64)) => ("uint64", None),
        _ => return,
    };
    object.format = Some(SchemaFormat::Custom(name.to_owned()));
    object.maximum = object.maximum.take().or_else(|| maximum.map(Into::into));
}

fn is_wordless(object: &Object) -> bool {
    let has_no_word = |schema: &RefOr<Schema>| matches!(schema, RefOr::T(Schema::Object(tag)) if tag.enum_values.as_ref().is_some_and(Vec::is_empty));
    object.properties.values().any(has_no_word)
}

/// An empty body is the request with nothing in it, where that is one.
fn may_be_empty(operation: &mut Operation, optional: &[String]) {
    let Some(RefOr::T(RequestBody { content, required, .. })) = &mut operation.request_body else { return };
    let is_optional = |schema: &RefOr<Schema>| matches!(schema, RefOr::Ref(to) if optional.contains(&to.ref_location));
    if content
        .values()
        .all(|content| matches!(content, RefOr::T(Content { schema: Some(schema), .. }) if is_optional(schema)))
    {
        *required = Some(Required::False);
    }
}
