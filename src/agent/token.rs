//! Join tokens: `GDTKN-1-<digest of the CA's certificate>-<secret>`.
//!
//! The digest (SHA-256, 50 base-36 digits) lets a joiner check whom it talks to before it shows the secret (128 random
//! bits, 25 digits). Managers keep one token for each role as a register that the newest rotation wins; how often it
//! was used is a counter that only grows, merged by maximum, so a limit on uses is exact while managers can talk.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::record::{NodeId, Role, base36_decode, base36_encode};
use crate::wire::admission::TokenRecord;

const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;
/// Longest validity of a token, when it has an end at all: 20 years, as for certificates.
pub(super) const TOKEN_EXPIRY_MAX: Duration = Duration::from_secs(20 * 366 * 86_400);

/// A text is not a join token. Whoever typed it is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// It does not start like one.
    #[error("join token is malformed: it does not start with GDTKN-1-")]
    Prefix,
    /// It is one of Docker Swarm's.
    #[error(
        "this is a join token of Docker Swarm (SWMTKN-…); get one of gossipd's with 'gossipctl join-token worker' on a manager"
    )]
    Swarm,
    /// Another version.
    #[error("join token is of a later version than this gossipd knows; upgrade gossipd")]
    Version,
    /// Parts missing, too short or too long.
    #[error(
        "join token is malformed: expected GDTKN-1-<50 characters>-<25 characters> of 0-9 and a-z; was it cut off when copied?"
    )]
    Parts,
    /// All of the right length, but other characters, or numbers that are too large.
    #[error(
        "join token is malformed: it has the right length, but is mistyped somewhere (only 0-9 and a-z may follow GDTKN-1-); copy it again"
    )]
    Mistyped,
}

/// A join token as a person holds it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    /// SHA-256 of the CA's certificate.
    pub ca_digest: [u8; 32],
    /// What proves that the holder may join.
    pub secret: [u8; 16],
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest = base36_encode(&self.ca_digest, DIGEST_DIGITS);
        write!(f, "GDTKN-1-{digest}-{}", base36_encode(&self.secret, SECRET_DIGITS))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(GDTKN-1-…)")
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if text.starts_with("SWMTKN-") {
            return Err(TokenError::Swarm);
        }
        let rest = text.strip_prefix("GDTKN-").ok_or(TokenError::Prefix)?;
        let (version, rest) = rest.split_once('-').ok_or(TokenError::Parts)?;
        if version != "1" {
            return Err(if version.bytes().all(|b| b.is_ascii_digit()) {
                TokenError::Version
            } else {
                TokenError::Prefix
            });
        }
        let (digest, secret) = rest.split_once('-').ok_or(TokenError::Parts)?;
        if digest.len() != DIGEST_DIGITS || secret.len() != SECRET_DIGITS {
            return Err(TokenError::Parts);
        }
        let ca_digest = base36_decode(digest).ok_or(TokenError::Mistyped)?;
        let secret = base36_decode(secret).ok_or(TokenError::Mistyped)?;
        Ok(Self { ca_digest, secret })
    }
}

/// Why a secret admits nobody. Told to whoever showed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token of this cluster has this secret (any more).
    #[error(
        "join token is not valid: this cluster never issued it, or it was rotated or revoked; get one with 'gossipctl join-token worker' on a manager"
    )]
    Unknown,
    /// It was valid.
    #[error(
        "the {role} join token expired at {at}; a manager makes a new one with 'gossipctl join-token {role} --rotate'"
    )]
    Expired {
        /// The role it gave.
        role: Role,
        /// When (RFC 3339).
        at: String,
    },
    /// All its joins are used up.
    #[error(
        "the {role} join token was good for {} used up; a manager makes a new one with 'gossipctl join-token {role} --rotate'",
        if *max == 1 { "1 join, which is".to_owned() } else { format!("{max} joins, which are") }
    )]
    UsedUp {
        /// The role it gave.
        role: Role,
        /// How many joins it allowed.
        max: u32,
    },
}

/// What managers decide about a token with: SHA-256 of its secret, from which nobody gets the secret back.
pub(super) fn secret_digest(secret: &[u8; 16]) -> [u8; 32] {
    let mut out = [0; 32];
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
    out.iter_mut().zip(digest.as_ref()).for_each(|(slot, byte)| *slot = *byte);
    out
}

fn uses(record: &TokenRecord) -> u32 {
    record.uses.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
}

