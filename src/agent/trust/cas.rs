//! What is stored while the cluster's CA is changed: which ones are trusted, a certificate held ready, keys of both.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::{Trust, TrustError, ca_secrets, is_mostly_over, lock};
use crate::agent::state::{StoredAnchor, StoredCa, StoredCluster, StoredReserve};
use crate::agent::unix_ms;
use crate::ca::{Authority, Issued, NodeKey};
use crate::record::Role;
use crate::wire::admission::CaSecret;
use crate::wire::credential::{Anchor, Credential, ca_tag};

impl Trust {
    /// Somebody has shown a certificate of a CA that is not trusted here.
    pub(in crate::agent) fn note_unknown_ca(&self) {
        self.has_met_unknown_ca.store(true, Ordering::Relaxed);
    }

    /// Has somebody, since this was asked last?
    pub(in crate::agent) fn has_met_unknown_ca(&self) -> bool {
        self.has_met_unknown_ca.swap(false, Ordering::Relaxed)
    }

    /// The CA in use, and the one of which a certificate is held ready; by their tags, 0: none.
    pub(in crate::agent) fn ca_tags(&self) -> (u32, u32) {
        let inner = lock(&self.inner);
        let reserve = inner.stored.reserve.as_ref().map_or(0, |reserve| ca_tag(&reserve.ca_certificate));
        (ca_tag(&inner.stored.ca_certificate), reserve)
    }

    /// Makes a CA to be decided for; returns its certificate, DER.
    ///
    /// # Errors
    /// [`TrustError`]; nothing was made.
    pub(in crate::agent) fn prepare_ca(&self, now: SystemTime) -> Result<Vec<u8>, TrustError> {
        let mut inner = lock(&self.inner);
        let mut stored = inner.stored.clone();
        let manager = stored.manager.as_mut().ok_or(TrustError::NotManager)?;
        let (certificate, key, _) = Authority::create(inner.stored.cluster_id, NodeKey::generate()?, now)?;
        manager.cas.push(StoredCa { certificate: certificate.clone(), key });
        self.put_in_force(&mut inner, stored, now)?;
        Ok(certificate)
    }

    /// Does this manager have that CA's key?
    pub(in crate::agent) fn has_ca_key(&self, certificate: &[u8]) -> bool {
        let inner = lock(&self.inner);
        inner.stored.manager.as_ref().is_some_and(|manager| manager.cas.iter().any(|ca| ca.certificate == certificate))
    }

    /// The CAs' keys, for another manager.
    pub(in crate::agent) fn ca_secrets(&self) -> Vec<CaSecret> {
        lock(&self.inner).stored.manager.as_ref().map(ca_secrets).unwrap_or_default()
    }

    /// Takes in another manager's keys of CAs that are trusted here.
    ///
    /// # Errors
    /// [`TrustError`]; nothing was taken in.
    pub(in crate::agent) fn merge_cas(&self, theirs: Vec<CaSecret>, now: SystemTime) -> Result<(), TrustError> {
        let mut inner = lock(&self.inner);
        let mut stored = inner.stored.clone();
        let manager = stored.manager.as_mut().ok_or(TrustError::NotManager)?;
        for CaSecret { certificate, key } in theirs {
            let is_known = manager.cas.iter().any(|ca| ca.certificate == certificate);
            let is_trusted = inner.stored.trusted.iter().any(|anchor| anchor.certificate == certificate);
            let public = NodeKey::from_der(&key)?.public();
            let fits = public.is_some_and(|public| Anchor::new(&certificate).is_ok_and(|one| one.has_key(&public)));
            if is_trusted && fits && !is_known {
                manager.cas.push(StoredCa { certificate, key });
            }
        }
        if stored.manager == inner.stored.manager { Ok(()) } else { self.put_in_force(&mut inner, stored, now) }
    }

    /// Trusts these CAs, the oldest first, and no others. Says whether that is new.
    ///
    /// # Errors
    /// [`TrustError`]; those from before stay.
    pub(in crate::agent) fn trust_in(&self, cas: &[Vec<u8>], now: SystemTime) -> Result<bool, TrustError> {
        let mut inner = lock(&self.inner);
        if inner.stored.trusted.iter().map(|anchor| &anchor.certificate).eq(cas) {
            return Ok(false);
        }
        let mut stored = inner.stored.clone();
        stored.trusted = cas.iter().map(|certificate| StoredAnchor { certificate: certificate.clone() }).collect();
        // One that was prepared and not decided for yet was not trusted before either.
        let was_trusted = |ca: &[u8]| inner.stored.trusted.iter().any(|anchor| anchor.certificate == ca);
        if let Some(manager) = &mut stored.manager {
            manager.cas.retain(|ca| cas.contains(&ca.certificate) || !was_trusted(&ca.certificate));
        }
        stored.reserve = stored.reserve.filter(|reserve| cas.contains(&reserve.ca_certificate));
        self.put_in_force(&mut inner, stored, now)?;
        Ok(true)
    }

    /// Whether two thirds of the life of the certificate held ready are over: it may have to wait for a node that is down.
    pub(in crate::agent) fn is_reserve_due(&self, now: SystemTime) -> bool {
        let inner = lock(&self.inner);
        let reserve = inner.stored.reserve.as_ref();
        reserve.is_some_and(|reserve| is_mostly_over(reserve.issued_at_ms, reserve.expires_at_ms, now))
    }

    /// Holds a certificate of another CA ready.
    ///
    /// # Errors
    /// [`TrustError`]; nothing was stored.
    pub(in crate::agent) fn hold_ready(
        &self,
        ca_certificate: Vec<u8>,
        key: &NodeKey,
        Issued { certificate, expires_at_ms }: Issued,
        now: SystemTime,
    ) -> Result<(), TrustError> {
        let mut inner = lock(&self.inner);
        let private_key = key.to_der();
        if Credential::new(&certificate, &private_key)?.certified().id != self.me {
            return Err(TrustError::Foreign(self.me));
        }
        let issued_at_ms = unix_ms(now);
        let reserve = StoredReserve { ca_certificate, certificate, private_key, issued_at_ms, expires_at_ms };
        let stored = StoredCluster { reserve: Some(reserve), ..inner.stored.clone() };
        self.put_in_force(&mut inner, stored, now)
    }

    /// Shows the certificate that was held ready from now on, if there is one.
    ///
    /// # Errors
    /// [`TrustError`]; the old one stays.
    pub(in crate::agent) fn show_reserve(&self, now: SystemTime) -> Result<(), TrustError> {
        let mut inner = lock(&self.inner);
        let Some(reserve) = inner.stored.reserve.clone() else { return Ok(()) };
        let StoredReserve { ca_certificate, certificate, private_key, issued_at_ms, expires_at_ms } = reserve;
        let role = Credential::new(&certificate, &private_key)?.certified().role;
        let stored = StoredCluster {
            role,
            manager: inner.stored.manager.clone().filter(|_| role == Role::Manager),
            reserve: None,
            ca_certificate,
            certificate,
            private_key,
            certificate_issued_at_ms: issued_at_ms,
            certificate_expires_at_ms: expires_at_ms,
            ..inner.stored.clone()
        };
        self.put_in_force(&mut inner, stored, now)
    }
}
