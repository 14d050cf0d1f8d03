//! The data that spreads: who a node is and what it says of itself, with the limits that everybody checks.
//!
//! Not here: how the data travels (`wire`), who gets it when (`node`), or how it is shown (`api`, `cli`).
//! Everything in this module is plain data with validation; it is used by every other module.

pub mod decision;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest host name, in bytes (RFC 1035 §2.3.4).
pub const HOSTNAME_BYTES_MAX: usize = 253;
/// Longest version, operating system or architecture string, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;
/// Bytes that a node's own labels and metadata may have in all, keys and values counted.
pub const METADATA_BYTES_MAX: usize = 4_096;
/// Labels and metadata entries that a node may have of its own, each.
pub const METADATA_ENTRIES_MAX: usize = 128;
/// Largest encoded body of a node record, in bytes. What does not fit into a datagram is fetched over TCP.
pub const NODE_RECORD_BYTES_MAX: usize = 704 + METADATA_BYTES_MAX + 8 * METADATA_ENTRIES_MAX;
/// Longest announced absence, in seconds: nobody may ask to be missed by nobody for longer.
pub const AWAY_S_MAX: u16 = 3_600;

const ID_DIGITS: usize = 25;
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Why a record or a name was refused. The sender is at fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The text is not a node id.
    #[error("{0:?} is not an id: expected 25 characters of 0-9 and a-z")]
    Id(String),
    /// A host name breaks RFC 1123.
    #[error(
        "{0:?} is not a host name: expected up to 253 characters of a-z, A-Z, 0-9, '-', '_' and '.', not empty, not starting with '-' or '.'"
    )]
    Hostname(String),
    /// A short text field is too long or holds control characters.
    #[error("{field} {value:?} is refused: up to {LABEL_BYTES_MAX} printable ASCII characters are allowed")]
    Label {
        /// The field's name.
        field: &'static str,
        /// What it held.
        value: String,
    },
    /// A label's key is refused.
    #[error(
        "label key {0:?} is refused: expected up to {max} characters of a-z, A-Z, 0-9, '-', '_', '.' and '/', a letter or digit first and last",
        max = decision::LABEL_KEY_BYTES_MAX
    )]
    LabelKey(String),
    /// A label's value is refused.
    #[error(
        "the value of label {key} is refused: up to {max} bytes without control characters are allowed, not {value:?}",
        max = decision::LABEL_VALUE_BYTES_MAX
    )]
    LabelValue {
        /// The label.
        key: String,
        /// Its value.
        value: String,
    },
    /// Labels and metadata are too large together.
    #[error(
        "labels and metadata of {bytes} bytes in {entries} entries are refused: up to {METADATA_BYTES_MAX} bytes are allowed, in {METADATA_ENTRIES_MAX} labels and {METADATA_ENTRIES_MAX} metadata entries"
    )]
    Metadata {
        /// Keys and values.
        bytes: usize,
        /// How many.
        entries: usize,
    },
    /// A reason is refused.
    #[error("reason {0:?} is refused: up to {max} bytes without control characters are allowed", max = decision::REASON_BYTES_MAX)]
    Reason(String),
    /// An announced absence is too long.
    #[error("an absence of {0} s is refused: at most {AWAY_S_MAX} s may be announced")]
    Away(u16),
    /// A word of a closed list is none of the list.
    #[error("{value:?} is not {what}: expected one of {expected}")]
    Word {
        /// What the word stands for.
        what: &'static str,
        /// What was given.
        value: String,
        /// The words allowed.
        expected: &'static str,
    },
}

/// Writes a big-endian number of any length as base-36 digits, left-padded with zeros to `digits`.
pub fn base36_encode(bytes: &[u8], digits: usize) -> String {
    let mut number = bytes.to_vec();
    let mut out = vec![b'0'; digits];
    for slot in out.iter_mut().rev() {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 36).unwrap_or(u8::MAX);
            remainder = value % 36;
        }
        *slot = BASE36.get(remainder as usize).copied().unwrap_or(b'0');
    }
    out.iter().map(|byte| char::from(*byte)).collect()
}

