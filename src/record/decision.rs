//! Decisions: what operators have decided about a node or about the cluster.
//!
//! Each decision sets one *register*: a subject (a node, or the cluster) and what is decided of it. Of two decisions
//! about one register the later one stands, by hybrid logical clock (Kulkarni et al. 2014), then by signer id. Whether a
//! signer may decide it is not asked here (`node::decisions`), nor how it is signed (`wire::decision`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Availability, NodeId, RecordError, Role};

/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 256;
/// Longest label key, in bytes.
pub const LABEL_KEY_BYTES_MAX: usize = 128;
/// Longest label value, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 256;
/// Labels that one node may have by decision.
pub const LABELS_MAX: usize = 64;
/// How far a decision may be ahead of the receiver's clock, in milliseconds: two clocks that are 5 minutes off, each its
/// own way, still understand each other.
pub const DRIFT_MS_MAX: u64 = 600_000;

/// A hybrid logical clock's time: 48 bits of milliseconds since the Unix epoch, 16 bits that count within one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Hlc(u64);

impl Hlc {
    /// The first time of a millisecond.
    pub const fn from_ms(unix_ms: u64) -> Self {
        Self(unix_ms << 16)
    }

    /// The millisecond, since the Unix epoch.
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// All 64 bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// A time for something that happens at `unix_ms` and after everything seen so far (`self`).
    #[must_use]
    pub fn next(self, unix_ms: u64) -> Self {
        Self::from_ms(unix_ms).max(Self(self.0.saturating_add(1)))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.0 & 0xffff)
    }
}

/// Whom a decision is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// One node.
    Node(NodeId),
}

/// What a decision sets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// A node's availability.
    Availability,
    /// A node's role.
    Role,
    /// A node's label of that key.
    Label(String),
    /// That a node is a member no more; for ever.
    Removed,
    /// The cluster's join token for a role.
    Token(Role),
    /// The cluster's CA.
    Ca,
    /// Something that a later version decides: its number and name. Kept and passed on.
    Other(u8, String),
}

/// A register of somebody: what two decisions compete for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DecisionKey {
    /// Whose.
    pub subject: Subject,
    /// Which.
    pub register: Register,
}

/// Where a decision is kept: registers have one place; roles, removals and steps of a CA one for each decision.
pub type Slot = (DecisionKey, Option<Stamp>);

/// The order of decisions about one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct Stamp {
    /// When.
    pub at: Hlc,
    /// By whom.
    pub signer: NodeId,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The node's availability.
    Availability(Availability),
    /// The node's role.
    Role(Role),
    /// The node's label; none: it has none of that key.
    Label(String, Option<String>),
    /// The node is a member no more. Nothing else about it counts, before or after.
    Removed,
    /// The join token of a role.
    Token(Role, TokenLimits),
    /// Which CA is trusted.
    Ca(CaStep),
    /// Something of a later version.
    Other(u8, String),
}

impl Verdict {
    /// What it sets.
    pub fn register(&self) -> Register {
        match self {
            Self::Availability(_) => Register::Availability,
            Self::Role(_) => Register::Role,
            Self::Label(key, _) => Register::Label(key.clone()),
            Self::Removed => Register::Removed,
            Self::Token(role, _) => Register::Token(*role),
            Self::Ca(_) => Register::Ca,
            Self::Other(number, name) => Register::Other(*number, name.clone()),
        }
    }

    /// Checks what is to be written.
    ///
    /// # Errors
    /// The limit that it breaks.
    pub fn validate(&self) -> Result<(), RecordError> {
        match self {
            Self::Label(key, value) => validate_label(key, value.as_deref().unwrap_or_default()),
            Self::Other(_, name) if name.len() > LABEL_KEY_BYTES_MAX => Err(RecordError::LabelKey(name.clone())),
            Self::Availability(_) | Self::Role(_) | Self::Removed | Self::Token(..) | Self::Ca(_) | Self::Other(..) => {
                Ok(())
            }
        }
    }
}

/// What decides whether a join token is good: every manager can check a secret by it, and nobody can make one from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct TokenLimits {
    /// SHA-256 of the secret; none: revoked.
    pub secret_digest: Option<[u8; 32]>,
    /// Not good from then on, in milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
    /// Joins allowed.
    pub max_uses: Option<u32>,
}

/// A step in changing the cluster's CA. Each waits until all members have done what the one before it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub struct CaStep {
    /// The new CA's certificate, DER.
    pub certificate: Vec<u8>,
    /// What is to be done with it.
    pub phase: CaPhase,
}

/// What is to be done with a CA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "node", derive(bincode::Encode, bincode::Decode))]
pub enum CaPhase {
    /// Trust it beside the others, and get a certificate from it.
    Trust,
    /// Show that certificate.
    Use,
    /// Trust no other.
    Only,
}

impl CaPhase {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Use => "use",
            Self::Only => "only",
        }
    }
}

/// A decision as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// About whom.
    pub subject: Subject,
    /// What.
    pub verdict: Verdict,
    /// Why, in the operator's words.
    pub reason: Option<String>,
    /// Until when it is to be carried out, in milliseconds since the Unix epoch: for the scheduler, not for gossipd.
    pub deadline_ms: Option<u64>,
    /// When and by whom.
    pub stamp: Stamp,
}

