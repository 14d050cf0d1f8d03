//! The page: a list of all runs, then each with its pictures and tables.
//!
//! Plain HTML with one style sheet and drawings in place. Every tag is closed, so that a reader of XML could follow.
//!
//! Not here: the pictures (`charts`, `spreads`, `matrix`), the style sheet (`style`).

use super::charts::{self, Timeline};
use super::style::STYLE;
use super::units::{self, escape};
use super::{Pair, figures, matrix, spreads};
use crate::compare::ratio;
use crate::outcome::{CHANGES_MAX, CheckResult, Expectation, Outcome, Protocol, Verdict};

/// Status matrices shown of one run.
const MATRICES_MAX: usize = 6;

/// One self-contained page on `outcomes`, each beside its counterpart in `baseline`: the same scenario with the same
/// seed, or else with any.
pub fn html(title: &str, outcomes: &[Outcome], baseline: &[Outcome]) -> String {
    let pairs: Vec<_> =
        outcomes.iter().map(|ours| Pair { ours, before: figures::counterpart(ours, baseline) }).collect();
    let title = escape(title);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n<title>{title}</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{PATTERNS}\n<main>\n<header id=\"top\">\n<h1>{title}</h1>\n"
    );
    out.push_str(&summary(outcomes, &pairs));
    out.push_str("</header>\n");
    out.push_str(&index(&pairs));
    for (n, pair) in pairs.iter().enumerate() {
        out.push_str(&section(n, pair));
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

/// Fills that are not one colour. The style sheet refers to them.
const PATTERNS: &str = r#"<svg class="patterns" width="0" height="0" aria-hidden="true"><defs><pattern id="p-suspect" width="4" height="4" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect class="p-suspect-back" width="4" height="4"/><rect class="p-suspect-line" width="1.4" height="4"/></pattern><pattern id="p-off" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect class="p-off-back" width="5" height="5"/><rect class="p-off-line" width="1" height="5"/></pattern></defs></svg>"#;

// ---- building blocks -----------------------------------------------------------------------------------------------

/// A table; the columns named in `right` are numbers. Cells are HTML already.
fn table(head: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let class = |column: usize| if right.contains(&column) { " class=\"num\"" } else { "" };
    let cells = |tag: &str, cells: &mut dyn Iterator<Item = String>| -> String {
        cells.enumerate().map(|(n, cell)| format!("<{tag}{}>{cell}</{tag}>", class(n))).collect()
    };
    let head = cells("th", &mut head.iter().map(|cell| escape(cell)));
    let body: String = rows.iter().map(|row| format!("<tr>{}</tr>\n", cells("td", &mut row.iter().cloned()))).collect();
    format!("<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table></div>\n")
}

fn escaped(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    rows.into_iter().map(|row| row.iter().map(|cell| escape(cell)).collect()).collect()
}

fn badge(verdict: Verdict) -> String {
    let (mark, word) = units::verdict(verdict);
    let class = if verdict == Verdict::Passed { "pass" } else { "fail" };
    format!("<span class=\"badge {class}\">{mark} {word}</span>")
}

fn mark(holds: bool) -> &'static str {
    if holds { "<span class=\"pass\">✓ kept</span>" } else { "<span class=\"fail\">✗ broken</span>" }
}

fn legend(pair: &Pair<'_>) -> String {
    let key = |(n, name, _): (usize, &str, &Outcome)| {
        let line = format!("<svg class=\"key\" viewBox=\"0 0 28 8\"><path class=\"line s{n}\" d=\"M1 4L27 4\"/></svg>");
        format!("<span>{line}{}</span>", escape(name))
    };
    let shade = "<span><svg class=\"key\" viewBox=\"0 0 28 8\"><rect class=\"shade\" width=\"28\" height=\"8\"/></svg>a fault</span>";
    let keys: String = pair.each().map(key).collect();
    format!("<p class=\"legend\">{keys}{shade}</p>")
}

fn figure(title: &str, legend: &str, drawing: &str, note: &str) -> String {
    let note = if note.is_empty() { String::new() } else { format!("<p class=\"note\">{note}</p>") };
    format!(
        "<figure>\n<figcaption><h3>{}</h3>{legend}</figcaption>\n<div class=\"drawing\">{drawing}</div>{note}\n</figure>\n",
        escape(title)
    )
}

