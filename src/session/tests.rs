//! Rows of what a session says, and of what a history keeps.

use super::*;

const LIMITS: Limits = Limits { changes: 100, bytes: 1 << 20 };

/// Changes 11 to `last`, each of which is its own number.
fn history(limits: Limits, last: u64) -> History<u64> {
    let mut history = History::new(10, limits);
    (11..=last).for_each(|revision| append(&mut history, revision));
    history
}

fn append(history: &mut History<u64>, revision: u64) {
    history.append(Entry { revision, bytes: 1, change: revision });
}

fn read(history: &History<u64>, cursor: u64, bytes_max: usize) -> Read<u64> {
    history.read(cursor, bytes_max, |change| Some((*change, 1)))
}

#[test]
fn every_cursor_gets_exactly_what_follows_it() {
    let mut history = history(LIMITS, 15);
    assert_eq!(history.oldest(), 10);
    for cursor in 10..15 {
        assert_eq!(read(&history, cursor, 100), Read::Changes((cursor + 1..=15).collect(), 15));
    }
    assert_eq!(read(&history, 15, 100), Read::Nothing);
    // A snapshot may be ahead of what has been published.
    assert_eq!(read(&history, 17, 100), Read::Nothing);
    (16..=18).for_each(|revision| append(&mut history, revision));
    assert_eq!(read(&history, 17, 100), Read::Changes(vec![18], 18));
}

#[test]
fn a_reader_takes_what_it_can_and_goes_on_from_there() {
    let history = history(LIMITS, 15);
    assert_eq!(read(&history, 10, 1), Read::Changes(vec![11], 11));
    let even = |change: &u64| change.is_multiple_of(2).then_some((*change, 1));
    assert_eq!(history.read(11, 1, even), Read::Changes(vec![12], 12));
    // What does not fit is passed over.
    assert_eq!(history.read(12, 1, |_| None::<((), usize)>), Read::Changes(vec![], 15));
}

#[test]
fn what_is_past_the_history_is_lag() {
    let history = history(Limits { changes: 3, ..LIMITS }, 15);
    assert_eq!(history.oldest(), 12);
    assert_eq!(read(&history, 11, 100), Read::Lagged(12));
    assert_eq!(read(&history, 12, 100), Read::Changes(vec![13, 14, 15], 15));
}

#[test]
fn bytes_are_bounded_too() {
    let mut history = History::new(0, Limits { changes: 1_000, bytes: 4_000 });
    for revision in 1..=1_000 {
        history.append(Entry { revision, bytes: 300, change: () });
    }
    assert_eq!((history.size(), history.oldest()), ((13, 3_900), 987));
}

#[test]
fn after_the_last_change_comes_the_first_reason() {
    let mut history = history(LIMITS, 12);
    history.close(CloseReason::Left);
    history.close(CloseReason::Shutdown);
    append(&mut history, 13);
    assert_eq!(read(&history, 11, 1), Read::Changes(vec![12], 12));
    assert_eq!(read(&history, 12, 1), Read::Closed(CloseReason::Left));
}

#[test]
fn what_cannot_be_resumed_has_its_reason() {
    // since, first of this life, oldest, present
    let rows = [
        ((100, 100, 100, 100), None),
        ((150, 100, 150, 200), None),
        ((200, 100, 150, 200), None),
        ((149, 100, 150, 200), Some(Gone::Forgotten { oldest: 150 })),
        ((99, 100, 150, 200), Some(Gone::EarlierLife { first: 100 })),
        ((201, 100, 150, 200), Some(Gone::Future { revision: 200 })),
    ];
    for ((since, first, oldest, revision), expected) in rows {
        let standing = Standing::<()> { revision, first, items: VecDeque::new() };
        let opened = Session::open(standing, Some(since), &History::<()>::new(oldest, LIMITS));
        assert_eq!(opened.err(), expected, "{since}");
    }
}

/// What is said, in words, as far as there is room.
#[derive(Default)]
struct Words(Vec<String>, usize);

impl Sink<&str, u64> for Words {
    fn room(&self) -> usize {
        self.1.saturating_sub(self.0.len())
    }

    fn say(&mut self, said: Said<&str, u64>) {
        self.0.push(match said {
            Said::Hello => "hello".to_owned(),
            Said::Item(item) => item.to_owned(),
            Said::Change(change) => format!("change {change}"),
            Said::Synced(revision) => format!("synced {revision}"),
            Said::Lagged { told, missed_up_to } => format!("lagged {told} {missed_up_to}"),
            Said::Closed(reason) => format!("closed {reason:?}"),
        });
    }
}

fn said(session: &mut Session<&str>, history: &History<u64>, room: usize) -> String {
    let mut words = Words(Vec::new(), room);
    session.fill(&mut words, |cursor, room| read(history, cursor, room));
    words.0.join(", ")
}

#[test]
fn a_session_says_the_snapshot_then_each_change_and_why_there_is_no_more() {
    let mut history = history(LIMITS, 11);
    // What led to 12 is not published yet.
    let standing = Standing { revision: 12, first: 10, items: ["one", "two", "three"].into() };
    let mut session = Session::open(standing, None, &history).unwrap();
    assert_eq!(said(&mut session, &history, 2), "hello, one");
    assert_eq!((session.pending(), session.cursor()), (2, 12));
    assert_eq!(said(&mut session, &history, 9), "two, three, synced 12");
    (12..=15).for_each(|revision| append(&mut history, revision));
    assert_eq!(said(&mut session, &history, 2), "change 13, change 14");
    assert_eq!(said(&mut session, &history, 9), "change 15");
    assert_eq!(said(&mut session, &history, 9), "");
    history.close(CloseReason::Removed);
    assert_eq!(said(&mut session, &history, 9), "closed Removed");
    assert!(session.is_over());
}

#[test]
fn one_that_resumes_is_synced_once_it_has_caught_up() {
    let mut history = history(Limits { changes: 4, ..LIMITS }, 13);
    let standing = Standing { revision: 14, first: 10, items: VecDeque::new() };
    let mut session = Session::open(standing, Some(11), &history).unwrap();
    assert_eq!(said(&mut session, &history, 9), "hello, change 12, change 13");
    append(&mut history, 14);
    assert_eq!(said(&mut session, &history, 9), "change 14, synced 14");
    (15..=20).for_each(|revision| append(&mut history, revision));
    assert_eq!(said(&mut session, &history, 9), "lagged 14 16");
    assert!(session.is_over());
}
