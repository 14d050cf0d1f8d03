//! Configuration in two stages: what was typed (`File`, [`Overrides`]), then what is valid ([`Settings`]).
//!
//! Strength rises: built-in default, file, environment, flag. An unknown key is an error; so is a value out of range.
//! Nothing is bound, opened or made before all of it is valid.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use super::addr::{AddrSpec, InterfaceAddr, Remote};
use crate::api::{DEFAULT_PORT, DEFAULT_SOCKET};
use crate::node::{Config as Protocol, DATAGRAM_BYTES_CEILING, DATAGRAM_BYTES_FLOOR};
use crate::record::{AWAY_S_MAX, Availability, Details, RecordError, validate_hostname};

/// Where the daemon keeps its state when nobody says otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/gossipd";
/// How long others wait for a daemon that was stopped to be started again: an upgrade takes a second or two.
const RESTART_GRACE_S_DEFAULT: u16 = 10;
/// The configuration file read when nobody names one; it may be missing.
pub const DEFAULT_CONFIG: &str = "/etc/gossipd/gossipd.toml";

/// The configuration cannot be used. The operator's to mend; nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is no TOML, or has an unknown key or a value of the wrong type.
    #[error("configuration {}: {message}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A value that cannot be used.
    #[error("{key}{} = {value:?}: {reason}", .flag.map(|flag| format!(" ({flag})")).unwrap_or_default())]
    Value {
        /// The key, as in the file.
        key: &'static str,
        /// The flag, when flag or environment gave the value.
        flag: Option<&'static str>,
        /// What was given.
        value: String,
        /// Why it cannot be used, and what can.
        reason: String,
    },
    /// One of two keys that make no sense alone.
    #[error("{missing} is missing: join.remotes and join.token_file go together")]
    Missing {
        /// The key that is not there.
        missing: &'static str,
    },
}

fn value(key: &'static str, value: impl ToString, reason: impl ToString) -> ConfigError {
    ConfigError::Value { key, flag: None, value: value.to_string(), reason: reason.to_string() }
}

/// A set of protocol constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// One data centre.
    Lan,
    /// Several regions.
    Wan,
    /// One machine.
    Local,
}

impl Profile {
    /// Its constants.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Lan => Protocol::lan(),
            Self::Wan => Protocol::wan(),
            Self::Local => Protocol::local(),
        }
    }
}

impl FromStr for Profile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "lan" => Ok(Self::Lan),
            "wan" => Ok(Self::Wan),
            "local" => Ok(Self::Local),
            _ => Err("expected lan, wan or local"),
        }
    }
}

/// What SIGTERM means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTerminate {
    /// Stop to be started again: others may find this node down meanwhile.
    Stop,
    /// Say goodbye first; the next start comes back by itself.
    Leave,
}

impl FromStr for OnTerminate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "stop" => Ok(Self::Stop),
            "leave" => Ok(Self::Leave),
            _ => Err("expected stop or leave"),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json"),
        }
    }
}