/// How many joins are left; none: no limit.
pub(super) fn uses_left(record: &TokenRecord) -> Option<u32> {
    record.max_uses.map(|max| max.saturating_sub(uses(record)))
}

/// The managers' tokens.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Tokens(Vec<TokenRecord>);

impl Tokens {
    /// Tokens as stored or received.
    pub(super) fn new(records: Vec<TokenRecord>) -> Self {
        let mut tokens = Self(Vec::new());
        tokens.merge(records);
        tokens
    }

    /// For storing and sending.
    pub(super) fn records(&self) -> &[TokenRecord] {
        &self.0
    }

    /// The token of `role`.
    pub(super) fn get(&self, role: Role) -> Option<&TokenRecord> {
        self.0.iter().find(|record| record.role == role)
    }

    /// Replaces the token of `role`; none as `secret` revokes it.
    pub(super) fn replace(
        &mut self,
        role: Role,
        writer: NodeId,
        secret: Option<[u8; 16]>,
        expires_at_ms: Option<u64>,
        max_uses: Option<u32>,
    ) {
        let revision = self.get(role).map_or(0, |record| record.revision) + 1;
        self.0.retain(|record| record.role != role);
        self.0.push(TokenRecord { role, revision, writer, secret, expires_at_ms, max_uses, uses: Vec::new() });
    }

    /// Takes in what another manager knows. Says whether anything changed.
    pub(super) fn merge(&mut self, theirs: Vec<TokenRecord>) -> bool {
        let before = self.0.clone();
        for record in theirs {
            let Some(mine) = self.0.iter_mut().find(|mine| mine.role == record.role) else {
                self.0.push(record);
                continue;
            };
            match (record.revision, record.writer).cmp(&(mine.revision, mine.writer)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Greater => *mine = record,
                std::cmp::Ordering::Equal => {
                    record.uses.iter().for_each(|(manager, count)| count_up_to(&mut mine.uses, *manager, *count));
                }
            }
        }
        self.0.sort_by_key(|record| record.role);
        self.0 != before
    }

    /// The role that `secret` gives at `now_ms`; counts the use for `manager`.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is counted then.
    pub(super) fn admit(&mut self, secret: &[u8; 16], manager: NodeId, now_ms: u64) -> Result<Role, Refusal> {
        // All are compared, each in constant time: how long this takes says nothing about the secrets.
        let mut found = None;
        for record in &mut self.0 {
            if record.secret.is_some_and(|known| verify_slices_are_equal(&known, secret).is_ok()) {
                found = Some(record);
            }
        }
        let record = found.ok_or(Refusal::Unknown)?;
        let role = record.role;
        if let Some(at_ms) = record.expires_at_ms.filter(|at_ms| *at_ms <= now_ms) {
            return Err(Refusal::Expired { role, at: super::rfc3339(at_ms) });
        }
        if let Some(max) = record.max_uses.filter(|max| uses(record) >= *max) {
            return Err(Refusal::UsedUp { role, max });
        }
        let used = record.uses.iter().find(|(id, _)| *id == manager).map_or(0, |(_, count)| *count);
        count_up_to(&mut record.uses, manager, used.saturating_add(1));
        Ok(role)
    }
}

