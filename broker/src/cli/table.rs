//! Tables for people: columns as wide on the screen as they need to be.

use std::io;

use unicode_width::UnicodeWidthStr;

use super::out::{Look, Out};

/// Rows held before they are printed: they have the same widths. What comes later may only be wider, so that a list of
/// a million members needs no memory.
const ROWS_HELD_MAX: usize = 1_000;

/// Between two columns.
const GAP: usize = 2;

/// A table on its way to the screen. Cells must be safe to print.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Option<Vec<String>>,
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let widths = headings.iter().map(|heading| heading.width()).collect();
        Self { headings: Some(headings.iter().map(ToString::to_string).collect()), widths, rows: Vec::new() }
    }

    /// Puts a row below; many are shown at once.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>, out: &mut Out) -> io::Result<()> {
        let cells: Vec<_> = cells.into_iter().collect();
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.width().max(*width);
        }
        self.rows.push(cells);
        if self.rows.len() >= ROWS_HELD_MAX { self.show(out) } else { Ok(()) }
    }

    /// Shows the last rows. A table without rows has no headings either.
    pub(crate) fn end(mut self, out: &mut Out) -> io::Result<()> {
        self.show(out)
    }

    fn show(&mut self, out: &mut Out) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        if let Some(headings) = self.headings.take() {
            let headings = line(&headings, &self.widths);
            out.line(out.styled(Look::Strong, headings))?;
        }
        for row in self.rows.drain(..) {
            out.line(line(&row, &self.widths))?;
        }
        out.flush()
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width - cell.width() + GAP));
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_begin_below_each_other_on_the_screen() {
        let rows = [["USER", "ROLE"], ["你好", "member"], ["é", ""], ["bob", "admin"]];
        let lines: Vec<_> = rows.iter().map(|row| line(&row.map(String::from), &[5, 6])).collect();
        assert_eq!(lines, ["USER   ROLE", "你好   member", "é", "bob    admin"]);
    }
}