/// The file as it was typed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    state_dir: Option<PathBuf>,
    hostname: Option<String>,
    listen_addr: Option<String>,
    advertise_addr: Option<String>,
    data_path_addr: Option<String>,
    port: Option<u16>,
    profile: Option<String>,
    availability: Option<String>,
    on_terminate: Option<String>,
    restart_grace: Option<String>,
    labels: BTreeMap<String, String>,
    api: ApiTable,
    join: JoinTable,
    log: LogTable,
    metrics: MetricsTable,
    protocol: ProtocolTable,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ApiTable {
    socket: Option<PathBuf>,
    group: Option<String>,
    mode: Option<String>,
    write_uids: Vec<u32>,
    write_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JoinTable {
    remotes: Vec<String>,
    token_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LogTable {
    filter: Option<String>,
    format: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MetricsTable {
    listen: Option<String>,
}

macro_rules! protocol_table {
    ($($key:ident: $type:ty, $low:expr, $high:expr;)+) => {
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct ProtocolTable {
            $($key: Option<$type>,)+
        }

        /// Keys of `[protocol]` with the values of a profile, in the order of the file.
        pub fn protocol_rows(protocol: &Protocol) -> Vec<(&'static str, u64)> {
            vec![$((stringify!($key), protocol.$key as u64)),+]
        }

        impl ProtocolTable {
            fn over(&self, mut protocol: Protocol) -> Result<Protocol, ConfigError> {
                $(
                    if let Some(given) = self.$key {
                        let (low, high): ($type, $type) = ($low, $high);
                        if !(low..=high).contains(&given) {
                            return Err(value(
                                concat!("protocol.", stringify!($key)),
                                given,
                                format!("expected {low} to {high}"),
                            ));
                        }
                        protocol.$key = given;
                    }
                )+
                if protocol.probe_rtt_ms >= protocol.probe_period_ms {
                    return Err(value(
                        "protocol.probe_rtt_ms",
                        protocol.probe_rtt_ms,
                        format!("must be below probe_period_ms, which is {}", protocol.probe_period_ms),
                    ));
                }
                if protocol.probe_rtt_min_ms > protocol.probe_rtt_ms {
                    return Err(value(
                        "protocol.probe_rtt_min_ms",
                        protocol.probe_rtt_min_ms,
                        format!("must not be above probe_rtt_ms, which is {}", protocol.probe_rtt_ms),
                    ));
                }
                Ok(protocol)
            }
        }
    };
}

protocol_table! {
    datagram_bytes_max: usize, DATAGRAM_BYTES_FLOOR, DATAGRAM_BYTES_CEILING;
    probe_period_ms: u64, 20, 60_000;
    probe_rtt_min_ms: u64, 1, 30_000;
    probe_rtt_ms: u64, 1, 30_000;
    inquiry_ms: u64, 20, 60_000;
    witnesses: usize, 1, 16;
    suspect_timeout_ms: u64, 50, 600_000;
    refused_timeout_ms: u64, 10, 600_000;
    stall_timeout_ms: u64, 100, 600_000;
    alone_timeout_ms: u64, 100, 600_000;
    isolated_after_ms: u64, 100, 600_000;
    fanout: usize, 1, 16;
    gossip_interval_ms: u64, 5, 60_000;
    coalesce_ms: u64, 0, 1_000;
    sync_interval_ms: u64, 500, 3_600_000;
    rejoin_interval_ms: u64, 50, 600_000;
    left_retention_s: u64, 1, 31_536_000;
    down_retention_s: u64, 1, 31_536_000;
}

/// What environment and flags say; flags have won already where both speak.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// The configuration file; none: the default one, if it is there.
    pub config: Option<PathBuf>,
    /// As `state_dir`.
    pub state_dir: Option<PathBuf>,
    /// As `api.socket`.
    pub socket: Option<PathBuf>,
    /// As `hostname`.
    pub hostname: Option<String>,
    /// As `listen_addr`.
    pub listen_addr: Option<String>,
    /// As `advertise_addr`.
    pub advertise_addr: Option<String>,
    /// As `data_path_addr`.
    pub data_path_addr: Option<String>,
    /// As `port`.
    pub port: Option<u16>,
    /// As `profile`.
    pub profile: Option<String>,
    /// As `on_terminate`.
    pub on_terminate: Option<String>,
    /// As `restart_grace`.
    pub restart_grace: Option<String>,
    /// As `log.filter`.
    pub log_filter: Option<String>,
    /// As `log.format`.
    pub log_format: Option<String>,
}

/// Configuration that is valid and complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the state directory is.
    pub state_dir: PathBuf,
    /// What this node calls itself.
    pub hostname: String,
    /// Where gossip listens, if named.
    pub listen_addr: Option<AddrSpec>,
    /// What others are told, if named.
    pub advertise_addr: Option<AddrSpec>,
    /// Where overlay traffic goes, if named.
    pub data_path_addr: Option<AddrSpec>,
    /// The port where an address has none.
    pub port: u16,
    /// The availability to join with, when the join does not say.
    pub availability: Availability,
    /// What SIGTERM means.
    pub on_terminate: OnTerminate,
    /// Seconds within which a daemon that stops is expected back; 0: it stops without a word.
    pub restart_grace_s: u16,
    /// What this node says of itself, for whoever places tasks.
    pub labels: BTreeMap<String, String>,
    /// The API's socket.
    pub socket: PathBuf,
    /// The socket's group; none: `gossipd` if there is such a group.
    pub socket_group: Option<String>,
    /// The socket's mode.
    pub socket_mode: u32,
    /// Users that may write, beside root and the daemon's own.
    pub write_uids: Vec<u32>,
    /// Groups that may write.
    pub write_gids: Vec<u32>,
    /// Members to join through, unattended.
    pub join_remotes: Vec<String>,
    /// Where the token for that is.
    pub join_token_file: Option<PathBuf>,
    /// Which log lines are written.
    pub log_filter: String,
    /// How they look.
    pub log_format: LogFormat,
    /// Where metrics are served beside the socket.
    pub metrics_listen: Option<SocketAddr>,
    /// The protocol's constants.
    pub protocol: Protocol,
}

impl Settings {
    /// Reads the file and lays the overrides over it.
    ///
    /// # Errors
    /// The first [`ConfigError`].
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        let file = match &overrides.config {
            Some(path) => read(path)?,
            None => match read(Path::new(DEFAULT_CONFIG)) {
                Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => File::default(),
                other => other?,
            },
        };
        Self::build(file, overrides.clone())
    }

    /// Tells of configured addresses that this machine does not have (yet): `init` and `join` could not use them.
    pub(super) fn warn_of_addresses(&self, system: &[InterfaceAddr]) {
        let keys = [
            ("listen_addr", &self.listen_addr),
            ("advertise_addr", &self.advertise_addr),
            ("data_path_addr", &self.data_path_addr),
        ];
        for (key, spec) in keys {
            if let Some(Err(error)) = spec.as_ref().map(|spec| spec.check(system)) {
                tracing::warn!(key, %error, "a configured address cannot be used now");
            }
        }
    }

    fn build(file: File, overrides: Overrides) -> Result<Self, ConfigError> {
        let profile = Given::new("profile", "--profile", overrides.profile, file.profile);
        let profile = profile.parsed()?.unwrap_or(Profile::Lan);
        let filter = Given::new("log.filter", "--log", overrides.log_filter, file.log.filter);
        let filter = filter.checked(|text| super::logging::parse_filter(text).map(|_| text.to_owned()))?;
        let hostname = Given::new("hostname", "--hostname", overrides.hostname, file.hostname);
        let listen = Given::new("listen_addr", "--listen-addr", overrides.listen_addr, file.listen_addr);
        let advertise = Given::new("advertise_addr", "--advertise-addr", overrides.advertise_addr, file.advertise_addr);
        let data_path = Given::new("data_path_addr", "--data-path-addr", overrides.data_path_addr, file.data_path_addr);
        let on_terminate = Given::new("on_terminate", "--on-terminate", overrides.on_terminate, file.on_terminate);
        let restart_grace = Given::new("restart_grace", "--restart-grace", overrides.restart_grace, file.restart_grace);
        let log_format = Given::new("log.format", "--log-format", overrides.log_format, file.log.format);
        match (file.join.remotes.is_empty(), file.join.token_file.is_none()) {
            (true, false) => return Err(ConfigError::Missing { missing: "join.remotes" }),
            (false, true) => return Err(ConfigError::Missing { missing: "join.token_file" }),
            _ => {}
        }
        for remote in &file.join.remotes {
            remote.parse::<Remote>().map_err(|error| value("join.remotes", remote, error))?;
        }
        Ok(Self {
            state_dir: overrides.state_dir.or(file.state_dir).unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            hostname: hostname.checked(checked_hostname)?.map_or_else(system_hostname, Ok)?,
            listen_addr: listen.parsed()?,
            advertise_addr: advertise.parsed()?,
            data_path_addr: data_path.checked(AddrSpec::without_port)?,
            port: overrides.port.or(file.port).unwrap_or(DEFAULT_PORT),
            availability: Given::in_file("availability", file.availability).parsed()?.unwrap_or_default(),
            on_terminate: on_terminate.parsed()?.unwrap_or(OnTerminate::Stop),
            restart_grace_s: restart_grace.checked(restart_grace_s)?.unwrap_or(RESTART_GRACE_S_DEFAULT),
            labels: checked_labels(file.labels)?,
            socket: overrides.socket.or(file.api.socket).unwrap_or_else(|| DEFAULT_SOCKET.into()),
            socket_group: file.api.group,
            socket_mode: file.api.mode.map_or(Ok(0o660), |mode| socket_mode(&mode))?,
            write_uids: file.api.write_uids,
            write_gids: file.api.write_gids,
            join_remotes: file.join.remotes,
            join_token_file: file.join.token_file,
            log_filter: filter.unwrap_or_else(|| "info".to_owned()),
            log_format: log_format.parsed()?.unwrap_or(LogFormat::Text),
            metrics_listen: Given::in_file("metrics.listen", file.metrics.listen).parsed()?,
            protocol: file.protocol.over(profile.protocol())?,
        })
    }
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string().trim_end().to_owned(),
    })
}

