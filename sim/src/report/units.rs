//! How numbers, times and names read: in text and in HTML alike.
//!
//! Not here: which numbers there are (`figures`).

use crate::outcome::{Expectation, FaultLane, Protocol, Verdict};

/// Hosts named before the rest is only counted.
const NAMED_MAX: usize = 6;

/// Text as it may stand in HTML, in an element or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in HTML at all.
            control if control.is_control() && control != '\n' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// `1234567` → `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A fraction with `digits` digits after the point: 1234567 / 1000000 → `1.235`.
fn fraction(number: u64, of: u64, digits: u32) -> String {
    let scale = 10_u64.pow(digits);
    let scaled = (u128::from(number) * u128::from(scale) + u128::from(of) / 2) / u128::from(of.max(1));
    let scaled = u64::try_from(scaled).unwrap_or(u64::MAX);
    match usize::try_from(digits) {
        Ok(width) if width > 0 => format!("{}.{:0width$}", thousands(scaled / scale), scaled % scale),
        _ => thousands(scaled),
    }
}

/// A span of time in microseconds, in the unit that fits, with about three digits.
pub(crate) fn span(us: u64) -> String {
    match us {
        0 => "0 s".to_owned(),
        1..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{} ms", fraction(us, 1_000, 1)),
        10_000..1_000_000 => format!("{} ms", fraction(us, 1_000, 0)),
        1_000_000..10_000_000 => format!("{} s", fraction(us, 1_000_000, 2)),
        10_000_000..100_000_000 => format!("{} s", fraction(us, 1_000_000, 1)),
        _ => format!("{} s", fraction(us, 1_000_000, 0)),
    }
}

/// A span that somebody chose, such as a bound: no digits that say nothing. `8000000` → `8 s`.
pub(crate) fn round_span(us: u64) -> String {
    trimmed(&span(us))
}

/// Without digits after the point that say nothing.
fn trimmed(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => text.to_owned(),
    }
}

/// Parts per million as a percentage.
pub(crate) fn percent(ppm: u64) -> String {
    let digits = match ppm {
        0 | 1_000_000 => 0,
        990_001..1_000_000 | 1..10_000 => 3,
        _ => 1,
    };
    format!("{} %", fraction(ppm, 10_000, digits))
}

/// A figure's name in words: its unit is shown with its value.
pub(crate) fn name(figure: &str) -> String {
    figure.strip_suffix("_us").unwrap_or(figure).replace('_', " ")
}

/// A figure in its unit.
pub(crate) fn value(unit: &str, number: u64) -> String {
    match unit {
        "us" | "µs" => span(number),
        "ms" => span(number.saturating_mul(1_000)),
        "s" => span(number.saturating_mul(1_000_000)),
        "ppm" => percent(number),
        "bytes" | "B" => format!("{} B", thousands(number)),
        "bytes/s" | "B/s" => format!("{} B/s", thousands(number)),
        "" | "count" => thousands(number),
        other => format!("{} {other}", thousands(number)),
    }
}

/// A figure that may not have been measured.
pub(crate) fn maybe(unit: &str, number: Option<u64>) -> String {
    number.map_or_else(|| "–".to_owned(), |number| value(unit, number))
}

/// The bound of an expectation: `≤ 5.00 s`.
pub(crate) fn bound(expectation: &Expectation) -> String {
    let Expectation { name: _, unit, at_least, at_most, actual: _, holds: _ } = expectation;
    let shown = |number: &u64| trimmed(&value(unit, *number));
    match (at_least, at_most) {
        (Some(least), Some(most)) if least == most => format!("= {}", shown(least)),
        (Some(least), Some(most)) => format!("{} … {}", shown(least), shown(most)),
        (Some(least), None) => format!("≥ {}", shown(least)),
        (None, Some(most)) => format!("≤ {}", shown(most)),
        (None, None) => "–".to_owned(),
    }
}

/// The unit of a figure that says it in its name: `heal_us` → `us`.
pub(crate) fn unit_of(name: &str) -> &'static str {
    let name = name.trim_end_matches("_max").trim_end_matches("_min");
    let endings = [
        ("bytes_per_node_s", "bytes/s"),
        ("_per_node_s", "count/s"),
        ("_us", "us"),
        ("_ms", "ms"),
        ("_s", "s"),
        ("_ppm", "ppm"),
        ("_bytes_per_s", "bytes/s"),
        ("bytes_per_node_per_s", "bytes/s"),
        ("bytes/s", "bytes/s"),
        ("bytes", "bytes"),
    ];
    endings.iter().find(|(ending, _)| name.ends_with(ending)).map_or("count", |(_, unit)| unit)
}

