//! Who lists whom as what at one instant, as a grid of coloured cells.
//!
//! Neighbours in a row with the same status are one shape; thin lines over all of them make the cells.
//!
//! Not here: which instants (`crate::outcome`).

use super::svg::{Anchor, Svg};
use super::units;
use crate::outcome::Matrix;

const WIDTH: f64 = 510.0;
const LEFT: f64 = 58.0;
const TOP: f64 = 40.0;
/// The side of a grid of many cells.
const SIDE: f64 = WIDTH - LEFT - 8.0;
/// The side of a cell, at most.
const CELL_MAX: f64 = 26.0;
/// Hosts drawn, at most: with more, cells are too small to see.
const HOSTS_MAX: usize = 100;
/// Room that a label needs on its axis.
const LABEL: f64 = 30.0;

/// The letters, in the order of the legend.
pub(super) const LETTERS: [char; 7] = ['r', 's', 'd', 'l', '.', 'o', 'x'];

/// The class of a letter.
pub(super) const fn class(letter: char) -> &'static str {
    match letter {
        'r' => "cell ready",
        's' => "cell suspect",
        'd' => "cell down",
        'l' => "cell left",
        'o' => "cell own",
        'x' => "cell off",
        _ => "cell unlisted",
    }
}

pub(super) fn draw(matrix: &Matrix, name: &str) -> String {
    let Matrix { at_us, label, hosts, rows } = &sampled(matrix);
    let count = hosts.len().max(1);
    let cell = (SIDE / count as f64).min(CELL_MAX);
    let side = cell * count as f64;
    let title = format!("{name} at {} ({label}): a row for each observer", units::round_span(*at_us));
    let mut svg = Svg::new(WIDTH, TOP + side + 8.0, &title);
    for (row, (letters, observer)) in rows.iter().zip(hosts).enumerate() {
        draw_row(&mut svg, letters, (*observer, hosts), (TOP + cell * row as f64, cell));
    }
    if cell >= 4.0 {
        let inner: Vec<_> = (1..count).map(|n| cell * n as f64).collect();
        let mut strokes = Vec::new();
        for at in inner {
            strokes.push(((LEFT, TOP + at), (LEFT + side, TOP + at)));
            strokes.push(((LEFT + at, TOP), (LEFT + at, TOP + side)));
        }
        svg.strokes(&strokes, "gaps");
    }
    svg.rect((LEFT, TOP), (side, side), "border", "");
    let every = [1, 2, 4, 8, 16, 32].into_iter().find(|every| cell * *every as f64 >= LABEL).unwrap_or(64);
    for (n, host) in hosts.iter().enumerate().step_by(every) {
        let at = cell * (n as f64 + 0.5);
        svg.text((LEFT + at, TOP - 6.0), Anchor::Middle, "tick", &format!("n{host}"));
        svg.text((LEFT - 6.0, TOP + at + 4.0), Anchor::End, "tick", &format!("n{host}"));
    }
    svg.text((LEFT + side / 2.0, 14.0), Anchor::Middle, "axis-title", "subject: who is listed");
    svg.text_upwards((13.0, TOP + side / 2.0), "axis-title", "observer: who lists");
    svg.finish()
}

/// At most [`HOSTS_MAX`] of the hosts, evenly taken.
fn sampled(matrix: &Matrix) -> Matrix {
    let Matrix { at_us, label, hosts, rows } = matrix;
    let every = hosts.len().div_ceil(HOSTS_MAX).max(1);
    let row = |row: &String| row.chars().step_by(every).collect();
    Matrix {
        at_us: *at_us,
        label: label.clone(),
        hosts: hosts.iter().copied().step_by(every).collect(),
        rows: rows.iter().step_by(every).map(row).collect(),
    }
}

fn draw_row(svg: &mut Svg, letters: &str, (observer, hosts): (usize, &[usize]), (y, cell): (f64, f64)) {
    let cells: Vec<_> = letters.chars().zip(hosts.iter().copied()).collect();
    let mut from = 0;
    for run in cells.chunk_by(|(letter, _), (next, _)| letter == next) {
        let subjects: Vec<_> = run.iter().map(|(_, host)| *host).collect();
        if let Some((letter, _)) = run.first() {
            let x = LEFT + cell * from as f64;
            let size = (cell * run.len() as f64, cell);
            svg.rect((x, y), size, class(*letter), &tip(observer, &subjects, *letter));
            // A shape beside the colour, where there is room for one.
            if cell >= 10.0 && matches!(letter, 's' | 'd' | 'l') {
                for n in 0..run.len() {
                    let x = LEFT + cell * ((from + n) as f64 + 0.5);
                    svg.text((x, y + cell / 2.0 + 4.0), Anchor::Middle, "cell-letter", &letter.to_string());
                }
            }
        }
        from += run.len();
    }
}

fn tip(observer: usize, subjects: &[usize], letter: char) -> String {
    match letter {
        'o' => format!("n{observer} itself"),
        'x' => format!("nothing runs on n{observer}"),
        '.' => format!("n{observer} does not list {}", units::hosts(subjects)),
        _ => format!("n{observer} lists {} as {}", units::hosts(subjects), units::letter_word(letter)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn equal_neighbours_are_one_shape() {
        let (ours, _) = sample::deaf();
        let drawn = draw(&ours.matrices[0], "gossipd");
        // A row of 64 that are ready is two shapes around the observer itself, or one at either end, and the border.
        assert_eq!(drawn.matches("<rect").count(), 62 * 3 + 2 * 2 + 1);
        assert!(drawn.contains("n0 lists n1–n63 as ready"));
    }

    #[test]
    fn a_matrix_without_hosts_or_with_short_rows_is_drawn() {
        let empty = Matrix { at_us: 0, label: String::new(), hosts: Vec::new(), rows: Vec::new() };
        let short = Matrix { at_us: 0, label: String::new(), hosts: vec![1, 2], rows: vec!["o".to_owned()] };
        for matrix in [empty, short] {
            assert!(!draw(&matrix, "").contains("NaN"));
        }
    }
}
