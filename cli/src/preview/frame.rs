//! The head of a frame.

use std::io::{self, Write};

use arrow_array::{Array, RecordBatch};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;

use crate::table::Table;
use crate::{human, load};

const ROWS: usize = 10;
/// Wider cells are cut.
const CELL_COLUMNS: usize = 28;

pub(crate) fn show(batches: &[RecordBatch], room: usize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", load::size(batches))?;
    let Some(first) = batches.first() else { return Ok(()) };
    let schema = first.schema();
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut table = Table::of_rows(total.min(ROWS));
    for (index, field) in schema.fields().iter().enumerate() {
        let mut cells = Vec::new();
        for batch in batches {
            let rows = batch.num_rows().min(ROWS - cells.len());
            add_cells(batch.column(index), rows, &mut cells);
        }
        let short = |text: &str| human::cut(&human::printable(text), CELL_COLUMNS);
        let titles = vec![short(field.name()), short(&field.data_type().to_string())];
        let is_number = field.data_type().is_numeric();
        let cells = cells.iter().map(|cell| short(cell)).collect();
        table.column(titles, is_number, cells);
        // More columns than fit need not be formatted.
        if index * 2 > room {
            break;
        }
    }
    let columns = schema.fields().len();
    let kept = if columns == 0 { 0 } else { table.fit(room) };
    if kept > 0 {
        writeln!(out)?;
        table.write(out, "", room)?;
    }
    if total > ROWS && kept > 0 {
        writeln!(out, "… {}", human::many(total - ROWS, "more row"))?;
    }
    if kept < columns {
        let names: Vec<_> = schema.fields().iter().skip(kept).take(200).map(|field| field.name().as_str()).collect();
        let text = format!("… {}: {}", human::many(columns - kept, "more column"), names.join(", "));
        writeln!(out, "{}", human::cut(&human::printable(&text), room))?;
    }
    Ok(())
}

fn add_cells(column: &dyn Array, rows: usize, cells: &mut Vec<String>) {
    let options = FormatOptions::new().with_null("null");
    let quoted = matches!(column.data_type(), DataType::Null);
    match ArrayFormatter::try_new(column, &options) {
        Ok(formatter) if !quoted => cells.extend((0..rows).map(|row| formatter.value(row).to_string())),
        Ok(_) => cells.extend((0..rows).map(|_| "null".to_owned())),
        Err(_) => cells.extend((0..rows).map(|_| "?".to_owned())),
    }
}
