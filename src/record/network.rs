//! Networks and endpoints: which overlay networks a node is attached to, and what is reachable on it in each of them.
//!
//! Both are records of one owner, the node that they live on; nobody else writes them. What names a record (owner,
//! network, endpoint id) is not inside it. Each is written at once, so no reader ever sees a half of it.
//!
//! Not here: how records are numbered and merged (`node::tables`), or encoded (`wire::table`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::decision::LABEL_KEY_BYTES_MAX;
use super::{ID_DIGITS, NodeId, RecordError, Version, base36_decode, base36_encode};

/// Largest encoded endpoint, in bytes.
pub const ENDPOINT_BYTES_MAX: usize = 60 * 1024;
/// Largest encoded attachment, in bytes: it always fits into one datagram.
pub const ATTACHMENT_BYTES_MAX: usize = 512;
/// Networks that one node may be attached to.
pub const ATTACHMENTS_MAX: usize = 256;
/// Longest name of a network, service or task, and longest service id, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest alias, in bytes (RFC 1035 §2.3.4).
pub const ALIAS_BYTES_MAX: usize = 253;
/// Aliases of an endpoint, and of its task, each.
pub const ALIASES_MAX: usize = 64;
/// Addresses of an endpoint.
pub const ADDRESSES_MAX: usize = 8;
/// Published ports of an endpoint.
pub const PORTS_MAX: usize = 256;
/// Labels of an endpoint.
pub const ENDPOINT_LABELS_MAX: usize = 64;
/// Longest value of an endpoint's label, in bytes. All labels together have to fit into [`ENDPOINT_BYTES_MAX`].
pub const ENDPOINT_LABEL_BYTES_MAX: usize = 32 * 1024;

id_type! {
    /// An overlay network's name for ever: 128 bits, printed as 25 base-36 characters.
    ///
    /// ```
    /// use gossipd::record::network::NetworkId;
    /// let id: NetworkId = "bm1k2ph0tn6ufbnkdaatq4cwv".parse()?;
    /// assert_eq!(id.to_string(), "bm1k2ph0tn6ufbnkdaatq4cwv");
    /// # Ok::<(), gossipd::record::RecordError>(())
    /// ```
    NetworkId
}
id_type! {
    /// An endpoint's name on its node and in its network: 128 bits, printed as 25 base-36 characters.
    EndpointId
}

word_enum! {
    /// Whether an endpoint takes traffic.
    #[derive(Default)]
    EndpointState, "an endpoint's state", "enabled, disabled, unhealthy" {
        /// It takes new connections.
        #[default]
        Enabled = "enabled" / "Enabled",
        /// It keeps what it has and takes no more: it is about to go.
        Disabled = "disabled" / "Disabled",
        /// It fails its checks.
        Unhealthy = "unhealthy" / "Unhealthy",
    }
}

word_enum! {
    /// What runs over a published port.
    Protocol, "a protocol", "tcp, udp, sctp" {
        /// TCP.
        Tcp = "tcp" / "TCP",
        /// UDP.
        Udp = "udp" / "UDP",
        /// SCTP.
        Sctp = "sctp" / "SCTP",
    }
}

word_enum! {
    /// Where a published port is reached.
    PublishMode, "a publish mode", "ingress, host" {
        /// On every node.
        Ingress = "ingress" / "Ingress",
        /// On the endpoint's own node.
        Host = "host" / "Host",
    }
}

/// Why an attachment or an endpoint was refused. Whoever wrote it is at fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// A name or an alias is refused.
    #[error(
        "{what} {value:?} is refused: expected 1 to {max} characters of a-z, A-Z, 0-9, '-', '_', '.', ':' and '/', a letter or digit first"
    )]
    Name {
        /// What it names.
        what: &'static str,
        /// The name.
        value: String,
        /// Its limit, in bytes.
        max: usize,
    },
    /// An address is of a kind that no endpoint can have.
    #[error("{what} {value} is refused: expected a unicast address that is not loopback")]
    Address {
        /// What it is the address of.
        what: &'static str,
        /// The address.
        value: IpAddr,
    },
    /// A prefix is longer than the address.
    #[error("prefix length {prefix} of {addr} is refused: at most {max} is allowed")]
    Prefix {
        /// The address.
        addr: IpAddr,
        /// Its prefix length.
        prefix: u8,
        /// Bits of such an address.
        max: u8,
    },
    /// The text is not an address with a prefix length.
    #[error("{0:?} is not an address with its prefix length, like 10.0.0.5/24")]
    Cidr(String),
    /// The text is not a hardware address, or not one of a single machine.
    #[error("{0:?} is not the hardware address of an interface, like 02:42:0a:00:00:05")]
    Mac(String),
    /// Port 0 is none.
    #[error("{what} port 0 is refused: expected 1 to 65535")]
    Port {
        /// Which port.
        what: &'static str,
    },
    /// There is none where one is needed.
    #[error("an endpoint without address is refused")]
    NoAddress,
    /// There are too many of something.
    #[error("{count} {what} are refused: at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// Allowed.
        max: usize,
    },
    /// One thing is there twice.
    #[error("{what} {value} is given twice")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Which.
        value: String,
    },
    /// A label is refused.
    #[error(
        "label {key:?} is refused: expected a key of 1 to {LABEL_KEY_BYTES_MAX} printable ASCII characters without space or '=', and a value of up to {ENDPOINT_LABEL_BYTES_MAX} bytes (it has {bytes}) without control characters"
    )]
    Label {
        /// The label's key.
        key: String,
        /// Its value's length.
        bytes: usize,
    },
    /// All of it together is too large.
    #[error("{what} of {bytes} bytes is refused: at most {max} are allowed")]
    TooLarge {
        /// What it is.
        what: &'static str,
        /// Its encoded size.
        bytes: usize,
        /// Allowed.
        max: usize,
    },
}