/// A value as it was typed, and where.
struct Given {
    key: &'static str,
    /// Set when flag or environment gave it.
    flag: Option<&'static str>,
    text: Option<String>,
}

impl Given {
    fn new(key: &'static str, flag: &'static str, over: Option<String>, file: Option<String>) -> Self {
        Self { key, flag: over.is_some().then_some(flag), text: over.or(file) }
    }

    fn in_file(key: &'static str, text: Option<String>) -> Self {
        Self { key, flag: None, text }
    }

    fn checked<T, E: ToString>(self, check: impl FnOnce(&str) -> Result<T, E>) -> Result<Option<T>, ConfigError> {
        let Self { key, flag, text } = self;
        text.map(|text| {
            check(&text).map_err(|error| ConfigError::Value { key, flag, reason: error.to_string(), value: text })
        })
        .transpose()
    }

    fn parsed<T: FromStr<Err: ToString>>(self) -> Result<Option<T>, ConfigError> {
        self.checked(str::parse)
    }
}

fn checked_labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ConfigError> {
    let details = Details { labels, ..Details::default() };
    match details.validate() {
        Ok(()) => Ok(details.labels),
        Err(error) => Err(value("labels", "", error)),
    }
}

fn checked_hostname(name: &str) -> Result<String, RecordError> {
    validate_hostname(name).map(|()| name.to_owned())
}

