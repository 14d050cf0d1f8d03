//! Which addresses a node is to have, and following this machine's when they change.
//!
//! An address that was named by its interface, or chosen because the machine has no other, may change while the daemon
//! runs (DHCP, a network that was moved). Then the node announces the new one, and sockets bound to the old one are
//! bound anew. An address that was named as such is never looked at again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::addr::{AddrError, AddrSpec, Addresses, InterfaceAddr, interface_addrs, ip_of};
use super::config::Settings;
use super::engine::{Engine, Stopped};
use super::net::{BindError, Sockets};
use super::trust::{Trust, lock};
use crate::api::NodeOptions;
use crate::node::{Command, Node, Write};
use crate::record::network::Attachment;

/// Time between two looks. One asks the kernel for the addresses of all interfaces: 40 µs on a machine with four, so
/// 0.002 % of a processor. Daemons whose addresses were named as such do not look.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Where a node is, as it changes.
pub(super) type SharedAddresses = Arc<Mutex<Addresses>>;

/// What was said about addresses, by `init` or `join` and by the configuration.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    listen: Option<AddrSpec>,
    advertise: Option<AddrSpec>,
    data_path: Option<AddrSpec>,
    port: u16,
}

impl Wanted {
    /// What `init` or `join` said overrides the configuration, address by address.
    ///
    /// # Errors
    /// What they said is no address.
    pub(super) fn new(options: &NodeOptions, settings: &Settings) -> Result<Self, AddrError> {
        let Settings { listen_addr, advertise_addr, data_path_addr, port, .. } = settings;
        let said = |text: &Option<String>, configured: &Option<AddrSpec>| match text {
            Some(text) => text.parse().map(Some),
            None => Ok(configured.clone()),
        };
        Ok(Self {
            listen: said(&options.listen_addr, listen_addr)?,
            advertise: said(&options.advertise_addr, advertise_addr)?,
            data_path: said(&options.data_path_addr, data_path_addr)?,
            port: *port,
        })
    }

    /// The addresses that this machine has for it now.
    ///
    /// # Errors
    /// [`AddrError`].
    pub(super) fn resolve(&self) -> Result<Addresses, AddrError> {
        self.resolve_among(&interface_addrs())
    }

    fn resolve_among(&self, system: &[InterfaceAddr]) -> Result<Addresses, AddrError> {
        let Self { listen, advertise, data_path, port } = self;
        Addresses::resolve(listen.as_ref(), advertise.as_ref(), data_path.as_ref(), *port, system)
    }

    /// What is to be followed from `now` on; none: nothing that may change.
    pub(super) fn roams(self, now: &Addresses) -> Option<Self> {
        self.roams_among(now, &interface_addrs())
    }

    fn roams_among(mut self, now: &Addresses, system: &[InterfaceAddr]) -> Option<Self> {
        if self.advertise.is_none() && now.listen.ip().is_unspecified() {
            // Chosen as the only one. Its interface is followed: when that goes down for a while, another must not do.
            let chosen = system.iter().find(|address| address.ip == now.advertise.ip())?;
            self.advertise = Some(AddrSpec::of_interface(chosen.name.clone()));
        }
        let may_change = |spec: &Option<AddrSpec>| spec.as_ref().is_some_and(AddrSpec::is_interface);
        let roams = [&self.listen, &self.advertise, &self.data_path].into_iter().any(may_change);
        roams.then_some(self)
    }

    /// Where the node is to be instead of `now`; none: it is where it should be.
    ///
    /// # Errors
    /// [`AddrError`]: between two addresses there may be none, or both.
    fn moved(&self, now: &Addresses, mut system: Vec<InterfaceAddr>) -> Result<Option<Addresses>, AddrError> {
        // While its interface has none, the old one stays.
        let data_path = self.data_path.as_ref().map(|spec| {
            let mut same_family = system.clone();
            same_family.retain(|address| address.ip.is_ipv4() == now.data_path.is_ipv4());
            ip_of(spec, &same_family).unwrap_or(now.data_path)
        });
        // Who has got to know it by IPv4 may not reach it by IPv6.
        system.retain(|address| address.ip.is_ipv4() == now.advertise.is_ipv4());
        let Self { listen, advertise, port, data_path: _ } = self;
        let found = Addresses::resolve(listen.as_ref(), advertise.as_ref(), None, *port, &system)?;
        let data_path = data_path.unwrap_or(found.data_path);
        let found = Addresses { data_path, ..found.with_bound_port(now.listen.port()) };
        Ok((found != *now).then_some(found))
    }
}

