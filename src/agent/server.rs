//! TCP on 7946: accepts, limits, hands requests to the protocol task or to admission.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::engine::Engine;
use super::roam::SharedAddresses;
use super::stream::{Request, Topic};
use super::trust::{Trust, lock};
use super::{admission, metrics};

/// Connections open at once, at most: each costs some 30 KB while its handshake runs.
const CONNECTIONS_MAX: usize = 512;
/// Connections open at once from one address, at most, so that one stranger cannot take all of them.
const CONNECTIONS_PER_ADDRESS_MAX: usize = 64;
/// Pause after the system refused to accept (no descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a connection is served with.
pub(super) struct Service {
    /// Certificates and tokens.
    pub trust: Arc<Trust>,
    /// The protocol task.
    pub engine: Engine,
    /// Where this node is.
    pub addresses: SharedAddresses,
}

/// Serves until `stop` becomes true or is dropped; on another address once one comes through `moved`. Requests under way are broken off then: each is safe to lose.
pub(super) async fn serve(
    mut listener: TcpListener,
    mut moved: mpsc::Receiver<TcpListener>,
    service: Arc<Service>,
    mut stop: watch::Receiver<bool>,
) {
    let open: Arc<Mutex<HashMap<IpAddr, usize>>> = Arc::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            Some(new) = moved.recv() => {
                listener = new;
                continue;
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        let (tcp, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = Place::take(&open, from.ip(), connections.len()) else {
            metrics::connection("limited");
            continue;
        };
        let service = Arc::clone(&service);
        connections.spawn(async move {
            let _place = place;
            metrics::connection(if handle(tcp, from, &service).await { "served" } else { "failed" });
        });
    }
}

/// One of the connections that an address may have; given back when dropped.
struct Place {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Place {
    fn take(open: &Arc<Mutex<HashMap<IpAddr, usize>>>, address: IpAddr, in_all: usize) -> Option<Self> {
        // Whoever has one IPv6 address has its whole /64.
        let address = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        };
        let mut counts = lock(open);
        let count = counts.get(&address).copied().unwrap_or_default();
        if in_all >= CONNECTIONS_MAX || count >= CONNECTIONS_PER_ADDRESS_MAX {
            return None;
        }
        counts.insert(address, count + 1);
        drop(counts);
        Some(Self { open: Arc::clone(open), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = lock(&self.open);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Whether the connection carried a request that was answered.
async fn handle(tcp: TcpStream, from: SocketAddr, service: &Service) -> bool {
    let config = Arc::clone(&service.trust.configs().server);
    let mut request = match Request::read(tcp, config).await {
        Ok(request) => request,
        Err(error) => {
            tracing::debug!(%from, %error, "connection refused");
            return false;
        }
    };
    let reply = match (request.topic, request.peer) {
        (Topic::Admission, peer) => {
            let advertise = lock(&service.addresses).advertise;
            admission::answer(&service.trust, &service.engine, advertise, peer, &request.body).await
        }
        (Topic::Exchange, Some(peer)) => match service.engine.request(peer, std::mem::take(&mut request.body)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                tracing::debug!(%from, peer = %peer.id, %error, "request refused");
                return false;
            }
            Err(_) => return false,
        },
        (Topic::Exchange, None) => {
            tracing::debug!(%from, "a stranger asked for an exchange");
            return false;
        }
    };
    match request.reply(&reply).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%from, %error, "reply not delivered");
            false
        }
    }
}