/// Reads what [`base36_encode`] wrote into exactly `N` bytes; `None` where a character is no digit or the number is too large.
pub fn base36_decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0_u8; N];
    for character in text.chars() {
        if character.is_ascii_uppercase() {
            return None;
        }
        let mut carry = character.to_digit(36)?;
        for byte in out.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = u8::try_from(value & 0xff).ok()?;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(out)
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
        #[cfg_attr(
            feature = "agent",
            derive(utoipa::ToSchema),
            schema(
                value_type = String,
                description = "128 random bits, printed as 25 base-36 characters.",
                pattern = "^[0-9a-f][0-9a-z]{24}$",
                examples("bj8muio9ov1wkkxg7ts1lqozc")
            )
        )]
        pub struct $name([u8; 16]);

        impl $name {
            /// Makes an id of 128 bits that the caller has drawn at random.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The 128 bits, big-endian.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&base36_encode(&self.0, ID_DIGITS))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = RecordError;

            fn from_str(text: &str) -> Result<Self, RecordError> {
                if text.len() != ID_DIGITS {
                    return Err(RecordError::Id(text.to_owned()));
                }
                base36_decode(text).map(Self).ok_or_else(|| RecordError::Id(text.to_owned()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id_type! {
    /// A node's name for ever: 128 random bits, printed as 25 base-36 characters.
    ///
    /// ```
    /// use gossipd::record::NodeId;
    /// let id: NodeId = "asqtfpeef1ur58dijnnykuwuk".parse()?;
    /// assert_eq!(id.to_string(), "asqtfpeef1ur58dijnnykuwuk");
    /// # Ok::<(), gossipd::record::RecordError>(())
    /// ```
    NodeId
}
id_type! {
    /// A cluster's name for ever: 128 random bits, printed as 25 base-36 characters.
    ClusterId
}

macro_rules! word_enum {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal / $shown:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "lowercase")]
        #[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
        #[cfg_attr(feature = "agent", derive(utoipa::ToSchema))]
        pub enum $name {
            $($(#[$vdoc])* $variant),+
        }

        impl $name {
            /// All values, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in JSON, filters and configuration.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The capitalised word of a table's cell.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$variant => $shown),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.word())
            }
        }

        impl FromStr for $name {
            type Err = RecordError;

            fn from_str(text: &str) -> Result<Self, RecordError> {
                match text.to_ascii_lowercase().as_str() {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(RecordError::Word { what: $what, value: text.to_owned(), expected: $expected }),
                }
            }
        }
    };
}

word_enum! {
    /// What gossip says of a node.
    Status, "a status", "ready, suspect, down, left" {
        /// It answers.
        Ready = "ready" / "Ready",
        /// Somebody's probe of it failed; it may still refute.
        Suspect = "suspect" / "Suspect",
        /// It was declared failed.
        Down = "down" / "Down",
        /// It said goodbye.
        Left = "left" / "Left",
    }
}

word_enum! {
    /// What an operator decided about a node. Independent of its [`Status`].
    #[derive(Default)]
    Availability, "an availability", "active, pause, drain" {
        /// Takes tasks.
        #[default]
        Active = "active" / "Active",
        /// Keeps what it has, takes no more.
        Pause = "pause" / "Pause",
        /// Takes none and must be emptied.
        Drain = "drain" / "Drain",
    }
}

word_enum! {
    /// What a node may do in its cluster.
    Role, "a role", "worker, manager" {
        /// Runs tasks.
        Worker = "worker" / "Worker",
        /// Also admits joiners and signs decisions.
        Manager = "manager" / "Manager",
    }
}

// After the macros that it uses.
pub mod network;

/// The place of a record in its owner's history: lives first, then changes within a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Version {
    /// The owner's generation when it wrote the record.
    pub generation: u64,
    /// The owner's count of changes within that generation, from 1.
    pub seq: u64,
}

impl Version {
    /// Before the first.
    pub const NONE: Self = Self { generation: 0, seq: 0 };
}

/// What a node says of itself. Written by that node alone; one record, replaced as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct NodeRecord {
    /// Host name, for people; not unique.
    pub hostname: String,
    /// The role its certificate gives it.
    pub role: Role,
    /// The availability it was started with.
    pub availability: Availability,
    /// Where overlay traffic to this node goes.
    pub data_path_addr: IpAddr,
    /// Version of the daemon.
    pub agent_version: String,
    /// Operating system, as `std::env::consts::OS` has it.
    pub os: String,
    /// Architecture, as `std::env::consts::ARCH` has it.
    pub arch: String,
    /// When it joined the cluster, in milliseconds since the Unix epoch.
    pub joined_at_ms: u64,
    /// The generation that its process started with; the node fills it in. Tells two processes with one id apart.
    pub started_generation: u64,
    /// It has said goodbye: its absence is no failure.
    pub left: bool,
    /// It has stopped and expects to be back within that many seconds; 0: it is not away.
    pub away_s: u16,
    /// What else it says.
    pub details: Details,
}

/// What a node says of itself beside what gossip needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Details {
    /// End of its certificate, in milliseconds since the Unix epoch; 0: unknown.
    pub certificate_expires_at_ms: u64,
    /// The scheduler on it leads, in that term.
    pub leader_term: Option<u64>,
    /// Processors; 0: unknown.
    pub cpus: u32,
    /// Memory, in bytes; 0: unknown.
    pub memory_bytes: u64,
    /// Labels from its own configuration.
    pub labels: BTreeMap<String, String>,
    /// What local programs attach to it.
    pub metadata: BTreeMap<String, String>,
    /// The CA of the certificate that it shows: the first four bytes of the digest; 0: unknown.
    pub certificate_ca: u32,
    /// The CA of the certificate that it holds ready while the CA is changed; 0: none.
    pub reserve_ca: u32,
}