/// Moves attachments that were made with this node's data-path address to the present one. Which it was is on the disk:
/// it may have changed while the daemon was not running.
///
/// # Errors
/// A text for the log; the next look tries again.
pub(super) async fn move_attachments(trust: &Trust, engine: &Engine) -> Result<(), String> {
    let data_path = engine.query(Node::data_path_addr).await.map_err(|e| e.to_string())?;
    let before = trust.stored().data_path;
    if before == Some(data_path) {
        return Ok(());
    }
    let own = |node: &Node| node.tables().attachments_of(node.identity().id).collect::<Vec<_>>();
    for (network, Attachment { name, mac, vtep, epoch: _ }) in engine.query(own).await.map_err(|e| e.to_string())? {
        if before == Some(vtep) {
            tracing::info!(network = %name, before = %vtep, vtep = %data_path, "the attachment follows this node's data path");
            let moved = Write::Attach { network, name, vtep: data_path, mac };
            engine.write(moved).await.map_err(|e| e.to_string())?;
        }
    }
    trust.note_data_path(data_path).map_err(|e| e.to_string())
}

/// The task that follows this machine's addresses.
pub(super) struct Roaming {
    /// What is wanted.
    pub wanted: Wanted,
    /// Where the node is.
    pub addresses: SharedAddresses,
    /// The protocol task.
    pub engine: Engine,
    /// Takes a listener in place of the one there is.
    pub listeners: mpsc::Sender<TcpListener>,
}