// ---- the top -------------------------------------------------------------------------------------------------------

fn summary(outcomes: &[Outcome], pairs: &[Pair<'_>]) -> String {
    let passed = figures::passed(outcomes);
    let all = outcomes.len();
    let word = if passed == all { "pass" } else { "fail" };
    let before: Vec<_> = pairs.iter().filter_map(|pair| pair.before).collect();
    let beside = if before.is_empty() {
        String::new()
    } else {
        format!(" Their counterparts: {} of {} passed.", figures::passed(before.iter().copied()), before.len())
    };
    let runs = if all == 1 { "run" } else { "runs" };
    format!(
        "<p class=\"lead\"><span class=\"{word}\">{passed} of {all} {runs} passed.</span>{beside} All times are virtual; \
         a seed and a commit give a run again, and the trace's hash proves it.</p>\n"
    )
}

fn index(pairs: &[Pair<'_>]) -> String {
    let has_before = pairs.iter().any(|pair| pair.before.is_some());
    let row = |(n, pair): (usize, &Pair<'_>)| {
        let Outcome { scenario, seed, nodes, span_us, verdict, .. } = pair.ours;
        let ((kept, bounds), (_, failed)) = (figures::kept(pair.ours), figures::checked(pair.ours));
        let mut row = vec![
            badge(*verdict),
            format!("<a href=\"#run-{n}\">{}</a>", escape(scenario)),
            units::thousands(*nodes as u64),
            seed.to_string(),
            units::round_span(*span_us),
            format!("{kept} of {bounds}"),
            units::thousands(failed),
        ];
        if has_before {
            row.push(pair.before.map_or_else(|| "–".to_owned(), |before| badge(before.verdict)));
        }
        row
    };
    let rows: Vec<_> = pairs.iter().enumerate().map(row).collect();
    let mut head = vec!["verdict", "scenario", "nodes", "seed", "virtual time", "bounds kept", "checks failed"];
    if has_before {
        head.push("counterpart");
    }
    format!("<nav aria-label=\"runs\">\n{}</nav>\n", table(&head, &rows, &[2, 3, 4, 5, 6]))
}

// ---- one run -------------------------------------------------------------------------------------------------------

fn section(n: usize, pair: &Pair<'_>) -> String {
    let Outcome { scenario, about, seed, protocol, nodes, span_us, verdict, .. } = pair.ours;
    let timeline = Timeline::new(pair);
    let mut out = format!(
        "<section id=\"run-{n}\">\n<h2>{} {}</h2>\n<p class=\"about\">{}</p>\n<p class=\"facts\">{} nodes · {} of virtual \
         time · seed {seed} · {}</p>\n",
        escape(scenario),
        badge(*verdict),
        escape(about),
        units::thousands(*nodes as u64),
        units::round_span(*span_us),
        escape(units::protocol(*protocol))
    );
    out.push_str(&expected(pair));
    out.push_str(&over_time(&timeline, pair));
    out.push_str(&distributions(pair));
    out.push_str(&matrices(pair));
    out.push_str(&checks(pair));
    out.push_str(&all_figures(pair));
    out.push_str(&reproduce(pair));
    out.push_str("<p class=\"up\"><a href=\"#top\">↑ all runs</a></p>\n</section>\n");
    out
}

fn expected(pair: &Pair<'_>) -> String {
    if pair.ours.expectations.is_empty() {
        return String::new();
    }
    let names: Vec<_> = pair.each().map(|(_, name, _)| name).collect();
    let row = |expectation: &Expectation| {
        let mut row = vec![escape(&units::name(&expectation.name)), escape(&units::bound(expectation))];
        for (_, _, outcome) in pair.each() {
            let found = outcome.expectations.iter().find(|other| other.name == expectation.name);
            match found {
                Some(other) => {
                    row.push(escape(&units::maybe(&other.unit, other.actual)));
                    row.push(mark(other.holds).to_owned());
                }
                None => row.extend(["–".to_owned(), String::new()]),
            }
        }
        row
    };
    let rows: Vec<_> = pair.ours.expectations.iter().map(row).collect();
    let mut head = vec!["figure", "bound"];
    names.iter().for_each(|name| head.extend([*name, ""]));
    format!("<h3>Expected and actual</h3>\n{}", table(&head, &rows, &[1, 2, 4]))
}

fn over_time(timeline: &Timeline, pair: &Pair<'_>) -> String {
    let mut out = String::new();
    if !pair.ours.faults.is_empty() {
        out.push_str(&figure("Faults", "", &charts::lanes(timeline, &pair.ours.faults), ""));
    }
    let lines = legend(pair);
    if pair.each().any(|(_, _, outcome)| !outcome.convergence.is_empty()) {
        let note =
            "Of all ordered pairs of running nodes, those in which the one lists the other's present life as ready.";
        out.push_str(&figure("Convergence", &lines, &charts::convergence(timeline, pair), note));
    }
    let has_foca = pair.each().any(|(_, _, outcome)| outcome.protocol == Protocol::Foca);
    let mut note = "Accusations of nodes that ran and that no fault touched.".to_owned();
    if has_foca {
        note.push_str(" foca tells its user of no suspicions, only of downs.");
    }
    if pair.each().any(|(_, _, outcome)| outcome.changes.len() >= CHANGES_MAX) {
        note.push_str(&format!(" Only the first {} changes were kept.", units::thousands(CHANGES_MAX as u64)));
    }
    let keys = "<p class=\"legend\"><span><svg class=\"key\" viewBox=\"0 0 12 8\"><rect class=\"alarm-down\" width=\"12\" \
                height=\"8\"/></svg>listed down</span><span><svg class=\"key\" viewBox=\"0 0 12 8\"><rect \
                class=\"alarm-suspect\" width=\"12\" height=\"8\"/></svg>suspected</span></p>";
    let alarms = |outcome: &Outcome| figures::alarms(outcome);
    if pair.each().all(|(_, _, outcome)| alarms(outcome).suspect + alarms(outcome).down == 0) {
        out.push_str(
            "<h3>False alarms</h3>\n<p class=\"note\">None: nobody who ran and whom no fault touched was accused.</p>\n",
        );
    } else {
        out.push_str(&figure("False alarms", keys, &charts::alarms(timeline, pair), &note));
    }
    if pair.each().any(|(_, _, outcome)| !outcome.seconds.is_empty()) {
        let note =
            "Datagrams with their IP and UDP headers, and the bytes of exchanges, divided by the nodes that ran.";
        out.push_str(&figure("Traffic", &lines, &charts::traffic(timeline, pair), note));
    }
    out
}

fn distributions(pair: &Pair<'_>) -> String {
    let mut out = String::new();
    if pair.each().any(|(_, _, outcome)| !outcome.detections.is_empty()) {
        let head = ["", "first", "p50", "p99", "max", "missed"];
        let rows = table(&head, &escaped(spreads::detection_rows(pair)), &[1, 2, 3, 4, 5]);
        let drawing = format!("{}{rows}", spreads::detection(pair));
        let note = "Dots: half, 99 % and all of those that saw it.";
        out.push_str(&figure("Detection of crashes", &series_legend(pair), &drawing, note));
    }
    if pair.each().any(|(_, _, outcome)| !outcome.bytes_by_host.is_empty()) {
        let rows = table(&["", "least", "median", "most"], &escaped(spreads::hosts_rows(pair)), &[1, 2, 3]);
        let drawing = format!("{}{rows}", spreads::hosts(pair));
        let note = "A dot is a host, the box holds the middle half, the bar in it is the median.";
        out.push_str(&figure("Bytes by host", "", &drawing, note));
    }
    if out.is_empty() { out } else { format!("<div class=\"pair\">\n{out}</div>\n") }
}

/// The legend without the shading of faults.
fn series_legend(pair: &Pair<'_>) -> String {
    let key = |(n, name, _): (usize, &str, &Outcome)| {
        format!(
            "<span><svg class=\"key\" viewBox=\"0 0 28 8\"><path class=\"line s{n}\" d=\"M1 4L27 4\"/></svg>{}</span>",
            escape(name)
        )
    };
    format!("<p class=\"legend\">{}</p>", pair.each().map(key).collect::<String>())
}

fn matrices(pair: &Pair<'_>) -> String {
    let shown = &pair.ours.matrices;
    if shown.is_empty() {
        return String::new();
    }
    let key = |letter: char| {
        format!(
            "<span><svg class=\"key cell-key\" viewBox=\"0 0 12 12\"><rect class=\"{}\" width=\"12\" \
             height=\"12\"/></svg>{}</span>",
            matrix::class(letter),
            units::letter_word(letter)
        )
    };
    let keys: String = matrix::LETTERS.into_iter().map(key).collect();
    let mut out = format!("<h3>Who lists whom as what</h3>\n<p class=\"legend\">{keys}</p>\n");
    for (n, ours) in shown.iter().take(MATRICES_MAX).enumerate() {
        out.push_str(&format!(
            "<h4>{} <span class=\"when\">at {}</span></h4>\n<div class=\"pair\">\n",
            escape(&ours.label),
            units::round_span(ours.at_us)
        ));
        for (series, name, outcome) in pair.each() {
            let all = &outcome.matrices;
            let same = all.iter().find(|other| other.at_us == ours.at_us).or_else(|| all.get(n));
            if let Some(found) = if series == 0 { Some(ours) } else { same } {
                let late = if found.at_us == ours.at_us {
                    String::new()
                } else {
                    format!(" at {}", units::round_span(found.at_us))
                };
                out.push_str(&format!(
                    "<figure class=\"matrix\"><figcaption>{}{late}</figcaption>{}</figure>\n",
                    escape(name),
                    matrix::draw(found, name)
                ));
            }
        }
        out.push_str("</div>\n");
    }
    out
}

fn checks(pair: &Pair<'_>) -> String {
    let checks = &pair.ours.checks;
    if checks.is_empty() {
        return String::new();
    }
    let row = |check: &CheckResult| {
        let CheckResult { name, what, looked, failed, examples } = check;
        let holds = if *failed == 0 {
            "<span class=\"pass\">✓ held</span>"
        } else {
            "<span class=\"fail\">✗ did not hold</span>"
        };
        let examples: String =
            examples.iter().map(|example| format!("<br/><code>{}</code>", escape(example))).collect();
        vec![
            holds.to_owned(),
            escape(name),
            format!("{}{examples}", escape(what)),
            units::thousands(*looked),
            units::thousands(*failed),
        ]
    };
    let broken = checks.iter().filter(|check| check.failed > 0);
    let rows: Vec<_> = broken.chain(checks.iter().filter(|check| check.failed == 0)).map(row).collect();
    let (looked, failed) = figures::checked(pair.ours);
    let open = if failed > 0 { " open=\"open\"" } else { "" };
    format!(
        "<details{open}>\n<summary>Properties: {} checkers looked {} times, {} failures</summary>\n{}</details>\n",
        checks.len(),
        units::thousands(looked),
        units::thousands(failed),
        table(&["", "check", "property", "looked", "failed"], &rows, &[3, 4])
    )
}

fn all_figures(pair: &Pair<'_>) -> String {
    let ours = figures::all(pair.ours);
    let theirs = pair.before.map(figures::all).unwrap_or_default();
    let row = |figure: &figures::Figure| {
        let mut row = vec![escape(&units::name(&figure.name)), escape(&units::maybe(&figure.unit, figure.value))];
        if pair.before.is_some() {
            let before = theirs.iter().find(|other| other.name == figure.name).and_then(|other| other.value);
            row.push(escape(&units::maybe(&figure.unit, before)));
            row.push(escape(&ratio(before, figure.value)));
        }
        row
    };
    let rows: Vec<_> = ours.iter().map(row).collect();
    let mut head = vec!["figure"];
    head.extend(pair.each().map(|(_, name, _)| name));
    if pair.before.is_some() {
        head.push("ratio");
    }
    format!("<details>\n<summary>All figures</summary>\n{}</details>\n", table(&head, &rows, &[1, 2, 3]))
}

fn reproduce(pair: &Pair<'_>) -> String {
    let line = |(_, name, outcome): (usize, &str, &Outcome)| {
        format!(
            "<dt>{}</dt><dd><code>{}</code><br/>trace <code>{}</code></dd>\n",
            escape(name),
            escape(&figures::command(outcome)),
            escape(&outcome.trace)
        )
    };
    format!("<h3>Reproduce</h3>\n<dl class=\"reproduce\">\n{}</dl>\n", pair.each().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn page() -> String {
        let ((deaf, deaf_before), (split, split_before)) = (sample::deaf(), sample::split());
        html("gossipd against plain foca", &[deaf, split, sample::grid()], &[deaf_before, split_before])
    }

    /// Every tag that is opened is closed, in order, and every attribute is quoted.
    fn assert_balanced(page: &str) {
        let mut open: Vec<String> = Vec::new();
        let mut rest = page.strip_prefix("<!DOCTYPE html>").unwrap();
        while let Some((before, after)) = rest.split_once('<') {
            assert!(!before.contains('>') || open.last().is_some_and(|tag| tag == "style"), "stray > in {before:?}");
            let (tag, after) = after.split_once('>').unwrap();
            rest = after;
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(closed), "closed before {:.80}", rest);
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap().to_owned());
            }
            assert!(tag.matches('"').count().is_multiple_of(2), "{tag}");
            assert_eq!(
                tag.matches('=').count(),
                tag.matches("=\"").count() + tag.matches("th=device").count() + tag.matches("ale=1").count(),
                "{tag}"
            );
        }
        assert_eq!(open, Vec::<String>::new());
    }

    #[test]
    fn the_page_is_well_formed_and_needs_nothing_else() {
        let page = page();
        assert_balanced(&page);
        for word in ["<script", "http:", "https:", "src=", "@import", "url(\"", "NaN", "onload", "javascript:"] {
            assert!(!page.contains(word), "{word}");
        }
        // What the style sheet refers to is in the page.
        for reference in STYLE.split("url(#").skip(1) {
            let id = reference.split(')').next().unwrap();
            assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }

    #[test]
    fn text_is_escaped_wherever_it_comes_from() {
        let evil = "</style><script>alert(\"x\")</script>&'";
        let (mut ours, mut foca) = sample::split();
        for outcome in [&mut ours, &mut foca] {
            outcome.scenario = evil.to_owned();
            outcome.about = evil.to_owned();
            outcome.trace = evil.to_owned();
            outcome.figures.insert(evil.to_owned(), 1);
            outcome.faults.iter_mut().for_each(|fault| fault.kind = evil.to_owned());
            outcome.matrices.iter_mut().for_each(|matrix| matrix.label = evil.to_owned());
            outcome.expectations.iter_mut().for_each(|expectation| {
                expectation.name = evil.to_owned();
                expectation.unit = evil.to_owned();
            });
            outcome.checks.iter_mut().for_each(|check| {
                check.name = evil.to_owned();
                check.what = evil.to_owned();
                check.examples = vec![evil.to_owned()];
            });
        }
        let page = html(evil, &[ours], &[foca]);
        assert!(!page.contains("<script") && !page.contains("alert(\""));
        assert_balanced(&page);
    }

    #[test]
    fn the_index_links_to_each_run() {
        let page = page();
        for n in 0..3 {
            assert!(page.contains(&format!("href=\"#run-{n}\"")) && page.contains(&format!("id=\"run-{n}\"")));
        }
        assert!(page.contains("1 of 3 runs passed") && page.contains("0 of 2 passed"));
    }

    #[test]
    fn a_page_of_nothing_and_an_empty_run_are_pages() {
        assert_balanced(&html("", &[], &[]));
        let mut empty = sample::grid();
        empty.span_us = 0;
        empty.expectations.clear();
        empty.checks.clear();
        empty.faults.clear();
        empty.convergence.clear();
        empty.seconds.clear();
        empty.bytes_by_host.clear();
        empty.matrices.clear();
        let page = html("empty", &[empty], &[]);
        assert_balanced(&page);
        assert!(!page.contains("NaN"));
    }
}