/// Hosts as a short list: `n3–n9, n12 and 40 more`.
pub(crate) fn hosts(hosts: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for &host in hosts {
        match runs.last_mut() {
            Some((_, to)) if host == *to + 1 => *to = host,
            _ => runs.push((host, host)),
        }
    }
    let name = |(from, to): &(usize, usize)| match to - from {
        0 => format!("n{from}"),
        1 => format!("n{from}, n{to}"),
        _ => format!("n{from}–n{to}"),
    };
    let named: Vec<_> = runs.iter().take(NAMED_MAX).map(name).collect();
    let rest: usize = runs.iter().skip(NAMED_MAX).map(|(from, to)| to - from + 1).sum();
    match (named.is_empty(), rest) {
        (true, _) => "everywhere".to_owned(),
        (false, 0) => named.join(", "),
        (false, rest) => format!("{} and {} more", named.join(", "), thousands(rest as u64)),
    }
}

/// What a fault was and whom it hit: `deaf n7`.
pub(crate) fn fault(lane: &FaultLane) -> String {
    let FaultLane { kind, hosts: hit, from_us: _, to_us: _, hits: _ } = lane;
    match hit.len() {
        0..=2 => format!("{kind} {}", hosts(hit)),
        many => format!("{kind} {} ({} hosts)", hosts(hit), thousands(many as u64)),
    }
}

/// What a fault touched: `1 hit`, `24,117 hits`.
pub(crate) fn hits(hits: u64) -> String {
    format!("{} {}", thousands(hits), if hits == 1 { "hit" } else { "hits" })
}

/// The protocol's name.
pub(crate) const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Gossipd => "gossipd",
        Protocol::Foca => "plain foca",
    }
}

/// The verdict's mark and words.
pub(crate) const fn verdict(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Passed => ("✓", "passed"),
        Verdict::OutOfBounds => ("✗", "out of bounds"),
        Verdict::NotConverged => ("✗", "not converged"),
        Verdict::Violated => ("✗", "property violated"),
    }
}

/// What a letter of a matrix stands for.
pub(crate) const fn letter_word(letter: char) -> &'static str {
    match letter {
        'r' => "ready",
        's' => "suspect",
        'd' => "down",
        'l' => "left",
        'o' => "the observer itself",
        'x' => "nothing runs here",
        _ => "not listed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_and_units_that_fit() {
        let rows = [(0, "0"), (7, "7"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")];
        rows.iter().for_each(|(number, text)| assert_eq!(thousands(*number), *text));
        let rows = [
            (0, "0 s"),
            (350, "350 µs"),
            (1_500, "1.5 ms"),
            (350_400, "350 ms"),
            (1_234_567, "1.23 s"),
            (52_340_000, "52.3 s"),
            (600_000_000, "600 s"),
            (3_600_000_000, "3,600 s"),
        ];
        rows.iter().for_each(|(us, text)| assert_eq!(span(*us), *text));
        let rows = [(8_000_000, "8 s"), (2_500_000, "2.5 s"), (500_000, "500 ms"), (600_000_000, "600 s"), (0, "0 s")];
        rows.iter().for_each(|(us, text)| assert_eq!(round_span(*us), *text));
        assert_eq!(percent(1_000_000), "100 %");
        assert_eq!(percent(999_990), "99.999 %");
        assert_eq!(percent(500_000), "50.0 %");
        assert_eq!(percent(0), "0 %");
        assert_eq!(value("bytes/s", 12_345), "12,345 B/s");
        assert_eq!(unit_of("heal_us"), "us");
        assert_eq!(unit_of("seed_bytes_max"), "bytes");
        assert_eq!(unit_of("renewals"), "count");
    }

    #[test]
    fn hosts_are_listed_in_runs() {
        assert_eq!(hosts(&[3]), "n3");
        assert_eq!(hosts(&[3, 4, 5, 9]), "n3–n5, n9");
        assert_eq!(hosts(&[]), "everywhere");
        assert_eq!(hosts(&(0..40).map(|n| n * 2).collect::<Vec<_>>()), "n0, n2, n4, n6, n8, n10 and 34 more");
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<a href='x'>&\"\u{1}"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}");
    }
}
