//! From what a person typed (`eth1`, `10.0.0.5:7946`) to addresses that can be bound and told to others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use tokio::net::lookup_host;
use tokio::time::timeout;

/// How long a host name may take to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);

/// An address that cannot be used. The operator's to mend; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Neither an address nor an interface's name.
    #[error("{0:?} is neither an IP address nor an interface name, each with an optional :PORT (IPv6 as [ADDR]:PORT)")]
    Syntax(String),
    /// A port where none is used.
    #[error("{0:?} has a port, and overlay traffic has none here; give the address or the interface alone")]
    Port(String),
    /// Not where a member could be asked.
    #[error(
        "{0:?} is not where a member could be asked; expected HOST[:PORT] with a host name or an address, such as 10.130.27.207:7946 or swarm1 (IPv6 as [ADDR]:PORT)"
    )]
    Remote(String),
    /// No such interface.
    #[error("there is no interface {name:?}; interfaces here: {}", list(.candidates))]
    NoInterface {
        /// The name given.
        name: String,
        /// What could be named instead.
        candidates: Vec<String>,
    },
    /// The interface is without addresses.
    #[error("interface {name:?} has no usable address; interfaces here: {}", list(.candidates))]
    NoAddressOn {
        /// The name given.
        name: String,
        /// What could be named instead.
        candidates: Vec<String>,
    },
    /// An interface with several addresses of one family.
    #[error("interface {name:?} has several addresses ({}); name one of them", list(.candidates))]
    Several {
        /// The interface.
        name: String,
        /// Its addresses.
        candidates: Vec<String>,
    },
    /// Nothing was named and there are several addresses to choose from.
    #[error(
        "could not choose an address to advertise: this system has several ({}); name one with --advertise-addr",
        list(.candidates)
    )]
    Undecided {
        /// The addresses, with their interfaces.
        candidates: Vec<String>,
    },
    /// Nothing was named and there is nothing to choose from.
    #[error(
        "could not find an address to advertise: this system has loopback addresses only; name one with --advertise-addr"
    )]
    NoAddress,
    /// Others cannot reach such an address.
    #[error("{0} cannot be advertised: others cannot reach it")]
    NotReachable(IpAddr),
    /// The families differ.
    #[error("cannot listen on {listen} and advertise {advertise}: one is IPv4, the other IPv6")]
    Families {
        /// Where to listen.
        listen: IpAddr,
        /// What to advertise.
        advertise: IpAddr,
    },
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Ip(IpAddr),
    Interface(String),
}

/// `IP`, `IP:PORT`, `INTERFACE` or `INTERFACE:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddrSpec {
    host: Host,
    port: Option<u16>,
}

impl FromStr for AddrSpec {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = || AddrError::Syntax(text.to_owned());
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { host: Host::Ip(ip), port: None });
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Ip(addr.ip()), port: Some(addr.port()) });
        }
        if let Some(ip) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Ok(Self { host: Host::Ip(ip.parse::<Ipv6Addr>().map_err(|_| error())?.into()), port: None });
        }
        let (name, port) = match text.split_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| error())?)),
            None => (text, None),
        };
        // What the kernel takes for an interface's name (IFNAMSIZ is 16 with the final NUL); digits and dots only would
        // be a mistyped address.
        let is_name = (1..=15).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'[' | b']'))
            && name.bytes().any(|byte| byte.is_ascii_alphabetic());
        if !is_name {
            return Err(error());
        }
        Ok(Self { host: Host::Interface(name.to_owned()), port })
    }
}

impl AddrSpec {
    /// An address or interface without a port, for overlay traffic.
    ///
    /// # Errors
    /// [`AddrError::Syntax`], [`AddrError::Port`].
    pub fn without_port(text: &str) -> Result<Self, AddrError> {
        let spec: Self = text.parse()?;
        if spec.port.is_some() { Err(AddrError::Port(text.to_owned())) } else { Ok(spec) }
    }