/// A hardware address of one interface (IEEE 802 EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Mac(pub [u8; 6]);

impl Mac {
    fn validate(self) -> Result<(), NetworkError> {
        let is_group = self.0.first().is_some_and(|first| first & 1 == 1);
        if is_group || self.0 == [0; 6] { Err(NetworkError::Mac(self.to_string())) } else { Ok(()) }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let refused = || NetworkError::Mac(text.to_owned());
        let mut bytes = [0_u8; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(refused)?, 16).map_err(|_| refused())?;
        }
        let mac = Self(bytes);
        if parts.next().is_some() || mac.validate().is_err() { Err(refused()) } else { Ok(mac) }
    }
}

/// An interface's address with the length of its network's prefix: `10.0.0.5/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Cidr {
    /// The address.
    pub addr: IpAddr,
    /// Bits of it that name the network.
    pub prefix: u8,
}

impl Cidr {
    fn validate(self) -> Result<(), NetworkError> {
        let max = if self.addr.is_ipv4() { 32 } else { 128 };
        if self.prefix > max {
            return Err(NetworkError::Prefix { addr: self.addr, prefix: self.prefix, max });
        }
        validate_address("endpoint address", self.addr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr, self.prefix))
    }
}

impl FromStr for Cidr {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let parsed = text.split_once('/').and_then(|(addr, prefix)| Some((addr.parse().ok()?, prefix.parse().ok()?)));
        let (addr, prefix) = parsed.ok_or_else(|| NetworkError::Cidr(text.to_owned()))?;
        let cidr = Self { addr, prefix };
        cidr.validate()?;
        Ok(cidr)
    }
}

/// That a node takes part in a network, and where its traffic in it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Attachment {
    /// The network's name, for people; not unique.
    pub name: String,
    /// Where the node's tunnel ends: its data-path address.
    pub vtep: IpAddr,
    /// The tunnel's hardware address, if others need it.
    pub mac: Option<Mac>,
    /// The owner's endpoints of this network count from here on: versions up to this one belong to an earlier attachment,
    /// or to a life whose disk is gone. The node fills it in.
    pub epoch: Version,
}

impl Attachment {
    /// Checks every field against the limits of this module.
    ///
    /// # Errors
    /// The first field that breaks its limit.
    pub fn validate(&self) -> Result<(), NetworkError> {
        let Self { name, vtep, mac, epoch: _ } = self;
        validate_name("network", name, NAME_BYTES_MAX)?;
        if vtep.is_unspecified() || vtep.is_multicast() {
            return Err(NetworkError::Address { what: "data-path address", value: *vtep });
        }
        mac.map_or(Ok(()), Mac::validate)
    }
}

/// The service that an endpoint belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Service {
    /// What the scheduler calls it; unique.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its virtual address in the network.
    pub vip_v4: Option<Ipv4Addr>,
    /// Its virtual address in the network.
    pub vip_v6: Option<Ipv6Addr>,
}

impl Service {
    /// Its virtual addresses.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> {
        self.vip_v4.map(IpAddr::V4).into_iter().chain(self.vip_v6.map(IpAddr::V6))
    }

    fn validate(&self) -> Result<(), NetworkError> {
        let Self { id, name, vip_v4: _, vip_v6: _ } = self;
        validate_name("service id", id, NAME_BYTES_MAX)?;
        validate_name("service", name, NAME_BYTES_MAX)?;
        self.vips().try_for_each(|vip| validate_address("virtual address", vip))
    }
}

/// A port of an endpoint that is reachable from outside its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct PublishedPort {
    /// What runs over it.
    pub protocol: Protocol,
    /// The port on the nodes.
    pub published: u16,
    /// The port of the endpoint.
    pub target: u16,
    /// Where it is reached.
    pub mode: PublishMode,
}

