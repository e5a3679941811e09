//! Parquet: one table per event kind, `DIR/run=ID/host=NAME/KIND.parquet`, as engines read partitions (Hive's
//! layout). Columns are the record's fields under their names (docs/fleet.md) with `utc` (UTC, ns), and the names
//! of tap, namespace and device; the field's description is the column's metadata.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, UInt64Builder};
use arrow_array::{
    ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array,
};
use arrow_schema::{ArrowError, DataType, Field as Column, Schema, SchemaRef, TimeUnit};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use vpnbench_common::catalog::{KindRow, kind_row};

use super::{ExportError, Names, Shape, Value, field, is_exported, shape, tap, value};
use crate::trace::Event;
use crate::trace::model::Start;

/// Rows that are encoded at a time.
const ROWS: usize = 1 << 16;

/// Values of one column that wait.
enum Waiting {
    Unsigned(Vec<u64>),
    Signed(Vec<i64>),
    Text(Vec<Option<String>>),
    List(Vec<Vec<u64>>),
    Time(Vec<i64>),
}

struct Table {
    row: &'static KindRow,
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<File>,
    columns: Vec<Waiting>,
    rows: usize,
}

/// Writes all tables of one trace.
pub struct Tables {
    folder: PathBuf,
    tables: BTreeMap<u8, Table>,
}

/// A value of a partition's name, without what file systems and engines give a meaning.
fn name(text: &str) -> String {
    let plain = |one: char| one.is_ascii_alphanumeric() || "-_.".contains(one);
    text.chars()
        .map(|one| if plain(one) { one } else { '_' })
        .collect()
}

impl Tables {
    /// Tables of a trace below a directory.
    ///
    /// # Errors
    ///
    /// When the directory cannot be created.
    pub fn create(folder: &Path, start: &Start) -> Result<Tables, ExportError> {
        let folder = folder
            .join(format!("run={}", name(&start.run_id)))
            .join(format!("host={}", name(&start.host.hostname)));
        fs::create_dir_all(&folder).map_err(|source| ExportError::Write {
            path: folder.display().to_string(),
            source,
        })?;
        Ok(Tables {
            folder,
            tables: BTreeMap::new(),
        })
    }

    /// Where this trace's tables are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds one event.
    ///
    /// # Errors
    ///
    /// What cannot be written.
    pub fn add(&mut self, event: &Event<'_>, names: &Names) -> Result<(), ExportError> {
        let kind = event.kind() as u8;
        let Some(row) = kind_row(kind) else {
            return Ok(());
        };
        if !self.tables.contains_key(&kind) {
            let table = Table::create(&self.folder, row)?;
            self.tables.insert(kind, table);
        }
        match self.tables.get_mut(&kind) {
            Some(table) => table.add(event, names),
            None => Ok(()),
        }
    }

    /// Ends all tables.
    ///
    /// # Errors
    ///
    /// What cannot be written.
    pub fn finish(self) -> Result<(), ExportError> {
        for (_, mut table) in self.tables {
            table.flush()?;
            let path = table.path.display().to_string();
            let closed = table.writer.close();
            closed.map_err(|source| ExportError::Parquet { path, source })?;
        }
        Ok(())
    }
}

fn column(name: &str, kind: DataType, doc: &str) -> Column {
    let doc = HashMap::from([("description".to_owned(), doc.to_owned())]);
    Column::new(name, kind, true).with_metadata(doc)
}

fn list() -> DataType {
    DataType::List(Arc::new(Column::new("item", DataType::UInt64, true)))
}

