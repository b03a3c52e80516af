//! Tables: columns as wide as their widest cell, measured as a terminal shows them.

use std::fmt;

use super::plain::plain;

/// Rows of text under a heading.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with the heading `columns`.
    pub(crate) fn new<const N: usize>(columns: [&str; N]) -> Self {
        Table { rows: vec![columns.map(str::to_owned).to_vec()] }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A line end in a cell would begin a row of its own.
        let cell = |text: &String| plain(text).replace('\n', "\\n");
        self.rows.push(cells.iter().map(cell).collect());
    }

    /// Writes the table; a table without rows writes nothing.
    pub(crate) fn write(&self, f: &mut dyn fmt::Write) -> fmt::Result {
        if self.rows.len() == 1 {
            return Ok(());
        }
        let columns = self.rows[0].len();
        let width = |column: usize| {
            self.rows.iter().map(|row| console::measure_text_width(&row[column])).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                line.push_str(&console::pad_str(cell, width, console::Alignment::Left, None));
                line.push_str("  ");
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_need_to_be() {
        let mut table = Table::new(["BRANCH", "STATE"]);
        table.row(["production".to_owned(), "READY".to_owned()]);
        table.row(["é".to_owned(), "INIT".to_owned()]);
        let mut text = String::new();
        table.write(&mut text).unwrap();

        insta::assert_snapshot!(text, @r"
        BRANCH      STATE
        production  READY
        é           INIT
        ");
    }
}