    /// An interface, whatever its address may be.
    pub fn of_interface(name: impl Into<String>) -> Self {
        Self { host: Host::Interface(name.into()), port: None }
    }

    /// Named by its interface: the address may change.
    pub fn is_interface(&self) -> bool {
        matches!(self.host, Host::Interface(_))
    }

    /// Checks that this machine has it, as far as it is an interface's name.
    ///
    /// # Errors
    /// [`AddrError`] with what there is.
    pub fn check(&self, system: &[InterfaceAddr]) -> Result<(), AddrError> {
        ip_of(self, system).map(drop)
    }
}

/// Where a member may be asked: `HOST` or `HOST:PORT`, with a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// An address, and a port if one was given.
    Ip(IpAddr, Option<u16>),
    /// A name to be resolved, and a port if one was given.
    Name(String, Option<u16>),
}

impl FromStr for Remote {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let error = || AddrError::Remote(text.to_owned());
        let port = |port: u16| if port == 0 { Err(error()) } else { Ok(Some(port)) };
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip, None));
        }
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self::Ip(addr.ip(), port(addr.port())?));
        }
        if let Some(ip) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Ok(Self::Ip(ip.parse::<Ipv6Addr>().map_err(|_| error())?.into(), None));
        }
        let (name, port) = match text.split_once(':') {
            Some((name, digits)) => (name, port(digits.parse().map_err(|_| error())?)?),
            None => (text, None),
        };
        // Digits and dots only would be a mistyped address.
        let is_name = (1..=253).contains(&name.len())
            && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '.' | '_'))
            && name.chars().any(char::is_alphabetic);
        if is_name { Ok(Self::Name(name.to_owned(), port)) } else { Err(error()) }
    }
}

impl Remote {
    /// Its addresses, in the order that the system gives them.
    ///
    /// # Errors
    /// A text: the name could not be resolved.
    pub async fn resolve(self, default_port: u16) -> Result<Vec<SocketAddr>, String> {
        let (name, port) = match self {
            Self::Ip(ip, port) => return Ok(vec![SocketAddr::new(ip, port.unwrap_or(default_port))]),
            Self::Name(name, port) => (name, port.unwrap_or(default_port)),
        };
        match timeout(RESOLVE_DEADLINE, lookup_host((name.as_str(), port))).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the name was not resolved in time".to_owned()),
        }
    }
}

impl fmt::Display for AddrSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Ip(ip), Some(port)) => SocketAddr::new(*ip, port).fmt(f),
            (Host::Ip(ip), None) => ip.fmt(f),
            (Host::Interface(name), Some(port)) => write!(f, "{name}:{port}"),
            (Host::Interface(name), None) => f.write_str(name),
        }
    }
}

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddr {
    /// The interface's name.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
}

impl fmt::Display for InterfaceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.ip, self.name)
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Addresses of this machine's interfaces that are up, link-local ones left out.
pub fn interface_addrs() -> Vec<InterfaceAddr> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let ip: IpAddr = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
                (Some(v4), _) => v4.ip().into(),
                (None, Some(v6)) => v6.ip().into(),
                (None, None) => return None,
            };
            (!is_link_local(ip)).then_some(InterfaceAddr { name: interface.interface_name, ip })
        })
        .collect()
}

/// Where a node listens and what it tells others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// Gossip listens here.
    pub listen: SocketAddr,
    /// Others are told this.
    pub advertise: SocketAddr,
    /// Overlay traffic goes here.
    pub data_path: IpAddr,
}