impl Table {
    fn create(folder: &Path, row: &'static KindRow) -> Result<Table, ExportError> {
        let path = folder.join(format!("{}.parquet", row.name));
        let file = File::create(&path).map_err(|source| ExportError::Write {
            path: path.display().to_string(),
            source,
        })?;
        let utc = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let mut columns = vec![
            column("utc", utc, "time in UTC"),
            column("tap_name", DataType::Utf8, "name of the tap"),
            column("namespace", DataType::Utf8, "name of the network namespace"),
            column("device", DataType::Utf8, "name of the device"),
        ];
        let mut waiting = vec![
            Waiting::Time(Vec::new()),
            Waiting::Text(Vec::new()),
            Waiting::Text(Vec::new()),
            Waiting::Text(Vec::new()),
        ];
        for of in row.fields.iter().filter(|of| is_exported(of)) {
            let (kind, values) = match shape(of) {
                Shape::Unsigned => (DataType::UInt64, Waiting::Unsigned(Vec::new())),
                Shape::Signed => (DataType::Int64, Waiting::Signed(Vec::new())),
                Shape::Text => (DataType::Utf8, Waiting::Text(Vec::new())),
                Shape::List => (list(), Waiting::List(Vec::new())),
            };
            columns.push(column(of.name, kind, of.doc));
            waiting.push(values);
        }
        let schema = Arc::new(Schema::new(columns));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
        let writer = writer.map_err(|source| ExportError::Parquet {
            path: path.display().to_string(),
            source,
        })?;
        Ok(Table {
            row,
            path,
            schema,
            writer,
            columns: waiting,
            rows: 0,
        })
    }

    fn add(&mut self, event: &Event<'_>, names: &Names) -> Result<(), ExportError> {
        let record = event.bytes();
        let netns = field(self.row, record, "netns").map(|netns| netns as u32);
        let ifindex = field(self.row, record, "ifindex").map(|ifindex| ifindex as u32);
        let namespace = netns.and_then(|netns| names.namespace(netns));
        let device = netns
            .zip(ifindex)
            .and_then(|(netns, index)| names.device(netns, index));
        let mut values = vec![
            Value::Text(tap(self.row, record).map(str::to_owned)),
            Value::Text(namespace.map(str::to_owned)),
            Value::Text(device),
        ];
        let fields = self.row.fields.iter().filter(|of| is_exported(of));
        values.extend(fields.map(|of| value(self.row, of, record)));
        if let Some(Waiting::Time(times)) = self.columns.first_mut() {
            times.push(names.utc_ns(event.time_ns()));
        }
        for (column, value) in self.columns[1..].iter_mut().zip(values) {
            match (column, value) {
                (Waiting::Unsigned(list), Value::Unsigned(value)) => list.push(value),
                (Waiting::Signed(list), Value::Signed(value)) => list.push(value),
                (Waiting::Text(list), Value::Text(value)) => list.push(value),
                (Waiting::List(list), Value::List(value)) => list.push(value),
                // Shapes of columns and values come from the same function.
                _ => {}
            }
        }
        self.rows += 1;
        if self.rows >= ROWS {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.rows = 0;
        let arrays = self.columns.iter_mut().map(Waiting::take).collect();
        let written = RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|error: ArrowError| ParquetError::General(error.to_string()))
            .and_then(|batch| self.writer.write(&batch));
        written.map_err(|source| ExportError::Parquet {
            path: self.path.display().to_string(),
            source,
        })
    }
}

impl Waiting {
    fn take(&mut self) -> ArrayRef {
        match self {
            Waiting::Unsigned(list) => Arc::new(UInt64Array::from(std::mem::take(list))),
            Waiting::Signed(list) => Arc::new(Int64Array::from(std::mem::take(list))),
            Waiting::Text(list) => Arc::new(StringArray::from(std::mem::take(list))),
            Waiting::Time(list) => {
                let times = TimestampNanosecondArray::from(std::mem::take(list));
                Arc::new(times.with_timezone("UTC"))
            }
            Waiting::List(rows) => {
                let mut builder = ListBuilder::new(UInt64Builder::new());
                for row in std::mem::take(rows) {
                    builder.values().append_slice(&row);
                    builder.append(true);
                }
                Arc::new(builder.finish())
            }
        }
    }
}
