//! Columns that line up in a terminal.
//!
//! Not here: what stands in them.

/// Rows as lines, each column as wide as its widest cell; columns named in `right` line up at their right ends.
/// Counts characters: every character used in reports is one column wide.
pub(crate) fn grid(rows: &[Vec<String>], right: &[usize], indent: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let gap = " ".repeat(width - cell.chars().count());
            let separator = if column == 0 { "" } else { "  " };
            line.push_str(separator);
            if right.contains(&column) {
                line.push_str(&gap);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&gap);
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_have_no_trailing_space() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["name", "bound", ""]), row(["heal", "≤ 5.00 s", "✓"]), row(["x", "1", "✗"])];
        assert_eq!(grid(&rows, &[1], 2), "  name     bound\n  heal  ≤ 5.00 s  ✓\n  x            1  ✗\n");
        assert_eq!(grid(&[], &[], 0), "");
    }
}