impl Details {
    /// Checks labels and metadata.
    ///
    /// # Errors
    /// The limit that they break.
    pub fn validate(&self) -> Result<(), RecordError> {
        let all = || self.labels.iter().chain(&self.metadata);
        let bytes = all().map(|(key, value)| key.len() + value.len()).sum();
        let too_many = self.labels.len().max(self.metadata.len()) > METADATA_ENTRIES_MAX;
        if too_many || bytes > METADATA_BYTES_MAX {
            return Err(RecordError::Metadata { bytes, entries: self.labels.len() + self.metadata.len() });
        }
        for (key, value) in all() {
            decision::validate_label(key, "")?;
            if value.chars().any(char::is_control) {
                return Err(RecordError::LabelValue { key: key.clone(), value: value.clone() });
            }
        }
        Ok(())
    }
}

impl NodeRecord {
    /// Checks every field against the limits of this module.
    ///
    /// # Errors
    /// The first field that breaks its limit.
    pub fn validate(&self) -> Result<(), RecordError> {
        // Destructured in full: a new field has to be looked at here.
        let Self {
            hostname,
            role: _,
            availability: _,
            data_path_addr: _,
            agent_version,
            os,
            arch,
            joined_at_ms: _,
            started_generation: _,
            left: _,
            away_s,
            details,
        } = self;
        details.validate()?;
        validate_hostname(hostname)?;
        for (field, value) in [("version", agent_version), ("os", os), ("architecture", arch)] {
            if value.len() > LABEL_BYTES_MAX || !value.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
                return Err(RecordError::Label { field, value: value.clone() });
            }
        }
        if *away_s > AWAY_S_MAX {
            return Err(RecordError::Away(*away_s));
        }
        Ok(())
    }
}

/// Checks a host name: it is printed on terminals and in logs of every node, so nothing odd may be in it.
///
/// # Errors
/// [`RecordError::Hostname`] with the name.
pub fn validate_hostname(hostname: &str) -> Result<(), RecordError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if hostname.is_empty()
        || hostname.len() > HOSTNAME_BYTES_MAX
        || hostname.starts_with(['-', '.'])
        || !hostname.bytes().all(allowed)
    {
        return Err(RecordError::Hostname(hostname.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_25_base36_characters_and_nothing_else() {
        let cases: &[(&str, bool)] = &[
            ("asqtfpeef1ur58dijnnykuwuk", true),
            ("0000000000000000000000000", true),
            ("f5lxx1zz5pnorynqglhzmsp33", true),  // 2^128 - 1
            ("f5lxx1zz5pnorynqglhzmsp34", false), // 2^128
            ("zzzzzzzzzzzzzzzzzzzzzzzzz", false),
            ("ASQTFPEEF1UR58DIJNNYKUWUK", false),
            ("asqtfpeef1ur58dijnnykuwu", false),
            ("asqtfpeef1ur58dijnnykuw-k", false),
            ("", false),
        ];
        for (text, ok) in cases {
            assert_eq!(text.parse::<NodeId>().is_ok(), *ok, "{text:?}");
        }
    }

    #[test]
    fn host_names_that_could_write_on_a_terminal_are_refused() {
        for bad in ["", "-x", ".x", "a b", "a\u{1b}[31m", "naïve", "a\n", &"x".repeat(254)] {
            assert!(validate_hostname(bad).is_err(), "{bad:?}");
        }
        for good in ["swarm1", "a.b-c_d", "X", "1"] {
            assert!(validate_hostname(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn an_absence_is_announced_for_an_hour_at_most() {
        let away = |away_s| NodeRecord {
            hostname: "swarm1".to_owned(),
            role: Role::Worker,
            availability: Availability::Active,
            data_path_addr: [10, 130, 27, 207].into(),
            agent_version: "0.1.0".to_owned(),
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            joined_at_ms: 0,
            started_generation: 1,
            left: false,
            away_s,
            details: Details::default(),
        };
        for good in [0, 1, AWAY_S_MAX] {
            assert_eq!(away(good).validate(), Ok(()));
        }
        assert_eq!(away(AWAY_S_MAX + 1).validate(), Err(RecordError::Away(AWAY_S_MAX + 1)));
    }

    #[test]
    fn words_are_read_in_any_case_and_refused_with_the_list() {
        assert_eq!("Drain".parse::<Availability>().unwrap(), Availability::Drain);
        let error = "sleep".parse::<Availability>().unwrap_err().to_string();
        assert_eq!(error, "\"sleep\" is not an availability: expected one of active, pause, drain");
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text(bytes: [u8; 16]) {
            let id = NodeId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().len(), ID_DIGITS);
            prop_assert_eq!(id.to_string().parse::<NodeId>().unwrap(), id);
        }

        #[test]
        fn versions_order_lives_before_changes(a: (u64, u64), b: (u64, u64)) {
            let version = |(generation, seq)| Version { generation, seq };
            prop_assert_eq!(version(a).cmp(&version(b)), a.cmp(&b));
        }
    }
}