fn count_up_to(uses: &mut Vec<(NodeId, u32)>, manager: NodeId, count: u32) {
    match uses.iter_mut().find(|(id, _)| *id == manager) {
        Some((_, known)) => *known = (*known).max(count),
        None => uses.push((manager, count)),
    }
    uses.sort_unstable();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(n: u8) -> NodeId {
        NodeId::from_bytes([n; 16])
    }

    fn tokens(max_uses: Option<u32>, expires_at_ms: Option<u64>) -> Tokens {
        let mut tokens = Tokens::new(Vec::new());
        tokens.replace(Role::Worker, id(1), Some([1; 16]), expires_at_ms, max_uses);
        tokens.replace(Role::Manager, id(1), Some([2; 16]), None, None);
        tokens
    }

    #[test]
    fn golden_token() {
        let token = Token { ca_digest: [0xAB; 32], secret: [0xCD; 16] };
        let text = token.to_string();
        assert_eq!(text, "GDTKN-1-4a178chkvc233fyzjkcs7jhxk5deomg01essrj0c2skw2kqf8r-c6mkwxde5aqt3f5o3gktcohcd");
        assert_eq!(text.parse(), Ok(token));
        assert_eq!(format!(" {text}\n").parse(), Ok(token));
        assert!(!format!("{token:?}").contains("4a178"));
    }

    #[test]
    fn what_is_wrong_with_a_token_is_said() {
        let good = Token { ca_digest: [1; 32], secret: [2; 16] }.to_string();
        let cases = [
            ("", TokenError::Prefix),
            ("hello", TokenError::Prefix),
            (
                "SWMTKN-1-49x7ir3ihge066dretzivcu2gmdbwtys7v6h1yvybx784e5g5v-734ruykh451rsguxdjfhonuxn",
                TokenError::Swarm,
            ),
            ("GDTKN-2-a-b", TokenError::Version),
            ("GDTKN-x-a-b", TokenError::Prefix),
            ("GDTKN-1-abc", TokenError::Parts),
            (&good[..good.len() - 1], TokenError::Parts),
            (&format!("{good}0"), TokenError::Parts),
            (&good.to_uppercase(), TokenError::Mistyped),
            (&good.replace("0", "!"), TokenError::Mistyped),
            // More than 128 and 256 bits.
            (&format!("{}{}", &good[..good.len() - SECRET_DIGITS], "z".repeat(SECRET_DIGITS)), TokenError::Mistyped),
            (&format!("GDTKN-1-{}-{}", "z".repeat(DIGEST_DIGITS), "0".repeat(SECRET_DIGITS)), TokenError::Mistyped),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Token>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn admission_follows_rotation_expiry_and_uses() {
        let mut two = tokens(Some(2), Some(1_000));
        assert_eq!(two.admit(&[9; 16], id(1), 0), Err(Refusal::Unknown));
        assert_eq!(two.admit(&[2; 16], id(1), 0), Ok(Role::Manager));
        assert_eq!(two.admit(&[1; 16], id(1), 0), Ok(Role::Worker));
        assert_eq!(two.admit(&[1; 16], id(2), 999), Ok(Role::Worker));
        assert_eq!(two.admit(&[1; 16], id(1), 999), Err(Refusal::UsedUp { role: Role::Worker, max: 2 }));
        let said = |max| Refusal::UsedUp { role: Role::Worker, max }.to_string();
        assert!(said(1).starts_with("the worker join token was good for 1 join, which is used up; "), "{}", said(1));
        assert!(said(2).starts_with("the worker join token was good for 2 joins, which are used up; "), "{}", said(2));
        assert!(matches!(two.admit(&[1; 16], id(1), 1_000), Err(Refusal::Expired { .. })));
        two.replace(Role::Worker, id(1), Some([3; 16]), None, None);
        assert_eq!(two.admit(&[1; 16], id(1), 0), Err(Refusal::Unknown), "rotated");
        assert_eq!(two.admit(&[3; 16], id(1), 0), Ok(Role::Worker));
        two.replace(Role::Worker, id(1), None, None, None);
        assert_eq!(two.admit(&[3; 16], id(1), 0), Err(Refusal::Unknown), "revoked");
    }

    #[test]
    fn managers_agree_in_any_order() {
        let base = tokens(Some(5), None);
        let (mut a, mut b) = (base.clone(), base.clone());
        a.admit(&[1; 16], id(1), 0).unwrap();
        b.admit(&[1; 16], id(2), 0).unwrap();
        b.admit(&[1; 16], id(2), 0).unwrap();
        let (mut ab, mut ba) = (a.clone(), b.clone());
        assert!(ab.merge(b.records().to_vec()));
        assert!(ba.merge(a.records().to_vec()));
        assert!(!ab.merge(a.records().to_vec()), "nothing new");
        assert!(ab == ba);
        assert_eq!(ab.get(Role::Worker).and_then(uses_left), Some(2));
        // Two rotations at once: the same one wins everywhere.
        a.replace(Role::Worker, id(1), Some([7; 16]), None, None);
        b.replace(Role::Worker, id(2), Some([8; 16]), None, None);
        let (mut ab, mut ba) = (a.clone(), b.clone());
        ab.merge(b.records().to_vec());
        ba.merge(a.records().to_vec());
        assert!(ab == ba);
        assert_eq!(ab.admit(&[7; 16], id(1), 0), Err(Refusal::Unknown));
    }

    proptest! {
        #[test]
        fn every_token_survives_its_text(ca_digest: [u8; 32], secret: [u8; 16]) {
            let token = Token { ca_digest, secret };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,100}") {
            let _ = text.parse::<Token>();
        }
    }
}