impl Addresses {
    /// Decides from what was named and what this machine has, as `dockerd` does: what is advertised is the address
    /// listened on, or the machine's only one.
    ///
    /// # Errors
    /// [`AddrError`] with the candidates where a choice is left.
    pub fn resolve(
        listen: Option<&AddrSpec>,
        advertise: Option<&AddrSpec>,
        data_path: Option<&AddrSpec>,
        port: u16,
        system: &[InterfaceAddr],
    ) -> Result<Self, AddrError> {
        let listen_ip = listen.map(|spec| ip_of(spec, system)).transpose()?;
        let advertise_ip = match (advertise, listen_ip) {
            (Some(spec), _) => ip_of(spec, system)?,
            (None, Some(ip)) if !ip.is_unspecified() => ip,
            (None, _) => only_address(system)?,
        };
        let is_one_node = !advertise_ip.is_unspecified()
            && !advertise_ip.is_multicast()
            && advertise_ip != IpAddr::V4(Ipv4Addr::BROADCAST)
            && !is_link_local(advertise_ip);
        if !is_one_node {
            return Err(AddrError::NotReachable(advertise_ip));
        }
        let listen_ip = listen_ip.unwrap_or(match advertise_ip {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        });
        if listen_ip.is_ipv4() != advertise_ip.is_ipv4() {
            return Err(AddrError::Families { listen: listen_ip, advertise: advertise_ip });
        }
        let data_path = data_path.map_or(Ok(advertise_ip), |spec| ip_of(spec, system))?;
        let listen_port = listen.and_then(|spec| spec.port).unwrap_or(port);
        let advertise_port = advertise.and_then(|spec| spec.port).unwrap_or(listen_port);
        Ok(Self {
            listen: SocketAddr::new(listen_ip, listen_port),
            advertise: SocketAddr::new(advertise_ip, advertise_port),
            data_path,
        })
    }

    /// What is possible, but seldom meant, about the address that others are told; none: nothing.
    pub fn doubt(&self, system: &[InterfaceAddr]) -> Option<&'static str> {
        let (listen, advertise) = (self.listen.ip(), self.advertise.ip());
        // A loopback interface has all of its network, not only the address that it is listed with.
        let is_here = advertise.is_loopback() || system.iter().any(|address| address.ip == advertise);
        if !is_here {
            return Some("the advertised address is on no interface of this machine: is it translated on the way?");
        }
        (!listen.is_unspecified() && listen != advertise)
            .then_some("the advertised address is not the one listened on: others may not reach this node")
    }

    /// Puts in the port that the system chose where port 0 was asked for.
    #[must_use]
    pub fn with_bound_port(mut self, port: u16) -> Self {
        if self.listen.port() == 0 {
            self.listen.set_port(port);
        }
        if self.advertise.port() == 0 {
            self.advertise.set_port(port);
        }
        self
    }
}

pub(super) fn ip_of(spec: &AddrSpec, system: &[InterfaceAddr]) -> Result<IpAddr, AddrError> {
    let name = match &spec.host {
        Host::Ip(ip) => return Ok(*ip),
        Host::Interface(name) => name,
    };
    let of_family = |v4: bool| {
        system.iter().filter(move |a| a.name == *name && a.ip.is_ipv4() == v4).map(|a| a.ip).collect::<Vec<_>>()
    };
    let (v4, v6) = (of_family(true), of_family(false));
    match (v4.as_slice(), v6.as_slice()) {
        ([ip], _) | ([], [ip]) => Ok(*ip),
        ([], []) => {
            let (name, candidates) = (name.clone(), system.iter().map(ToString::to_string).collect());
            Err(match if_nametoindex(name.as_str()) {
                Ok(_) => AddrError::NoAddressOn { name, candidates },
                Err(_) => AddrError::NoInterface { name, candidates },
            })
        }
        ([], several) | (several, _) => Err(AddrError::Several {
            name: name.clone(),
            candidates: several.iter().map(ToString::to_string).collect(),
        }),
    }
}

