//! Faults built in on purpose, behind the feature `mutants`: the simulator has to find each of them, or its checkers
//! check nothing. Without the feature all of this is `false` and costs nothing.

use super::member::Swim;
use super::tables::Tables;
use super::{Cause, Config, Node, Now};
use crate::record::network::Endpoint;
use crate::wire::exchange::Liveness;
use crate::wire::table::{Body, Change, Scope, Step};

macro_rules! mutants {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        /// One fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mutant {
            $($(#[$doc])* $name,)+
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name on the command line.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }
    };
}

mutants! {
    /// A member that is down comes back in the same life, on a word from anybody.
    Resurrect = "resurrect",
    /// An older incarnation replaces a newer one.
    OlderIncarnation = "older-incarnation",
    /// One change in sixteen is not told to listeners.
    SkipEvent = "skip-event",
    /// The node lists itself as down once it is suspected.
    SelfDown = "self-down",
    /// Datagrams may be one byte too long.
    LongDatagram = "long-datagram",
    /// Nobody else is asked before somebody is accused.
    NoWitnesses = "no-witnesses",
    /// Suspicions of this node are not refuted.
    NoRefutation = "no-refutation",
    /// A node that hears nobody accuses everybody.
    NeverIsolated = "never-isolated",
    /// A stopped process is treated as one that is gone.
    NoPatience = "no-patience",
    /// Gossip goes on when there is nothing to tell.
    RestlessGossip = "restless-gossip",
    /// A goodbye is taken for a failure.
    DeafToGoodbyes = "deaf-to-goodbyes",
    /// The dead are never looked for again.
    NoHealing = "no-healing",
    /// A forged datagram's sender is believed to have been heard, and its bytes to be news.
    TrustForged = "trust-forged",
    /// Nobody is ever accused.
    Blind = "blind",
    /// A decision counts without a good signature.
    TrustUnsigned = "trust-unsigned",
    /// Decisions are not passed on.
    HoardDecisions = "hoard-decisions",
    /// An older decision replaces a newer one.
    OlderDecision = "older-decision",
    /// A decision may be from any time.
    AnyTime = "any-time",
    /// Others' decisions are not written to the disk.
    SkipKeep = "skip-keep",
    /// Whoever has joined is said to know what was decided before it asked.
    HastyJoin = "hasty-join",
    /// Decisions are not compared.
    NoComparison = "no-comparison",
    /// Whoever is asked says that it has everything.
    YesMan = "yes-man",
    /// A new decision is not told to listeners.
    SecretDecision = "secret-decision",
    /// The clock that dates decisions follows the wall clock alone.
    WallClock = "wall-clock",
    /// A node that was removed is listened to.
    HearRemoved = "hear-removed",
    /// A demoted manager's decisions count as before.
    TrustDemoted = "trust-demoted",
    /// A member's listing does not follow what is decided about it.
    StaleListing = "stale-listing",
    /// Whoever passes a step on changes what is in it.
    Meddle = "meddle",
    /// A step is taken in although something is missing before it.
    Gap = "gap",
    /// An older step is taken in.
    OlderStep = "older-step",
    /// Records of an owner that goes down are not marked.
    Unmarked = "unmarked",
    /// A node begins without its own tables.
    LoseOwn = "lose-own",
    /// What an earlier life has written is left as it is.
    KeepOldLife = "keep-old-life",
    /// Digests of tables say who has some, and not what is in them.
    BlindDigest = "blind-digest",
    /// Tables are not compared.
    NoTableComparison = "no-table-comparison",
    /// Whoever detaches from a network keeps what it holds of it.
    KeepNetwork = "keep-network",
    /// One change of tables in sixteen is not told to listeners.
    SecretRecord = "secret-record",
    /// Steps are not passed on.
    HoardSteps = "hoard-steps",
    /// A snapshot lacks one object.
    ShortSnapshot = "short-snapshot",
    /// A reader that resumes is told one change again.
    RepeatChange = "repeat-change",
    /// A reader that lags is not told so.
    SilentLag = "silent-lag",
    /// Readers may resume from changes that are forgotten.
    BoastHistory = "boast-history",
    /// Changes are never forgotten.
    HoardChanges = "hoard-changes",
}

impl Mutant {
    /// Is this the fault that is built in?
    #[inline]
    pub(crate) const fn is_in(self, flaw: Option<Self>) -> bool {
        cfg!(feature = "mutants") && matches!(flaw, Some(chosen) if chosen as u8 == self as u8)
    }
}

impl Config {
    /// Is this fault built in?
    #[inline]
    pub(super) const fn has(&self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        {
            mutant.is_in(self.mutant)
        }
        #[cfg(not(feature = "mutants"))]
        {
            let _ = mutant;
            false
        }
    }
}

impl Config {
    /// Does this node write as a later version might?
    #[inline]
    pub(super) const fn is_later(&self) -> bool {
        #[cfg(feature = "mutants")]
        {
            self.is_later_version
        }
        #[cfg(not(feature = "mutants"))]
        {
            false
        }
    }
}

impl Tables {
    /// Is this fault built in?
    #[inline]
    pub(super) const fn has(&self, mutant: Mutant) -> bool {
        mutant.is_in(self.flaw)
    }
}

impl Node {
    /// Is this fault built in?
    #[inline]
    pub(crate) const fn is_flawed(&self, mutant: Mutant) -> bool {
        self.config.has(mutant)
    }

    /// Builds the fault into the tables, too.
    pub(super) fn infect_tables(&mut self) {
        #[cfg(feature = "mutants")]
        {
            self.holdings.tables.flaw = self.config.mutant;
        }
    }

    /// A step as a mutant passes it on.
    pub(super) fn meddled(&self, step: Step) -> Step {
        if !self.config.has(Mutant::Meddle) {
            return step;
        }
        let change = |mut change: Change| {
            let endpoint = change.body.as_ref().and_then(|body| body.endpoint().ok());
            if let Some(endpoint) = endpoint.filter(|_| step.scope != Scope::Attachments) {
                change.body = Body::of_endpoint(&Endpoint { task: Some("meddled".to_owned()), ..endpoint }).ok();
            }
            change
        };
        Step { changes: step.changes.iter().cloned().map(change).collect(), ..step }
    }

    /// What the mutant of that name does.
    pub(super) fn trust_forged(&mut self, now: Now) {
        let victim = self.table.iter_active().map(|member| member.swim).next();
        if let Some(swim) = victim {
            self.apply(now, Swim { liveness: Liveness::Down, ..swim }, true, Cause::Gossip);
        }
    }
}
