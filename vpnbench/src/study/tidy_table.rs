//! The tidy table: one row per measurement, as CSV and Parquet.

use std::io::Write;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::model::{Direction, Row};

/// Columns, in order; the source of each value is `path` and `pointer` (RFC 6901).
pub const COLUMNS: [&str; 13] = [
    "system",
    "profile",
    "benchmark",
    "source",
    "target",
    "direction",
    "run",
    "flow",
    "metric",
    "value",
    "unit",
    "path",
    "pointer",
];

fn direction(row: &Row) -> &'static str {
    match row.direction {
        Direction::Forward => "forward",
        Direction::Reverse => "reverse",
    }
}

/// Writes CSV (RFC 4180) with a heading.
///
/// # Errors
/// When the writer fails.
pub fn csv(rows: &[Row], out: &mut dyn Write) -> Result<(), csv::Error> {
    let mut writer = csv::Writer::from_writer(out);
    writer.write_record(COLUMNS)?;
    for row in rows {
        let (run, flow, value) = (
            row.run.to_string(),
            row.flow.to_string(),
            row.value.to_string(),
        );
        writer.write_record([
            row.system.as_str(),
            &row.profile,
            &row.benchmark,
            row.source.as_deref().unwrap_or_default(),
            row.target.as_deref().unwrap_or_default(),
            direction(row),
            &run,
            &flow,
            &row.metric,
            &value,
            &row.unit,
            &row.path,
            &row.pointer,
        ])?;
    }
    writer.flush()?;
    Ok(())
}

/// Writes Parquet, compressed with zstd.
///
/// # Errors
/// When the writer fails.
pub fn parquet(rows: &[Row], out: &mut (dyn Write + Send)) -> Result<(), ParquetError> {
    let batch = batch(rows).map_err(|error| ParquetError::ArrowError(error.to_string()))?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(out, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

fn batch(rows: &[Row]) -> Result<RecordBatch, ArrowError> {
    let text = |of: fn(&Row) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let maybe = |of: fn(&Row) -> Option<&str>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    };
    let count = |of: fn(&Row) -> u32| -> ArrayRef {
        Arc::new(UInt32Array::from_iter_values(rows.iter().map(of)))
    };
    let columns: Vec<ArrayRef> = vec![
        text(|row| &row.system),
        text(|row| &row.profile),
        text(|row| &row.benchmark),
        maybe(|row| row.source.as_deref()),
        maybe(|row| row.target.as_deref()),
        text(direction),
        count(|row| row.run),
        count(|row| row.flow),
        text(|row| &row.metric),
        Arc::new(Float64Array::from_iter_values(
            rows.iter().map(|row| row.value),
        )),
        text(|row| &row.unit),
        text(|row| &row.path),
        text(|row| &row.pointer),
    ];
    let field = |name: &str| {
        let kind = match name {
            "run" | "flow" => DataType::UInt32,
            "value" => DataType::Float64,
            _ => DataType::Utf8,
        };
        Field::new(name, kind, matches!(name, "source" | "target"))
    };
    let schema = Schema::new(COLUMNS.map(field).to_vec());
    RecordBatch::try_new(Arc::new(schema), columns)
}