fn system_hostname() -> Result<String, ConfigError> {
    let name = nix::unistd::gethostname()
        .map_err(|error| value("hostname", "", format!("the system does not tell its name: {error}")))?;
    let name = name.to_string_lossy();
    checked_hostname(&name).map_err(|error| value("hostname", &name, error))
}

/// Whole seconds, as the record has them; what is less than one counts as one.
fn restart_grace_s(text: &str) -> Result<u16, String> {
    let grace = humantime::parse_duration(text).map_err(|error| format!("{error}; expected for example 10s, or 0s"))?;
    let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
    let within = u16::try_from(seconds).ok().filter(|seconds| *seconds <= AWAY_S_MAX);
    within.ok_or_else(|| format!("expected at most {AWAY_S_MAX}s"))
}

fn socket_mode(text: &str) -> Result<u32, ConfigError> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    let mode = mode.ok_or_else(|| value("api.mode", text, "expected an octal mode such as \"0660\""))?;
    if mode & 0o002 != 0 {
        return Err(value("api.mode", text, "everybody on the machine could write; use a group instead"));
    }
    Ok(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Result<Settings, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        Settings::build(file, Overrides::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_shipped_example_is_the_defaults() {
        let example = include_str!("../../deploy/gossipd.toml");
        // Every key stands in it, commented out with its default.
        let uncommented: String = example
            .lines()
            .filter_map(|line| match line.strip_prefix('#') {
                None => Some(line),
                Some(rest) => (!rest.starts_with(' ') && !rest.is_empty()).then_some(rest),
            })
            .collect::<Vec<_>>()
            .join("\n");
        assert_eq!(build(example).unwrap(), build("").unwrap());
        assert_eq!(build(&uncommented).unwrap(), build("").unwrap());
        for (key, _) in protocol_rows(&Protocol::lan()) {
            assert!(uncommented.contains(&format!("\n{key} = ")), "{key} is missing in the example");
        }
    }

    #[test]
    fn strength_rises_from_file_to_override() {
        let file: File = toml::from_str("port = 1\nprofile = \"wan\"\n[log]\nfilter = \"debug\"").unwrap();
        let overrides = Overrides { port: Some(2), ..Overrides::default() };
        let settings = Settings::build(file, overrides).unwrap();
        assert_eq!((settings.port, settings.log_filter.as_str()), (2, "debug"));
        assert_eq!(settings.protocol, Protocol::wan());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_value() {
        let cases = [
            ("porto = 1", "unknown field `porto`"),
            ("port = 70000", "70000"),
            ("profile = \"fast\"", "profile = \"fast\": expected lan, wan or local"),
            ("listen_addr = \"10.0.0\"", "listen_addr = \"10.0.0\": \"10.0.0\" is neither an IP address nor"),
            ("hostname = \"a b\"", "hostname = \"a b\": \"a b\" is not a host name"),
            ("[labels]\n\"a b\" = \"x\"", "label key \"a b\" is refused"),
            ("restart_grace = \"soon\"", "restart_grace = \"soon\": "),
            ("restart_grace = \"2h\"", "restart_grace = \"2h\": expected at most 3600s"),
            ("[api]\nmode = \"0666\"", "api.mode = \"0666\": everybody"),
            ("[api]\nmode = \"rw\"", "api.mode = \"rw\": expected an octal mode"),
            ("[log]\nfilter = \"gossipd=loud\"", "log.filter = \"gossipd=loud\""),
            (
                "[log]\nfilter = \"inf\"",
                "log.filter = \"inf\": \"inf\" is no directive; expected LEVEL or MODULE=LEVEL",
            ),
            ("data_path_addr = \"127.0.0.1:80\"", "data_path_addr = \"127.0.0.1:80\": \"127.0.0.1:80\" has a port"),
            ("[join]\nremotes = [\"a\"]", "join.token_file is missing: join.remotes and join.token_file go together"),
            ("[join]\ntoken_file = \"a\"", "join.remotes is missing: join.remotes and join.token_file go together"),
            (
                "[join]\nremotes = [\"a:0\"]\ntoken_file = \"a\"",
                "join.remotes = \"a:0\": \"a:0\" is not where a member could be asked; expected HOST[:PORT]",
            ),
            ("[protocol]\nfanout = 99", "protocol.fanout = \"99\": expected 1 to 16"),
            ("[protocol]\nprobe_rtt_ms = 900", "must be below probe_period_ms, which is 210"),
            ("[protocol]\nprobe_rtt_min_ms = 151", "must not be above probe_rtt_ms, which is 150"),
            ("[protocol]\nprobe_perido_ms = 900", "unknown field `probe_perido_ms`"),
        ];
        for (text, expected) in cases {
            let error = build(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_restart_grace_is_whole_seconds() {
        for (text, expected) in [("0s", 0), ("1ms", 1), ("10s", 10), ("1500ms", 2), ("1h", 3_600)] {
            assert_eq!(build(&format!("restart_grace = {text:?}")).unwrap().restart_grace_s, expected, "{text}");
        }
    }

    #[test]
    fn a_flag_is_named_when_it_gave_the_value() {
        let error =
            |file: &str, overrides| Settings::build(toml::from_str(file).unwrap(), overrides).unwrap_err().to_string();
        let xml = Overrides { log_format: Some("xml".to_owned()), ..Overrides::default() };
        assert_eq!(error("", xml), "log.format (--log-format) = \"xml\": expected text or json");
        let name = Overrides { hostname: Some("a b".to_owned()), ..Overrides::default() };
        assert!(error("", name).starts_with("hostname (--hostname) = \"a b\": "));
        let other = Overrides { hostname: Some("a".to_owned()), ..Overrides::default() };
        assert!(error("[log]\nformat = \"xml\"", other).starts_with("log.format = \"xml\": "));
    }
}