impl Decision {
    /// The register that it sets.
    pub fn key(&self) -> DecisionKey {
        DecisionKey { subject: self.subject, register: self.verdict.register() }
    }

    /// Where it is kept.
    pub fn slot(&self) -> Slot {
        let key = self.key();
        let is_kept = matches!(key.register, Register::Role | Register::Removed | Register::Ca);
        (key, is_kept.then_some(self.stamp))
    }

    /// Checks every field against the limits of this module.
    ///
    /// # Errors
    /// The first field that breaks its limit.
    pub fn validate(&self) -> Result<(), RecordError> {
        if let Some(reason) = &self.reason
            && (reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control))
        {
            return Err(RecordError::Reason(reason.clone()));
        }
        self.verdict.validate()
    }
}

/// Checks a label: keys are like Docker's, values are any printable text.
///
/// # Errors
/// What is wrong with it.
pub fn validate_label(key: &str, value: &str) -> Result<(), RecordError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    let is_bounded = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = key.as_bytes();
    if bytes.len() > LABEL_KEY_BYTES_MAX
        || !is_bounded(bytes.first())
        || !is_bounded(bytes.last())
        || !bytes.iter().copied().all(allowed)
    {
        return Err(RecordError::LabelKey(key.to_owned()));
    }
    if value.len() > LABEL_VALUE_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(RecordError::LabelValue { key: key.to_owned(), value: value.to_owned() });
    }
    Ok(())
}

/// A decision in a line of a log: what, about whom, by whom.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a>(pub &'a Decision);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.verdict {
            Verdict::Availability(availability) => write!(f, "availability {availability}")?,
            Verdict::Role(role) => write!(f, "role {role}")?,
            Verdict::Label(key, Some(value)) => write!(f, "label {key}={value}")?,
            Verdict::Label(key, None) => write!(f, "no label {key}")?,
            Verdict::Removed => f.write_str("removed")?,
            Verdict::Token(role, _) => write!(f, "join token {role}")?,
            Verdict::Ca(CaStep { phase, .. }) => write!(f, "{} a new CA", phase.word())?,
            Verdict::Other(number, name) => write!(f, "register {number} {name}")?,
        }
        match self.0.subject {
            Subject::Cluster => f.write_str(" of the cluster")?,
            Subject::Node(node) => write!(f, " of {node}")?,
        }
        write!(f, " by {}", self.0.stamp.signer)
    }
}

/// All that has been decided about one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decided {
    /// Its availability.
    pub availability: Option<Arc<Decision>>,
    /// Its role.
    pub role: Option<Arc<Decision>>,
    /// Its labels, by key; those taken away are not in it.
    pub labels: BTreeMap<String, (String, Arc<Decision>)>,
}

impl Decided {
    /// Collects decisions about one node; other subjects' must not be among them.
    pub fn collect<'a>(decisions: impl IntoIterator<Item = &'a Arc<Decision>>) -> Self {
        let mut out = Self::default();
        for decision in decisions {
            match &decision.verdict {
                Verdict::Availability(_) => out.availability = Some(Arc::clone(decision)),
                Verdict::Role(_) => out.role = Some(Arc::clone(decision)),
                Verdict::Label(key, Some(value)) => {
                    out.labels.insert(key.clone(), (value.clone(), Arc::clone(decision)));
                }
                Verdict::Label(_, None)
                | Verdict::Removed
                | Verdict::Token(..)
                | Verdict::Ca(_)
                | Verdict::Other(..) => {}
            }
        }
        out
    }

    /// All decisions in it.
    pub fn all(&self) -> impl Iterator<Item = &Decision> {
        let single = [&self.availability, &self.role].into_iter().flatten();
        single.chain(self.labels.values().map(|(_, decision)| decision)).map(|decision| &**decision)
    }

    /// The availability decided, if one was.
    pub fn availability(&self) -> Option<Availability> {
        match self.availability.as_ref()?.verdict {
            Verdict::Availability(availability) => Some(availability),
            _ => None,
        }
    }

    /// The role decided, if one was.
    pub fn role(&self) -> Option<Role> {
        match self.role.as_ref()?.verdict {
            Verdict::Role(role) => Some(role),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_checked() {
        let cases: &[(&str, &str, bool)] = &[
            ("zone", "fra1", true),
            ("com.example/rack", "", true),
            ("zone", "größer", true),
            ("", "x", false),
            ("-zone", "x", false),
            ("zone-", "x", false),
            ("zo ne", "x", false),
            ("zone=a", "x", false),
            ("zone", "a\nb", false),
        ];
        for (key, value, ok) in cases {
            assert_eq!(validate_label(key, value).is_ok(), *ok, "{key:?}={value:?}");
        }
        assert!(validate_label(&"k".repeat(LABEL_KEY_BYTES_MAX + 1), "").is_err());
        assert!(validate_label("k", &"v".repeat(LABEL_VALUE_BYTES_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn the_clock_only_goes_forward(seen: u32, now: u32, steps in 1_usize..50) {
            let mut clock = Hlc::from_ms(u64::from(seen));
            for _ in 0..steps {
                let next = clock.next(u64::from(now));
                prop_assert!(next > clock);
                prop_assert!(next.ms() >= u64::from(now) || next.ms() >= clock.ms());
                clock = next;
            }
        }
    }
}
