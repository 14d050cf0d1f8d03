//! What a run looks like: in a terminal, as JSON, and as one page with pictures.
//!
//! * [`text`]: one run in full; [`table`]: a sweep in short; [`json`]: one run for programs;
//! * [`html`]: runs beside their counterparts, as one page that needs nothing else: no scripts, no other files.
//!
//! Everything reads [`Outcome`]s and nothing but them, and is decided by them.
//!
//! Not here: how a run is made (`crate::world`), and figures against figures in text (`crate::compare`).

mod charts;
pub(crate) mod figures;
pub(crate) mod grid;
mod matrix;
mod page;
#[cfg(test)]
pub(crate) mod sample;
mod spreads;
mod style;
mod svg;
mod text;
pub(crate) mod units;

pub use self::page::html;
pub use self::text::{idle_checks, table, text};
use crate::outcome::Outcome;

/// One run as pretty-printed JSON, as [`Outcome`] is defined.
///
/// # Errors
/// Never for an outcome as such; the error is the serializer's.
pub fn json(outcome: &Outcome) -> serde_json::Result<String> {
    serde_json::to_string_pretty(outcome)
}

/// A run and the one that it is compared with.
#[derive(Clone, Copy)]
struct Pair<'a> {
    ours: &'a Outcome,
    before: Option<&'a Outcome>,
}

impl<'a> Pair<'a> {
    /// Number, name and outcome of each series, ours first.
    fn each(self) -> impl DoubleEndedIterator<Item = (usize, &'static str, &'a Outcome)> {
        let Self { ours, before } = self;
        let is_same = before.is_some_and(|before| before.protocol == ours.protocol);
        let names = if is_same {
            ("after", "before")
        } else {
            (units::protocol(ours.protocol), before.map_or("", |before| units::protocol(before.protocol)))
        };
        [(0, names.0, ours)]
            .into_iter()
            .chain(before.map(|before| (1, names.1, before)))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let (ours, _) = sample::split();
        let text = json(&ours).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), ours);
        assert!(text.contains("\n  \"verdict\": \"out-of-bounds\""));
    }

    #[test]
    fn two_builds_are_named_by_time() {
        let (ours, foca) = sample::deaf();
        let names = |before| Pair { ours: &ours, before }.each().map(|(_, name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(None), ["gossipd"]);
        assert_eq!(names(Some(&foca)), ["gossipd", "plain foca"]);
        assert_eq!(names(Some(&ours)), ["after", "before"]);
    }
}