fn only_address(system: &[InterfaceAddr]) -> Result<IpAddr, AddrError> {
    let reachable: Vec<_> = system.iter().filter(|a| !a.ip.is_loopback()).collect();
    let v4: Vec<_> = reachable.iter().filter(|a| a.ip.is_ipv4()).collect();
    match (v4.as_slice(), reachable.as_slice()) {
        ([only], _) => Ok(only.ip),
        ([], [only]) => Ok(only.ip),
        (_, []) => Err(AddrError::NoAddress),
        _ => Err(AddrError::Undecided { candidates: reachable.iter().map(ToString::to_string).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(list: &[(&str, &str)]) -> Vec<InterfaceAddr> {
        list.iter().map(|(name, ip)| InterfaceAddr { name: (*name).to_owned(), ip: ip.parse().unwrap() }).collect()
    }

    fn resolve(listen: &str, advertise: &str, data: &str, system: &[InterfaceAddr]) -> Result<Addresses, String> {
        let spec = |text: &str| (!text.is_empty()).then(|| text.parse::<AddrSpec>().unwrap());
        Addresses::resolve(spec(listen).as_ref(), spec(advertise).as_ref(), spec(data).as_ref(), 7946, system)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_and_is_not_an_address() {
        for good in
            ["eth1", "eth1:7000", "10.0.0.1", "10.0.0.1:1", "::1", "[::1]", "[fe80::1]:7946", "br-0a1b2c", "wg0.1"]
        {
            assert_eq!(
                good.parse::<AddrSpec>().unwrap().to_string().replace(['[', ']'], ""),
                good.replace(['[', ']'], "")
            );
        }
        for bad in ["", "10.0.0", "10.0.0.1:x", "eth1:70000", "[::1", "a/b", "averyveryverylongname", "10.0.0.256"] {
            let error = bad.parse::<AddrSpec>().unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn decisions_as_dockerd_makes_them() {
        let droplet = system(&[("lo", "127.0.0.1"), ("eth0", "203.0.113.7"), ("eth1", "10.130.27.207")]);
        let single = system(&[("lo", "127.0.0.1"), ("eth0", "192.0.2.1"), ("eth0", "2001:db8::1")]);
        let v6 = system(&[("lo", "::1"), ("eth0", "2001:db8::1")]);
        let twice = system(&[("eth1", "10.0.0.1"), ("eth1", "10.0.0.2")]);
        // listen, advertise, data path, system -> listen, advertise, data path
        let rows = [
            ("eth1", "", "", &droplet, "10.130.27.207:7946 10.130.27.207:7946 10.130.27.207"),
            ("", "eth1", "", &droplet, "0.0.0.0:7946 10.130.27.207:7946 10.130.27.207"),
            ("0.0.0.0:9000", "eth1", "eth0", &droplet, "0.0.0.0:9000 10.130.27.207:9000 203.0.113.7"),
            ("eth1", "198.51.100.1:1", "", &droplet, "10.130.27.207:7946 198.51.100.1:1 198.51.100.1"),
            ("", "", "", &single, "0.0.0.0:7946 192.0.2.1:7946 192.0.2.1"),
            ("", "", "", &v6, "[::]:7946 [2001:db8::1]:7946 2001:db8::1"),
            ("127.0.0.3", "", "", &droplet, "127.0.0.3:7946 127.0.0.3:7946 127.0.0.3"),
        ];
        for (listen, advertise, data, system, expected) in rows {
            let got = resolve(listen, advertise, data, system).unwrap();
            assert_eq!(format!("{} {} {}", got.listen, got.advertise, got.data_path), expected);
        }
        let refusals = [
            (
                "",
                "",
                &droplet,
                "could not choose an address to advertise: this system has several (203.0.113.7 on eth0, 10.130.27.207 on eth1); name one with --advertise-addr",
            ),
            (
                "nosuch9",
                "",
                &droplet,
                "there is no interface \"nosuch9\"; interfaces here: 127.0.0.1 on lo, 203.0.113.7 on eth0, 10.130.27.207 on eth1",
            ),
            ("", "eth1", &twice, "interface \"eth1\" has several addresses (10.0.0.1, 10.0.0.2); name one of them"),
            (
                "lo",
                "",
                &v6[1..].to_vec(),
                "interface \"lo\" has no usable address; interfaces here: 2001:db8::1 on eth0",
            ),
            ("", "0.0.0.0", &single, "0.0.0.0 cannot be advertised: others cannot reach it"),
            ("", "255.255.255.255", &single, "255.255.255.255 cannot be advertised: others cannot reach it"),
            ("", "224.0.0.1", &single, "224.0.0.1 cannot be advertised: others cannot reach it"),
            (
                "0.0.0.0",
                "2001:db8::1",
                &single,
                "cannot listen on 0.0.0.0 and advertise 2001:db8::1: one is IPv4, the other IPv6",
            ),
        ];
        for (listen, advertise, system, expected) in refusals {
            assert_eq!(resolve(listen, advertise, "", system).unwrap_err(), expected);
        }
        assert_eq!(resolve("", "", "", &system_lo()).unwrap_err(), AddrError::NoAddress.to_string());
    }

    #[test]
    fn overlay_traffic_has_no_port() {
        assert!(AddrSpec::without_port("eth1").is_ok() && AddrSpec::without_port("2001:db8::1").is_ok());
        for bad in ["127.0.0.1:80", "eth1:80", "[::1]:80"] {
            assert_eq!(AddrSpec::without_port(bad), Err(AddrError::Port(bad.to_owned())));
        }
        assert_eq!(AddrSpec::without_port("a/b"), Err(AddrError::Syntax("a/b".to_owned())));
    }

    #[test]
    fn where_members_may_be_asked() {
        let ip = |text: &str, port| Ok(Remote::Ip(text.parse().unwrap(), port));
        let name = |text: &str, port| Ok(Remote::Name(text.to_owned(), port));
        for (text, expected) in [
            ("10.0.0.1", ip("10.0.0.1", None)),
            ("10.0.0.1:1", ip("10.0.0.1", Some(1))),
            ("::1", ip("::1", None)),
            ("[::1]", ip("::1", None)),
            ("[::1]:7000", ip("::1", Some(7000))),
            ("swarm1", name("swarm1", None)),
            ("swarm_1.example.net:7000", name("swarm_1.example.net", Some(7000))),
        ] {
            assert_eq!(text.parse::<Remote>(), expected, "{text}");
        }
        for bad in [
            "",
            ":7946",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:99999",
            "swarm1:0",
            "swarm1:x",
            "http://127.0.0.1",
            "http://swarm1:7946",
            "a b",
            " swarm1",
            "a/b",
            "[::1",
            "::1]",
            "[::1]:",
            "[::1]:0",
            "[10.0.0.1]",
            "10.0.0",
            "10.0.0.256:1",
        ] {
            let error = bad.parse::<Remote>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{bad:?} ")) && error.contains("HOST[:PORT]"), "{error}");
        }
    }

    #[test]
    fn a_doubtful_advertised_address_is_told() {
        let droplet = system(&[("lo", "127.0.0.1"), ("eth0", "203.0.113.7"), ("eth1", "10.130.27.207")]);
        let doubt = |listen, advertise| resolve(listen, advertise, "", &droplet).unwrap().doubt(&droplet);
        for (listen, advertise) in [("", "eth1"), ("eth1", ""), ("127.0.0.3", ""), ("0.0.0.0", "eth0")] {
            assert_eq!(doubt(listen, advertise), None, "{listen} {advertise}");
        }
        assert!(doubt("", "198.51.100.1").unwrap().contains("on no interface"));
        assert!(doubt("eth1", "eth0").unwrap().contains("not the one listened on"));
    }

    fn system_lo() -> Vec<InterfaceAddr> {
        system(&[("lo", "127.0.0.1"), ("lo", "::1")])
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(interface_addrs().iter().any(|address| address.ip.is_loopback()));
    }
}
