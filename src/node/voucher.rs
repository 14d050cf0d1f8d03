//! Who reaches others when this node cannot: where two sides do not see each other, few see both, and whoever of them is
//! found by chance is good for all inquiries.

use crate::record::NodeId;

#[derive(Debug, Default)]
pub(super) struct Voucher {
    /// Who, and whether it did not the last time.
    found: Option<(NodeId, bool)>,
}

impl Voucher {
    pub(super) fn who(&self) -> Option<NodeId> {
        self.found.map(|(who, _)| who)
    }

    /// A witness has reached a subject. It takes the place of who is gone, or did not reach the last one.
    pub(super) fn reached(&mut self, witness: NodeId, is_there: impl Fn(NodeId) -> bool) {
        let stays = self.found.is_some_and(|(who, has_failed)| who != witness && !has_failed && is_there(who));
        if !stays {
            self.found = Some((witness, false));
        }
    }

    /// It was asked and has not reached a subject, which may be dead: that counts once an inquiry. Who sees both sides will
    /// reach the next one; who was there by chance will not.
    pub(super) fn failed(&mut self) {
        self.found = self.found.and_then(|(who, has_failed)| (!has_failed).then_some((who, true)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: NodeId = NodeId::from_bytes([1; 16]);
    const LUCKY: NodeId = NodeId::from_bytes([2; 16]);

    fn found(told: impl FnOnce(&mut Voucher)) -> Option<NodeId> {
        let mut voucher = Voucher::default();
        voucher.reached(LUCKY, |_| true);
        told(&mut voucher);
        voucher.who()
    }

    #[test]
    fn who_reaches_others_again_and_again_stays() {
        assert_eq!(found(|voucher| voucher.reached(BRIDGE, |_| true)), Some(LUCKY), "it may see both sides");
        let again = |voucher: &mut Voucher| {
            for _ in 0..3 {
                voucher.failed();
                voucher.reached(LUCKY, |_| true);
            }
            voucher.reached(BRIDGE, |_| true);
        };
        assert_eq!(found(again), Some(LUCKY));
    }

    #[test]
    fn who_did_by_chance_or_is_gone_gives_way() {
        let fails = |voucher: &mut Voucher| {
            voucher.failed();
            voucher.reached(BRIDGE, |_| true);
        };
        assert_eq!(found(fails), Some(BRIDGE));
        assert_eq!(found(|voucher| voucher.reached(BRIDGE, |who| who != LUCKY)), Some(BRIDGE));
        let fails_twice = |voucher: &mut Voucher| {
            voucher.failed();
            voucher.failed();
        };
        assert_eq!(found(fails_twice), None);
    }
}
