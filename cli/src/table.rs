//! Small tables in plain text.

use std::io::{self, Write};

use crate::human;

/// A table whose columns are as wide as their widest cell.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: usize,
}

struct Column {
    titles: Vec<String>,
    is_number: bool,
    cells: Vec<String>,
}

impl Column {
    fn width(&self) -> usize {
        self.titles.iter().chain(&self.cells).map(|text| human::width(text)).max().unwrap_or(0)
    }
}

/// What lies between two columns.
const GAP: &str = "  ";

impl Table {
    /// A table with these columns; those whose title begins with `>` hold numbers and stand at the right.
    pub(crate) fn new<const N: usize>(titles: [&str; N]) -> Self {
        let column = |title: &&str| {
            let name = title.strip_prefix('>');
            Column { titles: vec![name.unwrap_or(title).to_owned()], is_number: name.is_some(), cells: Vec::new() }
        };
        Self { columns: titles.iter().map(column).collect(), rows: 0 }
    }

    /// A table without columns yet.
    pub(crate) fn of_rows(rows: usize) -> Self {
        Self { columns: Vec::new(), rows }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows += 1;
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.cells.push(human::printable(&cell));
        }
    }

    /// Adds a column with its cells, under several lines of title.
    pub(crate) fn column(&mut self, titles: Vec<String>, is_number: bool, cells: Vec<String>) {
        self.columns.push(Column { titles, is_number, cells });
    }

    /// Keeps the first columns, as many as fit; gives how many.
    pub(crate) fn fit(&mut self, room: usize) -> usize {
        let mut used = 0;
        let fits = |column: &&Column| {
            used += column.width() + GAP.len();
            used <= room.saturating_add(GAP.len())
        };
        let kept = self.columns.iter().take_while(fits).count().max(1).min(self.columns.len());
        self.columns.truncate(kept);
        kept
    }

    /// Writes the table, each line cut to `room` columns.
    pub(crate) fn write(&self, out: &mut dyn Write, indent: &str, room: usize) -> io::Result<()> {
        let widths: Vec<_> = self.columns.iter().map(Column::width).collect();
        let titles = self.columns.first().map_or(0, |column| column.titles.len());
        let room = room.saturating_sub(indent.len());
        let mut line = |cell: &dyn Fn(&Column) -> String| {
            let mut text = String::new();
            for (column, &width) in self.columns.iter().zip(&widths) {
                let cell = cell(column);
                let pad = " ".repeat(width - human::width(&cell).min(width));
                let parts = if column.is_number { [&pad, &cell] } else { [&cell, &pad] };
                text.extend(parts.map(String::as_str));
                text.push_str(GAP);
            }
            writeln!(out, "{indent}{}", human::cut(text.trim_end(), room))
        };
        for i in 0..titles {
            line(&|column| column.titles.get(i).cloned().unwrap_or_default())?;
        }
        for i in 0..self.rows {
            line(&|column| column.cells.get(i).cloned().unwrap_or_default())?;
        }
        Ok(())
    }
}
