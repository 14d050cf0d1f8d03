//! From what a person typed (`eth1`, `10.0.0.5:7946`) to addresses that can be bound and told to others.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

/// An address that cannot be used. The operator's to mend; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Neither an address nor an interface's name.
    #[error("{0:?} is neither an IP address nor an interface name, each with an optional :PORT (IPv6 as [ADDR]:PORT)")]
    Syntax(String),
    /// No such interface, or it is without addresses.
    #[error("interface {name:?} has no usable address; interfaces here: {}", list(.candidates))]
    Interface {
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

impl AddrError {
    /// What the operator may choose from.
    pub fn candidates(&self) -> &[String] {
        match self {
            Self::Interface { candidates, .. } | Self::Several { candidates, .. } | Self::Undecided { candidates } => {
                candidates
            }
            Self::Syntax(_) | Self::NoAddress | Self::NotReachable(_) | Self::Families { .. } => &[],
        }
    }
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
        if advertise_ip.is_unspecified() || advertise_ip.is_multicast() || is_link_local(advertise_ip) {
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

fn ip_of(spec: &AddrSpec, system: &[InterfaceAddr]) -> Result<IpAddr, AddrError> {
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
        ([], []) => Err(AddrError::Interface {
            name: name.clone(),
            candidates: system.iter().map(ToString::to_string).collect(),
        }),
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
                "eth9",
                "",
                &droplet,
                "interface \"eth9\" has no usable address; interfaces here: 127.0.0.1 on lo, 203.0.113.7 on eth0, 10.130.27.207 on eth1",
            ),
            ("", "eth1", &twice, "interface \"eth1\" has several addresses (10.0.0.1, 10.0.0.2); name one of them"),
            ("", "0.0.0.0", &single, "0.0.0.0 cannot be advertised: others cannot reach it"),
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

    fn system_lo() -> Vec<InterfaceAddr> {
        system(&[("lo", "127.0.0.1"), ("lo", "::1")])
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(interface_addrs().iter().any(|address| address.ip.is_loopback()));
    }
}