/// What is reachable on one node in one network: a task of a service, its addresses, its ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Endpoint {
    /// The service that it belongs to, if any.
    pub service: Option<Service>,
    /// The task's name, if it is one's.
    pub task: Option<String>,
    /// Whether it takes traffic.
    pub state: EndpointState,
    /// Its addresses in the network: one at least.
    pub addresses: Vec<Cidr>,
    /// Its hardware address in the network.
    pub mac: Option<Mac>,
    /// Its ports that are reachable from outside.
    pub ports: Vec<PublishedPort>,
    /// Further names of its service in the network.
    pub aliases: Vec<String>,
    /// Further names of the endpoint alone.
    pub task_aliases: Vec<String>,
    /// Whatever else is to be known of it.
    pub labels: BTreeMap<String, String>,
}

impl Endpoint {
    /// Checks every field against the limits of this module. The whole's size is checked where it is encoded.
    ///
    /// # Errors
    /// The first field that breaks its limit.
    pub fn validate(&self) -> Result<(), NetworkError> {
        // Destructured in full: a new field has to be looked at here.
        let Self { service, task, state: _, addresses, mac, ports, aliases, task_aliases, labels } = self;
        service.as_ref().map_or(Ok(()), Service::validate)?;
        task.as_ref().map_or(Ok(()), |task| validate_name("task", task, NAME_BYTES_MAX))?;
        if addresses.is_empty() {
            return Err(NetworkError::NoAddress);
        }
        validate_count("addresses", addresses.len(), ADDRESSES_MAX)?;
        addresses.iter().try_for_each(|cidr| cidr.validate())?;
        validate_unique("address", addresses.iter().map(|cidr| cidr.addr))?;
        mac.map_or(Ok(()), Mac::validate)?;
        validate_ports(ports)?;
        for (what, names) in [("alias", aliases), ("task alias", task_aliases)] {
            validate_count("aliases", names.len(), ALIASES_MAX)?;
            names.iter().try_for_each(|name| validate_name(what, name, ALIAS_BYTES_MAX))?;
        }
        validate_count("labels", labels.len(), ENDPOINT_LABELS_MAX)?;
        labels.iter().try_for_each(|(key, value)| validate_label(key, value))
    }
}

fn validate_name(what: &'static str, value: &str, max: usize) -> Result<(), NetworkError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    let starts_well = value.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if !starts_well || value.len() > max || !value.bytes().all(allowed) {
        return Err(NetworkError::Name { what, value: value.to_owned(), max });
    }
    Ok(())
}

fn validate_address(what: &'static str, value: IpAddr) -> Result<(), NetworkError> {
    let is_broadcast = value == IpAddr::V4(Ipv4Addr::BROADCAST);
    if value.is_unspecified() || value.is_multicast() || value.is_loopback() || is_broadcast {
        return Err(NetworkError::Address { what, value });
    }
    Ok(())
}

fn validate_count(what: &'static str, count: usize, max: usize) -> Result<(), NetworkError> {
    if count > max { Err(NetworkError::TooMany { what, count, max }) } else { Ok(()) }
}

fn validate_unique<T: Ord + fmt::Display>(
    what: &'static str,
    values: impl Iterator<Item = T>,
) -> Result<(), NetworkError> {
    let mut seen = BTreeSet::new();
    for value in values {
        if seen.contains(&value) {
            return Err(NetworkError::Twice { what, value: value.to_string() });
        }
        seen.insert(value);
    }
    Ok(())
}

fn validate_ports(ports: &[PublishedPort]) -> Result<(), NetworkError> {
    validate_count("published ports", ports.len(), PORTS_MAX)?;
    for PublishedPort { protocol: _, published, target, mode: _ } in ports {
        for (what, port) in [("published", published), ("target", target)] {
            if *port == 0 {
                return Err(NetworkError::Port { what });
            }
        }
    }
    validate_unique("published port", ports.iter().map(|port| format!("{}/{}", port.published, port.protocol)))
}

fn validate_label(key: &str, value: &str) -> Result<(), NetworkError> {
    let is_key = !key.is_empty()
        && key.len() <= LABEL_KEY_BYTES_MAX
        && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=');
    if !is_key || value.len() > ENDPOINT_LABEL_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(NetworkError::Label { key: key.to_owned(), bytes: value.len() });
    }
    Ok(())
}

