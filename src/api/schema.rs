//! The forms of texts in the API's document: ids, times, addresses, tokens. Only the OpenAPI document uses these types.
//!
//! Patterns are what the daemon writes, and no stricter than what it reads: sizes in bytes, and what only the present state
//! can tell, are checked by the daemon alone.

use std::borrow::Cow;

use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

/// What an item of the stream tells. Under its own name utoipa would take it for any object.
pub(super) type Told = super::watch::Object;

fn text(pattern: &str, format: Option<SchemaFormat>, description: &str, example: &str) -> RefOr<Schema> {
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).pattern(Some(pattern));
    text.format(format).description(Some(description.trim())).examples([example]).build().into()
}

macro_rules! texts {
    ($($(#[doc = $doc:literal])+ $name:ident = $pattern:expr, $format:expr, $example:literal;)+) => {
        $(
            $(#[doc = $doc])+
            pub(crate) enum $name {}

            impl PartialSchema for $name {
                fn schema() -> RefOr<Schema> {
                    text($pattern, $format, concat!($($doc),+), $example)
                }
            }

            impl ToSchema for $name {
                fn name() -> Cow<'static, str> {
                    stringify!($name).into()
                }
            }
        )+
    };
}

fn format(name: &str) -> Option<SchemaFormat> {
    Some(SchemaFormat::Custom(name.to_owned()))
}

/// What `humantime` reads.
const PERIOD: &str = r"^(0|\s*([0-9][0-9\s]*(\.[0-9]+)?\s*(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds|second|secs|sec|s|minutes|minute|mins|min|m|hours|hour|hrs|hr|h|days|day|d|weeks|week|wks|wk|w|months|month|M|years|year|yrs|yr|y)\s*)+)$";

texts! {
    /// RFC 3339 in UTC, to the millisecond.
    Time = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)), "2026-03-12T14:11:27.000Z";
    /// IP and port, IPv6 in brackets.
    SocketAddress = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|\[[0-9a-f:.]+(%[0-9]+)?\]):[0-9]{1,5}$",
        format("socket-address"), "10.130.27.207:7946";
    /// IPv4 or IPv6.
    IpAddress = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-f:.]*:[0-9a-f:.]*)$", format("ip-address"), "10.130.27.207";
    /// IPv4.
    Ipv4Address = r"^[0-9]{1,3}(\.[0-9]{1,3}){3}$", Some(SchemaFormat::KnownFormat(KnownFormat::Ipv4)), "10.0.9.2";
    /// IPv6.
    Ipv6Address = "^[0-9a-f:.]*:[0-9a-f:.]*$", Some(SchemaFormat::KnownFormat(KnownFormat::Ipv6)), "fd00:9::2";
    /// An address with the length of its network's prefix.
    Cidr = "^[0-9a-f:.]+/[0-9]{1,3}$", None, "10.0.9.5/24";
    /// EUI-48 in hexadecimal.
    HardwareAddress = "^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$", None, "02:42:0a:00:09:05";
    /// What people call a network, a service or a task.
    NetworkName = "^[0-9A-Za-z][0-9A-Za-z_.:/-]{0,127}$", None, "web.1";
    /// A further name.
    Alias = "^[0-9A-Za-z][0-9A-Za-z_.:/-]{0,252}$", None, "www";
    /// A label's key: up to 128 printable ASCII characters without space or '='.
    EndpointLabelKey = "^[!-<>-~]{1,128}$", None, "com.example/rack";
    /// A version of a node's table, GENERATION.SEQ.
    TableVersion = r"^[0-9]{1,20}\.[0-9]{1,20}$", None, "1773324687.4";
    /// SHA-256 of the cluster CA's certificate, as in join tokens: 50 base-36 digits.
    CaDigest = "^[0-6][0-9a-z]{49}$", None, "3ylgl0utl8ifw35xi4f5wzjzwdxpmcrg1jfcx5jg2s6wr1vyi8";
    /// A join token: the digest of the cluster CA's certificate, and a secret.
    JoinTokenText = "^GDTKN-1-[0-6][0-9a-z]{49}-[0-9a-f][0-9a-z]{24}$", None,
        "GDTKN-1-3ylgl0utl8ifw35xi4f5wzjzwdxpmcrg1jfcx5jg2s6wr1vyi8-0123456789abcdefghijklmno";
    /// A duration: numbers with units, or 0.
    Period = PERIOD, None, "30s";
    /// `IP`, `IP:PORT`, `INTERFACE` or `INTERFACE:PORT` (IPv6 in brackets when a port follows).
    AddressSpec = r"^[!-~]+$", None, "127.0.0.1:7946";
    /// `IP` or `INTERFACE`.
    HostSpec = r"^[!-~]+$", None, "127.0.0.1";
    /// `HOST` or `HOST:PORT` (IPv6 as `[IP]:PORT`).
    RemoteSpec = r"^[^ /@]+$", None, "127.0.0.1:7946";
    /// One of a list's values.
    Word = "^[^,]+$", None, "swarm";
    /// A label's key: up to 128 characters, a letter or digit first and last.
    LabelKey = r"^[0-9A-Za-z]([0-9A-Za-z._/-]{0,126}[0-9A-Za-z])?$", None, "com.example/rack";
    /// Up to 256 bytes without control characters.
    LabelValue = r"^[^\x00-\x1f\x7f-\x9f]{0,256}$", None, "fra1";
    /// Text without control characters.
    MetadataValue = r"^[^\x00-\x1f\x7f-\x9f]{0,4096}$", None, "7";
    /// Why: up to 256 bytes without control characters.
    Reason = r"^[^\x00-\x1f\x7f-\x9f]{0,256}$", None, "kernel update";
    /// What a node calls itself; not unique.
    Hostname = r"^[0-9A-Za-z_][0-9A-Za-z._-]{0,252}$", None, "swarm1";
    /// Up to 64 printable ASCII characters.
    ShortText = r"^[ -~]{0,64}$", None, "0.1.0";
    /// What a decision sets; `other`: something that this daemon is too old for.
    Register = "^(availability|role|label|removed|join-token|ca|other)$", None, "availability";
    /// The kind of a problem, `urn:gossipd:problem:CODE`.
    ProblemType = "^urn:gossipd:problem:[a-z]+(-[a-z]+)*$", None, "urn:gossipd:problem:not-found";
}