impl Roaming {
    /// Looks every so often until `stop` becomes true or is dropped.
    pub(super) async fn follow(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            _ = self.look() => {}
        }
    }

    async fn look(&self) -> Result<(), Stopped> {
        // Each trouble is told once, not at every look.
        let mut told = String::new();
        loop {
            sleep(LOOK_INTERVAL).await;
            let now = *lock(&self.addresses);
            let trouble = match self.wanted.moved(&now, interface_addrs()) {
                Ok(None) => String::new(),
                Ok(Some(found)) => self.move_to(now, found).await?.err().map_or_else(String::new, |e| e.to_string()),
                Err(error) => error.to_string(),
            };
            if !trouble.is_empty() && trouble != told {
                tracing::error!(
                    advertise = %now.advertise,
                    retry_in = ?LOOK_INTERVAL,
                    "this machine's address has changed, and this node cannot follow yet: {trouble}"
                );
            }
            told = trouble;
        }
    }

    async fn move_to(&self, now: Addresses, found: Addresses) -> Result<Result<(), BindError>, Stopped> {
        if found.listen != now.listen {
            let sockets = match Sockets::bind(found.listen) {
                Ok(sockets) => sockets,
                Err(error) => return Ok(Err(error)),
            };
            self.engine.rebind(sockets.udp).await?;
            self.listeners.send(sockets.tcp).await.map_err(|_| Stopped)?;
        }
        if found.advertise != now.advertise {
            self.engine.command(Command::Readdress(found.advertise)).await?;
        }
        self.engine.command(Command::DataPath(found.data_path)).await?;
        *lock(&self.addresses) = found;
        tracing::info!(listen = %found.listen, advertise = %found.advertise, data_path = %found.data_path, before = %now.advertise, "this node has another address");
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(list: &[(&str, &str)]) -> Vec<InterfaceAddr> {
        list.iter().map(|(name, ip)| InterfaceAddr { name: (*name).to_owned(), ip: ip.parse().unwrap() }).collect()
    }

    fn wanted(listen: &str, advertise: &str) -> Wanted {
        let spec = |text: &str| (!text.is_empty()).then(|| text.parse().unwrap());
        Wanted { listen: spec(listen), advertise: spec(advertise), data_path: None, port: 7946 }
    }

    #[test]
    fn an_interface_is_followed_and_an_address_is_not() {
        let before = system(&[("lo", "127.0.0.1"), ("eth1", "10.0.0.1")]);
        let after = system(&[("lo", "127.0.0.1"), ("eth0", "192.0.2.9"), ("eth1", "10.0.0.2")]);
        let cases = [
            // listen, advertise, then where it listens and what it advertises
            ("", "", Some("0.0.0.0:7946 10.0.0.2:7946")),
            ("0.0.0.0", "", Some("0.0.0.0:7946 10.0.0.2:7946")),
            ("eth1", "", Some("10.0.0.2:7946 10.0.0.2:7946")),
            ("eth1:7000", "eth1", Some("10.0.0.2:7000 10.0.0.2:7000")),
            ("", "eth1:7000", Some("0.0.0.0:7946 10.0.0.2:7000")),
            ("10.0.0.1", "", None),
            ("", "10.0.0.1", None),
        ];
        for (listen, advertise, expected) in cases {
            let wanted = wanted(listen, advertise);
            let now = wanted.resolve_among(&before).unwrap();
            let roams = wanted.roams_among(&now, &before);
            let moved = roams.and_then(|wanted| wanted.moved(&now, after.clone()).unwrap());
            let shown = moved.map(|found| format!("{} {}", found.listen, found.advertise));
            assert_eq!(shown.as_deref(), expected, "{listen:?} {advertise:?}");
        }
    }

    #[test]
    fn the_data_path_is_followed_by_itself_and_waits_for_its_interface() {
        let before = system(&[("eth0", "192.0.2.9"), ("eth0", "2001:db8::9"), ("eth1", "10.0.0.1")]);
        let wanted = Wanted { data_path: Some("eth0".parse().unwrap()), ..wanted("10.0.0.1", "10.0.0.1") };
        let now = wanted.resolve_among(&before).unwrap();
        let wanted = wanted.roams_among(&now, &before).unwrap();
        let data_path = |system: Vec<InterfaceAddr>| {
            wanted.moved(&now, system).unwrap().map(|found| (found.advertise, found.data_path.to_string()))
        };
        assert_eq!(data_path(before), None);
        let moved = system(&[("eth0", "192.0.2.10"), ("eth0", "2001:db8::9"), ("eth1", "10.0.0.1")]);
        assert_eq!(data_path(moved), Some((([10, 0, 0, 1], 7946).into(), "192.0.2.10".to_owned())));
        assert_eq!(data_path(system(&[("eth0", "2001:db8::9"), ("eth1", "10.0.0.1")])), None, "the family stays");
        assert_eq!(data_path(system(&[("eth1", "10.0.0.1")])), None);
    }

    #[test]
    fn what_is_no_answer_moves_nothing() {
        let before = system(&[("eth1", "10.0.0.1")]);
        let wanted = wanted("", "");
        let now = wanted.resolve_among(&before).unwrap();
        let wanted = wanted.roams_among(&now, &before).unwrap();
        assert_eq!(wanted.moved(&now, before), Ok(None));
        // Another address of the same family beside it, and another interface while its own is away.
        for unclear in [&[("eth1", "10.0.0.1"), ("eth1", "10.0.0.2")][..], &[("tun0", "10.8.0.1")], &[]] {
            assert!(wanted.moved(&now, system(unclear)).is_err(), "{unclear:?}");
        }
        // The other family is no news.
        assert_eq!(wanted.moved(&now, system(&[("eth1", "10.0.0.1"), ("eth1", "2001:db8::1")])), Ok(None));
    }

    #[test]
    fn a_port_that_the_system_chose_stays() {
        let before = system(&[("eth1", "10.0.0.1")]);
        let wanted = Wanted { port: 0, ..wanted("eth1", "") };
        let now = wanted.resolve_among(&before).unwrap().with_bound_port(4_711);
        let moved = wanted.moved(&now, system(&[("eth1", "10.0.0.2")])).unwrap().unwrap();
        assert_eq!((moved.listen, moved.advertise), (([10, 0, 0, 2], 4_711).into(), ([10, 0, 0, 2], 4_711).into()));
    }
}