/// What names an endpoint in the whole cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointName {
    /// The network that it is in.
    pub network: NetworkId,
    /// The node that it is on.
    pub owner: NodeId,
    /// Its name there.
    pub id: EndpointId,
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A task of a service with one published port.
    pub(crate) fn web(n: u8) -> Endpoint {
        Endpoint {
            service: Some(Service {
                id: "b7aykqcj".to_owned(),
                name: "web".to_owned(),
                vip_v4: Some([10, 0, 9, 2].into()),
                vip_v6: None,
            }),
            task: Some(format!("web.{n}")),
            state: EndpointState::Enabled,
            addresses: vec![Cidr { addr: [10, 0, 9, n].into(), prefix: 24 }],
            mac: Some(Mac([2, 0x42, 10, 0, 9, n])),
            ports: vec![PublishedPort {
                protocol: Protocol::Tcp,
                published: 8080,
                target: 80,
                mode: PublishMode::Ingress,
            }],
            aliases: vec!["www".to_owned()],
            task_aliases: Vec::new(),
            labels: BTreeMap::from([("tier".to_owned(), "front".to_owned())]),
        }
    }

    /// That a node's tunnel ends at 10.130.0.`n`.
    pub(crate) fn attachment(n: u8) -> Attachment {
        Attachment {
            name: "frontend".to_owned(),
            vtep: [10, 130, 0, n].into(),
            mac: None,
            epoch: Version { generation: 7, seq: 0 },
        }
    }

    #[test]
    fn each_limit_is_named_with_the_value() {
        let refused = |change: fn(&mut Endpoint)| {
            let mut endpoint = web(5);
            change(&mut endpoint);
            endpoint.validate().unwrap_err().to_string()
        };
        assert_eq!(web(5).validate(), Ok(()));
        type Case = (fn(&mut Endpoint), &'static str);
        let cases: &[Case] = &[
            (|e| e.addresses.clear(), "an endpoint without address is refused"),
            (
                |e| e.addresses = vec![Cidr { addr: [10, 0, 0, 1].into(), prefix: 24 }; 9],
                "9 addresses are refused: at most 8 are allowed",
            ),
            (|e| e.addresses.extend(web(5).addresses), "address 10.0.9.5 is given twice"),
            (
                |e| e.addresses = vec![Cidr { addr: [10, 0, 0, 1].into(), prefix: 33 }],
                "prefix length 33 of 10.0.0.1 is refused: at most 32 is allowed",
            ),
            (
                |e| e.addresses = vec![Cidr { addr: [224, 0, 0, 1].into(), prefix: 24 }],
                "endpoint address 224.0.0.1 is refused: expected a unicast address that is not loopback",
            ),
            (|e| e.ports.extend(web(5).ports), "published port 8080/tcp is given twice"),
            (|e| e.ports = web(5).ports.repeat(257), "257 published ports are refused: at most 256 are allowed"),
            (|e| e.ports.iter_mut().for_each(|p| p.target = 0), "target port 0 is refused: expected 1 to 65535"),
            (
                |e| e.mac = Some(Mac([1; 6])),
                "\"01:01:01:01:01:01\" is not the hardware address of an interface, like 02:42:0a:00:00:05",
            ),
            (|e| e.aliases = vec!["a".to_owned(); 65], "65 aliases are refused: at most 64 are allowed"),
        ];
        for (change, message) in cases {
            assert_eq!(refused(*change), *message);
        }
        let name = refused(|e| e.task = Some("a\u{1b}[2J".to_owned()));
        assert!(name.starts_with("task \"a\\u{1b}[2J\" is refused: expected 1 to 128 characters"), "{name}");
        let label = refused(|e| {
            e.labels.insert("k".to_owned(), "v".repeat(ENDPOINT_LABEL_BYTES_MAX + 1));
        });
        assert!(label.contains("32769"), "{label}");
        let service = refused(|e| e.service.as_mut().unwrap().vip_v6 = Some(Ipv6Addr::UNSPECIFIED));
        assert!(service.starts_with("virtual address :: is refused"), "{service}");
    }

    #[test]
    fn an_attachment_needs_a_place_that_can_be_sent_to() {
        assert_eq!(attachment(1).validate(), Ok(()));
        let nowhere = Attachment { vtep: Ipv6Addr::UNSPECIFIED.into(), ..attachment(1) };
        assert!(nowhere.validate().is_err());
        let nameless = Attachment { name: String::new(), ..attachment(1) };
        assert!(nameless.validate().is_err());
    }

    #[test]
    fn texts_are_read_as_they_are_written() {
        for text in ["10.0.0.5/24", "fd00::5/64", "10.0.0.5/32"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.5", "10.0.0.5/33", "10.0.0.5/-1", "x/24", "", "0.0.0.0/0"] {
            assert!(text.parse::<Cidr>().is_err(), "{text:?}");
        }
        assert_eq!("02:42:0A:00:00:05".parse::<Mac>().unwrap().to_string(), "02:42:0a:00:00:05");
        for text in
            ["02:42:0a:00:00", "02:42:0a:00:00:05:06", "2:42:0a:00:00:05", "+2:42:0a:00:00:05", "01:00:5e:00:00:01"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text:?}");
        }
        let id = NetworkId::from_bytes([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
