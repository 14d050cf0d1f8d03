//! The daemon: everything around the protocol core that touches the world.
//!
//! | module | owns |
//! |---|---|
//! | `config`, `logging`, `metrics` | what an operator sets and sees |
//! | `state`, `vault`, `keeper`, `hex` | the state directory, and decisions on their way there |
//! | `addr`, `net`, `udp` | addresses and the sockets of 7946 |
//! | `token`, `tls`, `trust` | certificates, join tokens, membership as stored |
//! | `stream`, `server`, `admission` | TCP: requests between nodes, and how a stranger gets in |
//! | `engine`, `clock` | the one task that owns the protocol core, and its time |
//! | `daemon`, `own`, `upkeep` | membership's life: resume, init, join, leave; what this node says of itself; what is done from time to time |
//! | `rotate_ca` | changing the cluster's CA, step by step |
//! | `roam` | which addresses are wanted, and what to do when they change |
//! | `socket`, `http`, `view`, `decide`, `doctor` | the local API |
//! | `networks`, `network_view`, `lease` | networks and endpoints: reads, writes, and those that last as long as a connection |
//! | `vault`, `keeper` | decisions and own tables on the disk, one transaction at a time |
//! | `notify` | what the service manager is told |
//! | `lead`, `lines` | who leads; answers without end |
//! | `hub`, `watch` | the event stream: the history, kept once, and one reader of it |
//!
//! Tasks: the engine; the TCP accept loop and one task for each connection; maintenance (certificate, tokens,
//! contacts); the look at this machine's addresses, where one may change; the API server. All run on one thread; they share `trust::Trust` behind short locks and
//! reach the engine through a bounded channel. Each may be stopped at any await: what must survive is on the disk
//! before it counts.

pub mod addr;
mod admission;
mod capacity;
mod clock;
pub mod config;
mod daemon;
mod decide;
mod doctor;
mod engine;
mod hex;
mod http;
mod hub;
mod keeper;
mod lead;
mod lease;
mod lines;
pub mod logging;
pub mod metrics;
mod net;
mod network_view;
mod networks;
mod notify;
mod own;
mod roam;
mod rotate_ca;
mod server;
mod socket;
mod state;
mod stream;
mod tls;
mod token;
mod trust;
mod udp;
mod upkeep;
mod vault;
mod view;
mod watch;

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use self::config::{ConfigError, OnTerminate, Overrides, Settings};
use self::daemon::Daemon;
use self::net::BindError;
use self::socket::{ApiSocket, SocketError};
use self::state::{StateDir, StateError};
use self::trust::TrustError;
use crate::record::NodeId;

/// Milliseconds since the Unix epoch; a clock before 1970 counts as 1970.
fn unix_ms(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC, with milliseconds.
fn rfc3339(unix_ms: u64) -> String {
    // The last millisecond of the year 9999; later ones have no RFC 3339 text.
    const LAST_MS: u64 = 253_402_300_799_999;
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST_MS))).to_string()
}

/// Makes a file, if there is none, and takes its lock (flock) for as long as the value lives; `None` when another process
/// has it.
fn lock_file(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The operator's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The API's socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The stored membership.
    #[error("{} cannot be used: {source}; restore it from a backup, or remove it and join again", .path.display())]
    Membership {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: Box<TrustError>,
    },
    /// An address of the stored membership cannot be had.
    #[error(transparent)]
    Address(#[from] addr::AddrError),
    /// 7946.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The address for metrics.
    #[error("metrics.listen: cannot listen on {addr}: {source}")]
    Metrics {
        /// The address.
        addr: std::net::SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// Anything else: a bug, or the system.
    #[error("{0}")]
    Internal(String),
}

impl RunError {
    /// The exit code (`sysexits.h`): 65 damaged state, 69 an address, socket or directory is taken, 70 internal, 73
    /// something cannot be created or written, 78 configuration.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 78,
            Self::Socket(SocketError::Group(_)) => 78,
            Self::Membership { .. } | Self::State(StateError::Damaged { .. }) => 65,
            Self::State(StateError::InUse(_)) | Self::Socket(SocketError::InUse(_)) => 69,
            Self::Bind(_) | Self::Address(_) | Self::Metrics { .. } => 69,
            Self::State(StateError::Io { .. }) | Self::Socket(SocketError::Io { .. } | SocketError::NotASocket(_)) => {
                73
            }
            Self::Internal(_) => 70,
        }
    }
}

fn internal(error: impl std::fmt::Display) -> RunError {
    RunError::Internal(error.to_string())
}

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// [`RunError`]; it has undone what it had begun.
pub fn run(overrides: &Overrides) -> Result<(), RunError> {
    let settings = Settings::load(overrides)?;
    let reload = logging::start(&settings.log_filter, settings.log_format).map_err(internal)?;
    // One thread: the protocol has one owner anyway, and a sidecar should be small.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
    let outcome = runtime.block_on(serve(settings, overrides.clone(), reload));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn serve(settings: Settings, overrides: Overrides, reload: logging::Reload) -> Result<(), RunError> {
    // Signals first, so that none is lost while starting.
    let mut terminate = signal(SignalKind::terminate()).map_err(internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(internal)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(internal)?;
    let state = StateDir::open(&settings.state_dir, NodeId::from_bytes(crate::ca::random().map_err(internal)?))?;
    let (socket, listener) = ApiSocket::bind(&settings.socket, settings.socket_group.as_deref(), settings.socket_mode)?;
    let recorder = metrics::Recorder::install().map_err(internal)?;
    let metrics_listener = match settings.metrics_listen {
        Some(addr) => Some(TcpListener::bind(addr).await.map_err(|source| RunError::Metrics { addr, source })?),
        None => None,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %state.node_id(),
        hostname = settings.hostname,
        state_dir = %settings.state_dir.display(),
        socket = %settings.socket.display(),
        "gossipd starts"
    );
    let on_terminate = settings.on_terminate;
    let (removed, mut removals) = mpsc::channel(1);
    let daemon = Arc::new(Daemon::new(settings, state, recorder, removed));
    daemon.resume().await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let api = tokio::spawn(http::serve(listener, Arc::clone(&daemon), stopped.clone()));
    if let Some(listener) = metrics_listener {
        tokio::spawn(http::serve_metrics(listener, Arc::clone(&daemon), stopped.clone()));
    }
    tokio::spawn(Arc::clone(&daemon).join_unattended(stopped.clone()));
    notify::ready();
    tokio::spawn(notify::signs_of_life(Arc::clone(&daemon), stopped));
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hangup.recv() => reload_filter(&overrides, &reload),
            Some(decision) = removals.recv() => daemon.expel(&decision).await,
        }
    };
    notify::stopping();
    tracing::info!(reason, leave = on_terminate == OnTerminate::Leave, "gossipd stops");
    stop.send_replace(true);
    daemon.shut_down().await;
    // Requests under way get a moment to end.
    let _ = tokio::time::timeout(Duration::from_secs(1), api).await;
    drop(socket);
    Ok(())
}

fn reload_filter(overrides: &Overrides, reload: &logging::Reload) {
    match Settings::load(overrides).map_err(|error| error.to_string()).and_then(|settings| {
        reload.set(&settings.log_filter)?;
        Ok(settings.log_filter)
    }) {
        Ok(filter) => tracing::info!(filter, "log filter reloaded"),
        Err(error) => tracing::warn!(error, "log filter not reloaded; the old one stays"),
    }
}
